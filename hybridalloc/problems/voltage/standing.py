"""E feeders, each somewhere in its year: what is told of them and believed, and what flows there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from games.congestion import Bool, Float, Int
from hybridalloc.problems.slots import SlotWorld
from hybridalloc.problems.voltage.belief import RidgeBelief, Told
from hybridalloc.problems.voltage.late import Late, path_drop
from hybridalloc.problems.voltage.plan import Flowing, Plan, flowing, reacted
from hybridalloc.problems.voltage.profiles import DAY, days
from hybridalloc.problems.voltage.readings import features
from hybridalloc.problems.voltage.setting import WEEK, Prices, VoltageSetting
from hybridalloc.problems.voltage.state import BY_BUS, BY_INVERTER, VoltageState, VoltageTruth

TUNING, REPORTING = range(5_000, 5_100), range(10_000, 10_100)  # seeds that have days of their own
SUN = {"sun_mw": 0, "sun_last_mw": 1, "sun_before_mw": 2, "sun_day_mw": DAY, "sun_day_before_mw": DAY + 1}  # steps ago


class Feeders(SlotWorld):
    """E copies of a problem's feeder, each somewhere in its year.

    Args:
        problem: whose feeder. size: E. serving: it stands at a state that was told, and says so where that has no flow.

    Attributes:
        told: the states' fields by name, (E, N) and (E, B). truth: MW and Mvar now, (2, E, B). step: (E,) of the year.
        belief: that loads are taken from, None: the readings.
    """

    def __init__(self, problem: VoltageSetting, size: int, serving: bool = False) -> None:
        super().__init__(size, DAY)
        self.problem, self.serving = problem, serving
        n, b = len(problem.net.inverter), problem.net.size
        self.told = {name: np.zeros((size, n)) for name in BY_INVERTER} | {name: np.zeros((size, b)) for name in BY_BUS}
        self.told["rating_mva"][:] = problem.rating_mva
        self.truth = np.zeros((2, size, b))
        self.up = np.ones((size, n), bool)
        self.step = np.zeros(size, np.int64)
        self.stream = np.zeros((size, 2), np.int64)  # seed, and episodes begun
        self.belief: RidgeBelief | None = None
        self.late = Late(size, problem.age, 0, 2 * b, n)
        self.surprise = np.zeros((size, n))  # of the last voltages over those believed, p.u.
        self._cache: dict[Any, Any] = {}

    @classmethod
    def fresh(cls, problem: VoltageSetting, seeds: Sequence[int], belief: RidgeBelief | None) -> Self:
        """One world a seed, at the start of its first day."""
        world = cls(problem, len(seeds))
        world.stream[:, 0] = [int(seed) for seed in seeds]
        world._begin(np.ones(len(seeds), bool))
        world.attach(belief)
        return world

    @classmethod
    def of_state(cls, problem: VoltageSetting, state: VoltageState) -> Self:
        """One world that stands at a state; without its truth, the readings are taken for it."""
        problem.check_state(state)
        world = cls(problem, 1, serving=True)
        for name in (*BY_INVERTER, *BY_BUS):
            world.told[name][0] = getattr(state, name)
        truth = state if state.truth is None else state.truth
        world.truth[:, 0] = truth.load_mw, truth.load_mvar
        world.up[0], world.step[0] = state.active, state.step
        return world

    def stand(self, step: Int) -> None:
        """Begin at steps (E,) of the year, run by the local reaction alone until then; where days are told apart."""
        self.step[:] = step
        self._history(np.ones(self.size, bool))
        self.late.known[:] = False
        self.surprise[:] = 0.0
        self._tell()
        self._remember()

    def attach(self, belief: RidgeBelief | None) -> None:
        """Believe ``belief`` from now on; what is told before the truth comes in is kept for it."""
        self.belief = belief
        if belief is not None and self.problem.age:
            read = features(self.problem, self.told, self.step).shape[1]
            self.late = Late(self.size, self.problem.age, read, self.truth.shape[2] * 2, self.up.shape[1])
            self._remember()
        self._cache = {}

    # --- time

    @property
    def active(self) -> Bool:
        """(E, N) inverters that are up."""
        return self.up

    def _days(self, e: int) -> Int:
        """Days that world ``e`` may draw."""
        seed, pools = int(self.stream[e, 0]), days()
        return pools.report if seed in REPORTING else pools.tune if seed in TUNING else pools.learn

    def _begin(self, which: Bool) -> None:
        """New days where ``which`` is set: seeds of tuning and reporting take theirs in turn, others draw."""
        for e in np.flatnonzero(which):
            seed, count = (int(x) for x in self.stream[e])
            pool = self._days(int(e))
            if seed in REPORTING or seed in TUNING:
                day = pool[(2 * (seed % 100) + count - 1) % len(pool)]
            else:
                day = np.random.default_rng([abs(seed), count, 3]).choice(pool)
            self.step[e] = int(day) * DAY
            self.stream[e, 1] += 1
        self.epoch[which] = 0
        self.surprise[which] = 0.0
        self._history(which)
        self._tell()

    def _history(self, which: Bool) -> None:
        """What was read in the two steps before: the feeder was run by its local reaction alone until now."""
        held = {name: self.told[name].copy() for name in BY_INVERTER}
        for back, name in ((2, "before"), (1, "last")):
            at = np.maximum(self.step - back, 0)
            truth, sun = self.problem.year.loads(at), self.problem.year.sun(at)
            flowing = self._react(self._local(Prices()), np.stack(truth), sun)
            self.told[f"voltage_{name}"][which] = flowing.voltage[which][:, self.problem.net.inverter]
            self.told[f"reactive_{name}_mvar"][which] = flowing.level[which]
        for name in ("voltage_last", "voltage_before", "reactive_last_mvar", "reactive_before_mvar"):
            self.told[name][~which] = held[name][~which]

    def _tell(self) -> None:
        """What the year says at the present step."""
        year, t, age = self.problem.year, self.step % self.problem.year.steps, self.problem.age
        ago = lambda steps: np.maximum(t - steps, 0)
        self.truth[:] = year.loads(t)
        for name, steps in (("load", age), ("load_before", age + 1), ("load_week", max(WEEK, age))):
            self.told[f"{name}_mw"], self.told[f"{name}_mvar"] = year.loads(ago(steps))
        for name, steps in SUN.items():
            self.told[name] = year.sun(ago(steps))
        self._cache = {}

    def drift(self) -> Bool:
        """On to the next step; (E,) whether the day is over there."""
        self.epoch += 1
        self.step += 1
        self._tell()
        self._remember()
        return self.ended()

    def restart(self, which: Bool) -> None:
        """New days where ``which`` (E,) is set."""
        if which.any():
            self._look_back(which)
            self._begin(which)
            self._remember()

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams, one a world, from now on."""
        self.stream[:] = [[int(seed), 0] for seed in seeds]

    # --- what is believed

    def _told(self) -> Told:
        reading = np.concatenate([self.told["load_mw"], self.told["load_mvar"]], axis=1)
        return Told(features(self.problem, self.told, self.step), reading, (self.step % DAY) // 4, self.surprise.copy())

    def _remember(self) -> None:
        """The truth of ``age`` steps ago has come in: the belief learns from it; what is told now waits for its own."""
        if self.belief is None or not self.problem.age:
            return
        told = self._told()
        if "believed" not in self._cache:
            self._cache["told"] = told
        due, then = self.late.turn(self.step, told)
        self.belief.reveal(due, told.reading[then], self._voltage_of)

    def _look_back(self, which: Bool) -> None:
        """Before another day begins, the readings of the one that ends have come in: the belief learns from them."""
        if self.belief is not None and self.problem.age:
            for step, due in self.late.rest(which):
                at = step % self.problem.year.steps
                self.belief.reveal(due, np.concatenate(self.problem.year.loads(at), axis=1), self._voltage_of)
        self.late.known[which] = False

    def _voltage_of(self, wrong: Float) -> Float:
        """(E, B) p.u. that wrong loads (E, 2 B) make of the voltages, to first order."""
        p, b = self.problem, self.problem.net.size
        return np.asarray(path_drop(p.net, wrong[:, :b], wrong[:, b:]))

    def believed(self) -> tuple[Float, Float]:
        """Net loads taken for true, (2, E, B) MW and Mvar, and the voltages' believed spread (E, B), p.u."""
        if "believed" not in self._cache:
            b = self.problem.net.size
            if self.belief is None:
                loads, spread = np.stack([self.told["load_mw"], self.told["load_mvar"]]), np.zeros((self.size, b))
            else:
                told = self._cache.get("told") or self._told()
                expected = self.belief.expect(told)
                loads = np.stack([expected[:, :b], expected[:, b:]])
                spread = self.belief.spread(told, b) if self.problem.age else np.zeros((self.size, b))
            self._cache["believed"] = np.ascontiguousarray(loads), spread
        found: tuple[Float, Float] = self._cache["believed"]
        return found

    def off_by(self, voltage: Float, level: Float, solved: Bool | None = None) -> Float:
        """(E, N) p.u. by which the inverters' voltages (E, N) are above those believed of this step, where they feed in
        ``level`` (E, N); 0 where nothing is believed or has a flow."""
        if self.belief is None or not self.problem.age:
            return np.zeros(self.up.shape)
        believed, _, found = self._flow(self.believed()[0], level)
        found = found if solved is None else found & solved
        return np.where(found[:, None], voltage - believed[:, self.problem.net.inverter], 0.0)

    # --- what flows

    @property
    def most(self) -> Float:
        """(E, N) Mvar that each inverter has room for."""
        room = np.sqrt(np.maximum(self.told["rating_mva"] ** 2 - self.told["sun_mw"] ** 2, 0.0))
        return np.asarray(np.where(self.up, room, 0.0))

    def net_of(self, loads: Float, sun: Float | None = None) -> tuple[Float, Float]:
        """(E, B) MW and Mvar drawn, the inverters' sun counted off."""
        p = loads[0].copy()
        p[:, self.problem.net.inverter] -= self.told["sun_mw"] if sun is None else sun
        return p, loads[1]

    def _flow(self, loads: Float, level: Float) -> tuple[Float, Float, Bool]:
        """Voltages (E, B), loss (E,) MW and whether there is a flow, for loads (2, E, B) and ``level`` (E, N)."""
        return flowing(self.problem, *self.net_of(loads), level)

    def _react(self, plan: Plan, loads: Float, sun: Float | None = None) -> Flowing:
        """A plan on loads (2, E, B), after the local reaction."""
        most = self.most
        if sun is not None:
            most = np.sqrt(np.maximum(self.told["rating_mva"] ** 2 - sun**2, 0.0))
        return reacted(self.problem, plan, *self.net_of(loads, sun), most)

    def _local(self, prices: Prices) -> Plan:
        """Nothing planned, the local reaction alone."""
        each = np.ones(self.size)
        dead = float(np.clip(prices.deadband, 0.0, (self.problem.high - self.problem.low) / 2))
        flat = np.full(self.up.shape, (self.problem.low + self.problem.high) / 2)
        return Plan(np.zeros(self.up.shape), dead * each, self.problem.slope(prices) * each, flat)

    # --- as states

    def state(self, e: int) -> VoltageState:
        """World ``e`` as a state of its own."""
        truth = VoltageTruth(*self.truth[:, e])
        told = {name: values[e].copy() for name, values in self.told.items()}
        return VoltageState(**told, active=self.up[e].copy(), step=int(self.step[e]), truth=truth)

    def arrays(self) -> dict[str, Any]:
        mine = {"truth": self.truth, "up": self.up, "step": self.step, "stream": self.stream, "surprise": self.surprise}
        late = {f"late/{name}": value for name, value in vars(self.late).items()}
        return super().arrays() | mine | late | {f"told/{name}": value for name, value in self.told.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._cache = {}
