"""The moves of a packing game, compiled: who fits, what a place costs, replies, admission and trades.

``g`` is a :class:`games.packing.Packing`; ``used`` (R,) is taken of ``free`` (R,); agents are at ``option`` (N,).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import LEAN, ROOMY

ROUNDING = 1e-9  # of a capacity, relative
GAIN = 1e-12  # what a reply or a trade must save
SWEEPS = 500


@njit(**ROOMY)
def settle(g, order, option, used, trade):
    """Admission, replies and trades from where agents stand until nothing changes; whether it came to that."""
    free = g.capacity * (1.0 + ROUNDING) + 1e-300
    for k in range(len(order)):
        i = order[k]
        o = g.stay[i]
        if o > 0 and g.ok[i, o] and fits(g, free, used, i, o):
            seat(g, used, i, o, option)
    evicted, trial = np.zeros(len(option), np.bool_), np.zeros(len(used))
    for _ in range(SWEEPS):
        for _ in range(SWEEPS):
            if not _replies(g, free, option, used):
                break
        changed = False
        for k in range(len(order)):
            i = order[k]
            if option[i] == 0:
                o = cheapest(g, free, used, i)
                if o > 0:
                    seat(g, used, i, o, option)
                    changed = True
        if trade:
            for i in range(len(option)):
                changed |= _trade(g, free, option, used, i)
        if changed:
            continue
        for k in range(len(order)):
            i = order[k]
            if option[i] == 0:
                changed = _shift_one(g, free, option, used, i) or _displace(g, free, option, used, i, evicted, trial)
            if changed:
                break
        if not changed:
            return True
    return False


@njit(**ROOMY)
def seat_asked(g, order, asked, option, used):
    free = g.capacity * (1.0 + ROUNDING) + 1e-300
    for k in range(len(order)):
        i = order[k]
        o = asked[i]
        if 0 < o < g.rows.shape[1] and g.ok[i, o] and fits(g, free, used, i, o):
            seat(g, used, i, o, option)


@njit(**ROOMY)
def serve_in_order(g, order, strict, option, used):
    free = g.capacity * (1.0 + ROUNDING) + 1e-300
    for k in range(len(order)):
        i = order[k]
        o = cheapest(g, free, used, i)
        if o > 0:
            seat(g, used, i, o, option)
        elif strict:
            return


@njit(**ROOMY)
def serve_pairs(g, who, where, option, used):
    """Of agents and places (K,) one pair after the other, for who has none yet and as far as there is room."""
    free = g.capacity * (1.0 + ROUNDING) + 1e-300
    for k in range(len(who)):
        if option[who[k]] == 0 and g.ok[who[k], where[k]] and fits(g, free, used, who[k], where[k]):
            seat(g, used, who[k], where[k], option)


@njit(**LEAN)
def potential(g, r, load):
    """V_r at a load, straight between the curve's points; on beyond the last by its last slope."""
    steps = g.curve.shape[1] - 1
    if g.capacity[r] <= 0.0:
        return g.curve[r, 0]
    x = load / g.capacity[r] * steps
    k = min(int(x), steps - 1)
    return g.curve[r, k] + (x - k) * (g.curve[r, k + 1] - g.curve[r, k])


@njit(**LEAN)
def cost_of(g, used, i, o):
    """Agent i's cost of option o beside ``used`` (R,), itself not in it."""
    cost = g.private[i, o]
    for s in range(g.rows.shape[2]):
        r = g.rows[i, o, s]
        if r >= 0:
            before = used[r]
            for q in range(s):  # a resource that an earlier leg uses too
                if g.rows[i, o, q] == r:
                    before += g.demand[i, o, q]
            cost += potential(g, r, before + g.demand[i, o, s]) - potential(g, r, before)
    return cost


