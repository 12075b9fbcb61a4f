"""What a scheduler is told when a round begins: the jobs that are there, where they stand, and the pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from games.congestion import Bool, Float, Int
from games.errors import InvalidStateError
from hybridalloc.problems.state import State, array

NEVER = 1e6  # hours: a deadline so far away is none
MEAN = np.array([0.3, 0.4, 0.3])  # of the quantiles .1, .5, .9, by Swanson's rule: what is expected


@dataclass(frozen=True)
class QueueState(State):
    """N places in the queue (a job or nobody), P places to run, W pools of units, R racks, U teams.

    Attributes:
        gang: units that a job asks for. units: (N, P) that it takes at each place. speed: (N, P) relative to its
            fastest place, 0 where it does not run.
        left_h: (N, 3) hours that it is believed to have left on its fastest place: quantiles .1, .5, .9.
        age_h: since it came. attained: unit-hours that it had. own_h: hours that it would take on a part of the cluster
            of its own: what fairness is measured against. deadline_h: hours to its deadline, 1e6 for none.
        priority: larger is served first. team: -1 for none. place: 1 + where it stands, 0 if it waits. pace: of what
            its place is good for, a straggler's less than 1.
        pool: of each place. pool_units: of each pool. down: pools that take no jobs. rack: of each pool, -1 for none.
        watts: of one unit at work. rack_w: limit of each rack. quota: units that each team may have.
        judged: of jobs that have ended, how many, and the mean and spread of ln(true / told) of their lengths.
        done_h, told_h: of each job, hours of its fastest place that it has had, and that it was said to take.
        true_h: what it really has left, < 0 where nobody knows. waiting: jobs for which the queue had no place yet.
    """

    gang: Int = array("N", dtype=int, low=1)
    units: Int = array("N P", dtype=int, low=1)
    speed: Float = array("N P", low=0, high=1)
    left_h: Float = array("N 3", "h", low=0)
    pool: Int = array("P", dtype=int, low=0)
    pool_units: Int = array("W", dtype=int, low=0)
    age_h: Float = array("N", "h", low=0, fill=0)
    attained: Float = array("N", "h", low=0, fill=0)
    own_h: Float = array("N", "h", above=0, fill=1)
    deadline_h: Float = array("N", "h", fill=NEVER)
    priority: Float = array("N", fill=0)
    team: Int = array("N", dtype=int, low=-1, fill=-1)
    place: Int = array("N", dtype=int, low=0, fill=0)
    pace: Float = array("N", above=0, high=1, fill=1)
    down: Bool = array("W", dtype=bool, fill=0)
    rack: Int = array("W", dtype=int, low=-1, fill=-1)
    watts: Float = array("W", "W", low=0, fill=0)
    rack_w: Float = array("R", "W", low=0, fill=0)
    quota: Int = array("U", dtype=int, low=0, fill=0)
    judged: Float = array("3", fill=0)
    done_h: Float = array("N", "h", low=0, fill=0)
    told_h: Float = array("N", "h", low=0, fill=0)
    true_h: Float = array("N", "h", fill=-1)
    label: Int = array("N", dtype=int, low=0, fill=0)
    active: Bool = array("N", dtype=bool, fill=1)
    waiting: float = 0.0
    time_h: float = 0.0

    same_size: ClassVar[dict[str, str]] = {}

    def validate(self) -> None:
        for name, most, what in (
            ("pool", len(self.pool_units) - 1, "a pool"), ("rack", len(self.rack_w) - 1, "a rack"),
            ("team", len(self.quota) - 1, "a team with a quota"), ("place", len(self.pool), "0 or 1 + a place"),
        ):  # fmt: skip
            given = getattr(self, name)
            for i in np.flatnonzero(given > most)[:1]:
                raise InvalidStateError(f"{name}[{i}] = {given[i]}; it must be {what}, at most {most}")
        for i, k in np.argwhere(np.diff(self.left_h, axis=1) < 0)[:1]:
            raise InvalidStateError(
                f"left_h[{i}] = {self.left_h[i].tolist()}; quantiles .1, .5, .9 ascend, and entry {k + 1} does not"
            )
        standing = self.active & (self.place > 0)
        for i in np.flatnonzero(standing)[:]:
            if self.speed[i, self.place[i] - 1] <= 0:
                raise InvalidStateError(f"place[{i}] = {self.place[i]}; job {i} does not run there: its speed is 0")
        used = np.bincount(
            self.pool[self.place[standing] - 1], self.units[standing, self.place[standing] - 1], len(self.pool_units)
        )
        for w in np.flatnonzero(used > self.pool_units)[:1]:
            raise InvalidStateError(
                f"place: jobs stand on {used[w]:g} units of pool {w}, which has {self.pool_units[w]}"
            )
        for name in ("waiting", "time_h"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 <= value < np.inf:
                raise InvalidStateError(f"{name} = {value!r}; it must be a finite number >= 0")
            object.__setattr__(self, name, float(value))

    @property
    def expected_h(self) -> Float:
        """(N,) hours that each job is expected to have left on its fastest place."""
        return np.asarray(self.left_h @ MEAN)
