"""``cluster``: jobs on the nodes of a shared GPU cluster.

Scenarios ``openb`` and ``openb-gpushare100`` are Alibaba's cluster as published (Weng et al. 2023): 1,213 nodes fill up
with pods that come one by one in random order, until ``until`` times the GPUs have been asked for, and nobody leaves.
``synthetic`` needs no data; jobs of one's own ("trace") may end at their times. A decision is the pod that has just
come; it goes to one node, or, where it fits nowhere, away. What counts is how much of the GPUs is in use while 88 to
100 % of them are asked for, and which sizes of pods are turned away by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from games.certificate import CapacityCheck
from games.congestion import Float
from hybridalloc.errors import nearest
from hybridalloc.problems.cluster.audit import FAMILIES, check_placement
from hybridalloc.problems.cluster.bound import BOUNDS, most_in_use
from hybridalloc.problems.cluster.core import TERMS
from hybridalloc.problems.cluster.prices import ALONE, PUBLISHED, SPACE, ClusterPrices
from hybridalloc.problems.cluster.queue.problem import Queue, make_queue
from hybridalloc.problems.cluster.queue.setting import QUEUES
from hybridalloc.problems.cluster.refusal import refusal
from hybridalloc.problems.cluster.setting import NOTHING, SCENARIOS, ClusterSetting
from hybridalloc.problems.cluster.state import ClusterState
from hybridalloc.problems.cluster.stream import BAND, MARKS, SIZES, run_stream
from hybridalloc.problems.cluster.trace import Own, fit_nowhere, read_own
from hybridalloc.problems.cluster.workload import TRACES
from hybridalloc.problems.cluster.world import AS_PUBLISHED, BASELINES, ClusterWorld, Placed
from hybridalloc.problems.contract import Card
from hybridalloc.problems.metrics import RAW_VIOLATION, Metric, Ratio
from hybridalloc.problems.settings import described, restored
from hybridalloc.problems.slots import NAMES, Slots
from hybridalloc.text import quoted

WORDS = {"share": "shares of a GPU", "one": "one GPU", "few": "2 to 7 GPUs", "eight": "8 GPUs"}
METRICS = (
    Metric("packed", f"GPUs in use at {BAND[0]} to {BAND[1]} % demand", "%", "higher", Ratio("band_used", "band", 100)),
    *(Metric(f"used{m}", f"at {m} % demand", "%", "higher", Ratio(f"at{m}_used", f"at{m}", 100)) for m in MARKS[::-1]),
    *(Metric(f"failed_{s}", f"failed: {WORDS[s]}", "%", "lower", Ratio(f"{s}_lost", f"{s}_came", 100)) for s in SIZES),
    Metric("placed", "pods placed to the end", "%", "higher", Ratio("placed", "decided", 100)),
    RAW_VIOLATION,
)  # fmt: skip


@dataclass(frozen=True)
class Cluster(ClusterSetting, Slots[ClusterState, Placed, ClusterPrices]):
    """The problem with its settings; make it with ``make_problem("cluster", ...)``.

    Args:
        scenario: of :data:`SCENARIOS`. nodes: of the cluster, 0 for all; a smaller one has the same mix of nodes and
            of pods. until: demand that arrives in an episode, in capacities of the GPUs. mix: 0 for the pods of the
            trace; otherwise they come in other numbers, drawn by it: what to train on so that it holds for others.
        own: of the scenario "trace": nodes and jobs of one's own, see :mod:`.trace`.
    """

    state_type: ClassVar[type[ClusterState]] = ClusterState

    @cached_property
    def card(self) -> Card:
        work = self.workload
        real = self.scenario in TRACES
        return Card(
            "cluster", 1, self.longest, ClusterPrices, METRICS, ("packed", "used100"), variant=self.scenario,
            size=f"{len(work.nodes.cpu):,} nodes, {work.capacity // 1000:,} GPUs", agent_word="pod", families=FAMILIES,
            baselines=BASELINES, published=AS_PUBLISHED, bounds={} if self.own.stays else BOUNDS, price_space=SPACE,
            reference_prices={"published": PUBLISHED, "one trace": ALONE},
            unit_s=self.longest / 100.0, datasets=("openb",) if real else (), tags={"scenario": self.scenario},
            change_cost=0.0, whole_episodes=True, fleeting=True,
            notes=fit_nowhere(self.own) if self.scenario == "trace" else (),
        )  # fmt: skip

    def worlds(self, seeds: Sequence[int], belief: None = None) -> ClusterWorld:
        """E = len(seeds) empty clusters, each with its own order of nodes and pods."""
        if belief is not None:
            raise ValueError("cluster has no beliefs: its states are taken as they are")
        return ClusterWorld.fresh(self, seeds)

    def play(self, prices: ClusterPrices, seeds: Sequence[int]) -> dict[str, Float]:
        """Metrics (V,) of whole episodes by the game, compiled from end to end: those of its worlds of these seeds."""
        run = lambda seed: run_stream(self.workload, self.tables, seed, weights=prices.weights(), until=self.until)
        figures = [run(seed).figures(self.workload) for seed in seeds]
        return {key: np.array([row[key] for row in figures]) for key in figures[0]}

    def bound(self, name: str, seeds: Sequence[int]) -> dict[str, Float]:
        """What no placement exceeds in the episodes of these seeds, see :func:`.bound.most_in_use`.

        Raises:
            UnknownNameError: no such bound.
        """
        if name not in BOUNDS:
            raise nearest("bound", name, BOUNDS)
        found = [most_in_use(self.workload, seed, self.until) for seed in seeds]
        return {key: np.array([row[key] for row in found]) for key in found[0]}

    def world_at(self, state: ClusterState, memory: None = None) -> ClusterWorld:
        """One cluster that stands at ``state``."""
        return ClusterWorld.of_state(self, state)

    @classmethod
    def restore(cls, description: Mapping[str, Any]) -> Cluster:
        """The problem that :meth:`describe` described; a cluster of one's own is in it, its files are not read again.

        Raises:
            ValueError: a setting is missing, unknown, or not of its kind.
        """
        rest = {name: value for name, value in description.items() if name not in NAMES}
        own = rest.pop("own", None)
        stand_in = {"scenario": "synthetic"} if rest.get("scenario") == "trace" else {}
        known = restored(Cluster(), rest | {"own": described(NOTHING)} | stand_in)
        try:
            rows = lambda name, size: tuple(_whole_row(name, row, size) for row in own[name])
            jobs = rows("jobs", 5)
            stays = tuple(_stay_row(row, len(jobs)) for row in own.get("stays", ()))
            given = Own(rows("nodes", 4), tuple(str(word) for word in own["models"]), jobs, stays)
        except (TypeError, KeyError) as error:
            raise ValueError(f"own = {quoted(own)}; it must hold nodes, models and jobs ({error})") from None
        return cls(str(rest["scenario"]), known.nodes, known.until, known.mix, given)

    def check(self, state: ClusterState, allocation: Any) -> CapacityCheck:
        """Feasibility of an allocation from the definitions, by code that no solver shares."""
        return check_placement(state, allocation)

    def refusal(self, state: ClusterState, agent: int) -> str | None:
        """Why a pod is turned away: larger than any node, or no node has room now; None where one has."""
        return refusal(state, agent)


def _whole_row(name: str, row: Any, size: int) -> tuple[int, ...]:
    fits = isinstance(row, list | tuple) and len(row) == size and all(type(v) is int and 0 <= v < 2**40 for v in row)
    if not fits:
        raise ValueError(f"own.{name}: {quoted(row)}; {size} whole numbers >= 0 are needed")
    return tuple(row)


def _stay_row(row: Any, kinds: int) -> tuple[float, ...]:
    fits = isinstance(row, list | tuple) and len(row) == 3 and all(type(v) in (int, float) for v in row)
    if not fits or row[0] not in range(kinds) or not 0 <= row[1] < np.inf or not -1 <= row[2] < np.inf:
        raise ValueError(f"own.stays: {quoted(row)}; a kind below {kinds}, a creation and a deletion in s are needed")
    return int(row[0]), float(row[1]), float(row[2])


def make(
    scenario: str = "synthetic", nodes: int = 0, until: float = 1.3, mix: int = 0, node_file: str = "",
    job_file: str = "", timed: bool = False, **more: Any,
) -> Cluster | Queue:  # fmt: skip
    """``make_problem("cluster", ...)``; ``node_file`` and ``job_file`` are those of the scenario "trace", ``timed``
    lets its jobs come and end by their times. The scenarios "gavel" and "seed001" have settings of their own:
    :class:`hybridalloc.problems.cluster.queue.problem.Queue`.

    Raises:
        UnknownNameError: no such scenario or setting. ValueError: a setting out of range. DataError: the trace is not
            at hand.
    """
    given = {
        "nodes": nodes, "until": until, "mix": mix, "node_file": node_file, "job_file": job_file, "timed": timed,
    }  # fmt: skip
    if scenario in QUEUES:
        plain = {"nodes": 0, "until": 1.3, "mix": 0, "node_file": "", "job_file": "", "timed": False}
        return make_queue(scenario, more | {name: v for name, v in given.items() if v != plain[name]})
    if scenario not in SCENARIOS:
        raise nearest("scenario", str(scenario), (*SCENARIOS, *QUEUES))
    for name in more:
        raise nearest("setting of cluster", name, given)
    if timed and scenario != "trace":
        raise ValueError(f"timed: the scenario {scenario!r} has no times; a trace of one's own may")
    own = read_own(node_file, job_file, timed) if scenario == "trace" and node_file and job_file else NOTHING
    problem = Cluster(scenario, nodes, float(until), mix, own)
    problem.workload  # noqa: B018 - data that is missing is missed here
    return problem


def restore(description: Mapping[str, Any]) -> Cluster | Queue:
    """The problem that ``describe()`` described, of whichever kind."""
    return (Queue if description.get("scenario") in QUEUES else Cluster).restore(description)


assert ClusterPrices._fields == TERMS
