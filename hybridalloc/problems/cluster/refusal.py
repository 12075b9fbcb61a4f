"""Why a pod is turned away: it is larger than any node, or no node has what it asks for now."""

from __future__ import annotations

import numpy as np

from games.congestion import Bool
from hybridalloc.problems.cluster.state import ClusterState
from hybridalloc.problems.cluster.workload import SLOTS, WHOLE


def refusal(state: ClusterState, job: int) -> str | None:
    """The reason in a sentence, from the state alone; None where a node that is up has room for it, or it waits for
    nothing.

    Args:
        job: its number, 0 to N - 1.
    """
    if not state.active[job]:
        return None
    asks = _asks(state, job)
    if not len(state.cpu):
        return f"it asks for {asks}, and there are no nodes"
    large = state.holds()[job]
    if not large.any():
        return f"larger than any node: it asks for {asks}; {_beyond(state, job)}"
    up = large & ~state.down
    if not up.any():
        return f"it asks for {asks}; of the nodes that are large enough ({large.sum():,}) all are down"
    free = _lacks(state, job)
    if (up & ~np.any(list(free.values()), axis=0)).any():
        return None
    short = ", ".join(f"{(up & lacks).sum():,} {name}" for name, lacks in free.items() if (up & lacks).any())
    enough = f"{up.sum():,} that are up and large enough"
    return f"no node has room now: it asks for {asks}; of {enough}, too little is free on: {short}"


def _asks(state: ClusterState, job: int) -> str:
    gpus, milli = int(state.request_gpus[job]), int(state.request_milli[job])
    part = "no GPU" if not gpus else f"{milli} milli of a GPU" if milli < WHOLE else f"{gpus} GPU{'s' * (gpus > 1)}"
    return f"{state.request_cpu[job]:,} milli of cores, {state.request_memory[job]:,} MiB, {part}"


def _beyond(state: ClusterState, job: int) -> str:
    """Of which it asks for more than any node has."""
    have = {
        "milli of cores": (state.request_cpu, state.cpu), "MiB": (state.request_memory, state.memory),
        "GPUs": (state.request_gpus, state.gpus),
    }  # fmt: skip
    largest = {name: int(most.max()) for name, (_, most) in have.items()}
    lines = [f"the largest has {largest[name]:,} {name}" for name in have if have[name][0][job] > largest[name]]
    return ", ".join(lines) or "each has too little of one thing or another"


def _lacks(state: ClusterState, job: int) -> dict[str, Bool]:
    """(K,) by what is short, where less is free than the job asks for."""
    there = np.arange(SLOTS) < state.gpus[:, None]
    ready = (there & (state.free_gpu >= state.request_milli[job])).sum(1)
    return {
        "cores": np.asarray(state.free_cpu < state.request_cpu[job]),
        "memory": np.asarray(state.free_memory < state.request_memory[job]),
        "GPUs": np.asarray(ready < state.request_gpus[job]),
    }
