r"""Quadratic games with a potential, many side by side: projected Newton on soft limits. Compiled.

With J symmetric the variational equilibrium is the least of :math:`x'Jx/2 + q'x` in the boxes under the limits. A limit
that gives, :math:`A_m x \le b_m + g_m \lambda_m`, is charged :math:`[A_m x - b_m]_+^2 / (2 g_m)`: smooth, and quadratic
where the set of charged limits stays. A step is Newton's, the least of the quadratic model in the boxes, halved until
the cost falls enough; the curvature has a row's square only where that row is charged, so the equations have as many
unknowns as levels, however many limits there are and however nearly parallel they lie. Of many levels those that no
cost and no limit ties to the others are a game of their own, such as those of feeders below one substation. A hard
limit is a soft one whose price leans on the last one's (the method of multipliers): a few rounds take the lean out.

Sources: Bertsekas (1982), "Projected Newton methods for optimization problems with simple constraints"; Rockafellar
(1976) for the multipliers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from games.congestion import Float, Int
from games.lean import LEAN, ROOMY

STEPS = 60  # of Newton's method in one round
ROUNDS = 16  # of the multipliers
LEANING = 1e-5  # of a limit's shadow: how far a hard limit gives in the first round; a tenth of that in each later one
LEAST_LEAN = 1e-8
HALVINGS = 40
PIVOTS, PATIENCE = 16, 4  # a step far from the answer need not be the least: it is cut short where it takes more
ALL_PIVOTS = 10**9
MANY = 16  # levels from which on it is looked for games that have nothing to do with each other
UNKNOWN = 2  # who is held: to be seen from where the levels are
SLOPE = 1e-4  # of the fall that the gradient promises: what a step must bring


def descend_batch(
    jacobian: Float, linear: Float, lower: Float, upper: Float, constraint: Float, limit: Float, give: Float,
    scale: Float, shadow: Float, level: Float, price: Float, good: Callable[[Int, Float, Float], Float],
    tolerance: float, stop: Callable[[], bool],
) -> Float:  # fmt: skip
    """Solve E games; ``level`` (E, K) and ``price`` (E, M) are where to begin and, overwritten, what was found.

    Args:
        jacobian: (E, K, K) symmetric. linear, lower, upper, scale: (E, K). constraint: (E, M, K). limit, give, shadow:
            (E, M). ``scale`` is the cost of a level squared, ``shadow`` what a unit of price moves a limit.
        good: (e, level, price) -> the residual of games ``e``, by which they are done.
        stop: asked between two rounds.

    Returns:
        (E,) residuals of what was found.
    """
    e = len(linear)
    residual = np.full(e, np.inf)
    left = np.arange(e)
    hard, constraint = give <= 0, np.ascontiguousarray(constraint)
    for turn in range(ROUNDS):
        if stop():
            break
        lean = np.where(hard, max(LEANING * 0.1**turn, LEAST_LEAN) * shadow, give)
        held_at = np.where(hard, price, 0.0)
        descend(
            left, jacobian, linear, lower, upper, constraint, limit, 1.0 / lean, held_at, scale, level, price,
            0.01 * tolerance,
        )  # fmt: skip
        residual[left] = good(left, level[left], price[left])
        left = left[~(residual[left] <= tolerance)]
        if not len(left) or not hard[left].any():
            break
    return residual


@njit(**LEAN | {"fastmath": {"reassoc", "contract", "nsz"}})
def dot(a, b, count):
    """Sum of the first ``count`` products, added up in whatever order is fastest."""
    s = 0.0
    for c in range(count):
        s += a[c] * b[c]
    return s


@njit(**ROOMY)
def descend(which, jacobian, linear, lower, upper, constraint, limit, weight, held_at, scale, level, price, tolerance):
    """Newton's method on games ``which``: levels and prices overwritten, each limit charged by its ``weight``."""
    k, m = linear.shape[1], limit.shape[1]
    if k < MANY:
        _descend(0.0, which, jacobian, linear, lower, upper, constraint, limit, weight, held_at, scale, level, price,
                 tolerance)  # fmt: skip
        return
    one, cuts, owner = np.zeros(1, np.int64), np.empty(k + 1, np.int64), np.empty(m, np.int64)
    for e in which:
        parts = _apart(jacobian[e], constraint[e], cuts, owner)
        size = 0.0  # of what moves in the game as a whole: a part that is at rest is not to be solved to nothing
        for d in range(k):
            x, g = level[e, d], linear[e, d] + dot(jacobian[e, d], level[e], k)
            size = max(size, abs(x), abs(x - min(max(x - g / scale[e, d], lower[e, d]), upper[e, d])))
        order = np.argsort(owner, kind="mergesort")  # limits by the part that they are of
        at = np.searchsorted(owner[order], 0)
        for r in order[:at]:  # of nobody
            price[e, r] = max(held_at[e, r] - weight[e, r] * limit[e, r], 0.0)
        for b in range(parts):
            a, z, last = cuts[b], cuts[b + 1], at
            while last < m and owner[order[last]] == b:
                last += 1
            rows, at = order[at:last], last
            mine, p = level[e : e + 1, a:z].copy(), price[e][rows].reshape(1, -1)
            _descend(
                size, one, jacobian[e : e + 1, a:z, a:z].copy(), linear[e : e + 1, a:z].copy(),
                lower[e : e + 1, a:z].copy(), upper[e : e + 1, a:z].copy(),
                constraint[e, :, a:z][rows].copy().reshape(1, len(rows), z - a),
                limit[e][rows].reshape(1, -1), weight[e][rows].reshape(1, -1), held_at[e][rows].reshape(1, -1),
                scale[e : e + 1, a:z].copy(), mine, p, tolerance,
            )  # fmt: skip
            level[e, a:z] = mine[0]
            for i in range(len(rows)):
                price[e, rows[i]] = p[0, i]


