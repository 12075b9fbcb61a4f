"""What a cluster is made of and what comes to it: nodes, kinds of pods and how often each comes.

Units are those of Kubernetes: 1,000 milli are a core or a GPU, memory is in MiB. A pod asks for a part of one GPU
(``gpus`` = 1, ``milli`` < 1000), for whole ones, or for none.

Source: Weng et al. (2023), "Beware of fragmentation: scheduling GPU-sharing workloads with fragmentation gradient
descent", USENIX ATC; the simulator's own code for typical pods.
"""

from __future__ import annotations

import hashlib
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Float, Int
from hybridalloc.data.registry import fetch
from hybridalloc.data.traces import Column, read_table

WHOLE = 1000  # milli of a GPU
SLOTS = 8  # GPUs that a node may have
TYPICAL = 0.95  # share of the pods that typical ones stand for
TRACES = {"openb": "openb_pod_list_default.csv", "openb-gpushare100": "openb_pod_list_gpushare100.csv"}


class Nodes(NamedTuple):
    """K nodes: cpu (milli), memory (MiB), gpus, and the number of each one's kind."""

    cpu: Int
    memory: Int
    gpus: Int
    kind: Int


class Pods(NamedTuple):
    """T kinds of pods: what each asks for."""

    cpu: Int
    memory: Int
    gpus: Int
    milli: Int

    @property
    def demand(self) -> Int:
        """(T,) milli-GPU in all."""
        return np.asarray(self.gpus * self.milli)


class Typical(NamedTuple):
    """M distinct (cpu, gpus, milli), the most popular first until 95 % of the pods, and their shares."""

    cpu: Int
    gpus: Int
    milli: Int
    share: Float


class Stays(NamedTuple):
    """A pods in the order in which they come: kind (A,) of each; leaves (A,) the number of the arrival before which it
    has ended, A where it stays; going (A,) all by that."""

    kind: Int
    leaves: Int
    going: Int


def stays_of(kind: Int, begins_s: Float, ends_s: Float) -> Stays:
    """Pods by their times (A,): one that ends when another comes has ended before; ``ends_s`` < 0: it stays."""
    order = np.argsort(begins_s, kind="stable")
    begin, end = begins_s[order], np.where(ends_s < 0, np.inf, ends_s)[order]
    leaves = np.maximum(np.searchsorted(begin, end), np.arange(len(order)) + 1)
    return Stays(kind[order], leaves.astype(np.int64), np.argsort(leaves, kind="stable"))


