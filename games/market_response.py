"""Proportional response: each agent splits its budget as its utility came in. Compiled.

Capacities 1, budgets that sum to 1. It ends on the gap of :func:`certify`, as every method of :mod:`games.market` does.

Sources: Zhang (2011), "Proportional response dynamics in the Fisher market"; Birnbaum, Devanur and Xiao (2011),
"Distributed algorithms via gradient descent for Fisher markets" (it is mirror descent).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.congestion import Float
from games.lean import KEPT


def proportional_response(
    unit: Float, money: Float, tolerance: float, most: int, start: Float | None = None
) -> tuple[Float, Float, int]:
    """Zhang's dynamics for capacities 1 and budgets that sum to 1: (shares (N, K), prices (K,), sweeps)."""
    spend = money[:, None] * unit / unit.sum(axis=1, keepdims=True)
    if start is not None:
        # a little of everything useful keeps the dynamics free to move
        warm = unit * start
        total = warm.sum(axis=1, keepdims=True)
        share = np.divide(warm, total, out=np.zeros_like(warm), where=total > 0)
        spend = (1 - 1e-3) * money[:, None] * share + (1e-3 + (1 - 1e-3) * (total <= 0)) * spend
        spend *= money[:, None] / spend.sum(axis=1, keepdims=True)
    price = np.empty(unit.shape[1])
    before = np.empty_like(spend)
    sweeps = _respond(unit, money, spend, before, price, tolerance, most)
    return before / np.maximum(price, 1e-300), price, sweeps


@njit(**KEPT, fastmath={"nsz", "contract", "reassoc", "arcp"}, error_model="numpy")
def _respond(unit, money, spend, before, price, tolerance, most):
    n, k = unit.shape
    inverse = np.empty(k)
    gain = np.empty(k)
    for sweep in range(most):
        price[:] = 0.0
        for i in range(n):
            for r in range(k):
                price[r] += spend[i, r]
        for r in range(k):
            inverse[r] = 1.0 / max(price[r], 1e-300)
        check = sweep % 10 == 0 or sweep == most - 1
        gap = 0.0
        if check:
            before[:] = spend
        for i in range(n):
            utility = 0.0
            best = 0.0
            for r in range(k):
                v = unit[i, r] * inverse[r]
                best = v if v > best else best
                gain[r] = v * spend[i, r]
                utility += gain[r]
            f = money[i] / utility
            for r in range(k):
                spend[i, r] = gain[r] * f
            if check:
                gap += money[i] * np.log(best * f)
        if check and gap <= tolerance:
            return sweep + 1
    return most


def certify(unit: Float, money: Float, x: Float, p: Float) -> float:
    """Gap of shares x (N, K) and prices p (K,) at capacities and total budget 1; inf if infeasible."""
    if not (np.isfinite(x).all() and np.isfinite(p).all() and (x >= 0).all() and (p >= 0).all()):
        return np.inf
    if (x.sum(axis=0) > 1 + 1e-9).any() or abs(p.sum() - 1) > 1e-9:
        return np.inf
    utility = (unit * x).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.where(unit > 0, unit / p, 0.0).max(axis=1)
        return float((money * np.log(money * best / utility)).sum())
