r"""Best-reply polytopes of a bimatrix game: their vertices, and Lemke-Howson paths between them. Compiled.

For payoffs M (P, Q) and a mixed strategy z of the opponent over the Q columns, a vertex of the best-reply
polyhedron { (z, v): M z <= v, z in the simplex } is fixed by a support J of z and as many best replies I:
:math:`M_{IJ} z_J = v`, :math:`\sum z_J = 1`. Degenerate vertices have several such (I, J) and are kept once.

Source: von Stengel (2002), "Computing equilibria for two-person games", sections 2 to 3.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
from numba import njit

from games.congestion import Float
from games.lean import KEPT

TIE = 1e-9  # payoffs are scaled to [0, 1]
CHUNK = 2048


def best_reply_vertices(payoff: Float, size: int, deadline: float) -> list[tuple[Float, int, int]]:
    """Vertices with ``size`` tight best replies: (strategy (Q,), bits of its support, bits of best replies).

    ``payoff`` (P, Q) in [0, 1] is the replier's. Stops at ``deadline`` (time.perf_counter).
    """
    replies, actions = payoff.shape
    own = np.array(list(itertools.combinations(range(actions), size)), np.int64).reshape(-1, size)
    out: dict[tuple[int, ...], tuple[Float, int, int]] = {}
    block = max(1, CHUNK // len(own))
    for rows in _blocks(itertools.combinations(range(replies), size), block):
        if time.perf_counter() > deadline:
            break
        found, strategies = _solve_pairs(payoff, rows, own)
        for z in strategies[:found]:
            key = tuple(np.round(z * 1e7).astype(np.int64))
            if key not in out:
                values = payoff @ z
                best = values >= values.max() - TIE
                out[key] = (z, _bits(z > TIE), _bits(best))
    return list(out.values())


def _blocks(items, size):
    while chunk := list(itertools.islice(items, size)):
        yield np.array(chunk, np.int64)


def _bits(mask: np.ndarray) -> int:
    return int(sum(1 << int(i) for i in np.flatnonzero(mask)))


@njit(**KEPT)
def _solve_pairs(payoff, rows, columns):
    replies, actions = payoff.shape
    size = rows.shape[1]
    out = np.empty((len(rows) * len(columns), actions))
    found = 0
    system = np.empty((size + 1, size + 2))
    for a in range(len(rows)):
        for b in range(len(columns)):
            for i in range(size):
                for j in range(size):
                    system[i, j] = payoff[rows[a, i], columns[b, j]]
                system[i, size] = -1.0
                system[i, size + 1] = 0.0
            for j in range(size):
                system[size, j] = 1.0
            system[size, size] = 0.0
            system[size, size + 1] = 1.0
            if not _eliminate(system):
                continue
            proper = True
            for j in range(size):
                proper = proper and system[j, size + 1] >= -TIE
            if not proper:
                continue
            value = system[size, size + 1]
            for p in range(replies):
                total = 0.0
                for j in range(size):
                    total += payoff[p, columns[b, j]] * system[j, size + 1]
                if total > value + TIE:
                    proper = False
                    break
            if proper:
                out[found] = 0.0
                for j in range(size):
                    out[found, columns[b, j]] = max(system[j, size + 1], 0.0)
                found += 1
    return found, out


@njit(**KEPT)
def _eliminate(system):
    """Gauss-Jordan with row pivoting in place; the last column becomes the solution. False if singular."""
    n = len(system)
    for c in range(n):
        p = c
        for r in range(c + 1, n):
            if abs(system[r, c]) > abs(system[p, c]):
                p = r
        if abs(system[p, c]) < 1e-11:
            return False
        if p != c:
            for k in range(c, n + 1):
                system[p, k], system[c, k] = system[c, k], system[p, k]
        pivot = system[c, c]
        for k in range(c, n + 1):
            system[c, k] /= pivot
        for r in range(n):
            f = system[r, c]
            if r != c and f != 0.0:
                for k in range(c, n + 1):
                    system[r, k] -= f * system[c, k]
    return True


@njit(**KEPT)
def lemke_howson_path(A, B, dropped, most):
    """Follow the path that drops label ``dropped``; payoffs > 0. Returns (row, column, whether it ended).

    Labels 0..M-1 are the row player's actions, M..M+K-1 the column player's. Tableau 0 holds  r + A y = 1
    (basis starts with the slacks r, labels of rows), tableau 1 holds  s + B' x = 1. The ratio test is
    lexicographic, so ties do not make it cycle; at most ``most`` pivots.
    """
    m, k = A.shape
    total = m + k
    # columns: variables by label (a slack in one tableau, an action in the other), then the constants
    first = np.zeros((m, total + 1))
    second = np.zeros((k, total + 1))
    basis_first = np.arange(m)
    basis_second = np.arange(m, total)
    for i in range(m):
        first[i, i] = 1.0
        first[i, total] = 1.0
        for j in range(k):
            first[i, m + j] = A[i, j]
    for j in range(k):
        second[j, m + j] = 1.0
        second[j, total] = 1.0
        for i in range(m):
            second[j, i] = B[i, j]
    entering = dropped
    # an action of the row player enters the tableau of x first
    in_second = dropped < m
    done = False
    for _ in range(most):
        if in_second:
            leaving = _pivot(second, basis_second, entering, m, k)
        else:
            leaving = _pivot(first, basis_first, entering, 0, m)
        if leaving < 0:
            break
        if leaving == dropped:
            done = True
            break
        entering = leaving
        in_second = not in_second
    x = np.zeros(m)
    y = np.zeros(k)
    for j in range(k):
        if basis_second[j] < m:
            x[basis_second[j]] = second[j, total]
    for i in range(m):
        if basis_first[i] >= m:
            y[basis_first[i] - m] = first[i, total]
    if x.sum() <= 0.0 or y.sum() <= 0.0:
        return x, y, False
    return x / x.sum(), y / y.sum(), done


@njit(**KEPT)
def _pivot(tableau, basis, entering, slack, slacks):
    """One pivot; the label that leaves, -1 if none can. Lexicographic on (constant, slack columns)."""
    rows, width = tableau.shape
    best = -1
    for i in range(rows):
        if tableau[i, entering] <= 1e-10:
            continue
        if best < 0:
            best = i
            continue
        order = 0.0
        for c in range(slacks + 1):
            column = width - 1 if c == 0 else slack + c - 1
            order = tableau[i, column] / tableau[i, entering] - tableau[best, column] / tableau[best, entering]
            if abs(order) > 1e-12:
                break
        if order < -1e-12:
            best = i
    if best < 0:
        return -1
    pivot = tableau[best, entering]
    for c in range(width):
        tableau[best, c] /= pivot
    for i in range(rows):
        f = tableau[i, entering]
        if i != best and f != 0.0:
            for c in range(width):
                tableau[i, c] -= f * tableau[best, c]
    leaving = basis[best]
    basis[best] = entering
    return leaving
