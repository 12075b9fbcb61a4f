r"""The choice of least social cost, proven: a mixed-integer program by HiGHS, cut by cut.

Social cost is :math:`\sum_r L_r^2 / C_r` plus private costs. Each :math:`L_r^2` is replaced by a variable
:math:`t_r` with tangent cuts :math:`t_r \ge 2 \hat L L_r - \hat L^2`; the program is solved, cuts are added at
the loads it found, and it is solved again until what it promises is what its choice costs (Kelley's cutting
planes; finite, since there are finitely many choices). The last program's bound is a proof.

Sources: Kelley (1960), "The cutting-plane method for solving convex programs"; Huangfu and Hall (2018),
"Parallelizing the dual revised simplex method" (HiGHS).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from games.best_response import above_least, best_response_dynamics
from games.congestion import CongestionGame, Float, Int
from games.errors import InvalidGameError


@dataclass(frozen=True)
class Optimum:
    """The best choice found and how much better another could be.

    Attributes:
        choice: (N,) option of each agent.
        social_cost: its cost.
        bound: no choice costs less than this.
        converged: whether the two agree to the tolerance.
        rounds: programs solved.
        status: "optimal", or what stopped it.
    """

    choice: Int
    social_cost: float
    bound: float
    converged: bool
    rounds: int
    status: str


def social_optimum(
    game: CongestionGame, *, tolerance: float = 1e-6, budget_s: float = 60.0, max_rounds: int = 50
) -> Optimum:
    """Least social cost of a congestion game (its toll plays no part).

    Args:
        game: N agents; practical to about 20 agents x 5 resources, or larger where loads are light.
        tolerance: gap between cost and bound at which to stop, relative to the cost above the agents' least private
            costs.
        budget_s: seconds; the best choice so far is returned with its bound.
        max_rounds: programs solved at most.

    Returns:
        Optimum.

    Raises:
        InvalidGameError: loads whose cost is beyond float64.
    """
    n, options = game.private_cost.shape
    if n == 0:
        return Optimum(np.zeros(0, np.int64), 0.0, 0.0, True, 0, "optimal")
    begun = time.perf_counter()
    resources = len(game.capacity)
    # the program in units of its own: loads in a resource's largest, costs above each agent's least, the largest 1
    whole = game
    game = replace(game, private_cost=above_least(game.private_cost, game.allowed))
    most = game.weight.sum(axis=0)
    most = np.where(most > 0, most, 1.0)
    steep = most * (most / game.capacity)
    unit = max(float(np.where(game.allowed, game.private_cost, 0.0).max()), float(steep.max(initial=0.0)))
    unit = unit if unit > 0 else 1.0
    if not np.isfinite(unit):
        raise InvalidGameError(f"weight and capacity make a cost of {unit}, which float64 does not hold; change a unit")
    base = float(np.where(game.allowed, whole.private_cost, np.inf).min(axis=1).sum())
    # marginal-price best responses start the search and the cuts near the answer
    tolled = replace(game, toll=np.ones(resources))
    best = best_response_dynamics(tolled).choice
    cost = game.social_cost(best)
    uses = np.zeros((options, resources))
    for o, row in enumerate(game.options):
        uses[o, row[row >= 0]] = 1.0
    # variables: x (N, O) then t (R,)
    load_rows = np.einsum("or,nr->rno", uses, game.weight / most).reshape(resources, n * options)
    objective = np.append(np.where(game.allowed, game.private_cost, 0.0).ravel(), steep) / unit
    one_each = np.zeros((n, n * options + resources))
    for i in range(n):
        one_each[i, i * options : (i + 1) * options] = 1.0
    bounds = Bounds(
        np.zeros(n * options + resources),
        np.append(game.allowed.ravel().astype(float), np.full(resources, np.inf)),
    )
    integrality = np.append(np.ones(n * options), np.zeros(resources))
    cuts: list[tuple[int, float]] = [(r, f) for r in range(resources) for f in np.linspace(0, 1, 9)]
    bound, rounds, status = -np.inf, 0, "stopped by rounds"
    near: Float = game.loads(best) / most
    while rounds < max_rounds:
        cuts += [(r, float(near[r])) for r in range(resources)]
        left = budget_s - (time.perf_counter() - begun)
        if left <= 0:
            status = f"stopped after {budget_s} s"
            break
        rounds += 1
        answer = milp(
            objective,
            constraints=[LinearConstraint(coo_array(one_each), 1, 1), _tangents(cuts, load_rows, resources)],
            integrality=integrality,
            bounds=bounds,
            options={"time_limit": left, "mip_rel_gap": 0.1 * tolerance},
        )
        if answer.mip_dual_bound is not None:
            bound = max(bound, unit * float(answer.mip_dual_bound))
        if answer.x is None:
            status = f"HiGHS: {answer.message}"
            break
        choice = answer.x[: n * options].reshape(n, options).argmax(axis=1).astype(np.int64)
        found = game.social_cost(choice)
        if found < cost:
            best, cost = choice, found
        if cost - bound <= tolerance * max(1e-12 * unit, cost):
            status = "optimal"
            break
        near = game.loads(choice) / most
    bound = min(bound, cost)
    # what was taken off comes back; the gap between cost and bound is kept
    total = whole.social_cost(best)
    return Optimum(best, total, min(bound + base, total), status == "optimal", rounds, status)


def _tangents(cuts: list[tuple[int, float]], load_rows: Float, resources: int) -> LinearConstraint:
    """t_r - 2 at L_r >= -at^2, for every (r, at)."""
    which = np.array([r for r, _ in cuts])
    at = np.array([a for _, a in cuts])
    matrix = np.concatenate([-2 * at[:, None] * load_rows[which], np.eye(resources)[which]], axis=1)
    return LinearConstraint(coo_array(matrix), -(at**2), np.inf)
