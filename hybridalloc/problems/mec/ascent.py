"""Single changes of option that raise what a settled plan of ``mec`` is worth, until none does.

Device by device, whoever loses least by its cheapest other option first: the cheapest are tried (:mod:`.sides`), and
the one that raises V, the worth of the slot with the prior (:mod:`.expected`), most is taken. With seats (see
:mod:`games.admission`) a holder moves only to a place that fits, floors kept, and at the end whoever waits and fits is
seated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.changes import candidates, queue, weigh
from games.congestion import Bool, Float, Int
from games.lean import INLINE, LEAN, ROOMY
from games.places import copy_into, least_floors, leave, take
from hybridalloc.problems.mec.arrays import (
    AIR_FLOOR,
    BITS,
    CPU_FLOOR,
    GAIN,
    HELD,
    OUT_AIR,
    OUT_CPU,
    OUT_FRACTION,
    OUT_POWER,
    OUT_S,
    OUT_SERVED,
    Physics,
    Prices,
    Seen,
    network,
)
from hybridalloc.problems.mec.expected import duty_of, neighbours, rises, whole_worth
from hybridalloc.problems.mec.formulas import rate_of
from hybridalloc.problems.mec.sides import (
    AT,
    COUNT,
    ENDED,
    FRESH,
    MADE,
    RESTS,
    RUNNING,
    STATE,
    SWEEP,
    One,
    make_change,
    new_climb,
    prepare,
    refresh,
    server_of,
    try_change,
    value_of,
)
from rl.value import Worth

LEAST_GAIN = 1e-4  # what a change must bring


class Model(NamedTuple):
    """What a climb in E networks settles and values by."""

    physics: Physics
    world: Seen
    left: Worth  # what batteries are worth
    prices: Prices
    priority: Float  # (E, N)
    rank: Int  # (E, N)
    asked: Float  # (E, N, 1 or O, 4) mean and spread of power and fraction proposed; 0 wide where nothing is
    trust: float
    energy: Float  # (E, N) what a tenth of a joule is worth
    tilt: Float  # (E, N, O)
    allowed: Bool  # (E, N, O)
    seated: bool
    sweeps: int  # at most
    share: float  # changes tried in a sweep by the number of devices that have a task


@njit(**INLINE)
def _begin(m, e, t, plan, c, per):
    """Set a climb to the settled plan of network ``e``; ``c.rise`` and ``c.against`` are there."""
    p, one, out, row = m.physics, m.net, c.level, c.row
    n, bands = one.rate.shape
    c.size[:] = c.stamp[:] = 0
    c.load[:] = 0.0
    c.tries[:] = c.cursor[:] = 0
    c.seen[:] = -1
    c.value[:] = c.duty[:] = 0.0
    neighbours(p, one, c.near, c.nears)
    for i in range(n):
        o = c.option[i] = plan.option[e, i]
        if not one.active[i]:
            continue
        prepare(m, c, i, o, plan.held[e, i], plan.air_floor[e, i], plan.cpu_floor[e, i], i)
        out[i, OUT_AIR], out[i, OUT_CPU], out[i, OUT_POWER] = plan.air[e, i], plan.cpu[e, i], plan.power_w[e, i]
        out[i, OUT_FRACTION], out[i, OUT_SERVED] = plan.fraction[e, i], 1.0 if plan.served[e, i] else 0.0
        weigh(t, c.load, i, o, 1.0)
        k = server_of(o, per, bands)
        if k >= 0:
            out[i, OUT_S] = row[i, BITS] / rate_of(p, out[i, OUT_POWER], row[i, GAIN])
            c.duty[i] = duty_of(p, row, i, out, i)
            c.member[k, c.size[k]] = i
            c.size[k] += 1
        else:
            c.value[i] = value_of(m, c, i, i, out, i, o, 1.0)[0]
    copy_into(c.at, c.rise)
    c.left[:] = c.drift[:] = 0.0
    c.redo[:] = True
    refresh(m, c, per)


@njit(**INLINE)
def _visit(m, c, i, t, z, allowed, per, plan, e):
    """Device i tries its cheapest other options, as many as ``c.best`` holds and at most ``c.reach`` dearer than its
    own, and takes the one that raises V most; whether it did."""
    one, seated = m.net, m.seated
    bands, n = one.rate.shape[1], len(c.option)
    floor, own, top_floor = c.floor[0], c.floor[1], c.floor[2]
    start = c.option[i]
    was = server_of(start, per, bands)
    candidates(t, c.load, allowed, i, start, c.best, c.regret)
    home, holds = seated and t.home[i], seated and z.held[i]
    own[:] = 0.0
    if holds:
        copy_into(own, z.floor[i])
        leave(t, z, i)
    here, top, top_held, fresh = start, LEAST_GAIN, holds, np.bool_(True)
    copy_into(top_floor, own)
    for x in range(len(c.best)):
        o = c.best[x]
        if o < 0 or c.regret[x] > c.reach[0]:
            break
        k = server_of(o, per, bands)
        if max(c.stamp[was] if was >= 0 else 0, c.stamp[k] if k >= 0 else 0) <= c.seen[i]:
            continue  # neither server has changed since it was tried
        floor[:] = 0.0
        held = home
        if seated and not home:
            held = o > 0 and t.ok[i, o] and least_floors(t, i, o, z.used, floor)
            if not held:
                floor[:] = 0.0
                if holds:
                    continue  # a place is given up for no other
        c.tries[0] += 1
        prepare(m, c, i, o, held, floor[0], floor[1], n)
        change = try_change(m, c, i, o, per, fresh)
        fresh = fresh and was == k
        if change > top:
            here, top, top_held = o, change, held
            copy_into(top_floor, floor)
    c.seen[i] = c.tries[1]
    made = False
    for back in range(2):
        before = c.option[i]
        if here == before:
            break
        weigh(t, c.load, i, before, -1.0)
        weigh(t, c.load, i, here, 1.0)
        prepare(m, c, i, here, top_held, top_floor[0], top_floor[1], n)
        made = make_change(m, c, i, here, per, plan, e) > LEAST_GAIN and back == 0
        if made:
            c.tries[1] += 1
            for o in (start, here):
                if server_of(o, per, bands) >= 0:
                    c.stamp[server_of(o, per, bands)] = c.tries[1]
            c.tries[2] += 1 if holds and not home else 0
            break
        here, top_held = start, holds  # those who hear it lose more than their slopes told
        copy_into(top_floor, own)
    if seated:
        if top_held:
            take(t, z, i, here, top_floor)
        else:
            z.option[i] = here
    return made


@njit(**ROOMY)
def climb(model, e, against, same, plan, t, z, c, count, worth):
    """At most ``count`` visits in network ``e`` from where ``c`` stands; its cursor says what they came to.

    Args:
        model: see :class:`Model`. against: the plan under which the belief holds, ``same`` as the one that ``plan`` is
            at first. plan: settled, and by and by improved: whole where the state says that all is done, or after
            :func:`finish`. t, z: the game and its seats. c: of :func:`new_climb` before the first call. worth: (E,) of
            the plan when it is whole, see :func:`finish`.
    """
    w, v, at = model.world, model.left, c.cursor
    per = w.rate.shape[2] // len(c.size)
    fresh = at[STATE] == FRESH
    if fresh:
        rises(model.physics, w, e, plan, c.rise)
        if same:
            copy_into(c.against, c.rise)
        else:
            rises(model.physics, w, e, against, c.against)
    one = One(
        model.physics, network(w, e), model.prices, v.gain[e], v.knot, v.capacity[e], model.priority[e], model.rank[e],
        model.asked[e], model.trust, model.energy[e], model.tilt[e], model.seated,
    )  # fmt: skip
    active, allowed = w.active[e], model.allowed[e]
    most = max(np.int64(np.rint(model.share * active.sum())), 1)
    while True:
        count, state = _go(one, e, plan, t, z, c, count, allowed, per, model.sweeps, fresh)
        fresh = False
        if state != RUNNING or at[AT] < at[COUNT]:
            break
        order, c.reach[0] = queue(t, c.load, allowed, active, c.option, most, c.best)
        copy_into(c.order, order)
        at[SWEEP], at[AT], at[COUNT], at[MADE] = at[SWEEP] + 1, 0, len(order), 0
    if state != RUNNING:
        finish(model, e, plan, c, worth)


@njit(**ROOMY)
def climb_on(model, e, against, same, plan, t, z, width, worth):
    """:func:`climb` until all is done; its ``tries`` and state."""
    _, n, bands, values = model.world.rates.shape
    c = new_climb(n, model.world.server_hz.shape[1], bands, values, len(t.capacity), t.rows.shape[2], width)
    climb(model, e, against, same, plan, t, z, c, n * model.sweeps, worth)
    return c.tries[0], c.tries[1], c.tries[2], c.cursor[STATE]


@njit(**LEAN)
def _go(m, e, plan, t, z, c, count, allowed, per, sweeps, fresh):
    """The visits that are left of a sweep, at most ``count``; how many more there may be, and the state."""
    at = c.cursor
    if fresh:
        _begin(m, e, t, plan, c, per)
    while at[AT] < at[COUNT] and count > 0:
        at[MADE] += 1 if _visit(m, c, c.order[at[AT]], t, z, allowed, per, plan, e) else 0
        at[AT] += 1
        count -= 1
    if at[AT] == at[COUNT] and at[SWEEP] > 0:
        if at[MADE] == 0:
            at[STATE] = RESTS
        elif at[SWEEP] == sweeps:
            at[STATE] = ENDED
    return count, at[STATE]


@njit(**ROOMY)
def finish(model, e, plan, c, worth):
    """Write a climb's levels to the plan of network ``e``, and its V to ``worth`` (E,), worked out as a whole."""
    w, v, out, row = model.world, model.left, c.level, c.row
    tilt = 0.0
    for i in range(len(c.option)):
        if w.active[e, i]:
            plan.option[e, i], plan.served[e, i] = c.option[i], out[i, OUT_SERVED] > 0.0
            plan.air[e, i], plan.cpu[e, i] = out[i, OUT_AIR], out[i, OUT_CPU]
            plan.power_w[e, i], plan.fraction[e, i] = out[i, OUT_POWER], out[i, OUT_FRACTION]
            plan.held[e, i] = row[i, HELD] > 0.0
            plan.air_floor[e, i], plan.cpu_floor[e, i] = row[i, AIR_FLOOR], row[i, CPU_FLOOR]
            tilt += c.tax[i]
    rises(model.physics, w, e, plan, c.rise)
    whole = whole_worth(model.physics, network(w, e), v.gain[e], v.knot, v.capacity[e], e, plan, c.rise, c.against)
    worth[e] = whole - tilt
