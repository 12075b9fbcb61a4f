"""Improving choices of E networks: what :mod:`.expected` does to one, given arrays, for worlds as they are."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from coordinator.congestion import Congestion
from coordinator.improve import Start, Task
from games.admission import Seating, seat_rest
from games.changes import queue
from games.congestion import Float, Int
from games.seated import seats_of, table_of
from hybridalloc.problems.mec import expected as core
from hybridalloc.problems.mec.core import Physics, Plan, Prices, Wish, World
from rl.proposal import Proposal
from rl.proposal import named as named_levels
from rl.value import Worth


class Networks(Protocol):
    """What is read of E networks."""

    @property
    def size(self) -> int: ...

    @property
    def physics(self) -> Physics: ...

    @property
    def world(self) -> World: ...

    def priority(self) -> Float: ...

    def classes(self) -> Int: ...

    def energy(self, prices: Prices) -> Float: ...

    def left(self, prices: Prices) -> Worth: ...


def no_wish(e: int, n: int) -> Wish:
    """Nothing is asked of power and fraction, (E, N) each."""
    return Wish(*(np.full((e, n), fill) for fill in (0.0, np.inf, 0.0, np.inf, np.nan, np.nan)))


def expected(world: Networks, plan: Plan, prices: Prices, against: Plan | None = None) -> Float:
    """(E,) what the slot is worth under a settled plan, as believed; see :mod:`.expected`."""
    out = np.empty(world.size)
    held = rises(world, plan if against is None else against)
    rise = held if against is None or against is plan else rises(world, plan)
    core.expected(world.physics, world.world, world.left(prices), plan, rise, held, out)
    return out


def rises(world: Networks, plan: Plan) -> Float:
    """(E, B) interference over noise of a plan."""
    rise = np.empty(plan.air_price.shape)
    for e in range(world.size):
        core.rises(world.physics, world.world, e, plan, rise[e])
    return rise


def climb(world: Networks, start: Start, game: Congestion, task: Task) -> Start:
    """Single changes of option that raise what the slot is expected to be worth, prior included; its plan
    is left to settle where whoever waited was seated."""
    p, w, b = world.physics, world.world, game.batch
    e, n, bands, values = w.rates.shape
    servers, resources = w.server_hz.shape[1], b.capacity.shape[1]
    if not servers or not n:
        return start._replace(rest=np.ones(e, bool))
    tilt = np.zeros(b.private_cost.shape) if game.tilt is None else game.tilt
    plan, scratch = (Plan(*(part.copy() for part in start.plan)) for _ in range(2))
    seated = start.seating is not None
    held = plan.held.copy() if start.seating is None else start.seating.held.copy()
    floor = np.zeros((e, n, 2)) if start.seating is None else start.seating.floor.copy()
    option = plan.option.copy() if start.seating is None else start.seating.option.copy()
    asked, wish, against = _asked(task.levels, e, n), no_wish(e, n), rises(world, task.against)
    rise = against if start.plan is task.against else rises(world, start.plan)
    for g, i in np.argwhere(w.active) if asked.shape[2] else ():
        core.ask(wish, asked[g], g, i, plan.option[g, i])
    model = core.Model(
        p, w, world.left(task.prices), task.prices, world.priority(), world.classes(), wish, asked, float(task.trust),
        world.energy(task.prices), seated,
    )  # fmt: skip
    best = np.empty(max(min(task.width, bands), 1), np.int64)
    moved, tried, rest = start.moved.copy(), start.tried.copy(), np.zeros(e, bool)
    settled = not asked.shape[2]  # what answers levels that are proposed is told by settling the whole
    for g in range(e):
        t = table_of(b, task.places, game.tilt, g)
        z = seats_of(t, Seating(option, held, floor, rest), g)
        c = core.new_climb(n, servers, bands, values, resources, against[g])
        kept = core.new_climb(n, servers, bands, 0, 0, against[g]), scratch
        core.begin(p, w, model.left, g, plan, rise[g], tilt, t, c)
        most = max(round(task.share * int(w.active[g].sum())), 1)
        for _ in range(task.sweeps):
            made = 0
            order, reach = queue(t, c.load, b.allowed[g], w.active[g], plan.option[g], most, best)
            for part in task.clock.portions(order, "improve", task.after_ms):
                made += core.visit(model, plan, g, tilt, t, b.allowed, z, c, kept, part, best, reach)
            rest[g] = made == 0 and "improve" not in task.clock.skipped
            if made == 0 or "improve" in task.clock.skipped:
                break
        if seated and c.tries[2]:
            settled &= not seat_rest(t, z)
        option[g], held[g], floor[g] = z.option if seated else plan.option[g], z.held, z.floor
        moved[g] += c.tries[1]
        tried[g] += c.tries[0]
    seats = None if start.seating is None else Seating(option, held, floor, start.seating.stable)
    answer = plan if settled else None
    return Start(
        start.choice._replace(option=option), seats, answer, start.worth, moved, tried, rest, np.full(e, core.GAIN)
    )


def _asked(levels: Proposal | None, e: int, n: int) -> Float:
    """(E, N, 1 or O, 4) mean and spread of power and of the fraction that are proposed; O or 1 is 0 where none are."""
    given = {} if levels is None else named_levels(levels) or {}
    if not given:
        return np.zeros((e, n, 0, 4))
    wide = max(value.shape[2] if value.ndim == 3 else 1 for value in given.values())
    out = np.zeros((e, n, wide, 4))
    out[..., 1] = out[..., 3] = np.inf
    for k, name in enumerate(("power", "power_spread", "fraction", "fraction_spread")):
        if name in given:
            out[..., k] = given[name] if given[name].ndim == 3 else given[name][..., None]
    return out
