r"""What no plan can beat: the reactive optimal power flow's convex relaxation, with how tight it is.

Branch flow with :math:`l_k v_k = P_k^2 + Q_k^2` relaxed to a second-order cone: its optimum is a lower bound of the
loss of any plan that keeps all voltages in their band, and where the cones are tight it is attained. By cvxpy, compiled
once for a feeder: about 20 ms a step.

Source: Farivar and Low (2013), "Branch flow model: relaxations and convexification".
"""

from __future__ import annotations

from typing import NamedTuple

import cvxpy as cp
import numpy as np

from games.congestion import Float
from hybridalloc.problems.voltage.feeder import Feeder


class Bound(NamedTuple):
    """Least objective (MW: loss and wear), its loss (MW), set-points (N,), and the cones' worst slack, relative; NaN
    and an empty plan where even the relaxation has no solution."""

    objective: float
    loss: float
    level: Float
    slack: float


class Relaxation:
    """The relaxed optimal power flow of a feeder of lines.

    Args:
        net: a feeder without charging and taps. low, high: p.u. wear: MW a Mvar squared.

    Raises:
        ValueError: a feeder with shunts or transformers, for which it is not stated here.
    """

    def __init__(self, net: Feeder, low: float, high: float, wear: float = 1e-4) -> None:
        if not net.plain:
            raise ValueError(f"the relaxation is stated for feeders of lines; {net.name} has shunts or transformers")
        n, m = net.size, len(net.inverter)
        self.net, self.wear = net, wear
        self.load, self.reactive = cp.Parameter(n), cp.Parameter(n)
        self.most = cp.Parameter(m, nonneg=True)
        self.level = cp.Variable(m)
        self.p, self.q, self.current, self.square = (cp.Variable(n) for _ in range(4))  # sent into a branch; squares
        child, at = np.zeros((n, n)), np.zeros((n, m))
        child[net.parent[1:], np.arange(1, n)] = 1.0
        at[net.inverter, np.arange(m)] = 1.0
        r, x, up = net.r[1:], net.x[1:], self.square[net.parent[1:]]
        lost, held = cp.multiply(r, self.current[1:]), cp.multiply(x, self.current[1:])
        rules = [
            self.square[0] == net.slack**2, self.square[1:] <= high**2, self.square[1:] >= low**2,
            cp.abs(self.level) <= self.most, self.p[0] == 0, self.q[0] == 0, self.current[0] == 0,
            self.p[1:] - lost == self.load[1:] + child[1:] @ self.p,
            self.q[1:] - held == self.reactive[1:] - at[1:] @ self.level + child[1:] @ self.q,
            self.square[1:] == up - 2 * (cp.multiply(r, self.p[1:]) + cp.multiply(x, self.q[1:]))
            + cp.multiply(r**2 + x**2, self.current[1:]),
            cp.SOC(self.current[1:] + up, cp.vstack([2 * self.p[1:], 2 * self.q[1:], self.current[1:] - up]), axis=0),
        ]  # fmt: skip
        self.loss = net.r @ self.current
        self.problem = cp.Problem(cp.Minimize(self.loss + wear * cp.sum_squares(self.level)), rules)

    def solve(self, load_mw: Float, load_mvar: Float, sun: Float, most: Float) -> Bound:
        """The bound for net loads (B,) without the inverters, their sun and room (N,)."""
        p = load_mw.copy()
        np.subtract.at(p, self.net.inverter, sun)
        self.load.value, self.reactive.value, self.most.value = p, load_mvar, np.maximum(most, 0.0)
        self.problem.solve(solver=cp.CLARABEL)
        if self.level.value is None:
            return Bound(np.nan, np.nan, np.zeros(0), np.nan)
        p, q, current, square = (np.asarray(part.value) for part in (self.p, self.q, self.current, self.square))
        sent = p[1:] ** 2 + q[1:] ** 2
        product = current[1:] * square[self.net.parent[1:]]
        slack = float(np.max((product - sent) / (1e-6 + sent), initial=0.0))
        return Bound(float(self.problem.value), float(self.loss.value), np.asarray(self.level.value), slack)
