r"""Quadratic games on a tree (:mod:`games.tree`) to their end, by projected Newton, each step in O(B). Compiled.

A step is the least of the quadratic model in the boxes, found by pivoting as in :mod:`games.quadratic_newton`; only the
equations of the levels that are free are not factorised but eliminated along the tree, leaves first. Of a step u let

.. math:: \phi_k = (\textstyle\sum u, \sum w o^2 y, \sum g u) \text{ over what is at k and below}, \quad
          \delta_k = \delta_{parent} + (c, e, e)_k \phi_k

be what flows up through the branch to k, and what its path adds up: cost :math:`\delta_1`, the limits' pull
:math:`\delta_2` and the value :math:`\delta_3 = y`. A free level at k wants
:math:`d u + \nabla + \delta_1 + g \delta_2 = 0`, a charged limit pulls by :math:`w o^2 \delta_3`, so that all that is
at a node is :math:`\phi = P \delta + p` with P a 3 x 3 matrix: a radial network of three phases. Seen from its parent a
node with all that is below it is :math:`(I - P Z)^{-1} (P \delta_{parent} + p)`, and what meets at a node adds up.

Sources: Bertsekas (1982) and Judice and Pires (1994) as in :mod:`games.quadratic_newton`; elimination without fill-in
on a tree is Parter's (1961), "The use of linear graphs in Gauss elimination".
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import LEAN, ROOMY
from games.quadratic_newton import HALVINGS, PATIENCE, PIVOTS, SLOPE, STEPS, UNKNOWN

LEAST = 1e-7  # of a level's whole curvature: one whose own is less is eliminated as if it had so much


@njit(**ROOMY)
def descend_tree(
    parent, place, cost, effect, diagonal, linear, lower, upper, inner, outer, low, high, weight, scale, tolerance,
    level,
):  # fmt: skip
    """Solve E games; ``level`` (E, N) is where to begin and, overwritten, what was found.

    Args:
        parent, cost, effect: (B,). place: (N,). diagonal, linear, lower, upper, inner, scale: (E, N). outer, low, high,
            weight: (E, B), as in :class:`games.tree.TreeBatch`; ``weight`` is one over what a limit gives, ``scale``
            the cost of a level squared.
    """
    n, b = len(place), len(parent)
    gradient, bent, step = np.empty(n), np.empty(n), np.empty(n)
    value, moved_value, pull, bend = np.empty(b), np.empty(b), np.empty(b), np.empty(b)
    one, two, held, asks = np.empty(b), np.empty(b), np.empty(n, np.int8), np.empty(n, np.int8)
    table, right, delta = np.empty((b, 9)), np.empty((b, 3)), np.empty((b, 3))
    for e in range(len(level)):
        x, d, q, g, o, w = level[e], diagonal[e], linear[e], inner[e], outer[e], weight[e]
        under, over, least, most = lower[e], upper[e], low[e], high[e]
        for i in range(n):
            x[i] = min(max(x[i], under[i]), over[i])
        held[:] = UNKNOWN
        for _ in range(STEPS):
            values(parent, place, effect, g, o, x, one, value)
            paths(parent, place, cost, x, one, two)
            for i in range(n):
                bent[i] = two[place[i]] + d[i] * x[i] + q[i]
            for k in range(b):
                above = value[k] - most[k]
                beneath = least[k] - value[k]
                bend[k] = w[k] * o[k] * o[k] * ((above > 0.0) + (beneath > 0.0))  # both, where the limits cross
                pull[k] = o[k] * w[k] * (max(above, 0.0) - max(beneath, 0.0))
            upward(parent, pull)
            two[0] = 0.0
            for k in range(1, b):
                two[k] = two[parent[k]] + effect[k] * pull[k]
            worst, size = 0.0, 0.0
            for i in range(n):
                gradient[i] = bent[i] + g[i] * two[place[i]]
                gap = abs(x[i] - min(max(x[i] - gradient[i] / scale[e, i], under[i]), over[i]))
                worst, size = max(worst, gap), max(size, abs(x[i]), gap)
            if worst <= tolerance * size:
                break
            if not _best_step(
                parent, place, cost, effect, d, g, bend, scale[e], gradient, under, over, x, step, held, asks, table,
                right, delta,
            ):  # fmt: skip
                break
            # along the step until the cost falls, differences term by term so that none cancels
            values(parent, place, effect, g, o, step, one, moved_value)
            paths(parent, place, cost, step, one, two)
            promised, first, second = 0.0, 0.0, 0.0
            for i in range(n):
                promised += gradient[i] * step[i]
                first += bent[i] * step[i]
                second += (two[place[i]] + d[i] * step[i]) * step[i]
            length, moved = 1.0, False
            for _ in range(HALVINGS):
                change = length * (first + 0.5 * length * second)
                for k in range(b):
                    s = length * moved_value[k]
                    change += 0.5 * w[k] * _charged_more(value[k] - most[k], s)
                    change += 0.5 * w[k] * _charged_more(least[k] - value[k], -s)
                if change <= SLOPE * length * promised and promised < 0.0:
                    moved = True
                    break
                length *= 0.5
            if not moved:
                break
            for i in range(n):
                x[i] = min(max(x[i] + length * step[i], under[i]), over[i])


@njit(**LEAN)
def _charged_more(over, by):
    """[over + by]_+^2 - [over]_+^2."""
    if over > 0.0 and over + by > 0.0:
        return by * (2.0 * over + by)
    if over + by > 0.0:
        return (over + by) ** 2
    return -over * over if over > 0.0 else 0.0


@njit(**LEAN)
def upward(parent, amount):
    """What is at each node (B,), overwritten by what is there and below."""
    for k in range(len(parent) - 1, 0, -1):
        amount[parent[k]] += amount[k]


@njit(**LEAN)
def paths(parent, place, factor, x, below, path):
    """Fill ``path`` (B,): ``factor`` times the sum of the levels x (N,) below, summed along each node's path."""
    below[:] = 0.0
    for i in range(len(place)):
        below[place[i]] += x[i]
    upward(parent, below)
    path[0] = 0.0
    for k in range(1, len(parent)):
        path[k] = path[parent[k]] + factor[k] * below[k]


