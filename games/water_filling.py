r"""Power over channels by water-filling, each agent under its own budget and all under a common one.

Maximise :math:`\sum_i w_i \sum_k \log(1 + g_{ik} p_{ik})` subject to :math:`\sum_k p_{ik} \le P_i` and
:math:`\sum_{ik} p_{ik} \le P`. The answer is :math:`p_{ik} = [L_i - 1/g_{ik}]_+` with one water level an agent,
:math:`L_i = \min(own level, w_i / \lambda)`: where the common budget binds, its price lambda lowers the levels of
those whose own budget does not bind as hard. Both levels are exact (piecewise linear, no iteration left over).

Source: Boyd and Vandenberghe (2004), example 5.2; Gallager (1968), section 7.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Float
from games.errors import InvalidStateError, floats


@dataclass(frozen=True)
class WaterFilling:
    """Powers and their prices.

    Attributes:
        power: (N, K), in the unit of the budgets.
        level: (N,) water level of each agent.
        own_price: (N,) dual of each own budget, nats per unit of power.
        common_price: dual of the common budget.
        rate: (N,) sum over channels of log(1 + g p), nats per use, without weights.
        gap: relative duality gap, recomputed from powers and prices.
        status: "optimal".
    """

    power: Float
    level: Float
    own_price: Float
    common_price: float
    rate: Float
    gap: float
    status: str


def water_filling(
    gain: ArrayLike, budget: ArrayLike, *, weight: ArrayLike | None = None, common: float = np.inf
) -> WaterFilling:
    """Optimal powers.

    Args:
        gain: (N, K) channel gain over noise, per unit of power, >= 0; 0 for a channel that cannot be used.
        budget: (N,) own budgets, >= 0; inf where only the common one holds.
        weight: (N,) > 0; default 1.
        common: budget of all together, >= 0; inf for none. Own or common must be finite.

    Raises:
        InvalidStateError: names field, index, value and what is permitted.
    """
    g, own = floats("gain", gain), floats("budget", budget)
    if g.ndim != 2 or own.shape != g.shape[:1]:
        raise InvalidStateError(f"gain has shape {g.shape} and budget {own.shape}; they are (N, K) and (N,)")
    w = np.ones(len(g)) if weight is None else floats("weight", weight)
    if w.shape != own.shape:
        raise InvalidStateError(f"weight has shape {w.shape}; budget has {own.shape}")
    for name, array, good, rule in (
        ("gain", g, np.isfinite(g) & (g >= 0), "a gain is finite and >= 0"),
        ("budget", own, own >= 0, "a budget is >= 0"),
        ("weight", w, np.isfinite(w) & (w > 0), "a weight is finite and > 0"),
    ):
        if not good.all():
            at = tuple(np.argwhere(~good)[0])
            raise InvalidStateError(f"{name}[{', '.join(map(str, at))}] = {array[at]}; {rule}")
    if not common >= 0 or (np.isinf(common) and np.isinf(own).any()):
        raise InvalidStateError(f"common = {common}; it is >= 0, and finite where an own budget is not")
    n, k = g.shape
    if n == 0 or k == 0 or not (g > 0).any():
        return WaterFilling(np.zeros((n, k)), np.zeros(n), np.zeros(n), 0.0, np.zeros(n), 0.0, "optimal")
    with np.errstate(divide="ignore"):
        floor = np.sort(1 / g, axis=1)  # the ground that water fills, lowest first; inf where there is none
    sums = np.cumsum(np.where(np.isfinite(floor), floor, 0.0), axis=1)
    counts = np.arange(1, k + 1)
    usable = np.isfinite(floor)
    with np.errstate(invalid="ignore"):
        candidate = np.where(usable, (own[:, None] + sums) / counts, -np.inf)
        filled = np.maximum((usable & (candidate > floor)).sum(axis=1), 1)
    level = candidate[np.arange(n), filled - 1]
    level = np.where(usable[:, 0], level, 0.0)
    spent = np.where(usable[:, 0], own, 0.0)
    price = 0.0
    if spent.sum() > common:
        # total power is piecewise linear and increasing in s = 1 / lambda: find the piece, then solve it
        knots = np.unique(
            np.concatenate([(floor / w[:, None])[usable], (level / w)[usable[:, 0] & np.isfinite(level)]])
        )

        def total(s: float) -> float:
            water = np.minimum(level, w * s)[:, None] - floor
            return float(water[water > 0].sum())

        left, right = 0, len(knots) - 1
        if total(knots[-1]) <= common:
            left = right
        while right - left > 1:
            middle = (left + right) // 2
            left, right = (middle, right) if total(knots[middle]) <= common else (left, middle)
        s = float(knots[left])
        # judged inside the piece: at its end rounding could hide who rises
        inside = 0.5 * (s + float(knots[left + 1])) if left + 1 < len(knots) else 2 * s
        rising = (floor < w[:, None] * inside) & (w * inside < level)[:, None]
        slope = float((rising * w[:, None]).sum())
        if slope > 0:
            s += (common - total(s)) / slope
        price = 1 / s if s > 0 else np.inf
        level = np.minimum(level, w * s)
    with np.errstate(divide="ignore"):
        power = np.maximum(level[:, None] - np.where(g > 0, 1 / np.where(g > 0, g, 1.0), np.inf), 0.0)
        own_price = np.where((level > 0) & (own > 0), np.maximum(w / np.maximum(level, 1e-300) - price, 0.0), 0.0)
        lowest = np.where(usable[:, 0], floor[:, 0], np.inf)
        own_price = np.where(own > 0, own_price, np.maximum(w / lowest - price, 0.0))
    rate = np.log1p(g * power).sum(axis=1)
    return WaterFilling(
        power, level, own_price, price, rate, _gap(g, own, w, common, power, own_price, price), "optimal"
    )


def _gap(g: Float, own: Float, w: Float, common: float, power: Float, own_price: Float, price: float) -> float:
    """Dual minus primal: at prices, each cell alone would use [w / price - 1 / g]_+."""
    charge = (own_price + price)[:, None] + np.zeros_like(g)
    with np.errstate(divide="ignore", invalid="ignore"):
        ideal = np.where(g > 0, np.maximum(w[:, None] / charge - 1 / np.where(g > 0, g, 1.0), 0.0), 0.0)
        ideal = np.where(np.isfinite(ideal), ideal, power)
    dual = float((w[:, None] * np.log1p(g * ideal) - charge * ideal).sum())
    dual += float(np.where(own_price > 0, own_price * np.where(np.isfinite(own), own, 0.0), 0.0).sum())
    dual += price * common if 0 < price < np.inf else 0.0
    primal = float((w[:, None] * np.log1p(g * power)).sum())
    return max(0.0, dual - primal) / max(abs(primal), 1e-300) if primal > 0 else 0.0
