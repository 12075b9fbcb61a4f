"""Oracles: brute force and cvxpy twins of the fast solvers. Slow, short, and independent of them."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from games.brute_force import brute_force
from games.congestion import CongestionGame

__all__ = ["brute_force", "delay_shares", "gibbs"]


def delay_shares(weight: ArrayLike, floor: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """One resource: minimise sum w_i^2 / f_i with f_i >= floor_i and sum f_i <= 1, by Clarabel.

    Returns shares (N,) and the objective; raises cvxpy's SolverError on failure.
    """
    w, low = np.asarray(weight, float), np.asarray(floor, float)
    f = cp.Variable(len(w))
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(w**2, cp.inv_pos(f)))), [f >= low, cp.sum(f) <= 1])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    if f.value is None:
        return np.full(len(w), np.nan), np.inf
    return np.asarray(f.value), float(problem.value)


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
