"""Any method on common held-out seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from coordinator import Coordinator
from coordinator.health import FleetWatch
from games.congestion import CongestionBatch
from hybridalloc.problems.contract import AnyProblem, Belief, Bounds, Float, Int, Prices
from hybridalloc.reports.statistics import mean_of
from hybridalloc.training.config import REPORT_SLOTS, WARMUP_SLOTS
from hybridalloc.training.rollout import Chosen, Execute, Heuristic, Method, Rollout
from rl.policy import ArrayPolicy, Carried
from rl.proposal import Recommender
from rl.value import Valuer

LONGEST = 10  # times the decisions that a card expects of an episode, after which it is cut off


@dataclass(frozen=True)
class Evaluation:
    """Metrics (V,) of one method on V held-out seeds, NaN where one has none, and the certificate's count."""

    metrics: dict[str, Float]
    allocations: int
    violations: int
    step_ms: float

    def means(self) -> dict[str, float]:
        """Each metric's mean over the seeds that have it; a metric that none has is left out."""
        found = {key: mean_of(values) for key, values in self.metrics.items()}
        return {key: mean for key, mean in found.items() if not np.isnan(mean)}


def evaluate(
    problem: AnyProblem,
    prices: Prices,
    coordinator: Coordinator | None,
    recommender: Recommender | None,
    seeds: Sequence[int],
    baseline: str | None = None,
    slots: int = REPORT_SLOTS,
    chunk: int = 50,
    belief: Belief | None = None,
    health: bool = False,
    value: Valuer | None = None,
) -> Evaluation:
    """Run one method on common seeds; randomness of the world is the same for every method.

    Each seed is one world for ``slots`` decisions, after ``WARMUP_SLOTS`` that are not counted, both
    rounded up to whole cycles of the problem's; or, where the card says that whole episodes count, for one from its
    beginning to its end. ``step_ms`` is the time
    of a decision (observe, propose, equilibrate, settle, filter), a world, batched. A ``belief`` goes on learning in
    each chunk of worlds as it would in service (``copy(learning=False)`` does not); the one given stays as it is.
    ``value`` is of what is left in the agents' stores. With ``health`` the metrics count agents that oscillate or are
    lazy, in congestion games whose agents stay.
    """
    parts: list[dict[str, Float]] = []
    allocations = violations = 0
    spent = 0.0
    seeds = list(seeds)
    warmup, slots, whole = problem.card.whole(WARMUP_SLOTS), problem.card.whole(slots), problem.card.whole_episodes
    if whole:
        warmup, slots = 0, LONGEST * problem.card.epochs
    for start in range(0, len(seeds), chunk):
        some = seeds[start : start + chunk]
        run = Rollout(problem, some, None if belief is None else belief.copy(belief.learning), value=value)
        # a policy with a memory keeps it from decision to decision
        speaker = recommender.carrying() if isinstance(recommender, ArrayPolicy) else recommender
        method: Method
        if baseline is not None:
            method = Heuristic(baseline, prices, np.random.default_rng([some[0], 99]))
        else:
            assert coordinator is not None
            method = Execute(coordinator, speaker, prices)
        watch = _Watch(run) if health and not problem.card.fleeting else None
        for slot in range(warmup + slots):
            if slot == warmup:
                run.tally.clear()
            step = run.step(method, prices, before=watch if slot >= warmup else None)
            spent += step.deciding_s
            if step.over.any() and isinstance(speaker, Carried):
                speaker.reset(step.over)
            if whole:
                run.counted &= ~step.over
                if not run.counted.any():
                    break
        allocations, violations = allocations + run.allocations, violations + run.violations
        parts.append(run.tally.summary() | ({} if watch is None else watch.fleet.summary()))
    metrics = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return Evaluation(metrics, allocations, violations, 1e3 * spent / max(allocations, 1))


def bounded(problem: AnyProblem, name: str, seeds: Sequence[int]) -> Evaluation:
    """What a bound of the card's says that is worked out; of other metrics NaN, and nothing is executed.

    Raises:
        TypeError: the problem works out no bound.
    """
    if not isinstance(problem, Bounds):
        raise TypeError(f"{type(problem).__name__} has no method bound(), and {name!r} is no baseline of its card")
    found, nothing = problem.bound(name, seeds), np.full(len(seeds), np.nan)
    return Evaluation({m.key: found.get(m.key, nothing) for m in problem.card.metrics}, 0, 0, float("nan"))


@runtime_checkable
class _HasOptions(Protocol):
    option: Int


class _Watch:
    """Looks at agents that go back and forth, before each decision is executed, under prices that are the same for all
    methods."""

    def __init__(self, run: Rollout) -> None:
        card = run.problem.card
        self.run, self.yardstick = run, card.prices()
        self.fleet = FleetWatch(run.world.size, worth=card.cost_of_change(self.yardstick))

    def __call__(self, chosen: Chosen) -> None:
        game = self.run.world.game(self.yardstick)
        if isinstance(game, CongestionBatch) and isinstance(chosen.plan, _HasOptions):
            flat = np.zeros(game.private_cost.shape) if chosen.log_prior is None else chosen.log_prior
            self.fleet.see(game, chosen.plan.option, flat)
