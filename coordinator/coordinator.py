"""The coordinator: a proposal and a game in, one certified joint choice out, for one state or many at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from coordinator.at_once import SWEEPS, merge_at_once
from coordinator.budget import Clock
from coordinator.choose import choose_best
from coordinator.congestion import Admits as Admits  # read from here too
from coordinator.congestion import Congestion
from coordinator.game import Choice, Game, Sample, levels_beside, only_options, renewed
from coordinator.improve import Climbs, Expects, Improve, Task, improve, start_of, tilt_worth
from coordinator.packing import PackingGames
from coordinator.shortlisted import ListedDecision, Lists, Shortlisting, decide_listed, listens, whole_prior
from games.admission import Seating
from games.congestion import Bool, CongestionBatch, Float, Int
from games.packing_batch import PackingBatch
from games.places import EFFORT, Places
from rl.proposal import Observation, Proposal, Recommender, proposal_of

KINDS = ("hybrid", "rl", "game")
ORIGINS = ("merge", "proposal", "game")
EFFORT_MS = 20_000  # places that admission tries in a millisecond, about


Charged = TypeVar("Charged", contravariant=True)  # a problem's prices
Planned = TypeVar("Planned", covariant=True)  # what it settles a choice to
Prices = TypeVar("Prices")
Plan = TypeVar("Plan")


class Situation(Protocol[Charged, Planned]):
    """What the coordinator needs of a problem's worlds, E side by side."""

    def observe(self) -> Observation: ...

    def game(self, prices: Charged) -> Game | CongestionBatch | PackingBatch: ...

    def settle(
        self, choice: Choice | Int, prices: Charged, proposal: Proposal | None = None, trust: float = np.inf,
        seating: Seating | None = None,
    ) -> Planned:  # fmt: skip
        """The plan for a joint choice: everything that the game leaves open, and fits by construction.

        Args:
            choice: of options and levels; bare options (E, N) will do in games without levels.
            proposal: the levels that are proposed beside the chosen options, which a problem that decides levels after
                options pulls its best responses towards; None where none are, or where the game decides them.
            trust: the weight of the game's costs against it.
            seating: stable admission's answer for the options; None where no places were given.
        """


class Heuristics(Protocol):
    """Worlds with choices by rule."""

    def baseline(self, name: str, rng: np.random.Generator) -> Int: ...


@runtime_checkable
class Outdated(Protocol):
    """A recommender that proposes levels apart from options."""

    def propose_continuous(self, observation: Observation) -> object: ...


class Steward(Protocol):
    """Who runs a coordinator from step to step, and has a say in each."""

    def charged(self, game: Game) -> Game:
        """The game with what is charged in this step alone, such as a hysteresis."""

    def seen(self, observation: Observation) -> None:
        """The recommender was shown this and answered."""

    def trusted(self, game: Game, proposal: Proposal, proposes: bool) -> float:
        """The trust of this step, for a hybrid: what is to be merged is known."""

    @property
    def plain(self) -> bool:
        """Whether nothing is charged in this step alone and no other trust is asked about afterwards."""

    def trust_now(self) -> float:
        """:meth:`trusted` of a plain step."""


