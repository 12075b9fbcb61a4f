"""One change of option tried beside a settled plan of ``mec``, and made.

A change of option changes shares on two servers and interference on the servers of their groups. To try one, the two
are settled beside the plan, the server that is left only once for all the options an agent tries; those who hear it are
counted by the slope of their values; nothing of the plan is touched before a change is made. See :mod:`.ascent`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable

from games.changes import enter, strike
from games.congestion import Bool, Float, Int
from games.lean import INLINE
from hybridalloc.problems.mec.arrays import (
    AGE,
    AIR_FLOOR,
    CPU_FLOOR,
    FRACTION,
    FRACTION_SPREAD,
    GAIN,
    HELD,
    OUT,
    OUT_AIR,
    OUT_CPU,
    OUT_FRACTION,
    OUT_POWER,
    OUT_SERVED,
    POWER,
    POWER_SPREAD,
    ROW,
    Net,
    Physics,
    Prices,
    Room,
    new_room,
)
from hybridalloc.problems.mec.expected import device_worth, duty_of, idle_worth, leftover_price, spread
from hybridalloc.problems.mec.formulas import snr_of
from hybridalloc.problems.mec.settling import _able, charge, lay, settle_server

STALE = 1e-3  # relative change of a band's noise below which the values on it are not worked out again
STEP = 0.05  # of a band's noise, for the slope of the values on it
FRESH, RUNNING, RESTS, ENDED = -1, 0, 1, 2  # not begun; changes are tried; the last sweep changed nothing; no more
SWEEP, AT, COUNT, MADE, STATE = range(5)  # places of a climb's cursor


class Sides(NamedTuple):
    """The two servers of a change settled anew beside the plan: the one that is left, the one that is joined."""

    who: Int  # (2, N) their devices, ascending
    of: Int  # (2, N) the row of each
    size: Int  # (2,) how many they are
    out: Float  # (2, N, OUT) what each gets
    duty: Float  # (2, N)
    air_price: Float  # (2, B / K)
    cpu_price: Float  # (2, 1)
    extra: Float  # (2, B / K) rise on their bands that the other's change adds
    change: Float  # (2,) of the devices' values and of what queues keep, without that; nan: not worked out


class Climb(NamedTuple):
    """Where a climb in one network stands; N devices, K servers, B bands, Q rates, W options tried in a visit."""

    row: Float  # (N + 1, ROW) of each device on its option; the last is of the option that is tried
    gain: Float  # (N + 1, Q) signal over noise at 1 W of each believed rate
    tax: Float  # (N + 1,) the tilt
    level: Float  # (N, OUT) what each is settled to
    option: Int  # (N,)
    value: Float  # (N,) of each device, tilt included
    duty: Float  # (N,) mean transmitted power over noise
    rise: Float  # (B,) of the plan
    at: Float  # (B,) at which the values were worked out
    against: Float  # (B,)
    slope: Float  # (B,) of the values on each band by its rise
    drift: Float  # (1,) sum of slope (rise - at): what the values are off by
    left: Float  # (K,) price of what this server's queues keep
    near: Int  # (K, K) servers that hear each
    nears: Int  # (K,) how many they are
    member: Int  # (K, N) devices of each server, ascending
    size: Int  # (K,) how many they are
    load: Float  # (R,)
    tries: Int  # (3,) changes tried, changes made, holders moved
    stamp: Int  # (K,) the last change on each server, counted from 1
    seen: Int  # (N,) the last change before each device was visited
    redo: Bool  # (K,) scratch
    cursor: Int  # (5,) sweep, visits made in it, visits it has, changes made in it, state
    order: Int  # (N,) who is visited in this sweep
    reach: Float  # (1,) how much dearer an option may be in it
    best: Int  # (W,) scratch
    regret: Float  # (W,) scratch
    floor: Float  # (3, legs) scratch
    sides: Sides
    room: Room  # scratch


class One(NamedTuple):
    """A :class:`.ascent.Model` of one network."""

    physics: Physics
    net: Net
    prices: Prices
    store: Float  # (N, J) gains of each part of a battery's worth
    knot: Float  # (J,)
    capacity: Float  # (N,)
    priority: Float
    rank: Int
    asked: Float
    trust: float
    energy: Float
    tilt: Float
    seated: bool


@register_jitable
def new_climb(n, k, b, q, resources, legs, width):
    """One with anything in it but its state."""
    f, w, per = np.empty, np.int64, b // max(k, 1)
    sides = Sides(
        f((2, n), w), f((2, n), w), f(2, w), f((2, n, OUT)), f((2, n)), f((2, per)), f((2, 1)), f((2, per)), f(2)
    )  # fmt: skip
    c = Climb(
        f((n + 1, ROW)), f((n + 1, q)), f(n + 1), f((n, OUT)), f(n, w), f(n), f(n), f(b), f(b), f(b), f(b), f(1), f(k),
        f((k, k), w), f(k, w), f((k, n), w), f(k, w), f(resources), f(3, w), f(k, w), f(n, w), f(k, np.bool_), f(5, w),
        f(n, w), f(1), f(width, w), f(width), f((3, legs)), sides, new_room(n, per),
    )  # fmt: skip
    c.cursor[STATE] = FRESH
    return c


@njit(**INLINE)
def server_of(o, per, bands):
    """The server of an option; -1 for none."""
    return (o - 1) // per if 0 < o <= bands else -1


@njit(**INLINE)
def _copy_row(to, i, of, j):
    """Copy row j of one array to row i of another."""
    for x in range(to.shape[1]):
        to[i, x] = of[j, x]


@njit(**INLINE)
def prepare(m, c, i, o, held, air_floor, cpu_floor, r):
    """Fill row ``r`` with device i on option ``o``."""
    p, one, row = m.physics, m.net, c.row
    bands, values = one.rates.shape[1:]
    c.tax[r] = m.tilt[i, o]
    b = o - 1 if o <= bands else -1
    lay(p, one, i, b, row, r)
    if b >= 0:
        charge(p, one, m.prices, m.priority[i], m.rank[i], m.energy[i], i, b, row, r)
        if m.asked.shape[1] > 0:
            x = o if m.asked.shape[1] > 1 else 0
            row[r, POWER], row[r, POWER_SPREAD] = m.asked[i, x, 0], m.asked[i, x, 1]
            row[r, FRACTION], row[r, FRACTION_SPREAD] = m.asked[i, x, 2], m.asked[i, x, 3]
        for q in range(values):
            c.gain[r, q] = row[r, GAIN] if values == 1 else snr_of(p, one.rates[i, b, q])
    row[r, HELD], row[r, AIR_FLOOR], row[r, CPU_FLOOR] = 1.0 if held else 0.0, air_floor, cpu_floor


@njit(**INLINE)
def value_of(m, c, i, r, out, x, o, ratio):
    """:func:`.expected.device_worth`, tilt included, of device i in row ``r`` that got ``out[x]`` on option ``o``."""
    worth, air_in, cpu_in = idle_worth(m.physics, c.row[r, AGE]), 0.0, 0.0
    if o <= m.net.rate.shape[1]:
        worth, air_in, cpu_in = device_worth(
            m.physics, c.row, r, c.gain, ratio, out[x, OUT_AIR], out[x, OUT_CPU], out[x, OUT_POWER],
            out[x, OUT_FRACTION], m.store, i, m.knot, m.capacity,
        )  # fmt: skip
    return worth - c.tax[r], air_in, cpu_in


@njit(**INLINE)
def refresh(m, c, per):
    """Work out the values of the devices of the servers ``c.redo``, what their queues keep, and the slopes, at
    ``c.at``; the sum's change."""
    p, air, total = m.physics, c.room.air_total, 0.0
    for k in range(len(c.size)):
        if not c.redo[k]:
            continue
        cpu = change = 0.0
        air[:] = 0.0
        for b in range(k * per, (k + 1) * per):
            c.slope[b] = 0.0
        for x in range(c.size[k]):
            i = c.member[k, x]
            o = c.option[i]
            b = o - 1
            held, noise = 1.0 + c.against[b], 1.0 + c.at[b]
            for further in range(2 if p.interference else 1):
                ratio = held / (noise * (1.0 + STEP)) if further else held / noise
                worth, air_in, cpu_in = value_of(m, c, i, i, c.level, i, o, ratio)
                if further:
                    c.slope[b] += (worth - c.value[i]) / (STEP * noise)
                else:
                    air[b - k * per] += air_in
                    cpu += cpu_in
                    change += worth - c.value[i]
                    c.value[i] = worth
        left = leftover_price(p, m.net.cpu_wait_s, m.net.air_wait_s, k, per, air, 0, cpu)
        total += change - (left - c.left[k])
        c.left[k] = left
    return total


