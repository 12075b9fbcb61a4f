r"""Packing games: places with capacities that hold hard, demands that are vectors and are not divided.

Agent i on option o >= 1 takes ``demand[i, o, s]`` of resource ``rows[i, o, s]`` on each leg s: the CPU, the memory and
one GPU of a node, or those of several nodes for a gang. Option 0 takes nothing. Demands are whole: a job of 64 GB
stands on a server of 80 GB or it does not, and two of them never do. A quota is a resource that all of a team's options
use, and jobs that must not stand together share a resource with room for one on each node (:func:`with_quotas`,
:func:`kept_apart`).

The cost of a place is what it changes in a potential that is additive over resources (or over nodes, of which a
resource is then a level),

.. math:: \Phi(s) = \sum_r V_r(L_r(s)) + \sum_i p_i(s_i), \qquad
          c_i(o; s_{-i}) = p_i(o) + \sum_s \bigl[V_r(L_r^{-i} + d_{ios}) - V_r(L_r^{-i})\bigr]_{r = rows_{ios}}

so that agents are charged their marginal contribution: whatever the curves V, convex or not, a change of option lowers
the potential by exactly what its agent saves. Where agents arrive one by one and do not move, one best response is the
equilibrium.

*Admission.* Nobody is left out while what is free, together with what lower classes hold and may be made to give up,
makes room for a place that it accepts (no justified envy). Seating who is left out at the expense of lower classes
alone raises the numbers served by class, the highest class first, lexicographically; replies lower the potential with
the same agents served; there are finitely many joint choices, so it ends. A holder gives up its place at a cost
(``preempt``, inf: never): it is displaced only for who saves more than that, by its private costs, by not opting out.

Source: Rosenthal (1973) and Monderer and Shapley (1996) for exact potentials; Vetta (2002) and Wolpert and Tumer (2002)
for marginal contributions; Gale and Shapley (1962) for justified envy, as in :mod:`games.admission`, which divides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Bool, Float, Int
from games.errors import InvalidGameError, shaped
from games.lean import LEAN

ROUNDING = 1e-9  # of a capacity, relative
GAIN = 1e-12  # what a reply must save
SWEEPS = 500


class Packing(NamedTuple):
    """One packing game of N agents, O options of up to S legs, R resources; make it with :func:`packing_game`.

    Attributes:
        rows: (N, O, S) resources, -1 for none. demand: (N, O, S) >= 0. capacity: (R,) >= 0.
        curve: (R, B) potential of each resource at B >= 2 loads, equally spaced from 0 to its capacity, straight
            between. private: (N, O). ok: (N, O) places that the agent accepts; never option 0.
        rank: (N,) class, 0 the highest. stay: (N,) option held so far, 0 for none. preempt: (N,) cost of giving it up.
    """

    rows: Int
    demand: Float
    capacity: Float
    curve: Float
    private: Float
    ok: Bool
    rank: Int
    stay: Int
    preempt: Float


class Packed(NamedTuple):
    """A joint choice: option (N,), what it uses (R,), and whether it came to rest (replies and admission alike)."""

    option: Int
    used: Float
    stable: bool


def packing_game(
    rows: Int,
    demand: Float,
    capacity: Float,
    *,
    curve: Float | None = None,
    private: Float | None = None,
    ok: Bool | None = None,
    rank: Int | None = None,
    stay: Int | None = None,
    preempt: Float | None = None,
) -> Packing:
    """A checked game; what is not given is 0 (``curve``, ``private``, ``rank``, ``stay``), everything (``ok``), or
    never (``preempt``: inf).

    Raises:
        InvalidGameError: names the array, the entry and what is permitted.
    """
    of = np.asarray(rows)
    if of.ndim != 3 or of.dtype.kind not in "iu":
        raise InvalidGameError(f"rows has shape {of.shape}, {of.dtype}; whole numbers (N, O, S) are needed")
    n, o, _ = of.shape
    room = shaped("capacity", capacity, (len(np.atleast_1d(capacity)),), 0.0)
    r = len(room)
    if of.size and (of.max() >= r or of.min() < -1):
        at = tuple(int(k) for k in np.argwhere((of >= r) | (of < -1))[0])
        raise InvalidGameError(f"rows{list(at)} = {of[at]}; a resource is -1 to {r - 1}")
    if o and (of[:, 0] >= 0).any():
        raise InvalidGameError("option 0 uses a resource; it opts out, and its rows are -1")
    taken = shaped("demand", demand, of.shape, 0.0)
    curves = np.zeros((r, 2)) if curve is None else np.asarray(curve, float)
    if curves.ndim != 2 or curves.shape[1] < 2:
        raise InvalidGameError(f"curve has shape {curves.shape}; ({r}, B) with B >= 2 is needed")
    held = np.zeros(n, np.int64) if stay is None else np.asarray(stay, np.int64)
    if ((held < 0) | (held >= max(o, 1))).any():
        i = int(np.argmax((held < 0) | (held >= o)))
        raise InvalidGameError(f"stay[{i}] = {held[i]}; an option is 0 to {o - 1}")
    cost = np.full(n, np.inf) if preempt is None else np.asarray(preempt, float)
    if cost.shape != (n,) or not (cost >= 0).all():
        raise InvalidGameError(f"preempt has shape {cost.shape}; ({n},) costs >= 0 are needed, inf for never")
    accepts = np.ones((n, o), bool) if ok is None else np.array(ok, bool)
    accepts[:, :1] = False
    return Packing(
        np.ascontiguousarray(of, np.int64), np.where(of >= 0, taken, 0.0), room,
        shaped("curve", curves, (r, curves.shape[1])),
        np.zeros((n, o)) if private is None else shaped("private", private, (n, o)), accepts,
        np.zeros(n, np.int64) if rank is None else np.ascontiguousarray(rank, np.int64), held, cost,
    )  # fmt: skip


def with_quotas(game: Packing, team: Int, demand: Float, quota: Float) -> Packing:
    """The game in which agent i also takes ``demand[i]`` of what its team, ``team[i]`` (-1: none), may have: (T,)."""
    return _with_leg(game, np.broadcast_to(np.asarray(team)[:, None], game.private.shape), demand, quota)


def kept_apart(game: Packing, group: Int, node: Int) -> Packing:
    """The game in which agents of one ``group`` (N,), -1 for none, never stand on one ``node`` (O,), -1 for none."""
    of, on = np.asarray(group)[:, None], np.asarray(node)[None, :]
    nodes = int(on.max(initial=-1)) + 1
    row = np.where((of >= 0) & (on >= 0), of * nodes + on, -1)
    return _with_leg(game, row, np.ones(len(of)), np.ones((int(of.max(initial=-1)) + 1) * nodes))


def _with_leg(game: Packing, row: Int, demand: Float, capacity: Float) -> Packing:
    """One leg more, of resources of its own: row (N, O) among them, demand (N,)."""
    first, room = len(game.capacity), np.asarray(capacity, float)
    leg = np.where(row >= 0, row + first, -1)
    leg[:, :1] = -1
    taken = np.where(leg >= 0, np.asarray(demand, float)[:, None], 0.0)
    return game._replace(
        rows=np.ascontiguousarray(np.concatenate([game.rows, leg[..., None]], 2), np.int64),
        demand=np.ascontiguousarray(np.concatenate([game.demand, taken[..., None]], 2)),
        capacity=np.concatenate([game.capacity, room]),
        curve=np.concatenate([game.curve, np.zeros((len(room), game.curve.shape[1]))]),
    )


def pack(game: Packing) -> Packed:
    """An equilibrium of the packing game without justified envy, from where agents stand (``stay``)."""
    option = np.zeros(len(game.rank), np.int64)
    used = np.zeros(len(game.capacity))
    if not option.size:
        return Packed(option, used, True)
    return Packed(option, used, bool(_pack(game, _order(game), option, used)))


def _order(game: Packing) -> Int:
    """(N,) by class, and within one by the least share of a resource that a place takes, the smallest first."""
    share = np.where(game.rows >= 0, game.demand / np.maximum(game.capacity, 1e-300)[game.rows], 0.0).max(2, initial=0)
    least = np.where(game.ok, share, np.inf).min(1, initial=np.inf)
    return np.lexsort((least, game.rank))


@njit(cache=True)
def _pack(g, order, option, used):
    free = g.capacity * (1.0 + ROUNDING) + 1e-300
    for k in range(len(order)):
        i = order[k]
        o = g.stay[i]
        if o > 0 and g.ok[i, o] and fits(g, free, used, i, o):
            seat(g, used, i, o, option)
    evicted, trial = np.zeros(len(option), np.bool_), np.zeros(len(used))
    for _ in range(SWEEPS):
        for _ in range(SWEEPS):
            if not _replies(g, free, option, used):
                break
        changed = False
        for k in range(len(order)):
            i = order[k]
            if option[i] == 0:
                o = cheapest(g, free, used, i)
                if o > 0:
                    seat(g, used, i, o, option)
                    changed = True
        if changed:
            continue
        for k in range(len(order)):
            i = order[k]
            if option[i] == 0:
                changed = _shift_one(g, free, option, used, i) or _displace(g, free, option, used, i, evicted, trial)
            if changed:
                break
        if not changed:
            return True
    return False


@njit(**LEAN)
def potential(g, r, load):
    """V_r at a load, straight between the curve's points; on beyond the last by its last slope."""
    steps = g.curve.shape[1] - 1
    if g.capacity[r] <= 0.0:
        return g.curve[r, 0]
    x = load / g.capacity[r] * steps
    k = min(int(x), steps - 1)
    return g.curve[r, k] + (x - k) * (g.curve[r, k + 1] - g.curve[r, k])


