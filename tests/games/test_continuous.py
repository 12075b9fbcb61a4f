"""Interference, power control and quadratic games: against closed forms, cvxpy and brute force."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games import InvalidGameError
from games.certificate_convex import measure_kkt
from games.interference import iterative_water_filling, welfare_response
from games.power_control import foschini_miljanic
from games.quadratic import QuadraticGame, reference_equilibrium, variational_equilibrium
from games.water_filling import water_filling

seeds = st.integers(0, 2**32 - 1)


def weak_gains(rng, n, k):
    G = rng.uniform(0, 0.5 / n, (n, n, k))
    G[np.arange(n), np.arange(n)] = rng.uniform(0.8, 1.2, (n, k))
    return G


# ---- interference -----------------------------------------------------------------------------------


def test_water_filling_alone_is_water_filling(rng):
    g = rng.uniform(0.5, 2, 5)
    found = iterative_water_filling(g[None, None], 0.3, [2.0])
    assert np.allclose(found.power, water_filling(g[None] / 0.3, [2.0]).power)
    assert found.rate[0] == pytest.approx(np.log1p(g * found.power[0] / 0.3).sum())


def test_iterative_water_filling_is_an_equilibrium(rng):
    for _ in range(20):
        n, k = int(rng.integers(2, 7)), int(rng.integers(1, 6))
        G, P, noise = weak_gains(rng, n, k), rng.uniform(0.5, 2, n), rng.uniform(0.1, 0.5, (n, k))
        found = iterative_water_filling(G, noise, P)
        assert found.weak
        assert found.converged
        for i in range(n):
            met = noise[i] + sum(G[j, i] * found.power[j] for j in range(n) if j != i)
            best = water_filling((G[i, i] / met)[None], [P[i]])
            assert found.rate[i] >= best.rate[0] - 1e-9
        again = iterative_water_filling(G, noise, P, start=np.outer(P, np.ones(k)) / k, damping=0.3)
        assert np.allclose(again.power, found.power, atol=1e-7)


def test_two_users_two_channels_separate():
    # strong interference: each keeps to the channel where it is better
    G = np.full((2, 2, 2), 5.0)
    G[0, 0], G[1, 1] = [1.0, 0.1], [0.1, 1.0]
    found = iterative_water_filling(G, 0.01, [1.0, 1.0])
    assert found.converged
    assert not found.weak
    assert np.allclose(found.power, np.eye(2), atol=1e-9)


def test_limit_of_sweeps_is_reported(rng):
    found = iterative_water_filling(weak_gains(rng, 5, 4), 0.1, np.ones(5), max_sweeps=1)
    assert not found.converged
    assert found.status.startswith("stopped after 1 sweeps, residual ")


def welfare_by_hand(G, noise, p, w, choice):
    total = 0.0
    for i, c in enumerate(choice):
        if c >= 0:
            heard = noise + sum(G[j, i] * p[j] for j in range(len(p)) if j != i and choice[j] == c)
            total += w[i] * np.log(1 + G[i, i] * p[i] / heard)
    return total


def test_welfare_response_never_lowers_welfare_and_ends_where_no_change_helps(rng):
    for _ in range(30):
        n, channels = int(rng.integers(1, 7)), int(rng.integers(1, 4))
        G = rng.lognormal(-1, 1, (n, n))
        p, w = rng.uniform(0.1, 1, n), rng.uniform(0.5, 2, n)
        found = welfare_response(G, 0.1, p, channels, weight=w, start=rng.integers(-1, channels, n))
        assert found.converged
        assert (np.diff(found.trace) >= -1e-12).all()
        assert found.welfare == pytest.approx(welfare_by_hand(G, 0.1, p, w, found.choice))
        for i, c in itertools.product(range(n), range(-1, channels)):
            other = found.choice.copy()
            other[i] = c
            assert welfare_by_hand(G, 0.1, p, w, other) <= found.welfare + 1e-9


def test_welfare_response_finds_the_optimum_of_an_easy_game():
    # orthogonal channels for two loud neighbours
    found = welfare_response([[1.0, 9.0], [9.0, 1.0]], 0.1, [1.0, 1.0], 2)
    assert sorted(found.choice.tolist()) == [0, 1]
    silent = welfare_response([[1.0, 9.0], [9.0, 1.0]], 0.1, [1.0, 1.0], 2, allowed=[[True, False], [True, False]])
    assert sorted(silent.choice.tolist()) == [-1, 0]


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_interference_invariance(seed):
    rng = np.random.default_rng(seed)
    n, k = 4, 3
    G, P = weak_gains(rng, n, k), rng.uniform(0.5, 2, n)
    found = iterative_water_filling(G, 0.2, P)
    who, what = rng.permutation(n), rng.permutation(k)
    # powers in a unit eight times smaller
    again = iterative_water_filling(G[who][:, who][:, :, what] / 8, 0.2, 8 * P[who])
    assert np.allclose(again.power, 8 * found.power[who][:, what], atol=1e-6)
    # each channel in two halves, at twice the budget
    halves = iterative_water_filling(np.tile(G, 2), 0.2, 2 * P)
    assert np.allclose(halves.power[:, :k], found.power, atol=1e-6)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.ones((2, 3, 1)), 1.0, [1, 1]), "gain has shape (2, 3, 1); it is (N, N, K)"),
        ((np.zeros((1, 1, 1)), 1.0, [1]), "own gain[0, 0] = 0.0; a user's own gain is > 0"),
        ((-np.ones((1, 1, 1)), 1.0, [1]), "gain[0, 0, 0] = -1.0; a gain is finite and >= 0"),
        ((np.ones((1, 1, 1)), 0.0, [1]), "noise[0, 0] = 0.0; noise is finite and > 0"),
        ((np.ones((1, 1, 1)), 1.0, [np.nan]), "budget[0] = nan; a budget is finite and >= 0"),
        ((np.ones((1, 1, 1)), 1.0, [1, 1]), "budget has shape (2,); 1 users need (1,)"),
    ],
)
def test_interference_bad_input(args, message):
    with pytest.raises(InvalidGameError, match="^" + re.escape(message)):
        iterative_water_filling(*args)


# ---- power control ----------------------------------------------------------------------------------


def test_power_control_is_the_linear_solution(rng):
    for _ in range(30):
        n = int(rng.integers(1, 8))
        G = rng.uniform(0, 0.3 / n, (n, n)) + np.diag(rng.uniform(0.8, 1.2, n))
        gamma, noise = rng.uniform(0.2, 1.5, n), rng.uniform(0.01, 0.1, n)
        found = foschini_miljanic(G, noise, gamma, np.full(n, np.inf))
        assert found.status == "optimal"
        assert np.allclose(found.sinr, gamma, rtol=1e-9)
        # least: anything less breaks its own floor
        less = found.power * 0.999
        assert (np.diag(G) * less / (noise + G.T @ less - np.diag(G) * less) < gamma).all()
        tight = foschini_miljanic(G, noise, gamma, found.power)
        assert tight.status == "optimal"
        assert tight.margin == pytest.approx(1.0)


def test_power_control_updates_converge_to_it(rng):
    n = 5
    G = rng.uniform(0, 0.05, (n, n)) + np.eye(n)
    gamma = rng.uniform(0.5, 2, n)
    found = foschini_miljanic(G, 0.1, gamma, np.full(n, 0.05))
    # limits bind: the fixed point of min(F p + b, limit)
    F = gamma[:, None] * G.T / np.diag(G)[:, None]
    np.fill_diagonal(F, 0)
    b = gamma * 0.1 / np.diag(G)
    assert np.allclose(found.power, np.minimum(F @ found.power + b, 0.05), rtol=1e-8)
    assert found.margin < 1
    assert not found.served.all()
    assert found.status.startswith("infeasible: limits, floors could be met at ")
    # the margin is exact: at that height they can be met, a little higher not
    assert foschini_miljanic(G, 0.1, gamma * found.margin * 0.9999, np.full(n, 0.05)).status == "optimal"
    assert foschini_miljanic(G, 0.1, gamma * found.margin * 1.0001, np.full(n, 0.05)).status != "optimal"


def test_power_control_verdict_without_limits():
    # two users at equal distance: floors multiply to more than 1
    found = foschini_miljanic(np.ones((2, 2)), 0.1, [1.0, 1.5], [np.inf, np.inf])
    assert found.radius == pytest.approx(np.sqrt(1.5))
    assert found.status == "infeasible: spectral radius 1.225 >= 1, no powers meet all floors"
    assert found.margin == pytest.approx(1 / np.sqrt(1.5))
    capped = foschini_miljanic(np.ones((2, 2)), 0.1, [1.0, 1.5], [1.0, 1.0])
    assert capped.power == pytest.approx([1.0, 1.0])
    assert not capped.served.any()


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_power_control_invariance(seed):
    rng = np.random.default_rng(seed)
    n = 5
    G = rng.uniform(0, 0.05, (n, n)) + np.eye(n)
    gamma = rng.uniform(0.5, 2, n)
    found = foschini_miljanic(G, 0.1, gamma, np.full(n, np.inf))
    who = rng.permutation(n)
    again = foschini_miljanic(G[who][:, who] / 4, 0.3, gamma[who], np.full(n, np.inf))
    assert np.allclose(again.power, 12 * found.power[who], rtol=1e-8)


def test_power_control_bad_input():
    with pytest.raises(InvalidGameError, match=re.escape("floor[0] = -1.0; a floor is finite and >= 0")):
        foschini_miljanic([[1.0]], 1.0, [-1.0], [1.0])
    with pytest.raises(InvalidGameError, match=re.escape("limit[0] = 0.0; a limit is > 0")):
        foschini_miljanic([[1.0]], 1.0, [1.0], [0.0])
    with pytest.raises(InvalidGameError, match=re.escape("own gain[1] = 0.0; a user's own gain is > 0")):
        foschini_miljanic([[1.0, 0.0], [0.0, 0.0]], 1.0, [1.0, 1.0], [1.0, 1.0])
    with pytest.raises(InvalidGameError, match=re.escape("gain has shape (1, 2); it is (N, N)")):
        foschini_miljanic([[1.0, 1.0]], 1.0, [1.0], [1.0])
    assert foschini_miljanic(np.zeros((0, 0)), 1.0, [], []).status == "optimal"


# ---- quadratic games --------------------------------------------------------------------------------


def monotone_game(rng, d, m, skew=1.0):
    B, S = rng.normal(size=(d, d)), rng.normal(size=(d, d))
    J = B @ B.T / d + 0.1 * np.eye(d) + skew * (S - S.T) / 2
    A = rng.normal(size=(m, d))
    return QuadraticGame(J, rng.normal(size=d) * 3, -np.ones(d), np.ones(d), A, rng.uniform(0, 1, m))


def test_variational_equilibrium_against_cvxpy(rng):
    for trial in range(40):
        d, m = int(rng.integers(1, 13)), int(rng.integers(0, 5))
        game = monotone_game(rng, d, m, skew=trial % 3)
        found = variational_equilibrium(game)
        assert found.status == "converged"
        assert measure_kkt(game, found.x, found.multiplier) <= 1e-8
        x, price = reference_equilibrium(game)
        assert np.allclose(found.x, x, atol=1e-4)
        assert measure_kkt(game, x, price) <= 1e-5


def test_cournot_with_a_shared_capacity():
    # price a - sum x, cost c x: alone x = (a - c) / (n + 1); a shared limit below that is split evenly
    n, a, c = 4, 10.0, 2.0
    J = np.ones((n, n)) + np.eye(n)
    free = variational_equilibrium(QuadraticGame(J, np.full(n, c - a), 0.0, np.inf))
    assert free.x == pytest.approx([(a - c) / (n + 1)] * n)
    held = variational_equilibrium(QuadraticGame(J, np.full(n, c - a), 0.0, np.inf, np.ones((1, n)), [2.0]))
    assert held.x == pytest.approx([0.5] * n)
    assert held.multiplier == pytest.approx([a - c - 2.0 - 0.5])


def test_no_player_gains_given_the_others(rng):
    # each coordinate one player: at the equilibrium its own cost plus priced limits is least
    game = monotone_game(rng, 6, 3)
    found = variational_equilibrium(game)
    for d in range(6):
        grid = np.linspace(game.lower[d], game.upper[d], 2001)
        own = game.jacobian[d, d]
        rest = game.gradient(found.x)[d] - own * found.x[d] + game.constraint[:, d] @ found.multiplier
        cost = 0.5 * own * grid**2 + rest * grid
        here = 0.5 * own * found.x[d] ** 2 + rest * found.x[d]
        assert here <= cost.min() + 1e-6


def test_rotation_field_is_monotone_without_a_potential():
    # J antisymmetric: gradient play circles for ever, the equilibrium is the origin's shift
    game = QuadraticGame([[0.0, 1.0], [-1.0, 0.0]], [-0.3, 0.2], -1.0, 1.0)
    found = variational_equilibrium(game)
    assert game.monotonicity() == pytest.approx(0.0)
    assert found.x == pytest.approx([0.2, 0.3], abs=1e-6)


def test_infeasible_limits_say_by_how_much():
    game = QuadraticGame(np.eye(2), np.zeros(2), 0.0, 1.0, [[-1.0, -1.0]], [-3.0])
    found = variational_equilibrium(game, max_iterations=500)
    assert found.status == "infeasible"
    assert found.shortfall == pytest.approx(1.0)


def test_not_monotone_is_said():
    game = QuadraticGame([[-1.0, 3.0], [3.0, -1.0]], [0.1, 0.2], -np.inf, np.inf)
    assert game.monotonicity() == pytest.approx(-4.0)
    found = variational_equilibrium(game, max_iterations=200)
    assert found.monotone == pytest.approx(-4.0)
    assert found.converged or found.status.startswith("not monotone (smallest eigenvalue -4)")


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_quadratic_invariance(seed):
    rng = np.random.default_rng(seed)
    game = monotone_game(rng, 5, 2)
    found = variational_equilibrium(game)
    who = rng.permutation(5)
    same = QuadraticGame(
        8 * game.jacobian[who][:, who], 8 * game.linear[who], game.lower[who], game.upper[who],
        game.constraint[:, who] * 3, game.limit * 3,
    )  # fmt: skip
    again = variational_equilibrium(same)
    assert np.allclose(again.x, found.x[who], atol=1e-5)
    assert np.allclose(again.multiplier, found.multiplier * 8 / 3, atol=1e-3 * (1 + found.multiplier.max()))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.ones((2, 3)), [0, 0], 0, 1), "jacobian has shape (2, 3); it is square, (D, D)"),
        (([[1.0]], [0, 0], 0, 1), "linear has shape (2,); jacobian needs (1,)"),
        (([[np.nan]], [0], 0, 1), "jacobian[0, 0] = nan; it is finite"),
        (([[1.0]], [0], 2, 1), "upper[0] = 1.0; it is at least the lower bound"),
        (
            ([[1.0]], [0], 0, 1, [[1.0]], [1.0, 2.0]),
            "constraint has shape (1, 1) and limit (2,); they are (M, 1), (M,)",
        ),
    ],
)
def test_quadratic_bad_input(args, message):
    with pytest.raises(InvalidGameError, match="^" + re.escape(message) + "$"):
        QuadraticGame(*args)
