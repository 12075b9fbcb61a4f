r"""Congestion games in which each agent considers a short list of its options, and what proves that enough.

A list holds an agent's options of the least *lone* cost: what it pays there with nobody else on its resources. No
option costs less at any loads, so an agent that pays no more than the least lone cost off its list does best on it: an
equilibrium among the lists is one of the whole game where that holds of every agent. Where it does not hold of some,
the lists are to be longer. Under a log prior, what is off the list counts as at the clip, the least a prior can say.

Arrays are small and dense (M agents that have something to decide, T listed options of S legs): a sweep touches M T
cells, not N O.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from games.admission import _admit, leftover
from games.candidate_games import _mix, _settle
from games.congestion import Bool, CongestionGame, Float, Int
from games.floor_replies import least_delay
from games.gibbs_sweeps import NEVER
from games.lean import KEPT
from games.places import Seats, Table

SWEEPS, TOLERANCE, GAIN, REPLIES, TIE = 12, 1e-3, 1e-10, 200, 1e-12  # as in coordinator.merge and coordinator.choose


class Shortlists(NamedTuple):
    """One game on short lists. Option 0 (opting out) is the first of each list.

    Attributes:
        who: (M,) agents that have something to decide. agents, options: N and O of the whole game.
        option: (M, T) ids, -1 where an agent has fewer. slot: (M, T, S) resource of each leg, R for none.
        weight: (M, T, S) loads. private: (M, T) costs, inf where there is no option.
        off: (M,) the least lone cost off the list, inf where all is listed. capacity, toll: (R,).
    """

    who: Int
    agents: int
    options: int
    option: Int
    slot: NDArray[np.uint32]
    weight: Float
    private: Float
    off: Float
    capacity: Float
    toll: Float


class Serving(NamedTuple):
    """What serving takes on short lists, as in :class:`games.places.Places`.

    Attributes:
        seconds: (M, T, S). slack: (M, T). acceptable: (M, T). rank, home: (M,).
        more: (M,) whether an option off the list might serve the agent, were its resources free.
    """

    seconds: Float
    slack: Float
    acceptable: Bool
    rank: Int
    home: Bool
    more: Bool


class ListedMerge(NamedTuple):
    """What a game was merged to: (M,) places in the lists of the choice, of the proposal's own, the index of the start
    that won (merged, proposal, game), sweeps, whether replies came to rest."""

    place: Int
    alone: Int
    origin: int
    sweeps: int
    stable: bool


def merge_lists(g: Shortlists, log_prior: Float, trust: float, choose: bool, prefers: bool) -> ListedMerge:
    """As :func:`coordinator.at_once.merge_at_once`, on the lists; at trust inf the game's own answer.

    Args:
        log_prior: (M, T) clipped; what is off the lists is at the clip.
    """
    place, alone = np.empty(len(g.who), np.int64), np.empty(len(g.who), np.int64)
    numbers = _merge(
        g.slot, g.weight, g.private, g.capacity, g.toll, log_prior, float(trust), choose, prefers, place, alone
    )  # fmt: skip
    return ListedMerge(place, alone, int(numbers[0]), int(numbers[1]), bool(numbers[2]))


@njit(**KEPT, error_model="numpy", nogil=True)
def _merge(slot, weight, private, capacity, toll, prior, trust, choose, prefers, place, alone):
    agents, count = private.shape
    charged, plain = np.empty((agents, count)), np.empty((agents, count))
    logit, mixed, score = np.empty((agents, count)), np.empty((agents, count)), np.empty((agents, count))
    for i in range(agents):
        total = 0.0
        for t in range(count):
            listed = private[i, t] < np.inf
            charged[i, t] = private[i, t] - prior[i, t] / trust
            plain[i, t] = private[i, t] if listed else 0.0
            logit[i, t] = prior[i, t] if listed else NEVER
            mixed[i, t] = np.exp(prior[i, t]) if listed else 0.0
            total += mixed[i, t]
        for t in range(count):
            mixed[i, t] /= total
    _best(logit, alone)
    trial = np.empty(agents, np.int64)
    if trust == np.inf:
        _best(-private, place)
        rest, _ = _settle(private, slot, weight, capacity, toll, place, GAIN, np.int64(REPLIES))
        return 2, rest, rest <= REPLIES
    sweeps, _ = _mix(plain, slot, weight, capacity, toll, logit, trust, mixed, score, TOLERANCE, np.int64(SWEEPS))
    _best(score, place)
    rest, _ = _settle(charged, slot, weight, capacity, toll, place, GAIN, np.int64(REPLIES))
    stable, origin = rest <= REPLIES, 0
    least = _potential(slot, weight, charged, capacity, toll, place)
    for start in range(1, 3):
        if not choose or (start == 1 and not prefers):
            continue
        if start == 1:
            trial[:] = alone
        else:
            _best(-private, trial)
            _settle(private, slot, weight, capacity, toll, trial, GAIN, np.int64(REPLIES))
        rest, _ = _settle(charged, slot, weight, capacity, toll, trial, GAIN, np.int64(REPLIES))
        value = _potential(slot, weight, charged, capacity, toll, trial)
        if value < least - TIE:
            least, origin, stable = value, start, rest <= REPLIES
            place[:] = trial
    return origin, sweeps, stable


@njit(**KEPT)
def _best(score, place):
    """Fill ``place`` (M,) with the first of the highest scores (M, T)."""
    for i in range(len(place)):
        best = 0
        for t in range(1, score.shape[1]):
            if score[i, t] > score[i, best]:
                best = t
        place[i] = best


@njit(**KEPT)
def _potential(slot, weight, private, capacity, toll, place):
    resources = len(capacity)
    load, square = np.zeros(resources + 1), np.zeros(resources + 1)
    total = 0.0
    for i in range(len(place)):
        total += private[i, place[i]]
        for s in range(slot.shape[2]):
            w = weight[i, place[i], s]
            load[slot[i, place[i], s]] += w
            square[slot[i, place[i], s]] += w * w
    for r in range(resources):
        total += ((1.0 + toll[r]) * load[r] ** 2 + (1.0 - toll[r]) * square[r]) / (2.0 * capacity[r])
    return total


def tempted(g: Shortlists, place: Int, log_prior: Float, trust: float, limit: float) -> Bool:
    """(M,) whether an option off the list might cost an agent less than what it has, under the prior."""
    paid = np.empty(len(place))
    _pay(g.slot, g.weight, g.capacity, g.toll, place, paid)
    return _beyond(g, place, paid, log_prior, trust, limit)


def _beyond(g: Shortlists, place: Int, paid: Float, log_prior: Float, trust: float, limit: float) -> Bool:
    rows = np.arange(len(place))
    now = g.private[rows, place] + paid
    off = g.off
    if np.isfinite(trust):
        now, off = now - log_prior[rows, place] / trust, g.off + limit / trust
    return np.asarray(now > off + 1e-9 * (1.0 + np.abs(now)))


@njit(**KEPT)
def _pay(slot, weight, capacity, toll, place, paid):
    """Fill ``paid`` (M,) with what each pays for its resources at everybody's choice."""
    load = np.zeros(len(capacity) + 1)
    for i in range(len(place)):
        for s in range(slot.shape[2]):
            load[slot[i, place[i], s]] += weight[i, place[i], s]
    for i in range(len(place)):
        paid[i] = 0.0
        for s in range(slot.shape[2]):
            r, w = slot[i, place[i], s], weight[i, place[i], s]
            if r < len(capacity):
                paid[i] += w * (w + (1.0 + toll[r]) * (load[r] - w)) / capacity[r]


