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

from games.certificate import CapacityCheck
from hybridalloc.errors import nearest
from hybridalloc.problems.cluster.queue.audit import FAMILIES, check_queue
from hybridalloc.problems.cluster.queue.counts import metrics_of
from hybridalloc.problems.cluster.queue.prices import FULL_QUEUE, KNOWING, SPACE, BusyPrices, NodePrices, QueuePrices
from hybridalloc.problems.cluster.queue.setting import QueueSetting
from hybridalloc.problems.cluster.queue.state import QueueState
from hybridalloc.problems.cluster.queue.world import AS_PUBLISHED, BASELINES, QueueWorld, Running
from hybridalloc.problems.contract import Card
from hybridalloc.problems.slots import Slots


@dataclass(frozen=True)
class Queue(QueueSetting, Slots[QueueState, Running, QueuePrices]):
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

    state_type: ClassVar[type[QueueState]] = QueueState

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
            "cluster", self.slots, self.epochs, prices, metrics, ("used", aim) if self.aim else (aim, "used"),
            variant=self.scenario,
            size=f"{named}, load {self.load:g}", agent_word="job", families=FAMILIES, baselines=BASELINES,
            published=AS_PUBLISHED, price_space=SPACE, reference_prices=references, unit_s=3600.0,
            datasets=("gavel",) if real else (), tags={"scenario": self.scenario}, change_cost=0.0, whole_episodes=True,
            events=True,
        )  # fmt: skip

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
