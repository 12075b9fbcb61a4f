r"""E quadratic games of one shape side by side: N agents with D levels each, boxes and coupled linear limits.

Agent i owns the levels :math:`x_{i1}, \dots, x_{iD}` and minimises a cost that is quadratic and convex in them;
stacked, the partial gradients are :math:`F(x) = J x + q`. A level lies in its box, and limits :math:`A x \le b` bind
all together. Which equilibrium: the variational one, in which a shared limit has one price for all
(:mod:`games.quadratic`).

Solver: games with a potential (J symmetric) by projected Newton (:mod:`games.quadratic_newton`), the others by Newton's
method on the conditions

.. math:: x = \Pi_{box}(x - D^{-1}(F(x) + A'\lambda)), \quad \lambda = \max(0, \lambda + C^{-1}(A x - b - G \lambda))

with D the diagonal of J and C that of :math:`A D^{-1} A'`: which bounds and limits bind is read from the left-hand
sides, and the equations of those are solved, until all hold. All games at once, a factorisation a round; where nothing
binds it is one round. Turning all at once may cycle: while no fewer ask to change than did, one turns at a time, the
last, which ends where the system is a P-matrix. To make it one with limits, a price leans a little on the last one's
(the proximal method of multipliers), which a few rounds more take out; where a limit gives, it is one already. What is
left is measured, and a game that is not solved goes to :mod:`games.quadratic`.

Sources: Hintermueller, Ito and Kunisch (2003), "The primal-dual active set strategy as a semismooth Newton method";
Judice and Pires (1994), "A block principal pivoting algorithm for large-scale strictly monotone linear complementarity
problems", for the turns; Rockafellar (1976) for the method of multipliers; Rosen (1965) for the equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from games.congestion import Bool, Float, Int
from games.errors import InvalidGameError, floats
from games.quadratic import QuadraticGame, variational_equilibrium
from games.quadratic_newton import descend_batch

ROUNDS, OUTER = 20, 20
LEAN = 1e-4  # of a limit's shadow: how far its price leans on the last at first; a tenth of that each time it is done
PATIENCE = 4  # rounds that may turn all that asks for it without fewer asking
TOLERANCE = 1e-10


class QuadraticBatch(NamedTuple):
    """E games as plain arrays; coordinate i D + d is agent i's level d, of K = N D; :func:`quadratic_batch` checks.

    jacobian (E, K, K): row i D + d is the gradient of agent i's cost in its level d, so that each agent's own (D, D)
    block is the Hessian of its cost: symmetric, positive semidefinite. linear, lower, upper (E, N, D). constraint
    (E, M, K) and limit (E, M), inf for none. live (E, N): False for an agent that sits this step out, whose boxes are
    points. give (E, M): 0 holds a limit, see :mod:`games.quadratic`.
    """

    jacobian: Float
    linear: Float
    lower: Float
    upper: Float
    constraint: Float
    limit: Float
    live: Bool
    give: Float

    def single(self, e: int) -> QuadraticGame:
        """Game ``e`` by itself."""
        linear, lower, upper = (part[e].ravel() for part in (self.linear, self.lower, self.upper))
        return QuadraticGame(
            self.jacobian[e], linear, lower, upper, self.constraint[e], self.limit[e], self.give[e]
        )  # fmt: skip

    def gradient(self, level: Float) -> Float:
        """(E, N, D) each agent's gradient in its own levels, at joint levels (E, N, D)."""
        flat = level.reshape(len(level), -1, 1)
        return np.asarray((self.jacobian @ flat).reshape(level.shape) + self.linear)

    def own(self) -> Float:
        """(E, N, D, D) Hessian of each agent's cost in its own levels."""
        e, n, d = self.linear.shape
        blocks = self.jacobian.reshape(e, n, d, n, d)
        return np.asarray(np.moveaxis(blocks[:, np.arange(n), :, np.arange(n)], 0, 1))

    # what :class:`games.quadratic_tilt.LevelGames` asks for, by the functions below

    def steepest(self) -> float:
        return float(np.abs(self.jacobian).max(initial=0.0))

    def tilted(self, mean: Float, spread: Float, trust: float) -> QuadraticBatch:
        return tilt_batch(self, mean, spread, trust)

    def solve(
        self, start: Float | None = None, *, tolerance: float = 1e-10, stop: Callable[[], bool] = lambda: False
    ) -> Solution:
        return solve_batch(self, start, tolerance=tolerance, stop=stop)

    def project(self, point: Float, weight: Float, stop: Callable[[], bool] = lambda: False) -> Solution:
        return project_batch(self, point, weight, stop)

    def value(self, level: Float) -> Float:
        return value_batch(self, level)

    def charged_more(self, centre: Float, step: Float) -> Float:
        """(E, N, O) what limits cost more where agent i alone moves from ``centre`` (E, N) by ``step`` (E, N, O)."""
        cost, soft = np.zeros(step.shape), self.give > 0
        if not soft.any():
            return cost
        over = (self.constraint @ centre[..., None])[..., 0] - self.limit
        over = np.where(soft, over, -np.inf)
        give = np.where(soft, self.give, 1.0)[..., None]
        before = charges(self, centre[..., None])[..., None] ** 2 * give / 2
        for i in range(centre.shape[1]):  # one agent after the other: (E, M, O) of room
            moved = over[..., None] + self.constraint[:, :, i, None] * step[:, i, None, :]
            cost[:, i] = (np.maximum(moved, 0.0) ** 2 / (2 * give) - before).sum(1)
        return cost


