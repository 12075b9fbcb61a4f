r"""Gavel's policies: what part of its time each job should spend on each kind of GPU, by linear programs.

x_ij is the part of the time that job i, a gang of g_i GPUs, runs on kind j:

.. math:: \sum_j x_{ij} \le 1, \qquad \sum_i g_i x_{ij} \le N_j, \qquad thr_i(x) = \sum_j T_{ij} x_{ij}

- *max-min* (least attained service): the least of thr_i g_i over what it has with an equal part of everything;
- *makespan*: the largest of what is left over thr_i;
- *finish-time fairness*: the largest of (time since arrival + what is left / thr_i) over the time that job i takes with
  a part of the cluster of its own. For a ratio r a job needs thr_i >= left_i / (r own_i - age_i), so each r is a
  max-min program, and the least r for which it is 1 is found by bisection on its logarithm.

Source: Narayanan et al. (2020), sections 4.1 to 4.3; Mahajan et al. (2020), "Themis", NSDI, for finish-time fairness.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from games.congestion import Float, Int

LOW, HIGH, STEPS = 0.01, 100.0, 12  # of the fairness ratio


def max_min(speed: Float, gang: Int, pools: Int) -> tuple[Float, float]:
    """Shares (n, W) that raise the least of sum_j speed_ij x_ij, and that least; speed (n, W) in any unit."""
    n, w = speed.shape
    i, j = np.repeat(np.arange(n), w), np.tile(np.arange(w), n)
    column, last = np.arange(n * w), n * w
    rows = np.r_[i, np.arange(n), n + j, n + w + i]
    columns = np.r_[column, np.full(n, last), column, column]
    value = np.r_[-speed.ravel(), np.ones(n), np.repeat(gang, w).astype(float), np.ones(n * w)]
    table = coo_matrix((value, (rows, columns)), shape=(2 * n + w, n * w + 1)).tocsr()
    aim = np.zeros(n * w + 1)
    aim[-1] = -1.0
    limit = np.r_[np.zeros(n), np.asarray(pools, float), np.ones(n)]
    upper = np.r_[np.where(speed.ravel() > 0, 1.0, 0.0), np.inf]
    found = linprog(aim, A_ub=table, b_ub=limit, bounds=np.stack([np.zeros(len(upper)), upper], 1), method="highs")
    return np.clip(found.x[:-1], 0, 1).reshape(n, w), float(found.x[-1])


def least_attained(speed: Float, gang: Int, pools: Int) -> Float:
    """(n, W) by max-min fairness: of what each job has, GPUs included, against an equal part of the cluster."""
    equal = (speed * (pools / pools.sum())).sum(1)
    return max_min(speed / equal[:, None] * gang[:, None], gang, pools)[0]


def makespan(speed: Float, gang: Int, pools: Int, left: Float) -> Float:
    """(n, W) such that all are done soonest; left (n,) in steps."""
    share = speed / left[:, None]
    return max_min(share / share.max(), gang, pools)[0]


def finish_time(speed: Float, gang: Int, pools: Int, left: Float, age_s: Float, own_s: Float) -> Float:
    """(n, W) with the least largest finish-time ratio. age_s: (n,) since arrival; own_s: (n,) alone on its part."""
    low, high, best = LOW, HIGH, None
    for _ in range(STEPS):
        ratio = np.sqrt(low * high)
        need = ratio * own_s - age_s
        if (need <= 0).any():
            low = ratio
            continue
        found, least = max_min(speed * (need / left)[:, None], gang, pools)
        if least >= 1.0:
            high, best = ratio, found
        else:
            low = ratio
    return max_min(speed * (own_s / left)[:, None], gang, pools)[0] if best is None else best


def own_part(speed: Float, gang: Int, pools: Int, sharers: float) -> Float:
    """(n,) steps a second of each job on a part of the cluster of its own: of every kind 1 / ``sharers``."""
    part = np.asarray(pools, float)[None] / sharers / gang[:, None]
    part /= np.maximum(part.sum(1, keepdims=True), 1.0)
    return np.asarray((speed * part).sum(1))
