"""An allocator's say in what the coordinator decides: hysteresis, drift, the rule of trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coordinator.budget import Clock
from coordinator.congestion import Congestion
from coordinator.drift import DriftWatch
from coordinator.game import Game
from coordinator.health import HealthWatch
from coordinator.robust import Robust
from coordinator.trust import Trust
from games.congestion import Float
from hybridalloc.problems.contract import AnyWorld
from hybridalloc.training.rehearsal import Remembered
from rl.proposal import Observation, Proposal


@dataclass
class Steering:
    """One step's say, a :class:`coordinator.coordinator.Steward`; what it did, in words.

    Attributes:
        hysteresis: charged to agents that ``watch`` sees go back and forth. rule: of trust, raised by ``drift``.
        remembered: of a step without a budget, what other trusts are tried on; None where nothing was proposed.
    """

    state: Any
    situation: AnyWorld
    clock: Clock
    hysteresis: float
    watch: HealthWatch
    drift: DriftWatch
    rule: Trust
    anchor: Float | None = None
    status: str = "ok"
    remembered: Remembered | None = None

    def charged(self, game: Game) -> Game:
        """With the hysteresis charged to agents that go back and forth between options."""
        if not self.hysteresis or not isinstance(game, Congestion):
            return game
        self.anchor = self.watch.anchor(game.batch.private_cost.shape[1:])
        return game if self.anchor is None else game.charged(self.anchor)

    def seen(self, observation: Observation) -> None:
        if self.drift.active:
            self.drift.update(observation)

    @property
    def plain(self) -> bool:
        """Neither hysteresis nor a rule of trust."""
        return not self.hysteresis and self.rule.rule is None

    def trusted(self, game: Game, proposal: Proposal, proposes: bool) -> float:
        """Drawn by the rule, raised where observations have drifted."""
        if not self.clock.limited:
            self.remembered = Remembered(self.state, self.situation, game, proposal, proposes)
        return self.trust_now()

    def trust_now(self) -> float:
        rule, drawn = self.rule.rule, self.rule.draw()
        if isinstance(rule, Robust) and rule.payoff is None:
            self.status = f"ok: robust trust {drawn:g} until rehearse() is called"
        trust = self.drift.trust(drawn) if self.drift.active else drawn
        if trust != drawn and self.status == "ok":
            level = 100 * self.drift.level
            self.status = f"ok: drift, {level:.0f} % of features out of range; trust {drawn:g} -> {trust:g}"
        return trust