class Solution(NamedTuple):
    """What was found of E games.

    Attributes:
        level: (E, N, D). price: (E, M) common price of each limit, >= 0.
        residual: (E,) of the conditions above, relative to the terms that are compared; or of the splitting.
        converged: (E,) whether ``residual`` met the tolerance.
    """

    level: Float
    price: Float
    residual: Float
    converged: Bool


def quadratic_batch(
    jacobian: Any,
    linear: Any,
    lower: Any,
    upper: Any,
    constraint: Any = None,
    limit: Any = None,
    live: Any = None,
    give: Any = None,
) -> QuadraticBatch:
    """A batch from arrays of the shapes in :class:`QuadraticBatch`; boxes may be single numbers.

    Raises:
        InvalidGameError: names the array, index, value and what is permitted.
    """
    q = floats("linear", linear)
    if q.ndim != 3:
        raise InvalidGameError(f"linear has shape {q.shape}; it needs axes (E, N, D)")
    e, n, d = q.shape
    k = n * d
    J = floats("jacobian", jacobian)
    if J.shape != (e, k, k):
        raise InvalidGameError(f"jacobian has shape {J.shape}; linear {q.shape} needs {(e, k, k)}")
    A = np.zeros((e, 0, k)) if constraint is None else floats("constraint", constraint)
    b = np.zeros((e, 0)) if limit is None else floats("limit", limit)
    if A.ndim != 3 or A.shape[0] != e or A.shape[2] != k or b.shape != A.shape[:2]:
        raise InvalidGameError(f"constraint has shape {A.shape} and limit {b.shape}; they are ({e}, M, {k}), ({e}, M)")
    g = np.zeros(b.shape) if give is None else floats("give", give)
    if g.shape not in ((), b.shape):
        raise InvalidGameError(f"give has shape {g.shape}; one number or {b.shape} is needed")
    g = np.broadcast_to(g, b.shape).copy()
    box = []
    for name, given in (("lower", lower), ("upper", upper)):
        value = floats(name, given)
        if value.shape not in ((), q.shape):
            raise InvalidGameError(f"{name} has shape {value.shape}; one number or {q.shape} is needed")
        box.append(np.broadcast_to(value, q.shape).copy())
    low, high = box
    alive = np.ones((e, n), bool) if live is None else np.asarray(live, bool)
    if alive.shape != (e, n):
        raise InvalidGameError(f"live has shape {alive.shape}; {(e, n)} is needed")
    made = QuadraticBatch(J, q, low, high, A, b, alive, g)
    for name, array, good, rule in (
        ("jacobian", J, np.isfinite(J), "it is finite"),
        ("linear", q, np.isfinite(q), "it is finite"),
        ("constraint", A, np.isfinite(A), "it is finite"),
        ("give", g, np.isfinite(g) & (g >= 0), "it is finite and >= 0"),
        ("limit", b, b > -np.inf, "it is a number, inf for none"),
        ("lower", low, low < np.inf, "it is a number, -inf for none"),
        ("upper", high, (high >= low) & (high > -np.inf), "it is at least the lower bound"),
        ("upper", high, alive[..., None] | (high == low), "it is the lower bound of an agent that is not live"),
    ):
        _reject(name, array, good, rule)
    own = made.own()
    size = np.abs(own).max(axis=(2, 3), initial=0.0)
    skew = np.abs(own - np.swapaxes(own, 2, 3)).max(axis=(2, 3), initial=0.0)
    _reject("jacobian", skew, skew <= 1e-9 * size, "an agent's own block is symmetric: the Hessian of its cost", "skew")
    curve = np.linalg.eigvalsh(own).min(axis=2, initial=np.inf) if own.size else size
    _reject("jacobian", curve, curve >= -1e-9 * size, "an agent's cost is convex in its own levels", "least curvature")
    return made


