r"""The certificate's reading of ``mec`` as it is done in every step: :mod:`.audit`, but for what cannot matter.

First each device where it is: its time, its cost there, what serving it takes. Then, for each that might do better, the
options that a lower bound does not rule out: what an option's wait, air time and energy cost, and how likely it is late
at least, without the interference that it is charged for and without anybody else on its band and server. What is left
is read exactly. Compiled, from the definitions in :mod:`.audit`, and no solver's:

.. math:: \log(1 + e^u) = \max(u, 0) + 2 \, artanh \frac{y}{2 + y}, \quad y = e^{-|u|}

has both rates and interference, without branches, so that a row of options is a few vector loops.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from games.certificate_lists import (
    Findings,
    Lists,
    Taken,
    envious,
    gain_among_places,
    gain_at_loads,
    holders,
    paid_at_loads,
    taken_floors,
)
from games.congestion import Bool, Float, Int
from games.lean import INLINE, LEAN, ROOMY
from hybridalloc.problems.mec.arrays import Prices
from hybridalloc.problems.mec.audit import NEPERS, Believed, _cautious, _middle, _moves, _rank
from hybridalloc.problems.mec.setting import MecSetting

LN2, HIGH, LOW = 0.6931471805599453, 0.6931471803691238, 1.9082149292705877e-10  # the first 33 bits, and the rest
LEFT_OUT, HOLDS, PLAYS = 1, 2, 4  # why a device's options are listed: it might be envious, move, or was never seated
ROUNDER, S52 = 6755399441055744.0, np.uint64(52)  # 1.5 2^52: adding it leaves a whole number in the low bits
FEW = 200  # devices
MANY = 8  # options a device for which room is made at first
ALONE = 0.99  # of what a device pays on an empty band and server: less than it pays on any


class Told(NamedTuple):
    """What is read of a state, and of what was believed: ``rates`` (N, B, Q) in bit/s, Q = 0 where reports are."""

    active: Bool
    task_bits: Float
    task_cycles: Float
    deadline_s: Float
    device_hz: Float
    battery_j: Float
    worth: Float
    last_server: Any
    server_hz: Float
    mean_gain_db: Float
    reported_gain_db: Float
    reachable: Bool
    reuse_group: Any
    noise_rise: Float
    queue_s: Float
    air_queue_s: Float
    cpu_wait_s: Float
    air_wait_s: Float
    rates: Float


class Given(NamedTuple):
    """What is read of an allocation."""

    option: Any
    held: Bool
    air: Float
    cpu: Float
    power: Float
    fraction: Float
    air_floor: Float
    cpu_floor: Float


FIELDS = Told._fields[:16]


def examine(
    problem: MecSetting, state: Any, allocation: Any, prices: Prices, believed: Believed | None = None
) -> Findings | None:
    """The certificate's findings; None where the reading is :func:`.audit.audit`'s alone: tasks that are shed by
    choice, and batteries with a value."""
    if problem.scenario.sheds or (believed is not None and believed.worth is not None):
        return None
    n, bands = state.reported_gain_db.shape
    b = Believed(np.empty((n, bands, 0)), state.queue_s, state.air_queue_s) if believed is None else believed
    fields: list[Any] = [getattr(state, name) for name in FIELDS]
    told = Told._make([*fields, b.cpu_wait_s, b.air_wait_s, b.rates])
    shares, floors = allocation.shares, allocation.floors
    real = (
        shares["air"], shares["cpu"], allocation.power, allocation.fraction, floors["air"], floors["cpu"],
    )  # fmt: skip
    given = Given(
        np.ascontiguousarray(allocation.option, np.int64), np.ascontiguousarray(allocation.held, np.bool_),
        *[np.ascontiguousarray(x, np.float64) for x in real],
    )  # fmt: skip
    seated, played = bool(allocation.seated), bool(allocation.played)
    if n < FEW:  # where nobody was left out, which is usual, little is to be brought out of the compiled code
        in_time, by_reports, home, regret, left_out = _judge(problem.physics, told, prices, given, seated, played)
        if not left_out:
            return Findings(in_time, by_reports, home, regret, ())
    t, lists, regret, left_out = _examine(problem.physics, told, prices, given, seated, played)
    envy = _envy(problem, state, t, lists) if left_out else ()
    return Findings(t.in_time, t.by_reports, t.home, regret, envy)


def _envy(problem: MecSetting, state: Any, t: Taken, lists: Lists) -> tuple[int, ...]:
    out = np.flatnonzero(t.live & ~t.home & ~t.in_time & ~t.held & (np.diff(lists.start) > 0))
    has, floor = (t.held & ~t.home, t.floor) if t.held.any() else taken_floors(t)
    found = np.zeros(len(out), bool)
    envious(t, lists, out, _rank(problem, state), has, floor, found)
    return tuple(out[found].tolist())


@njit(**INLINE, fastmath={"contract"})
def _soft(u):
    """log(1 + e^u), to 2e-15 of it."""
    a = -u if u > 0.0 else u
    a = a if a > -700.0 else -700.0
    shifted = a * (1.0 / LN2) + ROUNDER
    whole = shifted - ROUNDER
    r = (a - whole * HIGH) - whole * LOW
    e = 1.0 / 479001600.0
    for c in (39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0):
        e = e * r + 1.0 / c
    bits = np.float64(e).view(np.uint64) + (np.float64(shifted).view(np.uint64) << S52)
    y = np.uint64(bits).view(np.float64)
    s = y / (2.0 + y)
    q = s * s
    p = 1.0 / 27.0
    for c in (25.0, 23.0, 21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        p = p * q + 1.0 / c
    return (u if u > 0.0 else 0.0) + 2.0 * s * p


@njit(**INLINE)
def _own(p, s, prices, i):
    """What a device can do by itself: whether it needs nobody, the cost of option 0, the least part of its task that
    must be sent, and the most power, in W, that it has for that."""
    tau, cycles = s.deadline_s[i], s.task_cycles[i]
    own_s, own_j = cycles / s.device_hz[i], p.kappa * s.device_hz[i] ** 2 * cycles
    payable = own_j <= s.battery_j[i] or not p.batteries
    home = payable and own_s <= tau
    least = 0.0 if home else 1.0
    if payable and p.partial and not home:
        least = max(1.0 - prices.margin * tau / own_s, 0.0)
    watts = p.power_w if p.power_control else p.nominal_w
    if p.batteries:
        watts = min(watts, max(s.battery_j[i] - (1.0 - least) * own_j, 0.0) * p.efficiency / tau)
    cost = prices.delay + prices.miss * s.worth[i]
    if home:
        cost = prices.delay / tau * own_s + prices.energy * own_j / 0.1
    return home, cost, least, watts


@njit(**INLINE)
def _rates(p, s, scale, i, b, out):
    """Fill ``out`` (Q or 1,) with the rates that are believed, or that the report says, of one link."""
    if s.rates.shape[2]:
        for q in range(len(out)):
            out[q] = s.rates[i, b, q]
    else:
        out[0] = p.band_hz / LN2 * _soft(NEPERS * s.reported_gain_db[i, b] + scale[b]) + 1e4


@njit(**INLINE)
def _wait(p, s, i, b, k):
    """s before a device's work on a band and server begins, as believed; whether it changes servers."""
    was = _moves(p, s, i)
    moves = was >= 0 and was != k
    return 0.001 + s.cpu_wait_s[k] + s.air_wait_s[b] + (0.004 if moves else 0.0), moves


