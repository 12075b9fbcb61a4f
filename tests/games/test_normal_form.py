"""Bimatrix games: published equilibria all found, degenerate games, clocks, learning processes."""

from __future__ import annotations

import re
import sys
import time
import warnings
from fractions import Fraction as F
from pathlib import Path

import nashpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games import InvalidGameError
from games.fictitious_play import fictitious_play
from games.normal_form import equilibria, regret, zero_sum
from games.polytopes import lemke_howson_path
from games.replicator import replicator
from games.slices import bimatrix_slice

sys.path.insert(0, str(Path(__file__).parent))
from conftest import random_choice, random_game

seeds = st.integers(0, 2**32 - 1)


def blotto(soldiers: int, fields: int) -> np.ndarray:
    splits = [s for s in np.ndindex(*[soldiers + 1] * fields) if sum(s) == soldiers]
    return np.array([[np.sign(np.subtract(a, b)).sum() for b in splits] for a in splits], float)


def travelers(low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    claim = np.arange(low, high + 1)
    A = np.minimum.outer(claim, claim) + 2 * np.sign(claim[None] - claim[:, None])
    return A.astype(float), A.T.astype(float)


half, third = [0.5, 0.5], [1 / 3] * 3
I2, I3 = np.eye(2), np.eye(3)
rps = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
rpsls = np.array([[0, -1, 1, 1, -1], [1, 0, -1, -1, 1], [-1, 1, 0, 1, -1], [-1, 1, -1, 0, 1], [1, -1, 1, -1, 0]])
shapley = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])

