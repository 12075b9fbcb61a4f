r"""What a settled plan of ``mec`` is worth in one slot, as believed, and single changes of option that raise it.

.. math:: W = \sum_i \Big[ worth_i E_q(done_i) - reward_{energy} E_q(J_i) - reward_{age} E_q(age_i)
          - reward_{switch} moved_i - E_q\big(V_i(b_i) - V_i(b_i - J_i)\big) + \tfrac{1}{trust} \ell_i(o_i) \Big]
          - leftover

Rates are the belief's Q equally likely ones, each device's own; completion is the smooth one of the rewards,
1 - sigmoid(12 (T / tau - 1)), or the deadline itself where one rate is known for certain. V is what is left in a
battery, by a value of stores (see :mod:`rl.value`) or, where the reward charges no energy, by the price of a joule. A
task that is shed draws nothing and earns nothing. The belief tells rates under the signals that it expects; those of a
plan differ from them as its *rise* (mean interference over noise, at median rates and mean gains) differs from that of
the plan ``against`` which the belief is taken to hold: signal over noise scales by (1 + rise_against) / (1 + rise).
``leftover`` is what queues would keep beyond the slot, in slots, at ``LEFTOVER`` each.

A change of option changes shares on two servers and interference on the servers of their groups. To try one, the two
are settled beside the plan, the server that is left only once for all the options an agent tries; those who hear it are
counted by the slope of their values; nothing of the plan is touched before a change is made. With seats (see
:mod:`games.admission`) a holder moves only to a place that fits, floors kept, and at the end whoever waits and fits is
seated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable

from games.changes import candidates, enter, queue, strike, weigh
from games.congestion import Bool, Float, Int
from games.lean import INLINE, LEAN
from games.places import copy_into, least_floors, leave, take
from hybridalloc.problems.mec.arrays import (
    AGE,
    AIR_FLOOR,
    BATTERY_J,
    BITS,
    CPU_FLOOR,
    CPU_S,
    ENERGY_UNIT,
    FRACTION,
    FRACTION_SPREAD,
    GAIN,
    HELD,
    LOCAL_J,
    LOCAL_S,
    MEDIAN,
    MOVED,
    OUT,
    OUT_AIR,
    OUT_CPU,
    OUT_FRACTION,
    OUT_POWER,
    OUT_S,
    OUT_SERVED,
    POWER,
    POWER_SPREAD,
    QUEUE_S,
    ROW,
    TAU,
    WAIT_S,
    WORTH,
    Net,
    Physics,
    Prices,
    Room,
    Seen,
    network,
    new_room,
)
from hybridalloc.problems.mec.formulas import lateness, rate_of, snr_of
from hybridalloc.problems.mec.settling import _able, charge, lay, settle_server
from rl.value import Worth, worth_at

LEFTOVER = 0.0  # a slot of backlog that a queue is left with
LEAST_GAIN = 1e-4  # what a change must bring
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


class _One(NamedTuple):
    """A :class:`Model` of one network."""

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


@njit(cache=True, error_model="numpy")
def rises(p, w, e, plan, rise):
    """Fill ``rise`` (B,): mean interference over noise of network ``e`` under a plan."""
    rise[:] = 0.0
    servers = w.server_hz.shape[1]
    if p.interference and servers:
        _rises(p, network(w, e), e, plan, np.empty((servers, servers), np.int64), np.empty(servers, np.int64), rise)


@njit(**LEAN)
def _rises(p, one, e, plan, near, nears, rise):
    """:func:`rises`, added to ``rise``; ``near`` (K, K) and ``nears`` (K,) are scratch."""
    bands = one.rate.shape[1]
    per = bands // len(nears)
    _neighbours(p, one, near, nears)
    for i in range(one.rate.shape[0]):
        o, rho, air, power = plan.option[e, i], plan.fraction[e, i], plan.air[e, i], plan.power_w[e, i]
        if one.active[i] and 0 < o <= bands and rho > 0.0 and air > 0.0:
            seconds = one.task_bits[i] / rate_of(p, power, snr_of(p, one.rate[i, o - 1]))
            duty = min(air, rho * seconds / p.slot_s) * power / p.noise_w
            _spread(one.mean_gain, i, near, nears, per, o - 1, duty, rise)


@njit(**LEAN)
def _neighbours(p, one, near, nears):
    """List the servers that hear those of each."""
    servers = len(one.server_hz)
    for k in range(servers):
        nears[k] = 0
        for q in range(servers) if p.interference else range(0):
            if q != k and one.reuse_group[q] == one.reuse_group[k]:
                near[k, nears[k]] = q
                nears[k] += 1


@njit(**INLINE)
def _spread(gain, i, near, nears, per, b, duty, rise):
    """Add device i's signal of mean power ``duty`` on band b to ``rise`` (B,) where it is heard; mean gains (N, K)."""
    if duty == 0.0:
        return
    k = b // per
    for x in range(nears[k]):
        q = near[k, x]
        rise[q * per + b - k * per] += duty * gain[i, q]


