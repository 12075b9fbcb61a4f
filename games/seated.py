r"""A seating looked at afterwards: what each option would be to one agent, and who moves when something changes.

:func:`offers` works out what :mod:`games.floor_replies` compares; :func:`respond` replies again from a seating;
:func:`reseat` goes on from one where the game or the places are others now. A seating of :func:`games.admission.admit`
is at rest under both: in the game it was made in, nothing changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.admission import SWEEPS, Seating, close, leftover, waiting_list
from games.congestion import Bool, CongestionBatch, Float
from games.floor_replies import least_delay, replies
from games.lean import KEPT
from games.places import FULL, Places, Seats, Table, copy_into, least_floors, legs_of, take


class Offers(NamedTuple):
    """One agent's options, the others keeping their places. O options, S legs.

    Attributes:
        fits: (O,) it holds a place (or is at home) and may have this option: it is acceptable and a place fits beside
            the others' floors. floor: (O, S) shares it would reserve; 0 where nothing fits.
        added: (O, S) what it would add to the least delay of each leg's resource; where nothing fits, what it would add
            if no floor bound anybody. own: (O, S) w^2 / C of each leg, what it would add to an empty resource.
        room: (O, S) what the others' floors leave of each leg's resource, 1 where a leg needs none.
    """

    fits: Bool
    floor: Float
    added: Float
    own: Float
    room: Float


def table_of(game: CongestionBatch, places: Places | None, tilt: Float | None = None, e: int = 0) -> Table:
    """Game ``e`` with its places, as :func:`games.admission.admit` reads it; ``tilt`` as there. Without places nobody
    is acceptable anywhere."""
    private = game.private_cost[e] if tilt is None else game.private_cost[e] + tilt[e]
    live = game.live[e]
    plain = np.ascontiguousarray
    if places is None:
        n, o = private.shape
        none, zero = np.zeros((n, o)), np.zeros(n)
        parts = (np.zeros((n, o, game.options.shape[1])), none, none, none > 0, zero.astype(np.int64), zero > 0, zero)
    else:
        ok = places.acceptable[e] & game.allowed[e] & live[:, None]
        parts = (plain(places.seconds[e]), plain(places.slack[e]), plain(places.cap[e]), ok, plain(places.rank[e]),
                 places.home[e] & live, plain(places.late[e]))  # fmt: skip
    return Table(
        game.options[None],
        0,
        *parts,
        legs_of(game.options, plain(game.weight[e])),
        plain(game.capacity[e]),
        private,
        plain(game.toll[e]),
    )


def seats_of(table: Table, seating: Seating, e: int = 0) -> Seats:
    """A copy of seating ``e`` with what its floors and weights sum to."""
    option, held, floor = seating.option[e].copy(), seating.held[e].copy(), seating.floor[e].copy()
    used, load = np.empty(len(table.capacity)), np.empty(len(table.capacity))
    z = Seats(option, held, floor, used, load, np.zeros(1, np.int64))
    _add_up(table, z)
    return z


@njit(**KEPT)
def _add_up(t, z):
    """Fill what the holders' floors and weights sum to."""
    z.used[:] = z.load[:] = 0.0
    for s in range(t.rows.shape[2]):
        for i in range(len(z.option)):
            r = t.rows[i * t.own, z.option[i], s]
            if z.held[i] and r >= 0:
                z.used[r] += z.floor[i, s]
                z.load[r] += t.weight[i, z.option[i], s]


