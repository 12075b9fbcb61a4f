"""The game of a step of jobs that hold what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from coordinator.game import Choice, options_of
from games.congestion import Float, Int
from games.packing import Packing, kept_apart, packing_game, seat_asked, serve_in_order, serving_order, with_quotas
from games.packing_batch import PackingBatch, side_by_side
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.custom.held.state import NEVER, HeldState
from hybridalloc.problems.slots import StateSlots, StateWorld
from rl.proposal import Observation

CURVE = 9  # points of a server's potential
BASELINES = {"first_fit": "first fit", "largest_first": "largest first", "random": "random"}


class HeldPrices(NamedTuple):
    """What the game charges: ``tight`` a full server more than an empty one, so that jobs fill what is begun;
    ``moving`` times what jobs say that leaving their place costs."""

    tight: float = 1.0
    moving: float = 1.0


class Standing(NamedTuple):
    """Where jobs stand: option (E, N), 1 + the first server; share (E, N, D) of a server's capacity that each takes."""

    option: Int
    share: Float


HeldSlots = StateSlots[HeldState, Standing, HeldPrices]


class HeldWorld(StateWorld[HeldSlots, HeldState, HeldPrices]):
    """E steps side by side. Nothing moves on by itself: the next step is the same one."""

    def __init__(self, problem: HeldSlots, states: Sequence[HeldState], seeds: Sequence[int]) -> None:
        self.states = list(states)
        super().__init__(problem, states, seeds)

    def following(self, e: int, rng: np.random.Generator) -> HeldState:
        return self.states[e]

    def state(self, e: int) -> HeldState:
        return self.states[e]

    def packing(self, e: int, prices: HeldPrices) -> Packing:
        """Servers in their order, each with its resources; classes by priority."""
        s = self.states[e]
        n, (k, d) = s.agents, s.capacity.shape
        most = max(int(np.minimum(s.count, k).max(initial=1)), 1)
        first = np.arange(k)[:, None] + np.arange(most)
        server = np.where(np.arange(most) < s.count[:, None, None], first % k, -1)  # (N, K, most)
        rows = np.full((n, 1 + k, most * d), -1)
        leg = np.where(server[..., None] >= 0, server[..., None] * d + np.arange(d), -1)
        rows[:, 1:] = leg.reshape(n, k, most * d)
        demand = np.zeros(rows.shape)
        demand[:, 1:] = np.tile(s.demand, most)[:, None]
        ok = np.zeros((n, 1 + k), bool)
        ok[:, 1:] = s.allowed & s.active[:, None] & (s.count <= k)[:, None]
        there = s.active & (s.previous > 0)
        pinned = s.fixed
        same = np.arange(1 + k) == s.previous[:, None]
        ok[pinned] &= same[pinned]
        private = np.zeros((n, 1 + k))
        private[:, 1:] = s.cost
        leaving = np.where(s.moving_cost < NEVER, s.moving_cost, 0.0) * prices.moving * there
        private += np.where(same, 0.0, leaving[:, None])
        private[~ok & (np.arange(1 + k) > 0)] = 0.0
        private[~s.active] = 0.0
        fill = np.linspace(0, 1, CURVE)
        curve = np.repeat(-prices.tight / max(d, 1) * fill[None] ** 2, k * d, 0)
        rank = np.unique(-np.where(s.active, s.priority, 0.0), return_inverse=True)[1].reshape(n)
        preempt = np.where(pinned, np.inf, 0.0)
        game = packing_game(
            rows, demand, s.capacity.ravel(), curve=curve, private=private, ok=ok, rank=rank,
            stay=np.where(there, s.previous, 0), preempt=preempt,
        )  # fmt: skip
        for r in range(d if len(s.quota) else 0):
            limit = np.minimum(s.quota[:, r], s.capacity[:, r].sum())
            game = with_quotas(game, s.team, s.demand[:, r] * s.count, limit)
        return self._apart(game, s) if (s.apart >= 0).any() else game

    @staticmethod
    def _apart(game: Packing, s: HeldState) -> Packing:
        """Jobs of one group share room for one on each server; gangs on each of theirs."""
        k, base = len(s.capacity), len(game.capacity)
        if (s.count == 1).all():
            return kept_apart(game, s.apart, np.arange(1 + k) - 1)
        most, groups = int(np.minimum(s.count, k).max()), int(s.apart.max()) + 1
        server = np.where(
            np.arange(most) < s.count[:, None, None], (np.arange(k)[:, None] + np.arange(most)) % k, -1
        )  # (N, K, most)
        row = np.full((len(s.apart), 1 + k, most), -1)
        own = s.apart[:, None, None]
        row[:, 1:] = np.where((server >= 0) & (own >= 0), base + own * k + server, -1)
        return game._replace(
            rows=np.ascontiguousarray(np.concatenate([game.rows, row], 2), np.int64),
            demand=np.ascontiguousarray(np.concatenate([game.demand, 1.0 * (row >= 0)], 2)),
            capacity=np.concatenate([game.capacity, np.ones(groups * k)]),
            curve=np.concatenate([game.curve, np.zeros((groups * k, game.curve.shape[1]))]),
        )

    def game(self, prices: HeldPrices) -> PackingBatch:
        return side_by_side([self.packing(e, prices) for e in range(self.size)], self.active.copy())

    def observe(self) -> Observation:
        a = self.at
        most = np.maximum(a["capacity"].max(1, keepdims=True), 1e-12)
        agent = np.concatenate([
            a["demand"] / most, np.stack([a["count"] / a["capacity"].shape[1], a["previous"] > 0], -1)
        ], -1) * self.active[..., None]  # fmt: skip
        resource = a["capacity"] / most
        k = a["capacity"].shape[1]
        pair = np.zeros((*self.active.shape, 1 + k, 2))
        pair[..., 0] = np.arange(1 + k) == a["previous"][..., None]
        pair[:, :, 1:, 1] = np.tanh(a["cost"])
        allowed = np.stack([self.packing(e, HeldPrices()).ok for e in range(self.size)])
        allowed[..., 0] = True
        pair = np.where(allowed[..., None], pair, 0.0)
        single = lambda x: np.clip(x, -50, 50).astype(np.float32)
        return Observation(
            single(agent), single(resource), single(pair), self.active.copy(), allowed, np.arange(1 + k) - 1
        )  # fmt: skip

    def settle(
        self, choice: Choice | Int, prices: HeldPrices, proposal: Any = None, trust: float = np.inf, seating: Any = None
    ) -> Standing:
        """Each job where it asks to stand, in the order in which they are served, as far as there is room."""
        asked = options_of(choice)
        option = np.zeros(asked.shape, np.int64)
        for e, s in enumerate(self.states):
            game = self.packing(e, prices)
            pinned = np.isinf(game.preempt) & (game.stay > 0)
            game = game._replace(rank=np.where(pinned, -1, game.rank))
            option[e] = seat_asked(game, np.where(pinned, s.previous, asked[e])).option
        return Standing(option, np.stack([self._share(s, option[e]) for e, s in enumerate(self.states)]))

    @staticmethod
    def _share(s: HeldState, option: Int) -> Float:
        """(N, D) of the server on which a job's part is largest."""
        out = np.zeros(s.demand.shape)
        for i in np.flatnonzero(option):
            room = s.capacity[s.stands_on(int(i), int(option[i]))]
            out[i] = np.where(s.demand[i] > 0, s.demand[i] / np.where(room > 0, room, 1.0), 0.0).max(0)
        return out

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        if name not in BASELINES:
            self.unknown_baseline(name, BASELINES)
        out = np.zeros(self.active.shape, np.int64)
        for e in range(self.size):
            game = self.packing(e, HeldPrices())
            flat = game._replace(
                curve=np.zeros(game.curve.shape),
                private=np.tile(1.0 * np.arange(game.private.shape[1]), (len(out[e]), 1)),
            )
            pinned = np.isinf(game.preempt) & (game.stay > 0)
            order = serving_order(flat)
            order = order[::-1] if name == "largest_first" else order
            order = rng.permutation(order) if name == "random" else order
            keys = (game.rank[order], ~pinned[order]) if name != "random" else (~pinned[order],)
            out[e] = serve_in_order(flat, order[np.lexsort(keys)]).option
        return out

    def excess(self, plan: Standing) -> Float:
        """(E,) worst relative excess over a server, a quota or a promise, from the plan alone."""
        worst = np.zeros(self.size)
        for e, s in enumerate(self.states):
            used, had = np.zeros(s.capacity.shape), np.zeros(s.quota.shape)
            groups: dict[tuple[int, int], int] = {}
            fixed = s.fixed
            for i, o in enumerate(plan.option[e].tolist()):
                bad = bool(fixed[i]) and o != s.previous[i]
                servers = s.stands_on(i, o)
                bad |= o != 0 and (not servers or not s.active[i] or not s.allowed[i, o - 1])
                worst[e] = np.inf if bad else worst[e]
                for server in servers:
                    has = np.maximum(plan.share[e, i] * s.capacity[servers].min(0), s.demand[i])
                    used[server] += has
                    if s.team[i] >= 0:
                        had[s.team[i]] += has
                    if s.apart[i] >= 0:
                        groups[int(s.apart[i]), server] = groups.get((int(s.apart[i]), server), 0) + 1
            over = [(used, s.capacity), (had, s.quota)]
            for has, may in over:
                more = np.where(may > 0, has / np.where(may > 0, may, 1) - 1, np.where(has > 1e-12, np.inf, 0.0))
                worst[e] = max(worst[e], float(more.max(initial=0.0)))
            worst[e] = max(worst[e], max(groups.values(), default=1) - 1.0)
        return np.where(worst > 1e-9, worst, 0.0)

    def requested(self, option: Int, prices: HeldPrices) -> Float:
        """(E,) share of the servers asked for of which more is asked for than there is."""
        out = np.zeros(self.size)
        for e, s in enumerate(self.states):
            used = np.zeros(s.capacity.shape)
            for i in np.flatnonzero(s.active & (option[e] > 0)):
                np.add.at(used, s.stands_on(int(i), int(option[e, i])), s.demand[i])
            asked = (used > 0).any(1)
            out[e] = (used > s.capacity * (1 + 1e-9)).any(1).sum() / max(int(asked.sum()), 1)
        return out

    def priority(self) -> Float:
        return np.where(self.active, self.at["priority"], 0.0)

    def execute(self, plan: Standing) -> Facts:
        """What a step is worth: how many are served, and how much of the servers they hold."""
        served = (plan.option > 0) & self.active
        held = np.zeros(self.size)
        for e, s in enumerate(self.states):
            used = (s.demand * (s.count * served[e])[:, None]).sum(0)
            total = s.capacity.sum(0)
            held[e] = float((used / np.where(total > 0, total, 1.0)).max(initial=0.0))
        moved = served & (self.at["previous"] > 0) & (plan.option != self.at["previous"])
        counts = {
            "served": served.sum(1) * 1.0, "active": self.active.sum(1) * 1.0, "held": held, "moved": moved.sum(1) * 1.0
        }  # fmt: skip
        zero = np.zeros(served.shape)
        return Facts(served.astype(np.float64), zero, zero[..., None], np.ones(self.size), counts)

    def parts(self, plan: Standing, e: int = 0) -> dict[str, Any]:
        s, names = self.states[e], self.problem.card.families
        free = np.zeros(len(s.capacity))
        return {
            "option": plan.option[e], "served": (plan.option[e] > 0) | ~s.active,
            "shares": {name: plan.share[e, :, r] for r, name in enumerate(names)},
            "prices": dict.fromkeys(names, free),
        }  # fmt: skip

    def plan_of(self, allocation: Any) -> Standing:
        option = np.ascontiguousarray(allocation.option, np.int64)[None]
        share = [np.asarray(allocation.shares[name], float) for name in self.problem.card.families]
        return Standing(option, np.stack(share, -1)[None] if share else np.zeros((*option.shape, 0)))