class ListedSeating(NamedTuple):
    """Stable admission's answer on lists: (M,) places in them, (M,) who holds one, (M, S) floors, whether replies came
    to rest; (M,) whether an option off the list might matter to an agent."""

    place: Int
    held: Bool
    floor: Float
    stable: bool
    unsure: Bool


def admit_lists(
    g: Shortlists, serving: Serving, wish: Int, log_prior: Float, trust: float, limit: float
) -> ListedSeating:
    """:func:`games.admission.admit` on the lists, nobody being moved to make room."""
    agents, count, legs = g.weight.shape
    slot = g.slot.astype(np.int64)
    rows = np.where(slot < len(g.capacity), slot, -1)
    tilt = log_prior / trust if np.isfinite(trust) else 0.0
    t = Table(
        rows, 1, serving.seconds, serving.slack, np.full((agents, count), np.inf), serving.acceptable, serving.rank,
        serving.home, np.full(agents, np.nan), g.weight, g.capacity, g.private - tilt, g.toll,
    )  # fmt: skip
    place, held, floor = np.zeros(agents, np.int64), np.zeros(agents, bool), np.zeros((agents, legs))
    paid = np.zeros(agents)
    stable = _seat(t, wish, place, held, floor, paid)
    unsure = ~held & serving.more
    unsure |= held & _beyond(g, place, paid, log_prior, trust, limit)
    return ListedSeating(place, held, floor, bool(stable), unsure)