class Ears(NamedTuple):
    """Who hears a device: tasks by best link, servers by spectrum.

    Attributes:
        rise: (B,) log of 1 + the noise rise. near: (K,) tasks whose best link is each server's.
        hears: (B,) which bands hear each other: the same number. sets: (1,) how many such numbers there are.
        of: (B,) the server of each band. whole: (B,) scratch.
    """

    rise: Float
    near: Float
    hears: Int
    sets: Int
    of: Int
    whole: Float


@njit(**ROOMY)
def _ears(p, s, leaks):
    """:class:`Ears`, nothing worked out yet."""
    servers, n = len(s.server_hz), len(s.active)
    rise, near = np.empty(len(s.noise_rise)), np.zeros(servers)
    for b in range(len(rise)):
        rise[b] = np.log1p(s.noise_rise[b])
    gain = s.mean_gain_db
    for i in range(n):
        if leaks and s.active[i] and servers:
            most = gain[i, 0]
            for q in range(1, servers):
                most = gain[i, q] if gain[i, q] > most else most
            best = 0
            while gain[i, best] != most:
                best += 1
            near[best] += 1.0
    hears, of, sets = np.full(len(rise), -1), np.arange(len(rise)), np.zeros(1, np.int64)
    per = max(len(rise) // max(servers, 1), 1)
    for b in range(len(rise)):
        of[b] = b // per
        if hears[b] >= 0:
            continue
        for q in range(b, len(rise), per):
            if s.reuse_group[q // per] == s.reuse_group[of[b]]:
                hears[q] = sets[0]
        sets[0] += 1
    return Ears(rise, near, hears, sets, of, np.empty(len(rise)))


@njit(**LEAN, fastmath={"contract", "reassoc", "nsz"})
def _sums(hears, sets, heard, whole):
    """Fill ``whole`` with the sum of each set of bands."""
    for c in range(sets):
        whole[c] = 0.0
    if sets > 8:
        for b in range(len(heard)):
            whole[hears[b]] += heard[b]
        return
    for c in range(sets):
        total = 0.0
        for b in range(len(heard)):
            total += heard[b] if hears[b] == c else 0.0
        whole[c] = total


@njit(**LEAN, fastmath={"contract"})
def _heard(s, ears, base, i, heard):
    """Fill ``heard`` (B,), for a device on each band, with what its signal raises the noise by, in logs, summed over
    the tasks whose best link is another server of the same spectrum; ``base`` the log of nominal power over noise."""
    gain, near, rise, of, hears, whole = s.mean_gain_db[i], ears.near, ears.rise, ears.of, ears.hears, ears.whole
    bands, servers = len(heard), len(near)
    per = bands // servers
    if per == 1:
        for b in range(bands):
            heard[b] = near[b] * _soft(NEPERS * gain[b] + base - rise[b])
    else:
        for b in range(bands):
            heard[b] = near[of[b]] * _soft(NEPERS * gain[of[b]] + base - rise[b])
    _sums(hears, ears.sets[0], heard, whole)
    for b in range(bands):
        others = whole[hears[b]] - heard[b]
        heard[b] = others if others > 0.0 else 0.0


@njit(**INLINE)
def _cost(p, s, prices, heard, i, b, per, rates):
    """A device's private cost of a band, and its loads on it and on its server."""
    k, values = b // per, len(rates)
    tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
    per_second, missed = prices.delay / tau, prices.miss * s.worth[i]
    wait, moves = _wait(p, s, i, b, k)
    air_s, chance = 0.0, 0.0
    for q in range(values):
        air_s += min(bits / rates[q], tau)
        x = 12.0 * ((wait + prices.risk * (bits / rates[q] + cycles / s.server_hz[k])) / tau - 1.0)
        chance += 1.0 / (1.0 + np.exp(-min(max(x, -700.0), 700.0)))
    air_s /= values
    joule = p.nominal_w * air_s / p.efficiency
    cost = per_second * min(wait, tau) + prices.energy * joule / 0.1 + missed * (chance / values)
    cost += prices.backlog * (s.cpu_wait_s[k] * cycles / s.server_hz[k] + s.air_wait_s[b] * air_s) / p.slot_s**2
    cost += prices.migration if moves else 0.0
    cost += missed if p.batteries and joule > s.battery_j[i] else 0.0
    if p.interference and prices.leakage != 0.0:
        cost += prices.leakage * min(bits / (p.slot_s * _middle(rates)), 1.0) * heard
    return cost, np.sqrt(per_second * air_s), np.sqrt(per_second * cycles)


@njit(**INLINE)
def _serving(p, s, prices, i, b, k, home, least, watts, rates):
    """s that the two legs of a place take, and that they may take."""
    tau = s.deadline_s[i]
    if home:
        return 0.0, 0.0, tau
    wait, _ = _wait(p, s, i, b, k)
    slack = prices.margin * tau - wait
    if not watts > 0.0:
        return np.inf, 0.0, slack
    snr = np.expm1((_cautious(rates, prices.caution) - 1e4) / p.band_hz * LN2) * watts / p.nominal_w
    rate = p.band_hz / LN2 * np.log1p(snr) + 1e4
    return least * s.task_bits[i] / rate, least * s.task_cycles[i] / s.server_hz[k], slack


@njit(**INLINE)
def _ended(p, s, rates, cpu_wait, air_wait, caution, g, i, per):
    """Whether a device's task ends by its deadline with what it was given; ``rates`` of its own link."""
    o, tau = g.option[i], s.deadline_s[i]
    sent = g.fraction[i] if 0 < o <= len(air_wait) else 0.0
    own_s = (1.0 - sent) * s.task_cycles[i] / s.device_hz[i]
    own_j = (1.0 - sent) * p.kappa * s.device_hz[i] ** 2 * s.task_cycles[i]
    time = own_s if not (p.batteries and own_j > s.battery_j[i]) else np.inf
    if sent > 0.0:
        b, k = o - 1, (o - 1) // per
        snr = np.expm1((_cautious(rates, caution) - 1e4) / p.band_hz * LN2) / p.nominal_w
        rate = p.band_hz / LN2 * np.log1p(g.power[i] * snr) + 1e4
        away = 0.001 + cpu_wait[k] + air_wait[b] + (0.004 if _moves(p, s, i) not in (-1, k) else 0.0)
        if g.air[i] > 0.0 and g.cpu[i] > 0.0:
            away += sent * s.task_bits[i] / (rate * g.air[i]) + sent * s.task_cycles[i] / (s.server_hz[k] * g.cpu[i])
        else:
            away = np.inf
        time = max(time, away)
    return time <= tau * (1.0 + 1e-9)


@njit(**ROOMY)
def _judge(p, s, prices, g, seated, played):
    """What is told of :func:`_examine` where nobody that was left out has any option listed."""
    t, _, regret, left_out = _examine(p, s, prices, g, seated, played)
    return t.in_time, t.by_reports, t.home, regret, left_out


@njit(**ROOMY)
def _examine(p, s, prices, g, seated, played):
    """Where everybody is, the options listed, the regret, and whether anybody that was left out has any listed."""
    n, bands = s.reported_gain_db.shape
    servers = len(s.server_hz)
    per = max(bands // max(servers, 1), 1)
    values = max(s.rates.shape[2], 1)
    leaks = p.interference and prices.leakage != 0.0 and servers > 0
    ears, loud = _ears(p, s, leaks), np.log(p.nominal_w / p.noise_w)
    scale, heard = np.empty(bands), np.zeros(bands)
    for b in range(bands):
        scale[b] = loud - ears.rise[b]
    home, in_time, by_reports = np.zeros(n, np.bool_), np.ones(n, np.bool_), np.ones(n, np.bool_)
    resource, weight, private = np.full((n, 2), -1), np.zeros((n, 2)), np.zeros(n)
    seconds, slack, share, floor = np.zeros((n, 2)), np.zeros(n), np.empty((n, 2)), np.empty((n, 2))
    capacity, toll = np.ones(bands + servers), np.full(bands + servers, prices.toll)
    for k in range(servers):
        capacity[bands + k] = s.server_hz[k]
    stays, least, watts = np.zeros(n), np.ones(n), np.zeros(n)
    why = np.zeros(n, np.int64)
    rates, face = np.empty(values), np.empty(1)
    for i in range(n):
        share[i, 0], share[i, 1] = g.air[i], g.cpu[i]
        floor[i, 0], floor[i, 1] = g.air_floor[i], g.cpu_floor[i]
        if not s.active[i]:
            continue
        home[i], stays[i], least[i], watts[i] = _own(p, s, prices, i)
        private[i] = stays[i]
        o = g.option[i]
        if 0 < o <= bands:
            b, k = o - 1, (o - 1) // per
            _rates(p, s, scale, i, b, rates)
            resource[i, 0], resource[i, 1] = b, bands + k
            if leaks:
                _heard(s, ears, loud, i, heard)
            private[i], weight[i, 0], weight[i, 1] = _cost(p, s, prices, heard[b], i, b, per, rates)
            seconds[i, 0], seconds[i, 1], slack[i] = _serving(
                p, s, prices, i, b, k, home[i], least[i], watts[i], rates
            )  # fmt: skip
            face[0] = p.band_hz / LN2 * _soft(NEPERS * s.reported_gain_db[i, b] + scale[b]) + 1e4
        in_time[i] = _ended(p, s, rates, s.cpu_wait_s, s.air_wait_s, prices.caution, g, i, per)
        by_reports[i] = in_time[i]
        if s.rates.shape[2]:
            by_reports[i] = _ended(p, s, face, s.queue_s, s.air_queue_s, prices.caution, g, i, per)
        if played and not seated:
            why[i] |= PLAYS
        elif played and g.held[i]:
            why[i] |= HOLDS
        if not home[i] and not in_time[i] and not g.held[i]:
            why[i] |= LEFT_OUT
    t = Taken(
        g.option, s.active, home, g.held, in_time, by_reports, resource, weight, private, seconds, slack, share, floor,
        capacity, toll,
    )  # fmt: skip
    paid, load = np.zeros(n), np.zeros(bands + servers)
    h = holders(t, paid)
    if not seated:
        paid_at_loads(t, load, paid)
    lists, left_out = _lists(p, s, prices, t, why, paid, stays, least, watts, ears, scale, leaks)
    regret = np.inf
    if played:
        regret = gain_among_places(t, lists, h, paid) if seated else gain_at_loads(t, lists, load, paid)
    return t, lists, regret, left_out


@njit(**ROOMY)
def _lists(p, s, prices, t, why, paid, stays, least, watts, ears, scale, leaks):
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
        tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
        most = private_now = t.private[i] + paid[i]
        most += 1e-9 * (1.0 + abs(most))
        if why[i] & LEFT_OUT:
            most = max(most if why[i] & PLAYS else stays[i], stays[i]) * (1.0 + 1e-9) + 1e-9
        if not bounded or s.worth[i] < 0.0:
            most = np.inf
        if leaks:
            _heard(s, ears, loud, i, heard)
        _row(p, s, prices, i, heard, base, speed, queue, of, scale, rate, air_s, sum_s, low, charged)
        was = _moves(p, s, i)
        moving = 0.004 if was >= 0 else 0.0
        places = why[i] & (LEFT_OUT | HOLDS) and not t.home[i]
        louder = np.log2(max(watts[i] / p.nominal_w, 1.0)) * p.band_hz  # no more is gained in rate by the power it has
        zero = why[i] & PLAYS or (why[i] & HOLDS and t.home[i])
        reach, first = s.reachable[i], -1 if zero and stays[i] < most else 0
        for b in range(first, bands):
            if b >= 0:
                if not low[b] < most or not reach[of[b]]:
                    continue
                if not why[i] & PLAYS and places:
                    left = prices.margin * tau - base[b] - (moving if of[b] != was else 0.0)
                    if left * (1.0 + 1e-9) < least[i] * (bits / (rate[b] + louder) + cycles / speed[b]):
                        continue
            if used == room:
                room *= 2
                option, resource, weight, private, seconds, slack, fitting = _more(
                    option, resource, weight, private, seconds, slack, fitting
                )
            k = used
            option[k], resource[k, 0], resource[k, 1], weight[k, 0], weight[k, 1] = 1 + b, -1, -1, 0.0, 0.0
            private[k], seconds[k, 0], seconds[k, 1], slack[k], fitting[k] = stays[i], 0.0, 0.0, 0.0, t.home[i]
            if b >= 0:
                _rates(p, s, scale, i, b, rates)
                resource[k, 0], resource[k, 1] = b, bands + of[b]
                seconds[k, 0], seconds[k, 1], slack[k] = _serving(
                    p, s, prices, i, b, of[b], t.home[i], least[i], watts[i], rates
                )  # fmt: skip
                if places and not why[i] & PLAYS and not seconds[k, 0] + seconds[k, 1] <= slack[k]:
                    continue
                private[k], weight[k, 0], weight[k, 1] = _cost(p, s, prices, heard[b], i, b, per, rates)
                alone = private[k] + weight[k, 0] ** 2 + weight[k, 1] ** 2 / speed[b]
                acceptable = alone <= stays[i] * (1.0 + 1e-12) and seconds[k, 0] < np.inf
                fitting[k] = True if t.home[i] else acceptable
                if not why[i] & PLAYS and (not fitting[k] or (why[i] & HOLDS and private[k] >= private_now)):
                    continue
            used += 1
            some |= (why[i] & LEFT_OUT) > 0 and fitting[k]
    start[n] = used
    lists = Lists(
        start, option[:used], resource[:used], weight[:used], private[:used], seconds[:used], slack[:used],
        fitting[:used],
    )  # fmt: skip
    return lists, some


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
            rate[b] = octave * _soft(NEPERS * gain[b] + scale[b]) + 1e4
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
def _more(option, resource, weight, private, seconds, slack, fitting):
    """The same in twice the room."""
    room = len(option)
    return (
        np.concatenate((option, np.empty(room, np.int64))), np.concatenate((resource, np.empty((room, 2), np.int64))),
        np.concatenate((weight, np.empty((room, 2)))), np.concatenate((private, np.empty(room))),
        np.concatenate((seconds, np.empty((room, 2)))), np.concatenate((slack, np.empty(room))),
        np.concatenate((fitting, np.empty(room, np.bool_))),
    )  # fmt: skip
