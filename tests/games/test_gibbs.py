"""Gibbs-prior equilibrium: fixed point, limits in trust, epsilon bound, rounding, oracle."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games import CongestionGame, InvalidGameError, gibbs_equilibrium
from games.certificate import measure_regret, measure_residual
from games.gibbs import gibbs_batch, round_batch
from games.reference import gibbs as reference_gibbs

sys.path.insert(0, str(Path(__file__).parent))
from conftest import random_game

seeds = st.integers(0, 2**32 - 1)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("trust", [0.01, 0.3, 1.0, 10.0, 100.0])
def test_fixed_point(trust, rng):
    for _ in range(60):
        game = random_game(rng, toll=rng.uniform(0, 1))
        prior = rng.uniform(-3, 0, game.private_cost.shape)
        found = gibbs_equilibrium(game, prior, trust)
        assert found.converged
        assert measure_residual(game, prior, trust, found.mixed) <= 1e-6
        assert found.residual <= 1e-6
        assert np.allclose(found.mixed.sum(axis=1), 1, atol=1e-12)
        assert (found.mixed[~game.allowed] == 0).all()


def test_fixed_point_of_a_larger_game(rng):
    game = random_game(rng, agents=80, options=12, resources=9)
    prior = rng.uniform(-3, 0, game.private_cost.shape)
    found = gibbs_equilibrium(game, prior, 2.0)
    assert measure_residual(game, prior, 2.0, found.mixed) <= 1e-6


def test_equals_the_reference_where_it_is_unique(rng):
    # with weak coupling the fixed point is unique, so two algorithms must agree
    for _ in range(20):
        game = random_game(rng)
        prior = rng.uniform(-1, 0, game.private_cost.shape)
        found = gibbs_equilibrium(game, prior, 0.05, tolerance=1e-12)
        assert np.allclose(found.mixed, reference_gibbs(game, prior, 0.05), atol=1e-9)


def test_trust_0_is_the_prior(rng):
    for _ in range(30):
        game = random_game(rng)
        prior = rng.normal(0, 3, game.private_cost.shape)
        found = gibbs_equilibrium(game, prior, 0.0)
        assert np.allclose(found.mixed, softmax(np.where(game.allowed, prior, -np.inf)), atol=1e-12)
        assert np.array_equal(found.choice, np.where(game.allowed, prior, -np.inf).argmax(axis=1))


@pytest.mark.parametrize("trust", [1e9, 1e14, np.inf])
def test_large_trust_is_a_nash_equilibrium(trust, rng):
    for _ in range(60):
        game = random_game(rng)
        prior = rng.uniform(-3, 0, game.private_cost.shape)
        found = gibbs_equilibrium(game, prior, trust, max_sweeps=200)
        assert measure_regret(game, found.choice) <= 1e-8


@pytest.mark.parametrize("trust", [0.1, 1.0, 10.0, 1e3])
def test_epsilon_bound(trust, rng):
    tight = 0.0
    for _ in range(150):
        game = random_game(rng)
        prior = rng.uniform(-4, 0, game.private_cost.shape)
        found = gibbs_equilibrium(game, prior, trust)
        allowed = np.where(game.allowed, prior, np.nan)
        bound = (np.nanmax(allowed, axis=1) - np.nanmin(allowed, axis=1)).max() / trust
        assert measure_regret(game, found.choice) <= bound + 1e-9
        tight = max(tight, found.regret / max(bound, 1e-12))
    if trust >= 1:
        # the bound is not vacuous: priors do buy regret
        assert tight > 0.1


def test_flat_prior_rounds_to_a_nash_equilibrium(rng):
    for _ in range(60):
        game = random_game(rng)
        found = gibbs_equilibrium(game, np.zeros(game.private_cost.shape), 5.0)
        assert measure_regret(game, found.choice) <= 1e-9


def test_prior_minus_infinity_forbids(rng):
    game = CongestionGame([[0], [1]], np.ones((2, 2)), [1.0, 1.0], np.zeros((2, 2)))
    found = gibbs_equilibrium(game, [[0.0, -np.inf], [0.0, 0.0]], 50.0)
    assert found.mixed[0].tolist() == [1.0, 0.0]
    assert found.choice.tolist() == [0, 1]


def test_one_agent_has_the_closed_form(rng):
    for _ in range(20):
        game = random_game(rng, agents=1, toll=1.0)
        prior = rng.uniform(-2, 0, game.private_cost.shape)
        cost = np.where(game.allowed, game.costs(np.argmax(game.allowed, axis=1)), 0.0)
        expected = softmax(np.where(game.allowed, prior - 3.0 * cost, -np.inf))
        assert np.allclose(gibbs_equilibrium(game, prior, 3.0).mixed, expected, atol=1e-12)


def test_two_symmetric_agents_have_the_closed_form():
    # p = 1 / (1 + exp(trust (2p - 1) w^2 / C)) has the root 1/2 alone while trust w^2 / C < 2
    game = CongestionGame([[0], [1]], np.ones((2, 2)), [1.0, 1.0], np.zeros((2, 2)))
    assert np.allclose(gibbs_equilibrium(game, np.zeros((2, 2)), 1.5).mixed, 0.5, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_scale(scale, rng):
    for _ in range(30):
        game = random_game(rng, agents=15, options=5, resources=4, scale=scale)
        prior = rng.uniform(-3, 0, game.private_cost.shape)
        found = gibbs_equilibrium(game, prior, 3.0 / scale)
        assert measure_residual(game, prior, 3.0 / scale, found.mixed) <= 1e-6


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_invariance(seed):
    """Permuting agents, renaming options, scaling costs: weak coupling, so the answer is unique."""
    rng = np.random.default_rng(seed)
    game = random_game(rng)
    prior = rng.uniform(-2, 0, game.private_cost.shape)
    trust = 0.1
    mixed = gibbs_equilibrium(game, prior, trust, tolerance=1e-12).mixed
    who, what = rng.permutation(game.agents), rng.permutation(len(game.options))
    same = CongestionGame(
        game.options[what], game.weight[who], game.capacity / 8, 8 * game.private_cost[who][:, what],
        game.allowed[who][:, what],
    )  # fmt: skip
    again = gibbs_equilibrium(same, prior[who][:, what] - 5.0, trust / 8, tolerance=1e-12).mixed
    assert np.allclose(again, mixed[who][:, what], atol=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_two_equal_halves_with_equal_load(seed):
    # the option to use server r becomes two options, on two servers of half the capacity, and agents keep
    # half the weight on each: with half the prior on each the two halves are used alike
    rng = np.random.default_rng(seed)
    n, k = 5, 3
    weight = np.repeat(rng.uniform(0.2, 1.0, (n, 1)), k, axis=1)
    private = rng.uniform(0, 1, (n, k))
    prior = rng.uniform(-1, 0, (n, k))
    capacity = rng.uniform(1, 2, k)
    split = CongestionGame(
        [[0], [1], [2], [3]], np.append(weight, weight[:, :1], axis=1), np.append(capacity, capacity[0]),
        np.append(private, private[:, :1], axis=1),
    )  # fmt: skip
    mixed = gibbs_equilibrium(split, np.append(prior, prior[:, :1], axis=1), 0.3, tolerance=1e-12).mixed
    assert np.allclose(mixed[:, 0], mixed[:, 3], atol=1e-9)


@pytest.mark.parametrize("parallel", [False, True])
def test_batch_equals_one_by_one(parallel, rng):
    table = random_game(rng, options=6, resources=4, span=2).options
    shape = (5, 7, 6)
    weight, private = rng.uniform(0, 1, (5, 7, 4)), rng.uniform(0, 2, shape)
    capacity, toll = rng.uniform(1, 2, (5, 4)), rng.uniform(0, 1, (5, 4))
    allowed = rng.random(shape) < 0.8
    allowed[..., 0] = True
    prior = rng.uniform(-2, 0, shape)
    from games.congestion import CongestionBatch

    live = np.ones((5, 7), bool)
    live[2, 3] = False
    batch = CongestionBatch(table, weight, capacity, private, allowed, live, toll)
    mixed = np.full(shape, 1 / 6)
    costs = np.empty(shape)
    gibbs_batch(batch, prior, 2.0, mixed, costs, 1e-9, 500, parallel=parallel)
    choice = round_batch(batch, prior, 2.0, costs, parallel=parallel)
    assert mixed[2, 3].tolist() == [1, 0, 0, 0, 0, 0]
    assert choice[2, 3] == 0
    assert (costs[2, 3] == 0).all()
    for e in range(5):
        on = live[e]
        game = CongestionGame(table, weight[e][on], capacity[e], private[e][on], allowed[e][on], toll[e])
        assert measure_residual(game, prior[e][on], 2.0, mixed[e][on]) <= 1e-6
        bound = np.ptp(prior[e][on], axis=1).max() / 2.0
        assert measure_regret(game, choice[e][on]) <= bound


def test_warm_start_needs_fewer_sweeps(rng):
    game = random_game(rng, agents=40, options=8, resources=6)
    prior = rng.uniform(-2, 0, game.private_cost.shape)
    cold = gibbs_equilibrium(game, prior, 1.0)
    warm = gibbs_equilibrium(game, prior, 1.0, start=cold.mixed)
    assert warm.sweeps <= 2 < cold.sweeps


def test_any_memory_layout_of_the_start(rng):
    game = random_game(rng, agents=6, options=4, resources=3)
    prior = rng.uniform(-1, 0, (1, 6, 4))
    plain, costs = np.full((1, 6, 4), 0.25), np.empty((1, 6, 4))
    turned = np.full((1, 4, 6), 0.25).transpose(0, 2, 1)
    gibbs_batch(game.batch(), prior, 1.0, plain, costs)
    gibbs_batch(game.batch(), prior, 1.0, turned, costs)
    assert np.array_equal(plain, turned)


@pytest.mark.parametrize("sweeps", [1, 3, 4, 5, 8, 300])
def test_costs_are_those_at_the_answer_wherever_it_stops(sweeps, rng):
    # weak own parts: price passes come in after three sweeps
    n, k = 60, 6
    game = CongestionGame(
        np.arange(k)[:, None], rng.uniform(0.5, 1.5, (n, k)), np.full(k, n / k), rng.uniform(0, 1, (n, k))
    )
    prior = rng.uniform(-2, 0, (1, n, k))
    mixed, costs = np.full((1, n, k), 1 / k), np.empty((1, n, k))
    gibbs_batch(game.batch(), prior, 5.0, mixed, costs, 1e-9, sweeps)
    used = mixed[0] * game.weight
    expected = game.private_cost + game.weight * (game.weight + used.sum(axis=0) - used) / game.capacity
    assert np.allclose(costs[0], expected, rtol=1e-12)


def test_price_passes_save_sweeps_and_end_at_the_same_answer(rng):
    n, k = 300, 18
    game = CongestionGame(
        np.arange(k)[:, None], rng.uniform(0.5, 1.5, (n, k)), np.full(k, n / k), rng.uniform(0, 1, (n, k))
    )
    prior = rng.uniform(-2, 0, (n, k))
    found = gibbs_equilibrium(game, prior, 10.0)
    assert found.converged
    assert found.sweeps < 60  # sweeps alone take over 100
    assert measure_residual(game, prior, 10.0, found.mixed) <= 1e-6


def test_against_the_convex_programme(rng):
    # with the slope of its concave part given, the equilibrium is the unique optimum of a convex programme
    n, k, trust = 12, 4, 6.0
    game = CongestionGame(
        np.arange(k)[:, None], rng.uniform(0.5, 1.5, (n, k)), np.full(k, n / k), rng.uniform(0, 1, (n, k)), toll=0.5
    )
    prior = rng.uniform(-2, 0, (n, k))
    mixed = gibbs_equilibrium(game, prior, trust, tolerance=1e-11).mixed
    s = cp.Variable((n, k), nonneg=True)
    own = game.weight**2 / game.capacity
    linear = game.private_cost + own - own * 1.5 * mixed - prior / trust
    load = cp.sum(cp.multiply(game.weight, s), axis=0)
    energy = cp.sum(cp.multiply(1.5 / (2 * game.capacity), cp.square(load))) + cp.sum(cp.multiply(linear, s))
    cp.Problem(cp.Minimize(energy - cp.sum(cp.entr(s)) / trust), [cp.sum(s, axis=1) == 1]).solve(solver="CLARABEL")
    assert np.allclose(s.value, mixed, atol=1e-4)


def test_limit_is_reported(rng):
    game = random_game(rng, agents=40, options=8, resources=6)
    found = gibbs_equilibrium(game, np.zeros(game.private_cost.shape), 3.0, max_sweeps=1)
    assert not found.converged
    assert found.status.startswith("stopped after 1 sweeps, residual ")


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        (dict(log_prior=np.zeros((2, 3))), "log_prior has shape (2, 3); the game needs (2, 2)"),
        (dict(log_prior=[[0, np.nan], [0, 0]]), "log_prior[0, 1] = nan; it must be < inf"),
        (dict(log_prior=[[0, 0], [np.inf, 0]]), "log_prior[1, 0] = inf; it must be < inf"),
        (dict(trust=-1.0), "trust = -1.0; it must be >= 0 (0 is the prior, inf the game alone)"),
        (dict(trust=np.nan), "trust = nan; it must be >= 0 (0 is the prior, inf the game alone)"),
        (
            dict(log_prior=[[0, 0], [-np.inf, -np.inf]]),
            "log_prior[1] forbids every allowed option; leave at least one finite",
        ),
        (dict(start=np.full((1, 2), 0.5)), "start has shape (1, 2); the game needs (2, 2)"),
        (dict(start=[[0.5, 0.5], [-0.5, 1.5]]), "start[1, 0] = -0.5; a probability is >= 0"),
        (dict(start=[[0.5, 0.5], [0.5, 0.0]]), "start[1] sums to 0.5; probabilities sum to 1"),
    ],
)
def test_bad_input(kw, message):
    game = CongestionGame([[0], [1]], np.ones((2, 2)), [1.0, 1.0], np.zeros((2, 2)))
    with pytest.raises(InvalidGameError, match="^" + re.escape(message) + "$"):
        gibbs_equilibrium(game, **{"log_prior": np.zeros((2, 2)), "trust": 1.0, **kw})
