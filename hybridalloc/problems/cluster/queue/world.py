"""E clusters side by side for which jobs queue; a decision says of all that are there who runs where in a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from coordinator.game import Choice, options_of
from games.congestion import Bool, Float, Int
from games.packing import Packing, seat_asked
from games.packing_batch import PackingBatch, side_by_side
from hybridalloc.problems.cluster.queue import durations
from hybridalloc.problems.cluster.queue.counts import counts_of
from hybridalloc.problems.cluster.queue.orders import ORDERS, PROGRAMS, placed
from hybridalloc.problems.cluster.queue.prices import QueuePrices
from hybridalloc.problems.cluster.queue.setups import Setup
from hybridalloc.problems.cluster.queue.state import MEAN, NEVER, QueueState
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.slots import SlotWorld, named
from rl.proposal import Observation

if TYPE_CHECKING:
    from hybridalloc.problems.cluster.queue.problem import Queue

BASELINES = ORDERS | PROGRAMS
HOUR = 3600.0
CURVE = 9  # points of a pool's potential
SOON = 0.05  # hours: who has less left is worth no more
IDLE = {  # nobody in a place of the queue
    "type": -1, "serial": -1, "gang": 1, "came": 0.0, "alone": 0.0, "told": 0.0, "true": 0.0, "attained": 0.0,
    "own": 1.0, "due": np.inf, "priority": 0.0, "team": -1, "place": 0, "pace": 1.0, "measured": False, "label": 0,
}  # fmt: skip


class Running(NamedTuple):
    """Who runs where in E rounds: option (E, N), 1 + the place, 0 for none; share (E, N) of its pool's units."""

    option: Int
    share: Float


