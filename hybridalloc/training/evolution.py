"""Evolution of a problem's prices over whole episodes: for games whose prices are many and whose outcome comes late.

Each generation of CMA-ES is judged on episodes of training seeds that no other generation sees, all its members on the
same, in each of the problems at hand; what is kept is the mean of the distribution, not the luckiest member. Several
problems, such as one cluster under other mixes of work, make prices that hold beyond the one that they were found on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hybridalloc.problems.contract import AnyProblem, Float, Plays, Prices
from hybridalloc.training.config import TRAIN_SEEDS
from rl.cma_es import CmaEs

SPREADS = 8.0  # standard deviations of the first generation that a price's range is wide


class Evolved(NamedTuple):
    """The prices found, one row a generation (the best and mean earned, the step's scale), and episodes played."""

    prices: Prices
    rows: list[dict[str, float]]
    episodes: int


def evolve_prices(
    problems: Sequence[AnyProblem],
    *,
    start: Prices | None = None,
    generations: int = 60,
    size: int = 14,
    episodes: int = 1,
    seed: int = 0,
    beside: Mapping[str, float] | None = None,
    limit_s: float = np.inf,
    report: Callable[[int, dict[str, float], Prices], None] | None = None,
) -> Evolved:
    """Search the first problem's ``price_space`` for the prices with which the game does best in all of them.

    Args:
        problems: of one kind, that play whole episodes; each generation takes the first and, in turn, ``episodes - 1``
            of the rest; with ``episodes`` 0 all of them.
        start: where it begins, by default at the prices' defaults. size: members of a generation.
        beside: other metrics that count, by key, with their weights beside that which is tuned for (1).
        limit_s: no generation begins after so much time. report: called with each generation's number, row and mean.

    Raises:
        ValueError: a problem that does not play, or a price space without prices.
    """
    for problem in problems:
        if not isinstance(problem, Plays):
            raise ValueError(f"{problem.card.name} does not play whole episodes, which evolution judges by")
    card = problems[0].card
    names, begin = list(card.price_space), card.prices() if start is None else start
    if not names:
        raise ValueError(f"{card.name} has no prices to search")
    scale = np.array([_span(*span) / SPREADS for span in card.price_space.values()])
    placed = [np.log(getattr(begin, n)) if card.price_space[n][2] else getattr(begin, n) for n in names]
    run = CmaEs(np.array(placed, float), scale, seed, size)
    value = lambda name, x: float(np.exp(x) if card.price_space[name][2] else x)
    priced = lambda x: begin._replace(**{name: value(name, at) for name, at in zip(names, x, strict=True)})
    weights = {card.aim.key: card.aim.sign} | dict(beside or {})
    began, rows, played = time.perf_counter(), [], 0
    for generation in range(generations):
        if time.perf_counter() - began > limit_s:
            break
        some = _some(problems, generation, episodes)
        tasks = [(p, TRAIN_SEEDS[(generation * len(some) + k) % len(TRAIN_SEEDS)]) for k, p in enumerate(some)]
        asked = run.ask()
        earned = np.array([np.mean([_earned(p, priced(x), s, weights) for p, s in tasks]) for x in asked])
        run.tell(earned)
        played += len(asked) * len(some)
        row = {"best": float(earned.max()), "mean": float(earned.mean()), "sigma": run.sigma}
        rows.append(row)
        if report is not None:
            report(generation, row, priced(run.best))
    return Evolved(priced(run.best), rows, played)


def _span(low: float, high: float, logarithmic: bool) -> float:
    """How wide a price's range is, on its own scale."""
    return float(np.log(high / low) if logarithmic else high - low)


def _some(problems: Sequence[AnyProblem], generation: int, episodes: int) -> list[AnyProblem]:
    """The problems that a generation is judged in."""
    if episodes < 1:
        return list(problems)
    rest = problems[1:] or problems
    return [problems[0], *(rest[(generation * (episodes - 1) + k) % len(rest)] for k in range(episodes - 1))]


def _earned(problem: AnyProblem, prices: Prices, seed: int, weights: Mapping[str, float]) -> float:
    """Weighed metrics of one episode; those of nothing count for nothing."""
    assert isinstance(problem, Plays)
    figures: dict[str, Float] = problem.play(prices, [seed])
    return float(sum(weight * np.nan_to_num(figures[key][0]) for key, weight in weights.items()))
