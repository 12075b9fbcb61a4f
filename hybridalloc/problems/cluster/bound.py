r"""What no placement can exceed: a cutting-stock linear program over patterns of one GPU, and its prices.

For each kind of node C and each pattern p of shares that one GPU holds, x_Cp GPUs are cut so; whole GPUs and pods
without one are patterns of their own:

.. math:: \max \sum_{C,p} w_p x_{Cp} \quad s.t. \quad \sum_{C,p} n_{tp} x_{Cp} \le D_t, \quad
          \sum_p g_p x_{Cp} \le G_C, \quad \sum_p cpu_p x_{Cp} \le CPU_C, \quad \sum_p mem_p x_{Cp} \le MEM_C

with D_t pods of kind t, and w_p the milli-GPU of a pattern; pods without GPUs go first. Patterns are priced in by an
unbounded knapsack at the duals until none pays (Gilmore and Gomory, 1961). CPU, memory and whole GPUs of nodes of a
kind are pooled, so the bound holds for every packing, and for every order of arrival: it knows all of them.
Where pods without GPUs count for nothing, it holds for those too who would leave them out.

The duals say what a leftover is worth: r milli of a GPU on a node of kind C, the knapsack's value; a pod's CPU and
memory there, their duals. An 810-milli pod strands 190.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

from games.congestion import Float, Int
from games.lean import KEPT
from hybridalloc.problems.cluster.stream import BAND, MARKS
from hybridalloc.problems.cluster.workload import WHOLE, Workload

BOUNDS = {"cutting_stock": "cutting-stock bound"}
FIRST = 1e5  # milli-GPU that a pod without a GPU counts for: it is placed before all others
ROUNDS = 400
PAYS = 0.5  # milli by which a pattern must beat the price of a GPU


class Bound(NamedTuple):
    """The linear program's answer. T kinds of pods, C kinds of nodes.

    Attributes:
        percent: of the GPUs that can be in use at most. price: (C, 1001) milli that a leftover of one GPU is worth.
        bid: (T, C) milli that a pod's CPU and memory cost. rounds: of pricing; proved: whether none pays any more.
    """

    percent: float
    price: Float
    bid: Float
    rounds: int
    proved: bool


def most_in_use(work: Workload, seed: int, until: float) -> dict[str, float]:
    """The card's metrics of GPUs in use in the episode of a seed, as no placement exceeds them: at each per cent of
    demand no more than has been asked for, and no more than the program of all pods that have come by then."""
    _, sequence = work.episode(np.random.default_rng([seed, 1]), until)
    share = 100.0 * work.pods.demand[sequence].cumsum() / work.capacity
    mark, most = np.round(share), share.copy()
    program = _Program(work, np.unique(sequence), first=0.0)
    for at in range(BAND[1], BAND[0] - 1, -1):  # patterns that pay where most is asked for mostly pay before
        here = np.flatnonzero(mark == at)
        if len(here):
            come = np.bincount(sequence[: here[-1] + 1], minlength=len(work.count))
            found = program.solve(come.astype(np.float64))
            if found.proved:
                most[here] = np.minimum(most[here], found.percent + 100.0 * PAYS / WHOLE)
    mean = lambda which: float(most[which].mean()) if which.any() else float("nan")
    out = {"packed": mean((mark >= BAND[0]) & (mark <= BAND[1]))}
    return out | {f"used{m}": mean(mark == m) for m in MARKS}


def cutting_stock(work: Workload, demand: Float) -> Bound:
    """The bound for so many pods of each kind (T,), all at hand at once."""
    return _Program(work, np.flatnonzero(demand > 0)).solve(demand)


def expected_demand(work: Workload, percent: float = 100.0) -> Float:
    """(T,) pods of each kind when so much demand (% of the GPUs) has arrived, in the workload's own mix."""
    total = float((work.count * work.pods.demand).sum())
    return np.asarray(work.count * (percent / 100.0 * work.capacity / max(total, 1.0)), np.float64)


