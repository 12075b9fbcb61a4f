"""Candidate lists, the social optimum, price of anarchy, marginal tolls: against brute force."""

from __future__ import annotations

import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games import CongestionGame, InvalidGameError, best_response_dynamics, gibbs_equilibrium
from games.anarchy import GOLDEN_BOUND, marginal_toll, price_of_anarchy
from games.candidate_games import best_response_candidates, gibbs_candidates
from games.candidates import candidate_lists, refresh
from games.certificate import deviations, measure_potential_gap, measure_regret
from games.optimum import social_optimum
from games.reference import brute_force

sys.path.insert(0, str(Path(__file__).parent))
from conftest import random_choice, random_game


def positive_game(rng, agents, servers, toll=0.0):
    return CongestionGame(
        np.arange(servers)[:, None], rng.uniform(0.2, 2, (agents, servers)), rng.uniform(0.5, 2, servers),
        rng.uniform(0, 2, (agents, servers)), toll=toll,
    )  # fmt: skip


def test_deviations_agree_with_the_plain_certificate(rng):
    for _ in range(100):
        game = random_game(rng, toll=rng.uniform(0, 1))
        choice = random_choice(rng, game)
        gain, option = deviations(game, choice)
        assert gain.max() == pytest.approx(measure_regret(game, choice), abs=1e-12)
        for i in range(game.agents):
            assert game.costs(choice)[i, option[i]] == pytest.approx(game.costs(choice)[i, choice[i]] - gain[i])


def test_full_lists_are_the_game_itself(rng):
    for _ in range(60):
        game = random_game(rng, toll=rng.uniform(0, 1))
        lists = candidate_lists(game, len(game.options))
        start = random_choice(rng, game)
        found = best_response_candidates(game, lists, start)
        assert found.converged
        assert measure_regret(game, found.choice) <= 1e-9
        assert np.array_equal(found.choice, best_response_dynamics(game, start).choice)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_short_lists_grow_until_there_is_no_regret_over_all_options(count, rng):
    for _ in range(20):
        game = random_game(rng, agents=25, options=12, resources=8)
        lists = candidate_lists(game, count)
        found = best_response_candidates(game, lists, rounds=100)
        assert found.converged
        assert measure_regret(game, found.choice) <= 1e-9
        fixed = best_response_candidates(game, lists, rounds=0)
        assert fixed.regret == pytest.approx(measure_regret(game, fixed.choice), abs=1e-12)
        assert fixed.converged == (fixed.regret <= 1e-9)
        if not fixed.converged:
            assert "prefer an option that is not on their list" in fixed.status


def test_lists_hold_the_cheapest_and_what_must_be_kept(rng):
    game = random_game(rng, agents=10, options=9, resources=6)
    keep = random_choice(rng, game)
    lists = candidate_lists(game, 3, keep=keep)
    assert (lists.option == keep[:, None]).any(axis=1).all()
    alone = np.array([[game.private_cost[i, o] + sum(game.weight[i, r] ** 2 / game.capacity[r] for r in game.options[o] if r >= 0) for o in range(9)] for i in range(10)])  # fmt: skip  # noqa: E501
    alone[~game.allowed] = np.inf
    for i, row in enumerate(candidate_lists(game, 3).option):
        held = row[row >= 0]
        assert set(held) == set(np.argsort(alone[i])[: len(held)])
        assert len(held) == min(3, game.allowed[i].sum())


def test_refresh_renews_only_the_named_rows(rng):
    game = random_game(rng, agents=10, options=9, resources=6)
    lists = candidate_lists(game, 4)
    private = game.private_cost.copy()
    private[[2, 5]] = rng.uniform(0, 1, (2, 9))
    changed = replace(game, private_cost=private)
    renewed = refresh(changed, lists, [2, 5])
    whole = candidate_lists(changed, 4)
    assert np.array_equal(renewed.option, whole.option)
    assert np.array_equal(renewed.private, whole.private)
    assert np.array_equal(renewed.weight, whole.weight)


def test_gibbs_on_full_lists_is_the_gibbs_equilibrium(rng):
    for _ in range(30):
        game = random_game(rng)
        prior = rng.uniform(-2, 0, game.private_cost.shape)
        lists = candidate_lists(game, len(game.options))
        listed = np.take_along_axis(prior, np.maximum(lists.option, 0), axis=1)
        found = gibbs_candidates(game, lists, listed, 0.1, tolerance=1e-12)
        dense = np.zeros(game.private_cost.shape)
        for i in range(game.agents):
            held = lists.option[i] >= 0
            dense[i, lists.option[i][held]] = found.mixed[i][held]
        assert found.converged
        assert np.allclose(dense, gibbs_equilibrium(game, prior, 0.1, tolerance=1e-12).mixed, atol=1e-9)
        assert found.regret == pytest.approx(measure_regret(game, found.choice), abs=1e-12)


