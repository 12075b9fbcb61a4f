r"""Alpha-fair shares of single resources, with floors and ceilings: one water level a resource.

Maximise :math:`\sum_i w_i U_\alpha(g_i f_i)` subject to :math:`\sum_i f_i \le 1` on each resource and
:math:`l_i \le f_i \le h_i`, where :math:`U_\alpha(x) = x^{1-\alpha} / (1-\alpha)`, log at alpha 1. By the KKT
conditions :math:`f_i = clip(c_i \nu, l_i, h_i)` with :math:`c_i = (w_i g_i^{1-\alpha})^{1/\alpha}`: the level nu is
found exactly by passing through the sorted breakpoints. alpha 0 is the largest total (greedy), 1 is
proportional fairness, 2 least delay, infinity max-min fairness, lexicographic, where weights play no part.

Source: Mo and Walrand (2000), "Fair end-to-end window-based congestion control".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from games.congestion import Bool, Float
from games.errors import InvalidStateError, floats
from games.lean import KEPT
from games.shares import admit, check_priority, check_weights


@dataclass(frozen=True)
class FairShares:
    """Shares with their certificate.

    Attributes:
        share: (N,) fraction of the resource's capacity.
        price: (R,) dual of each capacity, in utility per capacity (at alpha infinity: the common level nu).
        gap: relative duality gap, recomputed from ``share`` and ``price``; at alpha infinity the largest
            relative distance of an agent between its bounds from the common rate.
        served: (N,) bool, False where a floor could not be met and was dropped.
        shortfall: (R,) by how many capacities all floors together exceed the resource.
        status: "optimal", or "infeasible" when some floors were dropped.
    """

    share: Float
    price: Float
    gap: float
    served: Bool
    shortfall: Float
    status: str


def alpha_fair_shares(
    weight: ArrayLike,
    resource: ArrayLike,
    resources: int,
    alpha: float,
    *,
    gain: ArrayLike | None = None,
    floor: ArrayLike | None = None,
    ceiling: ArrayLike | None = None,
    priority: ArrayLike | None = None,
) -> FairShares:
    """Alpha-fair shares of every resource at once.

    Args:
        weight: (N,) > 0.
        resource: (N,) resource of each agent, -1 for none.
        resources: R.
        alpha: in [0, inf].
        gain: (N,) rate per unit of share, > 0; default 1.
        floor: (N,) least share, >= 0; default 0.
        ceiling: (N,) largest share, >= floor; default 1.
        priority: (N,) whose floor is admitted first when they do not all fit; default the smallest.

    Returns:
        FairShares.

    Raises:
        InvalidStateError: names field, agent, value and what is permitted.
    """
    w, where = check_weights(weight, resource, resources)
    n = len(w)
    g = np.ones(n) if gain is None else floats("gain", gain)
    low = np.zeros(n) if floor is None else floats("floor", floor)
    high = np.ones(n) if ceiling is None else floats("ceiling", ceiling)
    if not alpha >= 0:
        raise InvalidStateError(f"alpha = {alpha}; it is in [0, inf]")
    for name, array, bad, rule in (
        ("weight", w, ~(w > 0), "a weight is finite and > 0"),
        ("gain", g, ~(np.isfinite(g) & (g > 0)), "a gain is finite and > 0"),
        ("floor", low, ~(np.isfinite(low) & (low >= 0)), "a floor is a finite fraction >= 0"),
        ("ceiling", high, ~(high >= low) if high.shape == low.shape else ~(high >= 0), "at least the floor"),
    ):
        if array.shape != w.shape:
            raise InvalidStateError(f"{name} has shape {array.shape}; weight has {w.shape}")
        if bad.any():
            i = int(np.argmax(bad))
            raise InvalidStateError(f"{name}[{i}] = {array[i]}; {rule}")
    need = np.zeros(resources)
    np.add.at(need, where[where >= 0], low[where >= 0])
    served = np.ones(n, bool)
    admit(low, where, check_priority(low, priority), need, served)
    low = np.where(served, low, 0.0)
    share, level = np.zeros(n), np.zeros(resources)
    order = np.argsort(where, kind="stable")
    begin = np.searchsorted(where[order], np.arange(resources + 1))
    if alpha == 0:
        _greedy(w * g, low, high, order, begin, share, level)
        price = level
    else:
        log_c = -np.log(g) if np.isinf(alpha) else (np.log(w) + (1 - alpha) * np.log(g)) / alpha
        top = np.full(resources, -np.inf)
        np.maximum.at(top, where[where >= 0], log_c[where >= 0])
        c = np.exp(log_c - np.where(where >= 0, top[where], 0.0))
        _levels(c, low, high, order, begin, share, level)
        shift = np.where(np.isfinite(top), top, 0.0)
        with np.errstate(divide="ignore", over="ignore"):
            # nu = lambda^(-1 / alpha), up to the factor taken out of c
            price = level * np.exp(-shift) if np.isinf(alpha) else (level * np.exp(-shift)) ** -alpha
    gap = _gap(w, g, low, high, where, alpha, share, price)
    short = np.maximum(need - 1.0, 0.0)
    return FairShares(share, price, gap, served, short, "optimal" if served.all() else "infeasible")


def utility(rate: ArrayLike, alpha: float) -> Float:
    """U_alpha of each rate (N,), alpha finite."""
    x = floats("rate", rate)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.log(x) if alpha == 1 else x ** (1 - alpha) / (1 - alpha))


def _gap(
    w: Float, g: Float, low: Float, high: Float, where: np.ndarray, alpha: float, share: Float, price: Float
) -> float:
    on = where >= 0
    if not on.any():
        return 0.0
    w, g, low, high, f, r = w[on], g[on], low[on], high[on], share[on], where[on]
    if np.isinf(alpha):
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.clip(price[r] / g, low, high)
        return float(np.nan_to_num(np.abs(f - level) / np.maximum(level, 1e-300)).max())
    dual = price[r]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if alpha == 0:
            best = np.where(w * g > dual, high, low)
        else:
            best = np.clip((w * g ** (1 - alpha) / dual) ** (1 / alpha), low, high)
        ideal = w * utility(g * best, alpha) - dual * best
        here = w * utility(g * f, alpha) - dual * f
    used = np.bincount(r, f, len(price))
    busy = np.bincount(r, minlength=len(price)) > 0
    slack = float(sum(p * (1 - u) for p, u in zip(price[busy], used[busy], strict=True) if u < 1))
    size = max(1e-300, float(np.abs(w * utility(g * f, alpha)).sum()), float((dual * f).sum()))
    return max(0.0, float((ideal - here).sum()) + slack) / size


@njit(**KEPT)
def _levels(c, low, high, order, begin, share, level):
    """sum_i clip(c_i nu, low_i, high_i) = 1 on each resource: through the sorted breakpoints, exactly."""
    for k in range(len(level)):
        first, last = begin[k], begin[k + 1]
        n = last - first
        if n == 0:
            continue
        at = np.empty(2 * n)
        total_high = 0.0
        for j in range(n):
            i = order[first + j]
            at[2 * j] = low[i] / c[i] if c[i] > 0.0 else np.inf
            at[2 * j + 1] = high[i] / c[i] if c[i] > 0.0 else np.inf
            total_high += high[i]
        if total_high < 1.0:
            level[k] = np.inf
            for j in range(n):
                share[order[first + j]] = high[order[first + j]]
            continue
        # bisection over breakpoints, each evaluation a sum of what the agents take there
        at = np.sort(at)
        left, right = -1, 2 * n - 1
        while right - left > 1:
            middle = (left + right) // 2
            used = 0.0
            for j in range(n):
                i = order[first + j]
                used += min(max(c[i] * at[middle], low[i]), high[i])
            if used <= 1.0:
                left = middle
            else:
                right = middle
        inside = at[left] if left >= 0 else 0.0
        beyond = at[right]
        held, slope = 0.0, 0.0
        for j in range(n):
            i = order[first + j]
            # who moves between the two breakpoints
            if c[i] > 0.0 and low[i] / c[i] <= inside and high[i] / c[i] >= beyond:
                slope += c[i]
            else:
                held += min(max(c[i] * inside, low[i]), high[i])
        nu = (1.0 - held) / slope if slope > 0.0 else inside
        nu = max(nu, 0.0)
        level[k] = nu
        used = 0.0
        for j in range(n):
            i = order[first + j]
            share[i] = min(max(c[i] * nu, low[i]), high[i])
            used += share[i]
        if used > 1.0:
            for j in range(n):
                share[order[first + j]] /= used


@njit(**KEPT)
def _greedy(value, low, high, order, begin, share, level):
    for k in range(len(level)):
        first, last = begin[k], begin[k + 1]
        left = 1.0
        for j in range(first, last):
            share[order[j]] = low[order[j]]
            left -= low[order[j]]
        rank = np.argsort(-value[order[first:last]])
        for j in rank:
            i = order[first + j]
            more = min(high[i] - low[i], max(left, 0.0))
            share[i] += more
            left -= more
            if left <= 0.0:
                level[k] = value[i]
                break
