r"""Gibbs-prior equilibrium: the logit quantal-response equilibrium with a prior.

The fixed point of

.. math:: \sigma_i(o) \propto prior_i(o) \exp(-trust \cdot cost_i(o; \sigma_{-i}))

by Gauss-Seidel sweeps. Costs are affine in each other agent's strategy, so the expected cost at
:math:`\sigma_{-i}` is the cost at the expected load, and each reply minimises, over :math:`\sigma_i` alone,

.. math:: F(\sigma) = E_\sigma[potential] + \frac{1}{trust} \sum_i KL(\sigma_i \| prior_i).

Every sweep lowers F, so the sweeps converge (:mod:`games.gibbs_sweeps` has them, compiled, and what speeds
them up). trust 0 returns the prior; a large trust ends in a pure Nash equilibrium. ``choice`` is the mixed
answer rounded: best responses on potential - (1/trust) sum log prior, which is still an exact potential, from
each agent's most likely option. At that point no agent gains more than (max log prior - min log prior) / trust
in the unmodified game.

Sources: McKelvey and Palfrey (1995), "Quantal response equilibria"; Jacob et al. (2022), "Modeling strong
and human-like gameplay with KL-regularized search" (piKL) for the anchor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from games.best_response import above_least, best_response_batch
from games.congestion import CongestionBatch, CongestionGame, Equilibrium, Float, Int
from games.errors import InvalidGameError, floats
from games.gibbs_sweeps import largest_change, sweep_games, sweep_games_parallel


def gibbs_equilibrium(
    game: CongestionGame,
    log_prior: ArrayLike,
    trust: float,
    start: ArrayLike | None = None,
    *,
    tolerance: float = 1e-8,
    max_sweeps: int = 2000,
) -> Equilibrium:
    """Mixed equilibrium anchored to a prior, and its pure rounding.

    Args:
        game: the game; N agents, O options.
        log_prior: (N, O) log-probabilities up to a constant an agent; -inf forbids an option.
        trust: >= 0, in 1 / cost; inf ignores the prior and is best-response dynamics.
        start: (N, O) mixed strategies to warm-start from; default the prior.
        tolerance: largest change of a probability in the last sweep.
        max_sweeps: passes over all agents before the search gives up.

    Returns:
        Equilibrium with ``mixed`` (N, O), the rounded ``choice`` and its regret in the unmodified game.

    Raises:
        InvalidGameError: trust < 0 or NaN, a wrong shape, a NaN, or an agent whose prior forbids all options.
    """
    prior = floats("log_prior", log_prior)
    shape = game.private_cost.shape
    if prior.shape != shape:
        raise InvalidGameError(f"log_prior has shape {prior.shape}; the game needs {shape}")
    if np.isnan(prior).any() or np.isposinf(prior).any():
        agent, option = np.argwhere(np.isnan(prior) | np.isposinf(prior))[0]
        raise InvalidGameError(f"log_prior[{agent}, {option}] = {prior[agent, option]}; it must be < inf")
    if not trust >= 0:
        raise InvalidGameError(f"trust = {trust}; it must be >= 0 (0 is the prior, inf the game alone)")
    permitted = game.allowed & np.isfinite(prior)
    if game.agents and not permitted.any(axis=1).all():
        agent = int(np.argmin(permitted.any(axis=1)))
        raise InvalidGameError(f"log_prior[{agent}] forbids every allowed option; leave at least one finite")
    batch = game.batch()._replace(allowed=permitted[None])
    prior = np.where(permitted, prior, 0.0)[None]
    mixed = _softmax(prior, permitted[None]) if start is None else floats("start", start)[None].copy()
    if mixed.shape != (1, *shape):
        raise InvalidGameError(f"start has shape {mixed.shape[1:]}; the game needs {shape}")
    _check_start(mixed[0])
    if np.isinf(trust):
        choice = np.where(permitted, mixed[0], -1.0).argmax(axis=1)[None] if game.agents else np.zeros((1, 0), int)
        sweeps = int(best_response_batch(batch, choice, 1e-10, max_sweeps)[0])
        mixed = np.zeros((1, *shape))
        mixed[0, np.arange(game.agents), choice[0]] = 1.0
        residual, limit = 0.0, max_sweeps
    else:
        batch = batch._replace(private_cost=above_least(batch.private_cost, batch.allowed))
        costs = np.zeros_like(prior)
        sweeps = int(gibbs_batch(batch, prior, trust, mixed, costs, tolerance, max_sweeps)[0])
        limit = max_sweeps
        residual = float(
            largest_change(
                game.options, game.weight, game.capacity, game.private_cost, permitted, game.toll, prior[0],
                trust, mixed[0],
            )
        )  # fmt: skip
        choice = round_batch(batch, prior, trust, costs)
    converged = sweeps <= limit
    return Equilibrium(
        choice=choice[0],
        mixed=mixed[0],
        regret=game.regret(choice[0]),
        potential=game.potential(choice[0]),
        sweeps=min(sweeps, limit),
        residual=residual,
        converged=converged,
        status="converged" if converged else f"stopped after {limit} sweeps, residual {residual:.1e}",
    )


def _check_start(mixed: Float) -> None:
    bad = ~(np.isfinite(mixed) & (mixed >= 0))
    if bad.any():
        agent, option = np.argwhere(bad)[0]
        raise InvalidGameError(f"start[{agent}, {option}] = {mixed[agent, option]}; a probability is >= 0")
    total = mixed.sum(axis=1)
    if (np.abs(total - 1) > 1e-6).any():
        agent = int(np.argmax(np.abs(total - 1)))
        raise InvalidGameError(f"start[{agent}] sums to {total[agent]}; probabilities sum to 1")


def gibbs_batch(
    batch: CongestionBatch,
    log_prior: Float,
    trust: float,
    mixed: Float,
    costs: Float,
    tolerance: float = 1e-4,
    max_sweeps: int = 30,
    parallel: bool = False,
) -> Int:
    """Gibbs-prior equilibria of E games; ``mixed`` (E, N, O) is start and answer.

    ``costs`` (E, N, O) receives each option's expected cost at the answer (0 for agents not live).
    ``parallel`` spreads the games over numba's threads. Returns (E,) sweeps used, ``max_sweeps + 1`` where
    the limit stopped the search.
    """
    sweeps = np.empty(len(mixed), np.int64)
    run: Any = sweep_games_parallel if parallel else sweep_games
    work = np.ascontiguousarray(mixed)
    run(
        batch.options, batch.weight, batch.capacity, batch.private_cost, batch.allowed, batch.live,
        batch.toll, log_prior, trust, work, costs, tolerance, max_sweeps, sweeps,
    )  # fmt: skip
    if work is not mixed:
        mixed[...] = work
    return sweeps


def round_batch(
    batch: CongestionBatch,
    log_prior: Float,
    trust: float,
    costs: Float,
    max_sweeps: int = 200,
    parallel: bool = False,
) -> Int:
    """(E, N) pure equilibria of the games tilted by -log_prior / trust, from the most likely options."""
    score = np.where(batch.allowed, log_prior - trust * costs, -np.inf)
    choice = score.argmax(axis=-1) if score.shape[-2] else np.zeros(score.shape[:2], np.int64)
    if trust > 0:
        best_response_batch(batch, choice, 1e-10, max_sweeps, tilt=-log_prior / trust, parallel=parallel)
    return choice


def _softmax(logits: Float, allowed: Any) -> Float:
    if not logits.size:
        return np.zeros_like(logits)
    z = np.where(allowed, logits, -np.inf)
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(z / z.sum(axis=-1, keepdims=True))
