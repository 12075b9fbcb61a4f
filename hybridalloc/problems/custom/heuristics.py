"""Heuristics for a custom problem: opt_out, fastest (as if alone), balanced (least use, in turn), random."""

from __future__ import annotations

import numpy as np

from games.congestion import Int
from hybridalloc.problems.custom.setting import BASELINES
from hybridalloc.problems.custom.standing import CustomStates


def ruled(world: CustomStates, name: str, rng: np.random.Generator) -> Int:
    """(E, N) joint choice of a heuristic."""
    wait, work = world.alone()
    able = world.at["allowed"] & world.at["active"][..., None]
    able[..., 0] = False
    time = np.where(able, wait + work, np.inf)
    none = ~able.any(-1)
    if name == "opt_out":
        option = np.zeros(none.shape, np.int64)
    elif name == "fastest":
        option = time.argmin(-1)
    elif name == "random":
        option = np.where(able, rng.random(able.shape), -1.0).argmax(-1)
    elif name == "balanced":
        option = np.zeros(none.shape, np.int64)
        for e in range(world.size):
            busy = np.zeros(world.at["capacity"].shape[1] + 1)  # s of work given so far; the last stands for none
            for i in np.argsort(-world.at["priority"][e], kind="stable"):
                if not none[e, i]:
                    o = int((time[e, i] + busy[world.rows].max(axis=1)).argmin())
                    option[e, i] = o
                    used = world.rows[o][world.rows[o] >= 0]
                    busy[used] += world.at["work"][e, i, used] / world.at["capacity"][e, used]
    else:
        world.unknown_baseline(name, BASELINES)
    return np.where(none, 0, option).astype(np.int64)
