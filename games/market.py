r"""Eisenberg-Gale (Fisher) market: divide K divisible resources so that sum_i w_i log u_i is largest.

Agent i's utility is :math:`u_i = \sum_k a_{ik} x_{ik}`; :math:`\sum_i x_{ik} \le C_k`. The answer is the
competitive equilibrium with budgets w: at its prices every agent spends its budget on resources of most value
for money, and nothing of worth is left over.

For any prices p > 0 with :math:`\sum_k C_k p_k = \sum_i w_i`, and any feasible x,

.. math:: 0 \le gap = \frac{1}{\sum w} \sum_i w_i \log \frac{w_i \max_k a_{ik} / p_k}{u_i},

and x is within ``gap`` of the optimum (weighted mean of log utility). Every method here ends on that measured
gap, so an answer is certified whatever route led to it:

- ``response``: proportional response, each agent splits its budget as its utility came in. Robust, linear
  work a sweep, gap about 1 / sweeps at first.
- ``interior``: the structured interior point of :mod:`games.market_interior`, with proportional response to
  start from and to fall back on.
- ``smooth``: Newton on softened prices, :mod:`games.market_smooth`: few resources, up to millions of agents.

Sources: Eisenberg and Gale (1959), "Consensus of subjective probabilities"; Zhang (2011), "Proportional
response dynamics in the Fisher market"; Birnbaum, Devanur and Xiao (2011), "Distributed algorithms via
gradient descent for Fisher markets" (it is mirror descent).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from games.congestion import Bool, Float
from games.errors import InvalidStateError, floats, shaped


@dataclass(frozen=True)
class Market:
    """An allocation and the prices that support it.

    Attributes:
        share: (N, K) amount of each resource, in its own unit.
        price: (K,) price of a unit; sum of capacity times price is the sum of budgets.
        utility: (N,) u_i.
        gap: proven distance from the optimum in the budget-weighted mean of log utility.
        iterations: sweeps, or Newton steps.
        converged: whether ``gap`` is within the tolerance.
        status: "optimal"; or what stopped it; or who has no use for any resource.
        unserved: (N,) bool, agents that value nothing (they get nothing and spend nothing).
    """

    share: Float
    price: Float
    utility: Float
    gap: float
    iterations: int
    converged: bool
    status: str
    unserved: Bool


def eisenberg_gale(
    value: ArrayLike,
    budget: ArrayLike,
    capacity: ArrayLike,
    *,
    method: str = "auto",
    tolerance: float = 1e-6,
    max_iterations: int | None = None,
    start: ArrayLike | None = None,
) -> Market:
    """Market equilibrium, certified by its duality gap.

    Args:
        value: (N, K) utility of a unit of each resource, >= 0.
        budget: (N,) weights, > 0.
        capacity: (K,) > 0.
        method: "auto", "response", "interior" or "smooth" (see the module).
        tolerance: gap at which to stop.
        max_iterations: default 20,000 sweeps or 100 Newton steps.
        start: (N, K) an earlier ``share`` to begin from ("response"), for a market that changed a little.

    Returns:
        Market.

    Raises:
        InvalidStateError: a negative or non-finite value, budget or capacity <= 0, a wrong shape, a method
            that does not exist.
    """
    from games.market_interior import interior_point
    from games.market_smooth import smooth_newton

    a, w, c = _checked(value, budget, capacity)
    if method not in ("auto", "response", "interior", "smooth"):
        raise InvalidStateError(f"method = {method!r}; choose auto, response, interior or smooth")
    unserved = np.asarray(~(a > 0).any(axis=1))
    wanted = (a > 0).any(axis=0)
    n, k = a.shape
    if unserved.all() or n == 0:
        return Market(np.zeros((n, k)), np.zeros(k), np.zeros(n), 0.0, 0, True, _status(True, unserved, ""), unserved)
    # capacities 1, budgets that sum to 1, each agent's best resource worth 1: none of it moves the answer
    whole = not unserved.any() and bool(wanted.all())
    unit = a * c if whole else (a * c)[np.ix_(~unserved, wanted)]
    unit /= unit.max(axis=1, keepdims=True)
    money = w if whole else w[~unserved]
    total = float(money.sum())
    money = money / total
    agents, resources = unit.shape
    if method == "auto":
        method = "smooth" if agents >= 2000 * resources else "interior"
    if method == "interior":
        x, p, steps = interior_point(unit, money, tolerance, max_iterations or 100)
    elif method == "smooth":
        x, p, steps = smooth_newton(unit, money, tolerance, max_iterations or 100)
    else:
        spend = None
        if start is not None:
            spend = (shaped("start", start, (n, k), 0.0) / c)[np.ix_(~unserved, wanted)]
        x, p, steps = proportional_response(unit, money, tolerance, max_iterations or 20_000, spend)
    gap = certify(unit, money, x, p)
    if not gap <= tolerance and method != "response":
        # the named fallback: never fails, only slower
        y, q, more = proportional_response(unit, money, tolerance, 20_000, x)
        if not certify(unit, money, y, q) >= gap:
            x, p, gap = y, q, certify(unit, money, y, q)
        steps, method = steps + more, f"{method}, then response"
    share, price = np.zeros((n, k)), np.zeros(k)
    share[np.ix_(~unserved, wanted)] = x * c[wanted]
    price[wanted] = p * total / c[wanted]
    utility = (a * share).sum(axis=1)
    done = bool(gap <= tolerance)
    stopped = f"{method} stopped after {steps} iterations with gap {gap:.1e}"
    return Market(share, price, utility, float(gap), int(steps), done, _status(done, unserved, stopped), unserved)


def proportional_response(
    unit: Float, money: Float, tolerance: float, most: int, start: Float | None = None
) -> tuple[Float, Float, int]:
    """Zhang's dynamics for capacities 1 and budgets that sum to 1: (shares (N, K), prices (K,), sweeps)."""
    spend = money[:, None] * unit / unit.sum(axis=1, keepdims=True)
    if start is not None:
        # a little of everything useful keeps the dynamics free to move
        warm = unit * start
        total = warm.sum(axis=1, keepdims=True)
        share = np.divide(warm, total, out=np.zeros_like(warm), where=total > 0)
        spend = (1 - 1e-3) * money[:, None] * share + (1e-3 + (1 - 1e-3) * (total <= 0)) * spend
        spend *= money[:, None] / spend.sum(axis=1, keepdims=True)
    price = np.empty(unit.shape[1])
    before = np.empty_like(spend)
    sweeps = _respond(unit, money, spend, before, price, tolerance, most)
    return before / np.maximum(price, 1e-300), price, sweeps