class Workload:
    """K nodes, T kinds of pods and how many there are of each.

    Args:
        model: (K,) number of each node's GPU model, of which ``models`` are the names. count: (T,). stays: when each
            pod comes and ends, where that is known; None: they come in random order, and stay.
    """

    def __init__(
        self, name: str, nodes: Nodes, model: Int, models: tuple[str, ...], pods: Pods, count: Int,
        stays: Stays | None = None,
    ) -> None:  # fmt: skip
        self.name, self.nodes, self.model, self.models, self.pods, self.count = name, nodes, model, models, pods, count
        self.stays = stays

    @property
    def ends(self) -> tuple[Int, Int]:
        """(A,) the arrival before which each has ended, and (A,) all by that; (0,) where nobody ends."""
        none = np.zeros(0, np.int64)
        return (none, none) if self.stays is None else (self.stays.leaves, self.stays.going)

    @property
    def capacity(self) -> int:
        """Milli-GPU of all nodes."""
        return int(self.nodes.gpus.sum()) * WHOLE

    @cached_property
    def sequence(self) -> Int:
        """(P,) the kind of every pod of the trace, in no order."""
        return np.repeat(np.arange(len(self.count)), self.count)

    @cached_property
    def typical(self) -> Typical:
        asks = np.stack([self.pods.cpu, self.pods.gpus, self.pods.milli], 1)
        kinds, of = np.unique(asks, axis=0, return_inverse=True)
        count = np.bincount(of.ravel(), self.count).astype(np.int64)
        order = np.argsort(-count, kind="stable")
        kinds, count = kinds[order], count[order]
        most = int(np.searchsorted(np.cumsum(count), TYPICAL * count.sum())) + 1
        kinds = kinds[:most]
        share = count[:most] / count[:most].sum()
        cpu, gpus, milli = np.ascontiguousarray(kinds.T)
        return Typical(cpu, gpus, milli, share)

    @property
    def digest(self) -> str:
        """Of nodes and pods, 16 hexadecimal digits."""
        total = hashlib.sha256()
        for array in (*self.nodes, *self.pods, self.count):
            total.update(np.ascontiguousarray(array, np.int64).tobytes())
        return total.hexdigest()[:16]

    def arrivals(self, rng: np.random.Generator, until: float) -> Int:
        """(A,) kinds of pods in the order of their arrival: all of the trace, shuffled, then drawn from it until
        ``until`` times the GPUs' capacity would be exceeded."""
        demand, most = self.pods.demand, until * self.capacity
        first = rng.permutation(self.sequence)
        total = demand[first].cumsum()
        parts, have = [first], int(total[-1]) if len(total) else 0
        if have > most:
            return first[: int(np.searchsorted(total, most, side="right"))]
        mean = max(float(demand[self.sequence].mean()), 1.0)
        while True:
            more = rng.choice(self.sequence, int(64 + 1.2 * (most - have) / mean))
            total = have + demand[more].cumsum()
            if total[-1] > most:
                return np.concatenate([*parts, more[: int(np.searchsorted(total, most, side="right"))]])
            parts.append(more)
            have = int(total[-1])

    def episode(self, rng: np.random.Generator, until: float) -> tuple[Int, Int]:
        """(K,) an order of the nodes and (A,) the pods to come: what an episode is drawn as."""
        order = rng.permutation(len(self.nodes.cpu))
        return order, self.arrivals(rng, until) if self.stays is None else self.stays.kind.copy()

    def reweighted(self, name: str, count: Int) -> Workload:
        """The same nodes and kinds of pods, in other numbers."""
        return Workload(name, self.nodes, self.model, self.models, self.pods, np.asarray(count, np.int64))

    def mixed(self, seed: int) -> Workload:
        """The same nodes and as much demand, of kinds of pods in other numbers: shares, single and several GPUs and
        none are each more or less common by a lognormal factor, and so is every kind."""
        rng = np.random.default_rng([seed, 4])
        g, m = self.pods.gpus, self.pods.milli
        group = np.where(g == 0, 0, np.where(g > 1, 3, np.where(m == WHOLE, 2, 1)))
        many = self.count * np.exp(rng.normal(0, [0.4, 0.8, 0.8, 0.8])[group] + rng.normal(0, 0.3, len(group)))
        many *= (self.count * self.pods.demand).sum() / max(float((many * self.pods.demand).sum()), 1.0)
        return self.reweighted(f"{self.name}, mix {seed}", apportioned(many))

    def smaller(self, nodes: int) -> Workload:
        """A cluster of ``nodes`` nodes with the same mix of kinds, and the same mix of pods, as many less.

        Raises:
            ValueError: more nodes than there are.
        """
        have = len(self.nodes.kind)
        if not 0 < nodes <= have:
            raise ValueError(f"nodes = {nodes}; {self.name} has {have}")
        by_kind = np.argsort(self.nodes.kind, kind="stable")
        some = np.sort(by_kind[((np.arange(nodes) + 0.5) * have / nodes).astype(int)])
        kept = Nodes(*(np.ascontiguousarray(column[some]) for column in self.nodes))
        share = self.count * float(kept.gpus.sum() / self.nodes.gpus.sum())
        return Workload(f"{self.name}-{nodes}", kept, self.model[some], self.models, self.pods, apportioned(share))


def apportioned(share: ArrayLike) -> Int:
    """(T,) whole numbers nearest to ``share`` whose sum is its sum, rounded: those cut off most get one more."""
    share = np.asarray(share, np.float64)
    count = np.floor(share).astype(np.int64)
    more = np.argsort(count - share, kind="stable")[: round(share.sum()) - int(count.sum())]
    count[more] += 1
    return np.asarray(count)


