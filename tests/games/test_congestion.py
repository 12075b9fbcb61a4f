"""The congestion game: exact potential, bad input, empty games."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from games import CongestionGame, InvalidGameError, best_response_dynamics, gibbs_equilibrium
from games.certificate import measure_regret, measure_residual
from games.reference import brute_force

sys.path.insert(0, str(Path(__file__).parent))
from conftest import random_choice, random_game


@pytest.mark.parametrize("toll", [0.0, 0.5, 1.0])
def test_potential_identity(toll, rng):
    done = 0
    while done < 10_000:
        game = random_game(rng, toll=toll, scale=10.0 ** rng.uniform(-3, 3))
        for _ in range(40):
            choice = random_choice(rng, game)
            agent = int(rng.integers(game.agents))
            after = choice.copy()
            after[agent] = rng.choice(np.flatnonzero(game.allowed[agent]))
            costs = game.costs(choice)[agent]
            gain = costs[after[agent]] - costs[choice[agent]]
            drop = game.potential(after) - game.potential(choice)
            size = abs(game.potential(after)) + abs(game.potential(choice)) + np.abs(costs[game.allowed[agent]]).max()
            assert abs(gain - drop) <= 1e-9 * max(size, 1e-300)
            done += 1


def test_potential_identity_with_a_toll_for_each_resource(rng):
    for _ in range(200):
        game = random_game(rng, resources=4)
        game = CongestionGame(
            game.options, game.weight, game.capacity, game.private_cost, game.allowed, rng.uniform(0, 2, 4)
        )
        choice = random_choice(rng, game)
        agent = int(rng.integers(game.agents))
        after = choice.copy()
        after[agent] = rng.choice(np.flatnonzero(game.allowed[agent]))
        costs = game.costs(choice)[agent]
        gain = costs[after[agent]] - costs[choice[agent]]
        assert game.potential(after) - game.potential(choice) == pytest.approx(gain, abs=1e-9)


def test_cost_is_the_definition_by_hand():
    # two agents, two servers, an opt-out: weights 1 and 2, both on server 0 of capacity 4
    game = CongestionGame([[-1], [0], [1]], [[1.0, 1.0], [2.0, 2.0]], [4.0, 1.0], [[5.0, 0.5, 0.0], [9.0, 0.0, 0.0]])
    assert np.allclose(game.costs([1, 1]), [[5.0, 0.5 + 1 * 3 / 4, 1.0], [9.0, 2 * 3 / 4, 4.0]])
    assert game.social_cost([1, 1]) == pytest.approx(9 / 4 + 0.5)
    assert game.loads([1, 1]).tolist() == [3.0, 0.0]
    assert game.regret([1, 1]) == pytest.approx(0.25)


def test_toll_one_makes_the_potential_the_social_cost(rng):
    for _ in range(100):
        game = random_game(rng, toll=1.0)
        choice = random_choice(rng, game)
        assert game.potential(choice) == pytest.approx(game.social_cost(choice), rel=1e-12)


def test_pure_equilibria_are_the_local_minima_of_the_potential(rng):
    for _ in range(30):
        game = random_game(rng, agents=4, options=3)
        _, _, equilibria = brute_force(game)
        assert equilibria
        assert tuple(best_response_dynamics(game).choice) in equilibria
        assert all(measure_regret(game, e) <= 1e-12 for e in equilibria)


GOOD = dict(options=[[-1], [0], [1]], weight=np.ones((2, 2)), capacity=[1.0, 2.0], private_cost=np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(weight=[[1.0, 1.0], [1.0, -2.0]]), "weight[1, 1] = -2.0; a weight is finite and >= 0"),
        (dict(weight=[[1.0, np.nan], [1.0, 1.0]]), "weight[0, 1] = nan; a weight is finite and >= 0"),
        (dict(weight=[1.0, 1.0]), "weight has shape (2,); it needs two axes, agents first"),
        (dict(capacity=[1.0, 0.0]), "capacity[1] = 0.0; a capacity is finite and > 0"),
        (dict(capacity=[1.0]), "capacity has shape (1,); weight has 2 resources, so (2,)"),
        (
            dict(private_cost=np.zeros((2, 2))),
            "private_cost has shape (2, 2); 2 agents and 3 options need (2, 3)",
        ),
        (
            dict(private_cost=[[0, 0, 0], [0, np.inf, 0]]),
            "private_cost[1, 1] = inf; a permitted option's cost is finite",
        ),
        (dict(options=[[-1], [0], [2]]), "options[2, 0] = 2; a resource id is -1 or 0 to 1"),
        (dict(options=[[-1], [0.5], [1]]), "options[1, 0] = 0.5; a whole number is needed"),
        (dict(options=[0, 1, -1]), "options has shape (3,); it needs two axes, options first"),
        (
            dict(options=[[0, -1], [1, 1], [0, 1]]),
            "options[1, 0] = 1; an option uses a resource at most once",
        ),
        (
            dict(allowed=[[True, True, True], [False, False, False]]),
            "allowed[1] has no option; allow at least one, such as opting out",
        ),
        (dict(allowed=[[True]]), "allowed has shape (1, 1); it must be (2, 3)"),
        (dict(toll=-0.5), "toll[0] = -0.5; a toll is finite and >= 0"),
        (dict(toll=[0.0, np.nan]), "toll[1] = nan; a toll is finite and >= 0"),
        (dict(toll=[0.0, 1.0, 2.0]), "toll has shape (3,); give one number or (2,)"),
    ],
)
def test_bad_game(change, message):
    with pytest.raises(InvalidGameError, match="^" + re.escape(message) + "$"):
        CongestionGame(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ([0], "choice has shape (1,); 2 agents need (2,)"),
        ([0, 3], "choice[1] = 3; an option is 0 to 2"),
        ([0, 0], "choice[1] = 0; that option is not allowed for this agent"),
        ([0, 1.5], "choice[1] = 1.5; a whole number is needed"),
        ([0, np.nan], "choice[1] = nan; a whole number is needed"),
    ],
)
def test_bad_choice(choice, message):
    game = CongestionGame(**GOOD, allowed=[[True, True, True], [False, True, True]])
    with pytest.raises(InvalidGameError, match="^" + re.escape(message) + "$"):
        game.costs(choice)


def test_no_agents():
    game = CongestionGame([[-1], [0]], np.zeros((0, 1)), [1.0], np.zeros((0, 2)))
    assert game.regret([]) == 0.0
    assert game.potential([]) == 0.0
    assert game.costs([]).shape == (0, 2)
    assert measure_regret(game, []) == 0.0
    found = best_response_dynamics(game)
    assert found.choice.shape == (0,)
    assert found.converged
    found = gibbs_equilibrium(game, np.zeros((0, 2)), 1.0)
    assert found.mixed.shape == (0, 2)
    assert found.converged
    assert gibbs_equilibrium(game, np.zeros((0, 2)), np.inf).choice.shape == (0,)
    assert measure_residual(game, np.zeros((0, 2)), 1.0, found.mixed) == 0.0


def test_forbidden_options_may_carry_any_private_cost():
    game = CongestionGame([[-1], [0]], [[1.0]], [1.0], [[np.nan, 0.0]], allowed=[[False, True]])
    assert best_response_dynamics(game).choice.tolist() == [1]
    assert np.isinf(game.costs([1])[0, 0])
