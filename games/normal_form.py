r"""Two-player games in normal form: equilibria that are verified, and never an unbounded search.

Player one gets ``row @ A @ column``, player two ``row @ B @ column``. A pair is an equilibrium when no pure
reply gains; its *regret* is the larger of the two best gains, in payoff units, and every pair that leaves
this module has been measured.

Equilibria do not change when one player's payoffs are multiplied by a positive number or moved by a constant. So each
player's are solved in their own unit and origin, and a gain is judged against what that player has at stake there: its
range, and by how much its payoffs differ in play (mean distance from what it gets). What floating point does not
settle, :mod:`games.exact` does.

Small games go to nashpy's support enumeration, one support pair at a time, so that the clock is read between
pairs (nashpy's own loops have no bound: its Lemke-Howson may never return). What degenerate games hide from
it is found by enumerating the vertices of the two best-reply polytopes and joining those that complement
each other: that yields every extreme equilibrium, of which all others are mixtures. Games too large for
either still get the equilibria that Lemke-Howson paths reach; its lexicographic ratio test cannot cycle, and
the pivots are counted.

Sources: von Stengel (2002), "Computing equilibria for two-person games", in the Handbook of Game Theory 3
(vertices, Lemke-Howson, degeneracy); Lemke and Howson (1964); Knight and Campbell (2018), "Nashpy".
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from games.congestion import Float
from games.errors import InvalidGameError, floats, shaped
from games.exact import exact_equilibrium
from games.lean import KEPT
from games.polytopes import best_reply_vertices, lemke_howson_path

NASHPY_PAIRS = 50  # support pairs that nashpy checks within some 3 ms: all of a 3 x 3 game
ROUNDING = 1e-11  # of a player's range: what solvers leave of a gain
EXACT_S = 1.0  # seconds for exact arithmetic where floating point settles nothing


@dataclass(frozen=True)
class ZeroSum:
    """Solution of a zero-sum game.

    Attributes:
        row: (M,) the row player's maximin strategy.
        column: (K,) the column player's minimax strategy.
        value: what the row player gets.
        regret: largest gain of either player by deviating.
        converged: whether ``regret`` is within rounding of what is at stake.
    """

    row: Float
    column: Float
    value: float
    regret: float
    converged: bool = True


def regret(A: ArrayLike, B: ArrayLike, row: ArrayLike, column: ArrayLike) -> float:
    """Larger of the two players' best gains by a pure deviation from (row (M,), column (K,)), in payoff.

    Measured on differences of payoffs, so that what is added to all of a player's loses no digits.
    """
    one, two = check_payoffs(A, B)
    x, y = shaped("row", row, one.shape[:1]), shaped("column", column, one.shape[1:])
    first, second = _Scaled(one), _Scaled(two.T)
    return max(first.in_payoff(first.gain(x, y)[0]), second.in_payoff(second.gain(y, x)[0]), 0.0)


class _Scaled:
    """One player's payoffs (own actions, the other's) as ``centred`` in [-1, 1], range 1, and back."""

    def __init__(self, payoff: Float) -> None:
        # by a power of two first: exact, and no difference overflows
        self.power = int(np.frexp(np.abs(payoff).max())[1])
        mantissa = np.ldexp(payoff, -self.power)
        self.span = float(np.ptp(mantissa))
        # from the median: of payoffs near each other beside one far away no digit is lost
        self.centred = np.ascontiguousarray((mantissa - np.median(mantissa)) / (self.span or 1.0))

    def gain(self, own: Float, other: Float) -> tuple[float, float]:
        """Best gain by a pure deviation and the mean distance of payoffs from what is got, in ranges."""
        return _gain(self.centred, own, other)

    def in_payoff(self, amount: float) -> float:
        """An amount in ranges as one in payoff."""
        with np.errstate(over="ignore"):
            return float(np.ldexp(amount * self.span, self.power))


@njit(**KEPT)
def _gain(payoff, own, other):
    m, k = payoff.shape
    value = 0.0
    best = -np.inf
    for i in range(m):
        reply = 0.0
        for j in range(k):
            reply += payoff[i, j] * other[j]
        value += own[i] * reply
        best = max(best, reply)
    size = 0.0
    for i in range(m):
        if own[i] > 0.0:
            for j in range(k):
                size += own[i] * other[j] * abs(payoff[i, j] - value)
    return max(best - value, 0.0), size


def equilibria(
    A: ArrayLike, B: ArrayLike | None = None, *, budget_s: float = 1.0, tolerance: float = 1e-8
) -> Iterator[tuple[Float, Float, float]]:
    """Nash equilibria of a bimatrix game, each verified, the easiest first.

    Args:
        A: (M, K) payoffs of the row player, who maximises.
        B: (M, K) payoffs of the column player; None for the zero-sum game, -A.
        budget_s: seconds after which the search ends; at least one equilibrium is sought even then.
        tolerance: a pair is yielded where no player gains more than this part of what its payoffs differ by in
            play, and 1e-11 of its range: each player's own, so that units and origins do not matter.

    Yields:
        (row (M,), column (K,), regret), at least one. All extreme equilibria of games up to 8 x 8 within the default
        budget, those whose probabilities differ by less than 1e-7 as one; for larger games those found in time.

    Raises:
        InvalidGameError: shapes differ, an axis is empty, a payoff is not finite, or a tolerance or budget is not
            >= 0.

    Warns:
        RuntimeWarning: payoffs so large beside their differences that float64 holds fewer than six digits of these;
            what is solved are the differences that it holds.
    """
    first, second = check_payoffs(A, B)
    for name, value in (("budget_s", budget_s), ("tolerance", tolerance)):
        if not value >= 0:
            raise InvalidGameError(f"{name} = {value}; it is >= 0")
    _warn_of_lost_digits("A", first)
    if B is not None:
        _warn_of_lost_digits("B", second)
    return _search(first, second, budget_s, tolerance)


def _search(A: Float, B: Float, budget_s: float, tolerance: float) -> Iterator[tuple[Float, Float, float]]:
    deadline = time.perf_counter() + budget_s
    unit_a, unit_b = unit_payoffs(A), unit_payoffs(B)
    first, second = _Scaled(A), _Scaled(B.T)
    seen: list[Float] = []

    def verified(x: Float, y: Float, pure: bool = False) -> tuple[Float, Float, float] | None:
        if not pure and np.count_nonzero(x) == 1 == np.count_nonzero(y):
            return None  # all pure ones were compared exactly, and this is none of them, or seen
        x, y = np.maximum(x, 0.0), np.maximum(y, 0.0)
        x, y = x / x.sum(), y / y.sum()
        (gain, size), (other_gain, other_size) = first.gain(x, y), second.gain(y, x)
        if not (gain <= tolerance * size + ROUNDING and other_gain <= tolerance * other_size + ROUNDING):
            return None
        both = np.concatenate([x, y])
        if any(np.abs(both - old).max() < 1e-7 for old in seen):
            return None
        seen.append(both)
        return x, y, max(first.in_payoff(gain), second.in_payoff(other_gain))

    for x, y in _pure(A, B):
        found = verified(x, y, pure=True)
        if found is not None:
            yield found
    for source in (
        _by_nashpy(unit_a, unit_b, deadline),
        _by_paths(unit_a, unit_b, deadline),
        _by_vertices(unit_a, unit_b, deadline),
    ):
        for x, y in source:
            found = verified(x, y)
            if found is not None:
                yield found
    if not seen:
        exact = exact_equilibrium(A, B, max(deadline, time.perf_counter() + EXACT_S))
        found = verified(*exact, pure=True) if exact is not None else None
        if found is not None:
            yield found


def zero_sum(A: ArrayLike) -> ZeroSum:
    """Maximin of a zero-sum game by linear programming (HiGHS), both players' strategies from one solve.

    A saddle point is seen without; where the program's answer leaves more of a gain than rounding, beside what is at
    stake in play, the game is solved in exact arithmetic.

    Args:
        A: (M, K) payoffs of the row player, who maximises; the column player pays them.

    Returns:
        ZeroSum; ``converged`` False where neither was exact enough (a large game, badly scaled).

    Raises:
        InvalidGameError: an axis is empty, or a payoff is not finite.
    """
    payoff, _ = check_payoffs(A, None)
    _warn_of_lost_digits("A", payoff)
    mine, theirs = _Scaled(payoff), _Scaled(-payoff.T)
    m, k = payoff.shape

    def answer(x: Float, y: Float, converged: bool) -> ZeroSum:
        gain = max(mine.in_payoff(mine.gain(x, y)[0]), theirs.in_payoff(theirs.gain(y, x)[0]))
        return ZeroSum(x, y, float(x @ payoff @ y), gain, converged)

    row, column = int(payoff.min(axis=1).argmax()), int(payoff.max(axis=0).argmin())
    if payoff[row].min() == payoff[:, column].max():
        return answer(np.eye(m)[row], np.eye(k)[column], True)
    found = _by_program(unit_payoffs(payoff))
    if found is not None and is_tight(mine.centred, *found):
        return answer(*found, True)
    exact = exact_equilibrium(payoff, -payoff, time.perf_counter() + EXACT_S)
    if exact is not None:
        return answer(*exact, True)
    x, y = found if found is not None else (np.full(m, 1 / m), np.full(k, 1 / k))
    done = mine.gain(x, y)[0] <= ROUNDING and theirs.gain(y, x)[0] <= ROUNDING
    return answer(x, y, done)


def is_tight(payoff: Float, row: Float, column: Float) -> bool:
    """Does no player of a zero-sum game, range 1, gain more than 1e-9 of what its payoffs differ by in play?"""
    gain, size = _gain(np.ascontiguousarray(payoff), row, column)
    loss, _ = _gain(np.ascontiguousarray(-payoff.T), column, row)
    return bool(max(gain, loss) <= 1e-9 * size)


def _by_program(unit: Float) -> tuple[Float, Float] | None:
    m, k = unit.shape
    # maximise v subject to v <= (x' U)_j for every column j, x in the simplex
    answer = linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=np.append(-unit.T, np.ones((k, 1)), axis=1),
        b_ub=np.zeros(k),
        A_eq=np.append(np.ones((1, m)), [[0.0]], axis=1),
        b_eq=[1.0],
        bounds=[(0, None)] * m + [(None, None)],
        method="highs",
    )
    if answer.status != 0:
        return None
    row, column = np.maximum(answer.x[:m], 0), np.maximum(-answer.ineqlin.marginals, 0)
    if not (row.sum() > 0 and column.sum() > 0):
        return None
    return row / row.sum(), column / column.sum()


def _pure(A: Float, B: Float) -> Iterator[tuple[Float, Float]]:
    best = (A.max(axis=0, keepdims=True) == A) & (B.max(axis=1, keepdims=True) == B)
    for i, j in np.argwhere(best):
        yield np.eye(len(A))[i], np.eye(A.shape[1])[j]


def _by_nashpy(A: Float, B: Float, deadline: float) -> Iterator[tuple[Float, Float]]:
    """nashpy's support enumeration with the clock read between support pairs."""
    m, k = A.shape
    if (2**m - 1) * (2**k - 1) > NASHPY_PAIRS:
        return
    import nashpy.algorithms.support_enumeration as nashpy_supports  # a quarter of a second, so only when needed

    for rows, columns in nashpy_supports.potential_support_pairs(A, B):
        if time.perf_counter() > deadline:
            return
        if len(rows) == 1 == len(columns):
            continue
        x = nashpy_supports.solve_indifference(B.T, columns, rows)
        y = nashpy_supports.solve_indifference(A, rows, columns)
        if x is not False and y is not False:
            yield x, y


