"""E clusters and the jobs that queue for them: who is there, what is known of each, who comes and who leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from games.congestion import Bool, Float, Int
from hybridalloc.problems.cluster.queue import durations
from hybridalloc.problems.cluster.queue.setting import QueueSetting
from hybridalloc.problems.cluster.queue.setups import Setup
from hybridalloc.problems.cluster.queue.state import MEAN, NEVER, QueueState
from hybridalloc.problems.slots import SlotWorld, named

HOUR = 3600.0
IDLE = {  # nobody in a place of the queue
    "type": -1, "serial": -1, "gang": 1, "came": 0.0, "alone": 0.0, "told": 0.0, "true": 0.0, "attained": 0.0,
    "own": 1.0, "due": np.inf, "priority": 0.0, "team": -1, "place": 0, "pace": 1.0, "measured": False, "label": 0,
}  # fmt: skip


class Queues(SlotWorld):
    """E queues of N places.

    Attributes:
        at: what is known of the job in each place of the queue, by name, (E, N): seconds that it takes ``alone`` and is
            ``told`` to, that are ``true``ly left; unit-seconds ``attained``; hours of its ``own`` part; when it
            ``came`` and is ``due``. there: (E, N) whether anybody is. clock: (E,) s. taken, speed: (E, N, P).
        jobs: who comes, by name (E, J). next: (E,) of them that have come. judged: (E, 3), see :mod:`.durations`.
    """

    def __init__(self, problem: QueueSetting, size: int, slots: int, jobs: int, seeds: Sequence[int]) -> None:
        super().__init__(size, problem.epochs)
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

    @classmethod
    def fresh(cls, problem: QueueSetting, seeds: Sequence[int]) -> Self:
        """Clusters to which the first jobs have just come."""
        world = cls(problem, len(seeds), problem.slots, problem.longest, seeds)
        world.restart(np.ones(len(seeds), bool))
        return world

    @classmethod
    def of_state(cls, problem: QueueSetting, state: QueueState) -> Self:
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

    # --- who is there

    @property
    def active(self) -> Bool:
        return self.there.copy()

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

    # --- who comes and leaves

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

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams from now on; who is still to come is drawn anew."""
        self.stream[:] = [[int(seed), 0] for seed in seeds]
        self.told = None
        for e in range(self.size):
            if len(self.setup.pool) == len(self.problem.setup.pool):
                self._expect(e, self.draws(e), float(self.clock[e]) + self.problem.round_s / 2)

    def draws(self, e: int) -> np.random.Generator:
        """The next random numbers of world ``e``: the same at its k-th call, whatever was executed."""
        self.stream[e, 1] += 1
        return np.random.default_rng(self.stream[e])

    def _next_decision(self, ended: Bool) -> Float:
        """(E,) when the next one is due: a round on, or, where nobody is there, when somebody has come."""
        after = self.clock + self.problem.round_s
        if self.told is None:
            come = self._arrival(self.next)
            empty = ~(self.there & ~ended).any(1) & (come > after) & np.isfinite(come)
            ceiling = np.ceil(come / self.problem.round_s) * self.problem.round_s
            after = np.where(empty, ceiling, after)
        return np.asarray(after)

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

    def arrays(self) -> dict[str, Any]:
        own = (
            "there", "taken", "speed", "clock", "next", "turn", "judged", "last_end", "counted", "after", "stream",
            "down", "left",
        )  # fmt: skip
        mine = {name: getattr(self, name) for name in own}
        return super().arrays() | mine | named("at", self.at) | named("jobs", self.jobs)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.parts_of_time.clear()
        self.expected = self.left @ MEAN
