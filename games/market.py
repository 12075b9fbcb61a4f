r"""Eisenberg-Gale (Fisher) market: divide K divisible resources so that sum_i w_i log u_i is largest.

Agent i's utility is :math:`u_i = \sum_k a_{ik} x_{ik}`; :math:`\sum_i x_{ik} \le C_k`. The answer is the
competitive equilibrium with budgets w: at its prices every agent spends its budget on resources of most value
for money, and nothing of worth is left over.

For any prices p > 0 with :math:`\sum_k C_k p_k = \sum_i w_i`, and any feasible x,

.. math:: 0 \le gap = \frac{1}{\sum w} \sum_i w_i \log \frac{w_i \max_k a_{ik} / p_k}{u_i},

and x is within ``gap`` of the optimum (weighted mean of log utility). Every method here ends on that measured
gap, so an answer is certified whatever route led to it:

- ``response``: proportional response, :mod:`games.market_response`. Robust, linear work a sweep, gap about 1 / sweeps
  at first.
- ``interior``: the structured interior point of :mod:`games.market_interior`, with proportional response to
  start from and to fall back on.
- ``smooth``: Newton on softened prices, :mod:`games.market_smooth`: few resources, up to millions of agents.

Source: Eisenberg and Gale (1959), "Consensus of subjective probabilities".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Bool, Float
from games.errors import InvalidStateError, floats, shaped
from games.market_interior import interior_point
from games.market_response import certify, proportional_response
from games.market_smooth import smooth_newton


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
