"""What recommenders read of a feeder."""

from __future__ import annotations

import numpy as np

from hybridalloc.problems.voltage.profiles import DAY
from hybridalloc.problems.voltage.standing import Feeders
from rl.proposal import Observation


def observed(world: Feeders) -> Observation:
    """Features of order one; options are the marks."""
    p, t = world.problem, world.told
    at = p.net.inverter
    voltage, _, solved = world._flow(*world.believed()[:1], np.zeros(world.most.shape))
    voltage = np.where(solved[:, None], voltage, 1.0)
    swing = 20 * world.most * p.own_x
    rating, dev = t["rating_mva"], lambda v: np.clip(20 * (v - 1), -5, 5)
    agent = np.stack([
        t["sun_mw"] / rating, world.most / rating, dev(t["voltage_last"]), dev(t["voltage_before"]),
        np.clip(t["reactive_last_mvar"] / rating, -2, 2), dev(voltage[:, at]), np.clip(swing, 0, 5),
    ], -1)  # fmt: skip
    hour = 2 * np.pi * (world.step % DAY) / DAY
    total = max(float(p.net.load_mw.sum()), 1e-9)
    whole = np.stack([
        dev(voltage[:, 1:].max(1, initial=1.0)), dev(voltage[:, 1:].min(1, initial=1.0)),
        np.clip(t["load_mw"].sum(1) / total, -5, 5), np.clip(t["sun_mw"].sum(1) / total, 0, 5), np.sin(hour),
        np.cos(hour),
    ], -1)[:, None]  # fmt: skip
    share = np.broadcast_to(p.marks, (*world.most.shape, len(p.marks)))
    moved = dev(voltage[:, at])[..., None] + np.clip(swing, 0, 5)[..., None] * share
    width = 10 * (p.high - p.low)
    pair = np.stack([share, share**2, moved, np.maximum(np.abs(moved) - width, 0.0)], -1)
    of = np.where(np.arange(len(p.marks)) > 0, 0, -1)
    allowed = np.ones(share.shape, bool)
    allowed[~world.up, 1:] = False
    f = np.float32
    return Observation(agent.astype(f), whole.astype(f), pair.astype(f), world.up.copy(), allowed, of)
