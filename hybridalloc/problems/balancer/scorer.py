r"""What sending a request to each replica costs by what is believed of its load: private costs of the routing game.

.. math:: cost_r = \frac{tokens (w_r + p - cache\, h_r) / 1000 + requests (n_r + 1)}{(R c_r / v_r)^{exponent}}
    + memory \max(0, (k_r + p) / K_r - knee) + base\, t_r / 10 ms

for a prompt of p tokens of which h_r are cached, n_r requests, w_r prompt tokens that wait and k_r tokens in a KV
memory of K_r, as believed; c_r the share of the fleet's capacity, v_r how much slower than nominal it is, t_r the base
time of an iteration. Gumbel noise of size ``noise`` makes the least cost a draw from the Gibbs mixed strategy about it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.lean import INLINE, INNER


class BalancerPrices(NamedTuple):
    """What the routing game charges; tuned by random search for every method alike."""

    tokens: float = 2.7  # a thousand prompt tokens that wait or come
    requests: float = 0.06  # a request that is there
    memory: float = 0.0  # KV memory beyond the knee, all of it
    knee: float = 0.8
    cache: float = 1.0  # how much of what is cached is taken for saved
    base: float = 0.0  # 10 ms of an iteration's base time
    exponent: float = 0.5  # of capacity
    noise: float = 0.2  # of the mixed strategy
    fade_requests: float = 1.1  # s that a report of requests lasts, for the blend
    fade_tokens: float = 0.25  # s that one of waiting tokens does
    alike: float = 0.4  # how much others are taken to do as oneself
    speed: float = 0.0  # exponent of learned speeds; 0: nominal ones
    hold: float = 1000.0  # what waiting at the dispatcher costs: where every replica costs more, a request waits


@njit(**INNER)
def cost_of(load, view, prompt, share, fleet, prices, speed, cost):
    """Fill ``cost`` (R,), before noise. ``speed`` (R,): how much slower than nominal each is taken to be."""
    replicas = len(cost)
    for r in range(replicas):
        strength = capacity_of(r, replicas, share, speed, prices)
        work = prices.tokens * (load[r, 1] + prompt - prices.cache * view.hit[r]) / 1000.0
        over = (load[r, 2] + prompt) / fleet.kv[r] - prices.knee
        cost[r] = (work + prices.requests * (load[r, 0] + 1.0)) / strength
        cost[r] += prices.memory * max(0.0, over) + prices.base * fleet.base_s[r] * 100.0


@njit(**INLINE)
def capacity_of(r, replicas, share, speed, prices):
    """A replica's capacity in the game: 1 on average at exponent 1."""
    slower = speed[r] ** prices.speed if prices.speed > 0.0 else 1.0
    return (share[r] * replicas / slower) ** prices.exponent


@njit(**INLINE)
def gumbel(u):
    """From a uniform number in [0, 1), a draw of the standard Gumbel law."""
    return -np.log(-np.log(u * 0.9999990 + 5e-7))
