r"""Step 2: continuous decisions as each agent's own best response, pulled towards the proposal.

Power. With a share :math:`\varphi` of the air, sending d bits over W Hz at power p costs
:math:`(\alpha + \beta p) / \ln(1 + \gamma p)`: :math:`\alpha` prices the time, :math:`\beta` the energy and
:math:`\gamma` is the channel's gain over noise. Setting the derivative to zero with
:math:`v = (1 + \gamma p) / e` gives :math:`v \ln v = (\alpha\gamma/\beta - 1) / e`, so
:math:`v = x / W_0(x)` by Lambert's W: one closed form, no search.

Fraction. Local and remote parts run side by side, so the time is the larger of the two and the cost is
piecewise linear in the offloaded fraction: its minimum is where both take equally long, at the largest
fraction that still meets the deadline, or at an end.

Source: Corless et al. (1996), "On the Lambert W function", for W_0; Wang et al. (2016), "Mobile-edge
computing: partial computation offloading using dynamic voltage scaling", for equal local and remote times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from games.lean import LEAN

E = float(np.e)
LN2 = float(np.log(2.0))


@njit(**LEAN)
def lambert_w(x: float) -> float:
    """Principal branch of Lambert's W at x >= -1/e, by Halley's iteration (relative error below 1e-12).

    It converges by the third power: after a step of 1e-5, away from the branch point, nothing is left to do.
    """
    last = 1e-5 if x > 0.0 else 1e-13
    if x <= -1.0 / E:
        return -1.0
    if x < -0.3:  # series about the branch point
        q = np.sqrt(2.0 * (E * x + 1.0))
        w = -1.0 + q * (1.0 - q / 3.0 + 11.0 * q * q / 72.0)
    elif x < 2.0:
        w = x / (1.0 + x)
    else:
        w = np.log(x) - np.log(np.log(x) + 1e-12) if x > E else 0.85
    for _ in range(20):
        ew = np.exp(w)
        f = w * ew - x
        step = f / (ew * (w + 1.0) - (w + 2.0) * f / (2.0 * w + 2.0)) if w > -1.0 + 1e-12 else 0.0
        w -= step
        if abs(step) <= last * (1.0 + abs(w)):
            break
    return w


@njit(**LEAN)
def best_power(time_price: float, energy_price: float, gain: float, lowest: float, highest: float) -> float:
    """Power in W in [lowest, highest] that minimises (time_price + energy_price p) / ln(1 + gain p).

    Args:
        time_price: cost of one second on air, divided by the agent's share of the air; >= 0.
        energy_price: cost of one second on air at 1 W; >= 0.
        gain: received signal over noise and interference at 1 W, 1/W; >= 0.
        lowest, highest: limits in W.
    """
    if energy_price <= 0.0 or gain <= 0.0:
        return highest
    ratio = time_price * gain / energy_price
    if falling_until(gain * highest)[0] <= ratio:  # still falling at the highest
        return highest
    return min(max(power_exponent(ratio, gain)[1], lowest), highest)


@njit(**LEAN)
def falling_until(signal: float) -> tuple[float, float]:
    """The ratio time_price gain / energy_price from which on the cost of :func:`best_power` falls up to the power that
    is received ``signal`` times as strong as noise; log2(1 + signal)."""
    most = 1.0 + signal
    ln = np.log(most)
    return most * ln - (most - 1.0), ln / LN2


@njit(**LEAN)
def power_exponent(ratio: float, gain: float) -> tuple[float, float]:
    """Without limits, log2(1 + gain p) at the best power p, and p; time_price gain / energy_price is ``ratio``."""
    w = lambert_w((ratio - 1.0) / E)
    return (1.0 + w) / LN2, (E * np.exp(w) - 1.0) / gain  # exp(W(x)) is x / W(x), also right at x = 0


@njit(**LEAN)
def best_fraction(
    delay_price: float,
    energy_price: float,
    local_time: float,
    local_energy: float,
    remote_wait: float,
    remote_time: float,
    remote_energy: float,
    deadline: float,
    miss_price: float,
) -> float:
    """Offloaded fraction in [0, 1] that minimises delay_price T + energy_price E + miss_price [T > deadline].

    Times in s and energies in J are for the whole task on one side; ``remote_wait`` is paid before any remote
    work. T is the larger of (1 - rho) local_time and remote_wait + rho remote_time; E is linear in rho, and delay
    beyond the deadline costs no more. Where no fraction is in time, the cheapest of the four candidates is taken,
    which is never worse than sending all.
    """
    equal = (local_time - remote_wait) / (local_time + remote_time)
    kept = 1.0 - deadline / local_time if local_time > 0.0 else 0.0  # smallest fraction: local side in time
    sent = (deadline - remote_wait) / remote_time if remote_time > 0.0 else 1.0  # largest: remote side in time
    best = 1.0
    least = np.inf
    for k in range(4):
        rho = 1.0 if k == 0 else (equal if k == 1 else (kept if k == 2 else sent))
        rho = min(max(rho, 0.0), 1.0)
        remote = remote_wait + rho * remote_time if rho > 0.0 else 0.0
        time = max((1.0 - rho) * local_time, remote)
        energy = (1.0 - rho) * local_energy + rho * remote_energy
        cost = delay_price * min(time, deadline) + energy_price * energy
        if time > deadline * (1.0 + 1e-9):
            cost += miss_price
        if cost < least - 1e-12:
            least = cost
            best = rho
    return best


@njit(**LEAN)
def blend(response: float, curvature: float, trust: float, mean: float, spread: float) -> float:
    """Best response pulled towards a proposal by the proposal's own spread.

    Minimises trust curvature (x - response)^2 / 2 + (x - mean)^2 / (2 spread^2): a confident proposal (small
    spread) weighs more, and an infinite spread is no proposal. ``curvature`` is in cost per unit squared.
    """
    if not np.isfinite(spread):
        return response
    if spread <= 0.0:
        return mean
    own, theirs = trust * curvature, 1.0 / (spread * spread)
    return (own * response + theirs * mean) / (own + theirs)


def for_option(value: Any, option: NDArray[np.int64]) -> NDArray[np.float64]:
    """(E, N) of a proposal's numbers: those of the option taken where each option has its own, (E, N, O)."""
    value = np.asarray(value, dtype=np.float64)
    if value.ndim == 3:
        return np.take_along_axis(value, option[..., None], axis=-1)[..., 0]
    return np.broadcast_to(value, option.shape).copy()