@njit(**INLINE)
def _duty(p, row, j, out, m):
    """Mean transmitted power over noise, as believed, of the device of row j, which got ``out[m]``."""
    rho, air, power = out[m, OUT_FRACTION], out[m, OUT_AIR], out[m, OUT_POWER]
    if not (rho > 0.0 and air > 0.0):
        return 0.0
    seconds = out[m, OUT_S] if row[j, MEDIAN] == row[j, GAIN] else row[j, BITS] / rate_of(p, power, row[j, MEDIAN])
    return min(air, rho * seconds / p.slot_s) * power / p.noise_w


@njit(cache=True, error_model="numpy", inline="always")
def _idle(p, age):
    """Reward of a device that does nothing; ``age`` is that of its last result at the end of the slot, 20 at most."""
    return -p.reward_age * age / 10.0


@njit(**LEAN)
def _device(p, row, j, gain, ratio, air, cpu, power, rho, store, i, knot, capacity):
    """Expected reward of an active device, less what it takes from its battery's worth.

    Args:
        row, gain: row j is its own: see :func:`.core.lay`; (Q,) signal over noise at 1 W, which ``ratio`` scales. air,
            cpu, power, rho: what it is settled to. store: (N, J) gains of batteries' worth, its own the i-th, at
            ``knot`` (J,), shares of ``capacity`` (N,) J.

    Returns:
        the reward; what it sends, as expected: s on air and s of the server's time.
    """
    tau = row[j, TAU]
    sends = rho > 0.0 and air > 0.0
    rho = rho if sends else 0.0
    local_s = (1.0 - rho) * row[j, LOCAL_S]
    local_j = (1.0 - rho) * row[j, LOCAL_J]
    able = _able(p, row, j, rho)
    own_j = local_j if able else 0.0
    valued = len(knot) > 0
    full = worth_at(store[i], knot, row[j, BATTERY_J] / capacity[i]) if valued else 0.0
    done = joule = air_in = cpu_in = taken = moved = 0.0
    if sends:
        moved = row[j, MOVED]
        wait = row[j, WAIT_S]
        before = wait - row[j, QUEUE_S]  # its data is on the server
        cpu_s = rho * row[j, CPU_S]
        cpu_t = cpu_s / max(cpu, 1e-12)
        share = 1.0 / gain.shape[1]
        certain = p.certain and gain.shape[1] == 1
        room = air * max(tau - before, 0.0)
        bits = rho * row[j, BITS]
        for q in range(gain.shape[1]):
            air_s = bits / rate_of(p, power, gain[j, q] * ratio)
            air_t = air_s / air
            used = min(air_s, room)
            air_in += share * used
            if valued:
                drawn = own_j + power * used / p.efficiency
                if drawn > 0.0:
                    taken += share * (full - worth_at(store[i], knot, (row[j, BATTERY_J] - drawn) / capacity[i]))
            if before + air_t <= tau:
                cpu_in += share * cpu_s
            if able:
                time = max(local_s, wait + air_t + cpu_t)
                if certain:
                    done += 1.0 if time <= tau else 0.0
                else:
                    done += share * (1.0 - lateness(time, tau))
        joule = power * air_in / p.efficiency
    elif able:
        done = 1.0
        if valued and own_j > 0.0:
            taken = full - worth_at(store[i], knot, (row[j, BATTERY_J] - own_j) / capacity[i])
    if able:
        joule += local_j
    worth = row[j, WORTH] * done - p.reward_energy * joule / ENERGY_UNIT
    worth -= p.reward_age * (done + (1.0 - done) * row[j, AGE]) / 10.0 + taken
    return worth - p.reward_switch * moved, air_in, cpu_in


