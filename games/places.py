r"""Places: options with the resources that serving an agent there takes, reserved.

Agent i is served on option o if its legs (the option's resources in turn) end within ``slack``: with a share
:math:`f_s` of leg s, which takes ``seconds`` alone, :math:`\sum_s sec_s / f_s \le slack`. The *floors* of a place are
the shares reserved for that. For one leg they are sec / slack. For several they are the least, weighed by what is
left of each resource:

.. math:: \min \sum_s f_s / room_s \quad s.t. \quad \sum_s sec_s / f_s \le slack, \; f_s \le room_s

whose solution is :math:`f_s \propto \sqrt{sec_s room_s}`, clamped at the room one leg after the other. It has a
solution exactly if :math:`\sum_s sec_s / room_s \le slack`, so whether a place fits does not depend on the weights.

Source: Boyd and Vandenberghe (2004), section 5.5.3, for the conditions; at most S legs are clamped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from games.congestion import Bool, Float, Int
from games.lean import KEPT, LEAN

FULL = 1.0 + 5e-13  # what a resource's floors may sum to: rounding, and less than what settling allows
LEAST = 1e-9  # a room below this is none
EFFORT = 200_000  # places tried in making room, about 10 ms


class Places(NamedTuple):
    """What serving takes in E games of N agents, O options, S legs an option.

    Attributes:
        seconds: (E, N, O, S) s that each leg takes with its resource alone; 0 for a leg that needs nothing.
        slack: (E, N, O) s that the legs may take together; <= 0 where the deadline cannot hold.
        cap: (E, N, O) largest share that the agent may have on any leg (a power limit); inf for none.
        acceptable: (E, N, O) it is allowed and costs, alone, no more than opting out. Option 0 only for ``home``.
        rank: (E, N) class, 0 the highest; see :func:`classes`.
        home: (E, N) served without a place, whatever it takes: it holds no floors and is nobody's rival for one.
        late: (E, N) cost of being served late. Who gets no place then takes whatever is cheapest with what floors
            leave, opting out included; nan: it stays where it wished to be, and gets what is left there.
        effort: places that may be tried in making room for one more; 0 where nobody is moved to make any.
        stay: (E, N) option that each agent had before and that is kept for it where that is possible, 0 for none; None
            where nobody had any.
    """

    seconds: Float
    slack: Float
    cap: Float
    acceptable: Bool
    rank: Int
    home: Bool
    late: Float
    effort: int = EFFORT
    stay: Int | None = None


TABLE = ("seconds", "slack", "cap", "acceptable", "rank", "home", "late")  # of the places: what compiled code reads


class Table(NamedTuple):
    """One game with its places: what the compiled code reads. Shapes as in :class:`Places`, without E."""

    rows: Int  # (1 or N, O, S) resources of each option, -1 for none: the same for all, or each agent's own
    own: int  # 1 where each agent has its own options, 0 where all have the same
    seconds: Float
    slack: Float
    cap: Float
    ok: Bool
    rank: Int
    home: Bool
    late: Float
    weight: Float  # (N, O, S) on each leg
    capacity: Float  # (R,)
    private: Float  # (N, O)
    toll: Float  # (R,)


class Seats(NamedTuple):
    """Who holds what, changed in place."""

    option: Int  # (N,)
    held: Bool  # (N,) holds a place
    floor: Float  # (N, S) shares reserved
    used: Float  # (R,) sum of the floors
    load: Float  # (R,) sum of the holders' weights
    work: Int  # (1,) effort spent so far


def classes(priority: ArrayLike, gap: float = 0.0) -> Int:
    """(E, N) class of each agent by priority, 0 the highest.

    A class begins where priority is more than ``gap`` below that of the class's first member ("within the gap of
    one another" alone is not transitive).
    """
    rank = np.asarray(priority, np.float64)
    out = np.zeros(rank.shape, np.int64)
    _classes(rank, np.argsort(-rank, axis=1, kind="stable"), float(gap), out)
    return out


@njit(**KEPT)
def _classes(priority, order, gap, out):
    for e in range(priority.shape[0]):
        head, c = np.inf, -1
        for k in range(priority.shape[1]):
            i = order[e, k]
            if c < 0 or priority[e, i] < head - gap:
                head = priority[e, i]
                c += 1
            out[e, i] = c


@njit(**KEPT)
def legs_of(options, weight):
    """(N, O, S) weights on each leg of options (O, S), of weights (N, R) on resources; 0 where a leg has none."""
    out = np.zeros((len(weight), *options.shape))
    for i in range(len(weight)):
        for o in range(options.shape[0]):
            for s in range(options.shape[1]):
                if options[o, s] >= 0:
                    out[i, o, s] = weight[i, options[o, s]]
    return out


@njit(**LEAN)
def copy_into(to, values):
    """Entry by entry: what compiles in a twentieth of the time of a slice."""
    for k in range(len(values)):
        to[k] = values[k]


@njit(**KEPT)
def ascending(values):
    """(K,) indices that sort; ties by index."""
    return np.argsort(values, kind="mergesort")


@njit(**KEPT)
def total(values):
    """Sum of (K,)."""
    out = 0.0
    for k in range(len(values)):
        out += values[k]
    return out


@njit(**LEAN)
def least_floors(t, i, o, used, floor):
    """Fill ``floor`` (S,) with agent i's least floors on option o beside ``used`` (R,); False if it does not fit."""
    legs, a = t.rows.shape[2], i * t.own
    slack = t.slack[i, o]
    cap = min(t.cap[i, o], FULL)
    if legs == 1:
        floor[0] = 0.0
        r = t.rows[a, o, 0]
        if slack <= 0.0:
            return False
        if r < 0 or t.seconds[i, o, 0] <= 0.0:
            return True
        floor[0] = t.seconds[i, o, 0] / slack
        return floor[0] <= FULL - used[r] and floor[0] <= cap * (1.0 + 1e-12)
    if slack <= 0.0:
        return False
    for s in range(legs):
        floor[s] = -1.0 if t.rows[a, o, s] >= 0 and t.seconds[i, o, s] > 0.0 else 0.0
    while True:
        root = 0.0  # sum of sqrt(sec / room) over the legs that are not clamped
        for s in range(legs):
            if floor[s] < 0.0:
                room = min(FULL - used[t.rows[a, o, s]], cap)
                if room <= LEAST:
                    return False
                root += np.sqrt(t.seconds[i, o, s] / room)
        if root == 0.0:
            return slack >= -1e-15
        if slack <= 0.0:
            return False
        clamped = False
        for s in range(legs):
            if floor[s] < 0.0:
                room = min(FULL - used[t.rows[a, o, s]], cap)
                if np.sqrt(t.seconds[i, o, s] * room) * root / slack > room:
                    floor[s] = room
                    slack -= t.seconds[i, o, s] / room
                    clamped = True
                    break
        if not clamped:
            for s in range(legs):
                if floor[s] < 0.0:
                    room = min(FULL - used[t.rows[a, o, s]], cap)
                    floor[s] = np.sqrt(t.seconds[i, o, s] * room) * root / slack
            return True


