r"""Exact AC flow on a radial feeder by backward and forward sweeps, many at once. Compiled.

Per branch from the parent p to k, with the current J drawn at k, the shunt y' at its upper end and the ratio t there:

.. math:: v_k = v_p / t - z J_k, \quad
          J_k = \overline{S_k / v_k} + y_k v_k + \sum_{children} (J_c + y'_c v_k / t_c) / \bar t_c

Backward the currents are summed from the leaves up at given voltages, forward the voltages follow from the substation
down, until they stay. Where no voltage solves it, or the sweeps do not contract, that is said and no number is given.

Source: Shirmohammadi et al. (1988), "A compensation-based power flow method for weakly meshed distribution and
transmission networks".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Bool, Float, Int
from games.lean import LEAN, ROOMY
from hybridalloc.problems.voltage.feeder import Feeder, Tree

TOLERANCE = 1e-11  # p.u., of the last sweep's change
SWEEPS = 300


class Flow(NamedTuple):
    """Of E flows: voltage (E, B) p.u. and loss (E,) MW, NaN where there is none; sweeps (E,); found (E,)."""

    voltage: Float
    loss: Float
    sweeps: Int
    found: Bool


def flows(feeder: Feeder, load_mw: Float, load_mvar: Float, tolerance: float = TOLERANCE) -> Flow:
    """Solve E flows.

    Args:
        load_mw, load_mvar: (E, B) net consumption at each bus, what is fed in counted off.
    """
    p, q = (np.ascontiguousarray(a, np.float64) for a in (load_mw, load_mvar))
    voltage, loss, sweeps = np.empty(p.shape), np.empty(len(p)), np.empty(len(p), np.int64)
    sweep_many(feeder.tree(), p, q, tolerance, voltage, loss, sweeps)
    return Flow(voltage, loss, sweeps, sweeps > 0)


@njit(**ROOMY)
def sweep_many(tree, p, q, tolerance, voltage, loss, sweeps):
    work = np.empty((4, p.shape[1]))
    for e in range(len(p)):
        work[0] = tree.slack
        work[1] = 0.0
        sweeps[e] = sweep(tree, p[e], q[e], tolerance, work)
        if sweeps[e] < 0:
            voltage[e] = np.nan
            loss[e] = np.nan
        else:
            loss[e] = magnitudes(tree, work, voltage[e])


@njit(**LEAN)
def sweep(tree: Tree, p: Float, q: Float, tolerance: float, work: Float) -> int:
    """Sweeps until the voltages stay, -1 where they do not. ``work`` (4, B): real and imaginary voltage, to begin from
    and found, and current drawn at each bus."""
    parent, r, x, shunt_g, shunt_b, up_g, up_b, tap_r, tap_i, slack, plain = tree  # in full: a copy of each is cheaper
    n = len(parent)
    vr, vi, jr, ji = work[0], work[1], work[2], work[3]
    vr[0], vi[0] = slack, 0.0
    for turn in range(SWEEPS):
        for k in range(n):
            size = vr[k] * vr[k] + vi[k] * vi[k]
            jr[k] = (p[k] * vr[k] + q[k] * vi[k]) / size
            ji[k] = (p[k] * vi[k] - q[k] * vr[k]) / size
        if plain:
            for k in range(n - 1, 0, -1):
                jr[parent[k]] += jr[k]
                ji[parent[k]] += ji[k]
        else:
            for k in range(n):
                jr[k] += shunt_g[k] * vr[k] - shunt_b[k] * vi[k]
                ji[k] += shunt_g[k] * vi[k] + shunt_b[k] * vr[k]
            for k in range(n - 1, 0, -1):
                j = parent[k]
                size = tap_r[k] * tap_r[k] + tap_i[k] * tap_i[k]
                ur = (vr[j] * tap_r[k] + vi[j] * tap_i[k]) / size  # v / t
                ui = (vi[j] * tap_r[k] - vr[j] * tap_i[k]) / size
                a = jr[k] + up_g[k] * ur - up_b[k] * ui
                b = ji[k] + up_g[k] * ui + up_b[k] * ur
                jr[j] += (a * tap_r[k] - b * tap_i[k]) / size  # over the conjugate of t
                ji[j] += (a * tap_i[k] + b * tap_r[k]) / size
        worst = 0.0
        for k in range(1, n):
            j = parent[k]
            ur, ui = vr[j], vi[j]
            if not plain:
                size = tap_r[k] * tap_r[k] + tap_i[k] * tap_i[k]
                ur = (vr[j] * tap_r[k] + vi[j] * tap_i[k]) / size
                ui = (vi[j] * tap_r[k] - vr[j] * tap_i[k]) / size
            a = ur - (r[k] * jr[k] - x[k] * ji[k])
            b = ui - (r[k] * ji[k] + x[k] * jr[k])
            worst = max(worst, abs(a - vr[k]) + abs(b - vi[k]))
            vr[k], vi[k] = a, b
        if worst < tolerance:
            return turn + 1
        if not worst < 10.0:
            return -1
    return -1


@njit(**LEAN)
def magnitudes(tree: Tree, work: Float, voltage: Float) -> float:
    """Fill (B,) magnitudes and return the loss, MW: in series resistance and in shunts."""
    parent, r, shunt_g, up_g, tap_r, tap_i, plain = (
        tree.parent, tree.r, tree.shunt_g, tree.up_g, tree.tap_r, tree.tap_i, tree.plain
    )  # fmt: skip
    vr, vi, jr, ji = work[0], work[1], work[2], work[3]
    loss = 0.0
    for k in range(len(parent)):
        size = vr[k] * vr[k] + vi[k] * vi[k]
        voltage[k] = np.sqrt(size)
        if k:
            loss += r[k] * (jr[k] * jr[k] + ji[k] * ji[k])
        if not plain:
            loss += shunt_g[k] * size
            j = parent[k]
            ratio = tap_r[k] * tap_r[k] + tap_i[k] * tap_i[k]
            loss += up_g[k] * (vr[j] * vr[j] + vi[j] * vi[j]) / ratio
    return loss
