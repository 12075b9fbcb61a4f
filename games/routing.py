r"""Routing to M/M/1 queues: the traffic equilibrium (Wardrop) and the least total delay.

Classes i send rate :math:`r_i` over servers k with service rate :math:`\mu_k` and travel delay :math:`d_{ik}`. At
total :math:`y_k` a job waits :math:`1/(\mu_k - y_k)`. Selfish traffic minimises Beckmann's potential
:math:`\sum_{ik} d_{ik} x_{ik} - \sum_k \log(\mu_k - y_k)`; the planner minimises
:math:`\sum_{ik} d_{ik} x_{ik} + \sum_k y_k / (\mu_k - y_k)`, which is the selfish traffic under the marginal toll
:math:`y_k / (\mu_k - y_k)^2`. Both by a primal-dual interior point: classes meet only in the K totals, so a step
costs one K x K solve. (Replies of one class at a time were tried and crawl where servers are nearly full:
classes cannot swap servers without a detour.) The gap is measured on the flows, not taken from the iteration.

Sources: Wardrop (1952); Beckmann, McGuire and Winsten (1956), "Studies in the Economics of Transportation";
Gallager (1977) and Bertsekas and Gallager (1992), section 5.4, for queues.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from games.congestion import Float
from games.errors import InvalidStateError, floats, shaped


@dataclass(frozen=True)
class Routing:
    """Flows over the servers.

    Attributes:
        flow: (N, K) rate of class i to server k, in jobs/s.
        delay: (K,) s, time in each server, without travel.
        price: (K,) s, marginal toll y / (mu - y)^2: what one more job/s costs the others there.
        mean_delay: s, travel and queue, over all jobs.
        gap: relative excess of what jobs pay over their cheapest route (0 at the equilibrium).
        steps: Newton steps.
        shortfall: jobs/s by which demand exceeds what can be served (0 if feasible).
        status: "optimal", "infeasible", or what stopped it.
    """

    flow: Float
    delay: Float
    price: Float
    mean_delay: float
    gap: float
    steps: int
    shortfall: float
    status: str


def route(
    rate: ArrayLike,
    service: ArrayLike,
    travel: ArrayLike,
    *,
    social: bool = False,
    tolerance: float = 1e-8,
    max_steps: int = 100,
    start: ArrayLike | None = None,
) -> Routing:
    """Wardrop equilibrium, or with ``social`` the least total delay.

    Args:
        rate: (N,) jobs/s of each class, >= 0.
        service: (K,) jobs/s, > 0.
        travel: (N, K) s, >= 0; inf where a class cannot go.
        social: minimise total delay rather than let each class do what is best for it.
        tolerance: of the relative gap.
        max_steps: Newton steps.
        start: (N, K) flows to warm-start from; used where it is feasible.

    Returns:
        Routing. Where demand cannot be served, status is "infeasible", ``shortfall`` says by how much, and
        the flows are those of an even use of all servers, above capacity.

    Raises:
        InvalidStateError: names field, index, value and what is permitted.
    """
    r, mu = floats("rate", rate), floats("service", service)
    d = floats("travel", travel)
    if r.ndim != 1 or mu.ndim != 1 or d.shape != (len(r), len(mu)):
        raise InvalidStateError(f"travel has shape {d.shape}; rates and servers need ({r.size}, {mu.size})")
    for name, array, good, rule in (
        ("rate", r, np.isfinite(r) & (r >= 0), "a rate is finite and >= 0"),
        ("service", mu, np.isfinite(mu) & (mu > 0), "a service rate is finite and > 0"),
        ("travel", d, d >= 0, "a travel delay is >= 0, inf where there is no way"),
    ):
        if not good.all():
            at = tuple(np.argwhere(~good)[0])
            raise InvalidStateError(f"{name}[{', '.join(map(str, at))}] = {array[at]}; {rule}")
    reach = np.isfinite(d)
    lost = (r > 0) & ~reach.any(axis=1)
    if lost.any():
        raise InvalidStateError(f"travel[{int(lost.argmax())}] reaches no server; allow at least one")
    n, k = d.shape
    if n == 0 or not (r > 0).any():
        return Routing(np.zeros((n, k)), 1 / mu, np.zeros(k), 0.0, 0.0, 0, 0.0, "optimal")
    flow, load = _even_use(r, mu, reach)
    if load >= 1 - 1e-9:
        short = max(0.0, float(r.sum() - mu.sum())) if reach.all() else _unserved(r, mu, reach)
        y = flow.sum(axis=0)
        with np.errstate(divide="ignore"):
            delay = np.where(y < mu, 1 / (mu - y), np.inf)
        return Routing(flow, delay, np.full(k, np.inf), np.inf, np.inf, 0, short, "infeasible")
    if start is not None:
        warm = np.where(reach, shaped("start", start, (n, k), 0.0), 0)
        total = warm.sum(axis=1)
        if (total[r > 0] > 0).all():
            warm *= np.divide(r, total, out=np.zeros(n), where=total > 0)[:, None]
            if (warm.sum(axis=0) < mu * (1 - 1e-6)).all():
                flow = warm
    unit = mu.max()  # rates in units of the fastest server, delays in its service times
    x, steps = _interior(
        r / unit, mu / unit, np.where(reach, d * unit, np.inf), flow / unit, social, 0.1 * tolerance, max_steps
    )
    flow = x * unit
    y = flow.sum(axis=0)
    delay, toll = 1 / (mu - y), y / (mu - y) ** 2
    paid = np.where(reach, d, 0) + delay + (toll if social else 0.0)
    total = float((flow * paid).sum())
    cheapest = np.where(reach, paid, np.inf).min(axis=1, initial=np.inf)
    gap = (total - float(r[r > 0] @ cheapest[r > 0])) / total
    status = "optimal" if gap <= tolerance else f"stopped after {steps} steps with gap {gap:.1e}"
    mean = float((flow * (np.where(reach, d, 0) + delay)).sum() / r.sum())
    return Routing(flow, delay, toll, mean, max(gap, 0.0), steps, 0.0, status)


def _even_use(r: Float, mu: Float, reach: np.ndarray) -> tuple[Float, float]:
    """Flows whose largest utilisation is least, and that utilisation."""
    if reach.all():
        return np.outer(r, mu / mu.sum()), float(r.sum() / mu.sum())
    cells = np.argwhere(reach)
    m = len(cells)
    demand = np.zeros((len(r), m + 1))
    demand[cells[:, 0], np.arange(m)] = 1
    use = np.zeros((len(mu), m + 1))
    use[cells[:, 1], np.arange(m)] = 1 / mu[cells[:, 1]]
    use[:, -1] = -1
    answer = linprog(np.append(np.zeros(m), 1), use, np.zeros(len(mu)), demand, r, method="highs")
    flow = np.zeros(reach.shape)
    flow[cells[:, 0], cells[:, 1]] = np.maximum(answer.x[:m], 0)
    return flow, float(answer.x[-1])


def _unserved(r: Float, mu: Float, reach: np.ndarray) -> float:
    """Demand left over by the largest flow."""
    cells = np.argwhere(reach)
    m = len(cells)
    limits = np.zeros((len(r) + len(mu), m))
    limits[cells[:, 0], np.arange(m)] = 1
    limits[len(r) + cells[:, 1], np.arange(m)] = 1
    answer = linprog(-np.ones(m), limits, np.append(r, mu), method="highs")
    return float(r.sum() + answer.fun)


def _interior(
    r: Float, mu: Float, d: Float, start: Float, social: bool, tolerance: float, most: int
) -> tuple[Float, int]:
    """Primal-dual interior point: flows (N, K) that carry exactly r, and steps."""
    reach = np.isfinite(d) & (r > 0)[:, None]
    d = np.where(reach, d, 0.0)
    even = reach / np.maximum(reach.sum(axis=1, keepdims=True), 1) * r[:, None]
    # inside: every way used, and every server keeps a tenth of the room it has at ``start``
    mix = 0.5
    while (((1 - mix) * start + mix * even).sum(axis=0) >= mu - 0.1 * (mu - start.sum(axis=0))).any():
        mix *= 0.5
    x = np.where(reach, (1 - mix) * start + mix * even, 1.0)
    y = np.where(reach, x, 0.0).sum(axis=0)
    slope, _ = _marginal(mu, y, social)
    cost = d + slope
    level = np.where(reach, cost, np.inf).min(axis=1)
    level = np.where(np.isfinite(level), level, 0.0)
    mean = float((np.where(reach, x, 0.0) * cost).sum()) / max(int(reach.sum()), 1)
    z = np.where(reach, np.maximum(cost - level[:, None], mean / x), 1.0)
    for step in range(most):
        y = np.where(reach, x, 0.0).sum(axis=0)
        slope, curve = _marginal(mu, y, social)
        cost = d + slope
        paid = float(np.where(reach, x * cost, 0.0).sum())
        best = np.where(reach, cost, np.inf).min(axis=1, initial=np.inf, where=reach)
        if paid - float(r[r > 0] @ best[r > 0]) <= tolerance * paid:
            return _carry(x, reach, r), step
        product = float(np.where(reach, x * z, 0.0).sum()) / int(reach.sum())
        D = np.where(reach, x / z, 0.0)
        rowsum = np.maximum(D.sum(axis=1), 1e-300)
        V = D / np.sqrt(rowsum)[:, None]
        system = np.diag(1 / curve + D.sum(axis=0)) - V.T @ V
        missing = r - np.where(reach, x, 0.0).sum(axis=1)
        dual_gap = cost - level[:, None] - z
        # predictor for the centring weight, then the corrected step
        centre, second = 0.0, np.zeros_like(x)
        for attempt in range(2):
            rho = -dual_gap + (centre - x * z - second) / x
            push = D * (rho + ((missing - (D * rho).sum(axis=1)) / rowsum)[:, None])
            force = np.linalg.solve(system, push.sum(axis=0))  # curvature times the change of y
            dlevel = (missing - (D * (rho - force)).sum(axis=1)) / rowsum
            dx = D * (rho - force + dlevel[:, None])
            dz = np.where(reach, dual_gap + force - dlevel[:, None], 0.0)
            size = 1.0
            for value, change in ((x, dx), (z, dz)):
                down = reach & (change < 0)
                if down.any():
                    size = min(size, float((-value[down] / change[down]).min()))
            dy = dx.sum(axis=0)
            rising = dy > 0
            if rising.any():
                size = min(size, float(((mu - y)[rising] / dy[rising]).min()))
            if attempt == 0:
                ahead = float(np.where(reach, (x + size * dx) * (z + size * dz), 0.0).sum())
                centre = product * max(1e-3, min(1.0, ahead / (product * int(reach.sum())))) ** 2
                second = dx * dz if size > 0.1 else second
        size = min(1.0, (0.99 if size > 0.3 else 0.9) * size)
        x = np.where(reach, x + size * dx, 1.0)
        z = np.where(reach, z + size * dz, 1.0)
        level = level + size * dlevel
    return _carry(x, reach, r), most


def _marginal(mu: Float, y: Float, social: bool) -> tuple[Float, Float]:
    """First and second derivative of each server's term of the objective."""
    left = mu - y
    return (mu / left**2, 2 * mu / left**3) if social else (1 / left, 1 / left**2)


def _carry(x: Float, reach: np.ndarray, r: Float) -> Float:
    flow = np.where(reach, x, 0.0)
    total = flow.sum(axis=1)
    return flow * np.divide(r, total, out=np.zeros_like(r), where=total > 0)[:, None]
