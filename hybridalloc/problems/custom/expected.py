r"""What a settled plan of ``custom`` is worth, and single changes of option that raise it, compiled.

.. math:: W = -\sum_i \Big[ c_{i o_i} + \omega_i \min(T_i, 10 \tau_i) + [T_i > \tau_i] - \tfrac{1}{trust} \ell_i(o_i)
          \Big]

is the model's own reward: private cost, delay and 1 for a missed deadline, prior included. Shares of a resource depend
on its own jobs alone, so a change of option works out the resources of the old and the new one again, and no other.
A job with a place moves only to a place that fits, floors kept, and at the end whoever waits and fits is seated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.changes import candidates, enter, strike, weigh
from games.congestion import Bool, Float, Int
from games.lean import KEPT
from games.places import copy_into, least_floors, leave, take
from games.shares import capped_shares

LATE = 10.0  # deadlines: what a job that is never done is taken to need
GAIN = 1e-6  # of a job's mean cost: what a change must bring


class Jobs(NamedTuple):
    """One world: N jobs, R resources, O options of S legs. Fields as in ``CustomState``."""

    rows: Int  # (O, S)
    work: Float  # (N, R)
    capacity: Float  # (R,)
    wait: Float  # (R,)
    deadline: Float  # (N,)
    delay: Float  # (N,)
    private: Float  # (N, O)
    draw: Float  # (N, R) W at a share of 1
    limit: Float  # (N,) W
    active: Bool  # (N,)


class Climb(NamedTuple):
    """Where a climb stands."""

    option: Int  # (N,)
    floor: Float  # (N, S)
    share: Float  # (N, S)
    value: Float  # (N,) of each job, tilt included
    member: Int  # (R, N) jobs of each resource, ascending
    size: Int  # (R,) how many they are
    load: Float  # (R,)
    tries: Int  # (3,) changes tried, changes made, holders moved


def new_climb(n: int, s: int, r: int) -> Climb:
    """One with nothing in it."""
    f, whole = np.zeros, lambda *shape: np.zeros(shape, np.int64)
    return Climb(whole(n), f((n, s)), f((n, s)), f(n), whole(r, n), whole(r), f(r), whole(3))


@njit(**KEPT)
def begin(j, t, tilt, option, floor, c):
    """Set a climb to a joint choice and the floors of those who hold places; its W."""
    c.size[:] = 0
    c.load[:] = 0.0
    for i in range(len(option)):
        c.option[i] = option[i]
        for s in range(j.rows.shape[1]):
            c.floor[i, s] = floor[i, s]
        if j.active[i]:
            weigh(t, c.load, i, option[i], 1.0)
            _note(j, c, i, True)
    for r in range(len(c.size)):
        _share_out(j, c, r)
    total = 0.0
    for i in range(len(option)):
        c.value[i] = _value(j, tilt, c, i) if j.active[i] else 0.0
        total += c.value[i]
    return total


@njit(**KEPT)
def _note(j, c, i, there):
    """Note job i with the resources of its option on which it has work, or strike it there."""
    for r in j.rows[c.option[i]]:
        if r >= 0 and j.work[i, r] > 0.0:
            if there:
                enter(c.member, c.size, r, i)
            else:
                strike(c.member, c.size, r, i)


@njit(**KEPT)
def _leg(j, c, i, r):
    """The leg of job i's option that runs on resource r."""
    for s in range(j.rows.shape[1]):
        if j.rows[c.option[i], s] == r:
            return s
    return -1


@njit(**KEPT, error_model="numpy")
def _share_out(j, c, r):
    """Shares of resource r."""
    size = c.size[r]
    if size == 0:
        return
    weight, floor, cap, share = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    for m in range(size):
        i = c.member[r, m]
        weight[m] = np.sqrt(j.delay[i] * (j.work[i, r] / j.capacity[r]))
        floor[m] = c.floor[i, _leg(j, c, i, r)]
        whole = 0.0
        for q in j.rows[c.option[i]]:
            if q >= 0 and j.work[i, q] > 0.0:
                whole += j.draw[i, q]
        cap[m] = j.limit[i] / whole if whole > 0.0 else np.inf
    capped_shares(weight, floor, cap, share)
    for m in range(size):
        i = c.member[r, m]
        c.share[i, _leg(j, c, i, r)] = share[m]


