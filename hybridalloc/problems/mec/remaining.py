"""The options that a lower bound on their cost does not rule out, each then read exactly.

What an option's wait, air time and energy cost, and how likely it is late at least, without the interference that it is
charged for and without anybody else on its band and server.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.certificate_lists import Lists
from games.lean import INNER, LEAN, ROOMY
from hybridalloc.problems.mec.audit import NEPERS, _middle, _moves
from hybridalloc.problems.mec.ears import fill_heard
from hybridalloc.problems.mec.reading import LN2, cost_of, rates_of, serving, soft

LEFT_OUT, HOLDS, PLAYS = 1, 2, 4  # why a device's options are listed: it might be envious, move, or was never seated
MANY = 8  # options a device for which room is made at first
ALONE = 0.99  # of what a device pays on an empty band and server: less than it pays on any


@njit(**ROOMY)
def listed(p, s, prices, t, why, paid, stays, least, watts, ears, scale, leaks):
    """The options that the bound does not rule out, and whether anybody that was left out has one."""
    n, bands = s.reported_gain_db.shape
    servers = len(s.server_hz)
    per = max(bands // max(servers, 1), 1)
    values = s.rates.shape[2]
    start, room, used = np.zeros(n + 1, np.int64), MANY * n + bands + 1, 0
    option, resource, weight = np.empty(room, np.int64), np.empty((room, 2), np.int64), np.empty((room, 2))
    private, seconds, slack = np.empty(room), np.empty((room, 2)), np.empty(room)
    fitting = np.empty(room, np.bool_)
    heard, charged = np.zeros(bands), np.empty(bands)
    rate, low, air_s, sum_s = np.empty(bands), np.empty(bands), np.empty(bands), np.empty(bands)
    of, speed, queue, base = np.empty(bands, np.int64), np.empty(bands), np.empty(bands), np.empty(bands)
    for b in range(bands):
        of[b] = b // per
        speed[b], queue[b] = s.server_hz[of[b]], s.cpu_wait_s[of[b]]
        base[b] = 0.001 + queue[b] + s.air_wait_s[b]
    rates, loud = np.empty(max(values, 1)), np.log(p.nominal_w / p.noise_w)
    charges = min(prices.delay, prices.energy, prices.miss, prices.leakage, prices.backlog, prices.migration)
    bounded = min(charges, prices.risk, prices.toll) >= 0.0
    some = False
    for i in range(n):
        start[i] = used
        if why[i] == 0 or not bands:
            continue
        if used + bands + 1 > room:
            room = 2 * room + bands + 1
            option, resource, weight, private, seconds, slack, fitting = _more(
                option, resource, weight, private, seconds, slack, fitting, room
            )
        if leaks:
            fill_heard(s, ears, loud, i, heard)
        _row(p, s, prices, i, heard, base, speed, queue, of, scale, rate, air_s, sum_s, low, charged)
        used, found = _list(
            p, s, prices, t, i, why[i], paid[i], stays[i], least[i], watts[i], bounded, per, base, of, speed, scale,
            rate, low, heard, rates, used, option, resource, weight, private, seconds, slack, fitting,
        )  # fmt: skip
        some |= found
    start[n] = used
    lists = Lists(
        start, option[:used], resource[:used], weight[:used], private[:used], seconds[:used], slack[:used],
        fitting[:used],
    )  # fmt: skip
    return lists, some


@njit(**INNER)
def _list(
    p, s, prices, t, i, why, paid, stays, least, watts, bounded, per, base, of, speed, scale, rate, low, heard, rates,
    used, option, resource, weight, private, seconds, slack, fitting,
):  # fmt: skip
    """List a device's options from ``used`` on; how far that goes, and whether it was left out and has one."""
    bands = len(rate)
    tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
    most = private_now = t.private[i] + paid
    most += 1e-9 * (1.0 + abs(most))
    if why & LEFT_OUT:
        most = max(most if why & PLAYS else stays, stays) * (1.0 + 1e-9) + 1e-9
    if not bounded or s.worth[i] < 0.0:
        most = np.inf
    was = _moves(p, s, i)
    moving = 0.004 if was >= 0 else 0.0
    places = why & (LEFT_OUT | HOLDS) and not t.home[i]
    louder = np.log2(max(watts / p.nominal_w, 1.0)) * p.band_hz  # no more is gained in rate by the power it has
    zero = why & PLAYS or (why & HOLDS and t.home[i])
    reach, first, some, k = s.reachable[i], -1 if zero and stays < most else 0, False, used
    for b in range(first, bands):
        option[k], resource[k, 0], resource[k, 1], weight[k, 0], weight[k, 1] = 1 + b, -1, -1, 0.0, 0.0
        private[k], seconds[k, 0], seconds[k, 1], slack[k], fitting[k] = stays, 0.0, 0.0, 0.0, t.home[i]
        if b >= 0:
            if not low[b] < most or not reach[of[b]]:
                continue
            if not why & PLAYS and places:
                left = prices.margin * tau - base[b] - (moving if of[b] != was else 0.0)
                if left * (1.0 + 1e-9) < least * (bits / (rate[b] + louder) + cycles / speed[b]):
                    continue
            rates_of(p, s, scale, i, b, rates)
            resource[k, 0], resource[k, 1] = b, bands + of[b]
            seconds[k, 0], seconds[k, 1], slack[k] = serving(
                p, s, prices, i, b, of[b], t.home[i], least, watts, rates
            )  # fmt: skip
            if places and not why & PLAYS and not seconds[k, 0] + seconds[k, 1] <= slack[k]:
                continue
            private[k], weight[k, 0], weight[k, 1] = cost_of(p, s, prices, heard[b], i, b, per, rates)
            alone = private[k] + weight[k, 0] ** 2 + weight[k, 1] ** 2 / speed[b]
            acceptable = alone <= stays * (1.0 + 1e-12) and seconds[k, 0] < np.inf
            fitting[k] = True if t.home[i] else acceptable
            if not why & PLAYS and (not fitting[k] or (why & HOLDS and private[k] >= private_now)):
                continue
        some |= (why & LEFT_OUT) > 0 and fitting[k]
        k += 1
    return k, some