@dataclass(frozen=True)
class Decision:
    """Joint choices of E situations and how they came about.

    Attributes:
        choice: to execute. asked: what the recommender alone would have done (the choice itself where there is none).
        proposal: as merged: log priors (E, N, O) clipped to [-limit, 0], or levels; None where none is.
        origin: (E,) index into ``ORIGINS`` of the candidate that won.
        converged: (E,) whether the solver met its tolerance.
        stable: (E,) whether nobody wants to move, which the epsilon bound rests on.
        bound: (E,) no agent gains more, in cost, by deviating alone in the game as played; inf: nothing is promised.
        kind: who decided, of ``KINDS``. trust: of the step, inf where the game alone decided.
        seating: who holds a place and what is reserved for it; None where nobody was admitted (RL alone, a problem
            without places): then the problem settles deadlines by itself.
        game: as the situation gave it, without a step's charges; None where it was decided on a game given by itself.
        failure: why the recommender was left out, "" where it was not.
        gain: (E,) by how much changes raised what is expected of the best start; None where it was
            not asked for, or the problem cannot say. moved, tried: (E,) changes of option made and tried. rest: (E,)
            whether no change tried would have raised it further.
        plan: as it was settled while it was improved; None where it was not. against: the plan under which the belief
            was taken to hold meanwhile. least: (E,) what a change had to bring.
        unimproved: why improving failed, "" where it did not. places: in which agents were seated, None without.
        listed: what was decided on short lists, None where all options were looked at; ``proposal`` and ``game`` are
            then left to be made out.
    """

    choice: Choice
    asked: Choice
    proposal: Proposal
    origin: Int
    converged: Bool
    stable: Bool
    bound: Float
    kind: str
    trust: float
    seating: Seating | None = None
    game: Game | None = None
    failure: str = ""
    gain: Float | None = None
    moved: Int | None = None
    tried: Int | None = None
    rest: Bool | None = None
    plan: object = None
    against: object = None
    least: Float | None = None
    unimproved: str = ""
    places: Places | None = None
    listed: ListedDecision | None = None

    @property
    def option(self) -> Int:
        """(E, N) to execute."""
        return self.choice.option

    @property
    def raw(self) -> Int:
        """(E, N) options that the recommender alone would have taken."""
        return self.asked.option

    @property
    def log_prior(self) -> Float | None:
        """(E, N, O) as merged; None in games without options."""
        return self.proposal.log_prior


