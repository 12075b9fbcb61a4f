"""Oracles: brute force and cvxpy twins of the fast solvers. Slow, short, and independent of them."""

from __future__ import annotations

import warnings
from functools import lru_cache

import cvxpy as cp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from games.brute_force import brute_force
from games.congestion import CongestionGame

__all__ = ["brute_force", "delay_shares", "gibbs"]


def delay_shares(weight: ArrayLike, floor: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """One resource: minimise sum w_i^2 / f_i with f_i >= floor_i and sum f_i <= 1, by Clarabel.

    Returns shares (N,) and the objective, nan and inf where the floors do not fit. Shares are in units of the
    square-root rule, which conditions the program; what the solver leaves of a violation (1e-10, but dear where
    floors nearly fill the resource) is taken out, so that the objective is that of a feasible point.
    """
    w, low = np.asarray(weight, float), np.asarray(floor, float)
    unit = w / w.sum()
    problem, part = _delay_program(len(w))
    problem.param_dict["unit"].value, problem.param_dict["low"].value = unit, low / unit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate": 1e-12 is asked, and not always had
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    if part.value is None:
        return np.full(len(w), np.nan), np.inf
    over = np.maximum(unit * part.value - low, 0.0)
    share = low + over * (1.0 - low.sum()) / over.sum()
    return share, float((w**2 / share).sum())


@lru_cache(maxsize=32)
def _delay_program(n: int) -> tuple[cp.Problem, cp.Variable]:
    part = cp.Variable(n)
    unit, low = cp.Parameter(n, nonneg=True, name="unit"), cp.Parameter(n, nonneg=True, name="low")
    return cp.Problem(cp.Minimize(unit @ cp.inv_pos(part)), [part >= low, unit @ part <= 1]), part


def gibbs(game: CongestionGame, log_prior: ArrayLike, trust: float) -> NDArray[np.float64]:
    """A Gibbs-prior fixed point by damped Jacobi iteration in plain numpy: (N, O) mixed strategies."""
    prior = np.asarray(log_prior, float)
    incidence = np.zeros((len(game.options), game.weight.shape[1]))
    for o, resources in enumerate(game.options):
        incidence[o, resources[resources >= 0]] = 1.0
    allowed = game.allowed

    def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
        z = np.where(allowed, z, -np.inf)
        z = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(z / z.sum(axis=1, keepdims=True))

    sigma = softmax(prior)
    for k in range(20_000):
        used = (sigma @ incidence) * game.weight
        others = used.sum(axis=0)[None] - used
        price = game.weight * (game.weight + (1 + game.toll) * others) / game.capacity
        after = softmax(prior - trust * (game.private_cost + price @ incidence.T))
        if np.abs(after - sigma).max(initial=0.0) < 1e-12:
            break
        sigma = sigma + (after - sigma) / (2 + k / 500)
    return sigma