@njit(**LEAN)
def take(t, z, i, o, floor):
    """Seat agent i at option o with ``floor`` (S,)."""
    z.option[i] = o
    z.held[i] = True
    for s in range(t.rows.shape[2]):
        z.floor[i, s] = floor[s]
        r = t.rows[i * t.own, o, s]
        if r >= 0:
            z.used[r] += floor[s]
            z.load[r] += t.weight[i, o, s]


@njit(**LEAN)
def leave(t, z, i):
    """Agent i gives its place up and is at option 0."""
    o = z.option[i]
    for s in range(t.rows.shape[2]):
        r = t.rows[i * t.own, o, s]
        if r >= 0:
            z.used[r] -= z.floor[i, s]
            z.load[r] -= t.weight[i, o, s]
            if z.used[r] < 1e-15:
                z.used[r] = 0.0
        z.floor[i, s] = 0.0
    z.option[i] = 0
    z.held[i] = False


@njit(**KEPT)
def cost_of(t, z, i, o):
    """Agent i's cost of option o at the present loads, itself not among them."""
    cost = t.private[i, o]
    for s in range(t.rows.shape[2]):
        r, w = t.rows[i * t.own, o, s], t.weight[i, o, s]
        if r >= 0:
            cost += w * (w + (1.0 + t.toll[r]) * z.load[r]) / t.capacity[r]
    return cost


@njit(**KEPT)
def best_place(t, z, i, tightest, floor, trial):
    """The option where agent i fits that is cheapest (or, ``tightest``, leaves the least room); 0 if none does.

    ``floor`` (S,) gets its floors; ``trial`` (S,) is scratch.
    """
    z.work[0] += t.rows.shape[1]
    best, value = 0, np.inf
    for o in range(1, t.rows.shape[1]):
        if not t.ok[i, o] or (not tightest and cost_of(t, z, i, o) >= value):
            continue
        if not least_floors(t, i, o, z.used, trial):
            continue
        v = room_after(t, z, i, o, trial) if tightest else cost_of(t, z, i, o)
        if v < value:
            best, value = o, v
            copy_into(floor, trial)
    return best


@njit(**KEPT)
def room_after(t, z, i, o, floor):
    """Largest room that ``floor`` (S,) leaves on a resource of agent i's option o."""
    room = 0.0
    for s in range(t.rows.shape[2]):
        r = t.rows[i * t.own, o, s]
        if r >= 0:
            room = max(room, 1.0 - z.used[r] - floor[s])
    return room


@njit(**KEPT)
def meets(t, i, o, j, q):
    """Whether agent i's option o and agent j's option q share a resource."""
    mine, theirs = t.rows[i * t.own, o], t.rows[j * t.own, q]
    for r in mine:
        for s in theirs:
            if r >= 0 and r == s:
                return True
    return False


@njit(**KEPT)
def copy_seats(z):
    return Seats(z.option.copy(), z.held.copy(), z.floor.copy(), z.used.copy(), z.load.copy(), z.work)


@njit(**KEPT)
def restore_seats(z, kept):
    copy_into(z.option, kept.option)
    copy_into(z.held, kept.held)
    for i in range(len(z.option)):
        copy_into(z.floor[i], kept.floor[i])
    copy_into(z.used, kept.used)
    copy_into(z.load, kept.load)
