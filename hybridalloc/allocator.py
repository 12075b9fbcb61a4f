"""``Allocator.step(state)``: a state in, a certified allocation out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coordinator import Coordinator
from coordinator.budget import Clock, Usual
from coordinator.coordinator import Decision, check_recommender
from coordinator.drift import DriftWatch
from coordinator.game import only_options
from coordinator.health import Health, HealthWatch
from coordinator.hedge import Exp3, Hedge
from coordinator.improve import Improve
from coordinator.robust import Robust
from coordinator.shortlisted import Lists
from coordinator.trust import DEFAULT_TRUST, Trust
from games.congestion import CongestionGame, Float
from hybridalloc.allocation import Allocation
from hybridalloc.drafts import Draft, drafted, improvement_of, nobody
from hybridalloc.errors import CheckpointError as CheckpointError  # read from here too
from hybridalloc.errors import InvalidStateError, nearest
from hybridalloc.finishing import Ground, finish
from hybridalloc.limits import check_values
from hybridalloc.problems.beliefs import make_belief
from hybridalloc.problems.contract import (
    AnyProblem,
    AnyWorld,
    Belief,
    Optimises,
    Perturbs,
    Prices,
    Remarks,
    Remembers,
    Reveals,
    Rules,
    Shifts,
    Stores,
    example_of,
    offers,
)
from hybridalloc.problems.stores import check_value, valued
from hybridalloc.saved import find_recommender, find_value, finite_prices, made_from, write_allocator
from hybridalloc.saved import read_checkpoint as read_checkpoint  # read from here too
from hybridalloc.steering import Steering
from hybridalloc.training.rehearsal import Remembered, hindsight_losses, rollouts, scenario_payoffs
from rl.policy import ArrayPolicy, Carried, notes_of
from rl.proposal import Recommender
from rl.value import Valuer

LISTS = Lists()
OPTIMAL, OPTIMAL_S = "optimal", 30.0  # a method's name, and s for its search where no budget says otherwise


class Allocator:
    """Allocates step by step by one method.

    Args:
        problem: from ``make_problem``.
        method: "hybrid", "rl", "game" or the name of one of the problem's baselines; where a problem can work it out
            (``custom``, of moderate size), "optimal": the most that can be served, and how far that is proved.
        recommender: None (flat prior), "imappo" or "dqn" (fresh, untrained), a path or MLflow URI of a saved
            allocator (its recommender is taken), or an object with ``propose(observation)``. "rl" needs one.
        trust: weight of the game against the recommender: a number >= 0 (0 is pure RL, inf the pure game; default
            that which the recommender was trained at, 5 where it was not),
            or how to find it: "learned" (by training), "hedge" (adapts to :meth:`feedback`), "exp3" (adapts to
            :meth:`observe_outcome`), "robust" (holds against the problem's scenarios); see docs/coordinator.md.
        budget_ms: stop in time: a stage that would not fit is left out, a solver stops between two sweeps, and the
            status says so. Twenty steps are run at once to learn what the stages take. "optimal" has it for its
            search alone, half a minute by default.
        prices: the game's tolls and weights; default the problem's.
        seed: of the heuristics' draws and of trust's.
        belief: None (reports at their face value), a name of the problem's ``beliefs`` (fresh: it learns from step to
            step), or one that has learned. It needs the states of a network in turn; after a gap it starts afresh on
            what it remembers, not on what it knows.
        limit: log-priors are clipped to [-limit, 0].
        choose: also try both parents as starts, and keep the best on the model.
        improve: also try single changes of option, scored by what the problem settles and expects
            (:mod:`coordinator.improve`): True, False or an ``Improve`` with its settings; default with the hybrid
            alone. RL alone and the heuristics stay as they are.
        hysteresis: cost of a change charged to agents that go back and forth for less than it; 0 leaves them.
        period: steps for which a robust trust holds what it drew.
        lists: where options are many each agent decides on a short list of its best, shown to be enough or made
            longer (:mod:`coordinator.shortlisted`): ``Lists(width, above)``; None looks at all options at once. A
            budget, a hysteresis, a belief or a rule of trust look at all.
        value: of what is left in the agents' stores, such as batteries, where the problem names some: one that was
            learned (:func:`hybridalloc.training.stores.learn_value`), or the address of a saved allocator that has it.

    Raises:
        ValueError: an unknown method (the nearest are listed), "rl" without a recommender, trust or hysteresis < 0,
            a seed or period out of its range.
    """

    def __init__(
        self,
        problem: AnyProblem,
        method: str = "hybrid",
        recommender: Recommender | str | Path | None = None,
        trust: float | str | None = None,
        budget_ms: float | None = None,
        seed: int = 0,
        prices: Prices | None = None,
        limit: float = 10.0,
        choose: bool = True,
        hysteresis: float = 0.0,
        period: int = 50,
        belief: Belief | str | None = None,
        improve: bool | Improve | None = None,
        value: Valuer | str | Path | None = None,
        lists: Lists | None = LISTS,
    ) -> None:
        known = ("hybrid", "rl", "game", *problem.card.baselines, *(OPTIMAL,) * isinstance(problem, Optimises))
        if method not in known:
            raise nearest("method", method, known)
        if method == "rl" and recommender is None:
            raise ValueError('method="rl" needs a recommender: a name ("imappo", "dqn"), a path or an object')
        check_values(seed=seed, period=period)
        if budget_ms is not None and not budget_ms >= 0:
            raise ValueError(f"budget_ms = {budget_ms}; it must be >= 0, or None for no limit")
        if not 0 <= hysteresis < float("inf"):
            raise ValueError(f"hysteresis = {hysteresis}; it is a cost >= 0, and 0 charges nothing")
        self.problem, self.method = problem, method
        self.prices: Prices = problem.card.prices() if prices is None else finite_prices(problem, prices._asdict())
        self.budget_ms, self.seed, self.hysteresis = budget_ms, seed, float(hysteresis)
        self.belief = make_belief(problem, belief, seed)
        self.value = check_value(problem, find_value(value))
        self.recommender = find_recommender(problem, recommender, seed)
        if self.recommender is not None:
            check_recommender(self.recommender)
        notes = notes_of(self.recommender)
        trained = DEFAULT_TRUST if notes.trained_trust is None else notes.trained_trust
        if not 0 < trained < float("inf"):  # the prior lost its say: rules begin where a fresh one would
            trained = DEFAULT_TRUST
        self.trust_rule = Trust(trust, notes.learned_trust, trained, seed=seed, period=period)
        shifts = problem.scenarios() if isinstance(problem, Shifts | Perturbs) else ()
        if self.trust_rule.setting == "robust" and not shifts:
            raise ValueError(f"trust='robust' needs scenarios; {problem.card.name} has an empty set")
        if self.trust_rule.setting == "hedge" and not isinstance(problem, Reveals):
            raise ValueError(
                f"trust='hedge' needs revealed(state, following); {problem.card.name} has none; take 'exp3'"
            )
        kind = method if method in ("hybrid", "rl", "game") else "game"
        self.improve = method == "hybrid" if improve is None else improve
        self.coordinator = Coordinator(
            kind,
            self.trust_rule.now if kind == "hybrid" else 0.0,
            limit,
            choose,
            improve=_improve(problem, self.improve),
            lists=lists,
        )
        self.drift = DriftWatch(notes.ranges)
        self.watch = HealthWatch(worth=self.hysteresis or problem.card.cost_of_change(self.prices))
        self._rng = np.random.default_rng(seed)
        self._warned: set[str] = set()
        self._usual = Usual()
        self._last: Remembered | None = None
        self._voice: ArrayPolicy | Carried | None = None
        self._memory: Any = None  # of the belief, before this step's reports came in
        self._past: tuple[AnyWorld, Any] | None = None  # the last situation and what was executed, for the belief
        if budget_ms is not None and method != OPTIMAL:
            self._warm_up()

    @property
    def trust(self) -> float | str:
        """As it was set: a number, or the name of the rule; ``trust_rule.now`` is the present value."""
        return self.trust_rule.setting

    def step(self, state: Any) -> Allocation:
        """Allocate for one state: the problem's dataclass, or a dict as it comes from JSON.

        Never raises on a valid state: where a part fails, the best allocation that is left is returned and its
        certificate's source and status say so.

        Raises:
            InvalidStateError: names field, agent, value and the permitted range.
        """
        clock = Clock(None if self.method == OPTIMAL else self.budget_ms, self._usual)
        if isinstance(state, Mapping):
            state = self.problem.state_type.from_dict(state)
        elif not isinstance(state, self.problem.state_type):
            wanted = self.problem.state_type.__name__
            raise InvalidStateError(
                f"a state of {self.problem.card.name} is a {wanted} or a dict; got {type(state).__name__}"
            )
        if clock.limited:
            clock.size = sum(v.size for v in vars(state).values() if isinstance(v, np.ndarray))
        situation = None
        draft = Draft(nobody(state.agents))
        heuristic, doubt = self.method in self.problem.card.baselines, ""
        try:
            if not heuristic and not clock.fits("build", "game"):
                draft = replace(draft, status=f"budget of {self.budget_ms:g} ms: nothing but opting out was in time")
            else:
                with clock.stage("build"):
                    situation, doubt = self._believed(state)
                if heuristic:
                    plan = None
                    if offers(situation, Rules):  # type: ignore[type-abstract]
                        option, plan = situation.rule(self.method, self.prices, self._rng)
                    else:
                        option = situation.baseline(self.method, self._rng)
                    draft = replace(draft, choice=only_options(option), source=self.method, plan=plan)
                elif self.method == OPTIMAL and isinstance(self.problem, Optimises):
                    with clock.stage("optimise"):
                        limit_s = OPTIMAL_S if self.budget_ms is None else self.budget_ms / 1e3
                        best = self.problem.optimum(state, self.prices, limit_s)
                    draft = Draft(
                        only_options(best.option), source=OPTIMAL, status=f"ok: {best.note}", seating=best.seating,
                        gap=best.gap,
                    )  # fmt: skip
                else:
                    draft = self._decide(state, situation, clock)
            if situation is not None and offers(situation, Remarks):  # type: ignore[type-abstract]
                remark = situation.remark()
                if remark:
                    draft = replace(draft, status=f"{draft.status}: {remark}" if draft.status == "ok" else draft.status)
            if doubt:
                draft = replace(draft, status=doubt if draft.status == "ok" else f"{draft.status}; {doubt}")
        except InvalidStateError:  # the state does not fit the problem: the caller's mistake
            raise
        except Exception as error:
            draft = replace(draft, status=f"all agents opt out: {type(error).__name__}: {error}")
            self._warn("all agents opt out", draft.status)
        allocation = self._finish(state, situation, draft, clock)
        while not allocation.certificate.feasible and allocation.certificate.source != "fallback":
            allocation = self._next(state, situation, allocation, clock)
        if clock.limited:
            clock.close()
        played = allocation.certificate.source in ("hybrid", "rl", "game")
        stays = not self.problem.card.fleeting
        if played and allocation.certificate.feasible and stays and not clock.limited:
            if (short := allocation.short) is not None:
                self.watch.see_lists(short.game, allocation.option, short.log_prior)
            elif isinstance(allocation.game, CongestionGame):
                self.watch.see_game(allocation.game, allocation.option, state.active, allocation.log_prior)
        return allocation

    def _believed(self, state: Any) -> tuple[AnyWorld, str]:
        """The state's world under the belief, and "" or why it is under the reports alone."""
        self._memory = None
        if self.belief is None or not isinstance(self.problem, Remembers):
            return self._valued(self.problem.world_at(state))
        try:
            memory = self.problem.recall(self.belief, state, self._past)
            world = self.problem.world_at(state, memory)
            self._memory = memory
            return self._valued(world)
        except InvalidStateError:
            raise
        except Exception as error:
            doubt = f"belief failed ({type(error).__name__}: {error}); the reports at their face value"
            self._warn("belief failed", doubt)
            world, more = self._valued(self.problem.world_at(state))
            return world, f"{doubt}; {more}" if more else doubt

    def _valued(self, world: AnyWorld) -> tuple[AnyWorld, str]:
        """The world with the value of its stores, and "" or why it goes by their price instead."""
        if self.value is None:
            return world, ""
        try:
            given = valued(world, self.value)
            if isinstance(given, Stores):
                given.worth()
            return given, ""
        except Exception as error:
            doubt = f"value failed ({type(error).__name__}: {error}); a price instead"
            self._warn("value failed", doubt)
            return valued(world, None), doubt

    def _decide(self, state: Any, situation: AnyWorld, clock: Clock) -> Draft:
        """The coordinator's choice; a recommender that fails, or a budget that is spent, leaves the game alone."""
        steering = Steering(state, situation, clock, self.hysteresis, self.watch, self.drift, self.trust_rule)
        try:
            decision = self.coordinator.decide(situation, self._speaker(), self.prices, clock, steering)
        finally:
            self._last = steering.remembered or self._last
        if decision.failure.startswith("recommender failed"):
            self._warn("recommender failed", decision.failure)
        return self._drafted(decision, clock, decision.failure or steering.status, steering.anchor)

    def _drafted(self, decision: Decision, clock: Clock, status: str = "ok", anchor: Float | None = None) -> Draft:
        """A decision with what it promises, and how it was improved."""
        plays = self.method in ("hybrid", "game")
        improvement = improvement_of(decision, self.coordinator, clock, self._warn) if plays else None
        return drafted(decision, clock, improvement, status, anchor, self.hysteresis)

    def _finish(self, state: Any, situation: AnyWorld | None, draft: Draft, clock: Clock) -> Allocation:
        """What the game leaves open, then the certificate; what was executed is kept for the belief."""
        ground = Ground(
            self.problem, state, self.prices, self.coordinator, self._memory, self.value is not None, self.drift.level,
            self._warn,
        )  # fmt: skip
        self._past = None
        allocation, settled = finish(ground, situation, draft, clock)
        self._past = None if settled is None else (settled.situation, settled.plan)
        return allocation

    def _next(self, state: Any, situation: AnyWorld | None, failed: Allocation, clock: Clock) -> Allocation:
        """After an allocation that did not pass its check: the game alone, then opting out; each says why."""
        c = failed.certificate
        reason = f"certificate failed for {c.source} ({c.violations[0]}{' ...' if len(c.violations) > 1 else ''})"
        self._warn("certificate failed", reason)
        if c.source in ("hybrid", "rl") and situation is not None and not clock.limited:
            try:
                alone = Coordinator("game", limit=self.coordinator.limit)
                draft = self._drafted(alone.decide(situation, None, self.prices, clock), clock)
                return self._finish(state, situation, replace(draft, status=f"{reason}; the game alone"), clock)
            except Exception as error:
                reason += f"; the game alone failed ({type(error).__name__}: {error})"
        draft = Draft(nobody(state.agents), status=f"{reason}; all agents opt out")
        return self._finish(state, None, draft, clock)

    def _speaker(self) -> Recommender | None:
        """The recommender; one with a memory keeps it from step to step."""
        if not isinstance(self.recommender, ArrayPolicy):
            return self.recommender
        voice = self._voice
        if voice is None or (voice.policy if isinstance(voice, Carried) else voice) is not self.recommender:
            voice = self._voice = self.recommender.carrying()
        return voice

    def rehearse(self, networks: int = 24, slots: int = 40, seeds: Sequence[int] | None = None) -> None:
        """Solve the robust trust's meta-game: each trust of the grid in each of the problem's scenarios.

        Where the problem simulates its scenarios (``shifted``) the payoffs are rollouts: ``slots`` slots of
        ``networks`` networks, by default the tuning ones, with the belief as it is now; some 25 s for 50 x 9. Where it
        does not, they are one slot's at the last state. Payoffs fade in: call it after training, and again now
        and then between steps, and save.

        Raises:
            ValueError: trust is not "robust", or one slot's payoffs are wanted before a step.
        """
        rule, last = self.trust_rule.rule, self._last
        if isinstance(rule, Robust) and isinstance(self.problem, Shifts):
            on = range(5000, 5000 + networks) if seeds is None else seeds
            given = (self.coordinator, self.recommender, self.prices, self.belief)
            rule.solve(rollouts(self.problem, rule.grid, *given, on, slots, self.value))
        elif isinstance(rule, Robust) and last is not None:
            rule.solve(scenario_payoffs(self.problem, last, self.coordinator, self.trust_rule, self.prices, rule.steps))
        else:
            raise ValueError('rehearse() needs trust="robust", and where the problem has no simulator a step before it')

    def feedback(self, following: Any) -> None:
        """Tell the allocator the state that followed its last step: what that reveals adapts a trust of "hedge".

        Every trust's allocation of that step is scored on the state as it is now known to have been. With any other
        trust this does nothing.

        Raises:
            InvalidStateError: not a state. ValueError: of other devices or servers than the last.
        """
        if isinstance(following, Mapping):
            following = self.problem.state_type.from_dict(following)
        if isinstance(self.trust_rule.rule, Hedge) and self._last is not None:
            losses = hindsight_losses(
                self.problem, self._last, following, self.coordinator, self.trust_rule, self.prices
            )
            self.trust_rule.rule.learn(losses)
            self._last = None

    def observe_outcome(self, score: float) -> None:
        """Tell the allocator how its last step turned out, in [0, 1], larger is better: adapts a trust of "exp3".

        Raises:
            ValueError: a score outside [0, 1].
        """
        if isinstance(self.trust_rule.rule, Exp3) and self.trust_rule.index >= 0:
            self.trust_rule.rule.learn(self.trust_rule.index, 1.0 - score)

    def health(self) -> Health:
        """Oscillating and lazy agents over the last steps; see :mod:`coordinator.health`."""
        return self.watch.report()

    def _warm_up(self) -> None:
        """Compile, and learn what the stages take, on fresh states of the problem's size."""
        budget, self.budget_ms = self.budget_ms, 1e9
        draws = self._rng.bit_generator.state
        for seed in range(20):
            self.step(example_of(self.problem, seed))
        self.budget_ms, self._rng.bit_generator.state = budget, draws
        self._usual.forget(20 // 4)
        self._voice = self._past = None  # nothing is remembered of the warm-up

    def _warn(self, head: str, message: str) -> None:
        if head not in self._warned:
            self._warned.add(head)
            warnings.warn(message, RuntimeWarning, stacklevel=4)

    def save(self, path: str | Path) -> Path:
        """Write problem, method, prices, trust, recommender, belief and value to one ``.npz``, for :meth:`load`."""
        return write_allocator(self, path)

    @classmethod
    def load(cls, source: str | Path, *, trust_code: bool = False, **changes: Any) -> Allocator:
        """An allocator from a file, or from an MLflow URI such as ``runs:/<id>/allocator.npz``.

        A file is data: a transition (see :mod:`hybridalloc.problems.custom.transitions`) that it names runs only where
        it is installed as an entry point. One that is not stays unloaded: :meth:`step` needs none, and
        ``problem.reset`` and whatever else does says how to allow it.

        Args:
            trust_code: load any transition that the file names, running code of that name on this machine.
            changes: arguments of the constructor to replace, such as ``trust=30.0``.

        Raises:
            CheckpointError: no such file, a damaged one, another version, or not an allocator.
        """
        return made_from(cls, source, trust_code, changes)


def _improve(problem: AnyProblem, asked: bool | Improve) -> Improve | None:
    """How choices are improved: as asked, or from the problem's heuristics too."""
    if isinstance(asked, Improve):
        known = ("proposal", "game", *problem.card.baselines)
        if unknown := [name for name in asked.starts if name not in known]:
            raise nearest("start of improve", unknown[0], known)
        return asked
    if not isinstance(asked, bool):
        raise ValueError(f"improve = {asked!r:.60}; it is True, False or an Improve(width, share, sweeps, starts)")
    return problem.card.improve if asked else None