@njit(**LEAN)
def cost_of(g, used, i, o):
    """Agent i's cost of option o beside ``used`` (R,), itself not in it."""
    cost = g.private[i, o]
    for s in range(g.rows.shape[2]):
        r = g.rows[i, o, s]
        if r >= 0:
            before = used[r]
            for q in range(s):  # a resource that an earlier leg uses too
                if g.rows[i, o, q] == r:
                    before += g.demand[i, o, q]
            cost += potential(g, r, before + g.demand[i, o, s]) - potential(g, r, before)
    return cost


@njit(**LEAN)
def fits(g, free, used, i, o):
    """Whether agent i's option o is within ``free`` (R,) beside ``used`` (R,)."""
    for s in range(g.rows.shape[2]):
        r = g.rows[i, o, s]
        if r >= 0:
            more = 0.0
            for q in range(g.rows.shape[2]):
                if g.rows[i, o, q] == r:
                    more += g.demand[i, o, q]
            if used[r] + more > free[r]:
                return False
    return True


@njit(**LEAN)
def seat(g, used, i, o, option):
    option[i] = o
    for s in range(g.rows.shape[2]):
        if g.rows[i, o, s] >= 0:
            used[g.rows[i, o, s]] += g.demand[i, o, s]


@njit(**LEAN)
def leave(g, used, i, option):
    for s in range(g.rows.shape[2]):
        if g.rows[i, option[i], s] >= 0:
            used[g.rows[i, option[i], s]] -= g.demand[i, option[i], s]
    option[i] = 0


