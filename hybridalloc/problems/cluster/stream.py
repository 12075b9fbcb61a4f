"""Pods one by one until demand is far beyond what there is: the published experiment, compiled from end to end.

A cluster fills up with the trace's pods in random order, then with pods drawn from it again; nobody leaves. What counts
is the share of the GPUs in use by the time that demand for 100 % of them has arrived.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from games.congestion import Float, Int
from hybridalloc.problems.cluster.core import RULES, Tables, all_left, no_cache, play
from hybridalloc.problems.cluster.prices import FGD
from hybridalloc.problems.cluster.workload import WHOLE, Nodes, Workload

SIZES = ("share", "one", "few", "eight")  # GPU pods by what they ask for


class Stream(NamedTuple):
    """What happened. A pods.

    Attributes:
        kind: (A,) of each pod. node: (A,) where it went, in the order of the nodes that was drawn, -1 for nowhere.
        demand, used: (A,) milli-GPU that had arrived and were in use after each, of ``capacity``.
    """

    kind: Int
    node: Int
    demand: Int
    used: Int
    capacity: int

    def at(self, percent: float) -> float:
        """GPUs in use (%) while so many per cent had arrived, rounded: the published figure; NaN where never."""
        here = np.round(100.0 * self.demand / self.capacity) == percent
        return float(100.0 * self.used[here].mean() / self.capacity) if here.any() else float("nan")

    def failures(self, work: Workload, percent: float = 100.0) -> dict[str, float]:
        """Pods (%) that went nowhere, by size, of those that came until so much demand had arrived."""
        came = self.demand <= percent / 100.0 * self.capacity
        size = sizes(work)[self.kind]
        out = {}
        for k, name in enumerate(SIZES):
            mine = came & (size == k)
            out[name] = float(100.0 * (self.node[mine] < 0).mean()) if mine.any() else float("nan")
        return out


def sizes(work: Workload) -> Int:
    """(T,) index into :data:`SIZES`; -1 for pods without a GPU."""
    g, m = work.pods.gpus, work.pods.milli
    return np.where(g == 0, -1, np.where(g >= 8, 3, np.where(g > 1, 2, np.where(m == WHOLE, 1, 0))))


def draw_order(work: Workload, seed: int) -> Int:
    """(K,) order of the nodes: drawn once a seed, as the published runs have it."""
    return np.random.default_rng([seed, 1]).permutation(len(work.nodes.cpu))


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
    order = draw_order(work, seed)
    sequence = work.arrivals(np.random.default_rng([seed, 0]), until)
    if np.isfinite(arrived):
        last = np.searchsorted(work.pods.demand[sequence].cumsum(), arrived * work.capacity, side="right") + 1
        sequence = sequence[:last]
    nodes = Nodes(*(np.ascontiguousarray(column[order]) for column in work.nodes))
    n, t, a = len(order), len(work.count), len(sequence)
    pods = np.ascontiguousarray(np.stack(work.pods, 1))
    demand, used, node = np.zeros(a, np.int64), np.zeros(a, np.int64), np.zeros(a, np.int64)
    draws = np.random.default_rng([seed, 2]).random((a, 2))
    play(
        RULES.index(rule), random_ties or rule == "random", sequence, pods, all_left(work, order), nodes, nodes.kind,
        tables, no_cache(t, n), weights, weights if late is None else late, 1 if late is None else 16, draws, demand,
        used, node,
    )  # fmt: skip
    return Stream(sequence, node, demand, used, work.capacity)
