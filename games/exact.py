r"""One equilibrium of a bimatrix game in exact arithmetic: Lemke-Howson on integers.

A float is a fraction with a power of two below it, so every game of floats is a game of integers. Fraction-free
pivots (Edmonds, as Bareiss) keep a tableau of integers whose division by the last pivot leaves no remainder;
comparisons are exact, so the lexicographic ratio test cannot cycle, ties are ties, and the answer is right whatever
the payoffs' sizes are. Slow, 1 ms at 3 x 3 and some 0.1 s at 12 x 12: for what floating point cannot settle.

Sources: Lemke and Howson (1964); von Stengel (2002), "Computing equilibria for two-person games", section 2;
Avis et al. (2010), "Enumeration of Nash equilibria for two-player games", for integer pivoting.
"""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np

from games.congestion import Float

Tableau = list[list[int]]


def exact_equilibrium(A: Float, B: Float, deadline: float = np.inf) -> tuple[Float, Float] | None:
    """An equilibrium (row (M,), column (K,)) of payoffs (M, K), rounded once, at the end.

    None where ``deadline`` (time.perf_counter) came first. In a zero-sum game, B = -A, it is a pair of maximin and
    minimax strategies.
    """
    m, k = A.shape
    # slacks and constants 1; every payoff moved to at least 1, which moves no equilibrium
    rows, columns = _whole(A), _whole(B.T)
    first = [[int(i == r) for r in range(m)] + rows[i] + [1] for i in range(m)]
    second = [columns[j] + [int(j == c) for c in range(k)] + [1] for j in range(k)]
    basis_first, basis_second = list(range(m)), list(range(m, m + k))
    pivots = [1, 1]
    entering, in_second = 0, True
    while True:
        if time.perf_counter() > deadline:
            return None
        if in_second:
            leaving, pivots[1] = _pivot(second, basis_second, entering, range(m, m + k), pivots[1])
        else:
            leaving, pivots[0] = _pivot(first, basis_first, entering, range(m), pivots[0])
        if leaving == 0:
            break
        entering, in_second = leaving, not in_second
    x, y = [0] * m, [0] * k
    for j, label in enumerate(basis_second):
        if label < m:
            x[label] = second[j][-1]
    for i, label in enumerate(basis_first):
        if label >= m:
            y[label - m] = first[i][-1]
    return _shares(x), _shares(y)


def _whole(payoff: Float) -> list[list[int]]:
    """Payoffs as integers >= 1, in one unit, with nothing rounded."""
    exact = [[Fraction(float(v)) for v in row] for row in payoff]
    unit = max(f.denominator for row in exact for f in row)
    low = min(f for row in exact for f in row)
    return [[int((f - low) * unit) + 1 for f in row] for row in exact]


def _pivot(tableau: Tableau, basis: list[int], entering: int, slack: range, last: int) -> tuple[int, int]:
    """One integer pivot: the label that leaves, and the pivot. Least ratios by (constant, slack columns)."""
    best = -1
    for i, row in enumerate(tableau):
        if row[entering] > 0 and (best < 0 or _less(row, tableau[best], entering, slack)):
            best = i
    chosen = tableau[best]
    pivot = chosen[entering]
    for i, row in enumerate(tableau):
        if i != best:
            factor = row[entering]
            tableau[i] = [(pivot * a - factor * b) // last for a, b in zip(row, chosen, strict=True)]
    leaving, basis[best] = basis[best], entering
    return leaving, pivot


def _less(row: list[int], other: list[int], entering: int, slack: range) -> bool:
    for c in (-1, *slack):
        mine, theirs = row[c] * other[entering], other[c] * row[entering]
        if mine != theirs:
            return mine < theirs
    return False


def _shares(weight: list[int]) -> Float:
    total = sum(weight)
    return np.array([float(Fraction(w, total)) for w in weight])