@njit(**LEAN)
def cheapest(g, free, used, i):
    """The cheapest place where agent i fits, the first of equals; 0 for none."""
    best, least = 0, np.inf
    for o in range(1, g.rows.shape[1]):
        if g.ok[i, o] and fits(g, free, used, i, o):
            cost = cost_of(g, used, i, o)
            if cost < least:
                best, least = o, cost
    return best


@njit(**LEAN)
def _replies(g, free, option, used):
    """One round of best responses of the holders; whether any moved."""
    moved = False
    for i in range(len(option)):
        now = option[i]
        if now == 0 or (now == g.stay[i] and g.preempt[i] == np.inf):
            continue
        leave(g, used, i, option)
        o = cheapest(g, free, used, i)
        if o == 0 or cost_of(g, used, i, o) >= cost_of(g, used, i, now) - GAIN:
            o = now
        seat(g, used, i, o, option)
        moved |= o != now
    return moved


@njit(**LEAN)
def _shift_one(g, free, option, used, i):
    """Seat agent i by moving one holder to another place; whether that worked. Nobody loses a place."""
    for o in range(1, g.rows.shape[1]):
        if not g.ok[i, o]:
            continue
        for j in range(len(option)):
            now = option[j]
            if j == i or now == 0 or (now == g.stay[j] and g.preempt[j] == np.inf) or not _meet(g, i, o, j, now):
                continue
            leave(g, used, j, option)
            if fits(g, free, used, i, o):
                seat(g, used, i, o, option)
                to = cheapest(g, free, used, j)
                if to > 0:
                    seat(g, used, j, to, option)
                    return True
                leave(g, used, i, option)
            seat(g, used, j, now, option)
    return False