@njit(**INLINE)
def _settle_side(m, c, s, k, i):
    """Settle server k without device i (side 0), or with it in the row that is tried (side 1)."""
    n, sides = len(c.option), c.sides
    who, of = sides.who, sides.of
    count, waits = 0, s == 1
    for x in range(c.size[k]):
        j = c.member[k, x]
        if waits and j > i:
            who[s, count], of[s, count], waits = i, n, False
            count += 1
        if j != i:
            who[s, count] = of[s, count] = j
            count += 1
    if waits:
        who[s, count], of[s, count] = i, n
        count += 1
    sides.size[s], sides.change[s] = count, np.nan
    out = sides.out[s]
    settle_server(
        m.physics, m.prices, m.trust, m.seated, c.row, of[s], count, out, sides.air_price[s], sides.cpu_price[s], c.room
    )  # fmt: skip
    for x in range(count):
        sides.duty[s, x] = duty_of(m.physics, c.row, of[s, x], out, x)


@njit(**INLINE)
def _settle_sides(m, c, i, o, k, start, fresh):
    """Settle the servers of a change of device i to option ``o``: ``start`` is left (only where ``fresh``), k joined,
    -1 for none. On an option without a server it is the first of side 1, which is empty."""
    for s in range(2):
        if s == 1 and k >= 0:
            _settle_side(m, c, s, k, i)
        elif s == 0 and start >= 0 and fresh:
            _settle_side(m, c, s, start, i)
    if k < 0:
        out = c.sides.out[1]
        for x in range(OUT):
            out[0, x] = 0.0
        out[0, OUT_SERVED] = 1.0 if o == 0 and _able(m.physics, c.row, len(c.option), 0.0) else 0.0
        c.sides.size[1] = 0


