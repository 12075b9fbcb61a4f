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

*Trades.* Where everything is full nobody can move alone, and an equilibrium may be poor. With ``trade`` no two agents
would change their places together either: one takes a place that the other leaves for another one, or, within a class,
for none, and the potential is lower so, what giving up costs included. A job that is hardly slower elsewhere leaves the
fast GPU to one that is. Each trade lowers the potential with as many served of each class, so that ends too.

Source: Rosenthal (1973) and Monderer and Shapley (1996) for exact potentials; Vetta (2002) and Wolpert and Tumer (2002)
for marginal contributions; Gale and Shapley (1962) for justified envy, as in :mod:`games.admission`, which divides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from games import packing_moves as moves
from games.congestion import Bool, Float, Int
from games.errors import InvalidGameError, shaped


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


def pack(game: Packing, trade: bool = False) -> Packed:
    """An equilibrium of the packing game without justified envy, from where agents stand (``stay``); with ``trade``
    one in which no two agents would trade places either."""
    option, used = _nobody(game)
    stable = not option.size or moves.settle(game, serving_order(game, trade), option, used, bool(trade))
    return Packed(option, used, bool(stable))


def seat_asked(game: Packing, asked: Int, trade: bool = False) -> Packed:
    """Each agent where it asked to be (N,), in the order in which they are served, as far as there is room; 0
    elsewhere, and where an option is none of its own."""
    option, used = _nobody(game)
    if option.size:
        moves.seat_asked(game, serving_order(game, trade), np.ascontiguousarray(asked, np.int64), option, used)
    return Packed(option, used, False)


def serve_in_order(game: Packing, order: Int, strict: bool = False) -> Packed:
    """One agent of ``order`` (any,) after the other takes its cheapest place that fits; ``strict``: who comes after one
    that none fits waits too."""
    option, used = _nobody(game)
    if option.size:
        moves.serve_in_order(game, np.ascontiguousarray(order, np.int64), bool(strict), option, used)
    return Packed(option, used, False)


def serving_order(game: Packing, dearest: bool = False) -> Int:
    """(N,) by class, and within one by the least share of a resource that a place takes, the smallest first, which
    serves most; or, ``dearest`` first, by what a place saves for each such share."""
    share = np.where(
        game.rows >= 0, game.demand / np.append(np.maximum(game.capacity, 1e-300), 1.0)[game.rows], 0.0
    ).max(2, initial=0)
    least = np.where(game.ok, share, np.inf).min(1, initial=np.inf)
    if not dearest:
        return np.lexsort((least, game.rank))
    saved = (game.private[:, :1] - game.private) / np.maximum(share, 1e-12)
    most = np.where(game.ok, saved, -np.inf).max(1, initial=-np.inf)
    return np.lexsort((least, -most, game.rank))


def _nobody(game: Packing) -> tuple[Int, Float]:
    return np.zeros(len(game.rank), np.int64), np.zeros(len(game.capacity))
