r"""Eisenberg-Gale for many agents and few resources: Newton on softened prices.

At capacities 1 the market's dual is K-dimensional: with q = log p, minimise
:math:`\sum_k e^{q_k} + \sum_i w_i \max_k (\log a_{ik} - q_k)`. The maximum is softened at temperature t to
:math:`t \log \sum_k \exp((\log a_{ik} - q_k) / t)`, so that agent i spends the softmax share of its budget on
each resource. The softened dual is smooth and convex, its Hessian is K x K and is summed over the agents in
one pass, and at its minimum each resource takes in exactly its price. Only agents within about t of a tie
lose, and they about t each, so the gap is of order t^2 for many agents; t is halved or more until the
measured gap is small enough. N agents cost N K exponentials a step, and nothing of size N K is stored but
the shares.

Source: the softened dual is the entropic smoothing of Nesterov (2005), "Smooth minimization of non-smooth
functions"; the market's dual is in Cole et al. (2017), "Convex program duality, Fisher markets, and Nash
social welfare".
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from games.congestion import Float
from games.lean import KEPT


def smooth_newton(unit: Float, money: Float, tolerance: float, most: int) -> tuple[Float, Float, int]:
    """Shares (N, K), prices (K,) that sum to 1, and Newton steps; capacities 1, budgets that sum to 1."""
    n, k = unit.shape
    log_value = np.log(unit, out=np.full(unit.shape, -1e30), where=unit > 0)
    q = np.log(np.maximum((money[:, None] * unit / unit.sum(axis=1, keepdims=True)).sum(axis=0), 1e-12))
    chunks = max(1, min(4 * get_num_threads(), n // 1000))
    steps, temperature = 0, 0.3
    dual, spent, spread, lost = _sums(log_value, money, q, temperature, chunks)
    while steps < most:
        price = np.exp(q)
        slope = price - spent
        # price errors enter the gap squared, so coarse temperatures need no precision
        if np.abs(slope).sum() <= (0.05 * np.sqrt(tolerance) if lost <= 0.5 * tolerance else 0.02):
            if lost <= 0.5 * tolerance:
                break
            temperature *= 0.2
            dual, spent, spread, lost = _sums(log_value, money, q, temperature, chunks)
            slope = price - spent
        hessian = np.diag(price) + (np.diag(spent) - spread) / temperature
        hessian[np.diag_indices(k)] += 1e-13 * np.trace(hessian)
        step = -np.linalg.solve(hessian, slope)
        drop = float(slope @ step)
        size = min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        while True:
            steps += 1
            sums = _sums(log_value, money, q + size * step, temperature, chunks)
            if sums[0] <= dual + 1e-4 * size * drop + 1e-14 or size < 1e-6 or steps >= most:
                break
            size *= 0.5
        q = q + size * step
        dual, spent, spread, lost = sums
        if temperature < 1e-9:
            break
    share = np.empty((n, k))
    _spend(log_value, money, q, temperature, share)
    total = share.sum(axis=0)
    return share / np.maximum(total, 1e-300), total / total.sum(), steps


@njit(**KEPT, parallel=True)
def _sums(
    log_value: Float, money: Float, q: Float, temperature: float, chunks: int
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], float]:
    """Softened dual, money spent (K,), sum_i w s s' (K, K), and the weighted mean of log(best / got)."""
    n, k = log_value.shape
    scalars = np.zeros((chunks, 2))
    spent = np.zeros((chunks, k))
    spread = np.zeros((chunks, k, k))
    for chunk in prange(chunks):
        first, last = chunk * n // chunks, (chunk + 1) * n // chunks
        _part(log_value, money, q, temperature, first, last, scalars[chunk], spent[chunk], spread[chunk])
    total = scalars.sum(axis=0)
    return total[0] + np.exp(q).sum(), spent.sum(axis=0), spread.sum(axis=0), total[1]


@njit(**KEPT, fastmath={"nsz", "contract", "reassoc", "arcp"}, error_model="numpy")
def _part(log_value, money, q, temperature, first, last, scalars, spent, spread):
    k = len(q)
    s = np.empty(k)
    own = np.zeros(k)
    cross = np.zeros((k, k))
    dual = 0.0
    lost = 0.0
    for i in range(first, last):
        top = -np.inf
        for r in range(k):
            s[r] = log_value[i, r] - q[r]
            top = s[r] if s[r] > top else top
        total = 0.0
        got = 0.0
        for r in range(k):
            z = (s[r] - top) / temperature
            if z > -40.0:
                e = np.exp(z)
                got += e * np.exp(s[r] - top)
                s[r] = e
                total += e
            else:
                s[r] = 0.0
        w = money[i]
        dual += w * (top + temperature * np.log(total))
        lost += w * np.log(total / got)
        for r in range(k):
            if s[r] > 0.0:
                p = w * s[r] / total
                own[r] += p
                for c in range(k):
                    cross[r, c] += p * s[c] / total
    scalars[0] = dual
    scalars[1] = lost
    spent[:] = own
    spread[:] = cross


@njit(**KEPT, parallel=True, error_model="numpy")
def _spend(log_value, money, q, temperature, out):
    for i in prange(len(out)):
        top = -np.inf
        for r in range(len(q)):
            top = max(top, log_value[i, r] - q[r])
        total = 0.0
        for r in range(len(q)):
            z = (log_value[i, r] - q[r] - top) / temperature
            out[i, r] = np.exp(z) if z > -40.0 else 0.0
            total += out[i, r]
        for r in range(len(q)):
            out[i, r] *= money[i] / total