@njit(**LEAN)
def _meet(g, i, o, j, q):
    """Whether agent i's option o and agent j's option q share a resource."""
    for s in range(g.rows.shape[2]):
        for t in range(g.rows.shape[2]):
            if g.rows[i, o, s] >= 0 and g.rows[i, o, s] == g.rows[j, q, t]:
                return True
    return False


@njit(**LEAN)
def _displace(g, free, option, used, i, evicted, trial):
    """Seat agent i at the expense of lower classes, as few and as low as will do; whether that worked."""
    best, least = 0, np.inf
    for o in range(1, g.rows.shape[1]):
        if g.ok[i, o]:
            cost = _evict(g, free, option, used, i, o, evicted, trial)
            if cost < least:
                best, least = o, cost
    if best == 0:
        return False
    _evict(g, free, option, used, i, best, evicted, trial)
    for j in range(len(option)):
        if evicted[j]:
            leave(g, used, j, option)
    seat(g, used, i, best, option)
    return True


@njit(**LEAN)
def _evict(g, free, option, used, i, o, evicted, trial):
    """Mark who of lower classes gives up its place for agent i on option o: the lowest class first, of equals the
    cheapest to move, then who need not be. Its cost with what that costs; inf where it is not worth it or no use."""
    for r in range(len(used)):
        trial[r] = used[r]
    for j in range(len(option)):
        evicted[j] = False
    while not fits(g, free, trial, i, o):
        pick, lowest, price = -1, -1, np.inf
        for j in range(len(option)):
            lower = option[j] > 0 and not evicted[j] and g.rank[j] > g.rank[i]
            if lower and _helps(g, free, trial, i, o, j, option[j]):
                cost = g.preempt[j] if option[j] == g.stay[j] else 0.0
                if cost < np.inf and (g.rank[j] > lowest or (g.rank[j] == lowest and cost < price)):
                    pick, lowest, price = j, g.rank[j], cost
        if pick < 0:
            return np.inf
        evicted[pick] = True
        _shift(g, trial, pick, option[pick], -1.0)
    total = 0.0
    for j in range(len(option)):  # who was marked early may not be needed in the end
        if evicted[j]:
            _shift(g, trial, j, option[j], 1.0)
            if fits(g, free, trial, i, o):
                evicted[j] = False
                continue
            _shift(g, trial, j, option[j], -1.0)
            total += g.preempt[j] if option[j] == g.stay[j] else 0.0
    if total > 0.0 and total >= g.private[i, 0] - g.private[i, o]:
        return np.inf
    return cost_of(g, trial, i, o) + total


@njit(**LEAN)
def _helps(g, free, used, i, o, j, q):
    """Whether agent j on option q uses a resource that is short for agent i on option o."""
    for s in range(g.rows.shape[2]):
        r = g.rows[i, o, s]
        if r < 0:
            continue
        more = 0.0
        for t in range(g.rows.shape[2]):
            if g.rows[i, o, t] == r:
                more += g.demand[i, o, t]
        if used[r] + more > free[r]:
            for t in range(g.rows.shape[2]):
                if g.rows[j, q, t] == r and g.demand[j, q, t] > 0.0:
                    return True
    return False


@njit(**LEAN)
def _shift(g, used, i, o, sign):
    for s in range(g.rows.shape[2]):
        if g.rows[i, o, s] >= 0:
            used[g.rows[i, o, s]] += sign * g.demand[i, o, s]
