r"""What a step would have cost without one inverter's reactive power: of many, each is paid by its own difference.

All inverters are paid the same, what the step pays for the whole feeder, G. What inverter i is worth is

.. math:: D_i = G(q) - G(q_{-i}, 0),

the others' q as it was. Both have the same slope in q_i. But where hundreds explore at once, G tells one of them next
to nothing, and D_i what it did: the noise of the others is in both terms and goes out. Of a few it is the other way
round, as q = 0 is far from what is explored: there G is what is learned from.

What an inverter adds to the loss is taken to second order, :math:`g_i q_i - R_{ii} q_i^2` with g the slope by the
flow's own currents, and what it adds to voltages to first, :math:`X_{ki} q_i / (v_k v_i^2)`: buses that leave its path
at the same bus move alike, so the worst voltage without it is looked for along its path and not bus by bus.

Source: Wolpert and Tumer (2001), "Optimal payoff functions for members of collectives".
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.congestion import Bool, Float
from games.lean import LEAN, ROOMY
from hybridalloc.problems.voltage.core import PRECISE, injected, path_sum, slopes_along
from hybridalloc.problems.voltage.reward import cost_kw, counted
from hybridalloc.problems.voltage.setting import VoltageSetting


def cost_without(s: VoltageSetting, p: Float, q: Float, level: Float, solved: Bool) -> Float:
    """(E, N) kW that the step costs were an inverter's own q 0, on net loads p, q (E, B) with ``level`` (E, N) Mvar fed
    in; where that has no flow (``solved`` (E,)), what none costs."""
    loss, over = np.zeros(level.shape), np.zeros(level.shape)
    fed = np.where(solved[:, None], level, 0.0)
    without(s.net.tree, s.net.inverter, p, q, fed, s.low, s.high, loss, over)
    return cost_kw(*counted(loss, over, np.repeat(solved[:, None], level.shape[1], 1) & np.isfinite(loss)))


@njit(**LEAN)
def extremes(parent, voltage, own, best, which, second):
    """Fill, by bus, the greatest ``voltage`` at or below it (``own``); of its branches' the greatest (``best``), whose
    that is (``which``) and the next (``second``)."""
    for k in range(len(parent)):
        best[k], second[k], which[k] = -np.inf, -np.inf, -1
    for k in range(len(parent) - 1, 0, -1):
        own[k] = max(voltage[k], best[k])
        up = parent[k]
        if own[k] > best[up]:
            best[up], second[up], which[up] = own[k], best[up], k
        elif own[k] > second[up]:
            second[up] = own[k]


@njit(**ROOMY)
def without(tree, inverter, p, q, level, low, high, loss, over):
    """Fill, for each inverter left out of E flows, loss (E, N) MW and the worst excess over the band, over (E, N) p.u.;
    see the module. inf where there is no flow to begin with."""
    b, n = p.shape[1], len(inverter)
    net, work, v, slope, below = np.empty(b), np.empty((4, b)), np.empty(b), np.empty(b), np.empty(b)
    own, best, second, which = np.empty((2, b)), np.empty((2, b)), np.empty((2, b)), np.empty((2, b), np.int64)
    r, x = path_sum(tree.parent, tree.r), path_sum(tree.parent, tree.x)
    for e in range(len(p)):
        lost = injected(tree, inverter, p[e], q[e], level[e], PRECISE, net, work, v, np.bool_(False))
        if not lost < np.inf:
            loss[e] = np.inf
            continue
        slopes_along(tree, work, v, slope)
        for k in range(b):
            below[k] = -v[k]
        extremes(tree.parent, v, own[0], best[0], which[0], second[0])
        extremes(tree.parent, below, own[1], best[1], which[1], second[1])
        for i in range(n):
            k, child, worst = inverter[i], -1, 0.0
            size = level[e, i]
            loss[e, i] = lost - slope[k] * size + r[k] * size * size / (v[k] * v[k])
            moved = size / (v[k] * v[k])
            while True:
                most = best[0, k] if which[0, k] != child else second[0, k]
                least = best[1, k] if which[1, k] != child else second[1, k]
                if k:  # the substation's own voltage is nobody's
                    most, least = max(most, v[k]), max(least, -v[k])
                fall = x[k] * moved / v[k]
                worst = max(worst, most - fall - high, least + fall + low)
                if k == 0:
                    break
                child, k = k, tree.parent[k]
            over[e, i] = worst