@njit(cache=True, error_model="numpy")
def expected(p, w, v, plan, against, same, out):
    """Fill ``out`` (E,) with W of a settled plan, without the tilt; ``against`` is that under which the belief holds,
    ``same`` whether it is the plan itself, ``v`` a :class:`rl.value.Worth`."""
    bands = w.rate.shape[2]
    rise, held = np.empty(bands), np.empty(bands)
    for e in range(len(out)):
        rises(p, w, e, plan, rise)
        if same:
            copy_into(held, rise)
        else:
            rises(p, w, e, against, held)
        out[e] = _whole(p, network(w, e), v.gain[e], v.knot, v.capacity[e], e, plan, rise, held)


@njit(cache=True, error_model="numpy")
def _whole(p, one, store, knot, capacity, e, plan, rise, against):
    """W of one network under a plan that has ``rise`` (B,)."""
    gain, row = np.empty((1, one.rates.shape[2])), np.empty((1, ROW))
    air, cpu = np.zeros(one.rate.shape[1]), np.zeros(len(one.server_hz))
    return _sum_up(p, one, store, knot, capacity, e, plan, rise, against, gain, row, air, cpu)


@njit(**LEAN)
def _sum_up(p, one, store, knot, capacity, e, plan, rise, against, gain, row, air, cpu):
    """:func:`_whole`; ``gain`` (1, Q) and ``row`` (1, ROW) are scratch, ``air`` (B,) and ``cpu`` (K,) zero."""
    n, bands, values = one.rates.shape
    servers = len(cpu)
    per = bands // servers if servers else 1
    total = 0.0
    for i in range(n):
        o = plan.option[e, i]
        if not one.active[i] or o > bands:
            total += _idle(p, min(one.age_slots[i] + 1.0, 20.0))
            continue
        ratio = 1.0
        lay(p, one, i, o - 1, row, 0)
        if o > 0:
            ratio = (1.0 + against[o - 1]) / (1.0 + rise[o - 1])
            for q in range(values):
                gain[0, q] = snr_of(p, one.rates[i, o - 1, q])
        worth, air_in, cpu_in = _device(
            p, row, 0, gain, ratio, plan.air[e, i], plan.cpu[e, i], plan.power_w[e, i], plan.fraction[e, i], store, i,
            knot, capacity,
        )  # fmt: skip
        total += worth
        if o > 0:
            air[o - 1] += air_in
            cpu[(o - 1) // per] += cpu_in
    for k in range(servers):
        total -= _leftover(p, one.cpu_wait_s, one.air_wait_s, k, per, air, k * per, cpu[k])
    return total


@njit(**LEAN)
def _leftover(p, cpu_wait_s, air_wait_s, k, per, air, first, cpu):
    """Price of what the queues of server k keep beyond the slot, where ``cpu`` s come to it and ``air`` s, from the
    entry ``first`` on, to its bands; the waits are (K,) and (B,)."""
    if not p.queues or LEFTOVER == 0.0:
        return 0.0
    over = max(cpu_wait_s[k] + cpu - p.slot_s, 0.0)
    for b in range(per):
        over += max(air_wait_s[k * per + b] + air[first + b] - p.slot_s, 0.0)
    return LEFTOVER * over / p.slot_s


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
def _at(o, per, bands):
    """The server of an option; -1 for none."""
    return (o - 1) // per if 0 < o <= bands else -1


@njit(**INLINE)
def _copy_row(to, i, of, j):
    """Copy row j of one array to row i of another."""
    for x in range(to.shape[1]):
        to[i, x] = of[j, x]


@njit(**INLINE)
def _prepare(m, c, i, o, held, air_floor, cpu_floor, r):
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
def _value(m, c, i, r, out, x, o, ratio):
    """As :func:`_device`, tilt included, of device i in row ``r`` that got ``out[x]`` on option ``o``."""
    worth, air_in, cpu_in = _idle(m.physics, c.row[r, AGE]), 0.0, 0.0
    if o <= m.net.rate.shape[1]:
        worth, air_in, cpu_in = _device(
            m.physics, c.row, r, c.gain, ratio, out[x, OUT_AIR], out[x, OUT_CPU], out[x, OUT_POWER],
            out[x, OUT_FRACTION], m.store, i, m.knot, m.capacity,
        )  # fmt: skip
    return worth - c.tax[r], air_in, cpu_in


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
    _neighbours(p, one, c.near, c.nears)
    for i in range(n):
        o = c.option[i] = plan.option[e, i]
        if not one.active[i]:
            continue
        _prepare(m, c, i, o, plan.held[e, i], plan.air_floor[e, i], plan.cpu_floor[e, i], i)
        out[i, OUT_AIR], out[i, OUT_CPU], out[i, OUT_POWER] = plan.air[e, i], plan.cpu[e, i], plan.power_w[e, i]
        out[i, OUT_FRACTION], out[i, OUT_SERVED] = plan.fraction[e, i], 1.0 if plan.served[e, i] else 0.0
        weigh(t, c.load, i, o, 1.0)
        k = _at(o, per, bands)
        if k >= 0:
            out[i, OUT_S] = row[i, BITS] / rate_of(p, out[i, OUT_POWER], row[i, GAIN])
            c.duty[i] = _duty(p, row, i, out, i)
            c.member[k, c.size[k]] = i
            c.size[k] += 1
        else:
            c.value[i] = _value(m, c, i, i, out, i, o, 1.0)[0]
    copy_into(c.at, c.rise)
    c.left[:] = c.drift[:] = 0.0
    c.redo[:] = True
    _refresh(m, c, per)


@njit(**INLINE)
def _refresh(m, c, per):
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
                worth, air_in, cpu_in = _value(m, c, i, i, c.level, i, o, ratio)
                if further:
                    c.slope[b] += (worth - c.value[i]) / (STEP * noise)
                else:
                    air[b - k * per] += air_in
                    cpu += cpu_in
                    change += worth - c.value[i]
                    c.value[i] = worth
        left = _leftover(p, m.net.cpu_wait_s, m.net.air_wait_s, k, per, air, 0, cpu)
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
        sides.duty[s, x] = _duty(m.physics, c.row, of[s, x], out, x)


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
        worth, air_in, cpu_in = _value(m, c, j, r, out, x, at, ratio)
        air[b] += air_in
        cpu += cpu_in
        change += worth - c.value[j]
    change -= _leftover(m.physics, m.net.cpu_wait_s, m.net.air_wait_s, k, per, air, 0, cpu) - c.left[k]
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
def _try(m, c, i, o, per, fresh):
    """The change of V if device i went to option ``o``, whose row is prepared; ``fresh`` where the server that it
    leaves is not settled without it yet."""
    bands, n, sides = m.net.rate.shape[1], len(c.option), c.sides
    was, k = _at(c.option[i], per, bands), _at(o, per, bands)
    start = was if was != k else -1
    change = 0.0
    _settle_sides(m, c, i, o, k, start, fresh)
    if k < 0:
        change += _value(m, c, i, n, sides.out[1], 0, o, 1.0)[0] - c.value[i]
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
def _make(m, c, i, o, per, plan, e):
    """Put device i on option ``o``, whose row is prepared; then work out the values of whoever hears it. The change of
    V."""
    bands, n, sides = m.net.rate.shape[1], len(c.option), c.sides
    was, k = _at(c.option[i], per, bands), _at(o, per, bands)
    start = was if was != k else -1
    _settle_sides(m, c, i, o, k, start, True)
    if start >= 0:
        strike(c.member, c.size, start, i)
    if k >= 0 and was != k:
        enter(c.member, c.size, k, i)
    if was >= 0:
        _spread(m.net.mean_gain, i, c.near, c.nears, per, c.option[i] - 1, -c.duty[i], c.rise)
    c.duty[i] = 0.0
    c.option[i] = o
    _copy_row(c.row, i, c.row, n)
    _copy_row(c.gain, i, c.gain, n)
    c.tax[i] = c.tax[n]
    change = 0.0
    if k < 0:
        _copy_row(c.level, i, sides.out[1], 0)
        worth = _value(m, c, i, i, c.level, i, o, 1.0)[0]
        change += worth - c.value[i]
        c.value[i] = worth
    for s in range(2):
        q = k if s else start
        for x in range(sides.size[s] if q >= 0 else 0):
            j = sides.who[s, x]
            more = sides.duty[s, x] - c.duty[j]
            _spread(m.net.mean_gain, j, c.near, c.nears, per, c.option[j] - 1, more, c.rise)
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
    change += _refresh(m, c, per)
    c.drift[0] = 0.0
    for b in range(len(c.rise) if m.physics.interference else 0):
        c.drift[0] += c.slope[b] * (c.rise[b] - c.at[b])
    return change


@njit(**INLINE)
def _visit(m, c, i, t, z, allowed, per, plan, e):
    """Device i tries its cheapest other options, as many as ``c.best`` holds and at most ``c.reach`` dearer than its
    own, and takes the one that raises V most; whether it did."""
    one, seated = m.net, m.seated
    bands, n = one.rate.shape[1], len(c.option)
    floor, own, top_floor = c.floor[0], c.floor[1], c.floor[2]
    start = c.option[i]
    was = _at(start, per, bands)
    candidates(t, c.load, allowed, i, start, c.best, c.regret)
    home, holds = seated and t.home[i], seated and z.held[i]
    own[:] = 0.0
    if holds:
        copy_into(own, z.floor[i])
        leave(t, z, i)
    here, top, top_held, fresh = start, LEAST_GAIN, holds, True
    copy_into(top_floor, own)
    for x in range(len(c.best)):
        o = c.best[x]
        if o < 0 or c.regret[x] > c.reach[0]:
            break
        k = _at(o, per, bands)
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
        _prepare(m, c, i, o, held, floor[0], floor[1], n)
        change = _try(m, c, i, o, per, fresh)
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
        _prepare(m, c, i, here, top_held, top_floor[0], top_floor[1], n)
        made = _make(m, c, i, here, per, plan, e) > LEAST_GAIN and back == 0
        if made:
            c.tries[1] += 1
            for o in (start, here):
                if _at(o, per, bands) >= 0:
                    c.stamp[_at(o, per, bands)] = c.tries[1]
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


@njit(cache=True, error_model="numpy")
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
    one = _One(
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


@njit(cache=True, error_model="numpy")
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


@njit(cache=True, error_model="numpy")
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
    whole = _whole(model.physics, network(w, e), v.gain[e], v.knot, v.capacity[e], e, plan, c.rise, c.against)
    worth[e] = whole - tilt
