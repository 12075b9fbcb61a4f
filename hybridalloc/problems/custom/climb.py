"""Improving a choice of ``custom``: what the coordinator asks of its worlds, see :mod:`.expected`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from coordinator.congestion import Congestion
from coordinator.improve import Start, Task
from games.admission import Seating, seat_rest
from games.changes import queue
from games.congestion import Int
from games.seated import seats_of, table_of
from hybridalloc.problems.custom import expected as core


class Tables(Protocol):
    """What is read of E worlds."""

    rows: Int  # (O, S)
    at: dict[str, Any]  # the states' arrays, (E, ...)


def jobs_of(world: Tables, e: int) -> core.Jobs:
    """World ``e`` as the compiled code reads it."""
    names = ("work", "capacity", "wait_s", "deadline_s", "delay_cost", "private_cost", "full_power_w", "power_limit_w")
    work, capacity, wait, deadline, delay, private, draw, limit = (world.at[name][e] for name in names)
    return core.Jobs(
        world.rows, work, capacity, wait, deadline, delay, private, draw, limit, world.at["active"][e]
    )  # fmt: skip


def climb(world: Tables, start: Start, game: Congestion, task: Task) -> Start:
    """Single changes of option that raise the model's reward, prior included; the plan is left to settle."""
    b = game.batch
    e, n, _ = b.private_cost.shape
    resources, legs = b.capacity.shape[1], world.rows.shape[1]
    if not n or not resources:
        return start._replace(rest=np.ones(e, bool))
    assert start.seating is not None  # places are always given here
    tilt = np.zeros(b.private_cost.shape) if game.tilt is None else game.tilt
    option, held = start.choice.option.copy(), start.seating.held.copy()
    floor = start.seating.floor.copy()
    best = np.empty(max(min(task.width, len(world.rows) - 1), 1), np.int64)
    moved, tried, rest = start.moved.copy(), start.tried.copy(), np.zeros(e, bool)
    kept, least = core.new_climb(n, legs, resources), np.zeros(e)
    for g in range(e):
        j, t = jobs_of(world, g), table_of(b, task.places, game.tilt, g)
        z = seats_of(t, start.seating, g)
        c = core.new_climb(n, legs, resources)
        core.begin(j, t, tilt[g], z.option, z.floor, c)
        live = max(int(j.active.sum()), 1)
        least[g], most = core.GAIN * float(np.abs(c.value).sum()) / live, max(round(task.share * live), 1)
        for _ in range(task.sweeps):
            made = 0
            order, reach = queue(t, c.load, b.allowed[g], j.active, c.option, most, best)
            for part in task.clock.portions(order, "improve", task.after_ms):
                made += core.visit(j, t, tilt[g], b.allowed[g], z, c, kept, part, best, reach, least[g])
            rest[g] = made == 0 and "improve" not in task.clock.skipped
            if made == 0 or "improve" in task.clock.skipped:
                break
        if c.tries[2]:
            seat_rest(t, z)
        option[g], held[g], floor[g] = z.option, z.held, z.floor
        moved[g] += c.tries[1]
        tried[g] += c.tries[0]
    seats = Seating(option, held, floor, start.seating.stable)
    return Start(start.choice._replace(option=option), seats, None, start.worth, moved, tried, rest, least)
