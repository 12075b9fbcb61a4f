r"""What each agent gains by leaving joint levels of a quadratic game alone; shares nothing with the solvers.

Agent i's cost in its own levels y, the others' fixed, is :math:`y' H y / 2 + c' y` with H its own block of J and c the
rest of its gradient; y may be anything in its boxes with :math:`A_i y \le b - A_{-i} x_{-i}`, what the others leave of
the shared limits; what breaks a limit that gives adds :math:`[A_m x - b_m]_+^2 / (2 g_m)`. With one level that is an
interval, on which the slope rises piece by piece: the best reply is where it crosses zero, or an end. With several it
is a least-distance problem, :math:`z = L' y + L^{-1} c` for :math:`H = L L'`, which one run of non-negative least
squares answers; a limit that gives has its excess as one more unknown.

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
    slack, soft = game.limit - game.constraint @ x, game.give > 0
    over, slack = -slack[soft], slack[~soft]
    hard, bent, give = game.constraint[~soft], game.constraint[soft], game.give[soft]
    held_at = game.limit[~soft]
    reach = np.abs(hard) @ np.abs(x) + np.where(np.isfinite(held_at), np.abs(held_at), 0.0)
    size = np.maximum(np.abs(x), 1.0)
    if (slack < -1e-7 * (1 + reach)).any() or (np.maximum(game.lower - x, x - game.upper) > 1e-7 * size).any():
        return np.full(agents, np.inf)
    slack = np.maximum(slack, 0.0)
    charge = np.maximum(over, 0.0) / give
    pull = game.jacobian @ x + game.linear + bent.T @ charge
    for i in range(agents):
        own = slice(i * d, (i + 1) * d)
        hessian, gradient = game.jacobian[own, own], pull[own]
        rows = np.concatenate([hard[:, own], np.eye(d), -np.eye(d)])
        room = np.concatenate([
            slack, np.maximum(game.upper[own] - x[own], 0.0), np.maximum(x[own] - game.lower[own], 0.0)
        ])  # fmt: skip
        held = np.isfinite(room) & (np.abs(rows).max(axis=1) > 0)
        rows, room = rows[held], room[held]
        near = np.isfinite(over) & (np.abs(bent[:, own]).max(axis=1, initial=0.0) > 0)
        if near.any():
            gains[i] = _bent_gain(hessian, gradient, rows, room, bent[near, own], over[near], give[near])
        else:
            step = (_scalar if d == 1 else _several)(hessian, gradient, rows, room)
            gains[i] = max(0.0, -float(gradient @ step + step @ hessian @ step / 2))
    return gains


def _bent_gain(
    hessian: Float, gradient: Float, rows: Float, room: Float, bent: Float, over: Float, give: Float
) -> float:
    """What the best step gains where limits ``bent`` u <= -over give; ``gradient`` has their charges at u = 0."""
    if len(gradient) == 1:
        u = float(_crossing(float(hessian[0, 0]), float(gradient[0]), rows, room, bent[:, 0], over, give))
        broken, before = np.maximum(over + bent[:, 0] * u, 0.0), np.maximum(over, 0.0)
        # the excess less what the gradient says of it already, so that nothing large is taken from something large
        more = ((broken - before) * (broken + before) / 2 - before * bent[:, 0] * u) / give
        return max(0.0, -float(gradient[0] * u + hessian[0, 0] * u**2 / 2 + more.sum()))
    d, m = len(gradient), len(give)
    # unknowns u and f, the rise of each excess e: u'Hu/2 + f'f/(2g) + e0'f/g, with bent u - f <= e0 - over, f >= -e0
    start = np.maximum(over, 0.0)
    whole = np.zeros((d + m, d + m))
    whole[:d, :d], whole[d:, d:] = hessian, np.diag(1 / give)
    slope = np.concatenate([gradient - bent.T @ (start / give), start / give])
    wide = np.concatenate([
        np.concatenate([rows, np.zeros((len(rows), m))], axis=1), np.concatenate([bent, -np.eye(m)], axis=1),
        np.concatenate([np.zeros((m, d)), -np.eye(m)], axis=1),
    ])  # fmt: skip
    step = _several(whole, slope, wide, np.concatenate([room, start - over, start]))
    return max(0.0, -float(slope @ step + step @ whole @ step / 2))


def _crossing(a: float, g: float, rows: Float, room: Float, bent: Float, over: Float, give: Float) -> float:
    """Where the slope g + a u + sum of what charges add, which rises with u, is 0 between the ends that are left."""
    with np.errstate(divide="ignore"):
        ends = room / rows[:, 0]
    high = float(ends[rows[:, 0] > 0].min(initial=np.inf))
    low = float(ends[rows[:, 0] < 0].max(initial=-np.inf))
    before = np.maximum(over, 0.0)

    def slope(u: float) -> float:
        return g + a * u + float((bent * (np.maximum(over + bent * u, 0.0) - before) / give).sum())

    kinks = -over / bent
    kinks = np.sort(kinks[(kinks > low) & (kinks < high)])
    first, last = 0, len(kinks)  # of the kinks, the first with a slope of 0 or more lies from first to last
    while first < last:
        k = (first + last) // 2
        first, last = (first, k) if slope(float(kinks[k])) >= 0 else (k + 1, last)
    left = float(kinks[first - 1]) if first else low
    right = float(kinks[first]) if first < len(kinks) else high
    middle = (left + right) / 2 if np.isfinite(left + right) else (right - 1.0 if np.isfinite(right) else left + 1.0)
    middle = middle if np.isfinite(middle) else 0.0
    rise = a + float((bent**2 / give)[over + bent * middle > 0].sum())
    if rise <= 0:
        return min(max(left if slope(middle) > 0 else right, low), high) if slope(middle) else 0.0
    return min(max(middle - slope(middle) / rise, left), right)


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
