"""Best-response dynamics: regret measured from the definition, scale, invariance, batches."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games import CongestionGame, InvalidGameError, best_response_dynamics
from games.best_response import alone, best_response_batch
from games.certificate import measure_regret
from games.congestion import CongestionBatch

sys.path.insert(0, str(Path(__file__).parent))
from conftest import random_choice, random_game

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("toll", [0.0, 0.5, 1.0, 2.0])
def test_ends_without_regret(toll, rng):
    for _ in range(150):
        game = random_game(rng, toll=toll)
        found = best_response_dynamics(game, random_choice(rng, game))
        assert found.converged
        assert measure_regret(game, found.choice) <= 1e-9
        assert found.regret == pytest.approx(measure_regret(game, found.choice), abs=1e-12)


def test_every_sweep_lowers_the_potential(rng):
    for _ in range(30):
        game = random_game(rng, agents=12, options=6, resources=5)
        choice = random_choice(rng, game)
        for _ in range(20):
            before = game.potential(choice)
            found = best_response_dynamics(game, choice, max_sweeps=1)
            assert found.potential <= before + 1e-12 * abs(before)
            if found.converged:
                break
            assert found.status == "stopped after 1 sweeps"
            choice = found.choice
        assert found.converged


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12, 1e100])
def test_scale_of_the_costs_does_not_make_it_cycle(scale, rng):
    for _ in range(40):
        game = random_game(rng, agents=20, options=5, resources=4, scale=scale)
        found = best_response_dynamics(game, tolerance=0.0)
        assert found.converged
        assert measure_regret(game, found.choice) <= 1e-10 * scale


def test_ties_do_not_move_anyone():
    game = CongestionGame([[0], [1]], np.ones((2, 2)), [1.0, 1.0], np.zeros((2, 2)))
    assert best_response_dynamics(game, [0, 1]).choice.tolist() == [0, 1]
    assert best_response_dynamics(game, [1, 0]).choice.tolist() == [1, 0]


def test_start_alone_counts_the_own_load():
    game = CongestionGame([[0], [1]], [[2.0, 2.0]], [1.0, 4.0], [[0.0, 1.0]])
    assert alone(game).tolist() == [1]


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_permuting_agents_permutes_the_equilibria(seed):
    rng = np.random.default_rng(seed)
    game = random_game(rng)
    order = rng.permutation(game.agents)
    same = CongestionGame(
        game.options,
        game.weight[order],
        game.capacity,
        game.private_cost[order],
        game.allowed[order],
        game.toll,
    )
    choice = best_response_dynamics(game).choice
    assert measure_regret(same, choice[order]) == pytest.approx(measure_regret(game, choice), abs=1e-12)
    assert same.potential(choice[order]) == pytest.approx(game.potential(choice), rel=1e-12, abs=1e-12)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_renaming_options_renames_the_equilibrium(seed):
    rng = np.random.default_rng(seed)
    game = random_game(rng)
    order = rng.permutation(len(game.options))
    same = CongestionGame(
        game.options[order], game.weight, game.capacity, game.private_cost[:, order], game.allowed[:, order]
    )
    start = random_choice(rng, game)
    new_name = np.argsort(order)
    found = best_response_dynamics(game, start).choice
    assert np.array_equal(best_response_dynamics(same, new_name[start]).choice, new_name[found])


@given(seeds, st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**30]))
@settings(max_examples=40, deadline=None)
def test_scaling_all_costs_changes_nothing(seed, factor):
    rng = np.random.default_rng(seed)
    game = random_game(rng)
    scaled = CongestionGame(game.options, game.weight, game.capacity / factor, game.private_cost * factor, game.allowed)
    start = random_choice(rng, game)
    found = best_response_dynamics(game, start, tolerance=0.0)
    again = best_response_dynamics(scaled, start, tolerance=0.0)
    assert np.array_equal(found.choice, again.choice)
    assert again.potential == pytest.approx(factor * found.potential, rel=1e-12)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_a_resource_in_two_equal_halves_used_together_is_the_same_game(seed):
    # r becomes two resources of half the capacity that every user loads with half its weight each
    rng = np.random.default_rng(seed)
    game = random_game(rng, resources=3, toll=0.5)
    r = int(rng.integers(3))
    twin = np.where((game.options == r).any(axis=1), 3, -1)[:, None]
    weight = np.concatenate([game.weight, game.weight[:, r : r + 1] / 2], axis=1)
    weight[:, r] /= 2
    capacity = np.append(game.capacity, game.capacity[r] / 2)
    capacity[r] /= 2
    halves = CongestionGame(
        np.concatenate([game.options, twin], axis=1), weight, capacity, game.private_cost, game.allowed, 0.5
    )
    choice = random_choice(rng, game)
    assert np.allclose(halves.costs(choice)[game.allowed], game.costs(choice)[game.allowed], rtol=1e-12)
    assert halves.potential(choice) == pytest.approx(game.potential(choice), rel=1e-12, abs=1e-12)
    found = best_response_dynamics(game, choice).choice
    assert measure_regret(halves, found) <= 1e-9


def stack(games: list[CongestionGame], live: np.ndarray) -> CongestionBatch:
    one = [g.batch() for g in games]
    parts = {
        name: np.concatenate([getattr(b, name) for b in one])
        for name in ("weight", "capacity", "private_cost", "allowed", "toll")
    }
    return CongestionBatch(options=games[0].options, live=live, **parts)


@pytest.mark.parametrize("parallel", [False, True])
def test_batch_equals_one_by_one(parallel, rng):
    table = random_game(rng, options=6, resources=4, span=2).options
    games = []
    for _ in range(8):
        g = random_game(rng, agents=7, options=6, resources=4)
        games.append(CongestionGame(table, g.weight, g.capacity, g.private_cost, g.allowed, rng.uniform(0, 1)))
    live = np.ones((8, 7), bool)
    start = np.stack([random_choice(rng, g) for g in games])
    choice = start.copy()
    sweeps = best_response_batch(stack(games, live), choice, parallel=parallel)
    for e, game in enumerate(games):
        found = best_response_dynamics(game, start[e])
        assert np.array_equal(found.choice, choice[e])
        assert found.sweeps == sweeps[e]


def test_agents_that_are_not_live_take_option_0_and_load_nothing(rng):
    game = random_game(rng, agents=9, options=5, resources=4)
    live = rng.random((1, 9)) < 0.5
    choice = random_choice(rng, game)[None]
    best_response_batch(game.batch()._replace(live=live), choice)
    assert (choice[0][~live[0]] == 0).all()
    kept = live[0]
    alone_there = CongestionGame(
        game.options, game.weight[kept], game.capacity, game.private_cost[kept], game.allowed[kept]
    )
    assert measure_regret(alone_there, choice[0][kept]) <= 1e-9


def test_bad_start():
    game = CongestionGame([[0], [1]], np.ones((2, 2)), [1.0, 1.0], np.zeros((2, 2)))
    with pytest.raises(InvalidGameError, match=re.escape("choice has shape (3,); 2 agents need (2,)")):
        best_response_dynamics(game, [0, 0, 0])
