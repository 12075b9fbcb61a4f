"""E clusters side by side that pods come to one by one; a decision is the pod that has just come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from coordinator.game import Choice, options_of
from games.congestion import Bool, CongestionBatch, Float, Int
from hybridalloc.problems.cluster import core
from hybridalloc.problems.cluster.core import RULES, WEIGHTS, Cache, Left
from hybridalloc.problems.cluster.prices import FGD, ClusterPrices
from hybridalloc.problems.cluster.setting import ClusterSetting
from hybridalloc.problems.cluster.state import ClusterState
from hybridalloc.problems.cluster.stream import BAND, MARKS, SIZES, sizes
from hybridalloc.problems.cluster.workload import SLOTS, WHOLE, Nodes
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.slots import SlotWorld, named
from rl.proposal import Observation

REFUSED = 1000.0  # how much more than the dearest place leaving out a pod costs that fits somewhere
BASELINES = {
    "random": "random", "first_fit": "first fit (FIFO)", "round_robin": "round robin", "least_loaded": "least loaded",
    "worst_fit": "worst fit", "best_fit": "best fit", "dot_product": "dot product", "tetris": "Tetris alignment",
    "packing": "GPU packing", "fgd": "FGD, as published", "fgd_random": "FGD, ties at random",
}  # fmt: skip
AS_PUBLISHED = ("dot_product", "tetris", "fgd")


class Placed(NamedTuple):
    """Where the pods of E worlds go: option (E, 1), 1 + the node, 0 for nowhere; gpus (E, 1) the GPUs there, bit by
    bit; the parts of the node's CPU, memory and GPUs that they take (E, 1)."""

    option: Int
    gpus: Float
    cpu: Float
    memory: Float
    gpu: Float


