"""What answers of convex programs are checked by: optimality, market clearing and Wardrop's principle."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Float
from games.quadratic import QuadraticGame


def measure_kkt(game: QuadraticGame, x: ArrayLike, multiplier: ArrayLike) -> float:
    """KKT residual of a variational equilibrium, relative to the sizes of what is compared.

    The largest of: coordinates outside their box, coupled limits broken beyond what they give, negative prices, price
    times slack, and gradient plus prices pointing where the coordinate could still go.
    """
    point, price = np.asarray(x, float), np.asarray(multiplier, float)
    if not (np.isfinite(point).all() and np.isfinite(price).all()):
        return float("inf")
    pull = game.linear.copy()
    for d in range(len(point)):
        pull += game.jacobian[:, d] * point[d]
    size = max(np.abs(game.linear).max(initial=0.0), np.abs(pull).max(initial=0.0)) or 1.0
    span = max(np.abs(point).max(initial=0.0), _widest(game.upper - game.lower)) or 1.0
    worst = 0.0
    for r in range(len(price)):
        slack = game.limit[r] + game.give[r] * price[r] - float(game.constraint[r] @ point)
        reach = float(np.abs(game.constraint[r]).sum()) * span  # what the left side may come to
        scale = max(abs(game.limit[r]) if np.isfinite(game.limit[r]) else 0.0, reach) or 1.0
        worst = max(worst, -slack / scale, -price[r] / size)
        if np.isfinite(slack):
            worst = max(worst, min(abs(price[r]) / size, abs(slack) / scale))
        pull = pull + price[r] * game.constraint[r]
    for d in range(len(point)):
        below, above = point[d] - game.lower[d], game.upper[d] - point[d]
        worst = max(worst, -below / span, -above / span)
        # wants to fall but is not at its lower end, or to rise but not at its upper
        if pull[d] > 0:
            worst = max(worst, min(pull[d] / size, below / span))
        else:
            worst = max(worst, min(-pull[d] / size, above / span))
    return float(worst)


def _widest(width: Float) -> float:
    """The widest finite interval."""
    return float(width[np.isfinite(width)].max(initial=0.0))


def measure_market(
    value: ArrayLike, budget: ArrayLike, capacity: ArrayLike, share: ArrayLike, price: ArrayLike
) -> tuple[float, float]:
    """Largest relative excess over a capacity, and the duality gap of an Eisenberg-Gale answer.

    The gap is in the budget-weighted mean of log utility, over the agents that value something; arrays as in
    :func:`games.market.eisenberg_gale`. inf where a price of a valued resource is 0, or someone gets nothing.
    """
    a, w, c = np.asarray(value, float), np.asarray(budget, float), np.asarray(capacity, float)
    x, p = np.asarray(share, float), np.asarray(price, float)
    excess = 0.0
    for k in range(len(c)):
        over = max(float(sum(x[:, k])) / c[k] - 1, -float(x[:, k].min(initial=0.0)) / c[k])
        excess = max(excess, over if np.isfinite(over) else np.inf)
    served = [i for i in range(len(w)) if (a[i] > 0).any()]
    money = sum(w[i] for i in served)
    worth = float(p @ c)
    gap = 0.0
    for i in served:
        utility = float(a[i] @ x[i])
        best = max((a[i, k] / p[k] if p[k] > 0 else np.inf) for k in range(len(c)) if a[i, k] > 0)
        gap += w[i] / money * (np.log(w[i] / money * worth * best / utility) if utility > 0 else np.inf)
    return excess, float(gap)


def measure_wardrop(
    rate: ArrayLike, service: ArrayLike, travel: ArrayLike, flow: ArrayLike, social: bool = False
) -> tuple[float, float]:
    """Largest relative error of a class's carried rate, and the relative excess paid over cheapest routes.

    Arrays as in :func:`games.routing.route`; inf where a server is loaded to its rate or beyond.
    """
    r, mu, d, x = (np.asarray(v, float) for v in (rate, service, travel, flow))
    y = x.sum(axis=0)
    if (y >= mu).any() or (x < 0).any():
        return np.inf, np.inf
    missed, paid, least = 0.0, 0.0, 0.0
    for i in range(len(r)):
        missed = max(missed, abs(float(x[i].sum()) - r[i]) / max(r[i], 1e-300) if r[i] > 0 else float(x[i].sum()))
        costs = []
        for k in range(len(mu)):
            cost = d[i, k] + (mu[k] / (mu[k] - y[k]) ** 2 if social else 1 / (mu[k] - y[k]))
            costs.append(cost)
            paid += x[i, k] * cost if x[i, k] > 0 else 0.0
        least += r[i] * min(costs) if r[i] > 0 else 0.0
    return missed, (paid - least) / paid if paid > 0 else 0.0
