r"""Quadratic games with coupled linear limits: the variational generalised Nash equilibrium.

Players own coordinates of x; each minimises a cost that is quadratic in its own part. Stacked, the partial
gradients are :math:`F(x) = J x + q`. Limits :math:`A x \le b` couple the players, boxes bind each coordinate. The
variational equilibrium charges every player the same multiplier for a shared limit: x with

.. math:: (F(x) + A'\lambda)'(z - x) \ge 0 \text{ for all z in the box}, \quad
          0 \le \lambda \perp b - A x \ge 0.

It exists and is found when J + J' is positive semidefinite (the game is monotone), and is unique when it is
positive definite. J need not be symmetric: there need not be a potential.

Solver: operator splitting as in OSQP with the non-symmetric J in the linear system (Douglas-Rachford on a
monotone affine inclusion), one LU for all iterations, and a polish on the limits that bind. Oracle: the quadratic
program whose optimum is 0 exactly at an equilibrium, by cvxpy.

Sources: Rosen (1965), "Existence and uniqueness of equilibrium points for concave n-person games"; Facchinei,
Fischer and Piccialli (2007) for the variational one; Stellato et al. (2020), "OSQP"; Eckstein and Bertsekas (1992).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import lu_factor, lu_solve
from scipy.optimize import linprog

from games.congestion import Float
from games.errors import InvalidGameError


@dataclass(frozen=True)
class VariationalEquilibrium:
    """A point, its prices, and how well they fit.

    Attributes:
        x: (D,) decisions.
        multiplier: (M,) common price of each coupled limit, >= 0.
        residual: KKT residual, from :func:`games.certificate.measure_kkt`.
        iterations: of the splitting.
        converged: whether ``residual`` met the tolerance.
        monotone: smallest eigenvalue of (J + J') / 2.
        shortfall: by how much the limits would have to be relaxed, all alike (0 if they can hold).
        status: "converged", "infeasible", "not monotone ...", or what stopped it.
    """

    x: Float
    multiplier: Float
    residual: float
    iterations: int
    converged: bool
    monotone: float
    shortfall: float
    status: str


@dataclass(frozen=True)
class QuadraticGame:
    """Affine partial gradients, boxes and coupled limits; see the module.

    Args:
        jacobian: (D, D) J: row d is the gradient of the owner's cost in its coordinate d.
        linear: (D,) q.
        lower, upper: (D,) boxes; +-inf for none.
        constraint: (M, D) A; None for no coupled limit.
        limit: (M,) b.

    Raises:
        InvalidGameError: names field, index, value and what is permitted.
    """

    jacobian: Float
    linear: Float
    lower: Float
    upper: Float
    constraint: Float = None  # type: ignore[assignment]
    limit: Float = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        J, q = np.asarray(self.jacobian, dtype=np.float64), np.asarray(self.linear, dtype=np.float64)
        if J.ndim != 2 or J.shape[0] != J.shape[1]:
            raise InvalidGameError(f"jacobian has shape {J.shape}; it is square, (D, D)")
        d = len(J)
        A = np.zeros((0, d)) if self.constraint is None else np.asarray(self.constraint, dtype=np.float64)
        b = np.zeros(0) if self.limit is None else np.asarray(self.limit, dtype=np.float64)
        low, high = (np.broadcast_to(np.asarray(v, dtype=np.float64), (d,)).copy() for v in (self.lower, self.upper))
        if q.shape != (d,):
            raise InvalidGameError(f"linear has shape {q.shape}; jacobian needs ({d},)")
        if A.ndim != 2 or A.shape[1] != d or b.shape != A.shape[:1]:
            raise InvalidGameError(f"constraint has shape {A.shape} and limit {b.shape}; they are (M, {d}), (M,)")
        for name, array, good, rule in (
            ("jacobian", J, np.isfinite(J), "it is finite"),
            ("linear", q, np.isfinite(q), "it is finite"),
            ("constraint", A, np.isfinite(A), "it is finite"),
            ("limit", b, ~np.isnan(b), "it is a number"),
            ("lower", low, ~np.isnan(low), "it is a number"),
            ("upper", high, high >= low, "it is at least the lower bound"),
        ):
            if not good.all():
                at = tuple(int(v) for v in np.argwhere(~good)[0])
                raise InvalidGameError(f"{name}[{', '.join(map(str, at))}] = {array[at]}; {rule}")
        for name, array in (
            ("jacobian", J), ("linear", q), ("lower", low), ("upper", high), ("constraint", A), ("limit", b),
        ):  # fmt: skip
            object.__setattr__(self, name, array)

    def gradient(self, x: ArrayLike) -> Float:
        """(D,) each coordinate's owner's partial gradient there."""
        return np.asarray(self.jacobian @ np.asarray(x, dtype=np.float64) + self.linear)

    def monotonicity(self) -> float:
        """Smallest eigenvalue of (J + J') / 2: >= 0 monotone, > 0 strongly, so the equilibrium is unique."""
        if not len(self.jacobian):
            return 0.0
        return float(np.linalg.eigvalsh((self.jacobian + self.jacobian.T) / 2)[0])


def variational_equilibrium(
    game: QuadraticGame,
    start: ArrayLike | None = None,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 20_000,
) -> VariationalEquilibrium:
    """Equilibrium with common multipliers by operator splitting.

    Args:
        game: D coordinates, M coupled limits.
        start: (D,) to warm-start from.
        tolerance: of the KKT residual.
        max_iterations: of the splitting.
    """
    from games.certificate import measure_kkt

    J, q, A = game.jacobian, game.linear, game.constraint
    d, m = len(J), len(A)
    monotone = game.monotonicity()
    if d == 0:
        return VariationalEquilibrium(np.zeros(0), np.zeros(m), 0.0, 0, True, 0.0, 0.0, "converged")
    rows = np.append(A, np.eye(d), axis=0)
    low = np.append(np.full(m, -np.inf), game.lower)
    high = np.append(game.limit, game.upper)
    x = np.zeros(d) if start is None else np.array(start, dtype=np.float64)
    z, y = np.clip(rows @ x, low, high), np.zeros(m + d)
    size = float(np.linalg.norm(J, 2)) or 1.0
    # scale of the penalty: the game's curvature against that of the limits
    rho = size / max(float(np.linalg.norm(rows, 2)) ** 2, 1e-300)
    sigma = 1e-6 * size
    factor = lu_factor(J + sigma * np.eye(d) + rho * rows.T @ rows)
    best_x, best_y, best = x, np.zeros(m), np.inf
    k = 0
    for k in range(1, max_iterations + 1):
        x_new = lu_solve(factor, sigma * x - q + rows.T @ (rho * z - y))
        z_mid = 1.6 * (rows @ x_new) + (1 - 1.6) * z
        z_new = np.clip(z_mid + y / rho, low, high)
        y = y + rho * (z_mid - z_new)
        x, z = x_new, z_new
        if k % 25 == 0 or k == 10 or k == max_iterations:
            for candidate, price in (_polish(game, x, y), (np.clip(x, game.lower, game.upper), y[:m])):
                price = np.maximum(price, 0)
                residual = measure_kkt(game, candidate, price)
                if residual < best:
                    best_x, best_y, best = candidate, price, residual
            if best <= tolerance:
                break
            # balance the two residuals, seldom, since it costs a factorisation
            if k % 200 == 0:
                primal = float(np.abs(rows @ x - z).max()) / max(float(np.abs(z).max()), 1e-12)
                pull = J @ x + q + rows.T @ y
                dual = float(np.abs(pull).max()) / max(float(np.abs(q).max()), float(np.abs(J @ x).max()), 1e-12)
                ratio = np.sqrt(max(primal, 1e-12) / max(dual, 1e-12))
                if ratio > 5 or ratio < 0.2:
                    rho *= float(np.clip(ratio, 0.1, 10))
                    factor = lu_factor(J + sigma * np.eye(d) + rho * rows.T @ rows)
    done = bool(best <= tolerance)
    short = 0.0 if done else _shortfall(game)
    if done:
        status = "converged"
    elif short > 1e-9:
        status = "infeasible"
    elif monotone < -1e-9 * size:
        status = f"not monotone (smallest eigenvalue {monotone:.3g}); residual {best:.1e}"
    else:
        status = f"stopped after {max_iterations} iterations, residual {best:.1e}"
    return VariationalEquilibrium(best_x, best_y, float(best), k, done, monotone, short, status)


def _polish(game: QuadraticGame, x: Float, y: Float) -> tuple[Float, Float]:
    """Solve the equations of the limits and bounds that seem to bind."""
    m = len(game.constraint)
    tight = y[:m] > 1e-9 * max(1.0, float(np.abs(y).max()))
    at_low = (y[m:] < 0) & np.isfinite(game.lower) & (x - game.lower < 1e-2 * (1 + np.abs(game.lower)))
    at_high = (y[m:] > 0) & np.isfinite(game.upper) & (game.upper - x < 1e-2 * (1 + np.abs(game.upper)))
    free = ~(at_low | at_high)
    fixed = np.where(at_low, game.lower, np.where(at_high, game.upper, 0.0))
    B = game.constraint[tight][:, free]
    f, t = int(free.sum()), int(tight.sum())
    system = np.zeros((f + t, f + t))
    system[:f, :f] = game.jacobian[np.ix_(free, free)]
    system[:f, f:], system[f:, :f] = B.T, B
    right = np.concatenate([
        -game.linear[free] - game.jacobian[free] @ fixed, game.limit[tight] - game.constraint[tight] @ fixed
    ])  # fmt: skip
    try:
        solved = np.linalg.solve(system, right)
    except np.linalg.LinAlgError:  # limits that bind twice: any of their multipliers will do
        solved = np.linalg.lstsq(system, right, rcond=None)[0]
    out, price = fixed.copy(), np.zeros(m)
    out[free] = solved[:f]
    price[tight] = solved[f:]
    return np.clip(out, game.lower, game.upper), price


def _shortfall(game: QuadraticGame) -> float:
    """Least t >= 0 such that A x <= b + t has a point in the box; 0 if feasible."""
    d, m = len(game.linear), len(game.limit)
    if m == 0:
        return 0.0
    keep = np.isfinite(game.limit)
    answer = linprog(
        np.append(np.zeros(d), 1.0),
        np.append(game.constraint[keep], -np.ones((int(keep.sum()), 1)), axis=1),
        game.limit[keep],
        bounds=[*zip(game.lower, game.upper, strict=True), (0, None)],
        method="highs",
    )
    return float(answer.x[-1]) if answer.x is not None else np.inf


def reference_equilibrium(game: QuadraticGame) -> tuple[Float, Float]:
    """Oracle by cvxpy: minimise the gap x'(Jx + q) + b'lambda + box terms, which is 0 at an equilibrium.

    Returns x (D,) and multipliers (M,). Needs J + J' positive semidefinite.
    """
    import cvxpy as cp

    d, m = len(game.linear), len(game.limit)
    x, price = cp.Variable(d), cp.Variable(m, nonneg=True)
    low, high = np.isfinite(game.lower), np.isfinite(game.upper)
    under, over = cp.Variable(d, nonneg=True), cp.Variable(d, nonneg=True)
    half = (game.jacobian + game.jacobian.T) / 2
    stationary = game.jacobian @ x + game.linear - under + over
    if m:
        stationary = stationary + game.constraint.T @ price
    rules = [stationary == 0, cp.multiply(~low, under) == 0, cp.multiply(~high, over) == 0]
    rules += [x[low] >= game.lower[low], x[high] <= game.upper[high]]
    gap = cp.quad_form(x, cp.psd_wrap(half)) + game.linear @ x
    gap += np.where(high, game.upper, 0) @ over - np.where(low, game.lower, 0) @ under
    if m:
        rules.append(game.constraint @ x <= game.limit)
        gap += game.limit @ price
    problem = cp.Problem(cp.Minimize(gap), rules)
    problem.solve(solver=cp.CLARABEL)
    return np.asarray(x.value), np.asarray(price.value) if m else np.zeros(0)
