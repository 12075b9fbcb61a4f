"""The packing game of one round: who holds which place, for what each job is worth there."""

from __future__ import annotations

import numpy as np

from games.congestion import Float
from games.packing import Packing
from hybridalloc.problems.cluster.queue.prices import QueuePrices
from hybridalloc.problems.cluster.queue.standing import HOUR, Queues

CURVE = 9  # points of a pool's potential
SOON = 0.05  # hours: who has less left is worth no more


def worth(world: Queues, e: int, prices: QueuePrices) -> Float:
    """(N,) w_i of :class:`QueuePrices`."""
    q = prices
    weight = (world.expected[e] + SOON) ** -q.left * world.at["gang"][e].astype(float) ** -q.gang
    return np.asarray(weight * (1.0 + q.weight * np.maximum(world.ratio(e) - q.mark, 0.0)))


def packing_of(world: Queues, e: int, prices: QueuePrices | None, told: bool = True) -> Packing:
    """The game of world ``e``. Without prices a place is worth a job's speed there, less what a start costs, and all
    are of one class; who is not ``told`` what is left takes it to be as much as was done."""
    n, p = world.speed.shape[1:]
    w, r = len(world.setup.pools), len(world.rack_w)
    pool, place = world.setup.pool, world.at["place"][e]
    legs = 1 + (r > 0) + (len(world.quota) > 0)
    rows, demand = np.full((n, 1 + p, legs), -1), np.zeros((n, 1 + p, legs))
    rows[:, 1:, 0], demand[:, 1:, 0] = pool, world.taken[e]
    if r:
        rows[:, 1:, 1] = np.where(world.rack[pool] >= 0, w + world.rack[pool], -1)
        demand[:, 1:, 1] = world.taken[e] * world.watts[pool]
    if len(world.quota):
        team = world.at["team"][e][:, None]
        rows[:, 1:, -1], demand[:, 1:, -1] = np.where(team >= 0, w + r + team, -1), world.taken[e]
    demand[rows < 0] = 0.0
    capacity = np.concatenate([world.room(e), world.rack_w, world.quota]).astype(float)
    speed, same = world.paced(e), place[:, None] == 1 + np.arange(p)
    ok, private = np.zeros((n, 1 + p), bool), np.zeros((n, 1 + p))
    ok[:, 1:] = world.there[e][:, None] & (speed > 0) & (world.taken[e] <= world.room(e)[pool])
    rank, curve = np.zeros(n, np.int64), np.zeros((len(capacity), CURVE))
    done = (world.at["alone"][e] - world.at["true"][e]) / HOUR
    hours = world.expected[e] if told else np.maximum(done, 0.0)
    lost = world.problem.restart_s / np.maximum(HOUR * hours, world.problem.round_s)
    moved = speed * np.where(same, 1.0, 1.0 - np.minimum(lost, 1.0)[:, None])
    if prices is None:
        private[:, 1:] = -(moved + 1e-9 * same)
    else:
        private[:, 1:] = -worth(world, e, prices)[:, None] * (moved + prices.some + prices.stay * same)
        rank = np.unique(-world.at["priority"][e], return_inverse=True)[1]
        fill = np.linspace(0, 1, CURVE)
        curve[:w] = -prices.tight * capacity[:w, None] * fill**2
    pinned = world.pinned(e)
    ok[pinned, 1:] &= same[pinned]
    private[~ok] = 0.0
    stay, preempt = np.where(pinned, place, 0), np.where(pinned, np.inf, 0.0)
    return Packing(rows, demand, capacity, curve, private, ok, rank.astype(np.int64), stay, preempt)
