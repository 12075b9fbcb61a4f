"""``cluster``, scenarios ``gavel`` and ``seed001``: jobs queue, and every round it is decided anew who runs where.

A decision is a round's: of all jobs that are there, who runs at which place (a kind of GPU, or a node), who waits, who
is moved. Whoever starts anywhere loses ``restart_s``. What a job is told to take may be wrong (``misjudged``); what it
is believed to have left is learned from the jobs that have ended (:mod:`.durations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from games.certificate import CapacityCheck
from games.congestion import Float, Int
from hybridalloc.errors import nearest
from hybridalloc.problems.cluster.queue.audit import FAMILIES, check_queue
from hybridalloc.problems.cluster.queue.counts import metrics_of
from hybridalloc.problems.cluster.queue.prices import FULL_QUEUE, KNOWING, SPACE, BusyPrices, NodePrices, QueuePrices
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
from hybridalloc.problems.cluster.queue.state import QueueState
from hybridalloc.problems.cluster.queue.world import BASELINES, QueueWorld, Running
from hybridalloc.problems.contract import Card
from hybridalloc.problems.slots import Slots
from hybridalloc.problems.state import whole_number

QUEUES = ("gavel", "seed001")
WARM = 0.1  # of seed 001's jobs, that are not measured
ROUND_S, RESTART_S = {"gavel": 360.0, "seed001": 60.0}, {"gavel": 60.0, "seed001": 10.0}


@dataclass(frozen=True)
class Queue(Slots[QueueState, Running, QueuePrices]):
    """The problem with its settings; make it with ``make_problem("cluster", scenario="gavel", ...)``.

    Args:
        scenario: "gavel", measured throughputs on three kinds of GPUs, or "seed001", ten nodes and two kinds of jobs.
        jobs: of an episode ("gavel"). pools: V100s, P100s and K80s ("gavel"). load: of the rate that can be sustained;
            0 with "gavel": all jobs are there at once, for the makespan. workload: how much of a node jobs take
            ("seed001"): light, medium or heavy. hours: of an episode, 0 for until all are done ("gavel") or 100.
        slots: jobs that are looked at together; later ones wait outside, the oldest comes in first. round_s: 0 for the
            scenario's own. restart_s: that a start costs, < 0 for the scenario's own. misjudged: spread of
            ln(true / told) of durations.
        stragglers: chance of a job that runs to be slowed down, each round, for as long as it stays there.
        elastic: gangs also run as half of themselves ("gavel"). preempt: jobs may be stopped and moved.
        power: of each pool's units at work at once, by watts, a rack's limit; 1 for none ("gavel").
        teams: among which jobs are dealt, each with a quota of twice its part; 0 for none. urgent: part of the jobs
            that are of a class served first. slack: deadlines, half to one and a half times so many own times after
            arrival; 0 for none. aim: what prices are for: "" for the time that jobs take, or "used" for units at work
            ("seed001").
    """

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

    state_type: ClassVar[type[QueueState]] = QueueState
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
    def card(self) -> Card:
        setup, real = self.setup, self.scenario == "gavel"
        metrics = metrics_of(setup, "h" if real else "min", self.slack > 0)
        at_once = real and self.load == 0
        aim = "makespan" if at_once else "jct" if real else "flow"
        known, full = {"known durations": KNOWING}, {"full queue": FULL_QUEUE}
        references = {} if not real else full | known if at_once else known | full
        prices: type[Any] = QueuePrices if real else BusyPrices if self.aim else NodePrices
        named = f"{self.jobs} jobs on {' + '.join(map(str, self.pools))} GPUs" if real else "10 nodes, 790 units"
        return Card(
            "cluster", self.slots, self._longest_rounds(), prices, metrics,
            ("used", aim) if self.aim else (aim, "used"), variant=self.scenario,
            size=f"{named}, load {self.load:g}", agent_word="job", families=FAMILIES, baselines=BASELINES,
            price_space=SPACE, reference_prices=references, unit_s=3600.0,
            datasets=("gavel",) if real else (), tags={"scenario": self.scenario}, change_cost=0.0, whole_episodes=True,
            events=True,
        )  # fmt: skip

    def _longest_rounds(self) -> int:
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

    def worlds(self, seeds: Sequence[int], belief: None = None) -> QueueWorld:
        """E = len(seeds) clusters to which the first jobs have just come."""
        if belief is not None:
            raise ValueError("cluster has no beliefs to attach: what jobs have left is learned in its states")
        return QueueWorld.fresh(self, seeds)

    def world_at(self, state: QueueState, memory: None = None) -> QueueWorld:
        """One cluster that stands at ``state``."""
        return QueueWorld.of_state(self, state)

    def check(self, state: QueueState, allocation: Any) -> CapacityCheck:
        """Feasibility of an allocation from the definitions, by code that no solver shares."""
        return check_queue(state, allocation, self.preempt)


def make_queue(scenario: str, settings: Mapping[str, Any]) -> Queue:
    """A queue with its settings.

    Raises:
        UnknownNameError: no such setting. ValueError: one out of range.
    """
    known = {f.name: f.default for f in fields(Queue) if f.default is not MISSING and f.name != "scenario"}
    for name in settings:
        if name not in known:
            raise nearest(f"setting of {scenario}", name, known)
    problem = Queue(scenario, **settings)
    problem.setup  # noqa: B018 - data that is missing is missed here
    return problem