class QueueWorld(SlotWorld):
    """E queues of N places.

    Attributes:
        at: what is known of the job in each place of the queue, by name, (E, N): seconds that it takes ``alone`` and is
            ``told`` to, that are ``true``ly left; unit-seconds ``attained``; hours of its ``own`` part; when it
            ``came`` and is ``due``. there: (E, N) whether anybody is. clock: (E,) s. taken, speed: (E, N, P).
        jobs: who comes, by name (E, J). next: (E,) of them that have come. judged: (E, 3), see :mod:`.durations`.
    """

    def __init__(self, problem: Queue, size: int, slots: int, jobs: int, seeds: Sequence[int]) -> None:
        super().__init__(size, problem.card.epochs)
        self.problem, self.setup, self.slots = problem, problem.setup, slots
        shape, p = (size, slots), len(self.setup.pool)
        self.at = {name: np.full(shape, value) for name, value in IDLE.items()}
        self.there = np.zeros(shape, bool)
        self.taken, self.speed = np.ones((*shape, p), np.int64), np.zeros((*shape, p))
        whole = lambda fill: np.full((size, jobs), fill)
        self.jobs = {
            "arrival": whole(np.inf), "type": whole(0), "alone": whole(1.0), "told": whole(1.0), "due": whole(np.inf),
            "priority": whole(0.0),
        }  # fmt: skip
        self.clock, self.next, self.turn = np.zeros(size), np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.judged, self.last_end = np.zeros((size, 3)), np.zeros(size)
        self.counted = np.zeros(size, np.int64)  # jobs that have come and were counted
        self.after = np.zeros(size)  # when the decision at hand will be over
        self.stream = np.zeros((size, 2), np.int64)
        self.stream[:, 0] = [int(seed) for seed in seeds]
        self.down = np.zeros((size, len(self.setup.pools)), bool)
        self.units = np.repeat(self.setup.units[None], size, 0)
        self.rack, self.watts, self.rack_w, self.quota = problem.limits()
        self.parts_of_time: dict[int, Any] = {}
        self.told: QueueState | None = None
        self._believe()

    # --- made

    @classmethod
    def fresh(cls, problem: Queue, seeds: Sequence[int]) -> QueueWorld:
        """Clusters to which the first jobs have just come."""
        world = cls(problem, len(seeds), problem.slots, problem.longest, seeds)
        world.restart(np.ones(len(seeds), bool))
        return world

    @classmethod
    def of_state(cls, problem: Queue, state: QueueState) -> QueueWorld:
        """One cluster as it is told; who comes next is drawn when it is asked to move on."""
        world = cls(problem, 1, state.agents, problem.longest, [0])
        n = state.agents
        pools = tuple(f"pool {w}" for w in range(len(state.pool_units)))
        label = tuple(problem.setup.classes)
        world.setup = Setup(
            pools, state.pool_units, state.watts, state.pool, state.gang, state.units, state.speed, state.label, label
        )
        world.there[0], world.units, world.down = state.active, state.pool_units[None].copy(), state.down[None].copy()
        world.taken, world.speed = state.units[None].copy(), state.speed[None].copy()
        world.rack, world.watts, world.rack_w, world.quota = state.rack, state.watts, state.rack_w, state.quota
        world.clock[0] = HOUR * state.time_h
        left = np.where(state.true_h >= 0, state.true_h, state.expected_h)
        due = np.where(state.deadline_h < NEVER, state.deadline_h * HOUR + world.clock[0], np.inf)
        given = {
            "type": np.arange(n), "serial": np.arange(n), "gang": state.gang,
            "came": world.clock[0] - HOUR * state.age_h,
            "told": HOUR * state.told_h, "true": HOUR * left, "alone": HOUR * (left + state.done_h), "due": due,
            "attained": HOUR * state.attained, "own": state.own_h, "priority": state.priority, "team": state.team,
            "place": state.place, "pace": state.pace, "measured": np.ones(n, bool), "label": state.label,
        }  # fmt: skip
        world.at = {name: np.array(given[name], values.dtype)[None] for name, values in world.at.items()}
        world.judged[0], world.told = state.judged, state
        world.left = np.array(state.left_h)[None]
        world.expected = world.left @ MEAN
        return world

    @property
    def active(self) -> Bool:
        return self.there.copy()

    # --- what is seen and played

    def _believe(self) -> None:
        """What each job is believed to have left (E, N, 3), and expected to, in hours."""
        mean, spread = durations.judge(self.judged)
        done = np.maximum(self.at["alone"] - self.at["true"], 0.0)
        whole = lambda x: np.broadcast_to(x[:, None], done.shape)
        self.left = durations.left(self.at["told"], done, whole(mean), whole(spread)) / HOUR
        self.left[~self.there] = 0.0
        self.expected = self.left @ MEAN

    def paced(self, e: int) -> Float:
        """(N, P) speed of each job at each place, at its own as it does there."""
        speed = self.speed[e].copy()
        n = np.flatnonzero(self.at["place"][e] > 0)
        speed[n, self.at["place"][e, n] - 1] *= self.at["pace"][e, n]
        return speed

    def room(self, e: int) -> Int:
        """(W,) units of each pool that is up."""
        return np.where(self.down[e], 0, self.units[e])

    def pinned(self, e: int) -> Bool:
        """(N,) who stands somewhere and is not to be moved."""
        out = np.zeros(self.slots, bool)
        return out if self.problem.preempt else self.there[e] & (self.at["place"][e] > 0)

    def ratio(self, e: int) -> Float:
        """(N,) time from arrival to the end, were the job to run on its fastest place from now on, over what its own
        part would take; or, where that is larger, what it has left over the time to its deadline."""
        left, own = self.expected[e], np.maximum(self.at["own"][e], 1e-9)
        ratio = ((self.clock[e] - self.at["came"][e]) / HOUR + left) / own
        time = (self.at["due"][e] - self.clock[e]) / HOUR
        return np.maximum(ratio, np.where(time > 0, left / np.where(time > 0, time, 1.0), 0.0))

    def worth(self, e: int, prices: QueuePrices) -> Float:
        """(N,) w_i of :class:`QueuePrices`."""
        q = prices
        weight = (self.expected[e] + SOON) ** -q.left * self.at["gang"][e].astype(float) ** -q.gang
        return np.asarray(weight * (1.0 + q.weight * np.maximum(self.ratio(e) - q.mark, 0.0)))

    def packing(
        self, e: int, prices: QueuePrices | None = None, neutral: bool = False, told: bool = True
    ) -> Packing:  # fmt: skip
        """The game of world ``e``; ``neutral``: a place is worth a job's speed there, less what a start costs, and all
        are of one class; who is not ``told`` what is left takes it to be as much as was done."""
        n, p = self.speed.shape[1:]
        w, r = len(self.setup.pools), len(self.rack_w)
        pool, place = self.setup.pool, self.at["place"][e]
        legs = 1 + (r > 0) + (len(self.quota) > 0)
        rows, demand = np.full((n, 1 + p, legs), -1), np.zeros((n, 1 + p, legs))
        rows[:, 1:, 0], demand[:, 1:, 0] = pool, self.taken[e]
        if r:
            rows[:, 1:, 1] = np.where(self.rack[pool] >= 0, w + self.rack[pool], -1)
            demand[:, 1:, 1] = self.taken[e] * self.watts[pool]
        if len(self.quota):
            team = self.at["team"][e][:, None]
            rows[:, 1:, -1], demand[:, 1:, -1] = np.where(team >= 0, w + r + team, -1), self.taken[e]
        demand[rows < 0] = 0.0
        capacity = np.concatenate([self.room(e), self.rack_w, self.quota]).astype(float)
        speed, same = self.paced(e), place[:, None] == 1 + np.arange(p)
        ok, private = np.zeros((n, 1 + p), bool), np.zeros((n, 1 + p))
        ok[:, 1:] = self.there[e][:, None] & (speed > 0) & (self.taken[e] <= self.room(e)[pool])
        rank, curve = np.zeros(n, np.int64), np.zeros((len(capacity), CURVE))
        done = (self.at["alone"][e] - self.at["true"][e]) / HOUR
        hours = self.expected[e] if told else np.maximum(done, 0.0)
        lost = self.problem.restart_s / np.maximum(HOUR * hours, self.problem.round_s)
        moved = speed * np.where(same, 1.0, 1.0 - np.minimum(lost, 1.0)[:, None])
        if neutral:
            private[:, 1:] = -(moved + 1e-9 * same)
        else:
            q = self.problem.card.prices() if prices is None else prices
            private[:, 1:] = -self.worth(e, q)[:, None] * (moved + q.some + q.stay * same)
            rank = np.unique(-self.at["priority"][e], return_inverse=True)[1]
            fill = np.linspace(0, 1, CURVE)
            curve[:w] = -q.tight * capacity[:w, None] * fill**2
        pinned = self.pinned(e)
        ok[pinned, 1:] &= same[pinned]
        private[~ok] = 0.0
        stay, preempt = np.where(pinned, place, 0), np.where(pinned, np.inf, 0.0)
        return Packing(rows, demand, capacity, curve, private, ok, rank.astype(np.int64), stay, preempt)

    def game(self, prices: QueuePrices) -> PackingBatch:
        """Who holds which place: the packing game of what each is worth to each job, with trades."""
        return side_by_side([self.packing(e, prices) for e in range(self.size)], self.there.copy())

    def observe(self) -> Observation:
        """Of each job; of each pool; of the job at each place."""
        size, n, p = self.speed.shape
        log = lambda x: np.log10(np.maximum(x, 1e-3))
        a, w = self.at, len(self.setup.pools)
        ratio = np.stack([self.ratio(e) for e in range(size)])
        age = (self.clock[:, None] - a["came"]) / HOUR
        agent = np.stack([
            log(self.left[..., 1]), log(self.expected), self.left[..., 2] / np.maximum(self.left[..., 1], 1e-6) / 10,
            np.log2(a["gang"]) / 3, log(age), log(a["attained"] / HOUR), np.minimum(ratio, 20.0) / 2, a["place"] > 0,
            a["pace"], np.minimum(a["priority"], 20.0),
        ], -1)  # fmt: skip
        agent[~self.there] = 0.0
        units = np.maximum(self.units, 1)
        held = np.zeros((size, w))
        for e in range(size):
            on = np.flatnonzero(self.there[e] & (a["place"][e] > 0))
            place = a["place"][e, on] - 1
            np.add.at(held[e], self.setup.pool[place], self.taken[e, on, place])
        resource = np.stack([held / units, units / units.sum(1, keepdims=True), ~self.down], -1)
        pair, allowed = np.zeros((size, n, 1 + p, 4)), np.zeros((size, n, 1 + p), bool)
        allowed[..., 0] = True
        for e in range(size):
            game = self.packing(e, neutral=True)
            allowed[e, :, 1:] = game.ok[:, 1:]
            speed = self.paced(e)
            pair[e, :, 1:, 0] = speed
            pair[e, :, 1:, 1] = a["place"][e][:, None] == 1 + np.arange(p)
            pair[e, :, 1:, 2] = self.taken[e] / np.maximum(self.units[e], 1)[self.setup.pool]
            pair[e, :, 1:, 3] = speed / np.maximum(self.taken[e], 1)
        pair[~allowed] = 0.0
        resource_of = np.concatenate([[-1], self.setup.pool])
        single = lambda x: np.clip(x, -50, 50).astype(np.float32)
        return Observation(single(agent), single(resource), single(pair), self.active, allowed, resource_of)

    def settle(
        self, choice: Choice | Int, prices: QueuePrices, proposal: Any = None, trust: float = np.inf,
        seating: Any = None,
    ) -> Running:  # fmt: skip
        """Each job where it asks to run, the dearest first, as far as there is room; who may not be moved stays."""
        asked, option = options_of(choice), np.zeros((self.size, self.slots), np.int64)
        for e in range(self.size):
            game = self.packing(e, prices)
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

    def _next_decision(self, ended: Bool) -> Float:
        """(E,) when the next one is due: a round on, or, where nobody is there, when somebody has come."""
        after = self.clock + self.problem.round_s
        if self.told is None:
            come = self._arrival(self.next)
            empty = ~(self.there & ~ended).any(1) & (come > after) & np.isfinite(come)
            ceiling = np.ceil(come / self.problem.round_s) * self.problem.round_s
            after = np.where(empty, ceiling, after)
        return np.asarray(after)

    def _arrival(self, index: Int) -> Float:
        """(E,) when job number ``index`` (E,) comes; inf where there is none."""
        table = self.jobs["arrival"]
        safe = np.minimum(index, table.shape[1] - 1)
        return np.where(index < table.shape[1], table[np.arange(self.size), safe], np.inf)

    def arrived(self) -> Int:
        """(E,) jobs that have come."""
        rows = zip(self.jobs["arrival"], self.clock, strict=True)
        return np.array([np.searchsorted(row, now, side="right") for row, now in rows])

    def outside(self) -> Int:
        """(E,) of them those for which the queue had no place yet."""
        return np.asarray(self.arrived() - self.next)

    def _leave(self, which: Bool) -> None:
        self.there[which] = False
        for name, value in IDLE.items():
            self.at[name][which] = value
        self.speed[which], self.taken[which] = 0.0, 1

    def drift(self) -> Bool:
        """On to the next decision; (E,) whether all jobs are done or the time is up."""
        self.clock[:] = self.after
        self.turn[:] = (self.turn + 1) % max(self.slots, 1)
        self.epoch += 1
        for e in range(self.size):
            rng = self.draws(e)
            hit, slow = rng.random(self.slots), rng.uniform(*self.problem.SLOW, self.slots)
            running = self.there[e] & (self.at["place"][e] > 0)
            some = running & (hit < self.problem.stragglers) & (self.at["pace"][e] == 1.0)
            self.at["pace"][e, some] = slow[some]
            self._call(e)
        self._believe()
        return self.ended()

    def ended(self) -> Bool:
        none = ~self.there.any(1) & ~np.isfinite(self._arrival(self.next)) & (self.told is None)
        return np.asarray(none | (self.epoch >= self._epochs))

    @property
    def terminated(self) -> Bool:
        """For good: all jobs are done."""
        return np.asarray(self.ended() & ~self.there.any(1))

    def _call(self, e: int) -> None:
        """Let who has come into places of the queue that are free, the oldest first."""
        free = np.flatnonzero(~self.there[e])
        for i in free[: max(int(self.outside()[e]), 0)]:
            j = int(self.next[e])
            self.next[e] += 1
            self._seat(e, int(i), j)

    def _seat(self, e: int, i: int, j: int) -> None:
        """Job number j comes into place i of the queue."""
        jobs, setup, problem = self.jobs, self.problem.setup, self.problem
        t = int(jobs["type"][e, j])
        total = max(int(np.isfinite(jobs["arrival"][e]).sum()), 1)
        alone = float(jobs["alone"][e, j])
        given = {
            "type": t, "serial": j, "gang": setup.gang[t], "came": jobs["arrival"][e, j], "alone": alone,
            "told": jobs["told"][e, j], "true": alone, "own": alone / HOUR * problem.apart[t],
            "due": jobs["due"][e, j], "priority": jobs["priority"][e, j], "label": setup.label[t],
            "team": j % len(self.quota) if len(self.quota) else -1, "measured": problem.measures(j, total),
        }  # fmt: skip
        for name, value in (IDLE | given).items():
            self.at[name][e, i] = value
        self.speed[e, i], self.taken[e, i] = setup.speed[t], setup.taken[t]
        self.there[e, i] = True

    def restart(self, which: Bool) -> None:
        """New episodes where ``which`` (E,) is set: the first jobs come."""
        for e in np.flatnonzero(which):
            rng = self.draws(int(e))
            self._leave_all(int(e))
            self._expect(int(e), rng, 0.0)
            first = float(self._arrival(self.next)[e])
            self.clock[e] = np.floor(first / self.problem.round_s) * self.problem.round_s if np.isfinite(first) else 0.0
            self.clock[e] += 0.0 if first <= self.clock[e] else self.problem.round_s
            self._call(int(e))
        self.epoch[which] = 0
        self._believe()

    def _leave_all(self, e: int) -> None:
        mine = np.zeros(self.there.shape, bool)
        mine[e] = True
        self._leave(mine)
        self.judged[e], self.next[e], self.turn[e], self.last_end[e], self.counted[e] = 0.0, 0, 0, 0.0, 0
        self.parts_of_time.pop(e, None)

    def _expect(self, e: int, rng: np.random.Generator, since: float) -> None:
        """Draw who comes after ``since``."""
        problem, drawn = self.problem, self.problem.draw(rng)
        n = len(drawn.arrival_s)
        noise = np.exp(problem.misjudged * rng.normal(size=n))
        urgent, slack = rng.random(n) < problem.urgent, problem.slack * rng.uniform(0.5, 1.5, n)
        own = drawn.alone_s * problem.apart[drawn.type]
        for values in self.jobs.values():
            values[e] = np.inf if values is self.jobs["arrival"] else 0
        filled: dict[str, Any] = {
            "arrival": drawn.arrival_s + since, "type": drawn.type, "alone": drawn.alone_s,
            "told": drawn.alone_s * noise, "priority": 1.0 * urgent,
            "due": drawn.arrival_s + since + slack * own if problem.slack else np.full(n, np.inf),
        }  # fmt: skip
        for name, values in filled.items():
            self.jobs[name][e, :n] = values
        self.next[e] = 0

    # --- told and kept

    def state(self, e: int) -> QueueState:
        a, s = self.at, self.setup
        came = np.where(self.there[e], (self.clock[e] - a["came"][e]) / HOUR, 0.0)
        due = np.where(np.isfinite(a["due"][e]), (a["due"][e] - self.clock[e]) / HOUR, NEVER)
        waiting = int(self.outside()[e])
        return QueueState(
            a["gang"][e].copy(), self.taken[e].copy(), self.speed[e].copy(), self.left[e].copy(), s.pool.copy(),
            self.units[e].copy(), np.maximum(came, 0.0), a["attained"][e] / HOUR, a["own"][e].copy(),
            np.minimum(due, NEVER), a["priority"][e].copy(), a["team"][e].copy(), a["place"][e].copy(),
            a["pace"][e].copy(), self.down[e].copy(), self.rack.copy(), self.watts.copy(), self.rack_w.copy(),
            self.quota.copy(), self.judged[e].copy(), np.maximum(a["alone"] - a["true"], 0)[e] / HOUR,
            a["told"][e] / HOUR, a["true"][e] / HOUR, a["label"][e].copy(), self.there[e].copy(),
            float(max(waiting, 0)), float(self.clock[e] / HOUR),
        )  # fmt: skip

    def parts(self, plan: Running, e: int = 0) -> dict[str, Any]:
        free = np.zeros(len(self.setup.pools))
        return {
            "option": plan.option[e], "served": plan.option[e] > 0, "shares": {"unit": plan.share[e]},
            "prices": {"unit": free},
        }  # fmt: skip

    def plan_of(self, allocation: Any) -> Running:
        option = np.ascontiguousarray(allocation.option, np.int64)[None]
        return Running(option, np.ascontiguousarray(allocation.shares["unit"], np.float64)[None])

    def draws(self, e: int) -> np.random.Generator:
        """The next random numbers of world ``e``: the same at its k-th call, whatever was executed."""
        self.stream[e, 1] += 1
        return np.random.default_rng(self.stream[e])

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams from now on; who is still to come is drawn anew."""
        self.stream[:] = [[int(seed), 0] for seed in seeds]
        self.told = None
        for e in range(self.size):
            if len(self.setup.pool) == len(self.problem.setup.pool):
                self._expect(e, self.draws(e), float(self.clock[e]) + self.problem.round_s / 2)

    def arrays(self) -> dict[str, Any]:
        own = (
            "there",
            "taken",
            "speed",
            "clock",
            "next",
            "turn",
            "judged",
            "last_end",
            "counted",
            "after",
            "stream",
            "down",
            "left",
        )
        mine = {name: getattr(self, name) for name in own}
        return super().arrays() | mine | named("at", self.at) | named("jobs", self.jobs)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.parts_of_time.clear()
        self.expected = self.left @ MEAN