def _by_paths(A: Float, B: Float, deadline: float) -> Iterator[tuple[Float, Float]]:
    m, k = A.shape
    for label in range(m + k):
        # the first path is walked whatever the clock says: an answer is owed
        if label and time.perf_counter() > deadline:
            return
        x, y, done = lemke_howson_path(A + 1.0, B + 1.0, label, 200 * (m + k))
        if done:
            yield x, y


def _by_vertices(A: Float, B: Float, deadline: float) -> Iterator[tuple[Float, Float]]:
    m, k = A.shape
    if m + k > 60:
        return
    # by support size, so that the clock is read in between; (strategy, support bits, best-reply bits)
    rows: list[tuple[Float, int, int]] = []
    columns: list[tuple[Float, int, int]] = []
    for size in range(1, min(m, k) + 1):
        if time.perf_counter() > deadline:
            return
        new_rows = best_reply_vertices(np.ascontiguousarray(B.T), size, deadline)
        new_columns = best_reply_vertices(A, size, deadline)
        yield from _join(new_rows, columns + new_columns)
        yield from _join(rows, new_columns)
        rows, columns = rows + new_rows, columns + new_columns


def _join(rows: list[tuple[Float, int, int]], columns: list[tuple[Float, int, int]]) -> Iterator[tuple[Float, Float]]:
    if not rows or not columns:
        return
    column_support = np.array([c[1] for c in columns])
    column_best = np.array([c[2] for c in columns])
    for x, support, best in rows:
        for j in np.flatnonzero(((support & ~column_best) == 0) & ((column_support & ~best) == 0)):
            yield x, columns[j][0]