# name: (A, B, all extreme equilibria as (row, column))
PUBLISHED = {
    "prisoner's dilemma (Tucker 1950)": ([[3, 0], [5, 1]], [[3, 5], [0, 1]], [([0, 1], [0, 1])]),
    "battle of the sexes (Luce and Raiffa 1957)": (
        [[2, 0], [0, 1]], [[1, 0], [0, 2]],
        [([1, 0], [1, 0]), ([0, 1], [0, 1]), ([2 / 3, 1 / 3], [1 / 3, 2 / 3])],
    ),
    "matching pennies (von Neumann 1928)": ([[1, -1], [-1, 1]], [[-1, 1], [1, -1]], [(half, half)]),
    "rock paper scissors": (rps, -rps, [(third, third)]),
    "rock paper scissors lizard Spock (Kass)": (rpsls, -rpsls, [([0.2] * 5, [0.2] * 5)]),
    "chicken (Rapoport and Chammah 1966)": (
        [[0, -1], [1, -10]], [[0, 1], [-1, -10]],
        [([1, 0], [0, 1]), ([0, 1], [1, 0]), ([0.9, 0.1], [0.9, 0.1])],
    ),
    "hawk and dove, V 2, C 4 (Maynard Smith 1982)": (
        [[-1, 2], [0, 1]], [[-1, 0], [2, 1]], [([1, 0], [0, 1]), ([0, 1], [1, 0]), (half, half)],
    ),
    "stag hunt (Skyrms 2004)": (
        [[4, 1], [3, 2]], [[4, 3], [1, 2]], [([1, 0], [1, 0]), ([0, 1], [0, 1]), (half, half)],
    ),
    "deadlock": ([[1, 0], [3, 2]], [[1, 3], [0, 2]], [([0, 1], [0, 1])]),
    "pure coordination of three (Schelling 1960)": (
        I3, I3,
        [
            ([1, 0, 0], [1, 0, 0]), ([0, 1, 0], [0, 1, 0]), ([0, 0, 1], [0, 0, 1]), (third, third),
            ([0.5, 0.5, 0], [0.5, 0.5, 0]), ([0.5, 0, 0.5], [0.5, 0, 0.5]), ([0, 0.5, 0.5], [0, 0.5, 0.5]),
        ],
    ),
    "Shapley (1964)": (shapley, np.roll(shapley, 1, axis=1), [(third, third)]),
    "von Stengel (2002), 3 x 2": (
        [[3, 3], [2, 5], [0, 6]], [[3, 2], [2, 6], [3, 1]],
        [([1, 0, 0], [1, 0]), ([0.8, 0.2, 0], [2 / 3, 1 / 3]), ([0, 1 / 3, 2 / 3], [1 / 3, 2 / 3])],
    ),
    "von Stengel (2002), 3 x 2, degenerate": (
        [[3, 3], [2, 5], [0, 6]], [[3, 3], [2, 6], [3, 1]],
        [([1, 0, 0], [1, 0]), ([1, 0, 0], [2 / 3, 1 / 3]), ([0, 1 / 3, 2 / 3], [1 / 3, 2 / 3])],
    ),
    "inspection (Dresher 1962), no recall": (
        [[-1, 1], [0, 0]], [[1, -1], [0, 0.5]], [([0.2, 0.8], half)],
    ),
    "penalty kicks (Palacios-Huerta 2003)": (
        [[58.30, 94.97], [92.91, 69.92]], [[41.70, 5.03], [7.09, 30.08]],
        [([0.3854, 0.6146], [0.4199, 0.5801])],
    ),
    "traveler's dilemma, claims 2 to 6 (Basu 1994)": (*travelers(2, 6), [([1, 0, 0, 0, 0], [1, 0, 0, 0, 0])]),
    "Morra of two fingers (Dresher 1961)": (
        [[0, 2, -3, 0], [-2, 0, 0, 3], [3, 0, 0, -4], [0, -3, 4, 0]],
        -np.array([[0, 2, -3, 0], [-2, 0, 0, 3], [3, 0, 0, -4], [0, -3, 4, 0]]),
        [
            (a, b)
            for a in ([0, 0.6, 0.4, 0], [0, 4 / 7, 3 / 7, 0])
            for b in ([0, 0.6, 0.4, 0], [0, 4 / 7, 3 / 7, 0])
        ],
    ),
    "Aumann (1974), correlation": (
        [[6, 2], [7, 0]], [[6, 7], [2, 0]],
        [([1, 0], [0, 1]), ([0, 1], [1, 0]), ([2 / 3, 1 / 3], [2 / 3, 1 / 3])],
    ),
    "centipede of four moves (Rosenthal 1981), reduced": (
        [[1, 1, 1], [0, 3, 3], [0, 2, 5]], [[0, 0, 0], [2, 1, 1], [2, 4, 3]],
        [
            ([1, 0, 0], y) for y in ([1, 0, 0], [2 / 3, 1 / 3, 0], [0.8, 0, 0.2], [2 / 3, 2 / 9, 1 / 9])
        ],
    ),
    "market entry with a threat (Selten 1978), degenerate": (
        [[2, 0], [1, 1]], [[2, 0], [5, 5]],
        [([1, 0], [1, 0]), ([0, 1], [0, 1]), ([0, 1], half)],
    ),
    "Fudenberg and Tirole (1991), three actions, dominance": (
        [[4, 5, 6], [2, 8, 3], [3, 9, 2]], [[3, 1, 2], [1, 4, 6], [0, 6, 8]], [([1, 0, 0], [1, 0, 0])],
    ),
    "volunteer's dilemma, cost 1, worth 2 (Diekmann 1985)": (
        [[1, 1], [2, 0]], [[1, 2], [1, 0]], [([1, 0], [0, 1]), ([0, 1], [1, 0]), (half, half)],
    ),
    "Kreps (1990) coordination with an outside option": (
        [[9, 0], [8, 7]], [[9, 8], [0, 7]],
        [([1, 0], [1, 0]), ([0, 1], [0, 1]), ([7 / 8, 1 / 8], [7 / 8, 1 / 8])],
    ),
}  # fmt: skip


def same(found, expected, atol=1e-6):
    return all(
        any(np.allclose(x, a, atol=atol) and np.allclose(y, b, atol=atol) for x, y, _ in found) for a, b in expected
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name):
    A, B, expected = PUBLISHED[name]
    found = list(equilibria(A, B, budget_s=60))
    atol = 1e-4 if "penalty" in name else 1e-6
    assert len(found) == len(expected)
    assert same(found, expected, atol)
    for x, y, gain in found:
        assert gain == regret(A, B, x, y) <= 1e-8


def test_von_stengel_1999_has_75_equilibria():
    A = np.array([
        [9504, -660, 19976, -20526, 1776, -8976], [-111771, 31680, -130944, 168124, -8514, 52764],
        [397584, -113850, 451176, -586476, 29216, -178761], [171204, -45936, 208626, -263076, 14124, -84436],
        [1303104, -453420, 1227336, -1718376, 72336, -461736],
        [737154, -227040, 774576, -1039236, 48081, -300036],
    ], float)  # fmt: skip
    B = np.array([
        [72336, -461736, 1227336, -1718376, 1303104, -453420],
        [48081, -300036, 774576, -1039236, 737154, -227040],
        [29216, -178761, 451176, -586476, 397584, -113850], [14124, -84436, 208626, -263076, 171204, -45936],
        [1776, -8976, 19976, -20526, 9504, -660], [-8514, 52764, -130944, 168124, -111771, 31680],
    ], float).T  # fmt: skip
    assert len(list(equilibria(A, B, budget_s=60, tolerance=1e-10))) == 75


