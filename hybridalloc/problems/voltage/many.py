r"""The game of many inverters, on the feeder's own tree: rounds of it on the exact flow, and the model where they end.

The resistance that the paths to i and j share is summed along the tree, and so is what a Mvar adds to a voltage,
:math:`X_{ki} / (v_k v_i^2)`: a game of :mod:`games.tree`, with no matrix of inverters by inverters or by buses. The
loss's slope is that of the flow's own currents. Otherwise it is as
:func:`hybridalloc.problems.voltage.core.model_about`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from games.congestion import Bool, Float
from games.tree import TreeBatch
from hybridalloc.problems.voltage.core import KW, MPU, PRECISE, ROUGH, injected, potential, slopes_along

if TYPE_CHECKING:
    from hybridalloc.problems.voltage.setting import Prices, VoltageSetting

FLAT = 1e-5  # of the resistance of an inverter's path: its own cost curves by no less
HALVINGS, NEARER = 12, 8


class Played(NamedTuple):
    """Where rounds ended, level (E, N); the game about that, in kW; found (E,) whether there is a flow at all; voltage
    (E, B) about which the game is."""

    level: Float
    game: TreeBatch
    found: Bool
    voltage: Float


def rounds_of(
    s: VoltageSetting, p: Float, q: Float, most: Float, start: Float, low: Float, high: Float, prices: Prices,
    rounds: int, live: Bool,
) -> Played:  # fmt: skip
    """Rounds from ``start`` (E, N) for net loads p, q (E, B) in the band low, high (E, B), p.u."""
    net, e, b = s.net, len(most), s.net.size
    cost = KW * (1 + prices.toll) * net.r
    own = KW * ((1 - prices.toll) * s.own_r + 2 * prices.wear / KW)
    own = np.maximum(own, FLAT * KW * (1 + prices.toll) * s.own_r)[:, None]
    give = np.full((1, b), MPU**-2 / prices.breach if prices.breach > 0 else 1e12)
    open_end = np.arange(b) > 0  # the substation's voltage is nobody's to move
    charge = prices.toll, prices.wear / KW
    weight = prices.breach * MPU**2 / KW
    net_q, work, near, slope = np.empty(b), np.empty((4, b)), np.empty(b), np.empty(b)
    level, found, voltage, games = np.clip(start, -most, most), np.zeros(e, bool), np.ones((e, b)), []

    def flow(k: int, x: Float, v: Float, from_near: bool) -> float:
        return float(injected(net.tree, net.inverter, p[k], q[k], x, PRECISE, net_q, work, v, from_near))

    def about(k: int, x: Float, v: Float) -> TreeBatch:
        """The game of steps from x."""
        slopes_along(net.tree, work, v, slope)
        force = KW * (1 + prices.toll) / 2 * slope[net.inverter] + own[:, 0] * x
        row = lambda a: np.ascontiguousarray(a, np.float64)[None]
        return TreeBatch(
            net.parent, net.inverter, cost, net.x, own[None], row(force)[..., None], row(-most[k] - x)[..., None],
            row(most[k] - x)[..., None], row(v[net.inverter] ** -2.0)[..., None], row(1 / v),
            row(np.where(open_end, low[k] - v, -np.inf)), row(np.where(open_end, high[k] - v, np.inf)), give,
            live[k : k + 1],
        )  # fmt: skip

    for k in range(e):
        x, v = level[k], voltage[k]
        loss = flow(k, x, v, False)
        for _ in range(NEARER):  # nearer to nothing until there is a flow
            if loss < np.inf:
                break
            x *= 0.5
            loss = flow(k, x, v, False)
        found[k] = loss < np.inf
        if not found[k]:
            v[:] = 1.0
            work[:] = 0.0
        game, turn = about(k, x, v), 0 if found[k] else rounds
        worth = potential(loss, v, x, s.own_r, *charge, low[k], high[k], weight) if found[k] else 0.0
        while turn < rounds:
            step, length, after, reached = game.solve(tolerance=100 * ROUGH).level[0, :, 0], 1.0, 0.0, np.inf
            for _ in range(HALVINGS):
                trial = x + length * step
                after = flow(k, trial, near, after < np.inf)
                if after < np.inf:
                    reached = potential(after, near, trial, s.own_r, *charge, low[k], high[k], weight)
                    if reached < worth - 1e-12:
                        break
                length *= 0.5
            else:  # at rest
                break
            turn = rounds if worth - reached < 1e-8 * max(abs(worth), 1e-6) else turn + 1
            worth, x[:], v[:] = reached, trial, near
            game = about(k, x, v)
        games.append(game.shifted(x[None, :, None]))
    parts = (np.concatenate([getattr(game, name) for game in games]) for name in TreeBatch._fields[4:])
    return Played(level, TreeBatch(net.parent, net.inverter, cost, net.x, *parts), found, voltage)
