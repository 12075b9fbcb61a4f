"""Single changes of option worth a try: those that cost an agent least more than what it has.

In a game that is only a model of what a choice is settled to, the options that are nearly as cheap as an agent's own
are those that may prove better there. ``load`` (R,) is the sum of the live agents' weights on each resource; ``t`` a
game, see :class:`games.places.Table`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import KEPT, LEAN


@njit(**LEAN)
def cost_of(t, load, i, o, here):
    """Agent i's cost of option ``o`` in the game at the present loads, where it is on ``here`` now."""
    total = t.private[i, o]
    a = i * t.own
    for s in range(t.rows.shape[2]):
        r = t.rows[a, o, s]
        if r >= 0:
            own, others = t.weight[i, o, s], load[r]
            for q in range(t.rows.shape[2]):
                if t.rows[a, here, q] == r:
                    others -= t.weight[i, here, q]
            total += own * (own + (1.0 + t.toll[r]) * others) / t.capacity[r]
    return total


@njit(**LEAN)
def candidates(t, load, allowed, i, here, best, regret):
    """Fill ``best`` (W,) with agent i's options of least cost at the present loads, but for ``here``, and ``regret``
    (W,) with what they cost more than it; -1 and inf for none."""
    best[:] = -1
    regret[:] = np.inf
    now = cost_of(t, load, i, here, here)
    for o in range(t.rows.shape[1]):
        if o == here or not allowed[i, o]:
            continue
        more = cost_of(t, load, i, o, here) - now
        m = len(best)
        while m > 0 and more < regret[m - 1]:
            m -= 1
            if m + 1 < len(best):
                best[m + 1], regret[m + 1] = best[m], regret[m]
        if m < len(best):
            best[m], regret[m] = o, more


@njit(**KEPT)
def queue(t, load, allowed, active, option, most, best):
    """Who is visited, by what its cheapest other option costs more than its own, and the regret that the first ``most``
    changes of all stay below."""
    n, width = len(option), len(best)
    regret = np.full((n, width), np.inf)
    for i in range(n):
        if active[i]:
            candidates(t, load, allowed, i, option[i], best, regret[i])
    every = np.sort(regret.ravel())
    reach = every[most - 1] if most < len(every) else np.inf
    order = np.argsort(regret[:, 0], kind="mergesort")
    count = 0
    while count < n and regret[order[count], 0] <= reach and regret[order[count], 0] < np.inf:
        count += 1
    return order[:count], reach


@njit(**LEAN)
def weigh(t, load, i, o, sign):
    """Add agent i's weights on option ``o`` to ``load``, or take them away with ``sign`` -1."""
    for s in range(t.rows.shape[2]):
        r = t.rows[i * t.own, o, s]
        if r >= 0:
            load[r] += sign * t.weight[i, o, s]


@njit(**LEAN)
def enter(member, size, k, i):
    """Put agent i on the list of group k, which stays ascending; ``member`` (K, N), ``size`` (K,)."""
    m = size[k]
    while m > 0 and member[k, m - 1] > i:
        member[k, m] = member[k, m - 1]
        m -= 1
    member[k, m] = i
    size[k] += 1


@njit(**LEAN)
def strike(member, size, k, i):
    """Take agent i off it."""
    m = 0
    while member[k, m] != i:
        m += 1
    size[k] -= 1
    for j in range(m, size[k]):
        member[k, j] = member[k, j + 1]