@dataclass(frozen=True)
class Coordinator:
    """Steps 1 and 4 of the design, batched; the problem settles shares and what else the game leaves open.

    Args:
        kind: "hybrid", "rl" (the proposal alone) or "game" (the game alone).
        trust: weight of the game's costs against the proposal; 0 is the proposal, inf the game.
        limit: log-priors are clipped to [-limit, 0].
        choose: also try the proposal and the game as starts, and keep the best on the model.
        effort: places that admission may try while it makes room; see :mod:`games.admission`.
        improve: how the choice is improved on what the problem settles and expects, see :mod:`coordinator.improve`;
            None leaves it. RL alone is left as it is.
        lists: when agents decide on short lists, see :mod:`coordinator.shortlisted`; None: never.
    """

    kind: str = "hybrid"
    trust: float = 5.0
    limit: float = 10.0
    choose: bool = True
    effort: int = EFFORT
    improve: Improve | None = None
    lists: Lists | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r}; choose one of {', '.join(KINDS)}")
        if not self.trust >= 0:
            raise ValueError(f"trust = {self.trust}; it must be >= 0 (0 is pure RL, inf the pure game)")
        if not self.limit >= 0:
            raise ValueError(f"limit = {self.limit}; it must be >= 0")

    @property
    def epsilon_bound(self) -> float:
        """No agent gains more than this, in cost, by leaving a hybrid's or a game's choice of options alone; where
        levels are decided it depends on them, see ``Decision.bound``."""
        if self.kind == "game" or np.isinf(self.trust):
            return 0.0
        return self.limit / self.trust if self.kind == "hybrid" and self.trust > 0 else float("inf")

    @property
    def admits(self) -> bool:
        """Whether this coordinator promises stable admission: not where RL alone decides."""
        return self.kind == "game" or (self.kind == "hybrid" and self.trust > 0)

    def decide(
        self, situation: Situation[Prices, Plan], recommender: Recommender | None, prices: Prices,
        clock: Clock | None = None, steward: Steward | None = None, game: Game | None = None,
    ) -> Decision:  # fmt: skip
        """Observe, propose, merge and seat: the joint choice to execute.

        Args:
            clock: with a budget, what does not fit is left out. steward: has a say from step to step, and has
                checked its recommender; one that fails then leaves the game alone, and ``Decision.failure`` says why.
            game: the situation's, where it is built already.

        Raises:
            ValueError: the proposal cannot be used (without a steward).
        """
        clock = Clock() if clock is None else clock
        if game is None and self.lists is not None and self._may_list(situation, recommender, clock, steward):
            try:
                decision = self._listed(situation, recommender, prices, clock, steward)
            except Exception as error:
                if steward is None:
                    raise
                decision = replace(self, lists=None).decide(situation, recommender, prices, clock, steward)
                failure = f"short lists failed ({type(error).__name__}: {error}); all options were looked at"
                decision = renewed(decision, failure=decision.failure or failure)
            if decision is not None:
                return decision
        with clock.stage("build"):
            built = game_of(situation.game(prices)) if game is None else game
            played = built if steward is None else steward.charged(built)
        me, proposal, proposes, failure = self, played.flat(), False, ""
        if self.kind != "game" and not clock.fits("observe", "propose", "equilibrate"):
            me, failure = replace(self, kind="game"), f"budget of {clock.budget_ms:g} ms: the game alone"
        elif self.kind != "game" and recommender is not None:
            try:
                with clock.stage("observe"):
                    observation = situation.observe()
                with clock.stage("propose"):
                    speaker = recommender if steward is not None else check_recommender(recommender)
                    heard = played.clip(proposal_of(speaker.propose(observation)), self.limit)
                if steward is not None:
                    steward.seen(observation)
                proposal, proposes = heard, True
            except Exception as error:
                if steward is None:
                    raise
                failure = f"recommender failed ({type(error).__name__}: {error}); the game alone"
                me = replace(self, kind="game")  # nothing half-taken
        if me.kind == "hybrid" and steward is not None:
            trust = steward.trusted(played, proposal, proposes)
            me = me if trust == me.trust else replace(me, trust=trust)
        decision = me.decide_on(played, proposal, proposes, clock)
        seats = me.admits and clock.fits("admit")
        if seats:
            with clock.stage("admit"):
                effort = me.effort
                if clock.limited:
                    effort = int(min(effort, max(EFFORT_MS * clock.left_ms() / 2, 0.0)))
                decision = me.seat(situation, prices, played, decision, effort)
        if seats and me.improves(situation, played) and clock.fits("improve"):
            try:
                with clock.stage("improve"):
                    decision = me.improved(situation, prices, built, played, decision, clock)
            except Exception as error:
                if steward is None:
                    raise
                decision = replace(decision, unimproved=f"{type(error).__name__}: {error}")
        return renewed(decision, game=built, failure=failure)

    def _may_list(
        self, situation: Situation[Prices, Plan], recommender: Recommender | None, clock: Clock, steward: Steward | None
    ) -> bool:
        """Whether this decision may be made on short lists."""
        if self.lists is None or clock.limited or not _shortlists(type(situation)):
            return False
        if not cast(Shortlisting, situation).choices() > self.lists.above or not (steward is None or steward.plain):
            return False
        return self.kind == "game" or (self.kind == "hybrid" and self.trust > 0 and listens(recommender))

    def _listed(
        self, situation: Situation[Prices, Plan], recommender: Recommender | None, prices: Prices, clock: Clock,
        steward: Steward | None,
    ) -> Decision | None:  # fmt: skip
        """:meth:`decide` on short lists; None where the situation is not read on such."""
        assert self.lists is not None
        wide = cast(Shortlisting, situation)
        with clock.stage("build"):
            short = wide.shortlisted(prices, self.lists.width)
        if short is None:
            return None
        alone = self.kind == "game"
        trust_of = lambda: np.inf if alone else self.trust if steward is None else steward.trust_now()
        told = lambda observation: None if steward is None else steward.seen(observation)
        d = decide_listed(
            wide, short, None if alone else recommender, prices, self.limit, self.choose, clock, trust_of, told
        )  # fmt: skip
        bound = (self.limit / d.trust if np.isfinite(d.trust) else 0.0) if d.stable else np.inf
        one = lambda value: np.array([value])
        decision = Decision(
            d.choice, d.asked, Proposal(None), one(d.origin), one(d.converged), one(d.stable), one(bound), self.kind,
            d.trust, d.seating, listed=d,
        )  # fmt: skip
        if self.improve is None or not self.admits or not _expects(type(situation)):
            return decision
        try:
            with clock.stage("improve"):
                built = game_of(situation.game(prices))
                assert isinstance(built, Congestion)
                whole = Proposal(whole_prior(d.short.game, d.log_prior, self.limit))
                places = None if d.seating is None else cast(Admits, situation).places(prices, built.batch)
                full = renewed(decision, proposal=whole, game=built, places=places)
                return self.improved(situation, prices, built, built, full, clock)
        except Exception as error:
            if steward is None:
                raise
            return renewed(decision, unimproved=f"{type(error).__name__}: {error}")

    def decide_on(
        self, game: Game | CongestionBatch, proposal: Proposal | Float, proposes: bool, clock: Clock | None = None
    ) -> Decision:
        """The merge alone, on a game and a clipped proposal that are there already, within a clock's budget."""
        clock = Clock() if clock is None else clock
        game, proposal = game_of(game), proposal_of(proposal)
        count = len(game.live)
        none, promised = np.zeros(count, np.int64), np.full(count, np.inf)
        if self.kind == "game":
            with clock.stage("game"):
                m = game.solve(clock=clock)
            bound = np.where(m.stable, game.bound(m.choice, self.limit), np.inf)
            return Decision(
                m.choice, m.choice, proposal, none + 2, m.converged, m.stable, bound, "game", float("inf")
            )  # fmt: skip
        whole = isinstance(game, Congestion) and not clock.limited and self.kind == "hybrid" and 0 < self.trust < np.inf
        if whole and proposal.log_prior is not None:
            return self._at_once(cast(Congestion, game), proposal, proposes, clock)
        with clock.stage("equilibrate"):
            alone = game.tilted(proposal, 0.0).solve(clock=clock)
            if self.kind == "rl" or self.trust == 0:
                return Decision(
                    alone.choice, alone.choice, proposal, none + 1, alone.converged, none > 0, promised, self.kind,
                    self.trust,
                )  # fmt: skip
            tilted = game.tilted(proposal, self.trust)
            m = tilted.solve(clock=clock)
        choice, origin, stable = m.choice, none, m.stable
        prefers = proposes and game.proposes(proposal)  # a flat proposal proposes nothing
        asked = alone.choice if proposes else choice
        if self.choose and not game.unique and clock.fits("choose"):
            with clock.stage("choose"):
                starts = [m.choice, alone.choice] if prefers else [m.choice]
                choice, origin, stable = choose_best(tilted, [*starts, game.solve(clock=clock).choice], clock)
            origin = np.where(origin == len(starts), 2, origin)
            asked = alone.choice if prefers else choice
        bound = np.where(stable, tilted.bound(choice, self.limit), np.inf)
        return Decision(choice, asked, proposal, origin, m.converged, stable, bound, self.kind, self.trust)

    def _at_once(self, game: Congestion, proposal: Proposal, proposes: bool, clock: Clock) -> Decision:
        """:meth:`decide_on` of congestion games without a budget."""
        prior = cast(Float, proposal.log_prior)
        with clock.stage("equilibrate"):
            prefers = proposes and bool(prior.any())  # a flat proposal proposes nothing
            m = merge_at_once(game, prior, self.trust, self.choose, prefers)
        asks = prefers if self.choose else proposes
        choice = only_options(m.option)
        bound = np.where(m.stable, self.limit / self.trust, np.inf)
        return Decision(
            choice, only_options(m.alone) if asks else choice, proposal, m.origin, m.sweeps <= SWEEPS, m.stable, bound,
            self.kind, self.trust,
        )  # fmt: skip

    def seat(
        self, situation: Situation[Prices, Plan], prices: Prices, game: Game | CongestionBatch, decision: Decision,
        effort: int | None = None,
    ) -> Decision:  # fmt: skip
        """The decision after stable admission; as it is where this coordinator or the problem promises none."""
        game = game_of(game)
        if not self.admits or not isinstance(game, Congestion) or not _has_places(type(situation)):
            return decision
        if self.kind == "hybrid":
            game = game.tilted(decision.proposal, self.trust)
        places = cast(Admits, situation).places(prices, game.batch)
        if places is None:
            return decision
        seating = game.seated(places, decision.option, self.effort if effort is None else effort)
        stable = decision.stable & seating.stable
        return renewed(
            decision, choice=decision.choice._replace(option=seating.option), stable=stable,
            bound=np.where(stable, decision.bound, np.inf), seating=seating, places=places,
        )  # fmt: skip

    def improves(self, situation: Situation[Prices, Plan], game: Game) -> bool:
        """Whether choices are improved: asked for, not for RL alone, and the problem can say what it expects."""
        asked = self.improve is not None and self.admits
        return asked and isinstance(game, Congestion) and _expects(type(situation))

    def improved(
        self, situation: Situation[Prices, Plan], prices: Prices, built: Game, played: Game, decision: Decision,
        clock: Clock,
    ) -> Decision:  # fmt: skip
        """The decision after single changes of option that raise what the problem expects of it, settled; what is
        charged in this step alone is charged here too."""
        assert self.improve is not None and isinstance(built, Congestion) and isinstance(played, Congestion)
        world, told = cast(Climbs, situation), self.improve
        game = built.tilted(decision.proposal, decision.trust if self.kind == "hybrid" else np.inf)
        if played is not built:
            charge = played.batch.private_cost - built.batch.private_cost
            game = replace(game, tilt=charge if game.tilt is None else game.tilt + charge)
        settled = lambda choice, seats: situation.settle(
            choice, prices, levels_beside(decision.proposal, choice.option), decision.trust, seats
        )

        def seat(option: Int) -> tuple[Choice, Seating | None]:
            wish = replace(decision, choice=decision.choice._replace(option=option), seating=None)
            placed = self.seat(situation, prices, played, wish)
            return placed.choice, placed.seating

        began = clock.spent_ms()
        first = settled(decision.choice, decision.seating)
        others = [decision.asked.option] if "proposal" in told.starts and self.kind == "hybrid" else []
        others += [built.solve(clock=clock).choice.option] if "game" in told.starts and self.kind == "hybrid" else []
        others += [cast(Heuristics, situation).baseline(name, _draws()) for name in told.starts if name not in ORIGINS]
        starts = []
        for option in (None, *others):
            if option is not None and clock.limited and clock.left_ms() <= clock.spent_ms() - began:
                clock.skipped.append("improve")
                break
            choice, seats = (decision.choice, decision.seating) if option is None else seat(option)
            plan = first if option is None else settled(choice, seats)
            worth = world.expected(plan, prices, first) + tilt_worth(game, choice)
            starts.append(start_of(choice, seats, plan, worth))
        task = Task(
            prices, decision.proposal, decision.trust, first, decision.places, told.width, told.share, told.sweeps,
            clock, (clock.spent_ms() - began) / len(starts),
        )  # fmt: skip
        found, before, origin = improve(world, game, starts, task, seat, settled)
        changed = (found.moved > 0) | (origin > 0)
        return replace(
            decision, choice=found.choice, seating=found.seating, plan=found.plan, gain=found.worth - before,
            moved=found.moved, tried=found.tried, rest=found.rest, stable=decision.stable & ~changed,
            bound=np.where(changed, np.inf, decision.bound), against=first, least=found.least,
        )  # fmt: skip

    def settle(self, situation: Situation[Prices, Plan], decision: Decision, prices: Prices) -> Plan:
        """The problem's plan for a decision: shares and what else is open, with the places it promised."""
        if decision.plan is not None:
            return cast(Plan, decision.plan)
        levels = levels_beside(decision.proposal, decision.option)
        return situation.settle(decision.choice, prices, levels, decision.trust, decision.seating)

    def explore(self, game: Game | CongestionBatch, proposal: Proposal | Float, uniform: Float) -> Sample:
        """The mixed choice to train on; ``uniform``, of the game's ``draws`` shape, are the draws."""
        trust = self.trust if self.kind == "hybrid" else 0.0
        return game_of(game).sample(proposal_of(proposal), trust, uniform)


