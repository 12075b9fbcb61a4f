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
from numba import njit
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from games.congestion import Float
from games.lean import ROOMY
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
    if d == 1:
        rows, box = np.ascontiguousarray(game.constraint), (game.lower, game.upper)
        _scalar_gains(game.jacobian, game.linear, rows, game.limit, game.give, *box, x, gains)
        return gains
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
            step = _several(hessian, gradient, rows, room)
            gains[i] = max(0.0, -float(gradient @ step + step @ hessian @ step / 2))
    return gains


def _bent_gain(
    hessian: Float, gradient: Float, rows: Float, room: Float, bent: Float, over: Float, give: Float
) -> float:
    """What the best step gains where limits ``bent`` u <= -over give; ``gradient`` has their charges at u = 0."""
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


@njit(**ROOMY)
def _scalar_gains(jacobian, linear, rows, limit, give, lower, upper, x, gains):
    """Fill ``gains`` (N,) where each agent has one level: its cost's slope, which rises with the level piece by piece
    as limits that give come to be broken, is followed from kink to kink to where it is 0, in what hard limits leave."""
    n, m = len(x), len(limit)
    over = np.empty(m)
    for r in range(m):
        s = -limit[r]
        for k in range(n):
            s += rows[r, k] * x[k]
        over[r] = s
    at, bend = np.empty(m), np.empty(m)
    for i in range(n):
        pull = linear[i]
        for k in range(n):
            pull += jacobian[i, k] * x[k]
        a = jacobian[i, i]
        rise = a  # of the slope, as it is at the lower end
        low, high = min(lower[i] - x[i], 0.0), max(upper[i] - x[i], 0.0)
        for r in range(m):
            if give[r] == 0.0 and rows[r, i] != 0.0:
                end = max(-over[r], 0.0) / rows[r, i]
                if rows[r, i] > 0.0:
                    high = min(high, end)
                else:
                    low = max(low, end)
        count = 0
        slope = pull
        for r in range(m):
            if give[r] > 0.0 and rows[r, i] != 0.0:
                slope += rows[r, i] * max(over[r], 0.0) / give[r]
        start = low if np.isfinite(low) else (-1.0 if slope == 0.0 else -abs(slope) / max(a, 1e-300) - 1.0)
        # the slope at the lower end, limits that are broken there included
        slope = pull + a * start
        for r in range(m):
            if give[r] > 0.0 and rows[r, i] != 0.0:
                there = over[r] + rows[r, i] * start
                if there > 0.0:
                    slope += rows[r, i] * there / give[r]
                    rise += rows[r, i] ** 2 / give[r]
                kink = -over[r] / rows[r, i]
                if start < kink < high:
                    at[count] = kink
                    bend[count] = rows[r, i] * abs(rows[r, i]) / give[r]
                    count += 1
        here = start
        if slope < 0.0:
            order = np.argsort(at[:count])
            for k in range(count + 1):
                end = at[order[k]] if k < count else high
                if rise > 0.0 and slope + rise * (end - here) >= 0.0:
                    here -= slope / rise
                    break
                slope += rise * (end - here)
                here = end
                if k < count:
                    rise += bend[order[k]]
        # what it comes to, taken piece by piece so that nothing large is taken from something large
        cost = here * (pull + 0.5 * a * here)
        for r in range(m):
            if give[r] > 0.0:
                before, after = max(over[r], 0.0), max(over[r] + rows[r, i] * here, 0.0)
                cost += 0.5 * (after - before) * (after + before) / give[r]
        gains[i] = max(-cost, 0.0)


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
