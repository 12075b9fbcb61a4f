"""E feeders stepped together: what is observed, the game about the believed state, the plan, what follows."""

from __future__ import annotations

from typing import Any

import numpy as np

from coordinator.game import Choice
from coordinator.marks import Marked
from games.congestion import Float, Int
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.voltage import rules
from hybridalloc.problems.voltage.core import EXACT, MPU
from hybridalloc.problems.voltage.credit import cost_without
from hybridalloc.problems.voltage.observation import observed
from hybridalloc.problems.voltage.plan import Flowing, Model, Plan, model_of
from hybridalloc.problems.voltage.profiles import STEP_S
from hybridalloc.problems.voltage.reward import INSIDE, UNSOLVED_MPU, cost_kw, counted, outside, paid
from hybridalloc.problems.voltage.setting import Prices
from hybridalloc.problems.voltage.standing import Feeders
from rl.proposal import Observation, Proposal

LEVEL = "reactive_mvar"
CAP = 0.045  # p.u., of margins: some of the band is left


class Unsolvable(ValueError):
    """The believed state has no flow, so that there is nothing to plan on."""


class VoltageWorld(Feeders):
    """:class:`Feeders` that are decided on."""

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

    def rule(self, name: str, prices: Prices, rng: np.random.Generator) -> tuple[Int, Plan]:
        """A heuristic's plan, see :mod:`hybridalloc.problems.voltage.rules`; nobody chooses a mark."""
        return self.baseline(name, rng), rules.rule(self, name)

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """Nobody chooses a mark by rule: see :meth:`rule`."""
        if name not in rules.BASELINES:
            self.unknown_baseline(name, rules.BASELINES)
        return np.zeros(self.up.shape, np.int64)

    # --- what happens

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

    # --- as allocations

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
        if source in rules.BASELINES:
            return rules.rule(self, source)._replace(level=level)
        return self._foreseen(self._local(Prices())._replace(level=level))
