r"""Quadratic games on a tree (:mod:`games.tree`) by an interior-point method, two eliminations a round. Compiled.

Pivoting on who is at a bound may turn in circles where many levels share few branches. From within the boxes nothing
turns: with slacks s > 0 and prices y > 0 of the limits, which give :math:`A x + s = b + y / w`, and z > 0 of the boxes,
Newton's method follows :math:`s y = \mu`, and likewise of the boxes, down to :math:`\mu = 0` by a prediction and a
correction a round. A row then counts in the equations by :math:`y / (s + y / w) < w`, so that they are those of a step
of :mod:`games.tree_newton`. What is found is for that to finish: levels whose price is more than their room are put at
their bound.

Source: Mehrotra (1992), "On the implementation of a primal-dual interior point method".
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import LEAN, ROOMY
from games.tree_newton import LEAST, eliminate, paths, upward, values

TURNS = 60
NEAR = 1e-11  # of the first round's: products s y at which it ends
INWARD = 0.05  # of a box, by which a start is kept off its bounds
SHORT = 0.995  # of the way to where something would be 0


@njit(**ROOMY)
def from_within(
    parent, place, cost, effect, d, q, under, over, g, o, least, most, w, scale, x
):  # fmt: skip
    """Solve one game; ``x`` (N,) is where to begin and, overwritten, what was found. Otherwise see
    :func:`games.tree_newton.descend_tree`, without the axis of games.

    Returns:
        Whether it came to its end.
    """
    n, b = len(place), len(parent)
    one, two, value, pull, bend, aside = np.empty(b), np.empty(b), np.empty(b), np.empty(b), np.empty(b), np.empty(b)
    table, right, delta = np.empty((b, 9)), np.empty((b, 3)), np.empty((b, 3))
    # of limits above, of limits below
    s, y, ds = np.zeros((2, b)), np.zeros((2, b)), np.zeros((2, b))
    dy, wrong, want = np.zeros((2, b)), np.zeros((2, b)), np.zeros((2, b))
    room, z, dz, tau = (
        np.zeros((2, n)),
        np.zeros((2, n)),
        np.zeros((2, n)),
        np.zeros((2, n)),
    )  # to the lower and to the upper bound
    force, dx, curve = np.empty(n), np.zeros(n), np.empty(n)
    ends = np.zeros((2, n), np.bool_)
    held = np.zeros((2, b), np.bool_)
    for i in range(n):
        ends[0, i], ends[1, i] = np.isfinite(under[i]), np.isfinite(over[i])
        if under[i] == over[i]:
            ends[0, i] = ends[1, i] = False
            x[i] = under[i]
        elif ends[0, i] and ends[1, i]:
            inward = INWARD * (over[i] - under[i])
            x[i] = min(max(x[i], under[i] + inward), over[i] - inward)
        elif ends[0, i]:
            x[i] = max(x[i], under[i] + INWARD)
        elif ends[1, i]:
            x[i] = min(x[i], over[i] - INWARD)
    for k in range(1, b):
        held[0, k], held[1, k] = np.isfinite(most[k]), np.isfinite(least[k])
    count = ends.sum() + held.sum()
    values(parent, place, effect, g, o, x, one, value)
    _charge(held, value, least, most, w, pull)
    _pull(parent, o, effect, pull, aside)
    paths(parent, place, cost, x, one, two)
    mu = 0.0
    for i in range(n):
        if ends[0, i] or ends[1, i]:
            width = over[i] - under[i] if ends[0, i] and ends[1, i] else 1.0
            mu += 0.1 * abs(q[i] + d[i] * x[i] + two[place[i]] + g[i] * aside[place[i]]) * width / n
    if count == 0:
        mu = 0.0
    elif mu == 0.0:
        mu = 1e-12
    for k in range(b):
        for side in range(2):
            if held[side, k]:
                c = most[k] - value[k] if side == 0 else value[k] - least[k]
                root = np.sqrt(c * c + 4.0 * mu / w[k])
                s[side, k] = 0.5 * (c + root) if c > 0.0 else 2.0 * mu / w[k] / (root - c)
                y[side, k] = mu / s[side, k]
    for i in range(n):
        for side in range(2):
            if ends[side, i]:
                room[side, i] = x[i] - under[i] if side == 0 else over[i] - x[i]
                z[side, i] = mu / room[side, i]
    first = mu
    for _ in range(TURNS):
        values(parent, place, effect, g, o, x, one, value)
        paths(parent, place, cost, x, one, two)
        for i in range(n):
            force[i] = q[i] + d[i] * x[i] + two[place[i]] - z[0, i] + z[1, i]
        for k in range(b):
            pull[k] = y[0, k] - y[1, k]
            wrong[0, k] = most[k] + y[0, k] / w[k] - value[k] - s[0, k] if held[0, k] else 0.0
            wrong[1, k] = value[k] - least[k] + y[1, k] / w[k] - s[1, k] if held[1, k] else 0.0
        _pull(parent, o, effect, pull, aside)
        worst, whole = 0.0, 0.0
        for i in range(n):
            force[i] += g[i] * aside[place[i]]
            if under[i] < over[i]:
                worst = max(worst, abs(force[i]))
                whole = max(whole, abs(q[i]) + abs(two[place[i]]) + abs(g[i] * aside[place[i]]))
        mu = ((s * y).sum() + (room * z).sum()) / max(count, 1)
        if worst <= 1e-9 * whole and mu <= NEAR * first:
            break
        centre, length = 0.0, 1.0
        ds[:], dy[:], dz[:] = 0.0, 0.0, 0.0
        dx[:] = 0.0
        for correct in range(2):
            for i in range(n):
                curve[i] = d[i]
                force_i = force[i]
                for side in range(2):
                    if ends[side, i]:
                        moved = dx[i] if side == 0 else -dx[i]
                        tau[side, i] = centre - room[side, i] * z[side, i] - moved * dz[side, i]
                        curve[i] += z[side, i] / room[side, i]
                        force_i -= tau[side, i] / room[side, i] * (1.0 if side == 0 else -1.0)
                dx[i] = force_i  # for now what the step is to undo
            for k in range(b):
                bend[k], pull[k] = 0.0, 0.0
                for side in range(2):
                    if held[side, k]:
                        want[side, k] = centre - s[side, k] * y[side, k] - ds[side, k] * dy[side, k]
                        whole_k = s[side, k] + y[side, k] / w[k]
                        bend[k] += y[side, k] / whole_k * o[k] * o[k]
                        part = (want[side, k] - y[side, k] * wrong[side, k]) / whole_k
                        pull[k] += part if side == 0 else -part
            _pull(parent, o, effect, pull, aside)
            table[:] = 0.0
            right[:] = 0.0
            for i in range(n):
                if under[i] < over[i]:
                    dx[i] += g[i] * aside[place[i]]
                    _put(table[place[i]], right[place[i]], g[i], dx[i], 1.0 / max(curve[i], LEAST * scale[i]))
            eliminate(parent, cost, effect, bend, table, right, delta)
            for i in range(n):
                k = place[i]
                if under[i] < over[i]:
                    dx[i] = -(dx[i] + delta[k, 0] + g[i] * delta[k, 1]) / max(curve[i], LEAST * scale[i])
                else:
                    dx[i] = 0.0
                for side in range(2):
                    if ends[side, i]:
                        moved = dx[i] if side == 0 else -dx[i]
                        dz[side, i] = (tau[side, i] - z[side, i] * moved) / room[side, i]
            values(parent, place, effect, g, o, dx, one, value)
            for k in range(b):
                for side in range(2):
                    if held[side, k]:
                        rise = value[k] if side == 0 else -value[k]
                        dy[side, k] = (want[side, k] - y[side, k] * (wrong[side, k] - rise)) / (
                            s[side, k] + y[side, k] / w[k]
                        )
                        ds[side, k] = wrong[side, k] + dy[side, k] / w[k] - rise
            length = 1.0
            for i in range(n):
                for side in range(2):
                    if ends[side, i]:
                        moved = dx[i] if side == 0 else -dx[i]
                        length = _least(length, room[side, i], moved)
                        length = _least(length, z[side, i], dz[side, i])
            for k in range(b):
                for side in range(2):
                    if held[side, k]:
                        length = _least(length, s[side, k], ds[side, k])
                        length = _least(length, y[side, k], dy[side, k])
            if correct == 0:
                after = ((s + length * ds) * (y + length * dy)).sum()
                for i in range(n):
                    for side in range(2):
                        if ends[side, i]:
                            moved = dx[i] if side == 0 else -dx[i]
                            after += (room[side, i] + length * moved) * (z[side, i] + length * dz[side, i])
                centre = mu * (after / max(count, 1) / mu) ** 3 if mu > 0.0 else 0.0
        length = length if length >= 1.0 else SHORT * length
        if not length > 1e-12:
            return False
        for i in range(n):
            x[i] += length * dx[i]
            for side in range(2):
                if ends[side, i]:
                    moved = dx[i] if side == 0 else -dx[i]
                    room[side, i] += length * moved
                    z[side, i] += length * dz[side, i]
        s += length * ds
        y += length * dy
    for i in range(n):
        if ends[0, i] and z[0, i] > room[0, i] * scale[i]:
            x[i] = under[i]
        elif ends[1, i] and z[1, i] > room[1, i] * scale[i]:
            x[i] = over[i]
        x[i] = min(max(x[i], under[i]), over[i])
    return np.isfinite(x).all()


@njit(**LEAN)
def _least(length, of, by):
    """``length`` or, if that is less, how far ``of`` + length ``by`` stays above 0."""
    return min(length, -of / by) if by < 0.0 else length


@njit(**LEAN)
def _put(t, v, g, force, a):
    """Add a level to what is at its node: ``force`` is what its step is to undo, ``a`` one over its curvature."""
    t[0] -= a
    t[1] -= g * a
    t[6] -= g * a
    t[7] -= g * g * a
    v[0] -= force * a
    v[2] -= g * force * a


@njit(**LEAN)
def _charge(held, value, least, most, w, pull):
    """Fill ``pull`` (B,) by what each node's limits charge for a unit of its value."""
    for k in range(len(value)):
        pull[k] = w[k] * max(value[k] - most[k], 0.0) if held[0, k] else 0.0
        pull[k] -= w[k] * max(least[k] - value[k], 0.0) if held[1, k] else 0.0


@njit(**LEAN)
def _pull(parent, o, effect, pull, aside):
    """Fill ``aside`` (B,): what ``pull`` (B,) of the nodes' values, overwritten, comes to along each path."""
    for k in range(len(parent)):
        pull[k] *= o[k]
    upward(parent, pull)
    aside[0] = 0.0
    for k in range(1, len(parent)):
        aside[k] = aside[parent[k]] + effect[k] * pull[k]
