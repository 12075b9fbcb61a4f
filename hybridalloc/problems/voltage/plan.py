"""A plan for E feeders and what it comes to on given loads; the game's model about where its rounds end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from games.congestion import Bool, Float
from games.quadratic_batch import QuadraticBatch
from games.tree import TreeBatch
from hybridalloc.problems.voltage import core
from hybridalloc.problems.voltage.core import KW, MPU
from hybridalloc.problems.voltage.flow import TOLERANCE, sweep_many
from hybridalloc.problems.voltage.many import rounds_of
from hybridalloc.problems.voltage.setting import Prices, VoltageSetting


class Plan(NamedTuple):
    """Set-points (E, N), Mvar fed in, and how the inverters react: beyond ``deadband`` (E,) p.u. inside the band, by
    ``slope`` (E,) Mvar a p.u. of their own voltage, 0 holds the set-point. Their curve passes through the set-point at
    the voltage ``expected`` (E, N), so that only what was not foreseen is reacted to."""

    level: Float
    deadband: Float
    slope: Float
    expected: Float


class Flowing(NamedTuple):
    """What a plan comes to on given loads: voltages (E, B), loss (E,) MW, reactive power (E, N), solved (E,)."""

    voltage: Float
    loss: Float
    level: Float
    solved: Bool


class Model(NamedTuple):
    """Where rounds ended, level (E, N); the game about that, in kW, as matrices or, of more than ``core.EXACT``
    inverters, on the feeder's tree; found (E,) whether there is a flow; voltage (E, B) about which the game is."""

    level: Float
    game: QuadraticBatch | TreeBatch
    found: Bool
    voltage: Float


def flowing(s: VoltageSetting, p: Float, q: Float, level: Float) -> tuple[Float, Float, Bool]:
    """Voltages (E, B), loss (E,) MW and whether there is a flow, with ``level`` (E, N) fed in beside p, q (E, B)."""
    q = q.copy()
    q[:, s.net.inverter] -= level
    voltage, loss, sweeps = np.empty(p.shape), np.empty(len(p)), np.empty(len(p), np.int64)
    sweep_many(s.net.tree, p, q, TOLERANCE, voltage, loss, sweeps)
    return voltage, loss, sweeps > 0


def reacted(s: VoltageSetting, plan: Plan, p: Float, q: Float, most: Float) -> Flowing:
    """A plan on net loads p, q (E, B), within ``most`` (E, N), after the local reaction."""
    voltage, loss = np.empty(p.shape), np.empty(len(p))
    level, done = np.zeros(plan.level.shape), np.zeros(len(p), np.int64)
    for slope in np.unique(plan.slope):
        some = plan.slope == slope
        dead = np.repeat(plan.deadband[some][:, None], plan.level.shape[1], 1)
        low, high, at = s.low + dead, s.high - dead, plan.expected[some]
        anchor = plan.level[some] + slope * (np.maximum(at - high, 0.0) - np.maximum(low - at, 0.0))
        part = voltage[some], loss[some], plan.level[some], done[some]
        core.react_many(
            s.net.tree, s.net.inverter, p[some], q[some], anchor, most[some], low, high, float(slope),
            s.damped(float(slope)), core.REACTIONS, *part,
        )  # fmt: skip
        voltage[some], loss[some], level[some], done[some] = part
    return Flowing(voltage, loss, level, done > 0)


def model_of(
    s: VoltageSetting, p: Float, q: Float, most: Float, start: Float, aside: Float, prices: Prices,
    rounds: int | None, live: Bool,
) -> Model:  # fmt: skip
    """The game's model about where its rounds from ``start`` (E, N) end, for net loads p, q (E, B) and margins (E, B)
    p.u. inside the band; ``live`` (E, N)."""
    e, n, net = len(most), most.shape[1], s.net
    low, high, rounds = s.low + aside, s.high - aside, s.rounds if rounds is None else rounds
    if n > core.EXACT:
        return Model(*rounds_of(s, p, q, most, start, low, high, prices, rounds, live))
    rows = 2 * (net.size - 1)
    level, voltage, found = np.clip(start, -most, most), np.ones((e, net.size)), np.zeros(e, bool)
    jacobian, linear = np.zeros((e, n, n)), np.zeros((e, n))
    constraint, limit = np.zeros((e, rows, n)), np.zeros((e, rows))
    core.model_about(
        net.tree, net.inverter, s.shared_r, p, q, most, low, high, prices.toll, prices.wear / KW,
        prices.breach * MPU**2 / KW, rounds, level, jacobian, linear, constraint, limit, found, voltage,
    )  # fmt: skip
    give = np.full(limit.shape, MPU**-2 / prices.breach if prices.breach > 0 else 1e12)
    box = most[..., None]
    game = QuadraticBatch(KW * jacobian, KW * linear[..., None], -box, box, constraint, limit, live, give)
    return Model(level, game, found, voltage)