def solve_batch(
    game: QuadraticBatch, start: Float | None = None, *, tolerance: float = TOLERANCE,
    stop: Callable[[], bool] = lambda: False,
) -> Solution:  # fmt: skip
    """The variational equilibrium of each game.

    Args:
        start: (E, N, D) to begin from. tolerance: of the relative residual.
        stop: asked between two rounds, and before a game goes to the splitting; True gives up what is not solved yet.

    Returns:
        Solution; ``level`` is within its boxes in any case, within the limits where it converged.
    """
    e, n, d = game.linear.shape
    m = game.limit.shape[1]
    flat = (e, n * d)
    q, low, high = (part.reshape(flat) for part in (game.linear, game.lower, game.upper))
    x = np.clip(np.zeros(flat) if start is None else start.reshape(flat), low, high)
    price, residual = np.zeros((e, m)), np.full(e, np.inf)
    if not n * d:
        broken = np.asarray((game.limit < 0).any(axis=1))
        return Solution(x.reshape(e, n, d), price, np.where(broken, np.inf, 0.0), ~broken)
    scale, shadow = _scales(game)
    smooth = with_potential(game)
    if smooth.any():
        x[smooth], price[smooth], residual[smooth] = _descended(
            QuadraticBatch._make(a[smooth] for a in game), scale[smooth], shadow[smooth], x[smooth], tolerance, stop
        )
    left = np.flatnonzero(~smooth)
    bound, held_at = np.zeros((e, n * d + m), np.int8), np.zeros((e, m))  # what binds; prices that are leaned on
    for outer in range(OUTER if m else 1):
        least, patience = np.full(e, n * d + m + 1), np.full(e, PATIENCE)
        if not len(left):
            break
        some, lean = left, np.where(game.give > 0, 0.0, max(LEAN * 0.1**outer, 1e-14) * shadow)
        for turn in range(ROUNDS + 2 * (n * d + m)):
            if not len(some) or stop():
                break
            part = QuadraticBatch._make(a[some] for a in game)
            args = part, q[some], low[some], high[some], scale[some], shadow[some], lean[some], held_at[some]
            if turn or outer or start is not None:
                asks = _binding(*args, x[some], price[some])
                asks = np.where(asks * bound[some] < 0, 0, asks).astype(np.int8)  # from end to end by way of free
                rests = (asks == bound[some]).all(axis=1) & (turn > 0)
                bound[some] = _turn(bound[some], asks, some, least, patience)
            else:
                rests = np.zeros(len(some), bool)
            x[some], price[some] = _equations(*args, bound[some])
            inside = np.clip(x[some], low[some], high[some]), np.maximum(price[some], 0.0)
            residual[some] = _residual(*args[:-2], *inside)
            some = some[~(residual[some] <= tolerance) & ~rests]
        left = left[~(residual[left] <= tolerance)]
        held_at[left] = np.maximum(price[left], 0.0)
    x, price = np.clip(x, low, high), np.maximum(price, 0.0)
    for k in np.flatnonzero(~(residual <= tolerance)):
        if stop():
            break
        begin = np.where(np.isfinite(x[k]), x[k], np.clip(0.0, low[k], high[k]))
        found_one = variational_equilibrium(game.single(int(k)), begin, tolerance=tolerance / 10)
        x[k], price[k], residual[k] = found_one.x, found_one.multiplier, found_one.residual
    return Solution(x.reshape(e, n, d), price, residual, residual <= tolerance)


def _descended(
    game: QuadraticBatch, scale: Float, shadow: Float, level: Float, tolerance: float, stop: Callable[[], bool]
) -> tuple[Float, Float, Float]:
    """Of games with a potential: levels (E, K), from ``level`` on, prices (E, M) and residuals (E,)."""
    q, low, high = (part.reshape(level.shape) for part in (game.linear, game.lower, game.upper))
    price = np.zeros(shadow.shape)

    def good(which: Int, at: Float, charged: Float) -> Float:
        few = QuadraticBatch._make(a[which] for a in game)
        return _residual(few, q[which], low[which], high[which], scale[which], shadow[which], at, charged)

    given = q, low, high, game.constraint, game.limit, game.give, scale, shadow
    residual = descend_batch(game.jacobian, *given, level, price, good, tolerance, stop)
    return level, price, residual


