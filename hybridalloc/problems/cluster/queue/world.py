"""E clusters side by side for which jobs queue; a decision says of all that are there who runs where in a round."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from coordinator.game import Choice, options_of
from games.congestion import Float, Int
from games.packing import seat_asked
from games.packing_batch import PackingBatch, side_by_side
from hybridalloc.problems.cluster.queue import durations
from hybridalloc.problems.cluster.queue.counts import counts_of
from hybridalloc.problems.cluster.queue.observation import observed
from hybridalloc.problems.cluster.queue.orders import ORDERS, PROGRAMS, placed
from hybridalloc.problems.cluster.queue.packings import packing_of
from hybridalloc.problems.cluster.queue.prices import QueuePrices
from hybridalloc.problems.cluster.queue.standing import Queues
from hybridalloc.problems.contract import Facts
from rl.proposal import Observation

BASELINES = ORDERS | PROGRAMS
AS_PUBLISHED = ("attained", "drf", "tetris", *PROGRAMS)


class Running(NamedTuple):
    """Who runs where in E rounds: option (E, N), 1 + the place, 0 for none; share (E, N) of its pool's units."""

    option: Int
    share: Float


class QueueWorld(Queues):
    """:class:`Queues` that are decided on."""

    # --- what is seen and played

    def game(self, prices: QueuePrices) -> PackingBatch:
        """Who holds which place: the packing game of what each is worth to each job, with trades."""
        return side_by_side([packing_of(self, e, prices) for e in range(self.size)], self.there.copy())

    def observe(self) -> Observation:
        """Of each job; of each pool; of the job at each place."""
        return observed(self)

    def settle(
        self, choice: Choice | Int, prices: QueuePrices, proposal: Any = None, trust: float = np.inf,
        seating: Any = None,
    ) -> Running:  # fmt: skip
        """Each job where it asks to run, the dearest first, as far as there is room; who may not be moved stays."""
        asked, option = options_of(choice), np.zeros((self.size, self.slots), np.int64)
        for e in range(self.size):
            game = packing_of(self, e, prices)
            wish = np.where(self.pinned(e), self.at["place"][e], asked[e])
            game = game._replace(rank=np.where(self.pinned(e), -1, game.rank))
            option[e] = seat_asked(game, wish, trade=True).option
        return self._plan(option)

    def _plan(self, option: Int) -> Running:
        place = np.maximum(option - 1, 0)
        if not len(self.setup.pool):
            return Running(option, np.zeros(option.shape))
        units = np.take_along_axis(self.taken, place[..., None], 2)[..., 0]
        most = np.take_along_axis(np.maximum(self.units, 1), self.setup.pool[place], 1)
        return Running(option, np.where(option > 0, units / most, 0.0))

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """(E, N) where a rule puts the jobs."""
        if name not in BASELINES:
            self.unknown_baseline(name, BASELINES)
        return np.stack([placed(self, e, name, rng) for e in range(self.size)])

    def requested(self, option: Int, prices: QueuePrices) -> Float:
        """(E,) share of the pools that are asked for of which more is asked for than there is."""
        out = np.zeros(self.size)
        for e in range(self.size):
            i = np.flatnonzero((option[e] > 0) & self.there[e])
            place = np.clip(option[e, i] - 1, 0, len(self.setup.pool) - 1)
            asked = np.bincount(self.setup.pool[place], self.taken[e, i, place], len(self.setup.pools))
            out[e] = (asked > self.room(e)).sum() / max((asked > 0).sum(), 1)
        return out

    def excess(self, plan: Running) -> Float:
        """(E,) worst relative excess over pools, racks and quotas, from the plan alone."""
        worst = np.zeros(self.size)
        for e, i in np.argwhere(plan.option > 0):
            o = int(plan.option[e, i])
            there = o <= len(self.setup.pool) and self.there[e, i] and self.speed[e, i, o - 1] > 0
            if not there or plan.share[e, i] * self.units[e, self.setup.pool[o - 1]] < self.taken[e, i, o - 1] - 1e-6:
                worst[e] = np.inf
        for e in range(self.size):
            on = np.flatnonzero(plan.option[e] > 0)
            pool = self.setup.pool[np.minimum(plan.option[e, on], len(self.setup.pool)) - 1]
            has = plan.share[e, on] * self.units[e, pool]
            asked = self.taken[e, on, np.minimum(plan.option[e, on], len(self.setup.pool)) - 1]
            over = [float((has / np.maximum(asked, 1) - 1).max(initial=0.0))]
            for key, what, limit in (
                (pool, has, self.room(e)), (self.rack[pool], has * self.watts[pool], self.rack_w),
                (self.at["team"][e, on], has, self.quota),
            ):  # fmt: skip
                counts = key >= 0
                if len(limit):
                    used = np.bincount(key[counts], what[counts], len(limit))
                    over.append(float((used / np.maximum(limit, 1e-9) - 1)[used > 0].max(initial=0.0)))
            pinned = self.pinned(e) & (plan.option[e] != self.at["place"][e])
            worst[e] = max(worst[e], *over, np.inf if pinned.any() else 0.0)
        return np.where(worst > 1e-9, worst, 0.0)

    def priority(self) -> Float:
        return np.where(self.there, self.at["priority"], 0.0)

    # --- what the world does

    def execute(self, plan: Running) -> Facts:
        """Run a round. Who starts somewhere loses ``restart_s``; who ends in it leaves."""
        a, option = self.at, plan.option * self.there
        place = np.maximum(option - 1, 0)
        runs, same = option > 0, option == a["place"]
        pick = lambda table: np.take_along_axis(table, place[..., None], 2)[..., 0]
        rate = np.where(runs, pick(self.speed) * np.where(same, a["pace"], 1.0), 0.0)
        lost = np.where(runs & ~same, min(self.problem.restart_s, self.problem.round_s), 0.0)
        need = np.where(runs, a["true"] / np.where(runs, rate, 1.0), np.inf)
        ran = np.where(runs, np.minimum(self.problem.round_s - lost, need), 0.0)
        units = pick(self.taken) * runs
        a["true"] = np.maximum(a["true"] - ran * rate, 0.0)
        a["attained"] += (lost + ran) * units
        ended = runs & (a["true"] <= 1e-6 * a["alone"])
        a["pace"] = np.where(same, a["pace"], 1.0)
        started = runs & ~same
        a["place"] = np.where(ended, 0, option)
        end_s = self.clock[:, None] + lost + ran
        self.last_end = np.maximum(self.last_end, np.where(ended, end_s, 0.0).max(1, initial=0.0))
        self.after = self._next_decision(ended)
        facts = counts_of(self, ended, started, end_s, lost, ran, rate, units)
        for e in np.flatnonzero(ended.any(1)):
            judged = ended[e] & (a["told"][e] > 0)
            self.judged[e] = durations.seen(self.judged[e], np.log(a["alone"][e, judged] / a["told"][e, judged]))
        self._leave(ended)
        return facts

    # --- as allocations

    def parts(self, plan: Running, e: int = 0) -> dict[str, Any]:
        free = np.zeros(len(self.setup.pools))
        return {
            "option": plan.option[e], "served": plan.option[e] > 0, "shares": {"unit": plan.share[e]},
            "prices": {"unit": free},
        }  # fmt: skip

    def plan_of(self, allocation: Any) -> Running:
        option = np.ascontiguousarray(allocation.option, np.int64)[None]
        return Running(option, np.ascontiguousarray(allocation.shares["unit"], np.float64)[None])