def test_bad_lists(rng):
    game = random_game(rng, agents=3, options=4, resources=2)
    with pytest.raises(InvalidGameError, match="count = 0; a list holds at least one option"):
        candidate_lists(game, 0)
    with pytest.raises(InvalidGameError, match=re.escape("load has shape (3,); the game needs (2,)")):
        candidate_lists(game, 2, load=[0, 0, 0])
    lists = candidate_lists(game, 2)
    with pytest.raises(InvalidGameError, match=re.escape("log_prior has shape (3, 4); the lists need (3, 2)")):
        gibbs_candidates(game, lists, np.zeros((3, 4)), 1.0)
    with pytest.raises(InvalidGameError, match=re.escape("trust = inf; it must be in [0, inf)")):
        gibbs_candidates(game, lists, np.zeros((3, 2)), np.inf)


def test_optimum_equals_brute_force(rng):
    for _ in range(12):
        game = random_game(rng, agents=6, options=4, resources=3)
        _, least, _ = brute_force(game)
        found = social_optimum(game)
        assert found.status == "optimal"
        assert found.social_cost == pytest.approx(least, rel=1e-6, abs=1e-9)
        assert found.bound <= least + 1e-9 + 1e-6 * abs(least)


def test_potential_gap_is_a_bound_and_often_tight(rng):
    tight = 0
    for _ in range(40):
        game = random_game(rng, agents=5, options=3, toll=rng.uniform(0, 1))
        least = min(game.potential(np.array(c)) for c in itertools.product(*[np.flatnonzero(r) for r in game.allowed]))
        choice = best_response_dynamics(game).choice
        gap = measure_potential_gap(game, choice)
        assert gap >= game.potential(choice) - least - 1e-9
        tight += gap <= 0.3 * abs(least) + 1e-9
    assert tight > 10


def test_optimum_within_a_budget_still_bounds(rng):
    game = positive_game(rng, 12, 3)
    found = social_optimum(game, max_rounds=1)
    full = social_optimum(game)
    assert full.converged
    assert found.bound <= full.social_cost <= found.social_cost + 1e-9
    assert social_optimum(CongestionGame([[0]], np.zeros((0, 1)), [1.0], np.zeros((0, 1)))).converged


def test_anarchy_of_a_known_game():
    # Pigou's example with two unit agents: a link of cost 2 alone, or one that costs the load
    game = CongestionGame([[0], [1]], [[1.0, 0.0], [1.0, 0.0]], [1.0, 1.0], [[0.0, 2.0], [0.0, 2.0]])
    found = price_of_anarchy(game)
    # both on the link: 2 + 2 = 4; one each: 1 + 2 = 3; both are equilibria (ties)
    assert (found.anarchy, found.stability, found.optimum) == pytest.approx((4 / 3, 1.0, 3.0))
    assert found.exact
    # with toll 1 sharing the link costs 1 + 1 + toll 1 > 2: only the optimum is left
    tolled = price_of_anarchy(replace(game, toll=1.0))
    assert (tolled.anarchy, tolled.equilibria) == (pytest.approx(1.0), 2)


def test_anarchy_stays_below_the_golden_bound_and_toll_one_never_hurts(rng):
    for _ in range(25):
        game = positive_game(rng, 5, 3)
        found = price_of_anarchy(game)
        assert 1 - 1e-12 <= found.stability <= found.anarchy <= GOLDEN_BOUND
        # toll 1: the optimum is an equilibrium
        assert price_of_anarchy(replace(game, toll=1.0)).stability == pytest.approx(1.0)
        design = marginal_toll(game)
        assert design.social_cost <= design.selfish_cost * (1 + 1e-12)
        assert design.regret <= 1e-9
        assert measure_regret(design.game, design.choice) <= 1e-9
        exact = marginal_toll(game, optimum=True)
        assert exact.social_cost == pytest.approx(found.optimum, rel=1e-6)
        assert (exact.charge >= -1e-12).all()


def test_sampled_anarchy_brackets_the_enumerated(rng):
    game = positive_game(rng, 6, 3)
    exact = price_of_anarchy(game)
    sampled = price_of_anarchy(game, enumerate_up_to=10, starts=30)
    assert not sampled.exact
    assert sampled.anarchy <= exact.anarchy * (1 + 1e-6)
    assert sampled.stability >= exact.stability * (1 - 1e-6)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_optimum_is_invariant(seed):
    rng = np.random.default_rng(seed)
    game = positive_game(rng, 5, 3)
    who, what = rng.permutation(5), rng.permutation(3)
    same = CongestionGame(game.options[what], game.weight[who], game.capacity / 4, 4 * game.private_cost[who][:, what])
    assert social_optimum(same).social_cost == pytest.approx(4 * social_optimum(game).social_cost, rel=1e-6)
