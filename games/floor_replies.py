r"""Best responses among those who hold places: floors are hard limits, and count in what each is charged.

With floors :math:`l_i` reserved, the least weighted delay of a resource is

.. math:: D_r = \min \sum_i w_{ir}^2 / (C_r f_i) \quad s.t. \quad f_i \ge l_i, \; \sum_i f_i \le 1

(floors that bind are taken to leave a thousandth at least) which is :math:`L_r^2 / C_r`, L the sum of weights, while
no floor binds. An agent is charged

.. math:: private_i(o) + \sum_{r \in o} \tfrac{1 + toll_r}{2} \, [D_r - D_r(\text{without } i)]
          + \tfrac{1 - toll_r}{2} \, w_{ir}^2 / C_r

With :math:`\sum_r \tfrac{1 + toll}{2} D_r + \tfrac{1 - toll}{2} \sum_i w^2 / C` and the private costs as potential
a move changes both by the same amount. While no floor binds this is the game of :mod:`games.congestion`, whatever the
toll; at toll 1 each pays what it truly adds, and the potential is the social cost itself. A move is allowed only to a
place that fits, never to opting out; so replies end, at an equilibrium of the game that the floors constrain.

Source: Vetta (2002), "Nash equilibria in competitive societies", for marginal-contribution games; Monderer and
Shapley (1996) for the potential.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import KEPT
from games.places import copy_into, least_floors

GAIN = 1e-9  # a move gains more than this, absolutely and of the cost
REST = (
    1e-3  # of a resource is taken to be left by its floors at least: a full one is dear, not beyond what floats compare
)


@njit(**KEPT)
def least_delay(weight, floor, count):
    """min sum w^2 / f with f >= floor, sum f <= 1, of the first ``count`` agents of a resource of capacity 1.

    Floors that bind are taken to leave at least ``REST`` to the others.
    """
    total = 0.0
    for k in range(count):
        total += weight[k]
    left, kept = 1.0, 0.0  # what the floors that bind leave; their delays
    nu = left / total if total > 0.0 else np.inf
    while True:  # f = max(floor, nu w): nu falls from round to round, so what binds goes on binding
        taken, free, kept = 0.0, 0.0, 0.0
        for k in range(count):
            if nu * weight[k] < floor[k]:
                taken += floor[k]
                kept += weight[k] * weight[k] / floor[k]
            else:
                free += weight[k]
        left = max(1.0 - taken, REST)
        if free <= 0.0:
            return kept
        lower = left / free
        if lower >= nu * (1.0 - 1e-15):
            return kept + free * free / left
        nu = lower


@njit(**KEPT)
def replies(t, z, sweeps):
    """Best responses of all holders from where they are; sweeps used, ``sweeps + 1`` where they did not come to rest.

    ``z.used`` and ``z.load`` are summed afresh at the end.
    """
    agents, options = t.ok.shape
    legs, resources = t.rows.shape[2], len(t.capacity)
    floor, best_floor = np.zeros(legs), np.zeros(legs)
    here = np.empty((resources, agents), np.int64)  # holders of each resource
    leg = np.empty((resources, agents), np.int64)
    count = np.zeros(resources, np.int64)
    delay, without, scale = np.zeros(resources), np.zeros(resources), 1.0 / np.sqrt(t.capacity)
    w, low = np.empty(agents + 1), np.empty(agents + 1)
    z.used[:] = 0.0
    for i in range(agents):
        if z.held[i]:
            for s in range(legs):
                r = t.rows[i * t.own, z.option[i], s]
                if r >= 0:
                    here[r, count[r]], leg[r, count[r]] = i, s
                    count[r] += 1
                    z.used[r] += z.floor[i, s]
    for r in range(resources):
        _others(t, z, here, leg, count, scale, r, np.int64(-1), w, low)
        delay[r] = least_delay(w, low, count[r])
    sweep = 0
    while sweep < sweeps:
        moved = False
        for i in range(agents):
            if not z.held[i]:
                continue
            now = z.option[i]
            present = t.private[i, now]
            for s in range(legs):
                r = t.rows[i * t.own, now, s]
                if r >= 0:
                    m = _others(t, z, here, leg, count, scale, r, i, w, low)
                    without[r] = least_delay(w, low, m)
                    present += _charge(t, t.weight[i, now, s], r, delay[r] - without[r])
                    z.used[r] -= z.floor[i, s]
            best, lowest = now, present - GAIN - GAIN * abs(present)
            copy_into(best_floor, z.floor[i])
            for o in range(0 if t.home[i] else 1, options):
                if o == now or not t.ok[i, o] or t.private[i, o] >= lowest:  # nobody is charged less than nothing
                    continue
                if t.home[i]:
                    floor[:] = 0.0
                elif not least_floors(t, i, o, z.used, floor):
                    continue
                cost = t.private[i, o]
                for s in range(legs):
                    r = t.rows[i * t.own, o, s]
                    if r < 0:
                        continue
                    m = _others(t, z, here, leg, count, scale, r, i, w, low)
                    base = without[r] if m < count[r] else delay[r]
                    w[m], low[m] = t.weight[i, o, s] * scale[r], floor[s]
                    cost += _charge(t, t.weight[i, o, s], r, least_delay(w, low, m + 1) - base)
                if cost < lowest:
                    best, lowest = o, cost
                    copy_into(best_floor, floor)
            if best != now:
                moved = True
                for s in range(legs):
                    r = t.rows[i * t.own, now, s]
                    if r >= 0:
                        for k in range(count[r]):
                            if here[r, k] == i:
                                count[r] -= 1
                                here[r, k], leg[r, k] = here[r, count[r]], leg[r, count[r]]
                                break
                        delay[r] = without[r]
                z.option[i] = best
                copy_into(z.floor[i], best_floor)
                for s in range(legs):
                    r = t.rows[i * t.own, best, s]
                    if r >= 0:
                        here[r, count[r]], leg[r, count[r]] = i, s
                        count[r] += 1
                        _others(t, z, here, leg, count, scale, r, np.int64(-1), w, low)
                        delay[r] = least_delay(w, low, count[r])
            for s in range(legs):
                r = t.rows[i * t.own, best, s]
                if r >= 0:
                    z.used[r] += z.floor[i, s]
        sweep += 1
        if not moved:
            break
    else:
        sweep += 1
    z.used[:] = 0.0
    z.load[:] = 0.0
    for r in range(resources):
        for k in range(count[r]):
            z.used[r] += z.floor[here[r, k], leg[r, k]]
            z.load[r] += t.weight[here[r, k], z.option[here[r, k]], leg[r, k]]
    return sweep


@njit(**KEPT)
def _charge(t, weight, r, added):
    """What an agent of this weight pays on resource r to whose least delay it adds ``added``."""
    return 0.5 * (1.0 + t.toll[r]) * added + 0.5 * (1.0 - t.toll[r]) * weight**2 / t.capacity[r]


@njit(**KEPT)
def _others(t, z, here, leg, count, scale, r, i, w, low):
    """Fill weights and floors of resource r's holders without i; their number."""
    m = 0
    for k in range(count[r]):
        j = here[r, k]
        if j != i:
            w[m], low[m] = t.weight[j, z.option[j], leg[r, k]] * scale[r], z.floor[j, leg[r, k]]
            m += 1
    return m
