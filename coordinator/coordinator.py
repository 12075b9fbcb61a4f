"""The coordinator: a proposal and a game in, one certified joint choice out, for one state or many at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from coordinator.budget import Clock
from coordinator.choose import choose_best
from coordinator.merge import Merged, clip_prior, equilibrate, explore, flat_prior
from games.admission import Seating, admit
from games.congestion import CongestionBatch, Float, Int
from games.places import EFFORT, Places
from rl.proposal import Observation, Recommender, named, proposal_of

KINDS = ("hybrid", "rl", "game")


class Situation(Protocol):
    """What the coordinator needs of a problem's batch."""

    def observe(self) -> Observation: ...

    def game(self, prices: Any) -> CongestionBatch: ...


@runtime_checkable
class Admits(Protocol):
    """A batch that knows what serving an agent on an option takes: it gets stable admission. None: not as it is set."""

    def places(self, prices: Any, game: CongestionBatch) -> Places | None: ...


@dataclass(frozen=True)
class Decision:
    """Joint choices of E situations and how they came about.

    Attributes:
        option: (E, N) to execute. raw: (E, N) what the recommender alone would have done (the choice itself
            where there is none).
        log_prior: (E, N, O) as merged, clipped to [-limit, 0].
        origin: (E,) index into ``ORIGINS`` of the candidate that won.
        converged: (E,) whether the mean-field sweeps met their tolerance.
        stable: (E,) whether best responses came to rest, which the epsilon bound rests on.
        wish: the recommender's continuous parts with their spreads, None where it has none.
        seating: who holds a place and what is reserved for it; None where nobody was admitted (RL alone, a problem
            without places): then the problem settles deadlines by itself.
    """

    option: Int
    raw: Int
    log_prior: Float
    origin: Int
    converged: NDArray[np.bool_]
    stable: NDArray[np.bool_]
    wish: Mapping[str, Float] | None = None
    seating: Seating | None = None


ORIGINS = ("merge", "proposal", "game")


@dataclass(frozen=True)
class Coordinator:
    """Steps 1 and 4 of the design, batched; the problem settles shares, power and fractions.

    Args:
        kind: "hybrid", "rl" (the proposal alone) or "game" (the game alone).
        trust: weight of the game's costs against the log prior; 0 is the proposal, inf the game.
        limit: log-priors are clipped to [-limit, 0].
        choose: also try the proposal and the game as starts, and keep the best on the model.
        effort: places that admission may try while it makes room; see :mod:`games.admission`.
    """

    kind: str = "hybrid"
    trust: float = 5.0
    limit: float = 10.0
    choose: bool = True
    effort: int = EFFORT

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r}; choose one of {', '.join(KINDS)}")
        if not self.trust >= 0:
            raise ValueError(f"trust = {self.trust}; it must be >= 0 (0 is pure RL, inf the pure game)")
        if not self.limit >= 0:
            raise ValueError(f"limit = {self.limit}; it must be >= 0")

    @property
    def epsilon_bound(self) -> float:
        """No agent gains more than this, in cost, by deviating alone from a hybrid's or a game's choice."""
        if self.kind == "game" or np.isinf(self.trust):
            return 0.0
        return self.limit / self.trust if self.kind == "hybrid" and self.trust > 0 else float("inf")

    def decide(self, situation: Situation, recommender: Recommender | None, prices: Any) -> Decision:
        """The joint choice to execute."""
        game = situation.game(prices)
        if recommender is None or self.kind == "game":
            return self.seat(situation, prices, game, self.decide_on(game, flat_prior(game), False))
        observation = situation.observe()
        proposal = proposal_of(recommender.propose(observation))
        raw = np.zeros(game.allowed.shape) if proposal.log_prior is None else proposal.log_prior
        log_prior = clip_prior(raw, game.allowed, self.limit)
        decision = self.seat(situation, prices, game, self.decide_on(game, log_prior, True))
        return replace(decision, wish=wish_at(named(proposal), decision.option))

    @property
    def admits(self) -> bool:
        """Whether this coordinator promises stable admission: not where RL alone decides."""
        return self.kind == "game" or (self.kind == "hybrid" and self.trust > 0)

    def seat(
        self, situation: Situation, prices: Any, game: CongestionBatch, decision: Decision, effort: int | None = None
    ) -> Decision:
        """The decision after stable admission; as it is where this coordinator or the problem promises none."""
        if not self.admits or not isinstance(situation, Admits):
            return decision
        tilt = None
        if self.kind == "hybrid" and np.isfinite(self.trust) and decision.log_prior.any():
            tilt = -decision.log_prior / self.trust
        effort = self.effort if effort is None else effort
        places = situation.places(prices, game)
        if places is None:
            return decision
        seating = admit(game, places, decision.option, tilt, effort)
        stable = decision.stable & seating.stable
        return replace(decision, option=seating.option, stable=stable, seating=seating)

    def settle(self, situation: Any, decision: Decision, prices: Any) -> Any:
        """The problem's plan for a decision: shares and continuous parts that fit, with the places it promised."""
        promised = {} if decision.seating is None else {"seating": decision.seating}
        return situation.settle(decision.option, prices, decision.wish, self.trust, **promised)

    def decide_on(
        self, game: CongestionBatch, log_prior: Float, proposes: bool, clock: Clock | None = None
    ) -> Decision:
        """As :meth:`decide`, on a game and a clipped log prior that are there already, within a clock's budget."""
        clock = Clock() if clock is None else clock
        count = len(game.live)
        if self.kind == "game":
            with clock.stage("game"):
                m = equilibrate(game, log_prior, np.inf, clock=clock)
            return Decision(m.option, m.option, log_prior, np.full(count, 2), m.converged, m.stable)
        with clock.stage("equilibrate"):
            proposal = equilibrate(game, log_prior, 0.0).option
            if self.kind == "rl" or self.trust == 0:
                sure = np.ones(count, bool)
                return Decision(proposal, proposal, log_prior, np.ones(count, np.int64), sure, ~sure)
            m = equilibrate(game, log_prior, self.trust, clock=clock)
        raw = proposal if proposes else m.option
        if not self.choose or not clock.fits("choose"):
            return Decision(m.option, raw, log_prior, np.zeros(count, np.int64), m.converged, m.stable)
        with clock.stage("choose"):
            proposes = proposes and bool(log_prior.any())  # a flat proposal proposes nothing
            starts = [m.option, proposal] if proposes else [m.option]
            alone = equilibrate(game, log_prior, np.inf, clock=clock)
            option, origin, stable = choose_best(game, [*starts, alone.option], -log_prior / self.trust, clock)
        origin = np.where(origin == len(starts), 2, origin)
        return Decision(option, proposal if proposes else option, log_prior, origin, m.converged, stable)

    def explore(self, game: CongestionBatch, log_prior: Float, uniform: Float) -> Merged:
        """The mixed choice to train on; ``uniform`` (E, N) are the draws."""
        return explore(game, log_prior, self.trust if self.kind == "hybrid" else 0.0, uniform)


def wish_at(wish: Mapping[str, Float] | None, option: Int) -> Mapping[str, Float] | None:
    """The continuous parts (E, N) at the chosen options; a proposal may give them for every option, (E, N, O)."""
    if wish is None:
        return None
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in wish.items()}
    pick = lambda a: np.take_along_axis(a, option[..., None], -1)[..., 0] if a.ndim == 3 else a
    return {name: pick(array) for name, array in arrays.items()}
