r"""The certificate's own reading of a plan: ratings from their definition, and a power flow of its own.

The flow is Baran and Wu's DistFlow in powers and squared voltages, real numbers all: of the branch to bus k, with P, Q
sent into it, l its squared current and u the squared voltage at its upper end,

.. math:: v_k^2 = u - 2 (r P + x Q) + (r^2 + x^2) l, \quad
          l = (P_k^2 + Q_k^2) / v_k^2, \quad P = P_k + r l, \quad Q = Q_k + x l

It shares no line with the sweeps in complex voltages and currents by which plans are made.

Source: Baran and Wu (1989), "Optimal sizing of capacitors placed on a radial distribution system".
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.certificate import CapacityCheck
from games.congestion import Float
from games.lean import ROOMY
from hybridalloc.problems.voltage.feeder import Feeder, Tree
from hybridalloc.problems.voltage.state import VoltageState

ROUNDING = 1e-9
STILL = 1e-11  # of squared voltages, p.u.
TURNS = 300
GRID = 400  # values of an inverter's reactive power that its best deviation is looked for among


def check(net: Feeder, state: VoltageState, level: Float) -> CapacityCheck:
    """Whether each inverter can feed in ``level`` (N,) Mvar beside its sun, and the readings then have a flow."""
    if level.shape != state.sun_mw.shape:
        return CapacityCheck(np.inf, (f"reactive_mvar has shape {level.shape}; inverters: {state.agents}",))
    lines = []
    apparent = np.hypot(state.sun_mw, level) / state.rating_mva - 1.0
    apparent = np.where(~state.active & (level != 0), np.inf, apparent)
    apparent = np.where(np.isfinite(level), apparent, np.inf)
    for i in np.flatnonzero(apparent > ROUNDING):
        lines.append(
            f"rating: inverter {i} feeds in {level[i]:g} Mvar beside {state.sun_mw[i]:g} MW, its rating is "
            f"{state.rating_mva[i]:g} MVA{'' if state.active[i] else ' and it is down'}"
        )
    worst = float(apparent.max(initial=-1.0))
    if not lines and distflow(net, state.sun_mw, state.load_mw, state.load_mvar, level) is None:
        return CapacityCheck(np.inf, ("flow: the readings have no power flow with these set-points",))
    return CapacityCheck(worst, tuple(lines))


def distflow(net: Feeder, sun: Float, load_mw: Float, load_mvar: Float, level: Float) -> tuple[Float, float] | None:
    """Voltages (B,) p.u. and loss, MW, with these net loads (B,), sun and set-points (N,); None without a flow."""
    p, q, v = load_mw.copy(), load_mvar.copy(), np.empty(net.size)
    np.subtract.at(p, net.inverter, sun)
    np.subtract.at(q, net.inverter, level)
    sent = _distflow(net.tree(), p, q, v)
    return None if np.isnan(sent) else (np.sqrt(v), float(sent - p.sum()))


@njit(**ROOMY)
def _distflow(tree: Tree, p: Float, q: Float, v: Float) -> float:
    """Fill squared voltages; MW sent from the substation, NaN without a flow."""
    n = len(p)
    sent_p, sent_q, current = np.empty(n), np.empty(n), np.zeros(n)
    v[:] = tree.slack * tree.slack
    for k in range(1, n):
        v[k] = v[tree.parent[k]] / (tree.tap_r[k] ** 2 + tree.tap_i[k] ** 2)
    for _ in range(TURNS):
        for k in range(n):
            sent_p[k] = p[k] + tree.shunt_g[k] * v[k]
            sent_q[k] = q[k] - tree.shunt_b[k] * v[k]
        for k in range(n - 1, 0, -1):
            up = tree.parent[k]
            upper = v[up] / (tree.tap_r[k] ** 2 + tree.tap_i[k] ** 2)
            current[k] = (sent_p[k] ** 2 + sent_q[k] ** 2) / v[k]
            sent_p[k] += tree.r[k] * current[k]
            sent_q[k] += tree.x[k] * current[k]
            sent_p[up] += sent_p[k] + tree.up_g[k] * upper
            sent_q[up] += sent_q[k] - tree.up_b[k] * upper
        worst = 0.0
        for k in range(1, n):
            upper = v[tree.parent[k]] / (tree.tap_r[k] ** 2 + tree.tap_i[k] ** 2)
            z = tree.r[k] ** 2 + tree.x[k] ** 2
            now = upper - 2.0 * (tree.r[k] * sent_p[k] + tree.x[k] * sent_q[k]) + z * current[k]
            if not now > 1e-6:
                return np.nan
            worst = max(worst, abs(now - v[k]))
            v[k] = now
        if worst < STILL:
            return sent_p[0]
    return np.nan


def exact_gains(
    net: Feeder, state: VoltageState, level: Float, low: Float, high: Float, toll: float, wear: float, breach: float
) -> Float:
    """(N,) kW that each inverter gains by its best set-point alone, on the exact flow of the readings, the others'
    held: what linearising the game may have left. Among ``GRID`` values and those about the best of them.

    Args:
        low, high: (B,) the band a plan is to stay in, p.u. toll, wear (kW a Mvar squared), breach (kW a mpu squared):
            of the prices.
    """
    path = np.zeros((len(level), net.size))
    for i, bus in enumerate(net.inverter):
        k = int(bus)
        while k:
            path[i, k] = 1.0
            k = int(net.parent[k])
    own = path @ net.r

    def cost(trial: Float) -> float:
        found = distflow(net, state.sun_mw, state.load_mw, state.load_mvar, trial)
        if found is None:
            return float("inf")
        over = 1e3 * np.maximum(np.maximum(found[0] - high, low - found[0]), 0.0)[1:]
        mine = (1e3 * (1 - toll) / 2 * own + wear) @ trial**2
        return float((1 + toll) / 2 * 1e3 * found[1] + mine + breach / 2 * (over**2).sum())

    here, gains = cost(level), np.zeros(len(level))
    most = np.where(state.active, np.sqrt(np.maximum(state.rating_mva**2 - state.sun_mw**2, 0.0)), 0.0)
    for i in range(len(level)):
        middle, width, best = 0.0, float(most[i]), here
        for _ in range(3):
            for value in np.linspace(max(middle - width, -most[i]), min(middle + width, most[i]), GRID // 3):
                trial = level.copy()
                trial[i] = value
                now = cost(trial)
                if now < best:
                    best, middle = now, float(value)
            width *= 6.0 / GRID
        gains[i] = here - best
    return gains
