r"""Step 1: merge a proposal and a game into a Gibbs-prior equilibrium.

The log prior is shifted so that each agent's best option is at 0 and clipped to [-limit, 0]; the equilibrium
anchored to it is rounded by best responses on the tilted potential. At the rounded point
:math:`cost_i(o_i) - \log prior_i(o_i) / trust` is least, so no agent gains more than ``limit / trust`` in the
unmodified game: the epsilon bound.

In training the mixed strategy itself is executed, and the policy gradient sees its log-density,
log_softmax(log prior - trust cost) with the cost held constant ("train on what is executed").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.budget import Clock
from games.best_response import best_response_batch
from games.congestion import Bool, CongestionBatch, Float, Int
from games.gibbs import gibbs_batch

MAX_REPLIES = 200  # sweeps of best responses: never reached in practice, they descend an exact potential


@dataclass(frozen=True)
class Merged:
    """Joint choices of E games.

    Attributes:
        option: (E, N) chosen options; 0 for agents that are not live.
        bias: (E, N, O) -trust cost at the equilibrium, what the game adds to the log prior.
        sweeps: (E,) passes of the solver, above its limit where it was stopped.
        converged: (E,) whether the mean field met its tolerance.
        stable: (E,) whether best responses came to rest at ``option``: what the epsilon bound needs.
    """

    option: Int
    bias: Float
    sweeps: Int
    converged: Bool
    stable: Bool


def clip_prior(log_prior: Float, allowed: Bool, limit: float) -> Float:
    """Shift each agent's best allowed option to 0 and clip the others to [-limit, 0]; shape (..., N, O)."""
    if not log_prior.size:
        return np.zeros_like(log_prior, dtype=np.float64)
    z = np.where(allowed, log_prior, -np.inf)
    z = z - z.max(axis=-1, keepdims=True)
    return np.where(allowed, np.maximum(z, -limit), 0.0)


def flat_prior(batch: CongestionBatch) -> Float:
    """The prior of a recommender that knows nothing: with it the merge is the game's own equilibrium."""
    return np.zeros_like(batch.private_cost)


def equilibrate(
    batch: CongestionBatch, log_prior: Float, trust: float, max_sweeps: int = 12, clock: Clock | None = None
) -> Merged:
    """The pure choice to execute: mean-field Gibbs sweeps, then rounding by best response.

    ``log_prior`` (E, N, O) is clipped already. trust 0 takes the prior's best option, inf the game's own pure
    equilibrium. With a ``clock`` that has a budget both stop in time.
    """
    if trust == 0:
        option = _argmax(log_prior, batch.allowed)
        option[~batch.live] = 0
        ones = np.ones(len(option), np.int64)
        return Merged(option, np.zeros_like(log_prior), ones, ones > 0, ones < 0)
    if np.isinf(trust):
        option = _argmax(-batch.private_cost, batch.allowed)
        sweeps = respond(batch, option, None, clock)
        return Merged(option, np.zeros_like(log_prior), sweeps, sweeps <= MAX_REPLIES, sweeps <= MAX_REPLIES)
    costs = np.zeros_like(log_prior)
    mixed = prior_strategy(log_prior, batch.allowed)
    sweep = lambda most: gibbs_batch(batch, log_prior, trust, mixed, costs, 1e-3, most)
    sweeps = _in_time(sweep, max_sweeps, clock)
    option = _argmax(log_prior - trust * costs, batch.allowed)
    stable = respond(batch, option, -log_prior / trust, clock) <= MAX_REPLIES
    return Merged(option, -trust * costs, sweeps, sweeps <= max_sweeps, stable)


def respond(batch: CongestionBatch, option: Int, tilt: Float | None, clock: Clock | None = None) -> Int:
    """Best responses from ``option`` (E, N), overwritten; (E,) sweeps, above ``MAX_REPLIES`` where not at rest."""
    return _in_time(lambda most: best_response_batch(batch, option, 1e-10, most, tilt=tilt), MAX_REPLIES, clock)


def _in_time(run: Callable[[int], Int], most: int, clock: Clock | None) -> Int:
    """``run(sweeps)`` up to ``most`` sweeps in all; with a budget a few at a time, as many as half of what is left
    has room for. (E,) sweeps used, ``most + 1`` where there was no rest in time."""
    if clock is None or not clock.limited:
        return run(most)
    done, chunk = 0, 1
    while True:
        began = clock.spent_ms()
        used = run(chunk)
        if (used <= chunk).all():
            return done + used
        done += chunk
        left = clock.left_ms()
        if left <= 0 or done >= most:
            clock.skipped.append("equilibrate")
            return np.where(used <= chunk, done, most + 1)
        sweep_ms = max((clock.spent_ms() - began) / chunk, 1e-4)
        chunk = max(min(int(0.5 * left / sweep_ms), most - done, 2 * chunk), 1)


def explore(batch: CongestionBatch, log_prior: Float, trust: float, uniform: Float, max_sweeps: int = 12) -> Merged:
    """The mixed choice to train on: each agent draws from its Gibbs-prior strategy.

    ``uniform`` (E, N) in [0, 1) are the draws. trust 0 samples the prior. What is drawn from is softmax(log prior +
    bias) itself, not the solver's last replies, which are a tolerance away from it: so the density that the policy
    gradient sees is that of what was executed.
    """
    costs = np.zeros_like(log_prior)
    sweeps = np.ones(len(log_prior), np.int64)
    if trust > 0:
        mixed = prior_strategy(log_prior, batch.allowed)
        sweeps = gibbs_batch(batch, log_prior, trust, mixed, costs, 1e-3, max_sweeps)
    bias = -trust * costs
    cumulative = np.cumsum(mixed_strategy(log_prior + bias, batch.allowed), axis=-1)
    draw = np.maximum(uniform, np.finfo(float).tiny)[..., None]  # 0 would fall on a first option that is forbidden
    option = (cumulative < draw * cumulative[..., -1:]).sum(axis=-1)
    option[~batch.live] = 0
    return Merged(option, bias, sweeps, sweeps <= max_sweeps, sweeps < 0)


def mixed_strategy(logits: Float, allowed: Bool) -> Float:
    """(E, N, O) softmax over the allowed options."""
    if not logits.size:
        return np.zeros_like(logits)
    z = np.where(allowed, logits, -np.inf)
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(z / z.sum(axis=-1, keepdims=True))


def prior_strategy(log_prior: Float, allowed: Bool) -> Float:
    """(E, N, O) softmax of a clipped log prior over the allowed options."""
    z = np.where(allowed, np.exp(log_prior), 0.0)
    return np.asarray(z / z.sum(axis=-1, keepdims=True))


def _argmax(score: Float, allowed: NDArray[np.bool_]) -> Int:
    if not score.size:
        return np.zeros(score.shape[:-1], np.int64)
    return np.asarray(np.where(allowed, score, -np.inf).argmax(axis=-1))
