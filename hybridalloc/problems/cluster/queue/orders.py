"""Who is served first: the rules of schedulers for jobs that queue, as orders of jobs or of jobs and places."""

from __future__ import annotations

import numpy as np

from games import packing_moves as moves
from games.congestion import Bool, Float, Int
from games.packing import Packing, serve_in_order
from hybridalloc.problems.cluster import shares
from hybridalloc.problems.cluster.queue.packings import packing_of
from hybridalloc.problems.cluster.queue.standing import Queues

ORDERS = {
    "fifo": "FIFO", "backfill": "FIFO with backfill", "attained": "least attained first (LAS)", "srtf": "SRTF",
    "area": "SRTF x GPUs", "drf": "DRF", "tetris": "Tetris", "random": "random", "round_robin": "round robin",
    "best_fit": "best fit", "worst_fit": "worst fit",
}  # fmt: skip
TOLD, PREEMPT = ("srtf", "area", "tetris"), ("attained", "srtf", "area")
PROGRAMS = {
    "max_min": "max-min (Gavel)", "finish_time": "finish-time fairness (Gavel)", "makespan": "least makespan (Gavel)",
}  # fmt: skip


def placed(world: Queues, e: int, name: str, rng: np.random.Generator) -> Int:
    """(N,) where a rule puts the jobs of world ``e``: the first first, where it runs fastest and there is room, what
    starting there costs included; best and worst fit on the fullest and the emptiest, the oldest job first. Who runs is
    stopped by the rules of :data:`PREEMPT` alone."""
    at, units = world.at, world.room(e)
    game, here = packing_of(world, e, None, told=name in TOLD), np.flatnonzero(world.there[e])
    pool = world.setup.pool
    left, gang, age = world.expected[e, here], at["gang"][e, here], -at["came"][e, here]
    runs = at["place"][e, here] > 0 if name not in PREEMPT else np.zeros(len(here), bool)
    order = here[np.lexsort((-age, ~runs))]
    if name in PROGRAMS:
        return _by_shares(world, e, name, game)
    if name in ("best_fit", "worst_fit"):
        return _by_fit(world, e, game, order, name == "best_fit")
    if name == "drf":
        return _fair(world, e, game, order)
    key = {
        "attained": at["attained"][e, here], "srtf": left, "area": left * gang, "random": rng.random(len(here)),
        "round_robin": (here - world.turn[e]) % world.slots,
    }.get(name)  # fmt: skip
    if name == "tetris":
        alike = (gang[:, None] / np.maximum(units[pool], 1)).max(1, initial=0)
        key = -(alike / max(alike.mean(), 1e-9) - left / max(left.mean(), 1e-9)) if len(here) else None
    if key is not None:
        order = here[np.lexsort((-age, key, ~runs))]
    return serve_in_order(game, order, strict=name == "fifo").option


def _by_fit(world: Queues, e: int, game: Packing, order: Int, best: bool) -> Int:
    """The oldest first, each where least, or most, is left."""
    option, used = np.zeros(world.slots, np.int64), np.zeros(len(game.capacity))
    pool = world.setup.pool
    for i in order:
        place = int(world.at["place"][e, i])
        if place and game.ok[i, place]:  # who runs stays
            moves.seat(game, used, i, place, option)
            continue
        room = (game.capacity - used)[pool] - game.demand[i, 1:, 0]
        fits = game.ok[i, 1:] & (room >= -1e-9) & _other_legs(game, used, i)
        if fits.any():
            o = 1 + int(np.where(fits, room if best else -room, np.inf).argmin())
            moves.seat(game, used, i, o, option)
    return option


def _other_legs(game: Packing, used: Float, i: int) -> Bool:
    rows, more = game.rows[i, 1:, 1:], game.demand[i, 1:, 1:]
    return np.asarray(((rows < 0) | (used[rows] + more <= game.capacity[rows] * (1 + 1e-9))).all(-1))


def _fair(world: Queues, e: int, game: Packing, order: Int) -> Int:
    """Dominant resource fairness: the team, or the job where there are none, whose largest share of a pool's kind or
    of power is least is next, with its oldest job (Ghodsi et al. 2011)."""
    option, used = np.zeros(world.slots, np.int64), np.zeros(len(game.capacity))
    team = np.where(world.at["team"][e] >= 0, world.at["team"][e], world.slots + np.arange(world.slots))
    had: dict[int, Float] = {}
    waiting = list(order)
    size = np.maximum(game.capacity, 1e-9)
    while waiting:
        dominant = [float((had[team[i]] / size).max()) if team[i] in had else 0.0 for i in waiting]
        i = waiting.pop(int(np.argmin(dominant)))
        before = used.copy()
        one = serve_in_order(game._replace(capacity=np.maximum(game.capacity - used, 0.0)), np.array([i])).option[i]
        if one > 0:
            moves.seat(game, used, i, one, option)
            had[team[i]] = had.get(team[i], np.zeros(len(size))) + used - before
    return option


def _by_shares(world: Queues, e: int, name: str, game: Packing) -> Int:
    """Gavel's rounds: parts of time by a linear program whenever jobs come or go; of job and place the pair that is
    furthest behind its part goes first, then whoever is left wherever there is room."""
    here = np.flatnonzero(world.there[e])
    if not len(here):
        return np.zeros(world.slots, np.int64)
    known = world.parts_of_time.get(e)
    serial = world.at["serial"][e, here]
    if known is None or known[0] != name or not np.array_equal(known[1], serial):
        known = (name, serial, _program(world, e, name, here), np.full((len(here), len(world.setup.pool)), 0.5))
    _, _, part, spent = known
    whole = spent.sum(0)
    had = spent / np.where(whole > 0, whole, 1.0)
    behind = np.where((part > 1e-9) & (had > 0), part / np.where(had > 0, had, 1.0), 0.0)
    speed = game.ok[here, 1:] * -game.private[here, 1:]
    rank = np.lexsort((-speed.ravel(), -behind.ravel()))
    option, used = np.zeros(world.slots, np.int64), np.zeros(len(game.capacity))
    moves.serve_pairs(game, here[rank // part.shape[1]], 1 + rank % part.shape[1], option, used)
    spent = spent + (option[here, None] == 1 + np.arange(part.shape[1]))
    world.parts_of_time[e] = (name, serial, part, spent)
    return option


def _program(world: Queues, e: int, name: str, here: Int) -> Float:
    speed, gang, units = world.speed[e, here], world.at["gang"][e, here], world.room(e)
    if len(world.setup.pool) > len(units):  # a gang or half of it: the programs know whole ones
        extra = np.zeros((len(here), len(world.setup.pool) - len(units)))
        speed = speed[:, : len(units)]
    else:
        extra = np.zeros((len(here), 0))
    left, own = world.expected[e, here], world.at["own"][e, here]
    age = (world.clock[e] - world.at["came"][e, here]) / 3600
    if name == "max_min":
        part = shares.least_attained(speed, gang, units)
    elif name == "makespan":
        part = shares.makespan(speed, gang, units, np.maximum(left, 1e-3))
    else:
        part = shares.finish_time(speed, gang, units, np.maximum(left, 1e-3), age, own)
    return np.concatenate([part, extra], 1)
