"""Units and origins: what is found does not depend on the unit that a player's payoffs or costs are in."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from coordinator.robust import Robust, maximin
from games import (
    CongestionGame,
    InvalidGameError,
    InvalidStateError,
    QuadraticGame,
    best_response_candidates,
    best_response_dynamics,
    candidate_lists,
    congestion_leader,
    eisenberg_gale,
    foschini_miljanic,
    gibbs_equilibrium,
    joint_shares,
    market_leader,
    price_of_anarchy,
    route,
    social_optimum,
    variational_equilibrium,
    welfare_response,
)
from games.brute_force import brute_force
from games.exact import exact_equilibrium
from games.fictitious_play import fictitious_play
from games.normal_form import equilibria, regret, zero_sum
from games.q_learning import minimax_q
from games.quadratic import misfit, reference_equilibrium
from games.replicator import replicator
from games.stochastic_game import StochasticGame, shapley_values

sys.path.insert(0, str(Path(__file__).parent))
from test_normal_form import PUBLISHED, same

seeds = st.integers(0, 2**32 - 1)
SCALES = [(1e10, 1e10), (1e-9, 1e-9), (1e-12, 1e12), (1e12, 1e-12), (1e-300, 1.0), (1.0, 1e300), (5e-310, 1e305)]


def exact_gains(A, B, x, y):
    """Both players' best gains from the definition in rational arithmetic, each in its own range."""
    out = []
    for payoff, own, other in ((A, x, y), (np.transpose(B), y, x)):
        cell = [[Fraction(float(v)) for v in row] for row in payoff]
        mine, theirs = ([Fraction(float(v)) for v in z] for z in (own, other))
        mine, theirs = ([v / sum(z) for v in z] for z in (mine, theirs))
        reply = [sum(c * t for c, t in zip(row, theirs, strict=True)) for row in cell]
        span = max(max(row) for row in cell) - min(min(row) for row in cell)
        gain = max(reply) - sum(m * r for m, r in zip(mine, reply, strict=True))
        out.append(float(gain / span) if span else 0.0)
    return out


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_games_in_any_unit(name, scales):
    A, B, expected = PUBLISHED[name]
    A, B = np.array(A, float) * scales[0], np.array(B, float) * scales[1]
    found = list(equilibria(A, B, budget_s=60))
    assert len(found) == len(expected)
    assert same(found, expected, 1e-4 if "penalty" in name else 1e-6)
    for x, y, gain in found:
        assert max(exact_gains(A, B, x, y)) <= 1e-8
        assert gain == regret(A, B, x, y)


@pytest.mark.parametrize("offsets", [(1e9, 0.0), (0.0, -1e9), (1e9, 3e8)])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_games_from_any_origin(name, offsets):
    """Only those whose payoffs float64 holds after the move: whole numbers."""
    A, B, expected = PUBLISHED[name]
    A, B = np.array(A, float), np.array(B, float)
    if not np.array_equal(np.round([A, B] if A.shape == B.shape else A), [A, B] if A.shape == B.shape else A):
        return
    found = list(equilibria(A + offsets[0], B + offsets[1], budget_s=60))
    assert len(found) == len(expected)
    assert same(found, expected)


@given(seeds, st.floats(-12, 12), st.floats(-12, 12))
@settings(max_examples=60, deadline=None)
def test_equilibria_are_the_same_under_each_players_own_affine_map(seed, first, second):
    rng = np.random.default_rng(seed)
    m, k = rng.integers(1, 5, 2)
    A, B = rng.random((2, m, k)) if seed % 2 else rng.integers(0, 4, (2, m, k)).astype(float)
    plain = list(equilibria(A, B, budget_s=60))
    # powers of two and a move by whole units keep ties ties
    a, b = 2.0 ** np.round(first / np.log10(2)), 2.0 ** np.round(second / np.log10(2))
    shift = rng.integers(-1000, 1000, 2) * 1024.0 if not seed % 2 else np.zeros(2)
    scaled = list(equilibria(a * (A + shift[0]), b * (B + shift[1]), budget_s=60))
    assert len(scaled) == len(plain)
    assert same(scaled, [(x, y) for x, y, _ in plain])
    for x, y, _ in scaled:
        assert max(exact_gains(a * (A + shift[0]), b * (B + shift[1]), x, y)) <= 1e-8