def test_at_least_twenty_published_games():
    assert len(PUBLISHED) >= 20


def test_unequal_supports_are_found_in_degenerate_games():
    # every mixture of the column player is a best reply to row 0
    A, B = [[1.0, 1.0], [0.0, 2.0]], [[1.0, 1.0], [0.0, 1.0]]
    found = list(equilibria(A, B, budget_s=60))
    assert same(found, [([1, 0], [1, 0]), ([1, 0], [0.5, 0.5]), ([0, 1], [0, 1])])


def test_constant_game_has_every_pure_pair():
    assert len(list(equilibria(np.ones((3, 4)), np.zeros((3, 4)), budget_s=60))) == 12


def test_single_actions():
    [(x, y, gain)] = equilibria([[2.0]], [[3.0]])
    assert (x.tolist(), y.tolist(), gain) == ([1.0], [1.0], 0.0)
    found = list(equilibria([[1.0, 2.0, 3.0]], [[0.0, 5.0, 5.0]], budget_s=60))
    assert same(found, [([1], [0, 1, 0]), ([1], [0, 0, 1])])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_same_as_nashpy_on_random_games(size, rng):
    for _ in range(10):
        A, B = rng.random((2, size, size))
        found = list(equilibria(A, B, budget_s=60))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            theirs = list(nashpy.Game(A, B).support_enumeration())
        # nashpy compares payoffs exactly, and now and then loses one to rounding
        assert same(found, theirs)
        assert len(found) % 2 == 1


def test_random_and_degenerate_games_up_to_8_by_8(rng):
    for trial in range(60):
        m, k = rng.integers(1, 9, 2)
        if trial % 3 == 0:
            A, B = rng.random((2, m, k))
        elif trial % 3 == 1:
            A, B = rng.integers(0, 3, (2, m, k)).astype(float)
        else:
            A, B = rng.random((2, m, k))
            A[rng.integers(m)] = A[rng.integers(m)]
            B[:, rng.integers(k)] = B[:, rng.integers(k)]
        begun = time.perf_counter()
        found = list(equilibria(A, B, budget_s=0.5))
        assert time.perf_counter() - begun < 5
        assert found
        assert all(regret(A, B, x, y) <= 1e-8 for x, y, _ in found)


def test_large_games_get_an_answer_in_bounded_time(rng):
    for size in (20, 60):
        A, B = rng.random((2, size, size))
        begun = time.perf_counter()
        found = list(equilibria(A, B, budget_s=0.2))
        assert time.perf_counter() - begun < 5
        assert found
        assert all(gain <= 1e-8 for _, _, gain in found)


def test_lemke_howson_counts_its_pivots():
    A = np.array([[1.0, 0.0], [0.0, 1.0]]) + 1
    x, y, done = lemke_howson_path(A, A[::-1].copy(), 0, 100)
    assert done
    assert np.allclose(x, 0.5)
    assert np.allclose(y, 0.5)
    assert not lemke_howson_path(A, A[::-1].copy(), 0, 1)[2]


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_invariance(seed):
    """Permuted actions, scaled and shifted payoffs, a doubled action: the same equilibria."""
    rng = np.random.default_rng(seed)
    A, B = rng.random((2, 3, 3))
    rows, columns = rng.permutation(3), rng.permutation(3)
    found = list(equilibria(A, B, budget_s=60))
    again = list(equilibria(8 * A[rows][:, columns] + 3, 2 * B[rows][:, columns] - 5, budget_s=60))
    assert len(again) == len(found)
    assert same(again, [(x[rows], y[columns]) for x, y, _ in found])
    twin = list(equilibria(np.append(A, A[:1], axis=0), np.append(B, B[:1], axis=0), budget_s=60))
    folded = [(np.append(x[0] + x[3], x[1:3]), y, g) for x, y, g in twin]
    assert same(folded, [(x, y) for x, y, _ in found])


