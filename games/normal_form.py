r"""Two-player games in normal form: equilibria that are verified, and never an unbounded search.

Player one gets ``row @ A @ column``, player two ``row @ B @ column``. A pair is an equilibrium when no pure
reply gains; its *regret* is the larger of the two best gains, in payoff units, and every pair that leaves
this module has been measured.

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
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from games.congestion import Float
from games.errors import InvalidGameError
from games.polytopes import best_reply_vertices, lemke_howson_path

NASHPY_PAIRS = 50  # support pairs that nashpy checks within some 3 ms: all of a 3 x 3 game


@dataclass(frozen=True)
class ZeroSum:
    """Solution of a zero-sum game.

    Attributes:
        row: (M,) the row player's maximin strategy.
        column: (K,) the column player's minimax strategy.
        value: what the row player gets.
        regret: largest gain of either player by deviating.
    """

    row: Float
    column: Float
    value: float
    regret: float


def regret(A: ArrayLike, B: ArrayLike, row: ArrayLike, column: ArrayLike) -> float:
    """Larger of the two players' best gains by a pure deviation from (row (M,), column (K,)), in payoff."""
    first, second = np.asarray(A, float), np.asarray(B, float)
    x, y = np.asarray(row, float), np.asarray(column, float)
    to_rows, to_columns = first @ y, x @ second
    return float(max((to_rows - x @ to_rows).max(), (to_columns - to_columns @ y).max(), 0.0))


def equilibria(
    A: ArrayLike, B: ArrayLike | None = None, *, budget_s: float = 1.0, tolerance: float = 1e-8
) -> Iterator[tuple[Float, Float, float]]:
    """Nash equilibria of a bimatrix game, each verified, the easiest first.

    Args:
        A: (M, K) payoffs of the row player, who maximises.
        B: (M, K) payoffs of the column player; None for the zero-sum game, -A.
        budget_s: seconds after which the search ends; at least one equilibrium is sought even then.
        tolerance: regret above which a pair is not yielded, relative to the payoffs' range where that is
            above 1.

    Yields:
        (row (M,), column (K,), regret). All extreme equilibria of games up to 8 x 8 within the default
        budget; for larger games those found in time.

    Raises:
        InvalidGameError: shapes differ, an axis is empty, or a payoff is not finite.
    """
    first, second = check_payoffs(A, B)
    return _search(first, second, budget_s, tolerance)


def _search(A: Float, B: Float, budget_s: float, tolerance: float) -> Iterator[tuple[Float, Float, float]]:
    deadline = time.perf_counter() + budget_s
    unit_a, unit_b = unit_payoffs(A), unit_payoffs(B)
    limit = tolerance * max(1.0, float(np.ptp(A)), float(np.ptp(B)))
    seen: list[Float] = []

    def verified(x: Float, y: Float) -> tuple[Float, Float, float] | None:
        x, y = np.maximum(x, 0.0), np.maximum(y, 0.0)
        x, y = x / x.sum(), y / y.sum()
        gain = regret(A, B, x, y)
        both = np.concatenate([x, y])
        if not gain <= limit or any(np.abs(both - old).max() < 1e-7 for old in seen):
            return None
        seen.append(both)
        return x, y, gain

    for source in (
        _pure(A, B),
        _by_nashpy(unit_a, unit_b, deadline),
        _by_paths(unit_a, unit_b, deadline),
        _by_vertices(unit_a, unit_b, deadline),
    ):
        for x, y in source:
            found = verified(x, y)
            if found is not None:
                yield found


def zero_sum(A: ArrayLike) -> ZeroSum:
    """Maximin of a zero-sum game by linear programming (HiGHS), both players' strategies from one solve.

    Args:
        A: (M, K) payoffs of the row player, who maximises; the column player pays them.

    Raises:
        InvalidGameError: an axis is empty, or a payoff is not finite.
    """
    payoff, _ = check_payoffs(A, None)
    unit, low = unit_payoffs(payoff), float(payoff.min())
    m, k = payoff.shape
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
    row = np.maximum(answer.x[:m], 0)
    column = np.maximum(-answer.ineqlin.marginals, 0)
    row, column = row / row.sum(), column / column.sum()
    span = float(np.ptp(payoff)) or 1.0
    return ZeroSum(row, column, low + span * float(row @ unit @ column), regret(payoff, -payoff, row, column))


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
    span = float(np.ptp(payoff))
    return np.ascontiguousarray((payoff - payoff.min()) / (span if span > 0 else 1.0))


def check_payoffs(A: ArrayLike, B: ArrayLike | None) -> tuple[Float, Float]:
    """Both payoffs as (M, K) arrays, B = -A where it is None, or an InvalidGameError that names the entry."""
    first = np.asarray(A, dtype=np.float64)
    second = -first if B is None else np.asarray(B, dtype=np.float64)
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
