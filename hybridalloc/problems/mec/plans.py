"""Plans: empty ones, from an allocation, as an allocation's fields, and by how much one breaks a limit."""

from __future__ import annotations

from typing import Any

import numpy as np

from games.certificate import count_excess
from games.congestion import Bool, Float
from hybridalloc.problems.mec.arrays import HORIZON, Outcome, Physics, Plan


def empty_plan(e: int, n: int, b: int, k: int) -> Plan:
    """Of E networks with N devices, B bands and K servers."""
    parts = np.zeros((6, e, n))
    return Plan(
        np.empty((e, n), np.int64), parts[0], parts[1], parts[2], parts[3], np.ones((e, n), bool), np.zeros((e, b)),
        np.zeros((e, k)), np.empty((e, n), bool), parts[4], parts[5],
    )  # fmt: skip


def empty_outcome(e: int, n: int, b: int) -> Outcome:
    """Of E networks in which nothing has happened."""
    f = lambda *shape: np.zeros((e, *shape))
    flag = lambda: np.zeros((e, n), bool)
    return Outcome(f(n), flag(), f(n), f(n), f(), f(n), flag(), f(n), f(n, HORIZON), f(b))


def plan_of(allocation: Any) -> Plan:
    """An allocation of one network as a plan."""
    one = lambda a, t=np.float64: np.ascontiguousarray(a, dtype=t)[None]
    zero = np.zeros(len(allocation.option))
    held, floors = getattr(allocation, "held", zero), getattr(allocation, "floors", {})  # absent: nothing promised
    return Plan(
        one(allocation.option, np.int64), one(allocation.shares["air"]), one(allocation.shares["cpu"]),
        one(allocation.power), one(allocation.fraction), one(allocation.served, np.bool_),
        one(allocation.prices["air"]), one(allocation.prices["cpu"]), one(held, np.bool_),
        one(floors.get("air", zero)), one(floors.get("cpu", zero)),
    )  # fmt: skip


def parts_of(plan: Plan, e: int) -> dict[str, Any]:
    """Network ``e`` of a plan as the fields of an allocation."""
    return {
        "option": plan.option[e], "shares": {"air": plan.air[e], "cpu": plan.cpu[e]}, "power": plan.power_w[e],
        "fraction": plan.fraction[e], "served": plan.served[e],
        "prices": {"air": plan.air_price[e], "cpu": plan.cpu_price[e]}, "held": plan.held[e],
        "floors": {"air": plan.air_floor[e], "cpu": plan.cpu_floor[e]},
    }  # fmt: skip


def worst_excess(physics: Physics, plan: Plan, shed: Bool, bands: int, servers: int) -> Float:
    """(E,) worst relative excess over any capacity or power limit, by the certificate's own code."""
    sent = (plan.option > 0) & ~shed
    band = np.where(sent, plan.option - 1, -1)
    server = np.where(sent, (plan.option - 1) // (bands // max(servers, 1)), -1)
    worst = np.maximum(count_excess(band, plan.air, bands), count_excess(server, plan.cpu, servers))
    over = np.maximum(plan.power_w - physics.power_w, -plan.power_w) / physics.power_w
    return np.asarray(np.maximum(worst, over.max(axis=1, initial=0.0)))