@njit(**LEAN, fastmath={"contract"})
def _row(p, s, prices, i, heard, base, speed, queue, of, scale, rate, air_s, best_s, low, loud):
    """Fill ``rate`` (B,) with a device's highest rate on each band, and ``low`` (B,) with a bound on its cost there,
    with nobody else on the band and its server."""
    bands, values = len(rate), s.rates.shape[2]
    tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
    per_second, missed = prices.delay / tau, prices.miss * s.worth[i]
    octave = p.band_hz / LN2
    if values == 0:
        gain = s.reported_gain_db[i]
        for b in range(bands):
            rate[b] = octave * soft(NEPERS * gain[b] + scale[b]) + 1e4
        for b in range(bands):
            best_s[b] = bits / rate[b]
        for b in range(bands):
            air_s[b] = best_s[b] if best_s[b] < tau else tau
        for b in range(bands):
            duty = best_s[b] / p.slot_s
            loud[b] = heard[b] * (duty if duty < 1.0 else 1.0)
    else:
        rates = s.rates[i]
        for b in range(bands):
            air_s[b], rate[b] = 0.0, rates[b, values - 1]
            best_s[b] = bits / rate[b]
            for q in range(values):
                air_s[b] += min(bits / rates[b, q], tau) / values
            middle = _middle(rates[b])
            loud[b] = heard[b] * min(bits / (p.slot_s * middle), 1.0)
    on_air = prices.energy * p.nominal_w / p.efficiency / 0.1 + ALONE * per_second
    backlog = prices.backlog / p.slot_s**2
    air_wait = s.air_wait_s
    for b in range(bands):
        wait, cpu_s = base[b], cycles / speed[b]
        late = wait + prices.risk * (best_s[b] + cpu_s) - tau
        c = per_second * (wait if wait < tau else tau) + on_air * air_s[b] + ALONE * per_second * cpu_s
        c += backlog * (queue[b] * cpu_s + air_wait[b] * air_s[b])
        chance = 0.95 if late > 0.25 * tau else 0.5
        c += prices.leakage * loud[b]
        low[b] = c + missed * (chance if late > 0.0 else 0.0)
    was = _moves(p, s, i)
    if was >= 0:  # the server it is on costs nothing to stay on
        for b in range(bands):
            low[b] += 0.0 if of[b] == was else prices.migration


@njit(**ROOMY)
def _more(option, resource, weight, private, seconds, slack, fitting, room):
    """The same with room for so many."""
    more = room - len(option)
    return (
        np.concatenate((option, np.empty(more, np.int64))), np.concatenate((resource, np.empty((more, 2), np.int64))),
        np.concatenate((weight, np.empty((more, 2)))), np.concatenate((private, np.empty(more))),
        np.concatenate((seconds, np.empty((more, 2)))), np.concatenate((slack, np.empty(more))),
        np.concatenate((fitting, np.empty(more, np.bool_))),
    )  # fmt: skip