class _Program:
    """The linear program and the patterns found so far, which serve whatever the demand.

    Columns: what each takes (rows: pods, then GPUs, cores and GiB of each kind of node), what it counts for, and the
    milli-GPU that it uses.

    Args:
        here: (H,) kinds of pods that may be asked for. first: milli-GPU that a pod without GPUs counts for.
    """

    def __init__(self, work: Workload, here: Int, first: float = FIRST) -> None:
        n, self.pods, self.here, self.first = work.nodes, work.pods, here, first
        self.capacity, self.kinds, self.top = work.capacity, int(n.kind.max()) + 1, len(here)
        self.row = {int(t): r for r, t in enumerate(here)}
        self.worth: list[float] = []
        self.used: list[float] = []
        self.entries: tuple[list[int], list[int], list[float]] = ([], [], [])
        sums = (np.bincount(n.kind, x, self.kinds) for x in (n.gpus, n.cpu / 1000.0, n.memory / 1024.0))
        self.limits = np.concatenate(list(sums))
        one = np.array([int(np.argmax(n.kind == c)) for c in range(self.kinds)])
        pods = self.pods
        self.shares = here[(pods.gpus[here] == 1) & (pods.milli[here] < WHOLE)]
        fits = (pods.cpu[:, None] <= n.cpu[one]) & (pods.memory[:, None] <= n.memory[one])
        self.fits = fits & (pods.gpus[:, None] <= n.gpus[one])
        for c in range(self.kinds):
            for t in here[self.fits[here, c]]:
                self.add(c, {int(t): 1})

    def add(self, c: int, many: dict[int, int]) -> None:
        """Pods by kind on one GPU, or one pod, on a node of kind ``c``."""
        p, k = self.pods, len(self.worth)
        total = lambda column: float(sum(int(column[t]) * m for t, m in many.items()))
        share = any(p.gpus[t] == 1 and p.milli[t] < WHOLE for t in many)
        self.used.append(total(p.demand))
        self.worth.append(self.used[-1] or self.first)
        taken = [1.0 if share else total(p.gpus), total(p.cpu) / 1000.0, total(p.memory) / 1024.0]
        rows = [*(self.row[t] for t in many), *(self.top + part * self.kinds + c for part in range(3))]
        at, where, value = self.entries
        at += rows
        where += [k] * len(rows)
        value += [*map(float, many.values()), *taken]

    def solve(self, demand: Float) -> Bound:
        """The answer for so many pods of each kind (T,); patterns are added until none pays."""
        pods, shares, top, kinds = self.pods, self.shares, self.top, self.kinds
        limit = np.concatenate([demand[self.here], self.limits])
        price, bid = np.zeros((kinds, WHOLE + 1)), np.zeros((len(demand), kinds))
        proved, rounds, percent = False, 0, 0.0
        while not proved and rounds < ROUNDS:
            rounds += 1
            at, where, value = self.entries
            matrix = csr_matrix((value, (at, where)), shape=(len(limit), len(self.worth)))
            found = linprog(-np.array(self.worth), A_ub=matrix, b_ub=limit, method="highs")
            dual = np.maximum(-found.ineqlin.marginals, 0.0)
            percent = 100.0 * float(np.dot(self.used, found.x)) / self.capacity
            gpu, cpu, memory = dual[top : top + kinds], dual[top + kinds : top + 2 * kinds], dual[top + 2 * kinds :]
            bid = pods.cpu[:, None] / 1000.0 * cpu + pods.memory[:, None] / 1024.0 * memory
            proved = True
            for c in range(kinds):
                gain = pods.demand[shares] - dual[[self.row[int(t)] for t in shares]] - bid[shares, c]
                gain[~self.fits[shares, c]] = -1.0
                best, choice = _knapsack(gain, pods.milli[shares])
                price[c] = best
                if len(shares) and best[WHOLE] > gpu[c] + PAYS:
                    self.add(c, _pattern(choice, shares, pods.milli))
                    proved = False
                price[c, WHOLE] = max(gpu[c], best[WHOLE])
        return Bound(float(percent), price, bid, rounds, proved)


def _pattern(choice: Int, shares: Int, milli: Int) -> dict[int, int]:
    """The pods of the best pattern of one GPU."""
    many: dict[int, int] = {}
    left = WHOLE
    while left > 0:
        if choice[left] < 0:
            left -= 1
            continue
        t = int(shares[choice[left]])
        many[t] = many.get(t, 0) + 1
        left -= int(milli[t])
    return many


@njit(**KEPT)
def _knapsack(gain, milli):
    """Best value of shares in r milli, r = 0 to 1000, each as often as it fits, and the share taken last (-1: none)."""
    best, choice = np.zeros(1001), np.full(1001, -1)
    for r in range(1, 1001):
        best[r] = best[r - 1]
        for t in range(len(gain)):
            if gain[t] > 0.0 and 0 < milli[t] <= r and best[r - milli[t]] + gain[t] > best[r] + 1e-12:
                best[r] = best[r - milli[t]] + gain[t]
                choice[r] = t
    return best, choice
