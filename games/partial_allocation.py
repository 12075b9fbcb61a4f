r"""Partial allocation: a market in which nobody gains by misreporting, at the price of leaving part of it undivided.

With x* the Eisenberg-Gale allocation of all and x*_{-i} that of all but i, agent i keeps the part

.. math:: f_i = \left( \prod_{j \ne i} \frac{u_j(x^*)^{w_j}}{u_j(x^*_{-i})^{w_j}} \right)^{1 / w_i}

of what x* gives it: it pays, in allocation, for what its presence takes from the others, as Vickrey's, Clarke's and
Groves' payments would in money. For utilities that are homogeneous of degree one (those of a market are linear) telling
the truth is then best for every agent whatever the others say, and everyone keeps more than 1/e of its fair share.

Source: Cole, Gkatzelis and Goel (2013), "Mechanism design for fair division: allocating divisible items without
payments", theorems 3.1 to 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Float
from games.market import Market, eisenberg_gale


@dataclass(frozen=True)
class PartialAllocation:
    """What each agent keeps.

    Attributes:
        share: (N, K) amount of each resource; the rest of the capacity stays undivided.
        fraction: (N,) f_i, in (1/e, 1]; 1 for who values nothing.
        utility: (N,) of ``share``, as reported.
        market: the Eisenberg-Gale market of all.
        gap: the largest duality gap of the N + 1 markets that were solved: what a lie may gain is of its order.
        converged: whether all of them are within the tolerance.
    """

    share: Float
    fraction: Float
    utility: Float
    market: Market
    gap: float
    converged: bool


def partial_allocation(
    value: ArrayLike, budget: ArrayLike, capacity: ArrayLike, *, tolerance: float = 1e-9
) -> PartialAllocation:
    """The mechanism for linear utilities: N + 1 markets.

    Args:
        value: (N, K) reported utility of a unit of each resource, >= 0. budget: (N,) weights, > 0. capacity: (K,) > 0.
        tolerance: duality gap of each market.

    Raises:
        InvalidStateError: as :func:`games.market.eisenberg_gale`.
    """
    market = eisenberg_gale(value, budget, capacity, tolerance=tolerance)
    a, w = np.asarray(value, np.float64), np.asarray(budget, np.float64)
    served = ~market.unserved
    together = np.log(np.where(served, market.utility, 1.0))
    fraction, gap, converged = np.ones(len(a)), market.gap, market.converged
    for i in np.flatnonzero(served):
        rest = np.arange(len(a)) != i
        without = eisenberg_gale(a[rest], w[rest], capacity, tolerance=tolerance)
        alone = np.log(np.where(served[rest], without.utility, 1.0))
        fraction[i] = np.exp(min((w[rest] * (together[rest] - alone)).sum() / w[i], 0.0))
        gap, converged = max(gap, without.gap), converged and without.converged
    share = fraction[:, None] * market.share
    return PartialAllocation(share, fraction, fraction * market.utility, market, float(gap), bool(converged))