def test_zero_sum_by_linear_programme(rng):
    solution = zero_sum([[0, 2, -3, 0], [-2, 0, 0, 3], [3, 0, 0, -4], [0, -3, 4, 0]])
    assert solution.value == pytest.approx(0, abs=1e-9)
    assert zero_sum([[3, -1], [-2, 4]]).value == pytest.approx(float(F(10, 10)))
    assert zero_sum([[3, -1], [-2, 4]]).row == pytest.approx([0.6, 0.4])
    assert zero_sum([[5.0]]).value == 5.0
    assert zero_sum(blotto(5, 3)).value == pytest.approx(0, abs=1e-9)
    for _ in range(30):
        A = rng.normal(0, 10.0 ** rng.uniform(-3, 3), rng.integers(1, 12, 2))
        solution = zero_sum(A)
        assert solution.regret <= 1e-8 * max(1, np.abs(A).max())
        x, y, _ = next(equilibria(A))
        assert x @ A @ y == pytest.approx(solution.value, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(
    ("A", "B", "message"),
    [
        ([1.0, 2.0], None, "A has shape (2,); payoffs need two axes of at least one action each"),
        (np.zeros((0, 2)), None, "A has shape (0, 2); payoffs need two axes of at least one action each"),
        (np.zeros((2, 3)), np.zeros((3, 2)), "B has shape (3, 2); A has (2, 3), and they must agree"),
        ([[1.0, np.nan]], None, "A[0, 1] = nan; a payoff is finite"),
        ([[1.0, 0.0]], [[0.0, np.inf]], "B[0, 1] = inf; a payoff is finite"),
    ],
)
def test_bad_input(A, B, message):
    with pytest.raises(InvalidGameError, match="^" + re.escape(message) + "$"):
        equilibria(A, B)


def test_fictitious_play_finds_the_value_and_cycles_in_shapleys_game():
    play = fictitious_play([[3, -1], [-2, 4]], rounds=200_000)
    assert play.row == pytest.approx([0.6, 0.4], abs=5e-3)
    assert play.regret < 0.02
    # Shapley (1964): the frequencies never settle, so regret stays
    cyclic = fictitious_play(shapley, np.roll(shapley, 1, axis=1), rounds=100_000)
    assert cyclic.regret > 0.05


def test_replicator_keeps_the_constant_of_motion_and_reaches_strict_equilibria():
    flow = replicator(rps, start=([0.5, 0.3, 0.2], [0.2, 0.5, 0.3]), time=50)
    motion = np.log(flow.path).sum(axis=1)
    assert np.ptp(motion) < 1e-6
    assert np.ptp(flow.path[:, 0]) > 0.1
    flow = replicator([[3, 0], [5, 1]], [[3, 5], [0, 1]], time=60)
    assert flow.row == pytest.approx([0, 1], abs=1e-6)
    with pytest.raises(InvalidGameError, match="start row"):
        replicator(rps, start=([0.5, 0.5, 0.5], third))


def test_slice_of_a_congestion_game_has_the_potential(rng):
    for _ in range(20):
        game = random_game(rng, agents=5, toll=rng.uniform(0, 1))
        choice = random_choice(rng, game)
        part = bimatrix_slice(game, choice, 1, 3)
        potential = np.empty(part.A.shape)
        for i, a in enumerate(part.options[0]):
            for j, b in enumerate(part.options[1]):
                at = choice.copy()
                at[1], at[3] = a, b
                potential[i, j] = game.potential(at)
        # minus costs: payoff differences are minus potential differences
        assert np.allclose(part.A - part.A[:1], -(potential - potential[:1]), atol=1e-9)
        assert np.allclose(part.B - part.B[:, :1], -(potential - potential[:, :1]), atol=1e-9)
        i, j = part.present
        assert part.options[0][i] == choice[1]
        assert -part.A[i, j] == pytest.approx(game.costs(choice)[1, choice[1]])


def test_slice_explains():
    from games import CongestionGame

    game = CongestionGame([[0], [1]], np.ones((2, 2)), [1.0, 1.0], np.zeros((2, 2)))
    assert bimatrix_slice(game, [0, 0], 0, 1).explain("device") == (
        "device 0 is at option 0 and pays 2; its best reply is option 1 at 1\n"
        "device 1 is at option 0 and pays 2; its best reply is option 1 at 1\n"
        "stable joint choices: (0, 1), (1, 0)"
    )
    assert "no other option costs it less" in bimatrix_slice(game, [0, 1], 0, 1).explain()
    with pytest.raises(InvalidGameError, match="agents 0 and 0 are the same; a slice needs two"):
        bimatrix_slice(game, [0, 1], 0, 0)
    with pytest.raises(InvalidGameError, match="agent 2 is out of range; agents are 0 to 1"):
        bimatrix_slice(game, [0, 1], 0, 2)
