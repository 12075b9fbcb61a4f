"""What a scheduler is told when a pod arrives: the nodes, what is left on each, and what the pod asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from games.congestion import Bool, Float, Int
from games.errors import InvalidStateError
from hybridalloc.problems.cluster.workload import SLOTS, WHOLE
from hybridalloc.problems.state import State, array


@dataclass(frozen=True)
class ClusterState(State):
    """N jobs of which at most one waits to be placed, K nodes of up to 8 GPUs. 1,000 milli are a core or a GPU.

    Attributes:
        request_cpu, request_memory: what a job asks for. request_gpus: 0, 1 or more GPUs; request_milli: of each, below
            1000 a share of one.
        cpu, memory, gpus: of each node. free_cpu, free_memory: what is left. free_gpu: milli left on each GPU; entries
            beyond ``gpus`` are 0. model: number of the node's GPU model. down: takes no jobs.
        arrived: milli-GPU that have asked for a place so far, this job not among them.
    """

    request_cpu: Int = array("N", "milli", dtype=int, low=0)
    request_memory: Int = array("N", "MiB", dtype=int, low=0)
    request_gpus: Int = array("N", dtype=int, low=0)
    request_milli: Int = array("N", "milli", dtype=int, low=0, high=WHOLE)
    cpu: Int = array("K", "milli", dtype=int, low=0)
    memory: Int = array("K", "MiB", dtype=int, low=0)
    gpus: Int = array("K", dtype=int, low=0, high=SLOTS)
    free_cpu: Int = array("K", "milli", dtype=int, low=0)
    free_memory: Int = array("K", "MiB", dtype=int, low=0)
    free_gpu: Int = array(f"K {SLOTS}", "milli", dtype=int, low=0, high=WHOLE)
    model: Int = array("K", dtype=int, low=0, fill=0)
    down: Bool = array("K", dtype=bool, fill=0)
    active: Bool = array("N", dtype=bool, fill=1)
    arrived: float = 0.0

    same_size: ClassVar[dict[str, str]] = {}

    def validate(self) -> None:
        waiting = np.flatnonzero(self.active)
        if len(waiting) > 1:
            raise InvalidStateError(
                f"active: jobs {waiting[0]} and {waiting[1]} wait; a decision places one: give them one after the other"
            )
        for name in ("cpu", "memory"):
            free, most = getattr(self, f"free_{name}"), getattr(self, name)
            for k in np.flatnonzero(free > most)[:1]:
                raise InvalidStateError(f"free_{name}[{k}] = {free[k]}; node {k} has {most[k]} in all")
        beyond = (np.arange(SLOTS) >= self.gpus[:, None]) & (self.free_gpu > 0)
        for k, g in np.argwhere(beyond)[:1]:
            raise InvalidStateError(f"free_gpu[{k}, {g}] = {self.free_gpu[k, g]}; node {k} has {self.gpus[k]} GPUs")
        shared = (self.request_gpus > 1) & (self.request_milli != WHOLE)
        odd = np.flatnonzero(shared | ((self.request_gpus == 1) & (self.request_milli == 0)))
        for i in odd[:1]:
            raise InvalidStateError(
                f"request_milli[{i}] = {self.request_milli[i]} of each of {self.request_gpus[i]} GPUs; a job takes a "
                f"part of one GPU, 1 to {WHOLE}, or whole ones"
            )
        if not 0 <= self.arrived < np.inf:
            raise InvalidStateError(f"arrived = {self.arrived}; it must be finite and >= 0 milli")

    @property
    def pod(self) -> Int:
        """(N, 4) cpu, memory, gpus, milli of each request."""
        columns = (self.request_cpu, self.request_memory, self.request_gpus, self.request_milli)
        return np.ascontiguousarray(np.stack(columns, 1), np.int64)

    def holds(self) -> Bool:
        """(N, K) where each job would fit if the nodes were empty and up."""
        n, k = np.newaxis, slice(None)
        enough = (self.request_cpu[k, n] <= self.cpu) & (self.request_memory[k, n] <= self.memory)
        return np.asarray(enough & (self.request_gpus[k, n] <= self.gpus))

    def shares(self, option: Int) -> dict[str, Float]:
        """(N,) by family, the part of its node's CPU, memory and GPUs that each job takes; 0 where it has none."""
        node = np.maximum(np.asarray(option, np.int64) - 1, 0)
        part = lambda asked, most: np.where(option > 0, asked / np.maximum(most[node], 1), 0.0)
        return {
            "cpu": part(self.request_cpu, self.cpu), "memory": part(self.request_memory, self.memory),
            "gpu": part(self.request_gpus * self.request_milli, self.gpus * WHOLE),
        }  # fmt: skip
