r"""Step 1: merge a proposal and a game into a Gibbs-prior equilibrium.

The log prior is shifted so that each agent's best option is at 0 and clipped to [-limit, 0]; the equilibrium
anchored to it is rounded by best responses on the tilted potential. At the rounded point
:math:`cost_i(o_i) - \log prior_i(o_i) / trust` is least, so no agent gains more than ``limit / trust`` in the
unmodified game: the epsilon bound.

In training the mixed strategy itself is executed, and the policy gradient sees its log-density,
log_softmax(log prior - trust cost) with the cost held constant ("train on what is executed").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from games.best_response import best_response_batch
from games.congestion import Bool, CongestionBatch, Float, Int
from games.gibbs import gibbs_batch, round_batch


@dataclass(frozen=True)
class Merged:
    """Joint choices of E games.

    Attributes:
        option: (E, N) chosen options; 0 for agents that are not live.
        bias: (E, N, O) -trust cost at the equilibrium, what the game adds to the log prior.
        sweeps: (E,) passes of the solver, above its limit where it was stopped.
        converged: (E,) whether the tolerance was met.
    """

    option: Int
    bias: Float
    sweeps: Int
    converged: Bool


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


def equilibrate(batch: CongestionBatch, log_prior: Float, trust: float, max_sweeps: int = 12) -> Merged:
    """The pure choice to execute: mean-field Gibbs sweeps, then rounding by best response.

    ``log_prior`` (E, N, O) is clipped already. trust 0 takes the prior's best option, inf the game's own pure
    equilibrium.
    """
    if trust == 0:
        option = _argmax(log_prior, batch.allowed)
        option[~batch.live] = 0
        ones = np.ones(len(option), np.int64)
        return Merged(option, np.zeros_like(log_prior), ones, ones > 0)
    if np.isinf(trust):
        option = _argmax(-batch.private_cost, batch.allowed)
        sweeps = best_response_batch(batch, option, 1e-10, 200)
        return Merged(option, np.zeros_like(log_prior), sweeps, sweeps <= 200)
    costs = np.zeros_like(log_prior)
    mixed = prior_strategy(log_prior, batch.allowed)
    sweeps = gibbs_batch(batch, log_prior, trust, mixed, costs, 1e-3, max_sweeps)
    option = round_batch(batch, log_prior, trust, costs)
    return Merged(option, -trust * costs, sweeps, sweeps <= max_sweeps)


def explore(
    batch: CongestionBatch, log_prior: Float, trust: float, uniform: Float, max_sweeps: int = 12
) -> Merged:
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
    return Merged(option, bias, sweeps, sweeps <= max_sweeps)


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