@njit(cache=True, fastmath={"nsz", "contract", "reassoc", "arcp"}, error_model="numpy")
def _respond(unit, money, spend, before, price, tolerance, most):
    n, k = unit.shape
    inverse = np.empty(k)
    gain = np.empty(k)
    for sweep in range(most):
        price[:] = 0.0
        for i in range(n):
            for r in range(k):
                price[r] += spend[i, r]
        for r in range(k):
            inverse[r] = 1.0 / max(price[r], 1e-300)
        check = sweep % 10 == 0 or sweep == most - 1
        gap = 0.0
        if check:
            before[:] = spend
        for i in range(n):
            utility = 0.0
            best = 0.0
            for r in range(k):
                v = unit[i, r] * inverse[r]
                best = v if v > best else best
                gain[r] = v * spend[i, r]
                utility += gain[r]
            f = money[i] / utility
            for r in range(k):
                spend[i, r] = gain[r] * f
            if check:
                gap += money[i] * np.log(best * f)
        if check and gap <= tolerance:
            return sweep + 1
    return most


def certify(unit: Float, money: Float, x: Float, p: Float) -> float:
    """Gap of shares x (N, K) and prices p (K,) at capacities and total budget 1; inf if infeasible."""
    if not (np.isfinite(x).all() and np.isfinite(p).all() and (x >= 0).all() and (p >= 0).all()):
        return np.inf
    if (x.sum(axis=0) > 1 + 1e-9).any() or abs(p.sum() - 1) > 1e-9:
        return np.inf
    utility = (unit * x).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.where(unit > 0, unit / p, 0.0).max(axis=1)
        return float((money * np.log(money * best / utility)).sum())


def _checked(value: ArrayLike, budget: ArrayLike, capacity: ArrayLike) -> tuple[Float, Float, Float]:
    a = floats("value", value)
    w, c = floats("budget", budget), floats("capacity", capacity)
    if a.ndim != 2:
        raise InvalidStateError(f"value has shape {a.shape}; it is (N, K), agents first")
    if w.shape != a.shape[:1] or c.shape != a.shape[1:]:
        raise InvalidStateError(
            f"budget has shape {w.shape} and capacity {c.shape}; value {a.shape} needs {a.shape[:1]} and {a.shape[1:]}"
        )
    for name, array, low, rule in (
        ("value", a, 0.0, "a value is finite and >= 0"),
        ("budget", w, np.nextafter(0, 1), "a budget is finite and > 0"),
        ("capacity", c, np.nextafter(0, 1), "a capacity is finite and > 0"),
    ):
        bad = ~(np.isfinite(array) & (array >= low))
        if bad.any():
            at = np.argwhere(bad)[0]
            raise InvalidStateError(f"{name}[{', '.join(map(str, at))}] = {array[tuple(at)]}; {rule}")
    return a, w, c


def _status(done: bool, unserved: Bool, stopped: str) -> str:
    said = "optimal" if done else stopped
    if unserved.any():
        said += f"; {int(unserved.sum())} agents value no resource, the first is {int(unserved.argmax())}"
    return said
