"""What a cluster is for which jobs queue: its settings, checked, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from games.congestion import Float, Int
from hybridalloc.errors import nearest
from hybridalloc.problems.cluster.queue.setups import (
    WORKLOADS,
    Arrivals,
    Draw,
    Setup,
    gavel,
    gavel_draw,
    seed001,
    seed001_draw,
)
from hybridalloc.problems.state import whole_number

QUEUES = ("gavel", "seed001")
WARM = 0.1  # of seed 001's jobs, that are not measured
ROUND_S, RESTART_S = {"gavel": 360.0, "seed001": 60.0}, {"gavel": 60.0, "seed001": 10.0}


@dataclass(frozen=True)
class QueueSetting:
    """Settings of :class:`hybridalloc.problems.cluster.queue.problem.Queue`, which says what they mean."""

    scenario: str = "gavel"
    jobs: int = 120
    pools: tuple[int, int, int] = (12, 12, 12)
    load: float = 0.85
    workload: str = "medium"
    hours: float = 0.0
    slots: int = 96
    round_s: float = 0.0
    restart_s: float = -1.0
    misjudged: float = 1.0
    stragglers: float = 0.0
    elastic: bool = False
    preempt: bool = True
    power: float = 1.0
    teams: int = 0
    urgent: float = 0.0
    slack: float = 0.0
    aim: str = ""

    SLOW: ClassVar[tuple[float, float]] = (0.3, 0.9)  # what a straggler does of its pace

    def __post_init__(self) -> None:
        if self.scenario not in QUEUES:
            raise nearest("scenario", str(self.scenario), QUEUES)
        if self.workload not in WORKLOADS:
            raise nearest("workload", str(self.workload), WORKLOADS)
        if self.aim not in ("", "used") or (self.aim and self.scenario != "seed001"):
            raise ValueError(f'aim = {self.aim!r}; it must be empty, or with scenario seed001 "used"')
        object.__setattr__(self, "pools", tuple(whole_number("pools", k, 0, 100_000) for k in self.pools))
        if len(self.pools) != 3 or not any(self.pools):
            raise ValueError(f"pools = {self.pools}; numbers of V100s, P100s and K80s, at least one GPU")
        for name, low, high in (("jobs", 1, 100_000), ("slots", 1, 10_000), ("teams", 0, 1000)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), low, high))
        for name, least, most in (
            ("load", 0.0, 10.0), ("hours", 0.0, 10_000.0), ("round_s", 0.0, 86_400.0), ("restart_s", -1.0, 86_400.0),
            ("misjudged", 0.0, 5.0), ("stragglers", 0.0, 1.0), ("power", 0.01, 1.0), ("urgent", 0.0, 1.0),
            ("slack", 0.0, 1000.0),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"{name} = {value!r}; it must be a number from {least:g} to {most:g}")
            object.__setattr__(self, name, float(value))
        if self.scenario == "seed001" and self.load == 0:
            raise ValueError("load = 0; seed 001's jobs come at a rate, 0.01 to 10 of what its nodes can do")
        object.__setattr__(self, "round_s", self.round_s or ROUND_S[self.scenario])
        object.__setattr__(self, "restart_s", self.restart_s if self.restart_s >= 0 else RESTART_S[self.scenario])

    @cached_property
    def epochs(self) -> int:
        """Rounds after which an episode is cut off."""
        hours = self.hours or 100.0
        if self.scenario == "gavel" and not self.hours:  # three times what they take at 1 job an hour on 36 GPUs
            hours = 600.0 + 108.0 * self.jobs / sum(self.pools) / max(self.load, 0.5)
        return int(np.ceil(hours * 3600 / self.round_s))

    @cached_property
    def setup(self) -> Setup:
        """Pools, places and types of jobs."""
        return gavel(self.pools, self.elastic) if self.scenario == "gavel" else seed001(self.workload)

    @cached_property
    def _draw(self) -> Draw:
        if self.scenario == "gavel":
            return gavel_draw(self.setup, self.jobs, self.load)
        return seed001_draw(self.setup, self.load, self.hours or 100.0)

    def draw(self, rng: np.random.Generator) -> Arrivals:
        """The jobs of an episode."""
        return self._draw(rng)

    @cached_property
    def longest(self) -> int:
        """Jobs of an episode at most."""
        return self.jobs if self.scenario == "gavel" else len(self.draw(np.random.default_rng(0)).arrival_s)

    @cached_property
    def apart(self) -> Float:
        """(T,) how many times as long as alone on its fastest place a job of each type takes on a part of its own: of
        every pool the same part, among as many jobs as just fill the cluster."""
        s = self.setup
        sharers = max(s.units.sum() / s.gang.mean(), 1.0)
        first = s.speed[:, : len(s.units)]
        part = s.units[None] / sharers / s.gang[:, None]
        part = part / np.maximum(part.sum(1, keepdims=True), 1.0)
        return np.asarray(1.0 / np.maximum((first * part).sum(1), 1e-9))

    def limits(self) -> tuple[Int, Float, Float, Int]:
        """rack (W,), watts (W,), rack_w (R,) and quota (U,)."""
        s, w = self.setup, len(self.setup.pools)
        limited = self.power < 1 and bool(s.watts.any())
        rack = np.arange(w) if limited else np.full(w, -1)
        rack_w = self.power * s.watts * s.units if limited else np.zeros(0)
        quota = np.full(self.teams, int(np.ceil(2 * s.units.sum() / max(self.teams, 1))))
        return rack, s.watts.copy(), rack_w, quota

    def measures(self, job: int, of: int) -> bool:
        """Whether a job's time counts: of Gavel's the middle half, of seed 001's all but the first."""
        if self.scenario == "gavel" and self.load > 0:
            return of // 4 <= job < max(of - of // 4, of // 4 + 1)
        return self.scenario == "gavel" or job >= WARM * of
