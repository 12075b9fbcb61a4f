"""Whether places can be held together, from the state and the request alone: nothing here is the game's."""

from __future__ import annotations

from typing import Any

import numpy as np

from games.certificate import CapacityCheck
from hybridalloc.problems.cluster.findings import Findings
from hybridalloc.problems.cluster.queue.state import QueueState

FAMILIES = ("unit",)


def check_queue(state: QueueState, allocation: Any, preempt: bool = True) -> CapacityCheck:
    """Every job has all that it takes at one place where it runs, or nothing; pools, racks and quotas hold."""
    option, share = np.asarray(allocation.option), np.asarray(allocation.shares["unit"], float)
    found = Findings()

    held, drawn, had = np.zeros(len(state.pool_units)), np.zeros(len(state.rack_w)), np.zeros(len(state.quota))
    for i, o in enumerate(option.tolist()):
        if not preempt and state.active[i] and state.place[i] and o != state.place[i]:
            found.wrong(f"job {i} takes option {o}; it stands at {state.place[i]} and is not to be moved")
        if o == 0:
            found.excess(f"job {i} waits and has a share", share[i], 0.0)
            continue
        why = ""
        if not 0 < o <= len(state.pool):
            why = "no such place"
        elif not state.active[i]:
            why = "there is no job"
        elif state.down[state.pool[o - 1]]:
            why = "the pool is down"
        elif state.speed[i, o - 1] <= 0:
            why = "it does not run there"
        if why:
            found.wrong(f"job {i} takes option {o}: {why}")
            continue
        pool, needs = int(state.pool[o - 1]), int(state.units[i, o - 1])
        most = max(int(state.pool_units[pool]), 1)
        found.excess(f"share of job {i} of pool {pool} against what it takes", share[i], needs / most)
        if share[i] < needs / most * (1 - 1e-9):
            found.wrong(f"share of job {i} of pool {pool}: {share[i]:.6g}, it takes {needs / most:.6g}", 1.0)
        has = share[i] * most
        held[pool] += has
        if state.rack[pool] >= 0:
            drawn[state.rack[pool]] += has * state.watts[pool]
        if state.team[i] >= 0:
            had[state.team[i]] += has
    for name, used, limit in (
        ("units of pool", held, state.pool_units), ("W of rack", drawn, state.rack_w),
        ("units of team", had, state.quota),
    ):  # fmt: skip
        for k in np.flatnonzero(used > 0).tolist():
            found.excess(f"{name} {k}", float(used[k]), float(limit[k]) * (1 + 1e-9))
    return found.check()