@njit(**LEAN)
def values(parent, place, effect, inner, outer, x, below, value):
    """Fill ``value`` (B,): what the limits are of, at levels x (N,)."""
    below[:] = 0.0
    for i in range(len(place)):
        below[place[i]] += inner[i] * x[i]
    upward(parent, below)
    value[0] = 0.0
    for k in range(1, len(parent)):
        value[k] = value[parent[k]] + effect[k] * below[k]
    for k in range(len(parent)):
        value[k] *= outer[k]


@njit(**LEAN)
def _best_step(
    parent, place, cost, effect, d, g, bend, scale, gradient, under, over, x, step, held, asks, table, right, delta,
):  # fmt: skip
    """The step that is least on the model in the boxes; see :func:`games.quadratic_newton._best_step`."""
    n = len(x)
    if n > 0 and held[0] == UNKNOWN:
        for i in range(n):
            held[i] = 0
            if under[i] == over[i] or (x[i] <= under[i] and gradient[i] > 0.0):
                held[i] = -1
            elif x[i] >= over[i] and gradient[i] < 0.0:
                held[i] = 1
    fewest, patience = n + 1, PATIENCE
    for _ in range(PIVOTS):
        table[:] = 0.0
        right[:] = 0.0
        for i in range(n):
            k = place[i]
            if held[i] != 0:
                step[i] = (under[i] if held[i] < 0 else over[i]) - x[i]
                right[k, 0] += step[i]
                right[k, 2] += g[i] * step[i]
                continue
            a = 1.0 / max(d[i], LEAST * scale[i])
            c = g[i] * a
            table[k, 0] -= a
            table[k, 1] -= c
            table[k, 6] -= c
            table[k, 7] -= g[i] * c
            right[k, 0] -= gradient[i] * a
            right[k, 2] -= gradient[i] * c
        eliminate(parent, cost, effect, bend, table, right, delta)
        count, last = 0, -1
        for i in range(n):
            k = place[i]
            s = gradient[i] + delta[k, 0] + g[i] * delta[k, 1]
            asks[i] = held[i]
            if held[i] == 0:
                step[i] = -s / max(d[i], LEAST * scale[i])
                if not np.isfinite(step[i]):
                    return False
                asks[i] = -1 if x[i] + step[i] < under[i] else (1 if x[i] + step[i] > over[i] else 0)
            elif under[i] < over[i] and (s + d[i] * step[i]) * held[i] > 0.0:
                asks[i] = 0
            if asks[i] != held[i]:
                count, last = count + 1, i
        if count == 0:
            return True
        patience = PATIENCE if count < fewest else patience - 1
        fewest = min(fewest, count)
        for i in range(n):
            if patience > 0 or i == last:
                held[i] = asks[i]
    for i in range(n):  # cut short, or kept turning by rounding
        step[i] = min(max(x[i] + step[i], under[i]), over[i]) - x[i]
    return True