@njit(**KEPT, error_model="numpy")
def _value(j, tilt, c, i):
    """Less what the model charges active job i, prior included."""
    o = c.option[i]
    cost = j.private[i, o] + tilt[i, o]
    if o == 0:
        return -cost
    time = 0.0
    for s in range(j.rows.shape[1]):
        r = j.rows[o, s]
        if r >= 0 and j.work[i, r] > 0.0:
            time += j.wait[r]
            time += j.work[i, r] / j.capacity[r] / c.share[i, s] if c.share[i, s] > 0.0 else np.inf
    late = 0.0 if time <= j.deadline[i] * (1.0 + 1e-9) else 1.0
    return -(cost + j.delay[i] * min(time, LATE * j.deadline[i]) + late)


@njit(**KEPT)
def _move(j, tilt, c, i, o, floor):
    """Put job i on option ``o`` with floors (S,), its old and new resources shared out again; the change of W."""
    old = c.option[i]
    _note(j, c, i, False)
    c.option[i] = o
    for s in range(len(floor)):
        c.floor[i, s] = floor[s]
        c.share[i, s] = 0.0
    _note(j, c, i, True)
    change = 0.0
    for p in (old, o):
        for r in j.rows[p]:
            if r >= 0 and j.work[i, r] > 0.0:
                _share_out(j, c, r)
    for p in (old, o):
        for r in j.rows[p]:
            if r >= 0 and j.work[i, r] > 0.0:
                for m in range(c.size[r]):
                    k = c.member[r, m]
                    worth = _value(j, tilt, c, k)
                    change += worth - c.value[k]
                    c.value[k] = worth
    worth = _value(j, tilt, c, i)
    change += worth - c.value[i]
    c.value[i] = worth
    return change


@njit(**KEPT)
def visit(j, t, tilt, allowed, z, c, kept, order, best, reach, least):
    """One visit to each of the jobs ``order`` (M,): it tries its cheapest other options, as many as ``best`` (W,) holds
    and at most ``reach`` dearer than its own, and takes the one that raises W most, by more than ``least``.

    The seats ``z`` and the climb ``c`` are changed in place; ``kept`` is scratch of the same shapes.

    Returns:
        how many changed.
    """
    legs = j.rows.shape[1]
    floor, own, top_floor = np.zeros(legs), np.zeros(legs), np.zeros(legs)
    regret = np.empty(len(best))
    made = 0
    for i in order:
        start = c.option[i]
        candidates(t, c.load, allowed, i, start, best, regret)
        holds = z.held[i]
        copy_into(own, c.floor[i])
        if holds:
            leave(t, z, i)
        here, top, top_held = start, least, holds
        copy_into(top_floor, own)
        for m in range(len(best)):
            o = best[m]
            if o < 0 or regret[m] > reach:
                break
            held = o > 0 and t.ok[i, o] and least_floors(t, i, o, z.used, floor)
            if not held:
                if holds:
                    continue  # a place is given up for no other
                floor[:] = 0.0
            c.tries[0] += 1
            kept.value[:] = c.value
            kept.share[:] = c.share
            change = _move(j, tilt, c, i, o, floor)
            if change > top:
                here, top, top_held = o, change, held
                copy_into(top_floor, floor)
            _note(j, c, i, False)
            c.option[i] = start
            copy_into(c.floor[i], own)
            _note(j, c, i, True)
            c.value[:] = kept.value
            c.share[:] = kept.share
        if here != start:
            weigh(t, c.load, i, start, -1.0)
            weigh(t, c.load, i, here, 1.0)
            _move(j, tilt, c, i, here, top_floor)
            made += 1
            c.tries[1] += 1
            c.tries[2] += 1 if holds else 0
        if top_held:
            take(t, z, i, here, top_floor)
        else:
            z.option[i] = here
    return made