def unit_payoffs(payoff: Float) -> Float:
    """One player's payoffs moved and scaled to 0 to 1; all 0 where they are one number."""
    mantissa = np.ldexp(payoff, -np.frexp(np.abs(payoff).max())[1])
    span = float(np.ptp(mantissa))
    return np.ascontiguousarray((mantissa - mantissa.min()) / (span if span > 0 else 1.0))


def _warn_of_lost_digits(name: str, payoff: Float) -> None:
    low, high = float(payoff.min()), float(payoff.max())
    step = float(np.spacing(max(abs(low), abs(high))))
    if low < high and step > 1e-6 * (high / 2 - low / 2) * 2:
        warnings.warn(
            f"{name} is from {low!r} to {high!r}, where float64 holds steps of {step:.1e}: the payoffs' differences "
            "have few digits left; take what is common to all of them off before",
            RuntimeWarning,
            stacklevel=3,
        )


def check_payoffs(A: ArrayLike, B: ArrayLike | None) -> tuple[Float, Float]:
    """Both payoffs as (M, K) arrays, B = -A where it is None, or an InvalidGameError that names the entry."""
    first = floats("A", A)
    second = -first if B is None else floats("B", B)
    if first.ndim != 2 or 0 in first.shape:
        raise InvalidGameError(f"A has shape {first.shape}; payoffs need two axes of at least one action each")
    if second.shape != first.shape:
        raise InvalidGameError(f"B has shape {second.shape}; A has {first.shape}, and they must agree")
    for name, payoff in (("A", first), ("B", second)):
        bad = ~np.isfinite(payoff)
        if bad.any():
            i, j = np.argwhere(bad)[0]
            raise InvalidGameError(f"{name}[{i}, {j}] = {payoff[i, j]}; a payoff is finite")
    return first, second
