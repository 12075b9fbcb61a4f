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

A change of option changes shares on two servers and interference on the servers of their groups: those alone are worked
out again (:func:`visit`). With seats (see :mod:`games.admission`) a holder moves only to a place that fits, floors
kept, and at the end whoever waits and fits is seated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.changes import candidates, enter, strike, weigh
from games.congestion import Bool, Float, Int
from games.places import copy_into, least_floors, leave, take
from hybridalloc.problems.mec.core import (
    ENERGY_UNIT,
    Physics,
    Prices,
    Room,
    Wish,
    World,
    _late,
    _rate,
    _snr,
    _wait,
    new_room,
    settle_alone,
    settle_server,
)
from rl.value import Worth, worth_at

LEFTOVER = 0.0  # a slot of backlog that a queue is left with
GAIN = 1e-4  # what a change must bring
STALE = 1e-3  # relative change of a band's noise below which the values on it are not worked out again
STEP = 0.05  # of a band's noise, for the slope of the values on it


class Climb(NamedTuple):
    """Where a climb in one network stands; N devices, K servers, B bands, Q rates."""

    value: Float  # (N,) of each device, tilt included
    duty: Float  # (N,) mean transmitted power over noise
    rise: Float  # (B,) of the plan
    at: Float  # (B,) at which the values were worked out
    against: Float  # (B,)
    slope: Float  # (B,) of the values on each band by its rise
    left: Float  # (K,) price of what this server's queues keep
    member: Int  # (K, N) devices of each server, ascending
    size: Int  # (K,) how many they are
    load: Float  # (R,)
    gain: Float  # (N, B, Q) signal over noise at 1 W
    known: Bool  # (N, B) whether it was worked out
    tries: Int  # (3,) changes tried, changes made, holders moved
    stamp: Int  # (K,) the last change on each server, counted from 1
    seen: Int  # (N,) the last change before each device was visited
    room: Room  # scratch


class Model(NamedTuple):
    """What a climb settles and values by."""

    physics: Physics
    world: World
    left: Worth  # what batteries are worth
    prices: Prices
    priority: Float  # (E, N)
    rank: Int  # (E, N)
    wish: Wish
    asked: Float  # (E, N, 1 or O, 4), see :func:`ask`
    trust: float
    energy: Float  # (E, N)
    seated: bool


@njit(cache=True, error_model="numpy")
def rises(p, w, e, plan, rise):
    """Fill ``rise`` (B,): mean interference over noise of network ``e`` under a plan."""
    rise[:] = 0.0
    if p.interference:
        for i in range(w.rate.shape[1]):
            _spread(p, w, e, i, plan.option[e, i] - 1, _duty(p, w, e, i, plan), rise)


@njit(cache=True, error_model="numpy", inline="always")
def _duty(p, w, e, i, plan):
    """Mean transmitted power of device i over noise, as believed."""
    o = plan.option[e, i]
    if not (w.active[e, i] and 0 < o <= w.rate.shape[2] and plan.fraction[e, i] > 0.0 and plan.air[e, i] > 0.0):
        return 0.0
    rate = _rate(p, plan.power_w[e, i], _snr(p, w.rate[e, i, o - 1]))
    air_s = plan.fraction[e, i] * w.task_bits[e, i] / rate
    return min(plan.air[e, i], air_s / p.slot_s) * plan.power_w[e, i] / p.noise_w


@njit(cache=True, error_model="numpy", inline="always")
def _spread(p, w, e, i, b, duty, rise):
    """Add device i's signal of mean power ``duty`` on band b to ``rise`` (B,) where it is heard."""
    if duty == 0.0 or not p.interference:
        return
    servers = w.server_hz.shape[1]
    per = len(rise) // servers
    k = b // per
    for q in range(servers):
        if q != k and w.reuse_group[e, q] == w.reuse_group[e, k]:
            rise[q * per + b % per] += duty * w.mean_gain[e, i, q]


@njit(cache=True, error_model="numpy", inline="always")
def _idle(p, w, e, i):
    """Reward of a device that does nothing."""
    return -p.reward_age * min(w.age_slots[e, i] + 1.0, 20.0) / 10.0


@njit(cache=True, error_model="numpy", inline="always")
def _taken(v, w, e, i, joule):
    """What a draw takes from the worth of device i's battery."""
    if v.gain.shape[2] == 0 or joule <= 0.0:
        return 0.0
    level, capacity = w.battery_j[e, i], v.capacity[e, i]
    after = worth_at(v.gain[e, i], v.knot, (level - joule) / capacity)
    return worth_at(v.gain[e, i], v.knot, level / capacity) - after


