"""From a choice to shares, power and fractions that fit, server by server."""

from __future__ import annotations

import numpy as np
from numba import njit

from coordinator.continuous import best_fraction, blend, falling_until, power_exponent
from games.lean import INLINE, KEPT, LEAN
from games.shares import split_into
from hybridalloc.problems.mec.arrays import (
    AGE,
    AIR_FLOOR,
    AIR_WEIGHT,
    BAND,
    BATTERY_J,
    BITS,
    CPU_FLOOR,
    CPU_S,
    CPU_WEIGHT,
    ENERGY_UNIT,
    FIRST,
    FRACTION,
    FRACTION_SPREAD,
    GAIN,
    HELD,
    JOULE,
    LEAST,
    LEAST_RATE,
    LOCAL_J,
    LOCAL_S,
    MEDIAN,
    MISS,
    MOVED,
    OUT,
    OUT_AIR,
    OUT_CPU,
    OUT_FRACTION,
    OUT_FRACTION_RESPONSE,
    OUT_POWER,
    OUT_POWER_RESPONSE,
    OUT_S,
    OUT_SERVED,
    POWER,
    POWER_SPREAD,
    QUEUE_S,
    RANK,
    RATIO,
    ROW,
    SECOND,
    TAU,
    TINY,
    TOP,
    TOP_S,
    WAIT_S,
    WORTH,
    network,
    new_room,
)
from hybridalloc.problems.mec.formulas import exceeded, least_fraction, most_power, rate_of, snr_of


@njit(**INLINE)
def lay(p, w, i, b, row, j):
    """Fill row j with what is read of device i of a :class:`Net` on band b; -1: it sends nothing."""
    cycles, hz = w.task_cycles[i], w.device_hz[i]
    row[j, TAU], row[j, BITS], row[j, WORTH] = w.deadline_s[i], w.task_bits[i], w.worth[i]
    row[j, BATTERY_J] = w.battery_j[i]
    row[j, LOCAL_S], row[j, LOCAL_J] = cycles / hz, p.kappa * hz**2 * cycles
    row[j, AGE] = min(w.age_slots[i] + 1.0, 20.0)
    if b >= 0:
        k = b // (w.rate.shape[1] // len(w.server_hz))
        moved = p.migration and w.last_server[i] >= 0 and w.last_server[i] != k
        row[j, MOVED], row[j, QUEUE_S] = 1.0 if moved else 0.0, w.cpu_wait_s[k]
        row[j, WAIT_S] = p.backhaul_s + w.cpu_wait_s[k] + w.air_wait_s[b] + (p.switch_s if moved else 0.0)
        row[j, CPU_S] = cycles / w.server_hz[k]


@njit(**INLINE)
def charge(p, w, prices, priority, rank, energy, i, b, row, j):
    """Fill the rest of row j on band b, without a place and nothing proposed; ``priority``, ``rank`` and ``energy``
    (what a tenth of a joule is worth) are the device's own."""
    servers = len(w.server_hz)
    per = w.rate.shape[1] // servers
    k = b // per
    tau = row[j, TAU]
    row[j, BAND], row[j, FIRST], row[j, RANK] = b - k * per, priority, rank
    row[j, SECOND], row[j, JOULE], row[j, MISS] = prices.delay / tau, energy / ENERGY_UNIT, prices.miss * row[j, WORTH]
    own = np.inf if p.batteries and row[j, LOCAL_J] > row[j, BATTERY_J] else row[j, LOCAL_S]
    row[j, LEAST] = least_fraction(p, prices, own, tau)
    rate = exceeded(w.rates[i, b], prices.caution)
    gain, air_s = snr_of(p, rate), row[j, BITS] / rate
    row[j, GAIN], row[j, MEDIAN] = gain, gain if w.rate[i, b] == rate else snr_of(p, w.rate[i, b])
    row[j, AIR_WEIGHT] = max(np.sqrt(row[j, SECOND] * air_s), TINY)
    row[j, CPU_WEIGHT] = max(np.sqrt(row[j, SECOND] * w.task_cycles[i]), TINY)
    row[j, TOP], row[j, RATIO], row[j, TOP_S] = 0.0, np.inf, air_s
    if p.power_control:
        harm = 0.0
        if p.interference and prices.interference > 0.0:
            for q in range(servers):
                if q != k and w.reuse_group[q] == w.reuse_group[k]:
                    harm += w.mean_gain[i, q] / p.noise_w
        watt = row[j, JOULE] / p.efficiency + prices.interference * harm / tau
        row[j, TOP], octaves = falling_until(gain * p.power_w)
        row[j, TOP_S] = row[j, BITS] / (p.band_hz * octaves + LEAST_RATE)
        if watt > 0.0 and gain > 0.0:
            row[j, RATIO] = row[j, SECOND] * gain / watt
    row[j, HELD] = row[j, AIR_FLOOR] = row[j, CPU_FLOOR] = row[j, POWER] = row[j, FRACTION] = 0.0
    row[j, POWER_SPREAD] = row[j, FRACTION_SPREAD] = np.inf