@njit(**ROOMY)
def _apart(jacobian, constraint, cuts, owner):
    """Number of parts of consecutive levels that nothing ties to each other; part b is cuts[b] to before cuts[b + 1].
    ``owner`` (M,): whose a limit is, -1 where it is of nobody."""
    k = len(jacobian)
    far = np.arange(1, k + 1)  # before where what is tied to a level, and begins there, ends
    for d in range(k):
        a, z = _span(jacobian[d])
        a = min(a, d)
        far[a] = max(far[a], z)
    for r in range(len(constraint)):
        a, z = _span(constraint[r])
        owner[r] = a if a < z else -1
        if a < z:
            far[a] = max(far[a], z)
    parts, reached = 0, 0
    for d in range(k):
        if d >= reached:
            cuts[parts] = d
            parts += 1
        reached = max(reached, far[d])
    cuts[parts] = k
    for r in range(len(constraint)):
        if owner[r] >= 0:
            owner[r] = np.searchsorted(cuts[:parts], owner[r], side="right") - 1
    return parts


@njit(**LEAN)
def _span(row):
    """Where entries other than 0 begin, and before where they end."""
    a, z = 0, len(row)
    while a < z and row[a] == 0.0:
        a += 1
    while z > a and row[z - 1] == 0.0:
        z -= 1
    return a, z


@njit(**ROOMY)
def _descend(
    least, which, jacobian, linear, lower, upper, constraint, limit, weight, held_at, scale, level, price, tolerance
):
    """:func:`descend` on games as they are; the tolerance is of the levels' size, ``least`` or more."""
    k, m = linear.shape[1], limit.shape[1]
    x, trial, gradient, step = np.empty(k), np.empty(k), np.empty(k), np.empty(k)
    over, over_trial, bent = np.empty(m), np.empty(m), np.empty(k)
    free, held, curve, root, slope = (
        np.empty(k, np.int64),
        np.empty(k, np.int8),
        np.empty((k, k)),
        np.empty((k, k)),
        x * 0.0,
    )
    for e in which:
        J, A, w, low, high = jacobian[e], constraint[e], weight[e], lower[e], upper[e]
        for d in range(k):
            x[d] = min(max(level[e, d], low[d]), high[d])
        for r in range(m):  # by how much a limit is broken, its price of before counted in
            over[r] = held_at[e, r] / w[r] - limit[e, r] + dot(A[r], x, k)
        held[:] = UNKNOWN
        pivots = PIVOTS
        for _ in range(STEPS):
            size = least
            for d in range(k):
                bent[d] = dot(J[d], x, k) + linear[e, d]
                gradient[d] = bent[d]
            for r in range(m):
                if over[r] > 0.0:
                    for d in range(k):
                        gradient[d] += w[r] * over[r] * A[r, d]
            worst = 0.0
            for d in range(k):
                size = max(size, abs(x[d]))
                gap = x[d] - min(max(x[d] - gradient[d] / scale[e, d], low[d]), high[d])
                worst = max(worst, abs(gap))
            if worst <= tolerance * size:
                break
            for d in range(k):
                for c in range(d + 1):
                    curve[d, c] = J[d, c]
                curve[d, d] += 1e-14 * scale[e, d]
            for r in range(m):
                if over[r] > 0.0:
                    for d in range(k):
                        a = w[r] * A[r, d]
                        if a != 0.0:
                            for c in range(d + 1):
                                curve[d, c] += a * A[r, c]
            if not _best_step(curve, gradient, low, high, x, step, free, root, held, slope, pivots):
                break
            # along the step until the cost falls; differences term by term, so that none cancels
            length, moved = 1.0, False
            for _ in range(HALVINGS):
                promised, change, far = 0.0, 0.0, 0.0
                for d in range(k):
                    trial[d] = length * step[d]
                    promised += gradient[d] * trial[d]
                    far = max(far, abs(trial[d]))
                for d in range(k):
                    if trial[d] != 0.0:
                        change += trial[d] * (bent[d] + 0.5 * dot(J[d], trial, k))
                for r in range(m):
                    s = dot(A[r], trial, k)
                    over_trial[r] = over[r] + s
                    if over[r] > 0.0 and over_trial[r] > 0.0:
                        change += w[r] * s * (over[r] + 0.5 * s)
                    elif over_trial[r] > 0.0:
                        change += 0.5 * w[r] * over_trial[r] ** 2
                    elif over[r] > 0.0:
                        change -= 0.5 * w[r] * over[r] ** 2
                if change <= SLOPE * promised and far > 0.0:
                    moved = True
                    break
                length *= 0.5
            if not moved and pivots < ALL_PIVOTS:  # a step cut short that brings nothing: to its end, then
                pivots = ALL_PIVOTS
                continue
            if not moved:
                break
            pivots = PIVOTS
            for d in range(k):
                x[d] = min(max(x[d] + trial[d], low[d]), high[d])
            for r in range(m):
                over[r] = over_trial[r]
        for d in range(k):
            level[e, d] = min(max(x[d], low[d]), high[d])
        for r in range(m):
            price[e, r] = w[r] * max(over[r], 0.0)


