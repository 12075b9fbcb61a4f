r"""The certificate's own reading of ``mec``: from a state and an allocation alone, by code that no solver shares.

What each device's time is, what serving it on each option would take, and what each option costs in the game, written
again from the definitions, in the units of the state:

.. math::
    R(p) = W \log_2(1 + p g) + 10^4 bit/s, \quad g = (2^{(R(0.2 W) - 10^4) / W} - 1) / 0.2

    T = \max((1 - \rho) c / f_{local}, \; wait + \rho d / (R(p) \, air) + \rho c / (F \, cpu))

    wait = 1 ms + queues + 4 ms [it changes servers]

Where a belief was used, its rates and queues are data (``believed``); without one both are the state's reports.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from games.certificate import Audit, rank_by
from games.congestion import Float, Int
from games.lean import KEPT
from hybridalloc.problems.mec.arrays import Physics, Prices
from hybridalloc.problems.mec.setting import MecSetting
from rl.value import Worth

NEPERS = np.log(10.0) / 10.0  # of a decibel, in power


class Believed(NamedTuple):
    """What a step believed: (N, B, Q) equally likely rates at nominal power in bit/s, ascending; (K,) and (B,) s of
    backlog; what each device's battery is worth by its charge, None where energy has a price."""

    rates: Float
    cpu_wait_s: Float
    air_wait_s: Float
    worth: Worth | None = None


def reported(physics: Physics, state: Any) -> Believed:
    """The state's own reports, taken at their face value."""
    every = np.arange(len(state.active))
    return Believed(_reported_rates(physics, state, every[:, None]), state.queue_s, state.air_queue_s)


def _reported_rates(p: Physics, state: Any, agent: Int, band: Any = slice(None)) -> Float:
    """(..., 1) bit/s at nominal power by the reports, of links in any shape."""
    gain_db = state.reported_gain_db[agent[:, 0]] if isinstance(band, slice) else state.reported_gain_db[agent, band]
    rise = np.asarray(state.noise_rise)[band]
    snr = np.exp(NEPERS * gain_db) * (p.nominal_w / (p.noise_w * (1 + rise)))
    return np.asarray(p.band_hz * np.log2(1 + snr) + 1e4)[..., None]