@njit(cache=True, error_model="numpy", inline="always")
def _device(p, w, v, e, i, plan, gain, ratio):
    """Expected reward of an active device, less what it takes from its battery's worth ``v``; ``gain`` (Q,) of its
    band, ``ratio`` what scales them. Also what it sends, as expected: s on air and s of the server's time."""
    tau, cycles, o = w.deadline_s[e, i], w.task_cycles[e, i], plan.option[e, i]
    if o > w.rate.shape[2]:
        return _idle(p, w, e, i), 0.0, 0.0
    sends = o > 0 and plan.fraction[e, i] > 0.0 and plan.air[e, i] > 0.0
    rho = plan.fraction[e, i] if sends else 0.0
    local_s = (1.0 - rho) * cycles / w.device_hz[e, i]
    local_j = (1.0 - rho) * p.kappa * w.device_hz[e, i] ** 2 * cycles
    able = local_s <= tau and not (p.batteries and local_j > w.battery_j[e, i])
    own_j = local_j if able else 0.0
    done = joule = air_in = cpu_in = taken = 0.0
    moved = False
    if sends:
        b = o - 1
        k = b // (w.rate.shape[2] // w.server_hz.shape[1])
        moved = p.migration and w.last_server[e, i] >= 0 and w.last_server[e, i] != k
        wait = _wait(p, w, e, i, b, k)
        before = wait - w.cpu_wait_s[e, k]  # its data is on the server
        cpu_s = rho * cycles / w.server_hz[e, k]
        cpu_t = cpu_s / max(plan.cpu[e, i], 1e-12)
        share = 1.0 / len(gain)
        certain = p.certain and len(gain) == 1
        room = plan.air[e, i] * max(tau - before, 0.0)
        for q in range(len(gain)):
            air_s = rho * w.task_bits[e, i] / _rate(p, plan.power_w[e, i], gain[q] * ratio)
            air_t = air_s / plan.air[e, i]
            used = min(air_s, room)
            air_in += share * used
            taken += share * _taken(v, w, e, i, own_j + plan.power_w[e, i] * used / p.efficiency)
            if before + air_t <= tau:
                cpu_in += share * cpu_s
            if able:
                time = max(local_s, wait + air_t + cpu_t)
                if certain:
                    done += 1.0 if time <= tau else 0.0
                else:
                    done += share * (1.0 - _late(time, tau))
        joule = plan.power_w[e, i] * air_in / p.efficiency
    elif able:
        done = 1.0
        taken = _taken(v, w, e, i, own_j)
    if able:
        joule += local_j
    older = min(w.age_slots[e, i] + 1.0, 20.0)
    worth = w.worth[e, i] * done - p.reward_energy * joule / ENERGY_UNIT
    worth -= p.reward_age * (done + (1.0 - done) * older) / 10.0 + taken
    return worth - (p.reward_switch if moved else 0.0), air_in, cpu_in


@njit(cache=True, error_model="numpy")
def _gains(p, w, e, i, b, gain, known):
    """Signal over noise at 1 W of each believed rate, worked out once."""
    if not known[i, b]:
        known[i, b] = True
        for q in range(w.rates.shape[3]):
            gain[i, b, q] = _snr(p, w.rates[e, i, b, q])


