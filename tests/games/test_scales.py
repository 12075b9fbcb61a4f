"""Units and origins: what is found does not depend on the unit that a player's payoffs or costs are in."""

from __future__ import annotations

import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from games import InvalidGameError
from games.exact import exact_equilibrium
from games.normal_form import equilibria, regret, zero_sum

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
