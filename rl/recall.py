r"""Learn again from the rollouts of recent policies, with truncated importance weights.

With w = min(bound, pi / mu), pi today's policy and mu the one that executed the slot, per agent,

    A_t = delta_t + gamma^tau lambda w_{t+1} A_{t+1},   target V + w A,   gain w min(r A, clip(r) A), r = pi_new / pi,

which for w = 1 is the fresh rollout's. The others' densities are left out of w, as MAPPO leaves them out of its ratio.
The values at cuts are those recorded. The same holds for a rollout whose policy was already an update behind when it
acted (:attr:`rl.on_policy.OnPolicy.lags`).

Sources: Espeholt et al. (2018), "IMPALA", for V-trace; Queeney, Paschalidis and Cassandras (2021), "Generalized
proximal policy optimization with sample reuse", for the loss clipped about the present policy.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rl.batch import Batch, Float


class Lesson(NamedTuple):
    """A batch of B rows and what is learned from it, (T, E, N).

    The actor learns from returns - baseline, the critic from ``target``; they differ where an older policy's slots
    are learned from again, with ``weight``, which is None where all of it is fresh.
    """

    batch: Batch
    returns: Float
    target: Float
    value: Float
    weight: Float | None = None


class Recalls(Protocol):
    """A learner that can learn from what another policy did."""

    def densities(self, batch: Batch) -> Tensor: ...

    def advantages(self, batch: Batch, weight: Float | None = None) -> tuple[Float, Float, Float]: ...


def weights(now: Tensor, batch: Batch, bound: float) -> Float:
    """(T, E, N) truncated importance weights of a rollout under log-densities ``now`` (B, N)."""
    found: Float = (now - batch.old).exp().clamp(max=bound).numpy().astype(np.float64).reshape(batch.reward.shape)
    return found


def again(learner: Recalls, batch: Batch, bound: float) -> Lesson:
    """What an older rollout teaches today's policy and critic."""
    now = learner.densities(batch)
    weight = weights(now, batch, bound)
    advantage, target, value = learner.advantages(batch, weight)
    return Lesson(batch._replace(old=now), value + advantage, target, value, weight)


def join(lessons: list[Lesson]) -> Lesson:
    """All of them as one, in the order given; a lesson without weights is fresh."""
    batches = [x.batch for x in lessons]
    rows: dict[str, Any] = {
        k: torch.cat([getattr(b, k) for b in batches])
        for k in ("agent", "pair", "resource", "own", "option", "bias", "allowed", "live", "old")
    }
    rows["more"] = {k: torch.cat([b.more[k] for b in batches]) for k in batches[0].more}
    for k in ("reward", "cut", "ended", "discount", "after"):
        rows[k] = np.concatenate([getattr(b, k) for b in batches])
    stack = lambda k: np.concatenate([getattr(x, k) for x in lessons])
    weight = np.concatenate([np.ones(x.value.shape) if x.weight is None else x.weight for x in lessons])
    return Lesson(batches[0]._replace(**rows), stack("returns"), stack("target"), stack("value"), weight)
