r"""What a settled plan of ``mec`` is worth in one slot, as believed.

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
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import INLINE, KEPT, LEAN
from games.places import copy_into
from hybridalloc.problems.mec.arrays import (
    AGE,
    BATTERY_J,
    BITS,
    CPU_S,
    ENERGY_UNIT,
    GAIN,
    LOCAL_J,
    LOCAL_S,
    MEDIAN,
    MOVED,
    OUT_AIR,
    OUT_FRACTION,
    OUT_POWER,
    OUT_S,
    QUEUE_S,
    ROW,
    TAU,
    WAIT_S,
    WORTH,
    network,
)
from hybridalloc.problems.mec.formulas import lateness, rate_of, snr_of
from hybridalloc.problems.mec.settling import _able, lay
from rl.value import worth_at

LEFTOVER = 0.0  # a slot of backlog that a queue is left with


@njit(**KEPT, error_model="numpy")
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
    neighbours(p, one, near, nears)
    for i in range(one.rate.shape[0]):
        o, rho, air, power = plan.option[e, i], plan.fraction[e, i], plan.air[e, i], plan.power_w[e, i]
        if one.active[i] and 0 < o <= bands and rho > 0.0 and air > 0.0:
            seconds = one.task_bits[i] / rate_of(p, power, snr_of(p, one.rate[i, o - 1]))
            duty = min(air, rho * seconds / p.slot_s) * power / p.noise_w
            spread(one.mean_gain, i, near, nears, per, o - 1, duty, rise)


@njit(**LEAN)
def neighbours(p, one, near, nears):
    """List the servers that hear those of each."""
    servers = len(one.server_hz)
    for k in range(servers):
        nears[k] = 0
        for q in range(servers) if p.interference else range(0):
            if q != k and one.reuse_group[q] == one.reuse_group[k]:
                near[k, nears[k]] = q
                nears[k] += 1


@njit(**INLINE)
def spread(gain, i, near, nears, per, b, duty, rise):
    """Add device i's signal of mean power ``duty`` on band b to ``rise`` (B,) where it is heard; mean gains (N, K)."""
    if duty == 0.0:
        return
    k = b // per
    for x in range(nears[k]):
        q = near[k, x]
        rise[q * per + b - k * per] += duty * gain[i, q]


@njit(**INLINE)
def duty_of(p, row, j, out, m):
    """Mean transmitted power over noise, as believed, of the device of row j, which got ``out[m]``."""
    rho, air, power = out[m, OUT_FRACTION], out[m, OUT_AIR], out[m, OUT_POWER]
    if not (rho > 0.0 and air > 0.0):
        return 0.0
    seconds = out[m, OUT_S] if row[j, MEDIAN] == row[j, GAIN] else row[j, BITS] / rate_of(p, power, row[j, MEDIAN])
    return min(air, rho * seconds / p.slot_s) * power / p.noise_w


@njit(**KEPT, error_model="numpy", inline="always")
def idle_worth(p, age):
    """Reward of a device that does nothing; ``age`` is that of its last result at the end of the slot, 20 at most."""
    return -p.reward_age * age / 10.0


@njit(**LEAN)
def device_worth(p, row, j, gain, ratio, air, cpu, power, rho, store, i, knot, capacity):
    """Expected reward of an active device, less what it takes from its battery's worth.

    Args:
        row, gain: row j is its own: see :func:`.settling.lay`; (Q,) signal over noise at 1 W, which ``ratio`` scales.
            air, cpu, power, rho: what it is settled to. store: (N, J) gains of batteries' worth, its own the i-th, at
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


@njit(**KEPT, error_model="numpy")
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
        out[e] = whole_worth(p, network(w, e), v.gain[e], v.knot, v.capacity[e], e, plan, rise, held)


@njit(**KEPT, error_model="numpy")
def whole_worth(p, one, store, knot, capacity, e, plan, rise, against):
    """W of one network under a plan that has ``rise`` (B,)."""
    gain, row = np.empty((1, one.rates.shape[2])), np.empty((1, ROW))
    air, cpu = np.zeros(one.rate.shape[1]), np.zeros(len(one.server_hz))
    return _sum_up(p, one, store, knot, capacity, e, plan, rise, against, gain, row, air, cpu)


@njit(**LEAN)
def _sum_up(p, one, store, knot, capacity, e, plan, rise, against, gain, row, air, cpu):
    """:func:`whole_worth`; ``gain`` (1, Q) and ``row`` (1, ROW) are scratch, ``air`` (B,) and ``cpu`` (K,) zero."""
    n, bands, values = one.rates.shape
    servers = len(cpu)
    per = bands // servers if servers else 1
    total = 0.0
    for i in range(n):
        o = plan.option[e, i]
        if not one.active[i] or o > bands:
            total += idle_worth(p, min(one.age_slots[i] + 1.0, 20.0))
            continue
        ratio = 1.0
        lay(p, one, i, o - 1, row, 0)
        if o > 0:
            ratio = (1.0 + against[o - 1]) / (1.0 + rise[o - 1])
            for q in range(values):
                gain[0, q] = snr_of(p, one.rates[i, o - 1, q])
        worth, air_in, cpu_in = device_worth(
            p, row, 0, gain, ratio, plan.air[e, i], plan.cpu[e, i], plan.power_w[e, i], plan.fraction[e, i], store, i,
            knot, capacity,
        )  # fmt: skip
        total += worth
        if o > 0:
            air[o - 1] += air_in
            cpu[(o - 1) // per] += cpu_in
    for k in range(servers):
        total -= leftover_price(p, one.cpu_wait_s, one.air_wait_s, k, per, air, k * per, cpu[k])
    return total


@njit(**LEAN)
def leftover_price(p, cpu_wait_s, air_wait_s, k, per, air, first, cpu):
    """Price of what the queues of server k keep beyond the slot, where ``cpu`` s come to it and ``air`` s, from the
    entry ``first`` on, to its bands; the waits are (K,) and (B,)."""
    if not p.queues or LEFTOVER == 0.0:
        return 0.0
    over = max(cpu_wait_s[k] + cpu - p.slot_s, 0.0)
    for b in range(per):
        over += max(air_wait_s[k * per + b] + air[first + b] - p.slot_s, 0.0)
    return LEFTOVER * over / p.slot_s