def gathered(name: str, nodes: dict[str, Int], models: tuple[str, ...], pods: Int) -> Workload:
    """A workload of nodes (columns cpu, memory, gpus, and model as a number) and pods (P, 4)."""
    kinds, count = np.unique(np.asarray(pods, np.int64), axis=0, return_counts=True)
    columns = [np.ascontiguousarray(nodes[key], np.int64) for key in ("cpu", "memory", "gpus", "model")]
    _, kind = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)
    pod = Pods(*(np.ascontiguousarray(kinds[:, k]) for k in range(4)))
    made = Nodes(columns[0], columns[1], columns[2], kind.ravel().astype(np.int64))
    return Workload(name, made, columns[3], models, pod, count)


@cache
def openb(name: str = "openb") -> Workload:
    """Alibaba's cluster: 1,213 nodes with 6,212 GPUs; 8,152 pods, of ``openb`` or of ``openb-gpushare100``, in which
    every GPU pod shares.

    Raises:
        DataError: no data, or a malformed file.
    """
    whole = lambda unit: Column(int, 0, unit)
    path = fetch("openb", "openb_node_list_gpu_node.csv")
    given = {"cpu_milli": whole("milli"), "memory_mib": whole("MiB"), "gpu": whole(""), "model": Column(str)}
    node = read_table(path, given).checked(path).columns
    models, model = np.unique(node["model"].astype(str), return_inverse=True)
    path = fetch("openb", TRACES[name])
    asks = {"cpu_milli": whole("milli"), "memory_mib": whole("MiB"), "num_gpu": whole(""), "gpu_milli": whole("milli")}
    pod = read_table(path, asks).checked(path).columns
    nodes = {"cpu": node["cpu_milli"], "memory": node["memory_mib"], "gpus": node["gpu"], "model": model}
    return gathered(name, nodes, tuple(models.tolist()), np.stack([pod[key] for key in asks], 1))


SYNTHETIC_NODES = (  # model, share, cpu, memory, GPUs
    ("A", 0.5, 96_000, 393_216, 8), ("B", 0.3, 64_000, 262_144, 4), ("C", 0.2, 32_000, 131_072, 2),
)  # fmt: skip
SYNTHETIC_PODS = (  # cpu, memory, GPUs, milli, of a thousand
    (8_000, 16_384, 0, 0, 120), (4_000, 8_192, 1, 200, 120), (6_000, 12_288, 1, 330, 130), (4_000, 16_384, 1, 500, 130),
    (8_000, 32_768, 1, 700, 100), (12_000, 49_152, 1, 1000, 300), (24_000, 98_304, 2, 1000, 60),
    (48_000, 196_608, 4, 1000, 30), (88_000, 327_680, 8, 1000, 10),
)  # fmt: skip
VARIED = (0.5, 0.7, 0.8, 0.9, 1.0, 1.05)  # of the CPU and memory that a kind of pod asks for


@cache
def synthetic(nodes: int) -> Workload:
    """A cluster that needs no data: ``nodes`` of 8, 4 and 2 GPUs, as many pods as fill it about once.

    Shares of GPUs, CPU-bound jobs and jobs of a whole node, so that packing well takes foresight; the numbers stand for
    no real cluster.
    """
    share = np.array([row[1] for row in SYNTHETIC_NODES]).cumsum() - 1e-9
    model = np.searchsorted(share, (np.arange(nodes) + 0.5) / nodes)
    of = lambda k: np.array([row[k] for row in SYNTHETIC_NODES], np.int64)[model]
    base = np.array(SYNTHETIC_PODS)
    pods = np.concatenate([base * [size, size, 1, 1, 1] for size in VARIED]).astype(np.int64)
    mean = float((pods[:, 2] * pods[:, 3] * pods[:, 4]).sum() / pods[:, 4].sum())
    many = max(1.0, of(4).sum() * WHOLE / mean) / pods[:, 4].sum()
    count = apportioned(pods[:, 4] * many)
    columns = {"cpu": of(2), "memory": of(3), "gpus": of(4), "model": model}
    return gathered(f"synthetic-{nodes}", columns, ("A", "B", "C"), np.repeat(pods[:, :4], count, 0))