def test_no_false_equilibria_beside_a_huge_payoff():
    """At the second column the rows differ by 1: next to nothing of the range, but all that is at stake there."""
    for big in (1e6, 1e9, 1e11):
        A, B = np.array([[big, 0.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
        [(x, y, _)] = equilibria(A, B, budget_s=60)
        assert x == pytest.approx([0.5, 0.5], rel=1e-9)
        assert y == pytest.approx([1 / (1 + big), big / (1 + big)], rel=1e-6)


def test_lost_digits_are_said():
    A = np.array([[1.0, -1.0], [-1.0, 1.0]])
    with pytest.warns(RuntimeWarning, match="^A is from 999.*float64 holds steps of 1.2e-07"):
        list(equilibria(1e9 + 1e-3 * A, -A))
    with pytest.warns(RuntimeWarning, match="^B is from"):
        list(equilibria(A, 1e9 - 1e-3 * A))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(equilibria(1e9 + A, -1e12 * A))
        zero_sum(1e9 + 1000 * A)


@pytest.mark.parametrize(
    ("A", "value"),
    [
        ([[1e9, 0], [0, 1]], Fraction(10**9, 10**9 + 1)),
        ([[1e15, 0], [0, 1]], Fraction(10**15, 10**15 + 1)),
        ([[1e150, 0], [0, 1e-150]], Fraction(1, 10**150)),
        ([[1e9, -1], [-1, 1]], Fraction(10**9 - 1, 10**9 + 3)),
        ([[0, 2e-12], [1e-12, -1e-12]], Fraction(1, 2 * 10**12)),
        ([[1.5e308, -1.5e308], [-1.5e308, 1.5e308]], Fraction(0)),
        ([[1e9 + 3, 1e9 - 1], [1e9 - 2, 1e9 + 4]], Fraction(10**9 + 1)),
        ([[5e-324]], Fraction(5e-324)),
    ],
)
def test_zero_sum_values_in_closed_form(A, value):
    """A 2 x 2 game without a saddle point is worth (ad - bc) / (a + d - b - c)."""
    found = zero_sum(A)
    assert found.converged
    assert found.value == pytest.approx(float(value), rel=1e-9, abs=1e-308)
    turned = zero_sum(-np.transpose(A))
    assert turned.value == pytest.approx(-float(value), rel=1e-9, abs=1e-308)


@given(seeds, st.floats(-12, 12))
@settings(max_examples=40, deadline=None)
def test_zero_sum_in_any_unit_against_scipy(seed, power):
    rng = np.random.default_rng(seed)
    m, k = rng.integers(1, 9, 2)
    U = rng.random((m, k))
    theirs = linprog(
        np.append(np.zeros(m), -1), np.append(-U.T, np.ones((k, 1)), 1), np.zeros(k),
        np.append(np.ones((1, m)), [[0]], 1), [1], bounds=[(0, None)] * m + [(None, None)],
    )  # fmt: skip
    for scale, offset in ((10.0**power, 0.0), (1.0, 1e3), (10.0**power, -7 * 10.0**power)):
        found = zero_sum(scale * U + offset)
        assert (found.value - offset) / scale == pytest.approx(-theirs.fun, abs=1e-9)
        assert found.regret <= 1e-9 * scale


def test_exact_equilibria_of_random_games_leave_nothing_to_gain(rng):
    for trial in range(200):
        m, k = rng.integers(1, 7, 2)
        A, B = rng.normal(size=(2, m, k)) if trial % 2 else rng.integers(0, 3, (2, m, k)).astype(float)
        A, B = A * 10.0 ** rng.uniform(-200, 200), B * 10.0 ** rng.uniform(-5, 5, k)
        x, y = exact_equilibrium(A, B)
        assert max(exact_gains(A, B, x, y)) <= 1e-15
    assert exact_equilibrium(A, B, deadline=0.0) is None


@pytest.mark.parametrize(("name", "value"), [("budget_s", -1.0), ("budget_s", np.nan), ("tolerance", -1e-9)])
def test_bad_limits(name, value):
    with pytest.raises(InvalidGameError, match=rf"^{name} = {value}; it is >= 0$"):
        equilibria([[1.0]], [[1.0]], **{name: value})


# ---- the other games and convex problems -------------------------------------------------------------

FACTORS = [1e-150, 1e-30, 1e-12, 1e-6, 1e6, 1e12, 1e30, 1e150]


def game_of(rng, agents=5):
    return CongestionGame(
        [[-1], [0], [1]], rng.uniform(0.5, 1, (agents, 2)), [1.0, 2.0], rng.uniform(0, 2, (agents, 3))
    )


def in_unit(game, unit):
    """The same game, costs in another unit."""
    return replace(game, private_cost=game.private_cost * unit, capacity=game.capacity / unit)


@pytest.mark.parametrize("unit", FACTORS)
def test_congestion_games_in_any_unit_of_cost(unit, rng):
    for _ in range(3):
        game = game_of(rng)
        other = in_unit(game, unit)
        plain, scaled = best_response_dynamics(game), best_response_dynamics(other)
        assert scaled.converged
        assert np.array_equal(scaled.choice, plain.choice)
        _, least, pure = brute_force(game)
        assert brute_force(other)[2] == pure
        assert tuple(scaled.choice.tolist()) in pure
        best = social_optimum(other)
        assert best.converged
        assert best.social_cost == pytest.approx(least * unit, rel=1e-6)
        assert best.bound <= best.social_cost
        assert price_of_anarchy(other).equilibria == len(pure)
        lists = candidate_lists(other, 2)
        short = best_response_candidates(other, lists)
        assert short.converged
        assert tuple(short.choice.tolist()) in pure
        prior = np.log(rng.dirichlet(np.ones(3), 5))
        mixed, same_mix = gibbs_equilibrium(game, prior, 2.0), gibbs_equilibrium(other, prior, 2.0 / unit)
        assert same_mix.converged
        assert np.allclose(same_mix.mixed, mixed.mixed, atol=1e-6)
        for objective in ("revenue", "welfare"):
            ours = congestion_leader(other, most_fee=unit, objective=objective)
            theirs = congestion_leader(game, most_fee=1.0, objective=objective)
            assert ours.value == pytest.approx(theirs.value * unit, rel=1e-6)
            assert ours.regret <= 1e-7 * unit


@pytest.mark.parametrize("offset", [1e6, 1e9, 1e16, -1e16])
def test_a_constant_in_an_agents_costs_moves_nobody(offset, rng):
    """At 1e16 float64 holds steps of 2: private costs that are whole and even stay what they are."""
    for _ in range(20):
        game = CongestionGame(
            [[-1], [0], [1]], rng.integers(1, 4, (5, 2)), [1.0, 2.0], 2.0 * rng.integers(0, 8, (5, 3))
        )
        moved = replace(game, private_cost=game.private_cost + offset)
        found = best_response_dynamics(moved)
        assert found.converged
        assert found.regret == moved.regret(found.choice) == pytest.approx(game.regret(found.choice), abs=1e-12)
        assert tuple(found.choice.tolist()) in brute_force(game)[2]
        prior = np.log(rng.dirichlet(np.ones(3), 5))
        plain, mixed = gibbs_equilibrium(game, prior, 0.5), gibbs_equilibrium(moved, prior, 0.5)
        assert np.allclose(mixed.mixed, plain.mixed, atol=1e-9)
        assert np.array_equal(mixed.choice, plain.choice)
        short = best_response_candidates(moved, candidate_lists(moved, 2), rounds=0, check=False)
        assert np.array_equal(short.choice, best_response_candidates(game, candidate_lists(game, 2), rounds=0).choice)


def test_costs_beyond_float64_are_not_called_converged():
    game = CongestionGame([[0], [1]], [[1e200, 1.0], [1e200, 1e200]], [1.0, 1.0], np.zeros((2, 2)))
    with np.errstate(all="ignore"):
        found = best_response_dynamics(game, [0, 1])
    assert not found.converged
    assert found.status.startswith("costs leave float64: agent 1 may gain")
    with pytest.raises(InvalidGameError, match="make a cost of inf"), np.errstate(all="ignore"):
        social_optimum(game)


@pytest.mark.parametrize("unit", FACTORS)
def test_channels_do_not_depend_on_the_unit_of_welfare(unit, rng):
    gain = rng.uniform(0, 0.1, (6, 6)) + np.eye(6)
    plain = welfare_response(gain, 0.1, np.ones(6), 2)
    scaled = welfare_response(gain, 0.1, np.ones(6), 2, weight=np.full(6, unit))
    assert np.array_equal(scaled.choice, plain.choice)
    assert scaled.welfare == pytest.approx(plain.welfare * unit)
    assert (np.diff(scaled.trace) >= -1e-12 * scaled.welfare).all()


@pytest.mark.parametrize("unit", FACTORS)
def test_leaders_price_in_any_unit(unit, rng):
    w, a = rng.uniform(0.5, 2, (2, 6))
    plain = market_leader(w, a, 3.0, 0.2)
    money, goods = market_leader(w * unit, a, 3.0, 0.2 * unit), market_leader(w, a / unit, 3.0 * unit, 0.2 / unit)
    assert money.profit == pytest.approx(plain.profit * unit, rel=1e-9)
    assert goods.profit == pytest.approx(plain.profit, rel=1e-9)
    assert goods.clearing == pytest.approx(plain.clearing / unit, rel=1e-9)
    assert goods.demand.sum() <= 3.0 * unit * (1 + 1e-9)


@pytest.mark.parametrize("unit", FACTORS)
def test_variational_equilibria_in_any_unit(unit, rng):
    """Costs, decisions, limits, or one coordinate in another unit; the oracle is cvxpy's, in plain units."""
    for _ in range(3):
        J = rng.normal(size=(4, 4))
        J, q = J @ J.T + np.eye(4) + 0.3 * (J - J.T), rng.normal(size=4)
        A, b, one = rng.uniform(0, 1, (2, 4)), np.array([0.1, 0.2]), np.ones(4)
        x, _ = reference_equilibrium(QuadraticGame(J, q, -one, one, A, b))
        D = np.array([unit, 1, 1, 1])
        for game, scale in (
            (QuadraticGame(J * unit, q * unit, -one, one, A, b), one),
            (QuadraticGame(J / unit, q, -one * unit, one * unit, A, b * unit), unit * one),
            (QuadraticGame(J, q, -one, one, A * unit, b * unit), one),
            (QuadraticGame(J / D[:, None] / D, q / D, -D, D, A / D, b), D),
        ):
            found = variational_equilibrium(game)
            assert found.converged
            assert found.x / scale == pytest.approx(x, abs=1e-4)
            # not every point is one: the residual sees a step of a tenth
            assert misfit(game, found.x, found.multiplier) <= 1e-8
            assert misfit(game, found.x - 0.1 * scale * np.sign(found.x), found.multiplier) > 1e-4


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12])
def test_joint_shares_in_any_unit_of_weight(unit, rng):
    args = (rng.uniform(0.1, 0.2, (3, 2)), [3.0] * 3, np.zeros((3, 2), int), 1)
    w = rng.uniform(0.5, 1, (3, 2))
    plain, scaled = joint_shares(w, *args), joint_shares(w * unit, *args)
    assert scaled.status == "optimal"
    assert scaled.share == pytest.approx(plain.share, rel=1e-5)
    assert scaled.price == pytest.approx(plain.price * unit**2, rel=1e-4)
    assert scaled.gap <= 1e-5
    assert joint_shares(np.zeros((0, 2)), np.zeros((0, 2)), [], np.zeros((0, 2), int), 1).status == "optimal"


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_stochastic_games_in_any_unit(scale, rng):
    T = rng.dirichlet(np.ones(3), (3, 2, 2))
    reward = rng.normal(size=(3, 2, 2))
    plain = StochasticGame(T, np.stack([reward, -reward]), 0.8)
    other = StochasticGame(T, scale * np.stack([reward, -reward]), 0.8)
    value, row, _ = shapley_values(plain)
    scaled, again, _ = shapley_values(other)  # at 1e12 it went on for ever
    assert scaled / scale == pytest.approx(value, rel=1e-8)
    assert again == pytest.approx(row, abs=1e-6)
    off = np.stack([reward, 0.5 - reward]) * scale
    with pytest.raises(InvalidGameError, match=r"reward\[:, 0, 0, 0\] sums to .*Shapley's values need a zero-sum game"):
        shapley_values(StochasticGame(T, off, 0.8))
    learned = minimax_q(other, steps=3000)
    assert learned.value / scale == pytest.approx(minimax_q(plain, steps=3000).value, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_the_meta_game_of_trusts_in_any_unit(scale, rng):
    for _ in range(20):
        payoff = rng.normal(size=(4, 5))
        plain, scaled = Robust([0, 1, 2, np.inf]), Robust([0, 1, 2, np.inf])
        plain.solve(payoff)
        scaled.solve(payoff * scale)
        assert scaled.value == pytest.approx(plain.value * scale, rel=1e-7, abs=1e-9 * scale)
        assert scaled.shortfall == pytest.approx(plain.shortfall * scale, rel=1e-7, abs=1e-9 * scale)
        assert scaled.regret <= 1e-8 * scale * np.ptp(payoff)
        assert scaled.value >= payoff[[0, -1]].min(axis=1).max() * scale - 1e-9 * scale


def test_one_world_in_large_units_does_not_hide_the_others():
    """The maximin of (1e9, 0), (0, 1) is worth about 1; rows alike to a 1e-9th of the range are not alike."""
    row, column, gain = maximin(np.array([[1e9, 0.0], [0.0, 1.0]]))
    assert row @ [[1e9, 0.0], [0.0, 1.0]] @ column == pytest.approx(1.0, rel=1e-8)
    assert gain <= 1e-6


@pytest.mark.parametrize(("scale", "offset"), [(1e10, 0.0), (1e-9, 0.0), (1.0, 1e9), (2.0**-10, -(2.0**20))])
def test_learning_processes_see_differences_alone(scale, offset):
    A, B = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 2.0]])
    plain = fictitious_play(A, B, rounds=5000, start=(0, 1))
    moved = fictitious_play(scale * A + offset, B, rounds=5000, start=(0, 1))
    assert np.array_equal(moved.row, plain.row)
    flow, same_flow = replicator(A, -A, time=10), replicator(scale * A + offset, -scale * A, time=10 / scale)
    assert same_flow.path == pytest.approx(flow.path, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fictitious_play([[1.0]], rounds=0), "rounds = 0; it is a whole number >= 1"),
        (lambda: fictitious_play([[1.0]], start=(0, 1)), "start[1] = 1; an action is 0 to 0"),
        (lambda: replicator([[1.0]], time=np.inf), "time = inf; it is finite and > 0"),
        (
            lambda: replicator([[1e10, 0], [0, 1]]),
            "time = 100.0 at payoffs that differ by 1e+10 is 5e+11 turns; at most",
        ),
        (lambda: regret([[1.0, 2.0]], [[1.0, 2.0]], [1.0], [0.5, np.nan]), "column[1] = nan; it is finite"),
        (lambda: zero_sum([["x"]]), "A[0, 0] = 'x'; a number is needed"),
        (lambda: zero_sum([[1.0, 2.0], [1.0]]), "A has rows of different"),
        (lambda: variational_equilibrium(QuadraticGame(np.eye(2), [1, 1], 0, 1), [0, np.nan]), "start[1] = nan; it is"),
        (lambda: QuadraticGame(np.eye(2), [1, 1], [0, 0, 0], 1), "lower has shape (3,); jacobian needs one number or"),
        (lambda: route([1.0], [2.0], [[0.0]], start=[[-1.0]]), "start[0, 0] = -1.0; it is finite and >= 0"),
        (lambda: foschini_miljanic([[5e-324]], 1.0, [1.0], [1.0]), "gain[0, 0] = 5e-324 and limit[0] = 1.0 ask for"),
        (lambda: welfare_response([[1.0]], np.inf, [1.0], 1), "noise = inf; it is finite and > 0"),
        (lambda: welfare_response([[1.0]], 1.0, [1.0], 1, weight=[1.0, 2.0]), "weight has shape (2,); 1 users need"),
        (
            lambda: eisenberg_gale([[1.0]], [1.0], [1.0], method="response", start=[[np.nan]]),
            "start[0, 0] = nan; it is finite and >= 0",
        ),
        (lambda: joint_shares([[1.0]], [[1.0]], [5e-324], [[0]], 1), "time[0, 0] = 1.0 is beyond float64 deadlines"),
        (lambda: joint_shares([[1.0]], [[1.0]], [1.0], [[0.5]], 1), "resource[0, 0] = 0.5; a whole number is needed"),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(InvalidStateError, match="^" + re.escape(message)):
        call()


def test_games_of_nobody():
    nobody = CongestionGame([[0]], np.zeros((0, 1)), [1.0], np.zeros((0, 1)))
    assert best_response_dynamics(nobody).converged
    assert nobody.regret([]) == 0.0
    assert social_optimum(nobody).social_cost == 0.0
    assert market_leader([], [], 1.0).status == "no sale"
    assert variational_equilibrium(QuadraticGame(np.zeros((0, 0)), [], 0, 1)).converged
    assert variational_equilibrium(QuadraticGame(np.zeros((0, 0)), [], 0, 1, np.zeros((1, 0)), [-1.0])).status == (
        "infeasible"
    )