def tilt_batch(game: QuadraticBatch, mean: Float, spread: Float, trust: float) -> QuadraticBatch:
    """The games in which each agent also pays sum_d (x_d - mean_d)^2 / (2 trust spread_d^2) for its own levels.

    ``mean`` and ``spread`` (E, N, D), spread > 0, inf asks for nothing; 0 < trust < inf. Quadratic games again: J gains
    1 / (trust spread^2) on its diagonal, q loses mean / (trust spread^2).
    """
    weight = weights(spread) / trust
    k = np.arange(weight[0].size) if len(weight) else np.arange(0)
    jacobian = game.jacobian.copy()
    jacobian[:, k, k] += weight.reshape(len(weight), -1)
    return game._replace(jacobian=jacobian, linear=game.linear - weight * np.where(weight > 0, mean, 0.0))


def project_batch(
    game: QuadraticBatch, point: Float, weight: Float, stop: Callable[[], bool] = lambda: False
) -> Solution:
    """The nearest joint levels to ``point`` (E, N, D) that boxes and the limits that hold allow: least sum of
    w (x - point)^2, w > 0."""
    k = np.arange(weight[0].size) if len(weight) else np.arange(0)
    jacobian = np.zeros_like(game.jacobian)
    jacobian[:, k, k] = weight.reshape(len(weight), -1)
    limit = np.where(game.give > 0, np.inf, game.limit)
    return solve_batch(game._replace(jacobian=jacobian, linear=-weight * point, limit=limit), point, stop=stop)


def weights(spread: Float) -> Float:
    """1 / spread^2, 0 where the spread is inf."""
    return np.where(np.isfinite(spread), 1.0 / np.square(np.where(np.isfinite(spread), spread, 1.0)), 0.0)


def value_batch(game: QuadraticBatch, level: Float) -> Float:
    """(E,) the exact potential x' J x / 2 + q' x, with what breaking limits costs, where J is symmetric; otherwise, as
    there is none, how far the levels are from an equilibrium: the length of x - P(x - F(x) / D), each level in its own
    unit, P onto what is feasible."""
    e = len(level)
    flat = level.reshape(e, -1)
    smooth = with_potential(game)
    bent = (game.jacobian @ flat[..., None])[..., 0]
    potential = (flat * (bent / 2 + game.linear.reshape(flat.shape))).sum(axis=1)
    charged = charges(game, level)
    potential = potential + (game.give * charged**2).sum(axis=1) / 2
    if smooth.all():
        return np.asarray(potential)
    scale = _scales(game)[0].reshape(level.shape)
    pull = game.gradient(level) + (charged[:, None] @ game.constraint)[:, 0].reshape(level.shape)
    near = project_batch(game, level - pull / scale, scale).level
    apart = np.sqrt((scale * (level - near) ** 2).sum(axis=(1, 2)))
    return np.where(smooth, potential, apart)


def charges(game: QuadraticBatch, level: Float) -> Float:
    """(E, M) the price of each limit that gives at joint levels, [A x - b]_+ / g; 0 of one that holds."""
    soft = game.give > 0
    over = (game.constraint @ level.reshape(len(level), -1, 1))[..., 0] - game.limit
    return np.where(soft, np.maximum(over, 0.0) / np.where(soft, game.give, 1.0), 0.0)


def with_potential(game: QuadraticBatch) -> Bool:
    """(E,) whether J is symmetric."""
    size = np.abs(game.jacobian).max(axis=(1, 2), initial=0.0)
    skew = np.abs(game.jacobian - np.swapaxes(game.jacobian, 1, 2)).max(axis=(1, 2), initial=0.0)
    return np.asarray(skew <= 1e-12 * size)


def _scales(game: QuadraticBatch) -> tuple[Float, Float]:
    """(E, K) cost of a unit of each level squared, and (E, M) what a unit of each limit's price moves it; all > 0."""
    diagonal = np.einsum("ekk->ek", game.jacobian)
    row = np.abs(game.jacobian).max(axis=2, initial=0.0)
    scale = np.where(diagonal > 0, diagonal, np.where(row > 0, row, 1.0))
    shadow = (game.constraint**2 / scale[:, None]).sum(axis=2)
    return scale, np.where(shadow > 0, shadow, 1.0)


def _binding(
    game: QuadraticBatch, q: Float, low: Float, high: Float, scale: Float, shadow: Float, lean: Float, held_at: Float,
    x: Float, price: Float,
) -> NDArray[np.int8]:  # fmt: skip
    """(E, K + M) -1 at a lower bound, 1 at an upper, 0 free; of a limit 1 where it binds, 0 where not."""
    pull = (game.jacobian @ x[..., None])[..., 0] + q + (price[:, None] @ game.constraint)[:, 0]
    trial = x - pull / scale
    slack = (game.constraint @ x[..., None])[..., 0] - game.limit - lean * (price - held_at) - game.give * price
    box = np.where(trial < low, -1, np.where(trial > high, 1, 0))
    return np.concatenate([box, price + slack / shadow > 0], axis=1).astype(np.int8)