@njit(**ROOMY)
def _best_step(curve, gradient, low, high, x, step, free, root, held, slope, pivots):
    """The step that is least on the model, g'u + u'Hu/2 in the boxes, H the lower half of ``curve``; by pivoting.

    All levels that ask for it are held at a bound or let go at once; while no fewer ask than did, the last alone, which
    cannot cycle (Judice and Pires 1994).
    """
    k = len(x)
    if k > 0 and held[0] == UNKNOWN:  # -1 at the lower bound, 1 at the upper, 0 free; otherwise as the last step had it
        for d in range(k):
            held[d] = 0
            if low[d] == high[d] or (x[d] <= low[d] and gradient[d] > 0.0):
                held[d] = -1
            elif x[d] >= high[d] and gradient[d] < 0.0:
                held[d] = 1
    fewest, patience = k + 1, PATIENCE
    for _ in range(min(pivots, 20 + 3 * k)):
        count = 0
        for d in range(k):
            step[d] = (low[d] if held[d] < 0 else high[d]) - x[d] if held[d] != 0 else 0.0
            if held[d] == 0:
                free[count] = d
                count += 1
        for i in range(count):
            d = free[i]
            s = -gradient[d]
            for c in range(k):
                if held[c] != 0:
                    s -= (curve[d, c] if c < d else curve[c, d]) * step[c]
            slope[i] = s
            for j in range(i + 1):
                root[i, j] = curve[d, free[j]]
        if not _solve(root, slope, count):
            return False
        for i in range(count):
            step[free[i]] = slope[i]
        asks, last = 0, -1
        for d in range(k):
            wants = held[d]
            if held[d] == 0:
                wants = -1 if x[d] + step[d] < low[d] else (1 if x[d] + step[d] > high[d] else 0)
            elif low[d] < high[d]:
                s = gradient[d]
                for c in range(k):
                    s += (curve[d, c] if c <= d else curve[c, d]) * step[c]
                if s * held[d] > 0.0:
                    wants = 0
            slope[d] = wants
            if wants != held[d]:
                asks, last = asks + 1, d
        if asks == 0:
            return True
        patience = PATIENCE if asks < fewest else patience - 1
        fewest = min(fewest, asks)
        for d in range(k):
            if patience > 0 or d == last:
                held[d] = int(slope[d])
    for d in range(k):  # cut short, or kept turning by rounding
        step[d] = min(max(x[d] + step[d], low[d]), high[d]) - x[d]
    return True


@njit(**ROOMY)
def _solve(root, right, count):
    """Overwrite ``right`` by the solution of a system whose lower half ``root`` holds, by Cholesky in place."""
    for i in range(count):
        for j in range(i + 1):
            s = root[i, j] - dot(root[i], root[j], j)
            if i > j:
                root[i, j] = s / root[j, j]
            else:
                root[i, i] = np.sqrt(max(s, 1e-14 * root[i, i], 1e-300))
    for i in range(count):
        right[i] = (right[i] - dot(root[i], right, i)) / root[i, i]
    for i in range(count - 1, -1, -1):
        right[i] /= root[i, i]
        if not np.isfinite(right[i]):
            return False
        for c in range(i):
            right[c] -= root[i, c] * right[i]
    return True
