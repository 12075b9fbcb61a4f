"""One step of jobs that hold what they ask for: demands, servers, and who may not stand where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from games.congestion import Bool, Float, Int
from games.errors import InvalidStateError
from hybridalloc.problems.state import State, array, name_list

NEVER = 1e12  # a limit that is none, a cost that nobody pays


@dataclass(frozen=True)
class HeldState(State):
    """N jobs, K servers, D resources that are held, such as GPUs and GB of memory, U teams.

    Attributes:
        demand: (N, D) that a job takes of each server it stands on. capacity: (K, D) of each server, hard.
        count: servers that a job takes at once; a gang of c stands on c that follow each other, the last by the first.
        apart: jobs of one group never stand on one server; -1 for none. team: -1 for none. quota: (U, D) that a team
            may have in all, 1e12 for no limit.
        allowed: (N, K) first server of a place that a job may take. cost: (N, K) what that costs it.
        priority: larger is served first. previous: 1 + the first server where a job is, 0 for none, and ``moving_cost``
            of leaving it; 1e12: it is never moved nor stopped.
        names: of the jobs.
    """

    demand: Float = array("N D", low=0)
    capacity: Float = array("K D", low=0)
    count: Int = array("N", dtype=int, low=1, fill=1)
    apart: Int = array("N", dtype=int, low=-1, fill=-1)
    team: Int = array("N", dtype=int, low=-1, fill=-1)
    quota: Float = array("U D", low=0, fill=0)
    allowed: Bool = array("N K", dtype=bool, fill=1)
    cost: Float = array("N K", fill=0)
    priority: Float = array("N", fill=0)
    previous: Int = array("N", dtype=int, low=0, fill=0)
    moving_cost: Float = array("N", low=0, fill=0)
    active: Bool = array("N", dtype=bool, fill=1)
    names: tuple[str, ...] | None = None

    same_size: ClassVar[dict[str, str]] = {}

    def validate(self) -> None:
        n, k = len(self.demand), len(self.capacity)
        if not k:
            raise InvalidStateError("capacity is empty; at least one server is needed")
        for name, most, what in (("team", len(self.quota) - 1, "a team with a quota"), ("previous", k, "1 + a server")):
            for i in np.flatnonzero(getattr(self, name) > most)[:1]:
                raise InvalidStateError(f"{name}[{i}] = {getattr(self, name)[i]}; it must be {what}, at most {most}")
        if self.names is not None:
            object.__setattr__(self, "names", name_list("names", self.names))
            if len(self.names) != n:
                raise InvalidStateError(f"names has {len(self.names)} entries; demand has {n} jobs")

    @property
    def agents(self) -> int:
        return len(self.demand)

    def label(self, job: int) -> str:
        """The job's name, or "job 3"."""
        return self.names[job] if self.names else f"job {job}"

    @property
    def fixed(self) -> Bool:
        """(N,) who stands somewhere and is not to be moved."""
        return np.asarray(self.active & (self.previous > 0) & (self.moving_cost >= NEVER))

    def stands_on(self, job: int, option: int) -> list[int]:
        """On which servers a job stands that takes ``option``; none where that is 0 or it takes more than there are."""
        k, many = len(self.capacity), int(self.count[job])
        return [(option - 1 + step) % k for step in range(many)] if 0 < option <= k and many <= k else []
