"""The one loop over decisions: observe, propose, merge, settle, execute, drift.

Training, evaluation, learning a belief, calibration and rehearsal differ in who chooses (:class:`Explore`,
:class:`Execute`, :class:`Heuristic`) and in what they do with a :class:`Step`; the loop is here alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator import Coordinator
from coordinator.congestion import Congestion
from coordinator.coordinator import game_of
from coordinator.game import Pull
from coordinator.marks import Marked
from coordinator.packing import PackingGames
from hybridalloc.problems.contract import (
    AnyProblem,
    Bool,
    Ends,
    Facts,
    Float,
    Int,
    Prices,
    Rules,
    Spreads,
    offers,
)
from hybridalloc.problems.metrics import Tally
from hybridalloc.problems.stores import valued
from hybridalloc.training.config import TOLERANCE
from rl.proposal import Observation, Proposal, Recommender
from rl.value import Valuer


class Chosen(NamedTuple):
    """What was decided for E worlds.

    Attributes:
        option: (E, N) as asked for. plan: what it was settled to. log_prior, bias: (E, N, O) as merged and the game's
            part; None where nobody proposed. levels: a draw of the continuous levels, None without. drawn, pull: of
            levels in a game that decides nothing else, what was drawn and the game's part of its density.
        policy_s, game_s: time of proposing and of merging.
    """

    option: Int
    plan: Any
    log_prior: Float | None = None
    bias: Float | None = None
    allowed: Bool | None = None
    levels: Proposal | None = None
    drawn: Float | None = None
    pull: Pull | None = None
    policy_s: float = 0.0
    game_s: float = 0.0


class Step(NamedTuple):
    """One decision of E worlds, from what was seen to what came of it.

    Attributes:
        chosen, facts: what was decided and what happened. requested: (E,) share of the resources that the choice, taken
            as asked, would have overloaded. elapsed: (E,) time to the next decision in the problem's unit.
        over: (E,) whose episode ended; terminated: for good, None where none can. final: what came next there, before
            they began anew; None where none ended.
        deciding_s, moving_s: time until the plan was settled, and of executing it and drifting on.
    """

    chosen: Chosen
    facts: Facts
    requested: Float
    elapsed: Float
    over: Bool
    terminated: Bool | None
    final: Observation | None
    deciding_s: float
    moving_s: float


Method = Callable[["Rollout"], Chosen]


class Rollout:
    """E worlds of a problem, decided and executed together.

    Args:
        seeds: one a world. belief: attached to all of them. spread: the worlds start spread over an episode's length,
            so that their episodes do not end together; of worlds that are some of more, their numbers among all and
            how many those are. value: of what is left in their stores.

    Attributes:
        tally: counts since it was cleared. allocations, violations, overloads: decisions of one world executed, those
            that broke a limit by the certificate's count, and those whose raw choice would have. counted: (E,) worlds
            whose decisions go into the tally; all, unless someone says otherwise.
    """

    def __init__(
        self, problem: AnyProblem, seeds: Sequence[int] | NDArray[np.int64], belief: Any = None,
        spread: bool | tuple[Int, int] = False, value: Valuer | None = None,
    ) -> None:  # fmt: skip
        card = problem.card
        self.problem, self.world = problem, valued(problem.worlds([int(seed) for seed in seeds], belief), value)
        if spread:
            which, every = spread if isinstance(spread, tuple) else (np.arange(len(seeds)), len(seeds))
            if isinstance(self.world, Spreads):
                self.world.spread(which / every)
            else:
                self.world.epoch[:] = card.epochs * which // every
        self.tally = Tally(card.metrics, len(seeds))
        self.counted = np.ones(len(seeds), bool)
        self.allocations = self.violations = self.overloads = 0
        self._unit_s = card.unit_s
        self._seen: Observation | None = None

    @property
    def observation(self) -> Observation:
        """What recommenders see now; worked out when it is asked for."""
        if self._seen is None:
            self._seen = self.world.observe()
        return self._seen

    def step(
        self, method: Method, prices: Prices, final: bool = False, before: Callable[[Chosen], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> Step:  # fmt: skip
        """One decision of every world; those whose episode is over begin anew.

        Args:
            prices: by which raw choices are judged. final: also observe where episodes ended. before: called between
                the decision and its execution. after: between its execution and what follows.
        """
        started = time.perf_counter()
        chosen = method(self)
        began = time.perf_counter()
        if before is not None:
            before(chosen)
        world, left = self.world, time.perf_counter()
        requested = world.requested(chosen.option, prices)
        self.violations += int((world.excess(chosen.plan) > TOLERANCE).sum())
        self.overloads += int((requested > 0).sum())
        self.allocations += world.size
        facts = world.execute(chosen.plan)
        self.tally.add(facts.counts, facts.elapsed_s, requested, self.counted)
        if after is not None:
            after()
        over = world.drift()
        some = bool(over.any())
        ended = world.terminated & over if isinstance(world, Ends) else None
        last = world.observe() if final and some else None
        if some:
            world.restart(over)
        self._seen = None
        elapsed = facts.elapsed_s / self._unit_s
        spent = began - started, time.perf_counter() - left
        return Step(chosen, facts, requested, elapsed, over, ended, last, *spent)

    def state_dict(self) -> dict[str, Any]:
        """The worlds and the tally: all that the future of the loop depends on but for the chooser."""
        return {"world": self.world.state_dict(), "tally": self.tally.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.world.load_state_dict(state["world"])
        self.tally.load_state_dict(state["tally"])
        self._seen = None


class Speaks(Protocol):
    """What exploring asks of a learner."""

    def propose(self, observation: Observation) -> Proposal: ...

    def sample_continuous(self, observation: Observation, option: Int, rng: np.random.Generator) -> Proposal | None: ...


@dataclass
class Explore:
    """Draws from the mixed choice: what training executes. Without a learner the game's own, with nothing proposed."""

    coordinator: Coordinator
    prices: Prices
    rng: np.random.Generator
    learner: Speaks | None = None

    def uniform(self, shape: tuple[int, ...]) -> Float:
        """Draws in [0, 1) for a game whose ``draws`` have this shape, (E, ...)."""
        return self.rng.random(shape)

    def __call__(self, run: Rollout) -> Chosen:
        world, learner = run.world, self.learner
        t0 = time.perf_counter()
        said = None if learner is None else learner.propose(run.observation)
        t1 = time.perf_counter()
        game = game_of(world.game(self.prices))
        proposal = game.flat() if said is None else game.clip(said, self.coordinator.limit)
        sample = self.coordinator.explore(game, proposal, self.uniform(game.draws))
        t2 = time.perf_counter()
        levels = None if learner is None else learner.sample_continuous(run.observation, sample.option, self.rng)
        plan = world.settle(sample.choice, self.prices, levels, self.coordinator.trust)
        allowed = None
        if isinstance(game, Congestion | Marked | PackingGames):
            allowed = game.allowed if isinstance(game, Marked) else game.batch.allowed
        return Chosen(
            sample.option, plan, proposal.log_prior, sample.bias, allowed, levels, sample.drawn, sample.pull, t1 - t0,
            t2 - t1,
        )  # fmt: skip


@dataclass
class Execute:
    """Takes the choice that a coordinator executes: what is compared and served."""

    coordinator: Coordinator
    recommender: Recommender | None
    prices: Prices

    def __call__(self, run: Rollout) -> Chosen:
        decision = self.coordinator.decide(run.world, self.recommender, self.prices)
        plan = self.coordinator.settle(run.world, decision, self.prices)
        return Chosen(decision.raw, plan, decision.log_prior)


@dataclass
class Heuristic:
    """Takes the choice of one of the problem's baselines."""

    name: str
    prices: Prices
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __call__(self, run: Rollout) -> Chosen:
        if offers(run.world, Rules):  # type: ignore[type-abstract]
            return Chosen(*run.world.rule(self.name, self.prices, self.rng))
        option = run.world.baseline(self.name, self.rng)
        return Chosen(option, run.world.settle(option, self.prices))
