"""What recommenders read of a custom problem."""

from __future__ import annotations

from typing import Any

import numpy as np

from games.congestion import Float
from hybridalloc.problems.custom.standing import CustomStates, lateness
from hybridalloc.problems.custom.state import NO_DEADLINE
from rl.proposal import Observation


def observed(world: CustomStates) -> Observation:
    """Features of order one: 6 + F an agent, 3 an option's resources, 5 a pair."""
    at = world.at
    wait, work = world.alone()
    allowed = at["allowed"] & at["active"][..., None]
    allowed[..., 0] = True
    tau = np.where(at["deadline_s"] < NO_DEADLINE, at["deadline_s"], 1 / np.maximum(at["delay_cost"], 1e-12))
    ratio = np.clip((wait + work) / tau[..., None], 0, 3)
    able = allowed[..., 1:]
    few = np.maximum(able.sum(-1), 1)
    own = ratio[..., 1:]
    agent = np.stack([
        at["deadline_s"] < NO_DEADLINE, np.where(able, own, 3).min(-1, initial=3),
        np.where(able, own, 0).sum(-1) / few, few / max(len(world.rows) - 1, 1),
        _squash(at["private_cost"][..., 0]), _squash(at["priority"]),
    ], axis=-1)  # fmt: skip
    agent = np.concatenate([agent, np.clip(at["features"], -20, 20)], axis=-1)
    need = np.where(able, work[..., 1:] / tau[..., None], 0) / few[..., None]
    pressure = need.sum(axis=1)  # deadlines' floors, were all to spread evenly
    known = able & (work[..., 1:] > 0)
    mean = np.where(known, work[..., 1:], 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)  # (E, O - 1)
    typical = np.maximum(mean.mean(axis=1, keepdims=True), 1e-12)
    slower = np.log(np.maximum(mean, 1e-12) / typical)
    resource = np.stack([
        np.clip(pressure, 0, 10), _squash(slower),
        _squash((wait[..., 1:] / tau[..., None]).sum(axis=1) / max(wait.shape[1], 1)),
    ], axis=-1)  # fmt: skip
    late = lateness(wait + work, at["deadline_s"][..., None])
    pair = np.stack([
        np.broadcast_to(np.arange(len(world.rows)) == 0, ratio.shape), ratio, _squash(at["private_cost"]), late,
        _squash(at["delay_cost"][..., None] * work),
    ], axis=-1)  # fmt: skip
    rows = np.arange(len(world.rows)) - 1
    f32 = lambda x: np.ascontiguousarray(x, dtype=np.float32)
    return Observation(f32(agent), f32(resource), f32(pair), at["active"].copy(), allowed, rows)


def _squash(x: Any) -> Float:
    return np.asarray(x / (1 + np.abs(x)))
