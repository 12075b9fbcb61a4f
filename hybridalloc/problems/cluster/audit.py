"""Whether an allocation can be executed, from the state and the request alone: nothing here is the core's."""

from __future__ import annotations

from typing import Any

import numpy as np

from games.certificate import CapacityCheck
from hybridalloc.problems.cluster.findings import Findings
from hybridalloc.problems.cluster.state import ClusterState
from hybridalloc.problems.cluster.workload import SLOTS, WHOLE

FAMILIES = ("cpu", "memory", "gpu")


def check_placement(state: ClusterState, allocation: Any) -> CapacityCheck:
    """Every job has what it asks for on one node that is up and has it, on GPUs that have it, or has nothing."""
    option, gpus = np.asarray(allocation.option), np.asarray(allocation.gpus, float)
    share = {name: np.asarray(allocation.shares[name], float) for name in FAMILIES}
    k, found = len(state.cpu), Findings()

    used = {name: np.zeros(k) for name in FAMILIES}
    card = np.zeros((k, SLOTS))
    for i, o in enumerate(option.tolist()):
        if o == 0:
            for name in FAMILIES:
                found.excess(f"job {i} opts out and has {name}", share[name][i], 0.0)
            continue
        if not (0 < o <= k) or not state.active[i] or state.down[o - 1]:
            why = (
                "no such node" if not 0 < o <= k else "it waits for nothing" if not state.active[i] else "node is down"
            )
            found.wrong(f"job {i} takes option {o}: {why}")
            continue
        n, need = int(o) - 1, int(state.request_gpus[i] * state.request_milli[i])
        asked = {
            "cpu": (state.request_cpu[i], state.cpu[n]), "memory": (state.request_memory[i], state.memory[n]),
            "gpu": (need, state.gpus[n] * WHOLE),
        }  # fmt: skip
        for name, (want, most) in asked.items():
            fair = want / most if most > 0 else 0.0
            found.excess(f"{name} of job {i} on node {n} against its request", share[name][i], fair)
            if share[name][i] < fair * (1 - 1e-9):
                found.wrong(f"{name} of job {i} on node {n}: {share[name][i]:.6g}, it asks for {fair:.6g}", 1.0)
            used[name][n] += share[name][i] * most
        mask = int(gpus[i]) if np.isfinite(gpus[i]) and gpus[i] == int(gpus[i]) and 0 <= gpus[i] < 2**SLOTS else -1
        held = [g for g in range(SLOTS) if mask >= 0 and mask >> g & 1]
        if mask < 0 or len(held) != state.request_gpus[i] or any(g >= state.gpus[n] for g in held):
            found.wrong(f"gpus of job {i}: {gpus[i]} names {held}; it asks for {state.request_gpus[i]} of node {n}'s")
        card[n, held] += state.request_milli[i]
    free = {"cpu": state.free_cpu, "memory": state.free_memory, "gpu": state.free_gpu.sum(1)}
    for name in FAMILIES:
        for n in np.flatnonzero(used[name] > 0).tolist():
            found.excess(f"{name} of node {n}", float(used[name][n]), float(free[name][n]) + 1e-6)
    for n, g in np.argwhere(card > 0).tolist():
        found.excess(f"GPU {g} of node {n}", float(card[n, g]), float(state.free_gpu[n, g]))
    return found.check()