@njit(**KEPT, error_model="numpy", nogil=True)
def settle(p, w, prices, priority, rank, wish, trust, option, seated, held, floor, energy, plan):
    """Shares, power and fraction for ``option`` (E, N) on believed rates; then the safety filter. Who has no task, or
    cannot reach the server, has option 0.

    Where ``seated``, ``held`` (E, N) and ``floor`` (E, N, 2) are given (see :mod:`games.admission`), and who is held is
    in time by construction. Otherwise a device's floors stretch its square-root shares until its deadline holds, and
    where they do not all fit they are admitted by priority. ``energy`` (E, N) is what a tenth of a joule is worth to
    each device. Fits by construction: shares of a band or server sum to at most one, power is within its limit and
    within what the battery can pay for, and no device starts local work that it cannot pay for or finish in time.
    ``plan.served`` is who is in time with what it got, as believed.
    """
    networks, n, bands = w.rate.shape
    servers = w.server_hz.shape[1]
    per = bands // servers if servers else 1
    count, member = np.empty(servers, np.int64), np.empty((servers, n), np.int64)
    row, out = np.empty((n, ROW)), np.empty((n, OUT))
    room = new_room(n, per)
    for e in range(networks):
        one = network(w, e)
        count[:] = 0
        for i in range(n):
            o = option[e, i]
            if o > 0 and not (w.active[e, i] and w.reachable[e, i, (o - 1) // per]):
                o = 0
            plan.option[e, i] = o
            plan.held[e, i] = seated and held[e, i] and o == option[e, i]
            plan.air_floor[e, i] = floor[e, i, 0] if plan.held[e, i] else 0.0
            plan.cpu_floor[e, i] = floor[e, i, 1] if plan.held[e, i] else 0.0
            sends = w.active[e, i] and o > 0
            if w.active[e, i]:
                lay(p, one, i, o - 1, row, i)
            if sends:
                k = (o - 1) // per
                member[k, count[k]] = i
                count[k] += 1
                charge(p, one, prices, priority[e, i], rank[e, i], energy[e, i], i, o - 1, row, i)
                row[i, POWER], row[i, POWER_SPREAD] = wish.power[e, i], wish.power_spread[e, i]
                row[i, FRACTION], row[i, FRACTION_SPREAD] = wish.fraction[e, i], wish.fraction_spread[e, i]
                row[i, HELD] = 1.0 if plan.held[e, i] else 0.0
                row[i, AIR_FLOOR], row[i, CPU_FLOOR] = plan.air_floor[e, i], plan.cpu_floor[e, i]
            else:
                plan.power_w[e, i] = plan.fraction[e, i] = plan.air[e, i] = plan.cpu[e, i] = 0.0
                if w.active[e, i]:
                    plan.served[e, i] = _able(p, row, i, 0.0)
        for k in range(servers):
            these, air_price = member[k, : count[k]], plan.air_price[e, k * per : (k + 1) * per]
            cpu_price = plan.cpu_price[e, k : k + 1]
            settle_server(p, prices, trust, seated, row, these, count[k], out, air_price, cpu_price, room)
            plan.cpu_price[e, k] /= w.server_hz[e, k]  # weights are per cycle: now in cost, like the air's
            for m in range(count[k]):
                i = these[m]
                plan.air[e, i], plan.cpu[e, i], plan.power_w[e, i] = out[m, OUT_AIR], out[m, OUT_CPU], out[m, OUT_POWER]
                plan.fraction[e, i], plan.served[e, i] = out[m, OUT_FRACTION], out[m, OUT_SERVED] > 0.0
                wish.power_response[e, i] = out[m, OUT_POWER_RESPONSE]
                wish.fraction_response[e, i] = out[m, OUT_FRACTION_RESPONSE]


@njit(**KEPT, error_model="numpy", nogil=True)
def judge(p, w, caution, plan):
    """Fill ``plan.served`` with who is in time with what a plan gives, as believed, however it was made."""
    row = np.empty((1, ROW))
    for e in range(w.rate.shape[0]):
        one = network(w, e)
        for i in range(w.rate.shape[1]):
            o, rho, air, cpu = plan.option[e, i], plan.fraction[e, i], plan.air[e, i], plan.cpu[e, i]
            if not w.active[e, i] or o > w.rate.shape[2]:
                plan.served[e, i] = plan.served[e, i] and not w.active[e, i]  # who sheds its task is not served
                continue
            lay(p, one, i, o - 1, row, 0)
            served = _able(p, row, 0, rho)
            if served and rho > 0.0:
                gain = snr_of(p, exceeded(w.rates[e, i, o - 1], caution))
                sent_s = row[0, BITS] / rate_of(p, plan.power_w[e, i], gain)
                time = row[0, WAIT_S] + rho * sent_s / air + rho * row[0, CPU_S] / cpu
                served = time <= row[0, TAU] * (1.0 + 1e-9)
            plan.served[e, i] = served


@njit(**INLINE)
def _able(p, row, j, rho):
    """Whether the device of row j can pay for what it does not send, 1 - ``rho`` of its task, and finish it in time."""
    kept = 1.0 - rho
    return kept * row[j, LOCAL_S] <= row[j, TAU] and not (p.batteries and kept * row[j, LOCAL_J] > row[j, BATTERY_J])


@njit(**LEAN)
def settle_server(p, prices, trust, seated, row, member, count, out, air_price, cpu_price, room):
    """One server's part of :func:`settle`; no server's part reads another's.

    Args:
        row: (., ROW) of :func:`lay` and :func:`charge`. member: its first ``count`` are the rows of who shares this
            server, by device, ascending. out: (., OUT), filled in their order with what each gets. air_price,
            cpu_price: (B / K,) and (1,), filled; the latter by the cycle. room: from :func:`new_room`.
    """
    band, server, air_s, air_weight, cpu_weight = room.band, room.server, room.air_s, room.air_weight, room.cpu_weight
    air_floor, cpu_floor, first, air, cpu, met = (
        room.air_floor, room.cpu_floor, room.first, room.air, room.cpu, room.met,
    )  # fmt: skip
    air_total = room.air_total
    air_total[:] = 0.0
    cpu_total = 0.0
    for m in range(count):
        j = member[m]
        band[m], server[m], first[m] = int(row[j, BAND]), 0, row[j, FIRST]
        air_floor[m] = cpu_floor[m] = 0.0
        cpu_weight[m] = row[j, CPU_WEIGHT]
        air_total[band[m]] += row[j, AIR_WEIGHT]
        cpu_total += row[j, CPU_WEIGHT]
    # power: each device's best response at its square-root share of the air
    for m in range(count):
        j = member[m]
        power, seconds = p.power_w if p.power_control else p.nominal_w, row[j, TOP_S]
        ratio = row[j, RATIO] * air_total[band[m]] / row[j, AIR_WEIGHT]
        if ratio < row[j, TOP]:
            octaves, power = power_exponent(ratio, row[j, GAIN])
            if power > p.least_w:
                seconds = row[j, BITS] / (p.band_hz * octaves + LEAST_RATE)
            else:
                power = p.least_w
                seconds = row[j, BITS] / rate_of(p, power, row[j, GAIN])
        out[m, OUT_POWER_RESPONSE] = np.nan
        if p.power_control and row[j, POWER_SPREAD] < np.inf:  # in units of the range: the cost's curvature is about 1
            out[m, OUT_POWER_RESPONSE] = power
            scale = p.power_w - p.least_w
            pulled = blend(power / scale, 1.0, trust, row[j, POWER] / scale, row[j, POWER_SPREAD] / scale)
            power = min(max(pulled * scale, p.least_w), p.power_w)
            seconds = row[j, BITS] / rate_of(p, power, row[j, GAIN])
        out[m, OUT_POWER], out[m, OUT_S] = power, seconds
    air_total[:] = 0.0
    for m in range(count):
        air_weight[m] = max(np.sqrt(row[member[m], SECOND] * out[m, OUT_S]), TINY)
        air_total[band[m]] += air_weight[m]
    # fraction: local and remote side by side
    for m in range(count):
        j = member[m]
        seconds = out[m, OUT_S]
        out[m, OUT_FRACTION_RESPONSE] = np.nan
        rho = 1.0
        if p.partial and not (p.batteries and row[j, LOCAL_J] > row[j, BATTERY_J]):
            remote = seconds * air_total[band[m]] / air_weight[m] + row[j, CPU_S] * cpu_total / cpu_weight[m]
            rho = best_fraction(
                row[j, SECOND], row[j, JOULE], row[j, LOCAL_S], row[j, LOCAL_J], row[j, WAIT_S], remote,
                out[m, OUT_POWER] * seconds / p.efficiency, prices.margin * row[j, TAU], row[j, MISS],
            )  # fmt: skip
            if row[j, FRACTION_SPREAD] < np.inf:
                out[m, OUT_FRACTION_RESPONSE] = rho
                rho = min(max(blend(rho, 1.0, trust, row[j, FRACTION], row[j, FRACTION_SPREAD]), 0.0), 1.0)
            if rho > 0.0 and (1.0 - rho) * row[j, LOCAL_S] > row[j, TAU]:
                rho = 1.0  # nothing is in time as believed; a local side that is late for certain spoils the rest
            if seated and row[j, HELD] > 0.0:
                rho = max(rho, row[j, LEAST])
        out[m, OUT_FRACTION] = rho
    air_total[:] = 0.0
    cpu_total = 0.0
    for m in range(count):
        rho = out[m, OUT_FRACTION]
        if rho <= 0.0:
            band[m] = server[m] = -1
            out[m, OUT_POWER] = 0.0
            continue
        air_s[m] = out[m, OUT_S] * rho
        root = np.sqrt(rho)
        air_weight[m] *= root
        cpu_weight[m] *= root
        air_total[band[m]] += air_weight[m]
        cpu_total += cpu_weight[m]
    # floors: how far the square-root shares must be stretched for the deadline, at the power and fraction chosen
    for m in range(count):
        if band[m] >= 0 and p.floors:
            j = member[m]
            slack = prices.margin * row[j, TAU] - row[j, WAIT_S]
            air_even = air_weight[m] / air_total[band[m]]
            cpu_even = cpu_weight[m] / cpu_total
            time = air_s[m] / air_even + out[m, OUT_FRACTION] * row[j, CPU_S] / cpu_even
            if slack > 0.0 and max(air_even, cpu_even) * time <= slack * (1.0 + 1e-12):
                air_floor[m] = air_even * time / slack
                cpu_floor[m] = cpu_even * time / slack
    if seated:
        _keep_places(row, member, count, room)
    split_into(count, air_weight, air_floor, band, first, air, met, air_price, room.split)
    for m in range(count):
        if band[m] >= 0 and not met[m]:
            cpu_floor[m] = 0.0
    split_into(count, cpu_weight, cpu_floor, server, first, cpu, met, cpu_price, room.split)
    for m in range(count):
        out[m, OUT_AIR], out[m, OUT_CPU] = air[m], cpu[m]
        _finish(p, prices, row, member[m], out, m)


@njit(**LEAN)
def _keep_places(row, member, count, room):
    """The places' floors first; what is left goes to the floors that were chosen, by class and priority, where both
    legs fit."""
    band, air_floor, cpu_floor, air_room = room.band, room.air_floor, room.cpu_floor, room.air_total
    order, key = room.order, room.air
    air_room[:] = 1.0
    cpu_room = 1.0
    for m in range(count):
        j = member[m]
        x, own = m, 1e3 * row[j, RANK] - row[j, FIRST]
        while x > 0 and key[x - 1] > own:
            order[x], key[x] = order[x - 1], key[x - 1]
            x -= 1
        order[x], key[x] = m, own
        if band[m] >= 0:
            air_room[band[m]] -= row[j, AIR_FLOOR]
            cpu_room -= row[j, CPU_FLOOR]
    for x in range(count):
        m = order[x]
        j, b = member[m], band[m]
        if b < 0:
            continue
        air_more = max(air_floor[m] - row[j, AIR_FLOOR], 0.0)
        cpu_more = max(cpu_floor[m] - row[j, CPU_FLOOR], 0.0)
        if air_more > air_room[b] or cpu_more > cpu_room:
            air_more = cpu_more = 0.0
        air_floor[m] = row[j, AIR_FLOOR] + air_more
        cpu_floor[m] = row[j, CPU_FLOOR] + cpu_more
        air_room[b] -= air_more
        cpu_room -= cpu_more


@njit(**INLINE)
def _finish(p, prices, row, j, out, m):
    """Power and fraction with the shares that a device got, in row j of ``row`` and m of ``out``: within its battery,
    and in time if that can be; whether it is. Where it would be late, power goes up first, then what is sent goes down
    to what its own side leaves."""
    rho = out[m, OUT_FRACTION]
    if rho <= 0.0:
        out[m, OUT_SERVED] = 1.0 if _able(p, row, j, 0.0) else 0.0
        return
    tau, gain, air, cpu = row[j, TAU], row[j, GAIN], out[m, OUT_AIR], out[m, OUT_CPU]
    local_j, battery_j = row[j, LOCAL_J], row[j, BATTERY_J]
    slack = prices.margin * tau - row[j, WAIT_S]
    cpu_s = row[j, CPU_S] / cpu if cpu > 0.0 else np.inf
    power, seconds = out[m, OUT_POWER], out[m, OUT_S]
    most = most_power(p, local_j, battery_j, tau, rho, air)
    if power > most:
        power, seconds = most, row[j, BITS] / rate_of(p, most, gain)
    air_s = seconds / air if air > 0.0 else np.inf
    if not rho * (air_s + cpu_s) <= slack and air > 0.0 and cpu > 0.0:
        least = row[j, LEAST]
        payable = most_power(p, local_j, battery_j, tau, least, air)
        left = slack / rho - cpu_s
        needed = np.inf  # the power at which all that is sent would be in time
        if left > 0.0:
            bits = (row[j, BITS] / (air * left) - LEAST_RATE) / p.band_hz
            needed = (np.exp2(min(bits, 1000.0)) - 1.0) / gain if gain > 0.0 else np.inf
        for attempt in range(2):  # with less sent, more is kept that has to be paid for
            top = payable if attempt else max(payable, power)
            watts = min(max(needed * (1.0 + 1e-12), power), top)
            longer = row[j, BITS] / rate_of(p, watts, gain)
            air_s = longer / air
            sent = max(slack, 0.0) / (air_s + cpu_s)
            now = rho
            if sent >= least * (1.0 - 1e-12) and least < 1.0:
                now = min(rho, max(sent, least))
            elif rho > sent * (1.0 + 1e-12):  # late whatever it does: as it was
                continue
            if watts <= most_power(p, local_j, battery_j, tau, now, air) * (1.0 + 1e-12):
                rho, power, seconds = now, watts, longer
                break
    if rho <= 0.0:
        out[m, OUT_AIR] = out[m, OUT_CPU] = power = 0.0
    out[m, OUT_FRACTION], out[m, OUT_POWER], out[m, OUT_S] = rho, power, seconds
    served = _able(p, row, j, rho)
    if served and rho > 0.0:
        time = row[j, WAIT_S] + rho * seconds / air + rho * row[j, CPU_S] / cpu if air > 0.0 and cpu > 0.0 else np.inf
        served = time <= tau * (1.0 + 1e-9)
    out[m, OUT_SERVED] = 1.0 if served else 0.0
