r"""Quadratic games with coupled linear limits: the variational generalised Nash equilibrium.

Players own coordinates of x; each minimises a cost that is quadratic in its own part. Stacked, the partial
gradients are :math:`F(x) = J x + q`. Limits :math:`A x \le b` couple the players, boxes bind each coordinate. The
variational equilibrium charges every player the same multiplier for a shared limit: x with

.. math:: (F(x) + A'\lambda)'(z - x) \ge 0 \text{ for all z in the box}, \quad
          0 \le \lambda \perp b + G \lambda - A x \ge 0.

A limit is hard (G = 0) or gives: it may be broken, and all pay :math:`[A_m x - b_m]_+^2 / (2 g_m)` for it.

It exists and is found when J + J' is positive semidefinite (the game is monotone), and is unique when it is
positive definite. J need not be symmetric: there need not be a potential.

Solver: a game with a potential (J symmetric) by projected Newton on soft limits (:mod:`games.quadratic_newton`); any
other, and what that leaves unsolved, by operator splitting as in OSQP with the non-symmetric J in the linear system
(Douglas-Rachford on a monotone affine inclusion), one LU for all iterations, and a polish on the limits that bind. Both
work on the game in units of its own, each coordinate's, each limit's and the costs', which the equilibrium does not
depend on: with x = D z the gradients are :math:`D J D z + D q`. Oracle: the quadratic program whose optimum is 0
exactly at an equilibrium, by cvxpy.

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
from games.errors import InvalidGameError, floats, shaped
from games.extras import required
from games.quadratic_newton import descend_batch

Units = tuple[Float, Float, float]


@dataclass(frozen=True)
class VariationalEquilibrium:
    """A point, its prices, and how well they fit.

    Attributes:
        x: (D,) decisions.
        multiplier: (M,) common price of each coupled limit, >= 0.
        residual: KKT residual, each condition relative to what is compared in it: see :func:`misfit`.
        iterations: of the splitting, 0 where Newton's method did.
        converged: whether ``residual`` met the tolerance.
        monotone: smallest eigenvalue of (J + J') / 2.
        shortfall: by how much the limits would have to be relaxed, all alike, in their unit (0 if they can hold).
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
        give: (M,) g >= 0, by how much a unit of its price moves a limit; 0, the default, holds it.

    Raises:
        InvalidGameError: names field, index, value and what is permitted.
    """

    jacobian: Float
    linear: Float
    lower: Float
    upper: Float
    constraint: Float = None  # type: ignore[assignment]
    limit: Float = None  # type: ignore[assignment]
    give: Float = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        J, q = floats("jacobian", self.jacobian), floats("linear", self.linear)
        if J.ndim != 2 or J.shape[0] != J.shape[1]:
            raise InvalidGameError(f"jacobian has shape {J.shape}; it is square, (D, D)")
        d = len(J)
        A = np.zeros((0, d)) if self.constraint is None else floats("constraint", self.constraint)
        b = np.zeros(0) if self.limit is None else floats("limit", self.limit)
        g = np.zeros(b.shape) if self.give is None else floats("give", self.give)
        low, high = (floats(*pair) for pair in (("lower", self.lower), ("upper", self.upper)))
        for name, array in (("lower", low), ("upper", high)):
            if array.shape not in ((), (1,), (d,)):
                raise InvalidGameError(f"{name} has shape {array.shape}; jacobian needs one number or ({d},)")
        low, high = np.broadcast_to(low, (d,)).copy(), np.broadcast_to(high, (d,)).copy()
        if q.shape != (d,):
            raise InvalidGameError(f"linear has shape {q.shape}; jacobian needs ({d},)")
        if A.ndim != 2 or A.shape[1] != d or b.shape != A.shape[:1]:
            raise InvalidGameError(f"constraint has shape {A.shape} and limit {b.shape}; they are (M, {d}), (M,)")
        if g.shape != b.shape:
            raise InvalidGameError(f"give has shape {g.shape}; limit needs {b.shape}")
        for name, array, good, rule in (
            ("give", g, np.isfinite(g) & (g >= 0), "it is finite and >= 0"),
            ("jacobian", J, np.isfinite(J), "it is finite"),
            ("linear", q, np.isfinite(q), "it is finite"),
            ("constraint", A, np.isfinite(A), "it is finite"),
            ("limit", b, b > -np.inf, "it is a number, inf for none"),
            ("lower", low, low < np.inf, "it is a number, -inf for none"),
            ("upper", high, (high >= low) & (high > -np.inf), "it is at least the lower bound"),
        ):
            if not good.all():
                at = tuple(int(v) for v in np.argwhere(~good)[0])
                raise InvalidGameError(f"{name}[{', '.join(map(str, at))}] = {array[at]}; {rule}")
        for name, array in (
            ("jacobian", J), ("linear", q), ("lower", low), ("upper", high), ("constraint", A), ("limit", b),
            ("give", g),
        ):  # fmt: skip
            object.__setattr__(self, name, array)

    def gradient(self, x: ArrayLike) -> Float:
        """(D,) each coordinate's owner's partial gradient there."""
        return np.asarray(self.jacobian @ floats("x", x) + self.linear)

    def monotonicity(self) -> float:
        """Smallest eigenvalue of (J + J') / 2: >= 0 monotone, > 0 strongly, so the equilibrium is unique."""
        if not len(self.jacobian):
            return 0.0
        return float(np.linalg.eigvalsh(self.jacobian / 2 + self.jacobian.T / 2)[0])


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

    Raises:
        InvalidGameError: a start of a wrong shape or not finite.
    """
    d, m = len(game.jacobian), len(game.constraint)
    monotone = game.monotonicity()
    if d == 0:
        short = max(0.0, -float(game.limit.min(initial=0.0)))
        status = "infeasible" if short else "converged"
        return VariationalEquilibrium(np.zeros(0), np.zeros(m), 0.0, 0, not short, 0.0, short, status)
    given, (unit, rows, cost) = game, _units(game)
    begin = np.zeros(d) if start is None else shaped("start", start, (d,))
    game = QuadraticGame(
        given.jacobian * unit[:, None] * unit / cost, given.linear * unit / cost, given.lower / unit,
        given.upper / unit, given.constraint * unit / rows[:, None], given.limit / rows, given.give * cost / rows**2,
    )  # fmt: skip
    x, y, residual, k = *_descend(game, begin / unit, tolerance), 0
    short = _shortfall(game, rows) if tolerance < residual < np.inf else 0.0  # then no solver has anything to find
    if residual > tolerance and not short:
        other = _split(game, begin / unit, tolerance, max_iterations)
        x, y, residual, k = other if other[2] < residual else (x, y, residual, other[3])
        short = 0.0 if residual <= tolerance else _shortfall(game, rows)
    done = bool(residual <= tolerance)
    size = float(np.linalg.norm(given.jacobian, 2))
    if done:
        status = "converged"
    elif short > 0:
        status = "infeasible"
    elif monotone < -1e-9 * size:
        status = f"not monotone (smallest eigenvalue {monotone:.3g}); residual {residual:.1e}"
    else:
        status = f"stopped after {max_iterations} iterations, residual {residual:.1e}"
    price = y * cost / rows
    point = np.clip(x * unit, given.lower, given.upper)
    return VariationalEquilibrium(point, price, residual, k, done, monotone, short, status)


def misfit(game: QuadraticGame, x: Float, price: Float, units: Units | None = None) -> float:
    """KKT residual of x (D,) and multipliers (M,) in which no unit plays a part; inf where they are not finite.

    The largest of: a limit broken, relative to the size of its terms; price times slack, the smaller of both relative
    to sizes; a gradient with prices that points where its coordinate could still go, relative to the gradient's
    terms, or the room that is left, relative to the box, or to the coordinate where that is open. A sum's terms count
    for no less than a millionth of the largest in the units of :func:`_units`.
    """
    if not (np.isfinite(x).all() and np.isfinite(price).all()):
        return np.inf
    J, A = game.jacobian, game.constraint
    unit, rows, cost = units or _units(game)
    pull = J @ x + game.linear + A.T @ price
    terms = np.abs(J) @ np.abs(x) + np.abs(game.linear) + np.abs(A).T @ np.abs(price)
    terms = np.maximum(terms, 1e-6 * max(float((terms * unit).max()), cost) / unit)
    width = game.upper - game.lower
    steps = np.maximum(np.abs(x), unit)
    steps = np.where(np.isfinite(width) & (width > 0), np.minimum(width, steps), steps)
    below, above = (x - game.lower) / steps, (game.upper - x) / steps
    room = np.where(pull > 0, below, above)
    worst = float(np.maximum(np.minimum(np.abs(pull) / terms, np.maximum(room, 0.0)), -np.minimum(below, above)).max())
    if len(price):
        slack = game.limit + game.give * price - A @ x
        held = np.isfinite(game.limit)
        size = np.where(held, np.abs(game.limit), 0.0) + np.abs(A) @ np.abs(x)
        size = np.maximum(size, 1e-6 * rows)
        dear = np.abs(price) * rows / max(float((terms * unit).max()), cost)
        worst = max(worst, float((-slack / size).max()), float((-price * rows / cost).max()))
        worst = max(worst, float(np.where(held, np.minimum(dear, np.abs(slack) / size), dear).max()))
    return worst


def _units(game: QuadraticGame) -> Units:
    """Of each coordinate (D,), of each limit (M,), and of cost, all > 0, that make the terms about 1."""
    J, q, A = np.abs(game.jacobian), np.abs(game.linear), game.constraint
    d = len(q)
    # even out J's rows and columns alike (Ruiz 2001), in logs, which hold any unit
    with np.errstate(divide="ignore"):
        log_j = np.log(np.maximum(J, J.T))
        log_q = np.log(q)
    log = np.zeros(d)
    bare = ~np.isfinite(log_j.max(axis=1))
    for _ in range(20):
        top = (log_j + log[:, None] + log).max(axis=1)
        log -= 0.5 * np.where(bare, 0.0, top)
    width = game.upper - game.lower
    ends = np.stack([np.abs(v) for v in (game.lower, game.upper)])
    reach = np.where(np.isfinite(ends), ends, 0.0).max(axis=0)
    reach = np.where(np.isfinite(width) & (width > 0), width, reach)
    # a cost without curvature gives its coordinate no unit: the box does
    log = np.where(bare, np.log(np.where(reach > 0, reach, 1.0)), log)
    # how far the gradients push: J z ~ q in these units; without a push, how far boxes and limits reach
    far = float((log_q + log)[~bare].max(initial=-np.inf))
    if not np.isfinite(far):
        spans = np.log(reach[(reach > 0) & ~bare]) - log[(reach > 0) & ~bare]
        far = float(spans.max(initial=-np.inf))
    if not np.isfinite(far) and len(A):
        scale = (np.abs(A) * np.exp(log)).max(axis=1, initial=0.0)
        good = (scale > 0) & np.isfinite(game.limit) & (game.limit != 0)
        far = float((np.log(np.abs(game.limit[good])) - np.log(scale[good])).max(initial=-np.inf))
    far = far if np.isfinite(far) else 0.0
    unit = np.exp(np.clip(np.where(bare, log, log + far), -700, 700))
    cost = max(float((J * unit[:, None] * unit).max(initial=0.0)), float((q * unit).max(initial=0.0)))
    rows = (np.abs(A) * unit).max(axis=1, initial=0.0)
    return unit, np.where(rows > 0, rows, 1.0), cost if cost > 0 else 1.0


def _descend(game: QuadraticGame, x: Float, tolerance: float) -> tuple[Float, Float, float]:
    """Projected Newton, where there is a potential: x (D,), multipliers (M,) and residual, inf where there is none."""
    J, level, price = game.jacobian, np.clip(x, game.lower, game.upper)[None], np.zeros((1, len(game.limit)))
    top = np.abs(J).max(axis=1)
    if not symmetric(J):
        return level[0], price[0], np.inf
    scale = np.where(J.diagonal() > 0, J.diagonal(), np.where(top > 0, top, 1.0))
    shadow = (game.constraint**2 / scale).sum(axis=1)
    shadow = np.where(shadow > 0, shadow, 1.0)
    units, one = _units(game), lambda array: np.ascontiguousarray(array)[None]
    good = lambda _, x, y: np.array([misfit(game, x[0], y[0], units)])
    residual = descend_batch(
        one(J), one(game.linear), one(game.lower), one(game.upper), one(game.constraint), one(game.limit),
        one(game.give), one(scale), one(shadow), level, price, good, tolerance, lambda: False,
    )  # fmt: skip
    return level[0], price[0], float(residual[0])


def symmetric(jacobian: Float) -> bool:
    """Whether there is a potential."""
    return bool(np.abs(jacobian - jacobian.T).max(initial=0.0) <= 1e-12 * np.abs(jacobian).max(initial=0.0))


def _split(game: QuadraticGame, x: Float, tolerance: float, max_iterations: int) -> tuple[Float, Float, float, int]:
    """Operator splitting: x (D,), multipliers (M,), residual and iterations."""
    J, q, A = game.jacobian, game.linear, game.constraint
    d, m = len(J), len(A)
    units = _units(game)
    rows = np.append(A, np.eye(d), axis=0)
    low = np.append(np.full(m, -np.inf), game.lower)
    high = np.append(game.limit, game.upper)
    give = np.append(game.give, np.zeros(d))
    soft = give > 0
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
        if not np.isfinite(x_new).all():  # only where the game is not monotone
            break
        z_mid = 1.6 * (rows @ x_new) + (1 - 1.6) * z
        wish = z_mid + y / rho
        z_new = np.clip(wish, low, high)
        if soft.any():  # what breaks a limit that gives is pulled back, and the farther the less it gives
            over = soft & (wish > high)
            z_new[over] = (rho * give[over] * wish[over] + high[over]) / (rho * give[over] + 1.0)
        y = y + rho * (z_mid - z_new)
        x, z = x_new, z_new
        if k % 25 == 0 or k == 10 or k == max_iterations:
            for candidate, price in (_polish(game, x, y), (np.clip(x, game.lower, game.upper), y[:m])):
                price = np.maximum(price, 0)
                residual = misfit(game, candidate, price, units)
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
    return best_x, best_y, float(best), k


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
    system[f:, f:] = -np.diag(game.give[tight])
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


def _shortfall(game: QuadraticGame, rows: Float) -> float:
    """Least t >= 0 such that rows (A x) <= rows b + t has a point in the box; 0 if feasible, but for rounding."""
    d = len(game.linear)
    keep = np.isfinite(game.limit) & (game.give == 0)
    if not keep.any():
        return 0.0 if not np.isneginf(game.limit).any() else np.inf
    top = float(rows[keep].max())
    answer = linprog(
        np.append(np.zeros(d), 1.0),
        np.append(game.constraint[keep], -(top / rows[keep])[:, None], axis=1),
        game.limit[keep],
        bounds=[*zip(game.lower, game.upper, strict=True), (0, None)],
        method="highs",
    )
    if answer.x is None:
        return np.inf
    size = 1.0 + np.abs(game.limit[keep]).max()
    return float(answer.x[-1]) * top if answer.x[-1] > 1e-8 * size else 0.0


def reference_equilibrium(game: QuadraticGame) -> tuple[Float, Float]:
    """Oracle by cvxpy: minimise the gap x'(Jx + q) + b'lambda + lambda'G lambda + box terms, 0 at an equilibrium.

    Returns x (D,) and multipliers (M,). Needs J + J' positive semidefinite.
    """
    cp = required("cvxpy")
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
        rules.append(game.constraint @ x <= game.limit + cp.multiply(game.give, price))
        gap += game.limit @ price + cp.sum_squares(cp.multiply(np.sqrt(game.give), price))
    problem = cp.Problem(cp.Minimize(gap), rules)
    problem.solve(solver=cp.CLARABEL)
    return np.asarray(x.value), np.asarray(price.value) if m else np.zeros(0)
