"""The clock's decisions with times that are set, not measured, and solvers that stop between sweeps."""

from __future__ import annotations

import time

import numpy as np
import pytest

from coordinator import Coordinator
from coordinator.budget import MEMORY, PATIENCE, Clock, Usual
from coordinator.merge import equilibrate, flat_prior
from games.certificate import measure_regret
from games.congestion import CongestionGame
from hybridalloc import Allocator, make_problem


class Ticking(Clock):
    """Every reading of the clock takes a millisecond."""

    def __init__(self, budget_ms, usual=None):
        super().__init__(budget_ms, usual)
        self.now = 0.0

    def spent_ms(self):
        self.now += 1.0
        return self.now


def steps(size, *rows):
    usual = Usual()
    for row in rows:
        usual.learn(size, row)
    return usual


def test_usual_is_a_quantile_of_the_stages_sum_over_the_last_thousand_steps():
    rng = np.random.default_rng(0)
    settle, certify = rng.random((2, MEMORY))
    usual = steps(10, *({"settle": 9.0, "certify": 9.0} for _ in range(MEMORY)))
    for a, b in zip(settle, certify, strict=True):
        usual.learn(10, {"settle": a, "certify": b})
    ordered = np.sort(settle + certify)
    assert usual.of(("settle", "certify"), 10) == ordered[-2]  # a lone hiccup in a thousand is not usual
    assert usual.of(("settle", "certify"), 10, 0.9) == ordered[899]
    assert usual.of(("settle",), 10, 0.9) == np.sort(settle)[899]


def test_usual_of_few_steps_is_the_largest_and_of_another_size_is_scaled():
    usual = steps(10, {"settle": 3.0}, {"settle": 1.0, "choose": 2.0}, {"settle": 1.5})
    assert usual.of(("settle",), 10) == 3.0
    assert usual.of(("settle", "choose"), 10) == 3.0  # only of steps that ran both
    assert usual.of(("settle",), 30) == 18.0 and usual.of(("settle",), 1) == 6.0 and usual.of(("game",), 10) == 0.0
    assert Usual().of(("settle",), 10) == 0.0


def test_a_stage_fits_only_with_the_reserve():
    usual = steps(0, {"choose": 3.0, "settle": 2.0, "certify": 4.0})
    assert Ticking(11.0, usual).fits("choose")  # 1 spent, 1.1 times 6 in reserve
    clock = Ticking(10.5, usual)
    assert not clock.fits("choose") and clock.skipped == ["choose"]
    assert Ticking(7.7, usual).fits() and not Ticking(7.5, usual).fits()
    assert Clock(None).fits("choose") and Clock(None).left_ms() == np.inf


class Still(Clock):
    """A millisecond is spent, always."""

    def spent_ms(self):
        return 1.0


def test_what_is_shut_out_for_long_is_tried_again_and_what_is_old_forgotten():
    """A bad hour, then every attempt is quick: old times shut it out, a quarter of them less at each attempt."""
    bad, good = ({"game": 1.0, "settle": 1.0, "certify": ms} for ms in (90.0, 1.0))
    usual = steps(0, *(bad for _ in range(MEMORY)))
    attempts = 0
    while not Still(50.0, usual).fits("game"):
        tried = [Still(50.0, usual).fits("game") for _ in range(PATIENCE - 1)]
        assert not any(tried[:-1]) and tried[-1]
        usual.learn(0, good)
        attempts += 1
    assert 10 < attempts < 30 and usual.of(("settle", "certify"), 0) == 2.0


def test_one_slow_step_alone_does_not_shut_a_size_out_for_good():
    usual = steps(0, {"build": 1.0, "game": 1.0, "settle": 400.0, "certify": 1.0})
    clock = Still(200.0, usual)
    assert [clock.fits("build", "game") for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]
    assert clock.fits("build", "game")


def test_stages_cut_short_are_not_remembered():
    usual = Usual()
    clock = Clock(5.0, usual)
    for stage in ("settle", "certify"):
        with clock.stage(stage):
            pass
    with clock.stage("equilibrate"):
        clock.skipped.append("equilibrate")
    clock.close()
    assert usual.of(("settle",), 0) > 0 and usual.of(("equilibrate",), 0) == 0


class Slow:
    """A recommender that is quick but when it is told to hang for some milliseconds."""

    name, hang_ms = "slow", 0.0

    def propose(self, observation):
        time.sleep(1e-3 * self.hang_ms)
        return np.zeros(observation.allowed.shape)


def test_a_hiccup_that_eats_the_reserve_leaves_everyone_opted_out_and_certified():
    problem = make_problem("mec", agents=12, servers=3)
    slow = Slow()
    allocator = Allocator(problem, "hybrid", slow, budget_ms=1000.0)
    assert allocator.step(problem.reset(1)).certificate.source == "hybrid"
    slow.hang_ms = 1100.0
    allocation = allocator.step(problem.reset(1))
    assert allocation.certificate.feasible and allocation.certificate.source == "fallback"
    assert "budget of 1000 ms: all agents opt out" in allocation.certificate.status
    assert not allocation.option.any()


@pytest.fixture(scope="module")
def game():
    problem = make_problem("mec", agents=60, servers=9)
    return problem.worlds([0]).game(problem.card.prices())


def as_one(game):
    return CongestionGame(
        game.options, game.weight[0], game.capacity[0], game.private_cost[0], game.allowed[0], game.toll[0]
    )


@pytest.mark.parametrize("trust", [5.0, np.inf])
def test_with_time_enough_a_budget_changes_nothing(game, trust):
    prior = -np.random.default_rng(0).random(game.private_cost.shape) * game.allowed
    free = equilibrate(game, prior, trust)
    timed = equilibrate(game, prior, trust, clock=Clock(1e6))
    assert np.array_equal(free.option, timed.option) and timed.stable.all()


def test_a_solver_out_of_time_stops_between_sweeps_and_says_so():
    """The clock runs out after the first sweep: a joint choice all the same, allowed, and no promise of stability."""
    problem = make_problem("mec", agents=60, servers=9)
    regrets = []
    for seed in range(10):
        game = problem.worlds([seed]).game(problem.card.prices(toll=0.0, risk=0.5))
        clock = Ticking(2.0)
        merged = equilibrate(game, flat_prior(game), np.inf, clock=clock)
        assert not merged.stable.any() and "equilibrate" in clock.skipped
        assert np.take_along_axis(game.allowed, merged.option[..., None], -1).all()
        regrets.append(measure_regret(as_one(game), merged.option[0]))
        full = equilibrate(game, flat_prior(game), np.inf)
        assert full.stable.all() and measure_regret(as_one(game), full.option[0]) <= 1e-9
    assert max(regrets) > 1e-4


def test_choose_is_left_out_when_it_would_not_fit(game):
    usual = steps(0, {"choose": 1e9})
    prior = -np.random.default_rng(0).random(game.private_cost.shape) * game.allowed
    decision = Coordinator(trust=5.0).decide_on(game, prior, True, Clock(1e6, usual))
    assert decision.origin.tolist() == [0] and decision.stable.all()
    assert measure_regret(as_one(game), decision.option[0]) <= 2.0 + 1e-9
