"""Settings of ``cluster``, and what follows from them: its workload, and what a compiled core reads of that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from games.congestion import Int
from hybridalloc.errors import nearest
from hybridalloc.problems.cluster.core import Tables
from hybridalloc.problems.cluster.state import ClusterState
from hybridalloc.problems.cluster.tables import priced_tables
from hybridalloc.problems.cluster.trace import Own, workload_of
from hybridalloc.problems.cluster.workload import TRACES, Workload, openb, synthetic
from hybridalloc.problems.state import whole_number

SCENARIOS = (*TRACES, "synthetic", "trace")
NOTHING = Own((), (), ())


@dataclass(frozen=True)
class ClusterSetting:
    """Settings of :class:`hybridalloc.problems.cluster.problem.Cluster`, which says what they mean."""

    scenario: str = "synthetic"
    nodes: int = 0
    until: float = 1.3
    mix: int = 0
    own: Own = NOTHING

    def __post_init__(self) -> None:
        if self.own.stays and (self.nodes or self.mix):
            raise ValueError("jobs that come by their times come as they are: leave nodes and mix at 0")
        if self.scenario not in SCENARIOS:
            raise nearest("scenario", str(self.scenario), SCENARIOS)
        whole_number("nodes", self.nodes, 0, 100_000)
        whole_number("mix", self.mix, 0, 10**9)
        if (self.scenario == "trace") != bool(self.own.nodes and self.own.jobs):
            raise ValueError(
                "scenario 'trace' is of nodes and jobs of one's own, at least one of each: "
                'make_problem("cluster", scenario="trace", node_file="nodes.csv", job_file="jobs.csv")'
            )
        if not 0.1 <= self.until <= 10:
            raise ValueError(f"until = {self.until}; demand of an episode, 0.1 to 10 times what the GPUs hold")

    @property
    def longest(self) -> int:
        """Pods of an episode at most: those of the trace, and of those drawn again the mean and a tenth more."""
        work = self.workload
        if work.stays is not None:
            return len(work.stays.kind)
        mean = max(float(work.pods.demand[work.sequence].mean()), 1.0)
        return int(1.1 * self.until * work.capacity / mean) + 10

    @cached_property
    def workload(self) -> Workload:
        if self.scenario == "synthetic":
            work = synthetic(self.nodes or 32)
        else:
            work = workload_of(self.own) if self.scenario == "trace" else openb(self.scenario)
            work = work.smaller(self.nodes) if self.nodes else work
        return work.mixed(self.mix) if self.mix else work

    @cached_property
    def tables(self) -> Tables:
        """What the core reads of the workload."""
        return priced_tables(self.workload)

    @cached_property
    def pods(self) -> Int:
        """(T, 4) cpu, memory, gpus, milli of each kind."""
        return np.ascontiguousarray(np.stack(self.workload.pods, 1))

    @cached_property
    def models(self) -> Int:
        """(K,) number of each node's GPU model."""
        return self.workload.model

    def kind_of(self, pod: Int) -> int:
        """The kind of a pod (4,), -1 where the workload has none like it."""
        same = np.flatnonzero((self.pods == pod).all(1))
        return int(same[0]) if len(same) else -1

    def kinds_of(self, state: ClusterState) -> Int:
        """(K,) the kind of each node of a state, by what it has; the one with as many GPUs that is nearest in CPU where
        the workload has none like it."""
        return _kinds(self.workload, state.cpu.tobytes(), state.memory.tobytes(), state.gpus.tobytes())


@lru_cache(maxsize=8)  # the nodes of a cluster are the same from step to step
def _kinds(work: Workload, cpu: bytes, memory: bytes, gpus: bytes) -> Int:
    given, n = (np.frombuffer(part, np.int64) for part in (cpu, memory, gpus)), work.nodes
    cores, room, many = (part[:, None] for part in given)
    rows, first = np.unique(n.kind, return_index=True)
    far = np.abs(many - n.gpus[first]) * 1e9 + np.abs(cores - n.cpu[first]) + np.abs(room - n.memory[first]) * 1e-6
    return np.asarray(rows[far.argmin(1)], np.int64)
