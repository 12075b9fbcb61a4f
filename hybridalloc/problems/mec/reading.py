r"""What one device takes on one option, as the certificate reads it in every step: by the definitions of :mod:`.audit`.

.. math:: \log(1 + e^u) = \max(u, 0) + 2 \, artanh \frac{y}{2 + y}, \quad y = e^{-|u|}

has both rates and interference, without branches, so that a row of options is a few vector loops.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from games.congestion import Bool, Float
from games.lean import INLINE
from hybridalloc.problems.mec.audit import NEPERS, _cautious, _middle, _moves

LN2, HIGH, LOW = 0.6931471805599453, 0.6931471803691238, 1.9082149292705877e-10  # the first 33 bits, and the rest
ROUNDER, S52 = 6755399441055744.0, np.uint64(52)  # 1.5 2^52: adding it leaves a whole number in the low bits


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


@njit(**INLINE, fastmath={"contract"})
def soft(u):
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
def own_of(p, s, prices, i):
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
def rates_of(p, s, scale, i, b, out):
    """Fill ``out`` (Q or 1,) with the rates that are believed, or that the report says, of one link."""
    if s.rates.shape[2]:
        for q in range(len(out)):
            out[q] = s.rates[i, b, q]
    else:
        out[0] = p.band_hz / LN2 * soft(NEPERS * s.reported_gain_db[i, b] + scale[b]) + 1e4


@njit(**INLINE)
def wait_of(p, s, i, b, k):
    """s before a device's work on a band and server begins, as believed; whether it changes servers."""
    was = _moves(p, s, i)
    moves = was >= 0 and was != k
    return 0.001 + s.cpu_wait_s[k] + s.air_wait_s[b] + (0.004 if moves else 0.0), moves


@njit(**INLINE)
def cost_of(p, s, prices, heard, i, b, per, rates):
    """A device's private cost of a band, and its loads on it and on its server."""
    k, values = b // per, len(rates)
    tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
    per_second, missed = prices.delay / tau, prices.miss * s.worth[i]
    wait, moves = wait_of(p, s, i, b, k)
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
def serving(p, s, prices, i, b, k, home, least, watts, rates):
    """s that the two legs of a place take, and that they may take."""
    tau = s.deadline_s[i]
    if home:
        return 0.0, 0.0, tau
    wait, _ = wait_of(p, s, i, b, k)
    slack = prices.margin * tau - wait
    if not watts > 0.0:
        return np.inf, 0.0, slack
    snr = np.expm1((_cautious(rates, prices.caution) - 1e4) / p.band_hz * LN2) * watts / p.nominal_w
    rate = p.band_hz / LN2 * np.log1p(snr) + 1e4
    return least * s.task_bits[i] / rate, least * s.task_cycles[i] / s.server_hz[k], slack


@njit(**INLINE)
def in_time_of(p, s, rates, cpu_wait, air_wait, caution, g, i, per):
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
