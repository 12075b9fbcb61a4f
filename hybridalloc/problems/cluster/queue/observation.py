"""What recommenders read of a queue."""

from __future__ import annotations

import numpy as np

from hybridalloc.problems.cluster.queue.packings import packing_of
from hybridalloc.problems.cluster.queue.standing import HOUR, Queues
from rl.proposal import Observation


def observed(world: Queues) -> Observation:
    """Of each job; of each pool; of the job at each place."""
    size, n, p = world.speed.shape
    log = lambda x: np.log10(np.maximum(x, 1e-3))
    a, w = world.at, len(world.setup.pools)
    ratio = np.stack([world.ratio(e) for e in range(size)])
    age = (world.clock[:, None] - a["came"]) / HOUR
    agent = np.stack([
        log(world.left[..., 1]), log(world.expected), world.left[..., 2] / np.maximum(world.left[..., 1], 1e-6) / 10,
        np.log2(a["gang"]) / 3, log(age), log(a["attained"] / HOUR), np.minimum(ratio, 20.0) / 2, a["place"] > 0,
        a["pace"], np.minimum(a["priority"], 20.0),
    ], -1)  # fmt: skip
    agent[~world.there] = 0.0
    units = np.maximum(world.units, 1)
    held = np.zeros((size, w))
    for e in range(size):
        on = np.flatnonzero(world.there[e] & (a["place"][e] > 0))
        place = a["place"][e, on] - 1
        np.add.at(held[e], world.setup.pool[place], world.taken[e, on, place])
    resource = np.stack([held / units, units / units.sum(1, keepdims=True), ~world.down], -1)
    pair, allowed = np.zeros((size, n, 1 + p, 4)), np.zeros((size, n, 1 + p), bool)
    allowed[..., 0] = True
    for e in range(size):
        game = packing_of(world, e, None)
        allowed[e, :, 1:] = game.ok[:, 1:]
        speed = world.paced(e)
        pair[e, :, 1:, 0] = speed
        pair[e, :, 1:, 1] = a["place"][e][:, None] == 1 + np.arange(p)
        pair[e, :, 1:, 2] = world.taken[e] / np.maximum(world.units[e], 1)[world.setup.pool]
        pair[e, :, 1:, 3] = speed / np.maximum(world.taken[e], 1)
    pair[~allowed] = 0.0
    resource_of = np.concatenate([[-1], world.setup.pool])
    single = lambda x: np.clip(x, -50, 50).astype(np.float32)
    return Observation(single(agent), single(resource), single(pair), world.active, allowed, resource_of)