def game_of(given: Game | CongestionBatch | PackingBatch) -> Game:
    """A situation's game as the coordinator sees it: congestion and packing games may come as their arrays."""
    if isinstance(given, PackingBatch):
        return PackingGames(given)
    return Congestion(given) if isinstance(given, CongestionBatch) else given


@cache  # in every step: what a class offers does not change
def _outdated(kind: type) -> bool:
    return issubclass(kind, Outdated)


def _draws() -> np.random.Generator:
    """The same draws for a heuristic in every step."""
    return np.random.default_rng(0)


@cache
def _expects(kind: type) -> bool:
    return issubclass(kind, Expects)


@cache
def _shortlists(kind: type) -> bool:
    return issubclass(kind, Shortlisting)


@cache
def _has_places(kind: type) -> bool:
    return issubclass(kind, Admits)


def check_recommender(recommender: Recommender) -> Recommender:
    """The recommender, if it says all that it proposes at once.

    Raises:
        ValueError: it has a ``propose_continuous`` of its own.
    """
    if _outdated(type(recommender)):
        raise ValueError(
            f"{type(recommender).__name__} has propose_continuous(observation), which is not asked: return "
            "rl.proposal.Proposal(log_prior, mean, spread, levels) from propose(observation)"
        )
    return recommender
