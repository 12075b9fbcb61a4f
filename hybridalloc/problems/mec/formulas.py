"""Laws of radio, deadlines and batteries that every compiled part of ``mec`` shares, each a few operations.

Sources: path loss and noise as in 3GPP TR 36.814 (urban macro); energy model kappa f^2 c: Miettinen and Nurminen
(2010).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import KEPT
from hybridalloc.problems.mec.arrays import LEAST_RATE, STEEPNESS
from hybridalloc.problems.mec.law import exp


@njit(**KEPT, error_model="numpy", inline="always")
def lateness_row(time, tau):
    """:func:`lateness` without a branch or a call, for loops that are to become vector code."""
    z = STEEPNESS * (time / tau - 1.0)
    near = z if z > -30.0 else -30.0
    near = near if near < 30.0 else 30.0
    late = 1.0 / (1.0 + exp(-near))
    late = late if z <= 30.0 else 1.0
    return late if z >= -30.0 else 0.0


@njit(**KEPT, error_model="numpy", inline="always")
def lateness(time, tau):
    z = STEEPNESS * (time / tau - 1.0)
    if z > 30.0:
        return 1.0
    if z < -30.0:
        return 0.0
    return 1.0 / (1.0 + np.exp(-z))


@njit(**KEPT, error_model="numpy", inline="always")
def own_of(p, w, e, i):
    """s that a device takes for its whole task by itself; inf where its battery cannot pay."""
    local_j = p.kappa * w.device_hz[e, i] ** 2 * w.task_cycles[e, i]
    if p.batteries and local_j > w.battery_j[e, i]:
        return np.inf
    return w.task_cycles[e, i] / w.device_hz[e, i]


@njit(**KEPT, error_model="numpy", inline="always")
def least_fraction(p, prices, own, tau):
    """Smallest fraction that must be sent so that the device's own side, of ``own`` s, is in time; 1 where it can keep
    nothing."""
    if not p.partial or own == np.inf:
        return 1.0
    return max(0.0, 1.0 - prices.margin * tau / own) if own > tau else 0.0


@njit(**KEPT, error_model="numpy", inline="always")
def most_power(p, local_j, battery_j, tau, rho, share):
    """Most power in W with which a device may send for a whole deadline at ``share`` of the air, by limit and battery,
    sending ``rho`` of its task and computing the rest."""
    most = p.power_w if p.power_control else p.nominal_w
    if p.batteries:
        window = share * tau / p.efficiency
        if window > 0.0:
            most = min(most, max(battery_j - (1.0 - rho) * local_j, 0.0) / window)
    return most


@njit(**KEPT, error_model="numpy", inline="always")
def wait_of(p, w, e, i, b, k):
    """s that pass before a device's work on band b and server k begins, as believed."""
    moved = p.migration and w.last_server[e, i] >= 0 and w.last_server[e, i] != k
    return p.backhaul_s + w.cpu_wait_s[e, k] + w.air_wait_s[e, b] + (p.switch_s if moved else 0.0)


@njit(**KEPT, error_model="numpy", inline="always")
def snr_of(p, rate):
    """Signal over noise and interference at 1 W, from the rate at nominal power."""
    return (np.exp2((rate - LEAST_RATE) / p.band_hz) - 1.0) / p.nominal_w


@njit(**KEPT, error_model="numpy", inline="always")
def rate_of(p, power, gain):
    return p.band_hz * np.log2(1.0 + power * gain) + LEAST_RATE


@njit(**KEPT, error_model="numpy", inline="always")
def exceeded(rates, chance):
    """The rate that is exceeded with ``chance``: the quantile 1 - chance of Q equally likely values, ascending."""
    values = rates.shape[0]
    if values == 1:
        return rates[0]
    at = min(max((1.0 - chance) * values - 0.5, 0.0), values - 1.0)
    k = min(int(at), values - 2)
    return rates[k] + (at - k) * (rates[k + 1] - rates[k])
