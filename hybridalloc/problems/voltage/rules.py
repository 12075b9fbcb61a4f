"""Heuristics of the field as plans, each with the information that it is said to have.

- "none", "power_factor" (.95 drawn), "droop" (deadband .02 p.u. inside the band, the steepest slope permitted, reacting
  within the step; where q is held between steps, one damped move on the last voltages).
- "ieee1547b": the default curve of IEEE 1547-2018, category B, in equilibrium within the step.
- "mapdn_droop": MAPDN's droop as its script has it: iterated to rest on the present voltages. "mapdn_droop_run": the
  same curve as it could be run there, one full move a step on the last voltages.
- "opf_old": the reactive optimal power flow on the readings as told (own sun as it is now), held.
- "opf_now": the same on the loads as they are, which nobody knows: a bound, not a rival.

Sources: IEEE 1547-2018, table 8; Wang et al. (2021), "Multi-agent reinforcement learning for active voltage control on
power distribution networks" (MAPDN), and its ``traditional_control`` scripts.
"""

from __future__ import annotations

import numpy as np

from hybridalloc.problems.voltage import core
from hybridalloc.problems.voltage.plan import Plan, model_of
from hybridalloc.problems.voltage.setting import Prices
from hybridalloc.problems.voltage.standing import Feeders

BASELINES = {
    "none": "no reactive power", "power_factor": "power factor .95", "ieee1547b": "IEEE 1547 B, default",
    "droop": "deadband droop, steepest permitted", "mapdn_droop": "MAPDN's droop, present voltages",
    "mapdn_droop_run": "MAPDN's droop, last voltages", "opf_old": "OPF on old readings", "opf_now": "OPF now (bound)",
}  # fmt: skip
AS_PUBLISHED = ("ieee1547b", "mapdn_droop", "mapdn_droop_run")
BOUND = "opf_now"
FACTOR = 0.95
DEADBAND = 0.02
IEEE_B = np.array([0.92, 0.98, 1.02, 1.08]), np.array([0.44, 0.0, 0.0, -0.44])
MAPDN = np.array([0.95, 0.9999999, 1.0000001, 1.05]), np.array([1.0, 0.0, 0.0, -1.0])
GAIN, TURNS = 0.1, 400  # of MAPDN's script
TIGHT = 1e-4  # p.u. by which an optimum stays inside the band
OPTIMUM_ROUNDS = 12


def rule(world: Feeders, name: str) -> Plan:
    """The plan of a heuristic.

    Raises:
        UnknownNameError: no such heuristic.
    """
    if name not in BASELINES:
        world.unknown_baseline(name, BASELINES)
    p = world.problem
    held = world._local(Prices(slope=0.0))
    if name == "none":
        return held
    if name == "power_factor":
        drawn = -world.told["sun_mw"] * np.tan(np.arccos(FACTOR))
        return held._replace(level=np.clip(drawn, -world.most, world.most))
    if name == "droop":
        return droop(world, DEADBAND)
    if name == "ieee1547b":
        return held._replace(level=_curve(world, *IEEE_B, p.rating_mva, True, GAIN, TURNS))
    if name == "mapdn_droop":
        return held._replace(level=_curve(world, *MAPDN, p.rating_mva, False, GAIN, TURNS))
    if name == "mapdn_droop_run":
        return held._replace(level=_curve(world, *MAPDN, p.rating_mva, False, 1.0, 1))
    loads = np.stack([world.told["load_mw"], world.told["load_mvar"]]) if name == "opf_old" else world.truth
    aside = np.full((world.size, p.net.size), TIGHT)
    last = world.told["reactive_last_mvar"]
    found = model_of(p, *world.net_of(loads), world.most, last, aside, Prices(), OPTIMUM_ROUNDS, world.up)
    return held._replace(level=np.clip(found.level, -world.most, world.most))


def droop(world: Feeders, deadband: float) -> Plan:
    """The steepest droop permitted, from ``deadband`` p.u. inside the band: within the step, or where q is held one
    damped move on the last voltages."""
    p = world.problem
    if not p.held:
        return world._local(Prices(deadband=deadband, slope=p.steepest))
    points = np.array([0.0, p.low + deadband, p.high - deadband, 2.0])
    values = p.steepest * np.array([points[1], 0.0, 0.0, points[2] - 2.0])
    level = _curve(world, points, values, np.ones(len(p.net.inverter)), True, p.damped(p.steepest), 1)
    return world._local(Prices(slope=0.0))._replace(level=level)


def _curve(
    world: Feeders, points: np.ndarray, values: np.ndarray, share: np.ndarray, by_rating: bool, gain: float,
    turns: int,
) -> np.ndarray:  # fmt: skip
    """(E, N) where a volt-var curve ends: from nothing and on the present voltages, or from the last set-points and
    voltages in one move."""
    net = world.problem.net
    p, q = world.net_of(world.truth)
    level = np.zeros(world.most.shape)
    if turns == 1:
        level = np.clip(world.told["reactive_last_mvar"], -world.most, world.most)
    seen = world.told["voltage_last"]
    core.droop_many(
        net.tree, net.inverter, p, q, seen, world.most, np.ascontiguousarray(share), points, values, by_rating, gain,
        turns, level,
    )  # fmt: skip
    return np.clip(level, -world.most, world.most)
