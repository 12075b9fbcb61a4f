"""Improving choices of E networks: what :mod:`.ascent` does to one, given arrays, for worlds as they are."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from coordinator.congestion import Congestion
from coordinator.improve import Start, Task
from games.admission import Seating, seat_rest
from games.congestion import Float, Int
from games.places import Seats, Table
from games.seated import seats_of, table_of
from hybridalloc.problems.mec import ascent, sides
from hybridalloc.problems.mec import expected as worth_of
from hybridalloc.problems.mec.arrays import Physics, Plan, Prices, Seen, Wish
from rl.proposal import Proposal
from rl.proposal import named as named_levels
from rl.value import Worth

NOTHING = np.array([0.0, np.inf, 0.0, np.inf, np.nan, np.nan])[:, None, None]


class Networks(Protocol):
    """What is read of E networks."""

    @property
    def size(self) -> int: ...

    @property
    def physics(self) -> Physics: ...

    @property
    def seen(self) -> Seen: ...

    def priority(self) -> Float: ...

    def classes(self) -> Int: ...

    def energy(self, prices: Prices) -> Float: ...

    def left(self, prices: Prices) -> Worth: ...


def no_wish(e: int, n: int) -> Wish:
    """Nothing is asked of power and fraction, (E, N) each."""
    parts = np.empty((6, e, n))
    parts[:] = NOTHING
    return Wish(*parts)


def expected(world: Networks, plan: Plan, prices: Prices, against: Plan | None = None) -> Float:
    """(E,) what the slot is worth under a settled plan, as believed; see :mod:`.expected`."""
    out = np.empty(world.size)
    held = plan if against is None else against
    worth_of.expected(world.physics, world.seen, world.left(prices), plan, held, held is plan, out)
    return out


def rises(world: Networks, plan: Plan) -> Float:
    """(E, B) interference over noise of a plan."""
    rise = np.empty(plan.air_price.shape)
    for e in range(world.size):
        worth_of.rises(world.physics, world.seen, e, plan, rise[e])
    return rise


def climb(world: Networks, start: Start, game: Congestion, task: Task) -> Start:
    """Single changes of option that raise what the slot is expected to be worth, prior included; its plan
    is left to settle where whoever waited was seated."""
    p, w, b = world.physics, world.seen, game.batch
    e, n, bands, _ = w.rates.shape
    if not w.server_hz.shape[1] or not n:
        return start._replace(rest=np.ones(e, bool))
    tilt = np.zeros(b.private_cost.shape) if game.tilt is None else game.tilt
    plan = Plan(*[part.copy() for part in start.plan])
    seated, rest = start.seating is not None, np.zeros(e, bool)
    seats = Seating(plan.option, plan.held, np.zeros((e, n, 2)), rest) if start.seating is None else start.seating
    option, held, floor = seats.option.copy(), seats.held.copy(), seats.floor.copy()
    rank = np.zeros((e, n), np.int64) if task.places is None else task.places.rank  # read where agents are seated
    asked = _asked(task.levels, e, n)
    model = ascent.Model(
        p, w, world.left(task.prices), task.prices, world.priority(), rank, asked, float(task.trust),
        world.energy(task.prices), tilt, b.allowed, seated, task.sweeps, float(task.share),
    )  # fmt: skip
    width = max(min(task.width, bands), 1)
    moved, tried, worth = start.moved.copy(), start.tried.copy(), start.worth.copy()
    settled = not asked.shape[2]  # what answers levels that are proposed is told by settling the whole
    for g in range(e):
        t = table_of(b, task.places, game.tilt, g)
        z = seats_of(t, seats, g)
        same = start.plan is task.against
        if task.clock.limited:
            done = _in_portions(model, g, task.against, same, plan, t, z, width, worth, task)
        else:
            done = ascent.climb_on(model, g, task.against, same, plan, t, z, width, worth)
        some, made, displaced, state = done
        rest[g] = state == sides.RESTS and "improve" not in task.clock.skipped
        if seated:
            if displaced:
                settled &= not seat_rest(t, z)
            option[g], held[g], floor[g] = z.option, z.held, z.floor
        else:
            option[g] = plan.option[g]
        moved[g] += made
        tried[g] += some
    seating = Seating(option, held, floor, seats.stable) if seated else None
    choice = start.choice._replace(option=option)
    return Start(choice, seating, plan if settled else None, worth, moved, tried, rest, np.full(e, ascent.LEAST_GAIN))


def _in_portions(
    model: ascent.Model, g: int, against: Plan, same: bool, plan: Plan, t: Table, z: Seats, width: int, worth: Float,
    task: Task,
) -> tuple[int, int, int, int]:  # fmt: skip
    """:func:`.ascent.climb_on` as far as the clock allows."""
    _, n, bands, values = model.world.rates.shape
    c = sides.new_climb(n, model.world.server_hz.shape[1], bands, values, len(t.capacity), t.rows.shape[2], width)
    for part in task.clock.portions(np.arange(task.sweeps * n), "improve", task.after_ms):
        ascent.climb(model, g, against, same, plan, t, z, c, len(part), worth)
        if c.cursor[sides.STATE] != sides.RUNNING:
            break
    if c.cursor[sides.STATE] == sides.FRESH:
        return 0, 0, 0, sides.FRESH
    if c.cursor[sides.STATE] == sides.RUNNING:
        ascent.finish(model, g, plan, c, worth)
    some, made, displaced = c.tries.tolist()
    return some, made, displaced, int(c.cursor[sides.STATE])


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
