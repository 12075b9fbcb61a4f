"""Exact payoff tables of two inverters on one feeder: what each pair of set-points pays, on the exact flow.

Small enough to enumerate: what a learner can express, and what it misses, is then no matter of training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from games.congestion import Float
from hybridalloc.problems.voltage.feeder import feeder_named
from hybridalloc.problems.voltage.plan import Plan, reacted
from hybridalloc.problems.voltage.problem import Voltage
from hybridalloc.problems.voltage.profiles import DAY, days
from hybridalloc.problems.voltage.reward import paid
from hybridalloc.problems.voltage.setting import Prices


def two_inverters(a: int, b: int, band: float, **settings: Any) -> Voltage:
    """Baran and Wu's feeder with inverters of 2 MW at two of its buses, by number, and much rooftop sun."""
    net = feeder_named("case33")
    at = np.array([int(np.flatnonzero(net.bus == bus)[0]) for bus in (a, b)])
    two = replace(net, name=f"two-{a}-{b}", inverter=at)
    fixed: dict[str, Any] = {"information": "now", "held": True, "sun_mw": 4.0, "roof_mw": 7.0}
    return Voltage(feeder=two.name, table=two, low=1 - band, high=1 + band, **fixed, **settings)


def closeness(problem: Voltage) -> float:
    """How much of the paths to two inverters is shared, by reactance: 0 on two feeders, 1 at one bus."""
    x = problem.between_x
    return float(x[0, 1] / np.sqrt(x[0, 0] * x[1, 1]))


def payoffs(problem: Voltage, reward: str, states: int, seed: int = 0) -> Float:
    """(T, L, L) exact pay of every pair of levels, from least to most, at T steps whose voltages leave the band when
    nothing is done.

    Args:
        reward: "loss" is loss and 50 a mpu outside, in kW; "cr" a step outside and a tenth of the mean Mvar; or one of
            MAPDN's, see :mod:`hybridalloc.problems.voltage.reward`.
    """
    rng = np.random.default_rng(seed)
    learn = days().learn
    drawn = rng.choice(learn, 40 * states) * DAY + rng.integers(0, DAY, 40 * states)
    world = problem.worlds(range(len(drawn)))
    world.step[:] = drawn
    world._tell()
    idle = world._react(world._local(Prices(slope=0.0)), world.truth)
    outside = lambda v: np.maximum(np.maximum(problem.low - v, v - problem.high), 0.0)[:, 1:].max(1, initial=0.0)
    which = np.flatnonzero(~idle.solved | (outside(np.nan_to_num(idle.voltage, nan=0.0)) > 1e-6))[:states]
    p, q = (part[which] for part in world.net_of(world.truth))
    most, marks = world.most[which], np.sort(problem.marks)
    plan = world._local(Prices(slope=0.0))
    plan = Plan(*(part[which] for part in plan))
    out = np.zeros((len(which), len(marks), len(marks)))
    for i, first in enumerate(marks):
        for j, second in enumerate(marks):
            found = reacted(problem, plan._replace(level=np.array([first, second]) * most), p, q, most)
            bad = ~found.solved
            voltage = np.where(bad[:, None], 1.0, found.voltage)
            over = np.where(bad, 0.2, outside(voltage))
            if reward == "loss":
                out[:, i, j] = -np.where(bad, 5e3, 1e3 * found.loss) - 50e3 * over
            elif reward == "cr":
                out[:, i, j] = -1.0 * (over > 1e-6) - 0.1 * np.abs(found.level).mean(1)
            else:
                out[:, i, j] = paid(reward, 0.0 * over, voltage, found.level, found.solved)
    return out