@njit(**LEAN)
def fits(g, free, used, i, o):
    """Whether agent i's option o is within ``free`` (R,) beside ``used`` (R,)."""
    for s in range(g.rows.shape[2]):
        r = g.rows[i, o, s]
        if r >= 0:
            more = 0.0
            for q in range(g.rows.shape[2]):
                if g.rows[i, o, q] == r:
                    more += g.demand[i, o, q]
            if used[r] + more > free[r]:
                return False
    return True


@njit(**LEAN)
def seat(g, used, i, o, option):
    option[i] = o
    for s in range(g.rows.shape[2]):
        if g.rows[i, o, s] >= 0:
            used[g.rows[i, o, s]] += g.demand[i, o, s]


@njit(**LEAN)
def leave(g, used, i, option):
    for s in range(g.rows.shape[2]):
        if g.rows[i, option[i], s] >= 0:
            used[g.rows[i, option[i], s]] -= g.demand[i, option[i], s]
    option[i] = 0


@njit(**LEAN)
def cheapest(g, free, used, i):
    """The cheapest place where agent i fits, the first of equals; 0 for none."""
    best, least = 0, np.inf
    for o in range(1, g.rows.shape[1]):
        if g.ok[i, o] and fits(g, free, used, i, o):
            cost = cost_of(g, used, i, o)
            if cost < least:
                best, least = o, cost
    return best


@njit(**LEAN)
def _replies(g, free, option, used):
    """One round of best responses of the holders; whether any moved."""
    moved = False
    for i in range(len(option)):
        now = option[i]
        if now == 0 or pinned(g, i, now):
            continue
        leave(g, used, i, option)
        o = cheapest(g, free, used, i)
        if o == 0 or cost_of(g, used, i, o) >= cost_of(g, used, i, now) - GAIN:
            o = now
        seat(g, used, i, o, option)
        moved |= o != now
    return moved


@njit(**LEAN)
def _shift_one(g, free, option, used, i):
    """Seat agent i by moving one holder to another place; whether that worked. Nobody loses a place."""
    for o in range(1, g.rows.shape[1]):
        if not g.ok[i, o]:
            continue
        for j in range(len(option)):
            now = option[j]
            if j == i or now == 0 or pinned(g, j, now) or not _meet(g, i, o, j, now):
                continue
            leave(g, used, j, option)
            if fits(g, free, used, i, o):
                seat(g, used, i, o, option)
                to = cheapest(g, free, used, j)
                if to > 0:
                    seat(g, used, j, to, option)
                    return True
                leave(g, used, i, option)
            seat(g, used, j, now, option)
    return False


@njit(**LEAN)
def _trade(g, free, option, used, i):
    """Put agent i on a place that one other leaves, for another or, of its own class and where i had none, for none,
    whichever lowers the potential most; whether any did."""
    now, n = option[i], len(option)
    if now > 0 and pinned(g, i, now):
        return False
    gain, to, other, goes = GAIN, -1, -1, -1
    if now > 0:
        leave(g, used, i, option)
    for j in range(n):
        at = option[j]
        if j == i or at == 0 or pinned(g, j, at):
            continue
        met = False
        for o in range(1, g.rows.shape[1]):
            met = met or (g.ok[i, o] and o != now and _meet(g, i, o, j, at))
        if not met:
            continue
        before = g.private[i, 0] if now == 0 else cost_of(g, used, i, now)
        leave(g, used, j, option)
        before += cost_of(g, used, j, at)
        for o in range(1, g.rows.shape[1]):
            if o == now or not g.ok[i, o] or not _meet(g, i, o, j, at) or not fits(g, free, used, i, o):
                continue
            after = cost_of(g, used, i, o)
            _shift(g, used, i, o, 1.0)
            q = cheapest(g, free, used, j)
            if q > 0:
                after += cost_of(g, used, j, q)
            else:
                after += g.private[j, 0] + (g.preempt[j] if at == g.stay[j] else 0.0)
            _shift(g, used, i, o, -1.0)
            if before - after > gain and (q > 0 or (now == 0 and g.rank[i] == g.rank[j])):
                gain, to, other, goes = before - after, o, j, q
        seat(g, used, j, at, option)
    if now > 0:
        seat(g, used, i, now, option)
    if other < 0:
        return False
    if now > 0:
        leave(g, used, i, option)
    leave(g, used, other, option)
    seat(g, used, i, to, option)
    if goes > 0:
        seat(g, used, other, goes, option)
    return True