@njit(**KEPT)
def _seat(t, wish, place, held, floor, paid):
    resources, agents = len(t.capacity), len(wish)
    z = Seats(place, held, floor, np.zeros(resources), np.zeros(resources), np.zeros(1, np.int64))
    stable = _admit(t, z, wish, np.zeros(agents, np.int64), np.int64(0))
    leftover(t, z, wish, np.ones(agents, np.bool_), t.ok)
    _charge(t, z, paid)
    return stable


@njit(**KEPT)
def _charge(t, z, paid):
    """Fill ``paid`` (M,) with what holders are charged for their resources under the floors, 0 for who holds none."""
    agents, legs = z.floor.shape
    resources = len(t.capacity)
    start = np.zeros(resources + 1, np.int64)
    for i in range(agents):
        for s in range(legs):
            r = t.rows[i, z.option[i], s]
            if z.held[i] and r >= 0:
                start[r + 1] += 1
    most = 0
    for r in range(resources):
        most = max(most, start[r + 1])
        start[r + 1] += start[r]
    who, leg, at = np.empty(start[resources], np.int64), np.empty(start[resources], np.int64), start.copy()
    for i in range(agents):
        for s in range(legs):
            r = t.rows[i, z.option[i], s]
            if z.held[i] and r >= 0:
                who[at[r]], leg[at[r]] = i, s
                at[r] += 1
    w, low = np.empty(most), np.empty(most)
    paid[:] = 0.0
    for r in range(resources):
        root = np.sqrt(t.capacity[r])
        whole = 0.0
        for without in range(-1, start[r + 1] - start[r]):
            m = 0
            for k in range(start[r], start[r + 1]):
                if k - start[r] != without:
                    j = who[k]
                    w[m], low[m] = t.weight[j, z.option[j], leg[k]] / root, z.floor[j, leg[k]]
                    m += 1
            delay = least_delay(w, low, m)
            if without < 0:
                whole = delay
                continue
            i = who[start[r] + without]
            own = t.weight[i, z.option[i], leg[start[r] + without]] ** 2 / t.capacity[r]
            paid[i] += 0.5 * (1.0 + t.toll[r]) * (whole - delay) + 0.5 * (1.0 - t.toll[r]) * own


def shortlists_of(game: CongestionGame, width: int, live: Bool | None = None) -> Shortlists:
    """Lists of a whole game, for who has one; option 0 of every agent is to be allowed."""
    who = np.arange(game.agents) if live is None else np.flatnonzero(live)
    uses = np.append(game.weight * (game.weight / game.capacity), np.zeros((game.agents, 1)), axis=1)
    alone = np.where(game.allowed, game.private_cost + sum(uses[:, leg] for leg in game.options.T), np.inf)[who, 1:]
    order = np.argsort(alone, axis=1, kind="stable")
    count = min(width, len(game.options)) - 1
    ranked = np.take_along_axis(alone, order, 1)
    option = np.zeros((len(who), 1 + count), np.int64)
    option[:, 1:] = np.where(np.isfinite(ranked[:, :count]), 1 + order[:, :count], -1)
    off = ranked[:, count] if count < alone.shape[1] else np.full(len(who), np.inf)
    legs = np.where((option >= 0)[..., None], game.options[option], -1)
    listed = option >= 0
    return Shortlists(
        who, game.agents, len(game.options), option, np.where(legs >= 0, legs, len(game.capacity)).astype(np.uint32),
        np.where(legs >= 0, game.weight[who[:, None, None], np.maximum(legs, 0)], 0.0),
        np.where(listed, game.private_cost[who[:, None], option], np.inf), off, game.capacity, game.toll,
    )  # fmt: skip
