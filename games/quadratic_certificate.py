r"""What each agent gains by leaving joint levels of a quadratic game alone; shares nothing with the solvers.

Agent i's cost in its own levels y, the others' fixed, is :math:`y' H y / 2 + c' y` with H its own block of J and c the
rest of its gradient; y may be anything in its boxes with :math:`A_i y \le b - A_{-i} x_{-i}`, what the others leave of
the shared limits. With one level that is an interval and the best reply is a clip. With several it is a least-distance
problem, :math:`z = L' y + L^{-1} c` for :math:`H = L L'`, which one run of non-negative least squares answers.

Source: Lawson and Hanson (1974), "Solving least squares problems", chapter 23 (problem LDP).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from games.congestion import Float
from games.quadratic import QuadraticGame

FLAT = 1e-9  # of the largest curvature: levels that are less curved are taken to be so much


def quadratic_gains(game: QuadraticGame, agents: int, level: ArrayLike) -> Float:
    """(N,) what each agent gains, in cost, by its best deviation that boxes and limits allow; inf where ``level``
    itself breaks one by more than rounding, so that nothing can be said.

    Args:
        game: coordinate i D + d is agent i's level d. agents: N. level: (N, D).
    """
    x = np.asarray(level, float).ravel()
    d = len(x) // max(agents, 1)
    gains = np.zeros(agents)
    if not len(x):
        return gains
    if not np.isfinite(x).all():
        return np.full(agents, np.inf)
    slack = game.limit - game.constraint @ x
    reach = np.abs(game.constraint) @ np.abs(x) + np.where(np.isfinite(game.limit), np.abs(game.limit), 0.0)
    size = np.maximum(np.abs(x), 1.0)
    if (slack < -1e-7 * (1 + reach)).any() or (np.maximum(game.lower - x, x - game.upper) > 1e-7 * size).any():
        return np.full(agents, np.inf)
    slack = np.maximum(slack, 0.0)
    pull = game.jacobian @ x + game.linear
    for i in range(agents):
        own = slice(i * d, (i + 1) * d)
        hessian, gradient = game.jacobian[own, own], pull[own]
        rows = np.concatenate([game.constraint[:, own], np.eye(d), -np.eye(d)])
        room = np.concatenate([
            slack, np.maximum(game.upper[own] - x[own], 0.0), np.maximum(x[own] - game.lower[own], 0.0)
        ])  # fmt: skip
        held = np.isfinite(room) & (np.abs(rows).max(axis=1) > 0)
        step = (_scalar if d == 1 else _several)(hessian, gradient, rows[held], room[held])
        gains[i] = max(-float(gradient @ step + step @ hessian @ step / 2), 0.0)
    return gains


def _scalar(hessian: Float, gradient: Float, rows: Float, room: Float) -> Float:
    """The best step of one level: the cost's own, clipped to the interval that is left; where it is flat, an end."""
    with np.errstate(divide="ignore"):
        ends = room / rows[:, 0]
    high = float(ends[rows[:, 0] > 0].min(initial=np.inf))
    low = float(ends[rows[:, 0] < 0].max(initial=-np.inf))
    a, g = float(hessian[0, 0]), float(gradient[0])
    if g == 0:
        return np.zeros(1)
    wanted = -g / a if a > 0 else -np.inf * g
    return np.array([min(max(wanted, low), high)])


def _several(hessian: Float, gradient: Float, rows: Float, room: Float) -> Float:
    """The best step of several: argmin g'u + u'Hu/2 over rows u <= room (room >= 0, so u = 0 is allowed)."""
    ridge = FLAT * max(float(np.abs(hessian).max()), float(np.abs(gradient).max()), 1e-300)
    lower = np.linalg.cholesky((hessian + hessian.T) / 2 + ridge * np.eye(len(gradient)))
    centre = np.linalg.solve(lower, gradient)
    # rows u <= room with u = L'^-1 (z - centre): G z >= h
    turned = -np.linalg.solve(lower, rows.T).T
    bound = -room + turned @ centre
    length = np.linalg.norm(turned, axis=1)
    turned, bound = turned / length[:, None], bound / length
    unit = max(float(np.linalg.norm(centre)), float(np.abs(bound).max(initial=0.0))) or 1.0
    dual = nnls(np.concatenate([turned.T, bound[None] / unit]), np.append(np.zeros(len(centre)), 1.0))[0]
    left = np.append(turned.T @ dual, bound @ dual / unit - 1.0)
    z = -left[:-1] / left[-1] * unit if left[-1] < 0 else centre
    step = np.linalg.solve(lower.T, z - centre)
    used, size = rows @ step, np.abs(rows).sum(axis=1) * np.abs(step).max()
    over = used > room + 1e-9 * size
    if over.any():  # what the program could not keep of a limit is taken back
        step = step * float((room[over] / used[over]).min())
    return np.asarray(step)