@njit(cache=True, error_model="numpy")
def expected(p, w, v, plan, rise, against, out):
    """Fill ``out`` (E,) with W of a settled plan, without the tilt; its ``rise`` (E, B) and that ``against`` which the
    belief holds are from :func:`rises`, ``v`` a :class:`rl.value.Worth`."""
    networks, n, bands, values = w.rates.shape
    servers = w.server_hz.shape[1]
    per = bands // servers if servers else 1
    gain = np.empty(values)
    air, cpu = np.empty(bands), np.empty(servers)
    for e in range(networks):
        air[:] = 0.0
        cpu[:] = 0.0
        out[e] = 0.0
        for i in range(n):
            if not w.active[e, i]:
                out[e] += _idle(p, w, e, i)
                continue
            b = plan.option[e, i] - 1 if plan.option[e, i] <= bands else -1
            ratio = 1.0
            if b >= 0:
                ratio = (1.0 + against[e, b]) / (1.0 + rise[e, b])
                for q in range(values):
                    gain[q] = _snr(p, w.rates[e, i, b, q])
            worth, air_in, cpu_in = _device(p, w, v, e, i, plan, gain, ratio)
            out[e] += worth
            if b >= 0:
                air[b] += air_in
                cpu[b // per] += cpu_in
        for k in range(servers):
            out[e] -= _leftover(p, w, e, k, air, cpu[k])


@njit(cache=True, error_model="numpy")
def _leftover(p, w, e, k, air, cpu):
    """Price of what the queues of server k keep beyond the slot."""
    if not p.queues or LEFTOVER == 0.0:
        return 0.0
    per = len(air) // w.server_hz.shape[1]
    over = max(w.cpu_wait_s[e, k] + cpu - p.slot_s, 0.0)
    for b in range(k * per, (k + 1) * per):
        over += max(w.air_wait_s[e, b] + air[b] - p.slot_s, 0.0)
    return LEFTOVER * over / p.slot_s


def new_climb(n: int, k: int, b: int, q: int, resources: int, against: Float) -> Climb:
    """One with nothing in it."""
    f = np.zeros
    return Climb(
        f(n), f(n), f(b), f(b), against, f(b), f(k), np.zeros((k, n), np.int64), np.zeros(k, np.int64), f(resources),
        f((n, b, q)), np.zeros((n, b), bool), np.zeros(3, np.int64), np.zeros(k, np.int64), np.full(n, -1),
        new_room(n, b // max(k, 1)),
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def begin(p, w, v, e, plan, rise, tilt, t, c):
    """Set a climb ``c`` to a settled plan of network ``e`` that has ``rise`` (B,)."""
    n, bands = w.rate.shape[1:]
    per = bands // len(c.size)
    c.size[:] = 0
    c.load[:] = 0.0
    for i in range(n):
        c.duty[i] = c.value[i] = 0.0
        if not w.active[e, i]:
            continue
        o = plan.option[e, i]
        k = _at(w, o, per)
        if k >= 0:
            c.member[k, c.size[k]] = i
            c.size[k] += 1
        weigh(t, c.load, i, o, 1.0)
        c.duty[i] = _duty(p, w, e, i, plan)
    c.rise[:] = rise
    c.at[:] = rise
    for i in range(n):
        if w.active[e, i] and _at(w, plan.option[e, i], per) < 0:
            c.value[i] = _device(p, w, v, e, i, plan, c.gain[i, 0], 1.0)[0] - tilt[e, i, plan.option[e, i]]
    for k in range(len(c.size)):
        _server(p, w, v, e, k, plan, tilt, c)
        _slopes(p, w, v, e, k, plan, c)


@njit(cache=True, inline="always")
def _at(w, o, per):
    """The server of an option; -1 for none."""
    return (o - 1) // per if 0 < o <= w.rate.shape[2] else -1


@njit(cache=True, error_model="numpy")
def _slopes(p, w, v, e, k, plan, c):
    """Slope of the values of server k's devices by the rise on each of its bands."""
    if not p.interference:
        return
    per = w.rate.shape[2] // len(c.size)
    for b in range(k * per, (k + 1) * per):
        c.slope[b] = 0.0
    for m in range(c.size[k]):
        i = c.member[k, m]
        b = plan.option[e, i] - 1
        noise = 1.0 + c.at[b]
        ratio = (1.0 + c.against[b]) / (noise * (1.0 + STEP))
        worth, _, _ = _device(p, w, v, e, i, plan, c.gain[i, b], ratio)
        same, _, _ = _device(p, w, v, e, i, plan, c.gain[i, b], (1.0 + c.against[b]) / noise)
        c.slope[b] += (worth - same) / (STEP * noise)


@njit(cache=True, error_model="numpy")
def _server(p, w, v, e, k, plan, tilt, c):
    """Work out the values of the devices of server k, and what its queues keep, at ``c.at``; their sum's change."""
    bands = w.rate.shape[2]
    air = np.zeros(bands)
    cpu = change = 0.0
    for m in range(c.size[k]):
        i = c.member[k, m]
        b = plan.option[e, i] - 1
        _gains(p, w, e, i, b, c.gain, c.known)
        ratio = (1.0 + c.against[b]) / (1.0 + c.at[b])
        worth, air_in, cpu_in = _device(p, w, v, e, i, plan, c.gain[i, b], ratio)
        worth -= tilt[e, i, b + 1]
        air[b] += air_in
        cpu += cpu_in
        change += worth - c.value[i]
        c.value[i] = worth
    left = _leftover(p, w, e, k, air, cpu)
    change -= left - c.left[k]
    c.left[k] = left
    return change


@njit(cache=True)
def ask(wish, asked, e, i, o):
    """What is proposed for device i's levels on option o; ``asked`` (N, 1 or O, 4), or nothing where it is 0 wide."""
    if asked.shape[1] > 0:
        s = o if asked.shape[1] > 1 else 0
        wish.power[e, i], wish.power_spread[e, i] = asked[i, s, 0], asked[i, s, 1]
        wish.fraction[e, i], wish.fraction_spread[e, i] = asked[i, s, 2], asked[i, s, 3]


@njit(cache=True, error_model="numpy")
def _move(model, plan, e, i, o, tilt, c, redo, trial):
    """Put device i on option o: settle its old and its new server again, then the values of whoever hears it. The
    change of W. ``redo`` (K,) is scratch. As a ``trial``, those who hear it are counted by their slopes."""
    p, w, v = model.physics, model.world, model.left
    per = w.rate.shape[2] // len(c.size)
    old = plan.option[e, i]
    a, z = _at(w, old, per), _at(w, o, per)
    redo[:] = False
    for k in (a, z):
        if k >= 0 and not redo[k]:
            redo[k] = True
            for m in range(c.size[k]):
                j = c.member[k, m]
                _spread(p, w, e, j, plan.option[e, j] - 1, -c.duty[j], c.rise)
    if a != z:
        if a >= 0:
            strike(c.member, c.size, a, i)
        if z >= 0:
            enter(c.member, c.size, z, i)
    plan.option[e, i] = o
    ask(model.wish, model.asked[e], e, i, o)
    change = 0.0
    if z < 0:
        settle_alone(p, w, model.prices, e, i, plan)
        plan.served[e, i] &= o == 0
        c.duty[i] = 0.0
        worth = _device(p, w, v, e, i, plan, c.gain[i, 0], 1.0)[0] - tilt[e, i, o]
        change += worth - c.value[i]
        c.value[i] = worth
    for k in (a, z):
        if k >= 0 and redo[k]:
            redo[k] = False
            member = c.member[k, : c.size[k]]
            settle_server(
                p, w, model.prices, model.priority, model.rank, model.wish, model.trust, model.seated, model.energy,
                plan, e, k, member, c.room,
            )  # fmt: skip
            for m in range(c.size[k]):
                j = c.member[k, m]
                c.duty[j] = _duty(p, w, e, j, plan)
                _spread(p, w, e, j, plan.option[e, j] - 1, c.duty[j], c.rise)
    for k in (a, z):
        if k >= 0:
            redo[k] = True
    for b in range(len(c.rise)):
        k = b // per
        if redo[k] or (not trial and abs(c.rise[b] - c.at[b]) > STALE * (1.0 + c.at[b])):
            c.at[b] = c.rise[b]
            redo[k] = True
        elif trial:
            change += c.slope[b] * (c.rise[b] - c.at[b])
    for k in range(len(c.size)):
        if redo[k]:
            change += _server(p, w, v, e, k, plan, tilt, c)
            if not trial:
                _slopes(p, w, v, e, k, plan, c)
    return change


@njit(cache=True)
def _stamp(w, c, o, per):
    """The last change on an option's server; 0 for none."""
    k = _at(w, o, per)
    return c.stamp[k] if k >= 0 else 0


@njit(cache=True)
def _hold(plan, e, i, held, floor):
    """Note in the plan what device i holds; ``floor`` (2,)."""
    plan.held[e, i] = held
    plan.air_floor[e, i], plan.cpu_floor[e, i] = floor[0], floor[1]


@njit(cache=True, error_model="numpy")
def visit(model, plan, e, tilt, t, allowed, z, c, kept, order, best, reach):
    """One visit to each of the devices ``order`` (M,) of network ``e``: it tries its cheapest other options, as many as
    ``best`` (W,) holds and at most ``reach`` dearer than its own, and takes the one that raises W most.

    ``plan``, the seats ``z`` and ``c`` are changed in place; ``kept`` is scratch of the same shapes.

    Returns:
        how many changed.
    """
    old, before = kept
    w, seated = model.world, model.seated
    legs, per = t.rows.shape[1], w.rate.shape[2] // len(c.size)
    floor, own, top_floor, none = np.zeros(legs), np.zeros(legs), np.zeros(legs), np.zeros(legs)
    regret = np.empty(len(best))
    redo = np.zeros(len(c.size), np.bool_)
    made = 0
    for i in order:
        if not w.active[e, i]:
            continue
        start = plan.option[e, i]
        candidates(t, c.load, allowed[e], i, start, best, regret)
        home, holds = seated and t.home[i], seated and z.held[i]
        if holds:
            copy_into(own, z.floor[i])
            leave(t, z, i)
        here, top, top_held = start, GAIN, holds
        copy_into(top_floor, own if holds else none)
        for m in range(len(best)):
            o = best[m]
            if o < 0 or regret[m] > reach:
                break
            if max(_stamp(w, c, start, per), _stamp(w, c, o, per)) <= c.seen[i]:
                continue  # neither server has changed since it was tried
            copy_into(floor, none)
            held = home
            if seated and not home:
                held = o > 0 and t.ok[i, o] and least_floors(t, i, o, z.used, floor)
                if not held:
                    copy_into(floor, none)
                    if holds:
                        continue  # a place is given up for no other
            c.tries[0] += 1
            _keep(w, e, i, start, o, plan, c, old, before)
            _hold(plan, e, i, held, floor)
            change = _move(model, plan, e, i, o, tilt, c, redo, True)
            if change > top:
                here, top, top_held = o, change, held
                copy_into(top_floor, floor)
            _restore(w, e, i, start, o, plan, c, old, before)
        ask(model.wish, model.asked[e], e, i, here)
        c.seen[i] = c.tries[1]
        if here != start:
            _hold(plan, e, i, top_held, top_floor)
            weigh(t, c.load, i, start, -1.0)
            weigh(t, c.load, i, here, 1.0)
            change = _move(model, plan, e, i, here, tilt, c, redo, False)
            if change > GAIN:
                made += 1
                c.tries[1] += 1
                for o in (start, here):
                    if _at(w, o, per) >= 0:
                        c.stamp[_at(w, o, per)] = c.tries[1]
                c.tries[2] += 1 if holds and not home else 0
            else:  # those who hear it lose more than their slopes told
                _hold(plan, e, i, holds, own if holds else none)
                weigh(t, c.load, i, here, -1.0)
                weigh(t, c.load, i, start, 1.0)
                _move(model, plan, e, i, start, tilt, c, redo, False)
                here, top_held = start, holds
                copy_into(top_floor, own if holds else none)
        if seated:
            if top_held:
                take(t, z, i, here, top_floor)
            else:
                z.option[i] = here
    return made


@njit(cache=True)
def _keep(w, e, i, start, o, plan, c, old, before):
    """Note in ``old`` and ``before`` what a move of device i from option ``start`` to ``o`` may change."""
    for x, y in ((old.value, c.value), (old.duty, c.duty), (old.rise, c.rise), (old.at, c.at), (old.left, c.left)):
        copy_into(x, y)
    per = w.rate.shape[2] // len(c.size)
    _keep_device(e, i, plan, before)
    for q in (start, o):
        k = _at(w, q, per)
        if k >= 0:
            _keep_server(e, k, per, plan, before)
            for m in range(c.size[k]):
                _keep_device(e, c.member[k, m], plan, before)


@njit(cache=True)
def _keep_device(e, i, plan, before):
    """Copy a device's part of one plan to another."""
    before.option[e, i] = plan.option[e, i]
    before.held[e, i], before.served[e, i] = plan.held[e, i], plan.served[e, i]
    before.air[e, i], before.cpu[e, i] = plan.air[e, i], plan.cpu[e, i]
    before.power_w[e, i], before.fraction[e, i] = plan.power_w[e, i], plan.fraction[e, i]
    before.air_floor[e, i], before.cpu_floor[e, i] = plan.air_floor[e, i], plan.cpu_floor[e, i]


@njit(cache=True)
def _keep_server(e, k, per, plan, before):
    """Copy a server's part of one plan to another."""
    before.cpu_price[e, k] = plan.cpu_price[e, k]
    for b in range(k * per, (k + 1) * per):
        before.air_price[e, b] = plan.air_price[e, b]


@njit(cache=True)
def _restore(w, e, i, start, o, plan, c, old, before):
    """Undo a move of device i from option ``start`` to ``o``."""
    for x, y in ((c.value, old.value), (c.duty, old.duty), (c.rise, old.rise), (c.at, old.at), (c.left, old.left)):
        copy_into(x, y)
    per = w.rate.shape[2] // len(c.size)
    a, z = _at(w, start, per), _at(w, o, per)
    if a != z:
        if z >= 0:
            strike(c.member, c.size, z, i)
        if a >= 0:
            enter(c.member, c.size, a, i)
    _keep_device(e, i, before, plan)
    for k in (a, z):
        if k >= 0:
            _keep_server(e, k, per, before, plan)
            for m in range(c.size[k]):
                _keep_device(e, c.member[k, m], before, plan)