def _turn(now: NDArray[np.int8], asks: NDArray[np.int8], left: Any, least: Any, patience: Any) -> NDArray[np.int8]:
    """What binds next: all that asks to change while fewer and fewer do, otherwise the last alone, which cannot cycle.
    ``least`` and ``patience`` (E,) are kept up to date."""
    changes = asks != now
    count = changes.sum(axis=1)
    fewer = count < least[left]
    least[left] = np.minimum(count, least[left])
    patience[left] = np.where(fewer, PATIENCE, patience[left] - 1)
    last = changes.shape[1] - 1 - changes[:, ::-1].argmax(axis=1)
    alone = np.arange(changes.shape[1]) == last[:, None]
    every = (patience[left] > 0)[:, None]
    return np.where(changes & (every | alone), asks, now)


def _equations(
    game: QuadraticBatch, q: Float, low: Float, high: Float, scale: Float, shadow: Float, lean: Float, held_at: Float,
    binds: NDArray[np.int8],
) -> tuple[Float, Float]:  # fmt: skip
    """Levels and prices of the equations that ``binds`` says hold, a binding limit's price leaning on ``held_at``."""
    k, m = low.shape[1], shadow.shape[1]
    box, held = binds[:, :k], binds[:, k:] > 0
    free = box == 0
    at = np.where(box < 0, low, np.where(box > 0, high, 0.0))
    system = np.zeros((len(q), k + m, k + m))
    system[:, :k, :k] = np.where(free[..., None], game.jacobian, 0.0)
    system[:, :k, k:] = np.where(free[..., None], np.swapaxes(game.constraint, 1, 2), 0.0)
    system[:, k:, :k] = np.where(held[..., None], game.constraint, 0.0)
    i, j = np.arange(k), k + np.arange(m)
    system[:, i, i] = np.where(free, system[:, i, i] + 1e-14 * scale, scale)
    system[:, j, j] = np.where(held, -lean - game.give, shadow)
    most = np.where(held, game.limit, 0.0) - lean * held_at
    right = np.concatenate([np.where(free, -q, scale * at), np.where(held, most, 0.0)], axis=1)
    try:
        found = np.linalg.solve(system, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        found = np.full(right.shape, np.nan)
        for e in range(len(system)):
            found[e] = np.linalg.lstsq(system[e], right[e], rcond=None)[0]
    return found[:, :k], found[:, k:]


def _residual(
    game: QuadraticBatch, q: Float, low: Float, high: Float, scale: Float, shadow: Float, x: Float, price: Float
) -> Float:
    """(E,) largest violation of the conditions, relative to levels and gradients; inf where not finite."""
    J, A = game.jacobian, game.constraint
    # prices are no part of what is compared with: where limits contradict each other they grow without end
    terms = (np.abs(J) @ np.abs(x)[..., None])[..., 0] + np.abs(q)
    pull = (J @ x[..., None])[..., 0] + q + (price[:, None] @ A)[:, 0]
    size = np.maximum(np.abs(x), terms / scale)
    size = np.maximum(size, 1e-6 * size.max(axis=1, keepdims=True))
    gap = np.abs(x - np.clip(x - pull / scale, low, high)) / np.where(size > 0, size, 1.0)
    worst = gap.max(axis=1, initial=0.0)
    if A.shape[1]:
        slack = (A @ x[..., None])[..., 0] - game.limit - game.give * price
        reach = (np.abs(A) @ size[..., None])[..., 0] + np.where(np.isfinite(game.limit), np.abs(game.limit), 0.0)
        step = np.abs(price - np.maximum(price + slack / shadow, 0.0)) * shadow
        worst = np.maximum(worst, (step / np.where(reach > 0, reach, 1.0)).max(axis=1))
    return np.asarray(np.where(np.isfinite(worst), worst, np.inf))


def _reject(name: str, values: Float, good: Bool, rule: str, of: str = "") -> None:
    if not good.all():
        at = tuple(int(v) for v in np.argwhere(~good)[0])
        what = f"{of} of {name}[{', '.join(map(str, at))}]" if of else f"{name}[{', '.join(map(str, at))}]"
        raise InvalidGameError(f"{what} = {values[at]:g}; {rule}")
