"""E feeders stepped together: what is told and believed, the game about the believed state, the plan, what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coordinator.game import Choice
from coordinator.marks import Marked
from games.congestion import Bool, Float, Int
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.slots import SlotWorld
from hybridalloc.problems.voltage import rules
from hybridalloc.problems.voltage.belief import RidgeBelief, Told
from hybridalloc.problems.voltage.core import EXACT, MPU
from hybridalloc.problems.voltage.credit import cost_without
from hybridalloc.problems.voltage.late import Late, path_drop
from hybridalloc.problems.voltage.observation import features, observed
from hybridalloc.problems.voltage.plan import Flowing, Model, Plan, flowing, model_of, reacted
from hybridalloc.problems.voltage.profiles import DAY, STEP_S, days
from hybridalloc.problems.voltage.reward import INSIDE, UNSOLVED_MPU, cost_kw, counted, outside, paid
from hybridalloc.problems.voltage.setting import WEEK, Prices
from hybridalloc.problems.voltage.state import BY_BUS, BY_INVERTER, VoltageState, VoltageTruth, most_mvar
from rl.proposal import Observation, Proposal

if TYPE_CHECKING:
    from hybridalloc.problems.voltage.problem import Voltage

LEVEL = "reactive_mvar"
TUNING, REPORTING = range(5_000, 5_100), range(10_000, 10_100)  # seeds that have days of their own
SUN = {"sun_mw": 0, "sun_last_mw": 1, "sun_before_mw": 2, "sun_day_mw": DAY, "sun_day_before_mw": DAY + 1}  # steps ago
CAP = 0.045  # p.u., of margins: some of the band is left


class Unsolvable(ValueError):
    """The believed state has no flow, so that there is nothing to plan on."""


class VoltageWorld(SlotWorld):
    """E copies of a problem's feeder, each somewhere in its year.

    Args:
        problem: whose feeder. size: E. serving: it stands at a state that was told, and says so where that has no flow.

    Attributes:
        told: the states' fields by name, (E, N) and (E, B). truth: MW and Mvar now, (2, E, B). step: (E,) of the year.
        belief: that loads are taken from, None: the readings.
    """

    def __init__(self, problem: Voltage, size: int, serving: bool = False) -> None:
        super().__init__(size, problem.card.epochs)
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
    def fresh(cls, problem: Voltage, seeds: Sequence[int], belief: RidgeBelief | None) -> VoltageWorld:
        """One world a seed, at the start of its first day."""
        world = cls(problem, len(seeds))
        world.stream[:, 0] = [int(seed) for seed in seeds]
        world._begin(np.ones(len(seeds), bool))
        world.attach(belief)
        return world

    @classmethod
    def of_state(cls, problem: Voltage, state: VoltageState) -> VoltageWorld:
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
            self.late = Late(
                self.size, self.problem.age, features(self).shape[1], self.truth.shape[2] * 2, self.up.shape[1]
            )
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
        return Told(features(self), reading, (self.step % DAY) // 4, self.surprise.copy())

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

    # --- what is observed and played

    def observe(self) -> Observation:
        """Features of order one; options are the marks."""
        return observed(self)

    def game(self, prices: Prices) -> Marked:
        """The quadratic game about the equilibrium of the believed state, in kW.

        Raises:
            Unsolvable: where a state was told: it has no flow.
        """
        if ("game", prices) not in self._cache:
            self._cache["game", prices] = self._game(prices)
        made: Marked = self._cache["game", prices]
        return made

    def _game(self, prices: Prices) -> Marked:
        p, (loads, spread) = self.problem, self.believed()
        if not 0 <= prices.toll <= 1:
            raise ValueError(f"toll = {prices.toll}; it is from 0 to 1 (beyond, an inverter's own cost is not convex)")
        aside = np.minimum(prices.margin + prices.caution * spread, CAP * (p.high - p.low) / 0.1)
        m = self.model(loads, aside, prices)
        if self.serving and not m.found.all():
            raise Unsolvable(
                "the believed loads have no power flow (voltage collapse), so nothing can be planned on them; the "
                "previous set-points are held"
            )
        most = self.most[..., None]
        marks = p.marks * most
        allowed = np.ones(marks.shape, bool)
        allowed[~self.up, 1:] = False
        return Marked(m.game, (LEVEL,), near=m.level[..., None], marks=marks, allowed=allowed)

    def model(self, loads: Float, aside: Float, prices: Prices, rounds: int | None = None) -> Model:
        """The game's model for loads (2, E, B); see :func:`hybridalloc.problems.voltage.plan.model_of`."""
        last = self.told["reactive_last_mvar"]
        return model_of(self.problem, *self.net_of(loads), self.most, last, aside, prices, rounds, self.up)

    def settle(
        self, choice: Choice | Int, prices: Prices, proposal: Proposal | None = None, trust: float = np.inf,
        seating: Any = None,
    ) -> Plan:  # fmt: skip
        """Set-points within each inverter's room; bare options stand for their marks, and where nothing was decided the
        last set-points are held."""
        if isinstance(choice, Choice):
            level = choice.level[..., 0] if choice.level.shape[2] else self.told["reactive_last_mvar"]
        else:
            share = self.problem.marks[np.clip(np.asarray(choice, np.int64), 0, len(self.problem.marks) - 1)]
            level = share * self.most
        return self._foreseen(self._local(prices)._replace(level=np.clip(level, -self.most, self.most)))

    def _foreseen(self, plan: Plan) -> Plan:
        """The plan with the voltages that it comes to, as believed and as far as they are inside the band."""
        if not plan.slope.any():
            return plan
        p = self.problem
        voltage, _, solved = self._flow(self.believed()[0], plan.level)
        at = np.clip(voltage[:, p.net.inverter], p.low, p.high)
        return plan._replace(expected=np.where(solved[:, None], at, plan.expected))

    def _local(self, prices: Prices) -> Plan:
        """Nothing planned, the local reaction alone."""
        each = np.ones(self.size)
        dead = float(np.clip(prices.deadband, 0.0, (self.problem.high - self.problem.low) / 2))
        flat = np.full(self.up.shape, (self.problem.low + self.problem.high) / 2)
        return Plan(np.zeros(self.up.shape), dead * each, self.problem.slope(prices) * each, flat)

    def rule(self, name: str, prices: Prices, rng: np.random.Generator) -> Plan:
        """A heuristic's plan; see :mod:`hybridalloc.problems.voltage.rules`."""
        return rules.rule(self, name)

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """Nobody chooses a mark by rule: see :meth:`rule`."""
        if name not in self.problem.card.baselines:
            self.unknown_baseline(name, self.problem.card.baselines)
        return np.zeros(self.up.shape, np.int64)

    # --- what happens

    def _flow(self, loads: Float, level: Float) -> tuple[Float, Float, Bool]:
        """Voltages (E, B), loss (E,) MW and whether there is a flow, for loads (2, E, B) and ``level`` (E, N)."""
        return flowing(self.problem, *self.net_of(loads), level)

    def _react(self, plan: Plan, loads: Float, sun: Float | None = None) -> Flowing:
        """A plan on loads (2, E, B), after the local reaction."""
        most = self.most
        if sun is not None:
            most = np.sqrt(np.maximum(self.told["rating_mva"] ** 2 - sun**2, 0.0))
        return reacted(self.problem, plan, *self.net_of(loads, sun), most)

    def execute(self, plan: Plan) -> Facts:
        """The plan on the loads as they are; where that has no flow, the last set-points are held. All are paid the
        same; of many, paid by cost, ``lost`` takes off what would be paid without an inverter's own q, and leaves its
        difference."""
        s = self.problem
        flowing = self._react(plan, self.truth)
        lost = ~flowing.solved
        if lost.any():
            last = np.clip(self.told["reactive_last_mvar"], -self.most, self.most)
            held = self._react(plan._replace(level=last, slope=0 * plan.slope), self.truth)
            row = lost[:, None]
            flowing = Flowing(
                np.where(row, held.voltage, flowing.voltage), np.where(lost, held.loss, flowing.loss),
                np.where(row, held.level, flowing.level), np.where(lost, held.solved, flowing.solved),
            )  # fmt: skip
        bad = ~flowing.solved
        voltage = np.where(bad[:, None], 1.0, flowing.voltage)
        loss_kw, inside, worst = counted(flowing.loss, outside(voltage, s.low, s.high), ~bad)
        cost, n = cost_kw(loss_kw, inside, worst), self.up.shape[1]
        reward = np.repeat(paid(s.reward, cost, voltage, flowing.level, ~bad)[:, None], n, 1)
        counts = {
            "inside": inside.astype(float), "worst_mpu": worst, "loss_kw": loss_kw, "cost_kw": cost,
            "q_mvar": np.abs(flowing.level).mean(1) if n else np.zeros(self.size), "unsolved": lost.astype(float),
        }  # fmt: skip
        t = self.told
        self.surprise = self.off_by(voltage[:, s.net.inverter], flowing.level, ~bad)
        less = np.zeros(reward.shape)
        if s.reward == "cost" and n > EXACT:
            less = -paid("cost", cost_without(s, *self.net_of(self.truth), flowing.level, ~bad), voltage, less, ~bad)
        t["voltage_before"], t["reactive_before_mvar"] = t["voltage_last"], t["reactive_last_mvar"]
        t["voltage_last"] = voltage[:, s.net.inverter].copy()
        t["reactive_last_mvar"] = np.where(bad[:, None], t["reactive_before_mvar"], flowing.level)
        self._cache = {}
        return Facts(reward, less, np.zeros((*reward.shape, 1)), np.full(self.size, STEP_S), counts)

    def off_by(self, voltage: Float, level: Float, solved: Bool | None = None) -> Float:
        """(E, N) p.u. by which the inverters' voltages (E, N) are above those believed of this step, where they feed in
        ``level`` (E, N); 0 where nothing is believed or has a flow."""
        if self.belief is None or not self.problem.age:
            return np.zeros(self.up.shape)
        believed, _, found = self._flow(self.believed()[0], level)
        found = found if solved is None else found & solved
        return np.where(found[:, None], voltage - believed[:, self.problem.net.inverter], 0.0)

    def excess(self, plan: Plan) -> Float:
        """(E,) worst relative excess of apparent power over a rating, from its definition; inf for who is down."""
        apparent = np.hypot(plan.level, self.told["sun_mw"]) / self.told["rating_mva"] - 1.0
        apparent = np.where(~self.up & (plan.level != 0), np.inf, apparent)
        return np.asarray(apparent.max(axis=1, initial=-1.0))

    def requested(self, option: Int, prices: Prices) -> Float:
        """(E,) nothing is shared that a choice could overload."""
        return np.zeros(self.size)

    def priority(self) -> Float:
        """(E, N) nobody is first."""
        return np.zeros(self.up.shape)

    # --- as states and allocations

    def state(self, e: int) -> VoltageState:
        """World ``e`` as a state of its own."""
        truth = VoltageTruth(*self.truth[:, e])
        told = {name: values[e].copy() for name, values in self.told.items()}
        return VoltageState(**told, active=self.up[e].copy(), step=int(self.step[e]), truth=truth)

    def parts(self, plan: Plan, e: int = 0) -> dict[str, Any]:
        """World ``e`` of a plan as the fields of an allocation: who is inside the band, as believed, is served; a bus's
        price is what its voltage's limit costs in kW a mpu."""
        p = self.problem
        voltage, _, solved = self._flow(self.believed()[0], plan.level)
        v = np.where(solved[:, None], voltage, np.nan)[e]
        over = np.maximum(np.maximum(v - p.high, p.low - v), 0.0)
        none = np.zeros(self.up.shape[1])
        return {
            "option": none.astype(np.int64), "served": ~self.up[e] | (over[p.net.inverter] <= INSIDE), "shares": {},
            "floors": {}, "held": none > 0, "prices": {"voltage": np.nan_to_num(over * MPU, nan=UNSOLVED_MPU)},
            LEVEL: plan.level[e].copy(),
        }  # fmt: skip

    def plan_of(self, allocation: Any) -> Plan:
        """An allocation of one world as a plan: with the default local reaction, that of a heuristic as it is."""
        level = np.asarray(getattr(allocation, LEVEL), np.float64)[None]
        certificate = getattr(allocation, "certificate", None)  # of what a step returned; its parts alone have none
        source = "" if certificate is None else certificate.source
        if source in self.problem.card.baselines:
            return self.rule(source, Prices(), np.random.default_rng(0))._replace(level=level)
        return self._foreseen(self._local(Prices())._replace(level=level))

    def arrays(self) -> dict[str, Any]:
        mine = {"truth": self.truth, "up": self.up, "step": self.step, "stream": self.stream, "surprise": self.surprise}
        late = {f"late/{name}": value for name, value in vars(self.late).items()}
        return super().arrays() | mine | late | {f"told/{name}": value for name, value in self.told.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._cache = {}


__all__ = ["Plan", "Unsolvable", "VoltageWorld", "most_mvar"]
