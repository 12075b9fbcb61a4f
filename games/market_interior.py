r"""Eisenberg-Gale by a primal-dual interior point that exploits its structure. Compiled.

Capacities 1, budgets that sum to 1. With slacks s, reduced costs z and :math:`y_i = w_i / u_i`, solve

.. math:: \sum_i x_{ik} + s_k = 1,\quad z_{ik} = p_k - y_i a_{ik},\quad y_i u_i = w_i,\quad
          x_{ik} z_{ik} = \mu,\quad s_k p_k = \mu

by Mehrotra's predictor and corrector as mu goes to 0. Agents are coupled only through the K resources, so a
step costs one K x K Cholesky of  diag - V'V  and a few passes over N x K. Entries with a = 0 are left out of
the barrier (they are 0). It starts from a rough proportional response. The guard: where the corrector would
allow only a short step, a plain centring step is taken instead; where factorisation or progress fails, the
last iterate is handed back and the caller's certificate decides.

Sources: Mehrotra (1992), "On the implementation of a primal-dual interior point method"; Ye (2008), "A path
to the Arrow-Debreu competitive market equilibrium", for the problem.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.congestion import Float
from games.lean import KEPT
from games.market_response import certify, proportional_response

FAST = {"nsz", "contract", "reassoc", "arcp"}


def interior_point(unit: Float, money: Float, tolerance: float, most: int) -> tuple[Float, Float, int]:
    """Shares (N, K) that sell every resource, prices (K,) that sum to 1, and Newton steps."""
    x, p, _ = proportional_response(unit, money, 0.05, 60)
    a, x = np.ascontiguousarray(unit), np.ascontiguousarray(x)
    best = (np.inf, x, p)
    steps, goal = 0, 0.5 * tolerance
    while steps < most:
        y, q, used, ok = _path(a, money, best[1], best[2], goal, most - steps)
        steps += used
        y = np.where(a > 0, np.maximum(y, 0.0), 0.0)
        total = y.sum(axis=0)
        if not (np.isfinite(y).all() and np.isfinite(q).all() and (total > 0).all() and (q > 0).all()):
            break
        y, q = np.ascontiguousarray(y / total), q / q.sum()
        gap = certify(a, money, y, q)
        if gap < best[0]:
            best = (gap, y, q)
        if gap <= tolerance or not ok:
            break
        goal *= 0.1
    return best[1], best[2], steps


@njit(**KEPT, fastmath=FAST, error_model="numpy")
def _path(a, w, start, prices, goal, most):
    n, k = a.shape
    x = np.zeros((n, k))
    z = np.zeros((n, k))
    p = prices / prices.sum()
    s = np.empty(k)
    y = np.empty(n)
    u = np.empty(n)
    useful = 0
    for i in range(n):
        for r in range(k):
            if a[i, r] > 0.0:
                useful += 1
    rough = 0.2 / useful
    count = useful + k
    # inside: a fifth of every resource spread evenly
    wanted = np.zeros(k)
    for i in range(n):
        for r in range(k):
            if a[i, r] > 0.0:
                wanted[r] += 1.0
    for r in range(k):
        p[r] = max(p[r], 1e-9)
        s[r] = 1.0
    for i in range(n):
        u[i] = 0.0
        for r in range(k):
            if a[i, r] > 0.0:
                x[i, r] = 0.999 * (0.8 * start[i, r] + 0.2 / wanted[r])
                u[i] += a[i, r] * x[i, r]
                s[r] -= x[i, r]
        y[i] = w[i] / u[i]
        for r in range(k):
            if a[i, r] > 0.0:
                z[i, r] = max(p[r] - y[i] * a[i, r], rough / x[i, r], 1e-3 * p[r])
    for r in range(k):
        s[r] = max(s[r], rough / p[r])
    D = np.zeros((n, k))
    V = np.zeros((n, k))
    t = np.zeros((n, k))
    dx = np.zeros((n, k))
    dz = np.zeros((n, k))
    du = np.zeros(n)
    dy = np.zeros(n)
    for step in range(most):
        # one pass: residuals, complementarity, and the reduced system
        diagonal = s / p
        sold = s.copy()
        gap = 0.0
        worst = 0.0
        for r in range(k):
            gap += s[r] * p[r]
        for i in range(n):
            utility = 0.0
            den = 0.0
            for r in range(k):
                if a[i, r] > 0.0:
                    d = x[i, r] / z[i, r]
                    D[i, r] = d
                    sold[r] += x[i, r]
                    diagonal[r] += d
                    utility += a[i, r] * x[i, r]
                    v = a[i, r] * d
                    V[i, r] = v
                    den += v * a[i, r]
                    gap += x[i, r] * z[i, r]
            u[i] = utility
            f = 1.0 / np.sqrt(den + utility / y[i])
            for r in range(k):
                V[i, r] *= f
            e = abs(utility * y[i] / w[i] - 1.0)
            worst = e if e > worst else worst
        for r in range(k):
            e = abs(sold[r] - 1.0)
            worst = e if e > worst else worst
        mu = gap / count
        if not gap < 1e300:
            return x, p, step, False
        if gap <= goal and worst <= np.sqrt(goal):
            return x, p, step, True
        S = np.dot(V.T, V)
        for r in range(k):
            for c in range(k):
                S[r, c] = -S[r, c]
            S[r, r] += diagonal[r] * (1.0 + 1e-14)
        _cholesky(S)
        # predictor
        dp, ds, size = _direction(a, w, x, z, s, p, y, u, D, V, t, dx, dz, du, dy, sold, S, 0.0, np.bool_(False))
        ahead = 0.0
        for r in range(k):
            ahead += (s[r] + size * ds[r]) * (p[r] + size * dp[r])
        for i in range(n):
            for r in range(k):
                ahead += (x[i, r] + size * dx[i, r]) * (z[i, r] + size * dz[i, r])
        ratio = min(1.0, max(ahead / gap, 1e-4))
        centre = mu * ratio**3
        for r in range(k):
            t[0, r] = dp[r] * ds[r]
        dp, ds, size = _direction(a, w, x, z, s, p, y, u, D, V, t, dx, dz, du, dy, sold, S, centre, np.bool_(True))
        size *= 0.99
        if size < 0.1:
            # the corrector misled: centre instead
            dx[:] = 0.0
            dz[:] = 0.0
            du[:] = 0.0
            dy[:] = 0.0
            t[0, :] = 0.0
            dp, ds, size = _direction(
                a, w, x, z, s, p, y, u, D, V, t, dx, dz, du, dy, sold, S, 0.5 * mu, np.bool_(True)
            )
            size *= 0.99
        size = min(size, 1.0)
        if size < 1e-9:
            return x, p, step + 1, False
        for i in range(n):
            y[i] += size * dy[i]
            for r in range(k):
                x[i, r] += size * dx[i, r]
                z[i, r] += size * dz[i, r]
        for r in range(k):
            s[r] += size * ds[r]
            p[r] += size * dp[r]
    return x, p, most, False


@njit(**KEPT, fastmath=FAST, error_model="numpy")
def _direction(a, w, x, z, s, p, y, u, D, V, t, dx, dz, du, dy, sold, S, centre, second):
    """Newton direction with x z -> centre; ``second`` uses the last direction's second-order terms.

    On entry row 0 of ``t`` holds dp ds of the predictor. Returns dp, ds and the longest step that stays
    inside; dx, dz, du, dy are overwritten.
    """
    n, k = a.shape
    cs = np.empty(k)
    right = np.empty(k)
    for r in range(k):
        cs[r] = centre - s[r] * p[r] - (t[0, r] if second else 0.0)
        right[r] = (sold[r] - 1.0) + cs[r] / p[r]
    for i in range(n):
        cu = (w[i] - u[i] * y[i] - (du[i] * dy[i] if second else 0.0)) / u[i]
        dot = 0.0
        for r in range(k):
            inverse = 1.0 / x[i, r] if a[i, r] > 0.0 else 0.0
            c = centre - dx[i, r] * dz[i, r] if second else centre
            # -rd + cx / x + a cu / u, where -z cancels between -rd and cx / x
            rho = y[i] * a[i, r] - p[r] + c * inverse + cu * a[i, r]
            t[i, r] = rho
            dot += V[i, r] * rho
        for r in range(k):
            v = D[i, r] * t[i, r] - V[i, r] * dot
            t[i, r] = v
            right[r] += v
    dp = _solve(S, right)
    limit = 0.0  # largest of -direction / value
    for i in range(n):
        cu = w[i] - u[i] * y[i] - (du[i] * dy[i] if second else 0.0)
        dot = 0.0
        for r in range(k):
            dot += V[i, r] * dp[r]
        gained = 0.0
        for r in range(k):
            useful = a[i, r] > 0.0
            inverse = 1.0 / x[i, r] if useful else 0.0
            c = centre - dx[i, r] * dz[i, r] if second else centre
            v = t[i, r] - D[i, r] * dp[r] + V[i, r] * dot
            q = (c - z[i, r] * v) * inverse - z[i, r]
            dx[i, r] = v
            dz[i, r] = q
            gained += a[i, r] * v
            e = -v * inverse
            limit = e if e > limit else limit
            e = -q / z[i, r] if useful else 0.0
            limit = e if e > limit else limit
        du[i] = gained
        dy[i] = (cu - y[i] * gained) / u[i]
        limit = max(limit, -gained / u[i], -dy[i] / y[i])
    ds = np.empty(k)
    for r in range(k):
        ds[r] = (cs[r] - s[r] * dp[r]) / p[r]
        limit = max(limit, -ds[r] / s[r], -dp[r] / p[r])
    return dp, ds, 1.0 / max(limit, 1e-3)


@njit(**KEPT, fastmath={"nsz", "contract", "reassoc"}, error_model="numpy")
def _cholesky(S):
    """Lower factor in place; a pivot lost to rounding is made huge, which holds that price still."""
    k = len(S)
    largest = 0.0
    for r in range(k):
        largest = max(largest, S[r, r])
    for c in range(k):
        for r in range(c, k):
            total = S[r, c]
            for j in range(c):
                total -= S[r, j] * S[c, j]
            S[r, c] = total
        pivot = S[c, c]
        if not pivot > 1e-16 * largest * 1e-14:
            pivot = 1e64
        root = np.sqrt(pivot)
        S[c, c] = root
        for r in range(c + 1, k):
            S[r, c] /= root


@njit(**KEPT, fastmath={"nsz", "contract", "reassoc"}, error_model="numpy")
def _solve(L, right):
    out = right.copy()
    k = len(out)
    for r in range(k):
        total = out[r]
        for c in range(r):
            total -= L[r, c] * out[c]
        out[r] = total / L[r, r]
    for r in range(k - 1, -1, -1):
        total = out[r]
        for c in range(r + 1, k):
            total -= L[c, r] * out[c]
        out[r] = total / L[r, r]
    return out
