"""Search over a problem's prices on the tuning seeds, before what uses them learns.

The first half of the trials is drawn from the whole space, the second half around the best so far. All trials see the
same seeds, so their differences are paired; the reporting seeds are never touched. Where a problem plays whole episodes
by itself, its game's prices evolve instead (:mod:`.evolution`), on training seeds, and are taken if they do better on
the tuning seeds than those it began with.

Source: Bergstra and Bengio (2012), "Random search for hyper-parameter optimization".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from coordinator import Coordinator
from hybridalloc.limits import LIMITS, check
from hybridalloc.problems.beliefs import make_belief
from hybridalloc.problems.contract import AnyProblem, Belief, Plays, Prices
from hybridalloc.reports.statistics import mean_of
from hybridalloc.training.beliefs import learn_belief
from hybridalloc.training.config import BELIEF_STEPS, TUNE_SEEDS, TrainConfig
from hybridalloc.training.evaluation import evaluate
from hybridalloc.training.evolution import evolve_prices
from hybridalloc.training.trainer import train
from rl.proposal import Recommender

SIZE = 14  # members of a generation
ALONE_STEPS = 1_000_000  # agent-steps of a learner alone whose prices are being sought


class Tuned(NamedTuple):
    """The best prices found, what they earn on the tuning seeds (the metric that the problem tunes for, its sign such
    that larger is better), and every trial as (prices, earned).

    It is NaN where no seed has any, and such a trial is never the best.
    """

    prices: Prices
    welfare: float
    trials: list[tuple[Any, float]]


def tune_prices(
    problem: AnyProblem,
    coordinator: Coordinator,
    trials: int,
    *,
    seeds: int = 32,
    slots: int = 60,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
    belief: Belief | None = None,
    start: Any = None,
    recommender: Recommender | None = None,
    held: Mapping[str, float] | None = None,
) -> Tuned:
    """Search ``problem.card.price_space`` for the prices with which a method does best.

    Args:
        coordinator: Coordinator("game"), or of another kind with a ``recommender``, which stays as it is.
        trials: evaluations beside that of the problem's default prices, which is always tried.
        seeds: of the worlds of one evaluation. slots: its length.
        belief: what the method believes; its learning rests meanwhile.
        start: prices to try first, instead of the problem's defaults. held: prices that are not searched, by name.
        report: called with the trial's number and the best so far.
    """
    check("trials", trials, LIMITS["tuning"])
    if isinstance(problem, Plays) and coordinator.kind == "game" and belief is None and not held:
        return _evolved(problem, trials, seeds, seed, report, start)
    rng = np.random.default_rng([seed, 55])
    held, aim = dict(held or {}), problem.card.aim
    space = {name: bounds for name, bounds in problem.card.price_space.items() if name not in held}

    def welfare(prices: Prices) -> float:
        seen = belief.copy(learning=False) if belief is not None else None
        result = evaluate(problem, prices, coordinator, recommender, TUNE_SEEDS[:seeds], slots=slots, belief=seen)
        return aim.sign * mean_of(result.metrics[aim.key])

    best = (problem.card.prices() if start is None else start)._replace(**held)
    top = welfare(best)
    tried = [(best, top)]
    for trial in range(trials):
        prices = best._replace(**{
            name: _draw(rng, bounds, None if trial < trials // 2 else getattr(best, name))
            for name, bounds in space.items()
        })  # fmt: skip
        value = welfare(prices)
        tried.append((prices, value))
        if value > top or (np.isnan(top) and not np.isnan(value)):  # NaN: nobody had anything to do
            best, top = prices, value
        if report is not None:
            report(trial, top)
    return Tuned(best, top, tried)


def _evolved(
    problem: AnyProblem, trials: int, seeds: int, seed: int, report: Callable[[int, float], None] | None, start: Any
) -> Tuned:
    """The prices that ``trials`` candidates evolve to, a generation at a time, or those at the start where these do
    better on the tuning seeds."""
    assert isinstance(problem, Plays)
    aim, first = problem.card.aim, problem.card.prices() if start is None else start
    earned = lambda prices: aim.sign * mean_of(problem.play(prices, TUNE_SEEDS[:seeds])[aim.key])
    tried, done = [(first, earned(first))], 0
    generations = trials // SIZE

    def seen(generation: int, row: dict[str, float], prices: Prices) -> None:
        nonlocal done
        share = trials // generations if generation + 1 < generations else trials - done
        for _ in range(share if report is not None else 0):
            report(done, tried[0][1])  # type: ignore[misc]
            done += 1

    if generations:
        found = evolve_prices([problem], start=first, generations=generations, size=SIZE, seed=seed, report=seen)
        tried.append((found.prices, earned(found.prices)))
    best = max(tried, key=lambda pair: -np.inf if np.isnan(pair[1]) else pair[1])
    return Tuned(best[0], best[1], tried)


def tune_game(
    problem: AnyProblem,
    belief: str,
    trials: int,
    report: Callable[[int, float], None] | None = None,
    seed: int = 0,
    belief_steps: int = BELIEF_STEPS,
    held: Mapping[str, float] | None = None,
) -> Tuned:
    """The best prices of a game that believes ``belief``, a name of the problem's ``beliefs`` or "" for the reports;
    those ``held`` are not searched.

    A learned belief depends on what is done, so it is learned again at half time, under the best prices so far.
    """
    check("trials", trials, LIMITS["tuning"])
    make_belief(problem, belief or None)
    halves = (trials // 2, trials - trials // 2) if belief == "learned" else (trials,)
    tuned = Tuned(problem.card.prices(**(held or {})), -np.inf, [])
    for half, count in enumerate(halves):
        known, _, _ = learn_belief(
            problem, tuned.prices, TrainConfig(belief=belief, belief_steps=belief_steps, seed=seed)
        )
        found = tune_prices(
            problem, Coordinator("game"), count, seed=seed + half, belief=known, start=tuned.prices, report=report,
            held=held,
        )  # fmt: skip
        tuned = found._replace(trials=tuned.trials + found.trials)
    return tuned


def tune_alone(
    problem: AnyProblem,
    learner: str,
    belief: str,
    trials: int,
    report: Callable[[int, float], None] | None = None,
    seed: int = 0,
    belief_steps: int = BELIEF_STEPS,
    agent_steps: int = ALONE_STEPS,
    start: Prices | None = None,
) -> Tuned:
    """The best prices of a learner alone, whose choices no game corrects: they decide what its choices settle to.

    As many trials as a game has. What a policy does depends on them in turn, so one that was trained for
    ``agent_steps`` is held while half of them are tried, and another, under the best so far, for the rest. The search
    begins at ``start``, such as a game's, instead of the problem's defaults.
    """
    check("trials", trials, LIMITS["tuning"])
    tuned = Tuned(problem.card.prices() if start is None else start, float("nan"), [])
    for half, count in enumerate((trials - trials // 2, trials // 2)):
        if count:
            config = TrainConfig(
                learner, "rl", agent_steps, belief=belief, belief_steps=belief_steps, seed=seed, checks=0
            )
            trained = train(problem, tuned.prices, config)
            found = tune_prices(
                problem, Coordinator("rl"), count, seed=seed + half, belief=trained.belief, start=tuned.prices,
                recommender=trained.learner.policy, report=report,
            )  # fmt: skip
            tuned = found._replace(trials=tuned.trials + found.trials)
    return tuned


def _draw(rng: np.random.Generator, bounds: tuple[float, float, bool], around: float | None) -> float:
    """A value of one knob: uniform over its range, or near ``around``, or (four in ten) ``around`` itself."""
    low, high, logarithmic = bounds
    a, b = (np.log(low), np.log(high)) if logarithmic else (low, high)
    if around is None:
        x = rng.uniform(a, b)
    else:
        centre = np.log(max(around, low)) if logarithmic else around
        step = 0.15 * (b - a) * rng.standard_normal()
        x = float(np.clip(centre + step, a, b)) if rng.random() < 0.6 else centre
    return float(np.exp(x)) if logarithmic else float(x)