@njit(**LEAN)
def eliminate(parent, cost, effect, bend, table, right, delta):
    """Fill ``delta`` (B, 3); ``table`` (B, 9), row by row, and ``right`` (B, 3) hold P and p of what is at each node
    and are overwritten by what a node with all below is, seen from its parent. ``bend`` (B,): w o^2 of charged limits.
    """
    for k in range(len(parent) - 1, 0, -1):
        t, v, u, m = table[k], right[k], table[parent[k]], right[parent[k]]
        t[5] += bend[k]
        c, f = cost[k], effect[k]
        a00, a01, a02 = 1.0 - t[0] * c, -t[1] * f, -t[2] * f
        a10, a11, a12 = -t[3] * c, 1.0 - t[4] * f, -t[5] * f
        a20, a21, a22 = -t[6] * c, -t[7] * f, 1.0 - t[8] * f
        i00, i01, i02 = a11 * a22 - a12 * a21, a02 * a21 - a01 * a22, a01 * a12 - a02 * a11
        i10, i11, i12 = a12 * a20 - a10 * a22, a00 * a22 - a02 * a20, a02 * a10 - a00 * a12
        i20, i21, i22 = a10 * a21 - a11 * a20, a01 * a20 - a00 * a21, a00 * a11 - a01 * a10
        size = 1.0 / (a00 * i00 + a01 * i10 + a02 * i20)
        for j in range(3):
            x, y, z = size * t[j], size * t[3 + j], size * t[6 + j]
            t[j] = i00 * x + i01 * y + i02 * z
            t[3 + j] = i10 * x + i11 * y + i12 * z
            t[6 + j] = i20 * x + i21 * y + i22 * z
        x, y, z = size * v[0], size * v[1], size * v[2]
        v[0] = i00 * x + i01 * y + i02 * z
        v[1] = i10 * x + i11 * y + i12 * z
        v[2] = i20 * x + i21 * y + i22 * z
        for j in range(9):
            u[j] += t[j]
        for j in range(3):
            m[j] += v[j]
    delta[0] = 0.0
    for k in range(1, len(parent)):
        t, v, a, b = table[k], right[k], delta[parent[k]], delta[k]
        b[0] = a[0] + cost[k] * (t[0] * a[0] + t[1] * a[1] + t[2] * a[2] + v[0])
        b[1] = a[1] + effect[k] * (t[3] * a[0] + t[4] * a[1] + t[5] * a[2] + v[1])
        b[2] = a[2] + effect[k] * (t[6] * a[0] + t[7] * a[1] + t[8] * a[2] + v[2])