def audit(problem: MecSetting, state: Any, allocation: Any, prices: Prices, believed: Believed | None = None) -> Audit:
    """What the certificate finds; arrays as in :class:`games.certificate.Audit`.

    Powers, roots and logarithms are numpy's, of whole arrays; the rest is compiled here, and no solver's.

    Args:
        problem: a ``Mec``: its constants alone are read. believed: data of a belief; None for the reports.
    """
    p, told = problem.physics, state_of(state)
    n, bands = state.reported_gain_db.shape
    servers = len(state.server_hz)
    per = bands // max(servers, 1)
    option = np.asarray(allocation.option, np.int64)
    got = (allocation.shares["air"], allocation.shares["cpu"], allocation.power, allocation.fraction)
    air, cpu, power, fraction = (np.ascontiguousarray(x, np.float64) for x in got)
    # who is in time: of each device's own link alone
    sent = np.flatnonzero((option > 0) & (option <= bands))
    by_face = np.ones((n, 1))
    by_face[sent] = _reported_rates(p, state, sent, option[sent] - 1)
    given = (option, air, cpu, power, fraction)

    def ended(own: Float, cpu_wait_s: Float, air_wait_s: Float) -> Any:
        out = np.zeros(n, bool)
        _times(p, told, own, cpu_wait_s, air_wait_s, prices.caution, *given, out)
        return out

    in_time = by_reports = ended(by_face, state.queue_s, state.air_queue_s)
    if believed is not None:
        own = np.ones((n, believed.rates.shape[2]))
        own[sent] = believed.rates[sent, option[sent] - 1]
        in_time = ended(own, believed.cpu_wait_s, believed.air_wait_s)
    # what each option costs and takes: of those with a task
    who = np.flatnonzero(state.active)
    if believed is None:
        worth, cpu_wait, air_wait = None, state.queue_s, state.air_queue_s
        rates = _reported_rates(p, state, who[:, None])
    else:
        worth, cpu_wait, air_wait = believed.worth, believed.cpu_wait_s, believed.air_wait_s
        rates = believed.rates[who]
    charged = prices if worth is None else prices._replace(energy=0.0)
    options = 1 + bands + int(problem.scenario.sheds)
    weight, private = np.zeros((n, bands + servers)), np.zeros((n, options))
    seconds, slack = np.zeros((n, options, 2)), np.zeros((n, options))
    home, acceptable = np.zeros(n, bool), np.zeros((n, options), bool)
    allowed = np.ones((n, options), bool)
    least, most_w = np.ones(n), np.zeros(n)
    _alone(p, told, charged, private, home, least, most_w)
    wait, miss = np.empty((len(who), bands)), np.empty(rates.shape)
    _lateness(p, told, who, rates, cpu_wait, air_wait, prices.risk, wait, miss)
    np.exp(miss, out=miss)
    heard = np.zeros((len(who), bands))
    if p.interference and prices.leakage and servers:
        signal = np.exp(NEPERS * state.mean_gain_db[who]) * (p.nominal_w / p.noise_w)
        heard = signal if per == 1 else np.repeat(signal, per, axis=1)
        heard /= 1.0 + state.noise_rise
        np.log1p(heard, out=heard)
        near = np.bincount(state.mean_gain_db[who].argmax(axis=1), minlength=servers).astype(float)
        _leak(heard, near, state.reuse_group)
    _costs(p, told, charged, who, rates, cpu_wait, air_wait, wait, miss, heard, weight, private)
    needs = np.flatnonzero(~home[who])  # of those with a task: who can be served by others alone
    rate = np.empty((len(needs), bands))
    _middling(p, needs, rates, prices.caution, rate)
    np.exp2(rate, out=rate)
    rate -= 1.0
    rate *= most_w[who[needs], None] / p.nominal_w
    rate += 1.0
    np.log2(rate, out=rate)
    if worth is not None:
        private += _spent(p, state, believed, worth, options)
    reach = np.asarray(state.reachable)
    _takes(p, told, reach, prices.margin, who, needs, wait, rate, least, most_w, home, weight, private, seconds, slack,
           allowed, acceptable)  # fmt: skip
    b = np.arange(bands)
    rows = np.full((options, 2), -1)
    rows[1 : 1 + bands, 0], rows[1 : 1 + bands, 1] = b, bands + b // max(per, 1)
    if problem.scenario.sheds:  # by choice: then nothing is promised to anybody
        private[:, -1] = np.where(state.active, prices.delay + prices.miss * state.worth, 0.0)
        allowed[:, -1] = state.active
        acceptable[:] = False
    return Audit(
        rows, weight, np.concatenate([np.ones(bands), state.server_hz]), private, allowed,
        np.full(bands + servers, prices.toll), state.active, in_time, by_reports,
        seconds, slack, np.full((n, options), np.inf), acceptable, home, _rank(problem, state), option,
        np.asarray(allocation.held, bool), np.stack([air, cpu], axis=1),
        np.stack([allocation.floors["air"], allocation.floors["cpu"]], axis=1).astype(float),
    )  # fmt: skip


def excess(problem: MecSetting, state: Any, allocation: Any) -> float:
    """Largest excess of an allocation over a capacity or a limit, relative to it, at least 0; inf where a number is
    none, a share is negative, or an option is none or out of reach: what ``check`` then tells in words."""
    n, bands = state.reported_gain_db.shape
    got = (allocation.shares["air"], allocation.shares["cpu"], allocation.power, allocation.fraction)
    option = np.asarray(allocation.option)
    air, cpu, power, fraction = (np.ascontiguousarray(x, np.float64) for x in got)
    if option.dtype.kind not in "iu" or {x.shape for x in (option, air, cpu, power, fraction)} != {(n,)}:
        return float("inf")
    shed = 1 + bands if problem.scenario.sheds else -1
    option = option.astype(np.int64)
    told, reach = state_of(state), np.asarray(state.reachable)
    return float(_excess(problem.physics, told, reach, shed, option, air, cpu, power, fraction, bands))


