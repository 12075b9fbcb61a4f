"""Trust after training: as much weight for the prior as pays on held-out networks.

A prior that learned too little does harm, within its epsilon bound. So a trained hybrid is run on tuning seeds at
trusts around the one it was trained at and at infinity, where its prior has no say. The trust of training stays unless
another is better by more than a standard error of the paired difference: the one-standard-error rule (Breiman et al.,
"Classification and Regression Trees", 1984). The reporting seeds are not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from coordinator import Coordinator
from coordinator.improve import Improve
from hybridalloc.problems.contract import AnyProblem, Belief, Prices
from hybridalloc.reports.statistics import mean_of
from hybridalloc.training.config import TUNE_SEEDS
from hybridalloc.training.evaluation import evaluate
from rl.proposal import Recommender
from rl.value import Valuer

FACTORS = (1.0, 0.5, 2.0, 4.0, np.inf)  # of the trust of training, which comes first
SEEDS = TUNE_SEEDS[16:56]  # those before are for the checks in training


class Tried(NamedTuple):
    """A trust, what it earns (the metric that the problem tunes for, as it is), the gain over the trust of training
    (larger is better) and that gain's standard error over worlds.

    NaN and an infinite error where no world has that metric: then the trust of training stays.
    """

    trust: float
    welfare: float
    gain: float
    error: float


class Calibration(NamedTuple):
    """The trust to execute at, every trust tried, and what trying executed and violated."""

    trust: float
    tried: tuple[Tried, ...]
    allocations: int
    violations: int


def calibrate(
    problem: AnyProblem,
    prices: Prices,
    recommender: Recommender,
    trust: float,
    limit: float = 10.0,
    belief: Belief | None = None,
    seeds: Sequence[int] = SEEDS,
    slots: int = 60,
    improve: Improve | None = None,
    value: Valuer | None = None,
) -> Calibration:
    """The best trust for a hybrid trained at ``trust`` > 0, its choices improved as they will be."""
    aim = problem.card.aim
    tried: list[Tried] = []
    base = np.zeros(0)
    allocations = violations = 0
    for factor in FACTORS if trust < np.inf else FACTORS[:1]:
        at = Coordinator("hybrid", trust * factor, limit, improve=improve)
        seen = evaluate(problem, prices, at, recommender, seeds, slots=slots, belief=belief, value=value)
        allocations, violations = allocations + seen.allocations, violations + seen.violations
        earned = seen.metrics[aim.key]
        base = base if tried else earned
        gain = aim.sign * (earned - base)[~np.isnan(earned - base)]  # of the worlds that have both
        error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float("inf")
        tried.append(Tried(at.trust, mean_of(earned), mean_of(gain), error))
    best = max(tried, key=lambda t: -np.inf if np.isnan(t.gain) else t.gain)
    chosen = best.trust if best.gain > best.error else trust
    return Calibration(chosen, tuple(tried), allocations, violations)