def offers(t: Table, z: Seats, agent: int) -> Offers:
    """What each option would be to ``agent``; one that holds no place fits nowhere."""
    rows = t.rows[agent * t.own]
    options, legs = rows.shape
    delay, others = _others(t, z, agent)
    used, load, here = z.used.copy(), z.load.copy(), int(z.option[agent])
    if z.held[agent]:
        for s, mine in enumerate(rows[here]):
            if mine >= 0:
                used[mine] -= z.floor[agent, s]
                load[mine] -= t.weight[agent, here, s]
    fits, floor, trial = np.zeros(options, bool), np.zeros((options, legs)), np.zeros(legs)
    added, room = np.zeros((options, legs)), np.ones((options, legs))
    on = rows >= 0
    r = np.maximum(rows, 0)
    own = np.where(on, t.weight[agent] ** 2 / t.capacity[r], 0.0)
    room[on] = 1.0 - used[r[on]]
    for o in range(options):
        if not z.held[agent]:
            break
        if o == here:
            fits[o] = True
            copy_into(trial, z.floor[agent])
        elif t.home[agent]:
            fits[o] = t.ok[agent, o]
            trial[:] = 0.0
        else:
            fits[o] = o > 0 and t.ok[agent, o] and least_floors(t, agent, o, used, trial)
        if fits[o]:
            floor[o] = trial
            for s in np.flatnonzero(on[o]).tolist():
                k = int(rows[o, s])
                w, low, count = others[k]
                w[count], low[count] = t.weight[agent, o, s] / np.sqrt(t.capacity[k]), trial[s]
                added[o, s] = least_delay(w, low, count + 1) - delay[k]
    free = np.where(on, own + 2.0 * t.weight[agent] * (np.maximum(load, 0.0) / t.capacity)[r], 0.0)
    return Offers(fits, floor, np.where(fits[:, None], added, free), own, room)


def delays(t: Table, z: Seats) -> Float:
    """(R,) least delay of each resource, of its holders under their floors."""
    return _others(t, z, -1)[0]


def _others(t: Table, z: Seats, agent: int) -> tuple[Float, list[tuple[Float, Float, int]]]:
    """(R,) least delay of each resource without ``agent``, and its holders' weights and floors with room for one more
    and how many they are."""
    agents = np.arange(len(z.option))
    legs = t.rows[agents * t.own, z.option]  # (N, S)
    held = z.held.copy()
    if agent >= 0:
        held[agent] = False
    found = []
    delay = np.zeros(len(t.capacity))
    who, leg = np.nonzero(held[:, None] & (legs >= 0))
    where = legs[who, leg]
    order = np.argsort(where, kind="stable")
    edge = np.searchsorted(where[order], np.arange(len(t.capacity) + 1))
    for r in range(len(t.capacity)):
        i, s = who[order[edge[r] : edge[r + 1]]], leg[order[edge[r] : edge[r + 1]]]
        w, low = np.zeros(len(i) + 1), np.zeros(len(i) + 1)
        w[:-1], low[:-1] = t.weight[i, z.option[i], s] / np.sqrt(t.capacity[r]), z.floor[i, s]
        delay[r] = least_delay(w, low, len(i))
        found.append((w, low, len(i)))
    return delay, found


def respond(
    game: CongestionBatch, places: Places, seating: Seating, tilt: Float | None = None, sweeps: int = SWEEPS
) -> Seating:
    """Best responses of the holders of E games from where they are; nobody is seated and nobody gives way.

    Args:
        game, places, tilt: as in :func:`games.admission.admit`. seating: to begin with.
        sweeps: passes at most; after one, each agent is where its first reply took it.
    """
    out = Seating(seating.option.copy(), seating.held.copy(), seating.floor.copy(), seating.stable.copy())
    for e in range(len(out.option)):
        t = table_of(game, places, tilt, e)
        z = seats_of(t, seating, e)
        out.stable[e] = replies(t, z, sweeps) <= sweeps
        out.option[e], out.floor[e] = z.option, z.floor
    return out


