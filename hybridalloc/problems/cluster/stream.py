"""Pods one by one until demand is far beyond what there is: the published experiment, compiled from end to end.

A cluster fills up with the trace's pods in random order, then with pods drawn from it again; nobody leaves. What counts
is the share of the GPUs in use by the time that demand for 100 % of them has arrived.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from games.congestion import Bool, Float, Int
from hybridalloc.problems.cluster.core import RULES, Tables, all_left, no_cache, play
from hybridalloc.problems.cluster.prices import FGD
from hybridalloc.problems.cluster.workload import WHOLE, Nodes, Workload

BAND = (88, 100)  # % of the GPUs asked for, between which allocation counts
MARKS = (90, 95, 100)
SIZES = ("share", "one", "few", "eight")  # GPU pods by what they ask for


class Stream(NamedTuple):
    """What happened. A pods.

    Attributes:
        order: (K,) of the nodes. kind: (A,) of each pod. node: (A,) where it went, in that order, -1 for nowhere.
        demand, used: (A,) milli-GPU asked for, by whom had come and not ended, and in use after each, of ``capacity``.
    """

    order: Int
    kind: Int
    node: Int
    demand: Int
    used: Int
    capacity: int

    @property
    def mark(self) -> Float:
        """(A,) GPUs asked for after each pod (%), rounded: what published figures are read at."""
        return np.round(100.0 * self.demand / self.capacity)

    def at(self, percent: float) -> float:
        """GPUs in use (%) while so many per cent had been asked for: the published figure; NaN where never."""
        return _mean(100.0 * self.used / self.capacity, self.mark == percent)

    def figures(self, work: Workload) -> dict[str, float]:
        """The metrics of the episode by their keys, as the worlds of the problem count them."""
        mark, share = self.mark, 100.0 * self.used / self.capacity
        out = {"packed": _mean(share, (mark >= BAND[0]) & (mark <= BAND[1]))}
        out |= {f"used{m}": _mean(share, mark == m) for m in MARKS[::-1]}
        size, lost = sizes(work.pods.gpus, work.pods.milli)[self.kind], 100.0 * (self.node < 0)
        out |= {f"failed_{word}": _mean(lost, (mark <= 100) & (size == s)) for s, word in enumerate(SIZES)}
        return out | {"placed": _mean(100.0 - lost, mark >= 0)}


def _mean(values: Any, of: Bool) -> float:
    return float(values[of].mean()) if of.any() else float("nan")


def sizes(gpus: Int, milli: Int) -> Int:
    """Indices into :data:`SIZES` of pods by what they ask for; -1 for those without a GPU."""
    some = np.where(gpus > 1, 2, np.where(milli == WHOLE, 1, 0))
    return np.asarray(np.where(gpus == 0, -1, np.where(gpus >= 8, 3, some)))


def run_stream(
    work: Workload,
    tables: Tables,
    seed: int,
    rule: str = "weights",
    weights: Float = FGD,
    late: Float | None = None,
    random_ties: bool = False,
    until: float = 1.3,
    arrived: float = np.inf,
) -> Stream:
    """One run of the experiment.

    Args:
        rule: of :data:`RULES`; "weights" takes the best change of the potential that ``weights`` (F,) make, and
            ``late`` (F,), where given, as the cluster fills. random_ties: among equals at random instead of the first
            in the order of nodes. until: demand that arrives, in capacities. arrived: where it is cut short.
    """
    order, sequence = work.episode(np.random.default_rng([seed, 1]), until)
    if np.isfinite(arrived):
        last = np.searchsorted(work.pods.demand[sequence].cumsum(), arrived * work.capacity, side="right") + 1
        sequence = sequence[:last]
    nodes = Nodes(*(np.ascontiguousarray(column[order]) for column in work.nodes))
    n, t, a = len(order), len(work.count), len(sequence)
    pods = np.ascontiguousarray(np.stack(work.pods, 1))
    demand, used, node, held = (np.zeros(a, np.int64) for _ in range(4))
    draws = np.random.default_rng([seed, 2]).random((a, 2))
    play(
        RULES.index(rule), random_ties or rule == "random", sequence, pods, all_left(work, order), nodes, nodes.kind,
        tables, no_cache(t, n), weights, weights if late is None else late, 1 if late is None else 16, draws,
        *work.ends, demand, used, node, held,
    )  # fmt: skip
    return Stream(order, sequence, node, demand, used, work.capacity)
