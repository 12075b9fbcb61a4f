r"""The most that can be served, class by class, by mixed-integer programming: to hold a decision against.

With one resource an option, agent i is in time on option o if :math:`a_{io}` = seconds / slack of its resource is
reserved for it. So with :math:`x_{io}` for having a place there, over the options that it accepts,

.. math:: \max \sum_{i \in c} \sum_o x_{io}, \quad \sum_o x_{io} \le 1, \quad \sum_{i, o \to r} a_{io} x_{io} \le 1

for the classes c in turn, the highest first, each count kept from then on: the lexicographic optimum of what stable
admission (:mod:`games.admission`) looks for. Of the answers that serve as many, one of little cost: private costs (with
moving) and delay alone, which are linear; then best responses under the floors. HiGHS also says what cannot be
exceeded, so where it is stopped the gap is known.

Source: Huangfu and Hall (2018), "Parallelizing the dual revised simplex method" (HiGHS, by scipy.optimize.milp).
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix, vstack

from games.admission import Seating, admit
from games.congestion import CongestionBatch, Float, Int
from games.errors import InvalidStateError
from games.places import FULL, Places
from games.seated import better

REACH = 20_000  # pairs of an agent and an option
SCALE = 1e4  # of floors: HiGHS lets a row exceed its limit by 1e-6
COST_GAP, COST_S = 1e-3, 2.0  # relative, of the cost among answers that serve as many, and s at most for it


class Optimum(NamedTuple):
    """The best answer that was found.

    Attributes:
        option: (1, N) choice. seating: who holds a place, at rest.
        gap: agents of the class ``short`` that could be served beyond those that are, at most; 0: proved that of no
            class more can be, those above it served as they are. short: an agent of the first class for which there is
            a gap, -1 where there is none.
    """

    option: Int
    seating: Seating
    gap: int
    short: int
    seconds: float


class _Pairs(NamedTuple):
    """Options that each agent could have a place on, P pairs: what of which resource that takes, and what it costs."""

    agents: int
    agent: Int  # (P,)
    option: Int
    resource: Int  # -1: none
    need: Float
    cost: Float  # less that of opting out


def best_served(game: CongestionBatch, places: Places, start: Seating, limit_s: float) -> Optimum:
    """The optimum of one game (E = 1).

    Args:
        start: an answer that is there already, at rest. limit_s: for HiGHS, in all.

    Raises:
        InvalidStateError: options of several resources, or more pairs than ``REACH``.
    """
    began = time.perf_counter()
    pairs = _pairs(game, places)
    rank = places.rank[0]
    live = np.flatnonzero(game.live[0] & (places.acceptable[0] & game.allowed[0]).any(axis=1))
    chosen = start.option[0] * start.held[0]  # options with a place
    limits, bound = _limits(pairs, game.capacity.shape[1]), {}
    left = lambda: limit_s - (time.perf_counter() - began)
    for level in np.unique(rank[live]):
        mine = (rank[pairs.agent] == level).astype(float)
        count, most = int((chosen[rank == level] > 0).sum()), int((rank[live] == level).sum())
        if count < most:
            found, most = _solve(pairs, limits, -mine, left(), most)
            if found is not None and (found[rank == level] > 0).sum() > count:
                chosen = found
        bound[level] = most
        limits.append(LinearConstraint(csr_matrix(mine), int((chosen[rank == level] > 0).sum()) - 0.5, np.inf))
    if left() > 0 and len(pairs.agent):
        cheap, _ = _solve(pairs, limits, pairs.cost, min(left(), COST_S), 0, COST_GAP)
        chosen = chosen if cheap is None else cheap
    seating = admit(game, places, chosen[None])
    seating = better(game, places, seating, start)
    for level, most in bound.items():
        served = int((seating.held[0] & (rank == level)).sum())
        if most > served:
            who = int(live[rank[live] == level][0])
            return Optimum(seating.option, seating, most - served, who, time.perf_counter() - began)
    return Optimum(seating.option, seating, 0, -1, time.perf_counter() - began)


def _pairs(game: CongestionBatch, places: Places) -> _Pairs:
    if (np.sum(game.options >= 0, axis=1) > 1).any():
        raise InvalidStateError(
            "method 'optimal' takes options of one resource, and here some use several: what a deadline needs of each "
            "is not linear then; take 'hybrid'"
        )
    ok = places.acceptable[0] & game.allowed[0] & game.live[0][:, None]
    if ok.sum() > REACH:
        raise InvalidStateError(
            f"method 'optimal' takes up to {REACH:,} pairs of an agent and an option that it may have; here "
            f"{len(ok):,} agents and {ok.shape[1] - 1:,} options make {int(ok.sum()):,}: take 'hybrid' there"
        )
    seconds, slack = places.seconds[0].sum(axis=2), places.slack[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        need = np.where(seconds > 0, np.where(slack > 0, seconds / slack, np.inf), 0.0)
    agent, option = np.nonzero(ok & (need <= np.minimum(places.cap[0], FULL)))
    resource = game.options[option].max(axis=1, initial=-1)
    r = np.maximum(resource, 0)
    alone = np.where(resource >= 0, game.weight[0][agent, r] ** 2 / game.capacity[0][r], 0.0)
    cost = game.private_cost[0][agent, option] - game.private_cost[0][agent, 0] + alone
    return _Pairs(len(ok), agent, option, resource, need[agent, option], cost)


def _limits(pairs: _Pairs, resources: int) -> list[LinearConstraint]:
    """One place each, and no resource beyond what there is."""
    p, on = np.arange(len(pairs.agent)), pairs.resource >= 0
    one = csr_matrix((np.ones(len(p)), (pairs.agent, p)), (pairs.agents, len(p)))
    room = csr_matrix((SCALE * pairs.need[on], (pairs.resource[on], p[on])), (resources, len(p)))
    top = np.append(np.ones(pairs.agents), np.full(resources, SCALE * FULL))
    return [LinearConstraint(vstack([one, room]).tocsr(), -np.inf, top)]


def _solve(
    pairs: _Pairs, limits: list[LinearConstraint], cost: Float, limit_s: float, most: int, gap: float = 0.0
) -> tuple[Int | None, int]:  # fmt: skip
    """(N,) options with a place, 0 without, of the least cost, None where none was found; and how many can be served
    at most, if that is what was asked."""
    if limit_s <= 0 or not len(pairs.agent):
        return None, most if len(pairs.agent) else 0
    answer = milp(
        cost, constraints=limits, integrality=np.ones(len(cost)), bounds=Bounds(0, 1),
        options={"time_limit": limit_s, "mip_rel_gap": gap},
    )  # fmt: skip
    if answer.mip_dual_bound is not None and np.isfinite(answer.mip_dual_bound):
        most = min(most, int(np.floor(1e-6 - answer.mip_dual_bound)))
    if answer.x is None:
        return None, most
    on = answer.x > 0.5
    found = np.zeros(pairs.agents, np.int64)
    found[pairs.agent[on]] = pairs.option[on]
    return found, most