@njit(**LEAN)
def pinned(g, i, o):
    """Whether agent i holds option o and is never asked to leave it."""
    return o == g.stay[i] and g.preempt[i] == np.inf


@njit(**LEAN)
def _meet(g, i, o, j, q):
    """Whether agent i's option o and agent j's option q share a resource."""
    for s in range(g.rows.shape[2]):
        for t in range(g.rows.shape[2]):
            if g.rows[i, o, s] >= 0 and g.rows[i, o, s] == g.rows[j, q, t]:
                return True
    return False


@njit(**LEAN)
def _displace(g, free, option, used, i, evicted, trial):
    """Seat agent i at the expense of lower classes, as few and as low as will do; whether that worked."""
    best, least = 0, np.inf
    for o in range(1, g.rows.shape[1]):
        if g.ok[i, o]:
            cost = _evict(g, free, option, used, i, o, evicted, trial)
            if cost < least:
                best, least = o, cost
    if best == 0:
        return False
    _evict(g, free, option, used, i, best, evicted, trial)
    for j in range(len(option)):
        if evicted[j]:
            leave(g, used, j, option)
    seat(g, used, i, best, option)
    return True


@njit(**LEAN)
def _evict(g, free, option, used, i, o, evicted, trial):
    """Mark who of lower classes gives up its place for agent i on option o: the lowest class first, of equals the
    cheapest to move, then who need not be. Its cost with what that costs; inf where it is not worth it or no use."""
    for r in range(len(used)):
        trial[r] = used[r]
    for j in range(len(option)):
        evicted[j] = False
    while not fits(g, free, trial, i, o):
        pick, lowest, price = -1, -1, np.inf
        for j in range(len(option)):
            lower = option[j] > 0 and not evicted[j] and g.rank[j] > g.rank[i]
            if lower and _helps(g, free, trial, i, o, j, option[j]):
                cost = g.preempt[j] if option[j] == g.stay[j] else 0.0
                if cost < np.inf and (g.rank[j] > lowest or (g.rank[j] == lowest and cost < price)):
                    pick, lowest, price = j, g.rank[j], cost
        if pick < 0:
            return np.inf
        evicted[pick] = True
        _shift(g, trial, pick, option[pick], -1.0)
    total = 0.0
    for j in range(len(option)):  # who was marked early may not be needed in the end
        if evicted[j]:
            _shift(g, trial, j, option[j], 1.0)
            if fits(g, free, trial, i, o):
                evicted[j] = False
                continue
            _shift(g, trial, j, option[j], -1.0)
            total += g.preempt[j] if option[j] == g.stay[j] else 0.0
    if total > 0.0 and total >= g.private[i, 0] - g.private[i, o]:
        return np.inf
    return cost_of(g, trial, i, o) + total


@njit(**LEAN)
def _helps(g, free, used, i, o, j, q):
    """Whether agent j on option q uses a resource that is short for agent i on option o."""
    for s in range(g.rows.shape[2]):
        r = g.rows[i, o, s]
        if r < 0:
            continue
        more = 0.0
        for t in range(g.rows.shape[2]):
            if g.rows[i, o, t] == r:
                more += g.demand[i, o, t]
        if used[r] + more > free[r]:
            for t in range(g.rows.shape[2]):
                if g.rows[j, q, t] == r and g.demand[j, q, t] > 0.0:
                    return True
    return False


@njit(**LEAN)
def _shift(g, used, i, o, sign):
    for s in range(g.rows.shape[2]):
        if g.rows[i, o, s] >= 0:
            used[g.rows[i, o, s]] += sign * g.demand[i, o, s]
