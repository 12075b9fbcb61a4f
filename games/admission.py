r"""Stable admission: who is served, so that nobody has cause to envy.

*No justified envy*: no agent is left out while what is free, together with what agents of lower classes hold, would
make room for a place that it would accept. Within a class all are equals, and as many as possible are served.

Existence. Let :math:`n_c` be the number served in class c, the highest first. Seating an agent who is left out while
displacing lower classes only raises :math:`(n_1, n_2, ...)` lexicographically; there are finitely many; so the process
ends, and where it ends nobody has justified envy. All it needs is that taking an agent away leaves the others' places
valid. A served set that is lexicographically largest is free of envy for the same reason, so an exact solver's answer
is a valid oracle; finding it is bin packing, freedom from envy is polynomial.

The rule, from the equilibrium's choice as every agent's wish:

1. by class, the highest first, members by the floors they need, the least first (who wishes to stay where it was before
   all others, then who was anywhere): seat each at its wish where it fits, the rest where it is cheapest;
2. for who is still out, while effort is left: make room (:mod:`games.seating`), nobody losing a place;
3. until nobody is seated: best responses among the holders under the floors (:mod:`games.floor_replies`), then by
   class seat whoever fits, or displace lower classes, as few and as low as will do.

Replies lower an exact potential with the same agents served, seatings raise the counts, so 3 ends; its last closing
pass finds nobody with envy whatever the effort spent in 2.

Source: Gale and Shapley (1962) and Roth and Sotomayor (1990), chapter 5, for justified envy and stability with
priorities; here with divisible floors, where existence is by the argument above.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Bool, CongestionBatch, Float, Int
from games.floor_replies import replies
from games.lean import KEPT
from games.places import (
    EFFORT,
    LEAST,
    TABLE,
    Places,
    Seats,
    Table,
    ascending,
    best_place,
    copy_into,
    least_floors,
    leave,
    legs_of,
    meets,
    take,
    total,
)
from games.seating import chain, drain, repack, smaller_for_larger, two_for_one

SWEEPS = 200
REPACKS = 8  # failed ones in a class before they are given up


class Seating(NamedTuple):
    """Stable admission's answer for E games.

    Attributes:
        option: (E, N) joint choice. held: (E, N) holds a place. floor: (E, N, S) shares reserved for each leg.
        stable: (E,) whether replies came to rest, which the epsilon bound rests on.
    """

    option: Int
    held: Bool
    floor: Float
    stable: Bool


def admit(game: CongestionBatch, places: Places, wish: Int, tilt: Float | None = None, effort: int = EFFORT) -> Seating:
    """Seat the agents of E games without justified envy.

    Args:
        game: of E games, O options, R resources. places: what serving takes.
        wish: (E, N) the equilibrium's choice. tilt: (E, N, O) added to private costs: -log prior / trust.
        effort: at most so many places are tried in making room, and at most what the places say; freedom from envy
            does not depend on it.

    Returns:
        Seating; agents that are not live keep option 0 and hold nothing.
    """
    count, agents = wish.shape
    private = game.private_cost if tilt is None else np.ascontiguousarray(game.private_cost + tilt)
    option, held = np.zeros((count, agents), np.int64), np.zeros((count, agents), bool)
    floor, stable = np.zeros((count, agents, game.options.shape[1])), np.ones(count, bool)
    effort = min(effort, places.effort)
    stay = np.zeros(wish.shape, np.int64) if places.stay is None else np.asarray(places.stay, np.int64)
    p = tuple(np.ascontiguousarray(part) for part in places[: len(TABLE)])  # one layout, compiled once
    _admit_all(game, p, private, np.asarray(wish, np.int64), stay, effort, option, held, floor, stable)
    return Seating(option, held, floor, stable)


@njit(**KEPT)
def _admit_all(g, p, private, wish, stay, effort, option, held, floor, stable):
    count, agents = wish.shape
    resources = g.weight.shape[2]
    seconds, slack, cap, acceptable, rank, home, late = p
    rows = g.options.reshape(1, *g.options.shape)
    for e in range(count):
        ok = acceptable[e] & g.allowed[e]
        for i in range(agents):
            if not g.live[e, i]:
                ok[i] = False
        t = Table(
            rows, 0, seconds[e], slack[e], cap[e], ok, rank[e], home[e] & g.live[e], late[e],
            legs_of(g.options, g.weight[e]), g.capacity[e], private[e], g.toll[e],
        )  # fmt: skip
        z = Seats(
            option[e], held[e], floor[e], np.zeros(resources), np.zeros(resources), np.zeros(1, np.int64)
        )  # fmt: skip
        stable[e] = _admit(t, z, wish[e], stay[e], effort)
        leftover(t, z, wish[e], g.live[e], g.allowed[e])


@njit(**KEPT)
def _admit(t, z, wish, stay, effort):
    """The rule for one game; whether its replies came to rest."""
    legs = t.rows.shape[2]
    floor, trial = np.zeros(legs), np.zeros(legs)
    for i in range(len(wish)):
        if t.home[i]:
            take(t, z, i, wish[i], floor)  # floors of 0
    key = np.full(len(wish), 2.0)
    for i in range(len(wish)):
        if stay[i] > 0:
            key[i] = 0.0 if wish[i] == stay[i] else 1.0
    size, by, start = waiting_list(t)
    waiting, largest = np.isfinite(size), ascending(-size)
    for c in range(len(start) - 1):
        members = by[start[c] : start[c + 1]]
        order = members[ascending(key[members])]
        for i in order:
            o = wish[i]
            if o > 0 and t.ok[i, o] and least_floors(t, i, o, z.used, floor):
                take(t, z, i, o, floor)
        for i in order:
            if not z.held[i]:
                o = best_place(t, z, i, np.bool_(False), floor, trial)
                if o > 0:
                    take(t, z, i, o, floor)
        _make_room(t, z, members, waiting, largest, effort)
    return close(t, z, size, by)


@njit(**KEPT)
def waiting_list(t):
    """(N,) the least floors that each agent would need, alone, inf for who waits for no place; (M,) who waits, by class
    and the least first; where each class starts, and the end."""
    agents, options = t.ok.shape
    trial, none = np.zeros(t.rows.shape[2]), np.zeros(len(t.capacity))
    size = np.full(agents, np.inf)
    for i in range(agents):
        if t.home[i]:
            continue
        for o in range(1, options):
            if t.ok[i, o] and not _needs(t, i, o) > size[i] and least_floors(t, i, o, none, trial):
                size[i] = min(size[i], total(trial))
    classes = 1
    for i in range(agents):
        if np.isfinite(size[i]):
            classes = max(classes, t.rank[i] + 1)
    start = np.zeros(classes + 1, np.int64)
    for i in range(agents):
        if np.isfinite(size[i]):
            start[t.rank[i] + 1] += 1
    for c in range(classes):
        start[c + 1] += start[c]
    by, at = np.empty(start[classes], np.int64), start.copy()
    for i in ascending(size):
        if np.isfinite(size[i]):
            by[at[t.rank[i]]] = i
            at[t.rank[i]] += 1
    return size, by, start


@njit(**KEPT)
def _needs(t, i, o):
    """The least that the floors of agent i's place on option o could sum to, by the conditions without a room, less
    rounding; what is taken of a full room sums to more."""
    root = 0.0
    for s in range(t.rows.shape[2]):
        if t.rows[i * t.own, o, s] >= 0 and t.seconds[i, o, s] > 0.0:
            root += np.sqrt(t.seconds[i, o, s])
    return root * root / t.slack[i, o] * (1.0 - 1e-9) if t.slack[i, o] > 0.0 else np.inf


@njit(**KEPT)
def close(t, z, size, by):
    """Step 3 of the rule, from any seating: replies, then who waits in ``by``, until nobody is seated any more;
    whether the last replies came to rest."""
    while True:
        stable = replies(t, z, np.int64(SWEEPS)) <= SWEEPS
        if not seat_waiting(t, z, size, by):
            return stable


@njit(**KEPT)
def seat_waiting(t, z, size, by):
    """Seat whoever fits in turn, or displaces lower classes, until nobody does; whether anybody was seated."""
    floor, trial = np.empty(t.rows.shape[2]), np.empty(t.rows.shape[2])
    changed, again = False, True
    while again:
        again = False
        for i in by:
            if z.held[i]:
                continue
            o = best_place(t, z, i, np.bool_(False), floor, trial)
            if o > 0:
                take(t, z, i, o, floor)
                changed = True
            elif _displace(t, z, i, size):
                changed = again = True
    return changed


@njit(**KEPT)
def seat_rest(t, z):
    """:func:`seat_waiting`, everybody in turn."""
    if not _anybody_waits(t, z):
        return False
    size, by, _ = waiting_list(t)
    return seat_waiting(t, z, size, by)


@njit(**KEPT)
def _anybody_waits(t, z):
    """Whether an agent without a place would fit somewhere, alone."""
    trial, none = np.zeros(t.rows.shape[2]), np.zeros(len(t.capacity))
    for i in range(len(z.option)):
        if not z.held[i] and not t.home[i]:
            for o in range(1, t.rows.shape[1]):
                if t.ok[i, o] and least_floors(t, i, o, none, trial):
                    return True
    return False


@njit(**KEPT)
def _make_room(t, z, members, waiting, largest, effort):
    """Step 2 of the rule for one class."""
    legs = t.rows.shape[2]
    floor, trial = np.empty(legs), np.empty(legs)
    failed = 0
    for i in members:
        if z.held[i]:
            continue
        if z.work[0] > effort or total(z.used) >= len(z.used):
            break
        done = drain(t, z, i) or chain(t, z, i, z.work[0] + effort // 20)
        if not done and failed < REPACKS:
            done = repack(t, z, i, largest, np.bool_(True)) or repack(t, z, i, largest, np.bool_(False))
            failed = 0 if done else failed + 1
    again = True
    while again and z.work[0] <= effort:
        again = two_for_one(t, z, members, waiting, effort, effort // 200)
        again = again or smaller_for_larger(t, z, members, waiting, effort)
        if not again:
            break
        for i in members:
            if not z.held[i] and z.work[0] <= effort:
                o = best_place(t, z, i, np.bool_(False), floor, trial)
                if o > 0:
                    take(t, z, i, o, floor)
                else:
                    chain(t, z, i, z.work[0] + effort // 20)


@njit(**KEPT)
def _displace(t, z, i, size):
    """Seat i in place of lower classes, where the highest class that loses a place is the lowest, and the fewest do."""
    agents, options = t.ok.shape
    legs = t.rows.shape[2]
    floor, best_floor = np.empty(legs), np.empty(legs)
    best, value = 0, np.inf
    gone, best_gone = np.zeros(agents, np.bool_), np.zeros(agents, np.bool_)
    lower, key = np.empty(agents, np.int64), np.empty(agents)
    above = np.zeros(len(z.used))  # floors of this class and those above: beside them is all that i could get
    for j in range(agents):
        if z.held[j] and t.rank[j] <= t.rank[i]:
            for s in range(legs):
                r = t.rows[j * t.own, z.option[j], s]
                if r >= 0:
                    above[r] += z.floor[j, s]
    for o in range(1, options):
        if not t.ok[i, o] or not least_floors(t, i, o, above, floor):
            continue
        used = z.used.copy()
        count = 0
        for j in range(agents):
            if z.held[j] and not t.home[j] and t.rank[j] > t.rank[i] and meets(t, i, o, j, z.option[j]):
                _give(t, z, j, used, -1.0)
                lower[count] = j
                key[count] = t.rank[j] + 0.5 * size[j] / (1.0 + size[j])
                count += 1
        if count == 0 or not least_floors(t, i, o, used, floor):
            continue
        gone[:] = False
        highest, many = -1, 0
        for k in ascending(key[:count]):  # back come the highest class and the smallest first, as long as i still fits
            j = lower[k]
            _give(t, z, j, used, 1.0)
            if not least_floors(t, i, o, used, floor):
                _give(t, z, j, used, -1.0)
                gone[j] = True
                many += 1
                if highest < 0 or t.rank[j] < highest:
                    highest = t.rank[j]
        least_floors(t, i, o, used, floor)
        v = many - 1e6 * highest
        if v < value:
            best, value = o, v
            copy_into(best_floor, floor)
            copy_into(best_gone, gone)
    if best == 0:
        return False
    for j in range(agents):
        if best_gone[j]:
            leave(t, z, j)
    take(t, z, i, best, best_floor)
    return True


@njit(**KEPT)
def _give(t, z, j, used, sign):
    """Add (or take off) the floors of j's place."""
    for s in range(t.rows.shape[2]):
        r = t.rows[j * t.own, z.option[j], s]
        if r >= 0:
            used[r] = max(used[r] + sign * z.floor[j, s], 0.0)


@njit(**KEPT)
def leftover(t, z, wish, live, allowed):
    """Options of who is out: where it wished to be, or the cheapest with what the floors leave, shared with those of
    them that are there already."""
    agents, options = t.ok.shape
    sharing = np.zeros(len(z.used))
    for i in range(agents):
        if z.held[i] or not live[i]:
            continue
        if np.isnan(t.late[i]):
            z.option[i] = wish[i]
            continue
        best, lowest = 0, t.private[i, 0]
        for o in range(1, options):
            if not allowed[i, o]:
                continue
            cost = t.private[i, o] + t.late[i]
            for s in range(t.rows.shape[2]):
                r = t.rows[i * t.own, o, s]
                if r >= 0 and t.weight[i, o, s] > 0.0:
                    left = 1.0 - z.used[r]
                    alone = t.weight[i, o, s] ** 2 / t.capacity[r]
                    cost += alone * (1.0 + sharing[r]) / left if left > LEAST else np.inf
            if cost < lowest:
                best, lowest = o, cost
        z.option[i] = best
        for s in range(t.rows.shape[2]):
            r = t.rows[i * t.own, best, s]
            if r >= 0:
                sharing[r] += 1.0
