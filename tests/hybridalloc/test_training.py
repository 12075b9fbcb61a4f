"""Training and evaluation: paired, reproducible, never infeasible, and it learns."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import Coordinator
from hybridalloc import make_problem
from hybridalloc.training import REPORT_SEEDS, TRAIN_SEEDS, TUNE_SEEDS, TrainConfig, evaluate, train
from hybridalloc.tuning import tune_prices


@pytest.fixture(scope="module")
def problem():
    return make_problem("mec", agents=16, servers=3)


def learned(trained):
    """The rows of figures but for how long they took."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in trained.updates]


def test_seed_ranges_do_not_meet():
    assert not set(TRAIN_SEEDS) & set(TUNE_SEEDS)
    assert not (set(TRAIN_SEEDS) | set(TUNE_SEEDS)) & set(REPORT_SEEDS)


def test_the_hybrid_starts_at_the_games_level(problem):
    prices = problem.prices_type()
    config = TrainConfig("imappo", "hybrid", 16 * 32 * 32, checks=1, check_seeds=8, check_slots=30)
    trained = train(problem, prices, config)
    flat = evaluate(problem, prices, Coordinator("hybrid", config.trust), None, TUNE_SEEDS[:8], slots=30)
    assert trained.curve[0]["agent_steps"] == 0
    assert trained.curve[0]["check_welfare"] == pytest.approx(flat.metrics["welfare"].mean(), abs=1e-12)


@pytest.mark.parametrize("learner", ["imappo", "dqn"])
def test_learning_rises_well_above_the_untrained_self_and_the_heuristics(problem, learner):
    prices = problem.prices_type()
    config = TrainConfig(learner, "rl", 300_000, checks=0)
    trained = train(problem, prices, config)
    seeds = TUNE_SEEDS[:24]
    alone = evaluate(problem, prices, Coordinator("rl"), trained.learner.policy, seeds, slots=60)
    others = {b: evaluate(problem, prices, None, None, seeds, b, slots=60) for b in ("local", "random", "nearest")}
    learned = alone.metrics["welfare"].mean()
    assert trained.violations == alone.violations == 0
    assert learned > others["local"].metrics["welfare"].mean() + 0.1  # what an untrained score executes
    assert learned > others["random"].metrics["welfare"].mean() + 0.1  # what it explores with
    assert learned > others["nearest"].metrics["welfare"].mean()


@pytest.mark.parametrize("learner", ["imappo", "dqn"])
def test_training_is_reproducible_by_seed(problem, learner):
    prices = problem.prices_type()
    config = TrainConfig(learner, "hybrid", 16 * 32 * 96, checks=0, seed=5)
    first, second = train(problem, prices, config), train(problem, prices, config)
    for name, array in first.learner.policy.weights.items():
        np.testing.assert_array_equal(array, second.learner.policy.weights[name])
    assert learned(first) == learned(second)
    third = train(problem, prices, TrainConfig(learner, "hybrid", 16 * 32 * 96, checks=0, seed=6))
    assert learned(third)[0] != learned(first)[0]


def test_every_method_meets_the_same_world(problem):
    """The tasks of a seed do not depend on what was executed, so differences are paired."""
    prices = problem.prices_type()
    runs = [evaluate(problem, prices, None, None, [7, 8], b, slots=20) for b in ("local", "random")]
    counts = []
    for name in ("local", "random"):
        batch = problem.batch([7, 8])
        rng = np.random.default_rng(0)
        for _ in range(20):
            batch.execute(batch.settle(batch.baseline(name, rng), prices))
            batch.drift()
        counts.append(batch.tallies.generated_by)
    np.testing.assert_array_equal(*counts)
    assert runs[0].allocations == runs[1].allocations == 2 * 35


def test_tuning_never_ends_below_the_default_and_uses_its_own_seeds(problem):
    tuned = tune_prices(problem, Coordinator("game"), 6, seeds=8, slots=20)
    assert len(tuned.trials) == 7
    assert tuned.welfare == max(w for _, w in tuned.trials) >= tuned.trials[0][1]
    again = tune_prices(problem, Coordinator("game"), 6, seeds=8, slots=20)
    assert again.prices == tuned.prices
    for name, (low, high, _) in problem.price_space.items():
        for prices, _welfare in tuned.trials[1:]:
            assert low - 1e-12 <= getattr(prices, name) <= high + 1e-12