class ClusterWorld(SlotWorld):
    """E clusters of K nodes each, in an order of their own.

    Args:
        left, nodes: with an axis E. model, down: (E, K). sequence: (E, A) kinds of the pods to come, -1 beyond the
            end; A = 0 where nobody knows: then what follows is drawn from the workload. pod: (E, 4) that waits.
        active: (E,) whether one does.

    Attributes:
        came, used: (E,) milli-GPU that are asked for, by whom has come and not ended, and are in use. at: (E,) pods
            that have come, less one. where, held: (E, A) node of each, -1 for none, and its GPUs; gone: (E,) how many
            have ended. A = 0 where nobody ends.
    """

    def __init__(
        self,
        problem: ClusterSetting,
        left: Left,
        nodes: Nodes,
        model: Int,
        down: Bool,
        sequence: Int,
        seeds: Sequence[int],
    ) -> None:
        size = len(model)
        super().__init__(size, problem.longest)
        self.problem, self.left, self.nodes, self.model, self.down = problem, left, nodes, model, down
        self.sequence, self.at = sequence, np.zeros(size, np.int64)  # the pod that waits is sequence[at]
        self.pod, self.kind = np.zeros((size, 4), np.int64), np.full(size, -1)
        self.waits = np.zeros(size, bool)
        self.came, self.used = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.room = np.full(size, WHOLE) * nodes.gpus.sum(1)
        self.ends = problem.workload.ends if sequence.shape[1] else (np.zeros(0, np.int64),) * 2
        ending = (size, len(self.ends[0]))
        self.where, self.held, self.gone = np.full(ending, -1), np.zeros(ending, np.int64), np.zeros(size, np.int64)
        self.stream = np.zeros((size, 2), np.int64)
        self.last = np.zeros(size, np.int64)  # node of the last pod: where a round robin goes on
        self.weights = ClusterPrices().weights()
        self._rows = len(problem.workload.count) if sequence.shape[1] else 1
        self._caches: dict[tuple[int, bytes], Cache] = {}
        self._now: dict[tuple[int, bytes], tuple[Float, Int]] = {}  # of the decision at hand
        self._advice: dict[tuple[int, int], int] = {}  # (world, node): the GPU that a heuristic named with it
        self.stream[:, 0] = [int(seed) for seed in seeds]

    # --- made

    @classmethod
    def fresh(cls, problem: ClusterSetting, seeds: Sequence[int]) -> ClusterWorld:
        """Empty clusters, each with its own order of nodes and pods."""
        work, size = problem.workload, len(seeds)
        k, shape = len(work.nodes.cpu), (size, len(work.nodes.cpu))
        whole = lambda *more: np.zeros((*shape, *more), np.int64)
        left = Left(whole(), whole(), whole(SLOTS), whole())
        nodes = Nodes(whole(), whole(), whole() + np.broadcast_to(work.nodes.gpus, shape), whole())
        sequence = np.full((size, problem.longest), -1)
        world = cls(problem, left, nodes, whole(), np.zeros((size, k), bool), sequence, seeds)
        world.restart(np.ones(size, bool))
        return world

    @classmethod
    def of_state(cls, problem: ClusterSetting, state: ClusterState) -> ClusterWorld:
        """One cluster as it is told; what comes next nobody knows."""
        one = lambda array: np.array(array, np.int64)[None]
        milli = np.where(np.arange(SLOTS) < state.gpus[:, None], state.free_gpu, -1)
        left = Left(one(state.free_cpu), one(state.free_memory), one(milli), one(np.zeros(len(state.cpu))))
        nodes = Nodes(one(state.cpu), one(state.memory), one(state.gpus), one(problem.kinds_of(state)))
        world = cls(problem, left, nodes, one(state.model), state.down[None].copy(), np.zeros((1, 0), np.int64), [0])
        world.came[0] = round(state.arrived)
        total = state.gpus.sum() * WHOLE
        world.used[0] = total - int(state.free_gpu.sum())
        waiting = np.flatnonzero(state.active)
        world.agents, world.who = state.agents, int(waiting[0]) if len(waiting) else 0
        if len(waiting):
            world._wait(0, state.pod[world.who])
        return world

    agents, who = 1, 0  # N of a told state, and which of them waits

    @property
    def active(self) -> Bool:
        out = np.zeros((self.size, self.agents), bool)
        if self.agents:
            out[:, self.who] = self.waits
        return out

    # --- what is seen and played

    def _cache(self, rule: int, weights: Float) -> Cache:
        key = (rule, weights.tobytes())
        if key not in self._caches:
            if len(self._caches) > 3:
                self._caches.clear()
            self._caches[key] = core.no_cache(self._rows, self.model.shape[1], self.size)
        return self._caches[key]

    def _scores(self, rule: int, weights: Float) -> tuple[Float, Int]:
        """(E, K) what each node is worth to the pod that waits, NONE where it does not fit; (E, K) the GPU with it."""
        key = (rule, weights.tobytes())
        if key in self._now:
            return self._now[key]
        cache = self._cache(rule, weights)
        row = np.maximum(self.kind, 0) if self._rows > 1 else np.zeros(self.size, np.int64)
        tables = self.problem.tables
        core.score_worlds(rule, self.pod, self.kind, row, self.left, self.nodes, tables, cache, weights)
        e = np.arange(self.size)
        score = cache.score[e, row]
        score[self.down | ~self.waits[:, None]] = core.NONE
        self._now[key] = score, cache.gpu[e, row]
        return self._now[key]

    def observe(self) -> Observation:
        """Of the pod and the cluster; of each node; of the pod on each node: the potential's terms."""
        size, k = self.model.shape
        n = self.agents
        terms, fit = np.zeros((size, k, len(core.TERMS))), np.zeros((size, k), bool)
        cache = self._cache(WEIGHTS, self.weights)
        core.observe_worlds(
            self.pod, self.kind, self.left, self.nodes, self.down | ~self.waits[:, None], self.problem.tables, cache,
            self.weights, terms, fit,
        )  # fmt: skip
        room = np.maximum(self.room, 1)
        own = np.zeros((size, n, 8), np.float32)
        pod, gpu = self.pod / [64_000.0, 262_144.0, 8.0, 1000.0], self.pod[:, 2] * self.pod[:, 3] / 8000.0
        own[:, self.who : self.who + 1, :6] = np.column_stack([pod, gpu, self.pod[:, 2] == 1])[:, None]
        own[..., 6], own[..., 7] = (self.used / room)[:, None], np.minimum(self.came / room, 2.0)[:, None]
        milli = np.maximum(self.left.milli, 0)
        node = np.stack([
            self.left.cpu / np.maximum(self.nodes.cpu, 1), self.left.memory / np.maximum(self.nodes.memory, 1),
            milli.sum(2) / np.maximum(self.nodes.gpus * WHOLE, 1), (milli == WHOLE).sum(2) / SLOTS,
            self.nodes.gpus / SLOTS,
        ], 2).astype(np.float32)  # fmt: skip
        pair, allowed = np.zeros((size, n, 1 + k, terms.shape[2]), np.float32), np.zeros((size, n, 1 + k), bool)
        allowed[..., 0] = True
        if n:
            pair[:, self.who, 1:], allowed[:, self.who, 1:] = np.clip(terms, -50, 50), fit
        return Observation(own, node, pair, self.active, allowed, np.arange(1 + k) - 1)

    def game(self, prices: ClusterPrices) -> CongestionBatch:
        """The pod's own costs of each node: how much less it is worth than the best. Nobody else moves, so nothing is
        shared, and its best response is the equilibrium."""
        score, _ = self._scored(prices)
        size, k = score.shape
        fit = score > core.NONE
        cost = np.where(fit, score.max(1, keepdims=True, initial=core.NONE) - score, 0.0)
        private, allowed = np.zeros((size, self.agents, 1 + k)), np.zeros((size, self.agents, 1 + k), bool)
        allowed[..., 0] = True
        if self.agents:
            private[:, self.who, 1:], allowed[:, self.who, 1:] = cost, fit
            private[:, self.who, 0] = np.where(fit.any(1), cost.max(1, initial=0.0) + REFUSED, 0.0)
        rows = np.arange(-1, k)[:, None]
        return CongestionBatch(
            rows, np.zeros((size, self.agents, k)), np.ones((size, k)), private, allowed, self.active,
            np.zeros((size, k)),
        )  # fmt: skip

    def _scored(self, prices: ClusterPrices) -> tuple[Float, Int]:
        weights = prices.weights()
        if not np.array_equal(weights, self.weights):
            self.weights[:] = weights
        return self._scores(WEIGHTS, weights)

    def settle(
        self, choice: Choice | Int, prices: ClusterPrices, proposal: Any = None, trust: float = np.inf,
        seating: Any = None,
    ) -> Placed:  # fmt: skip
        """Each pod on the node it chose, where it fits; otherwise, and where it would be left out though it fits
        somewhere, on the one that is worth most. Of a node's GPUs it takes the one that the heuristic named, or that is
        worth most."""
        score, best_gpu = self._scored(prices)
        option = np.zeros((self.size, self.agents), np.int64)
        gpus = np.zeros(option.shape)
        asked = options_of(choice)
        for e in np.flatnonzero(self.waits):
            o = int(asked[e, self.who])
            fits = 0 < o <= score.shape[1] and score[e, o - 1] > core.NONE
            n = o - 1 if fits else int(score[e].argmax()) if score.shape[1] else -1
            if n < 0 or score[e, n] <= core.NONE:
                continue
            gpu = self._advice.get((int(e), n), int(best_gpu[e, n]))
            option[e, self.who], gpus[e, self.who] = n + 1, self._mask(int(e), n, gpu)
        return Placed(option, gpus, *self._parts_of(option))

    def _mask(self, e: int, n: int, gpu: int) -> int:
        """The GPUs that the pod of world e takes on node n, bit by bit."""
        _, _, many, milli = self.pod[e]
        if many == 1 and milli < WHOLE:
            return 1 << gpu
        free = np.flatnonzero(self.left.milli[e, n] == WHOLE)[:many]
        return int((1 << free).sum())

    def _parts_of(self, option: Int) -> tuple[Float, Float, Float]:
        """(E, N) parts of its node's CPU, memory and GPUs that each pod takes."""
        e, n = np.arange(self.size)[:, None], np.maximum(option - 1, 0)
        asked = (self.pod[:, 0], self.pod[:, 1], self.pod[:, 2] * self.pod[:, 3])
        most = (self.nodes.cpu, self.nodes.memory, self.nodes.gpus * WHOLE)
        if not self.model.shape[1]:
            return (np.zeros(option.shape),) * 3
        shares = [
            np.where(option > 0, a[:, None] / np.maximum(m[e, n], 1), 0.0) for a, m in zip(asked, most, strict=True)
        ]
        return shares[0], shares[1], shares[2]

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """(E, N) where a heuristic puts the pod; the GPU that it names goes with it."""
        if name not in BASELINES:
            self.unknown_baseline(name, BASELINES)
        rule = RULES.index(name) if name in RULES else core.FIRST if name == "round_robin" else WEIGHTS
        weights = FGD if name == "fgd" else FGD_RANDOM if name == "fgd_random" else self.weights
        score, gpu = self._scores(rule, weights)
        draws = rng.random((self.size, 2))
        option = np.zeros((self.size, self.agents), np.int64)
        self._advice.clear()
        for e in np.flatnonzero(self.waits):
            if name == "round_robin":
                turn = np.roll(score[e], -int(self.last[e]) - 1)
                n = core.pick(turn, -1.0, False)
                n = (n + int(self.last[e]) + 1) % score.shape[1] if n >= 0 else n
            else:
                ties = draws[e, 0] if name in ("random", "fgd_random") else -1.0
                n = core.pick(score[e], ties, False)
            if n >= 0 and self.agents:
                option[e, self.who] = n + 1
                one = core.some_gpu(self.left.milli[e, n], self.pod[e], draws[e, 1]) if name == "random" else gpu[e, n]
                self._advice[int(e), int(n)] = int(one)
        return option

    def requested(self, option: Int, prices: ClusterPrices) -> Float:
        """(E,) 1 where the node that was asked for has no room."""
        score, _ = self._scored(prices)
        if not self.agents or not score.shape[1]:
            return np.zeros(self.size)
        asked = option[:, self.who]
        room = score[np.arange(self.size), np.clip(asked - 1, 0, score.shape[1] - 1)] > core.NONE
        return np.where((asked > 0) & self.waits & ~room, 1.0, 0.0)

    def excess(self, plan: Placed) -> Float:
        """(E,) worst relative excess over what is left, and over what is asked for, from the plan alone."""
        worst = np.zeros(self.size)
        e, i = np.nonzero(plan.option > 0)
        n = plan.option[e, i] - 1
        asked = (self.pod[e, 0], self.pod[e, 1], self.pod[e, 2] * self.pod[e, 3])
        most = (self.nodes.cpu[e, n], self.nodes.memory[e, n], self.nodes.gpus[e, n] * WHOLE)
        milli = np.maximum(self.left.milli[e, n], 0)
        free = (self.left.cpu[e, n], self.left.memory[e, n], milli.sum(1))
        over = np.zeros(len(e))
        for share, want, whole, there in zip((plan.cpu, plan.memory, plan.gpu), asked, most, free, strict=True):
            has = share[e, i] * whole
            for limit in (np.asarray(want, float), there + 1e-6):
                beyond = np.where(
                    limit > 0, has / np.where(limit > 0, limit, 1) - 1, np.where(share[e, i] > 0, np.inf, 0)
                )
                over = np.maximum(over, beyond)
        held = plan.gpus[e, i].astype(np.int64)[:, None] >> np.arange(SLOTS) & 1
        beyond = (held * self.pod[e, 3][:, None] > milli).any(1) | (held.sum(1) != self.pod[e, 2])
        np.maximum.at(worst, e, np.where(beyond, np.inf, over))
        return worst

    def priority(self) -> Float:
        return np.zeros((self.size, self.agents))

    # --- what the world does

    def execute(self, plan: Placed) -> Facts:
        """Start the pods; they stay. What they ask for has arrived, be they placed or not."""
        size, n = self.size, self.agents
        self._advice.clear()
        self._now.clear()
        option = plan.option[:, self.who] if n else np.zeros(size, np.int64)
        gpus = plan.gpus[:, self.who].astype(np.int64) if n else option
        demand = self.pod[:, 2] * self.pod[:, 3] * self.waits
        core.start(self.pod, option, gpus, self.left)
        for e in np.flatnonzero(self.waits) if self.where.shape[1] else ():
            self.where[e, self.at[e]], self.held[e, self.at[e]] = option[e] - 1, gpus[e]
        self.last = np.where(option > 0, option - 1, self.last)
        self.came += demand
        self.used += demand * (option > 0)
        reward = np.zeros((size, n))
        if n:
            reward[:, self.who] = demand * (option > 0) / WHOLE
        share, mark = self.used / np.maximum(self.room, 1), np.round(100.0 * self.came / np.maximum(self.room, 1))
        band = ((mark >= BAND[0]) & (mark <= BAND[1])).astype(float)
        counts = {"band": band, "band_used": band * share, "decided": 1.0 * self.waits, "placed": 1.0 * (option > 0)}
        for at in MARKS:
            counts |= {f"at{at}": 1.0 * (mark == at), f"at{at}_used": (mark == at) * share}
        early = (mark <= 100) & self.waits
        many, milli = self.pod[:, 2], self.pod[:, 3]
        size_of = sizes(many, milli)
        for s, word in enumerate(SIZES):
            mine = early & (size_of == s)
            counts |= {f"{word}_came": 1.0 * mine, f"{word}_lost": 1.0 * (mine & (option == 0))}
        zero = np.zeros((size, n))
        return Facts(reward, zero, zero[..., None], np.ones(size), counts)

    def drift(self) -> Bool:
        """The next pod; (E,) whether all have come."""
        self.at += 1
        self.epoch += 1
        self._call(np.ones(self.size, bool))
        return self.ended()

    def ended(self) -> Bool:
        return np.asarray(~self.waits & (self.at > 0))

    @property
    def terminated(self) -> Bool:
        """For good: nothing comes after the last pod."""
        return self.ended()

    def _call(self, which: Bool) -> None:
        """Let the next pod come where ``which`` (E,) is set."""
        for e in np.flatnonzero(which):
            self._end(int(e))
            if self.sequence.shape[1]:
                there = self.at[e] < self.sequence.shape[1]
                kind = int(self.sequence[e, self.at[e]]) if there else -1
            else:
                work = self.problem.workload
                kind = int(self.draws(int(e)).choice(work.sequence))
                if self.came[e] + work.pods.demand[kind] > self.problem.until * self.room[e]:
                    kind = -1
            self._wait(int(e), None if kind < 0 else self.problem.pods[kind], kind)

    def _end(self, e: int) -> None:
        """Whoever ends before the next pod comes gives back what it has."""
        leaves, going = self.ends
        left = Left(*(part[e] for part in self.left))
        if self.at[e] >= len(going):  # nobody comes any more
            return
        while self.gone[e] < len(going) and leaves[going[self.gone[e]]] <= self.at[e]:
            j = int(going[self.gone[e]])
            pod, n = self.problem.pods[self.sequence[e, j]], int(self.where[e, j])
            self.came[e] -= pod[2] * pod[3]
            if n >= 0:
                core.give_back(pod, n, int(self.held[e, j]), left)
                self.used[e] -= pod[2] * pod[3]
            self.gone[e] += 1

    def _wait(self, e: int, pod: Int | None, kind: int | None = None) -> None:
        """Let a pod wait in world e, of a kind of the workload's where it is one; None: nobody comes any more."""
        self._now.clear()
        self.waits[e] = pod is not None
        self.pod[e] = 0 if pod is None else pod
        self.kind[e] = self.problem.kind_of(self.pod[e]) if kind is None else kind
        if self._rows == 1:
            self._caches.clear()

    def restart(self, which: Bool) -> None:
        """Empty clusters where ``which`` (E,) is set, in another order, and other pods to come."""
        work = self.problem.workload
        for e in np.flatnonzero(which):
            order, come = work.episode(self.draws(int(e)), self.problem.until)
            self._empty(int(e), order)
            self.sequence[e] = -1
            come = come[: self.sequence.shape[1]]
            self.sequence[e, : len(come)] = come
        for array in (self.came, self.used, self.at, self.epoch, self.last, self.gone):
            array[which] = 0
        self.where[which] = -1
        self._caches.clear()
        self._call(np.asarray(which, bool))

    def _empty(self, e: int, order: Int) -> None:
        work = self.problem.workload
        for mine, theirs in zip(self.left, core.all_left(work, order), strict=True):
            mine[e] = theirs
        for mine, theirs in zip(self.nodes, work.nodes, strict=True):
            mine[e] = theirs[order]
        self.model[e], self.down[e] = self.problem.models[order], False
        self.room[e] = work.capacity

    def spread(self, share: Float) -> None:
        """Bring each world so far along its episode (E,), 0 to 1, by its game at the prices' defaults."""
        if not self.sequence.shape[1]:
            return
        pods, tables = self.problem.pods, self.problem.tables
        for e in range(self.size):
            go = int(share[e] * (self.sequence[e] >= 0).sum())
            if go < 1:
                continue
            first = np.ascontiguousarray(self.sequence[e, :go])
            nodes = Nodes(*(part[e] for part in self.nodes))
            demand, used, node, held = (np.zeros(go, np.int64) for _ in range(4))
            leaves, going = self.ends
            going = going[going < go]
            core.play(
                WEIGHTS, False, first, pods, Left(*(part[e] for part in self.left)), nodes, nodes.kind, tables,
                core.no_cache(len(pods), len(nodes.cpu)), self.weights, self.weights, 1, np.zeros((go, 2)), leaves,
                going, demand, used, node, held,
            )  # fmt: skip
            if len(leaves):
                self.where[e, :go], self.held[e, :go] = node, held
                self.gone[e] = (leaves < go).sum()
            self.came[e], self.used[e], self.at[e], self.epoch[e] = demand[-1], used[-1], go, go
        self._caches.clear()
        self._call(np.ones(self.size, bool))

    # --- told and kept

    def state(self, e: int) -> ClusterState:
        milli = np.maximum(self.left.milli[e], 0)
        pod = np.zeros((self.agents, 4), np.int64)
        if self.agents:
            pod[self.who] = self.pod[e]
        cpu, memory, gpus, share = pod.T.copy()
        return ClusterState(
            cpu, memory, gpus, share, self.nodes.cpu[e].copy(), self.nodes.memory[e].copy(), self.nodes.gpus[e].copy(),
            self.left.cpu[e].copy(), self.left.memory[e].copy(), milli, self.model[e].copy(), self.down[e].copy(),
            self.active[e], float(self.came[e]),
        )  # fmt: skip

    def parts(self, plan: Placed, e: int = 0) -> dict[str, Any]:
        free = np.zeros(self.model.shape[1])  # prices: who comes alone pays for nobody's absence
        return {
            "option": plan.option[e], "served": plan.option[e] > 0, "gpus": plan.gpus[e],
            "shares": {"cpu": plan.cpu[e], "memory": plan.memory[e], "gpu": plan.gpu[e]},
            "prices": dict.fromkeys(("cpu", "memory", "gpu"), free),
        }  # fmt: skip

    def plan_of(self, allocation: Any) -> Placed:
        one = lambda array, kind=np.float64: np.ascontiguousarray(array, kind)[None]
        share = allocation.shares
        return Placed(
            one(allocation.option, np.int64), one(allocation.gpus), one(share["cpu"]), one(share["memory"]),
            one(share["gpu"]),
        )  # fmt: skip

    def draws(self, e: int) -> np.random.Generator:
        """The next random numbers of world ``e``: the same at its k-th call, whatever was executed."""
        self.stream[e, 1] += 1
        return np.random.default_rng(self.stream[e])

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams from now on; the pods that are still to come do so in another order."""
        self.stream[:] = [[int(seed), 0] for seed in seeds]
        for e in range(self.size if self.sequence.shape[1] and not len(self.ends[0]) else 0):
            ahead = self.sequence[e, self.at[e] + 1 :]
            many = int((ahead >= 0).sum())
            ahead[:many] = self.draws(e).permutation(ahead[:many])

    def arrays(self) -> dict[str, Any]:
        own = (
            "model", "down", "sequence", "at", "pod", "kind", "waits", "came", "used", "room", "stream", "last",
            "where", "held", "gone", "weights",
        )  # fmt: skip
        mine = {name: getattr(self, name) for name in own}
        return super().arrays() | mine | named("left", self.left) | named("nodes", self.nodes)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._now.clear()
        self._caches.clear()


FGD_RANDOM = FGD.copy()
FGD_RANDOM[core.TERMS.index("order")] = 0.0