@njit(**INLINE)
def _value_side(m, c, s, k, o, per):
    """Change of the values of a side's devices and of what its queues keep, at the present rise and what is extra; the
    device that moves would be on option ``o``."""
    n, sides = len(c.option), c.sides
    extra = False
    for b in range(per):
        extra = extra or sides.extra[s, b] != 0.0
    if not extra and not np.isnan(sides.change[s]):
        return sides.change[s]
    air, cpu, change, out = c.room.air_total, 0.0, 0.0, sides.out[s]
    air[:] = 0.0
    for x in range(sides.size[s]):
        j, r = sides.who[s, x], sides.of[s, x]
        at = o if r == n else c.option[j]
        b = at - 1 - k * per
        ratio = (1.0 + c.against[at - 1]) / (1.0 + c.rise[at - 1] + sides.extra[s, b])
        worth, air_in, cpu_in = value_of(m, c, j, r, out, x, at, ratio)
        air[b] += air_in
        cpu += cpu_in
        change += worth - c.value[j]
    change -= leftover_price(m.physics, m.net.cpu_wait_s, m.net.air_wait_s, k, per, air, 0, cpu) - c.left[k]
    if not extra:
        sides.change[s] = change
    return change


@njit(**INLINE)
def _heard(m, c, j, b, more, per, start, k):
    """What ``more`` duty of device j on band b does to the values on servers that hear it, by their slopes; the sides'
    servers ``start`` and k only note the rise."""
    if more == 0.0:
        return 0.0
    at = b // per
    x, change = b - at * per, 0.0
    for y in range(c.nears[at]):
        q = c.near[at, y]
        rise = more * m.net.mean_gain[j, q]
        if q == start:
            c.sides.extra[0, x] += rise
        elif q == k:
            c.sides.extra[1, x] += rise
        else:
            change += c.slope[q * per + x] * rise
    return change


