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
from games.congestion import Float
from hybridalloc.problems.mec.core import Physics, Prices
from hybridalloc.problems.mec.setting import MecSetting
from rl.value import Worth


class Believed(NamedTuple):
    """What a step believed: (N, B, Q) equally likely rates at nominal power in bit/s, ascending; (K,) and (B,) s of
    backlog; what each device's battery is worth by its charge, None where energy has a price."""

    rates: Float
    cpu_wait_s: Float
    air_wait_s: Float
    worth: Worth | None = None


def reported(physics: Any, state: Any) -> Believed:
    """The state's own reports, taken at their face value."""
    noise = physics.noise_w * (1 + state.noise_rise)
    snr = 10 ** (state.reported_gain_db / 10) * (physics.nominal_w / noise)
    return Believed((physics.band_hz * np.log2(1 + snr) + 1e4)[..., None], state.queue_s, state.air_queue_s)


def audit(problem: MecSetting, state: Any, allocation: Any, prices: Prices, believed: Believed | None = None) -> Audit:
    """What the certificate finds; arrays as in :class:`games.certificate.Audit`.

    Args:
        problem: a ``Mec``: its constants alone are read. believed: data of a belief; None for the reports.
    """
    p = problem.physics
    n, bands = state.reported_gain_db.shape
    servers = len(state.server_hz)
    per = bands // max(servers, 1)
    seen = reported(p, state) if believed is None else believed
    option = np.asarray(allocation.option, np.int64)
    got = (allocation.shares["air"], allocation.shares["cpu"], allocation.power, allocation.fraction)
    air, cpu, power, fraction = (np.ascontiguousarray(x, np.float64) for x in got)
    in_time, by_reports = np.zeros(n, bool), np.zeros(n, bool)
    worth, seen = seen.worth, seen._replace(worth=None)
    _times(p, state_of(state), seen, prices.caution, option, air, cpu, power, fraction, in_time)
    if believed is None:
        by_reports = in_time
    else:
        _times(p, state_of(state), reported(p, state), prices.caution, option, air, cpu, power, fraction, by_reports)
    options = 1 + bands + int(problem.scenario.sheds)
    weight, private = np.zeros((n, bands + servers)), np.zeros((n, options))
    seconds, slack = np.zeros((n, options, 2)), np.zeros((n, options))
    home = np.zeros(n, bool)
    charged = prices if worth is None else prices._replace(energy=0.0)
    _options(p, state_of(state), seen, charged, weight, private, seconds, slack, home)
    if worth is not None:
        private += _spent(p, state, seen, worth, options)
    allowed = np.ones((n, options), bool)
    allowed[:, 1 : 1 + bands] = np.repeat(state.reachable, per, axis=1) & state.active[:, None]
    capacity = np.concatenate([np.ones(bands), state.server_hz])
    b = np.arange(bands)
    rows = np.full((options, 2), -1)
    rows[1 : 1 + bands] = np.stack([b, bands + b // max(per, 1)], axis=1)
    alone = (
        private[:, 1 : 1 + bands]
        + weight[:, :bands] ** 2
        + (weight[:, bands:] ** 2 / state.server_hz).repeat(per, axis=1)
    )
    acceptable = allowed & state.active[:, None]
    if problem.scenario.sheds:  # by choice: then nothing is promised to anybody
        private[:, -1] = np.where(state.active, prices.delay + prices.miss * state.worth, 0.0)
        allowed[:, -1] = state.active
        acceptable[:] = False
    acceptable[:, 0] = False
    acceptable[:, 1 : 1 + bands] &= (alone <= private[:, :1] * (1 + 1e-12)) & np.isfinite(
        seconds[:, 1 : 1 + bands]
    ).all(-1)
    return Audit(
        rows, weight, capacity, private, allowed, np.full(bands + servers, prices.toll), state.active, in_time,
        by_reports,
        seconds, slack, np.full((n, options), np.inf), acceptable, home & state.active, _rank(problem, state), option,
        np.asarray(allocation.held, bool), np.stack([air, cpu], axis=1),
        np.stack([allocation.floors["air"], allocation.floors["cpu"]], axis=1).astype(float),
    )  # fmt: skip


def _spent(p: Physics, state: Any, seen: Believed, worth: Worth, options: int) -> Float:
    """(N, O) what the charge that each option takes is worth to its device, from the definition of that worth."""
    joule = np.zeros((state.agents, options))
    own_j = p.kappa * state.device_hz**2 * state.task_cycles
    able = (state.task_cycles / state.device_hz <= state.deadline_s) & (
        own_j <= state.battery_j if p.batteries else True
    )
    joule[:, 0] = np.where(able, own_j, 0.0)
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
    waited = state.queue_s.min(initial=np.inf) / state.deadline_s
    work = state.task_cycles / (s.bits[1] * s.cycles_per_bit[1])
    return rank_by(alpha * np.minimum(waited, 1) + beta * np.minimum(work, 1) + gamma * state.sla, s.priority_gap)


@njit(cache=True, error_model="numpy")
def _middle(rates):
    """The middle of equally likely values; of an even number the mean of the two."""
    half = len(rates) // 2
    return rates[half] if len(rates) % 2 else 0.5 * rates[half - 1] + 0.5 * rates[half]


@njit(cache=True, error_model="numpy")
def _leak(p, s, nearest, i, k, channel):
    """What device i's signal on ``channel`` of server k raises the noise by, in logs, summed over the tasks that have
    another server of the same spectrum as their best link."""
    out = 0.0
    per = len(s.noise_rise) // len(nearest)
    for q in range(len(nearest)):
        if q == k or s.reuse_group[q] != s.reuse_group[k]:
            continue
        signal_w = 10.0 ** (s.mean_gain_db[i, q] / 10.0) * p.nominal_w
        out += nearest[q] * np.log(1.0 + signal_w / (p.noise_w + p.noise_w * s.noise_rise[q * per + channel]))
    return out


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


@njit(cache=True, error_model="numpy")
def _times(p, s, seen, caution, option, air, cpu, power, fraction, in_time):
    """(N,) whether each device's task ends by its deadline with what it was given."""
    n, bands, _ = seen.rates.shape
    per = bands // max(len(s.server_hz), 1)
    for i in range(n):
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
            snr = (2.0 ** ((_cautious(seen.rates[i, b], caution) - 1e4) / p.band_hz) - 1.0) / p.nominal_w
            rate = p.band_hz * np.log2(1.0 + power[i] * snr) + 1e4
            away = 0.001 + seen.cpu_wait_s[k] + seen.air_wait_s[b]
            if p.migration and s.last_server[i] not in (-1, k):
                away += 0.004
            if air[i] > 0.0 and cpu[i] > 0.0:
                away += sent * s.task_bits[i] / (rate * air[i]) + sent * s.task_cycles[i] / (s.server_hz[k] * cpu[i])
            else:
                away = np.inf
            time = max(time, away)
        in_time[i] = time <= s.deadline_s[i] * (1.0 + 1e-9)


@njit(cache=True, error_model="numpy")
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


@njit(cache=True, error_model="numpy")
def _options(p, s, seen, prices, weight, private, seconds, slack, home):
    """Costs and loads of every option, and what serving there takes; ``seconds`` is inf where the battery forbids."""
    n, bands, values = seen.rates.shape
    servers = len(s.server_hz)
    per = bands // max(servers, 1)
    nearest = np.zeros(servers)  # how many tasks each server is the best link of
    for i in range(n):
        if s.active[i] and servers:
            nearest[np.argmax(s.mean_gain_db[i])] += 1
    for i in range(n):
        if not s.active[i]:
            continue
        tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
        per_second, missed = prices.delay / tau, prices.miss * s.worth[i]
        own_s = cycles / s.device_hz[i]
        own_j = p.kappa * s.device_hz[i] ** 2 * cycles
        payable = own_j <= s.battery_j[i] or not p.batteries
        home[i] = payable and own_s <= tau
        private[i, 0] = per_second * own_s + prices.energy * own_j / 0.1 if home[i] else prices.delay + missed
        least = 1.0  # of the task that must be sent
        if home[i]:
            least = 0.0
        elif payable and p.partial:
            least = max(1.0 - prices.margin * tau / own_s, 0.0)
        most_w = p.power_w if p.power_control else p.nominal_w
        if p.batteries:
            most_w = min(most_w, max(s.battery_j[i] - (1.0 - least) * own_j, 0.0) * p.efficiency / tau)
        for k in range(servers):
            weight[i, bands + k] = np.sqrt(per_second * cycles)
        for b in range(bands):
            k = b // per
            moves = p.migration and s.last_server[i] >= 0 and s.last_server[i] != k
            wait = 0.001 + seen.cpu_wait_s[k] + seen.air_wait_s[b] + (0.004 if moves else 0.0)
            cpu_s = cycles / s.server_hz[k]
            air_s, miss = 0.0, 0.0
            for q in range(values):
                alone = bits / seen.rates[i, b, q]
                air_s += min(alone, tau)
                x = 12.0 * ((wait + prices.risk * (alone + cpu_s)) / tau - 1.0)
                miss += 1.0 / (1.0 + np.exp(-min(max(x, -700.0), 700.0)))
            air_s, miss = air_s / values, miss / values
            joule = p.nominal_w * air_s / p.efficiency
            cost = per_second * min(wait, tau) + prices.energy * joule / 0.1 + missed * miss
            cost += prices.backlog * (seen.cpu_wait_s[k] * cpu_s + seen.air_wait_s[b] * air_s) / p.slot_s**2
            if moves:
                cost += prices.migration
            if p.batteries and joule > s.battery_j[i]:
                cost += missed
            if p.interference:
                airtime = min(bits / (p.slot_s * _middle(seen.rates[i, b])), 1.0)
                cost += prices.leakage * airtime * _leak(p, s, nearest, i, k, b - k * per)
            private[i, 1 + b] = cost
            weight[i, b] = np.sqrt(per_second * air_s)
            if home[i]:
                slack[i, 1 + b] = tau
                continue
            slack[i, 1 + b] = prices.margin * tau - wait
            if most_w <= 0.0:
                seconds[i, 1 + b, 0] = np.inf
                continue
            snr = (2.0 ** ((_cautious(seen.rates[i, b], prices.caution) - 1e4) / p.band_hz) - 1.0) / p.nominal_w
            seconds[i, 1 + b, 0] = least * bits / (p.band_hz * np.log2(1.0 + most_w * snr) + 1e4)
            seconds[i, 1 + b, 1] = least * cpu_s
