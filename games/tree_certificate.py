r"""What each agent gains by leaving joint levels of a quadratic game on a tree alone; shares nothing with the solvers.

Everything is read off paths, walked branch by branch from a node to the root; there are no sums of subtrees and no
elimination. Where agent i alone moves by u, node k's value moves by :math:`o_k g_i u` times the effect of the branches
that both paths share, and its cost is

.. math:: \nabla_i u + \tfrac{a_i}{2} u^2 + \sum_k \tfrac{1}{2 give_k} (\text{broken after}^2 - \text{broken before}^2
          - \text{what of it } \nabla_i \text{ has}), \qquad a_i = d_i + \sum_{b \in path} c_b .

The sum is not negative, limits being convex, so that no step gains more than the best of
:math:`-\nabla_i u - a_i u^2/2` in its box. Where that is nothing beside what the costs come to, it is what is told;
otherwise the step is looked for at which the slope, which rises with u, is 0: by Newton's method between two steps that
have it between them.

Source: Nash (1951) for what is measured.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.congestion import Float
from games.lean import ROOMY
from games.tree import TreeBatch

NOTHING = 1e-12  # of what the costs come to: a bound below it is told as it is
TURNS = 200


def tree_gains(game: TreeBatch, level: Float) -> Float:
    """(E, N) what each agent gains, in cost, by its best deviation alone, or a little more where that is next to
    nothing; inf where ``level`` (E, N, 1) is out of its box by more than rounding, or not finite."""
    x = np.asarray(level, np.float64)[..., 0]
    low, high = game.lower[..., 0], game.upper[..., 0]
    gains = np.full(x.shape, np.inf)
    sound = np.isfinite(x) & (np.maximum(low - x, x - high) <= 1e-7 * np.maximum(np.abs(x), 1.0))
    parts = [np.ascontiguousarray(part[..., 0]) for part in (game.diagonal, game.linear, game.inner)]
    for e in np.flatnonzero(sound.all(axis=1)):
        _gains(
            game.parent, game.place, game.cost, game.effect, *(part[e] for part in parts), low[e] - x[e],
            high[e] - x[e], game.outer[e], game.low[e], game.high[e], game.give[e], x[e], gains[e],
        )  # fmt: skip
    return gains


@njit(**ROOMY)
def _gains(parent, place, cost, effect, d, q, g, under, over, outer, low, high, give, x, gains):
    n, b = len(place), len(parent)
    sent, drawn, pulled = np.zeros(b), np.zeros(b), np.zeros(b)
    for i in range(n):
        k = place[i]
        while k:
            sent[k] += x[i]
            drawn[k] += g[i] * x[i]
            k = parent[k]
    value = np.zeros(b)
    for k in range(b):
        at = k
        while at:
            value[k] += effect[at] * drawn[at]
            at = parent[at]
        value[k] *= outer[k]
        broken = max(value[k] - high[k], 0.0) - max(low[k] - value[k], 0.0)
        at = k if broken != 0.0 else 0
        while at:
            pulled[at] += outer[k] * broken / give[k]
            at = parent[at]
    slope, curve, whole = np.empty(n), np.empty(n), 0.0
    for i in range(n):
        slope[i], curve[i] = q[i] + d[i] * x[i], d[i]
        k = place[i]
        while k:
            slope[i] += cost[k] * sent[k] + g[i] * effect[k] * pulled[k]
            curve[i] += cost[k]
            k = parent[k]
        whole += abs(q[i] * x[i]) + 0.5 * curve[i] * x[i] * x[i]
    reach, on = np.zeros(b), np.zeros(b, np.bool_)
    for i in range(n):
        end = min(under[i], 0.0) if slope[i] > 0.0 else max(over[i], 0.0)
        u = end
        if curve[i] > 0.0 and abs(slope[i]) < curve[i] * abs(end):
            u = -slope[i] / curve[i]
        gains[i] = 0.0 if end == 0.0 or slope[i] == 0.0 else -(slope[i] + 0.5 * curve[i] * u) * u
        if gains[i] <= NOTHING * whole:
            continue
        on[:] = False
        k = place[i]
        while k:
            on[k] = True
            k = parent[k]
        for k in range(1, b):
            reach[k] = reach[parent[k]] + (effect[k] if on[k] else 0.0)
        near, far = 0.0, end  # the slope at ``near`` leads on, that at ``far`` leads back, or it is the box's end
        u = end
        for turn in range(TURNS):
            s, rise = slope[i] + curve[i] * u, curve[i]
            for k in range(1, b):
                by = outer[k] * reach[k] * g[i]
                if by != 0.0:
                    above, beneath = value[k] - high[k], low[k] - value[k]
                    s += by / give[k] * (max(above + by * u, 0.0) - max(above, 0.0))
                    s -= by / give[k] * (max(beneath - by * u, 0.0) - max(beneath, 0.0))
                    rise += by * by / give[k] * ((above + by * u > 0.0) + (beneath - by * u > 0.0))
            if s == 0.0 or (turn == 0 and s * slope[i] > 0.0):
                break
            if s * slope[i] > 0.0:
                near = u
            else:
                far = u
            now = u - s / rise if rise > 0.0 else 0.5 * (near + far)
            if not min(near, far) < now < max(near, far):
                now = 0.5 * (near + far)
            if abs(now - u) <= 1e-13 * abs(end):
                break
            u = now
        change = (slope[i] + 0.5 * curve[i] * u) * u
        for k in range(1, b):
            by = outer[k] * reach[k] * g[i] * u
            above, beneath = value[k] - high[k], low[k] - value[k]
            change += 0.5 / give[k] * _bent(above, by)
            change += 0.5 / give[k] * _bent(beneath, -by)
        gains[i] = max(-change, 0.0)


@njit(**ROOMY)
def _bent(over, by):
    """[over + by]_+^2 less its tangent at by = 0, without taking something large from something large."""
    if over > 0.0 and over + by > 0.0:
        return by * by
    if over > 0.0:  # the parabola's end: (over + by)^2 is not paid any more
        return by * by - (over + by) ** 2
    return max(over + by, 0.0) ** 2