@njit(**KEPT, error_model="numpy")
def _excess(p, s, reach, shed, option, air, cpu, power, fraction, bands):
    servers = len(s.server_hz)
    per = max(bands // max(servers, 1), 1)
    used_air, used_cpu = np.zeros(bands), np.zeros(servers)
    worst = 0.0
    for i in range(len(option)):
        if not (air[i] >= 0.0 and cpu[i] >= 0.0 and air[i] < np.inf and cpu[i] < np.inf):
            return np.inf
        if not (np.isfinite(power[i]) and np.isfinite(fraction[i])):
            return np.inf
        o = option[i]
        if o < 0 or (o > bands and o != shed):
            return np.inf
        if 0 < o <= bands:
            k = (o - 1) // per
            if not reach[i, k]:
                return np.inf
            used_air[o - 1] += air[i]
            used_cpu[k] += cpu[i]
        over = max(power[i] - p.power_w, -power[i]) / p.power_w
        worst = max(worst, over, fraction[i] - 1.0, -fraction[i])
        if p.batteries:
            kept = 1.0 - fraction[i] if o > 0 else 1.0
            own_s = kept * s.task_cycles[i] / s.device_hz[i]
            joule = kept * p.kappa * s.device_hz[i] ** 2 * s.task_cycles[i]
            if not s.active[i] or o == shed or own_s > s.deadline_s[i] or joule > s.battery_j[i]:
                joule = 0.0
            joule += power[i] * air[i] * s.deadline_s[i] / p.efficiency
            size = s.battery_j[i] if s.battery_j[i] > 0.0 else (joule if joule > 0.0 else 1.0)
            worst = max(worst, (joule - s.battery_j[i]) / size)
    for b in range(bands):
        worst = max(worst, used_air[b] - 1.0)
    for k in range(servers):
        worst = max(worst, used_cpu[k] - 1.0)
    return worst


def _spent(p: Physics, state: Any, seen: Believed | None, worth: Worth, options: int) -> Float:
    """(N, O) what the charge that each option takes is worth to its device, from the definition of that worth."""
    joule = np.zeros((state.agents, options))
    own_j = p.kappa * state.device_hz**2 * state.task_cycles
    able = (state.task_cycles / state.device_hz <= state.deadline_s) & (
        own_j <= state.battery_j if p.batteries else True
    )
    joule[:, 0] = np.where(able, own_j, 0.0)
    assert seen is not None
    for b in range(seen.rates.shape[1]):
        alone = state.task_bits[:, None] / seen.rates[:, b]
        air_s = np.minimum(alone, state.deadline_s[:, None]).mean(axis=1)
        joule[:, 1 + b] = p.nominal_w * air_s / p.efficiency
    out = np.zeros((state.agents, options))
    for gain, knot in zip(worth.gain.T, worth.knot, strict=True):
        full = np.minimum(state.battery_j / worth.capacity, knot)[:, None]
        left = np.maximum(state.battery_j[:, None] - joule, 0.0) / worth.capacity[:, None]
        out += gain[:, None] * (full - np.minimum(left, knot))
    return np.where(state.active[:, None], out, 0.0)


def _rank(problem: MecSetting, state: Any) -> Any:
    """(N,) class of each device: by service class, or by the scenario's score within its gap."""
    s = problem.scenario
    if s.priority_gap is None:
        return rank_by(state.sla, 0.0)
    alpha, beta, gamma = s.priority
    shortest = state.queue_s.min(initial=np.inf)
    waited = shortest / state.deadline_s
    if s.closeness:
        waited = np.clip(1.0 - (state.deadline_s - shortest) / s.deadline_s[1], 0.0, 1.0)
    work = state.task_cycles / (s.bits[1] * s.cycles_per_bit[1])
    return rank_by(alpha * np.minimum(waited, 1) + beta * np.minimum(work, 1) + gamma * state.sla, s.priority_gap)


@njit(**KEPT, error_model="numpy")
def _middle(rates):
    """The middle of equally likely values; of an even number the mean of the two."""
    half = len(rates) // 2
    return rates[half] if len(rates) % 2 else 0.5 * rates[half - 1] + 0.5 * rates[half]


class Told(NamedTuple):
    """The fields of a state that the compiled part reads."""

    active: Any
    task_bits: Any
    task_cycles: Any
    deadline_s: Any
    device_hz: Any
    battery_j: Any
    worth: Any
    last_server: Any
    server_hz: Any
    mean_gain_db: Any
    reuse_group: Any
    noise_rise: Any


def state_of(state: Any) -> Told:
    """As compiled code reads it."""
    return Told(*(getattr(state, name) for name in Told._fields))


@njit(**KEPT, error_model="numpy")
def _times(p, s, rates, cpu_wait, air_wait, caution, option, air, cpu, power, fraction, in_time):
    """(N,) whether each device's task ends by its deadline with what it was given; ``rates`` (N, Q) of its own link."""
    bands = len(air_wait)
    per = bands // max(len(s.server_hz), 1)
    for i in range(len(rates)):
        if not s.active[i]:
            in_time[i] = True
            continue
        o = option[i]
        if o > bands:  # shed
            in_time[i] = False
            continue
        sent = fraction[i] if 0 < o <= bands else 0.0
        own_s = (1.0 - sent) * s.task_cycles[i] / s.device_hz[i]
        own_j = (1.0 - sent) * p.kappa * s.device_hz[i] ** 2 * s.task_cycles[i]
        time = own_s if not (p.batteries and own_j > s.battery_j[i]) else np.inf
        if sent > 0.0:
            b = o - 1
            k = b // per
            snr = (2.0 ** ((_cautious(rates[i], caution) - 1e4) / p.band_hz) - 1.0) / p.nominal_w
            rate = p.band_hz * np.log2(1.0 + power[i] * snr) + 1e4
            away = 0.001 + cpu_wait[k] + air_wait[b]
            if p.migration and s.last_server[i] not in (-1, k):
                away += 0.004
            if air[i] > 0.0 and cpu[i] > 0.0:
                away += sent * s.task_bits[i] / (rate * air[i]) + sent * s.task_cycles[i] / (s.server_hz[k] * cpu[i])
            else:
                away = np.inf
            time = max(time, away)
        in_time[i] = time <= s.deadline_s[i] * (1.0 + 1e-9)


@njit(**KEPT, error_model="numpy")
def _cautious(rates, caution):
    """The rate that is exceeded with chance ``caution``, linear between the middles of equally likely values."""
    q = len(rates)
    place = (1.0 - caution) * q - 0.5
    if place <= 0.0 or q == 1:
        return rates[0]
    if place >= q - 1:
        return rates[q - 1]
    below = int(np.floor(place))
    return (1.0 - (place - below)) * rates[below] + (place - below) * rates[below + 1]


@njit(**KEPT, error_model="numpy")
def _alone(p, s, prices, private, home, least, most_w):
    """What a device can do by itself: the cost of option 0, whether it needs nobody, the least part of its task that
    must be sent, and the most power, in W, that it has for that."""
    for i in range(len(home)):
        if not s.active[i]:
            continue
        tau, cycles = s.deadline_s[i], s.task_cycles[i]
        own_s = cycles / s.device_hz[i]
        own_j = p.kappa * s.device_hz[i] ** 2 * cycles
        payable = own_j <= s.battery_j[i] or not p.batteries
        home[i] = payable and own_s <= tau
        per_second, missed = prices.delay / tau, prices.miss * s.worth[i]
        private[i, 0] = per_second * own_s + prices.energy * own_j / 0.1 if home[i] else prices.delay + missed
        least[i] = 1.0
        if home[i]:
            least[i] = 0.0
        elif payable and p.partial:
            least[i] = max(1.0 - prices.margin * tau / own_s, 0.0)
        most_w[i] = p.power_w if p.power_control else p.nominal_w
        if p.batteries:
            most_w[i] = min(most_w[i], max(s.battery_j[i] - (1.0 - least[i]) * own_j, 0.0) * p.efficiency / tau)


@njit(**KEPT, error_model="numpy")
def _moves(p, s, i):
    """The server that device i was on, where leaving it takes time and costs; -1 for none."""
    return s.last_server[i] if p.migration else -1


@njit(**KEPT, error_model="numpy")
def _lateness(p, s, who, rates, cpu_wait, air_wait, risk, wait, miss):
    """Fill ``wait`` (M, B) with s before work begins, and ``miss`` (M, B, Q) with the exponents of 1 / P(late) - 1."""
    bands, values = rates.shape[1:]
    per = bands // max(len(s.server_hz), 1)
    base, speed = np.empty(bands), np.empty(bands)
    for b in range(bands):
        base[b] = 0.001 + cpu_wait[b // per] + air_wait[b]
        speed[b] = s.server_hz[b // per]
    for m in range(len(who)):
        i = who[m]
        tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
        was = _moves(p, s, i)
        for b in range(bands):
            wait[m, b] = base[b] + (0.004 if was >= 0 else 0.0)
        if was >= 0:
            for b in range(was * per, (was + 1) * per):
                wait[m, b] = base[b]
        for b in range(bands):
            for q in range(values):
                x = 12.0 * ((wait[m, b] + risk * (bits / rates[m, b, q] + cycles / speed[b])) / tau - 1.0)
                miss[m, b, q] = -min(max(x, -700.0), 700.0)


@njit(**KEPT, error_model="numpy")
def _leak(heard, near, group):
    """From what each signal (M, B) raises the noise by, in logs, at one server to the sum over the tasks that have
    another server of the same spectrum as their best link; ``near`` (K,) tasks by best link, ``group`` (K,)."""
    servers = len(near)
    per = heard.shape[1] // servers
    whole = np.empty((servers, per))
    of = np.arange(servers)  # the first server of each one's spectrum
    for k in range(servers):
        for q in range(k):
            if group[q] == group[k]:
                of[k] = q
                break
    for m in range(len(heard)):
        whole[:] = 0.0
        for k in range(servers):
            for c in range(per):
                heard[m, k * per + c] *= near[k]
                whole[of[k], c] += heard[m, k * per + c]
        for k in range(servers):
            for c in range(per):
                heard[m, k * per + c] = max(whole[of[k], c] - heard[m, k * per + c], 0.0)


@njit(**KEPT, error_model="numpy")
def _costs(p, s, prices, who, rates, cpu_wait, air_wait, wait, miss, heard, weight, private):
    """Loads and private costs of every option of those with a task; ``miss`` holds 1 / P(late) - 1."""
    bands, values = rates.shape[1:]
    per = bands // max(len(s.server_hz), 1)
    speed, queue = np.empty(bands), np.empty(bands)
    server = np.arange(bands) // max(per, 1)
    for b in range(bands):
        speed[b], queue[b] = s.server_hz[b // per], cpu_wait[b // per]
    for m in range(len(who)):
        i = who[m]
        tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
        per_second, missed = prices.delay / tau, prices.miss * s.worth[i]
        was = _moves(p, s, i)
        root = np.sqrt(per_second * cycles)
        for r in range(bands, weight.shape[1]):
            weight[i, r] = root
        for b in range(bands):
            air_s, chance = 0.0, 0.0
            for q in range(values):
                air_s += min(bits / rates[m, b, q], tau)
                chance += 1.0 / (1.0 + miss[m, b, q])
            air_s /= values
            joule = p.nominal_w * air_s / p.efficiency
            cost = per_second * min(wait[m, b], tau) + prices.energy * joule / 0.1 + missed * (chance / values)
            cost += prices.backlog * (queue[b] * cycles / speed[b] + air_wait[b] * air_s) / p.slot_s**2
            cost += prices.migration if was >= 0 and was != server[b] else 0.0
            cost += missed if p.batteries and joule > s.battery_j[i] else 0.0
            airtime = min(bits / (p.slot_s * _middle(rates[m, b])), 1.0)
            private[i, 1 + b] = cost + prices.leakage * airtime * heard[m, b]
            weight[i, b] = np.sqrt(per_second * air_s)


@njit(**KEPT, error_model="numpy")
def _middling(p, needs, rates, caution, out):
    """Fill ``out`` with log2(1 + SNR) at nominal power at the rate that is counted on."""
    for a in range(len(needs)):
        for b in range(out.shape[1]):
            out[a, b] = (_cautious(rates[needs[a], b], caution) - 1e4) / p.band_hz


@njit(**KEPT, error_model="numpy")
def _takes(
    p, s, reach, margin, who, needs, wait, rate, least, most_w, home, weight, private, seconds, slack, allowed,
    acceptable,
):  # fmt: skip
    """What serving takes, where it is allowed and where it is acceptable. ``rate`` log2(1 + SNR) at the most power, of
    those that need others; ``seconds`` is inf where the battery forbids."""
    bands = wait.shape[1]
    servers = len(s.server_hz)
    server = np.arange(bands) // max(bands // max(servers, 1), 1)
    for i in range(len(home)):
        for b in range(bands):
            allowed[i, 1 + b] = s.active[i] and reach[i, server[b]]
    for m in range(len(who)):
        i = who[m]
        for b in range(bands):
            slack[i, 1 + b] = s.deadline_s[i] if home[i] else margin * s.deadline_s[i] - wait[m, b]
    for a in range(len(needs)):
        i = who[needs[a]]
        bits, cycles = least[i] * s.task_bits[i], least[i] * s.task_cycles[i]
        for b in range(bands):
            if most_w[i] > 0.0:
                seconds[i, 1 + b, 0] = bits / (p.band_hz * rate[a, b] + 1e4)
                seconds[i, 1 + b, 1] = cycles / s.server_hz[server[b]]
            else:
                seconds[i, 1 + b, 0] = np.inf
    for m in range(len(who)):
        i = who[m]
        most = private[i, 0] * (1.0 + 1e-12)
        for b in range(bands):
            k = server[b]
            alone = private[i, 1 + b] + weight[i, b] ** 2 + weight[i, bands + k] ** 2 / s.server_hz[k]
            acceptable[i, 1 + b] = allowed[i, 1 + b] and alone <= most and np.isfinite(seconds[i, 1 + b, 0])
