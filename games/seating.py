"""Making room: rearrangements after which an agent has a place and nobody has lost one.

Finding the most that can be served is bin packing, so these are searches with a bound on their effort, each all or
nothing:

- *drain*: holders of one option are moved to other places, one by one, until the agent fits;
- *chain*: the agent takes the place of a holder, who is pushed on to another, up to ``DEPTH`` deep;
- *repack*: all who are held and the agent are placed again, the largest first;
- *two for one*, *smaller for larger*: within a class a holder gives way to two who wait, or to one who needs less.

Source: ejection chains as in Glover (1996), "Ejection chains, reference structures and alternating path methods";
first fit decreasing: Johnson (1973).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import KEPT
from games.places import (
    Seats,
    ascending,
    best_place,
    copy_into,
    copy_seats,
    least_floors,
    leave,
    meets,
    restore_seats,
    room_after,
    take,
    total,
)

DEPTH = 4


@njit(**KEPT)
def drain(t, z, i):
    """Seat i by moving holders of one option to places that share no resource with it; False: nothing changed."""
    agents, options = t.ok.shape
    legs = t.rows.shape[2]
    floor, trial, was = np.empty(legs), np.empty(legs), np.empty(legs)
    kept = copy_seats(z)
    size = np.empty(agents)
    for o in range(1, options):
        if not t.ok[i, o]:
            continue
        for largest in range(2):
            for j in range(agents):
                size[j] = 0.0
                if z.held[j] and meets(t, i, o, j, z.option[j]):
                    size[j] = total(z.floor[j])
            order = ascending(-size) if largest else ascending(size)
            for j in order:
                if size[j] <= 0.0:
                    continue
                z.work[0] += options
                here = z.option[j]
                copy_into(was, z.floor[j])
                leave(t, z, j)
                best, room = 0, np.inf
                for q in range(1, options):
                    if t.ok[j, q] and not meets(t, i, o, j, q) and least_floors(t, j, q, z.used, trial):
                        after = room_after(t, z, j, q, trial)
                        if after < room:
                            best, room = q, after
                            copy_into(floor, trial)
                if best == 0:
                    take(t, z, j, here, was)
                    continue
                take(t, z, j, best, floor)
                if least_floors(t, i, o, z.used, trial):
                    take(t, z, i, o, trial)
                    return True
            restore_seats(z, kept)
    return False


@njit(**KEPT)
def chain(t, z, i, most):
    """Seat i by a chain of ejections, the shortest first, while work is below ``most``; False: nothing changed."""
    for depth in range(1, DEPTH + 1):
        if _push(t, z, i, depth, most):
            return True
        if z.work[0] >= most:
            break
    return False


@njit(**KEPT)
def _push(t, z, first, depth, most):
    """Depth-first over who is ejected from where, by an explicit stack: level k seats ``who[k]`` on ``at[k]`` in the
    place of ``out[k]``, who is then to be seated at level k + 1."""
    agents, options = t.ok.shape
    legs = t.rows.shape[2]
    floor, trial = np.empty(legs), np.empty(legs)
    who, at = np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
    out, where = np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
    was = np.empty((depth + 1, legs))
    moved = np.zeros(agents, np.bool_)
    level, who[0], at[0], out[0] = 0, first, 0, agents
    while level >= 0:
        i = who[level]
        if out[level] == agents:  # this one's next option; at option 0 first a place that is free
            if at[level] == 0:
                o = best_place(t, z, i, np.bool_(False), floor, trial)
                if o > 0:
                    take(t, z, i, o, floor)
                    return True
            at[level] += 1
            if level == depth or at[level] == options:
                level -= 1
                if level >= 0:  # undo: who[level] leaves, the one ejected comes back
                    j = out[level]
                    leave(t, z, who[level])
                    moved[who[level]] = False
                    take(t, z, j, where[level], was[level])
                    out[level] += 1
                continue
            out[level] = 0
        o = at[level]
        j = out[level]
        while j < agents:
            if t.ok[i, o] and z.held[j] and not moved[j] and not t.home[j] and meets(t, i, o, j, z.option[j]):
                z.work[0] += 1
                if z.work[0] > most:
                    j = agents
                    for k in range(level - 1, -1, -1):
                        leave(t, z, who[k])
                        take(t, z, out[k], where[k], was[k])
                    return False
                where[level] = z.option[j]
                copy_into(was[level], z.floor[j])
                leave(t, z, j)
                if least_floors(t, i, o, z.used, trial):
                    break
                take(t, z, j, where[level], was[level])
            j += 1 if t.ok[i, o] else agents
        out[level] = min(j, agents)
        if out[level] < agents:
            take(t, z, i, o, trial)
            moved[i] = True
            level += 1
            who[level], at[level], out[level] = j, 0, agents
    return False


@njit(**KEPT)
def repack(t, z, extra, largest_first, tightest):
    """Place all who are held and ``extra`` again, in the order given; False (nothing changed) if not all fit."""
    agents, legs = t.ok.shape[0], t.rows.shape[2]
    floor, trial = np.empty(legs), np.empty(legs)
    fresh = Seats(
        np.zeros_like(z.option), np.zeros_like(z.held), np.zeros_like(z.floor), np.zeros_like(z.used),
        np.zeros_like(z.load), z.work,
    )  # fmt: skip
    for i in range(agents):
        if t.home[i]:
            take(t, fresh, i, z.option[i], z.floor[i])
    for i in largest_first:
        if t.home[i] or not (z.held[i] or i == extra):
            continue
        o = best_place(t, fresh, i, tightest, floor, trial)
        if o == 0:
            return False
        take(t, fresh, i, o, floor)
    restore_seats(z, fresh)
    return True


@njit(**KEPT)
def two_for_one(t, z, members, waiting, effort, each):
    """Within ``members`` of a class, smallest first: a holder gives way to two who wait. False: nothing changed.

    First straight into what it leaves, then by chains of at most ``each`` work.
    """
    legs = t.rows.shape[2]
    floor, trial = np.empty(legs), np.empty(legs)
    kept = copy_seats(z)
    for by_chain in range(2):
        for a in range(len(members) - 1, -1, -1):
            j = members[a]
            if not z.held[j] or t.home[j]:
                continue
            leave(t, z, j)
            came = 0
            for i in members:
                if z.held[i] or i == j or not waiting[i] or z.work[0] > effort:
                    continue
                if by_chain:
                    came += drain(t, z, i) or chain(t, z, i, z.work[0] + each)
                else:
                    o = best_place(t, z, i, np.bool_(True), floor, trial)
                    if o > 0:
                        take(t, z, i, o, floor)
                        came += 1
                if came == 2:
                    return True
            restore_seats(z, kept)
            if z.work[0] > effort:
                return False
    return False


@njit(**KEPT)
def smaller_for_larger(t, z, members, waiting, effort):
    """Within a class: one who waits takes the place of the holder whose floors there exceed its own the most.

    As many are served as before and the floors sum to less, so that repeating it ends. False: nothing changed.
    """
    legs = t.rows.shape[2]
    trial, floor, was = np.empty(legs), np.empty(legs), np.empty(legs)
    for i in members:
        if z.held[i] or not waiting[i] or z.work[0] > effort:
            continue
        worst, gain = np.int64(-1), 1e-6
        for j in members:
            if not z.held[j] or t.home[j] or not t.ok[i, z.option[j]]:
                continue
            z.work[0] += 1
            o = z.option[j]
            copy_into(was, z.floor[j])
            leave(t, z, j)
            if least_floors(t, i, o, z.used, trial) and total(was) - total(trial) > gain:
                worst, gain = j, total(was) - total(trial)
                copy_into(floor, trial)
            take(t, z, j, o, was)
        if worst >= 0:
            o = z.option[worst]
            leave(t, z, worst)
            take(t, z, i, o, floor)
            return True
    return False