def better(
    game: CongestionBatch, places: Places, first: Seating, second: Seating, tilt: Float | None = None
) -> Seating:  # fmt: skip
    """Of two seatings of E games, in each the one that serves more, by class, the highest first; of as many, the one of
    the lower potential, private costs of who is out included; of equals the first."""
    out = Seating(first.option.copy(), first.held.copy(), first.floor.copy(), first.stable.copy())
    for e in range(len(out.option)):
        t = table_of(game, places, tilt, e)
        judged = []
        for seating in (first, second):
            served = np.bincount(t.rank[seating.held[e]], minlength=t.rank.max(initial=0) + 1)
            judged.append((*(-served).tolist(), _potential(t, seats_of(t, seating, e), game.live[e])))
        (*counts, cost), (*others, less) = judged
        if others < counts or (others == counts and less < cost - 1e-9 * (1 + abs(cost))):
            for mine, theirs in zip(out, second, strict=True):
                mine[e] = theirs[e]
    return out


def _potential(t: Table, z: Seats, live: Bool) -> float:
    """That of :mod:`games.floor_replies`, with the private costs of who holds no place."""
    who = np.flatnonzero(live)
    holders = np.flatnonzero(live & z.held)
    legs = t.rows[holders * t.own, z.option[holders]]
    own = np.where(legs >= 0, t.weight[holders, z.option[holders]], 0.0)
    alone = np.zeros(len(t.capacity))
    np.add.at(alone, np.maximum(legs, 0), own**2)
    shared = (1 + t.toll) * delays(t, z) + (1 - t.toll) * alone / t.capacity
    return float(shared.sum() / 2 + t.private[who, z.option[who]].sum())


def reseat(game: CongestionBatch, places: Places, seating: Seating, tilt: Float | None = None) -> Seating:
    """Go on from a seating in E games that may have changed since.

    By class, the least floors first, holders keep the places that they still accept, with floors that still serve them
    or, where those do not, the least that fit; who has none is out. Then replies, and who is out is seated where that
    is possible, until nothing changes: free of justified envy, as :func:`games.admission.admit`, but nobody is moved
    to make room.
    """
    count, agents = seating.option.shape
    out = Seating(
        np.zeros((count, agents), np.int64), np.zeros((count, agents), bool), np.zeros(seating.floor.shape),
        np.ones(count, bool),
    )  # fmt: skip
    for e in range(count):
        t = table_of(game, places, tilt, e)
        blank = np.zeros(len(t.capacity))
        z = Seats(out.option[e], out.held[e], out.floor[e], blank, blank.copy(), np.zeros(1, np.int64))
        before = seats_of(t, seating, e)
        out.stable[e] = _reseat(t, z, before)
        leftover(t, z, before.option, game.live[e], game.allowed[e])
    return out


@njit(**KEPT)
def _reseat(t, z, before):
    """Fill ``z`` from the seats before; whether the last replies came to rest."""
    floor = np.zeros(t.rows.shape[2])
    for i in range(len(z.option)):
        if t.home[i]:
            take(t, z, i, before.option[i], floor)
    size, by, _ = waiting_list(t)
    for i in by:
        o = before.option[i]
        if not before.held[i] or o == 0 or not t.ok[i, o]:
            continue
        if _serves(t, z, i, o, before.floor[i]):
            take(t, z, i, o, before.floor[i])
        elif least_floors(t, i, o, z.used, floor):
            take(t, z, i, o, floor)
    return close(t, z, size, by)


@njit(**KEPT)
def _serves(t, z, i, o, floor):
    """Whether ``floor`` (S,) fits, serves agent i on option o and is no more than that takes."""
    time = 0.0
    for s in range(len(floor)):
        r = t.rows[i * t.own, o, s]
        if r >= 0 and z.used[r] + floor[s] > FULL + 1e-12:
            return False
        if r >= 0 and t.seconds[i, o, s] > 0.0:
            if floor[s] <= 0.0:
                return False
            time += t.seconds[i, o, s] / floor[s]
    return abs(time - t.slack[i, o]) <= 1e-9 * t.slack[i, o] or (time == 0.0 and t.slack[i, o] >= 0.0)