@njit(**INLINE)
def try_change(m, c, i, o, per, fresh):
    """The change of V if device i went to option ``o``, whose row is prepared; ``fresh`` where the server that it
    leaves is not settled without it yet."""
    bands, n, sides = m.net.rate.shape[1], len(c.option), c.sides
    was, k = server_of(c.option[i], per, bands), server_of(o, per, bands)
    start = was if was != k else -1
    change = 0.0
    _settle_sides(m, c, i, o, k, start, fresh)
    if k < 0:
        change += value_of(m, c, i, n, sides.out[1], np.int64(0), o, 1.0)[0] - c.value[i]
    sides.extra[:] = 0.0
    if m.physics.interference:
        change += c.drift[0]
        for s in range(2):
            q = k if s else start
            if q >= 0:
                for b in range(q * per, (q + 1) * per):
                    change -= c.slope[b] * (c.rise[b] - c.at[b])
        for s in range(-1, 2):  # the device falls silent; then the sides
            for x in range(1 if s < 0 else (sides.size[s] if s or start >= 0 else 0)):
                j = i if s < 0 else sides.who[s, x]
                at = o if s == 1 and j == i else c.option[j]
                more = -c.duty[i] if s < 0 else sides.duty[s, x] - (c.duty[j] if j != i else 0.0)
                if 0 < at <= bands:
                    change += _heard(m, c, j, at - 1, more, per, start, k)
    for s in range(2):
        q = k if s else start
        if q >= 0:
            change += _value_side(m, c, s, q, o, per)
    return change


@njit(**INLINE)
def make_change(m, c, i, o, per, plan, e):
    """Put device i on option ``o``, whose row is prepared; then work out the values of whoever hears it. The change of
    V."""
    bands, n, sides = m.net.rate.shape[1], len(c.option), c.sides
    was, k = server_of(c.option[i], per, bands), server_of(o, per, bands)
    start = was if was != k else -1
    _settle_sides(m, c, i, o, k, start, np.bool_(True))
    if start >= 0:
        strike(c.member, c.size, start, i)
    if k >= 0 and was != k:
        enter(c.member, c.size, k, i)
    if was >= 0:
        spread(m.net.mean_gain, i, c.near, c.nears, per, c.option[i] - 1, -c.duty[i], c.rise)
    c.duty[i] = 0.0
    c.option[i] = o
    _copy_row(c.row, i, c.row, n)
    _copy_row(c.gain, i, c.gain, n)
    c.tax[i] = c.tax[n]
    change = 0.0
    if k < 0:
        _copy_row(c.level, i, sides.out[1], 0)
        worth = value_of(m, c, i, i, c.level, i, o, 1.0)[0]
        change += worth - c.value[i]
        c.value[i] = worth
    for s in range(2):
        q = k if s else start
        for x in range(sides.size[s] if q >= 0 else 0):
            j = sides.who[s, x]
            more = sides.duty[s, x] - c.duty[j]
            spread(m.net.mean_gain, j, c.near, c.nears, per, c.option[j] - 1, more, c.rise)
            c.duty[j] = sides.duty[s, x]
            _copy_row(c.level, j, sides.out[s], x)
        if q >= 0:
            plan.cpu_price[e, q] = sides.cpu_price[s, 0] / m.net.server_hz[q]
            for b in range(per):
                plan.air_price[e, q * per + b] = sides.air_price[s, b]
    for q in range(len(c.size)):
        c.redo[q] = q in (was, k)
        for b in range(q * per, (q + 1) * per):
            if q in (was, k) or abs(c.rise[b] - c.at[b]) > STALE * (1.0 + c.at[b]):
                c.at[b] = c.rise[b]
                c.redo[q] = True
    change += refresh(m, c, per)
    c.drift[0] = 0.0
    for b in range(len(c.rise) if m.physics.interference else 0):
        c.drift[0] += c.slope[b] * (c.rise[b] - c.at[b])
    return change
