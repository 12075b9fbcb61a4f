r"""The certificate's measures where options are many: over lists of those that a bound does not rule out.

A problem's auditor first reads what agents have where they are (:class:`Taken`), from which follows what each pays now.
Then it lists (:class:`Lists`), for each agent, every option whose cost a lower bound does not show to be no less than
that, and for who was left out every option that would serve it if its resources were free. What is not on a list cannot
change an answer, so the answers are those of :mod:`games.certificate` over all options, from the same definitions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from games.congestion import Bool, Float, Int
from games.lean import INLINE, LEAN, ROOMY


class Findings(NamedTuple):
    """What a certificate found of N agents: who is in time, as was believed and by the reports, and who needs nobody;
    the largest gain by moving alone; who would be served were lower classes to give way."""

    in_time: Bool
    by_reports: Bool
    home: Bool
    regret: float
    envy: tuple[int, ...]


class Taken(NamedTuple):
    """N agents where they are; S legs of an option.

    Attributes:
        option: (N,) taken. live: (N,) has something to decide.
        home: (N,) is served without a place. held: (N,) holds one, or needs none.
        in_time: (N,) is served by its deadline with what it was given, as was believed; True where it has none.
        by_reports: (N,) the same by the state's reports.
        resource: (N, S) of the option taken, -1 for none. weight: (N, S) loads there. private: (N,) its private cost.
        seconds: (N, S), slack: (N,) what serving takes there. share, floor: (N, S) what the agent got and was promised.
        capacity, toll: (R,).
    """

    option: Int
    live: Bool
    home: Bool
    held: Bool
    in_time: Bool
    by_reports: Bool
    resource: Int
    weight: Float
    private: Float
    seconds: Float
    slack: Float
    share: Float
    floor: Float
    capacity: Float
    toll: Float


class Lists(NamedTuple):
    """Options of N agents, those of agent i from ``start[i]`` to ``start[i + 1]``; L in all.

    Attributes:
        start: (N + 1,). option: (L,). resource: (L, S), -1 for none. weight: (L, S). private: (L,).
        seconds: (L, S), slack: (L,): what serving takes. fitting: (L,) a place there may be held: for who is ``home``
            an option that is allowed, otherwise one that is acceptable.
    """

    start: Int
    option: Int
    resource: Int
    weight: Float
    private: Float
    seconds: Float
    slack: Float
    fitting: Bool


class Held(NamedTuple):
    """Who holds floors on each resource, those of r from ``start[r]`` on, by floor over weight, the largest first.

    Attributes:
        start: (R + 1,). ratio, wide, low: (H,) floor over weight, weight over the root of the capacity, floor.
        who: (H,). delay: (R,) least of all holders. room: (R,) what their floors leave.
    """

    start: Int
    ratio: Float
    wide: Float
    low: Float
    who: Int
    delay: Float
    room: Float


@njit(**LEAN)
def paid_at_loads(t, load, paid):
    """Fill ``load`` (R,), and ``paid`` (N,) with what live agents pay for their resources, from the definition."""
    legs = t.resource.shape[1]
    load[:] = 0.0
    for i in range(len(paid)):
        for s in range(legs):
            if t.live[i] and t.resource[i, s] >= 0:
                load[t.resource[i, s]] += t.weight[i, s]
    for i in range(len(paid)):
        paid[i] = 0.0
        for s in range(legs):
            r, w = t.resource[i, s], t.weight[i, s]
            if t.live[i] and r >= 0:
                paid[i] += w * (w + (1.0 + t.toll[r]) * (load[r] - w)) / t.capacity[r]


@njit(**LEAN)
def gain_at_loads(t, lists, load, paid):
    """The most that one live agent gains by moving alone, as :func:`games.certificate.deviations`."""
    legs = t.resource.shape[1]
    most = 0.0
    for i in range(len(paid)):
        if not t.live[i]:
            continue
        for k in range(lists.start[i], lists.start[i + 1]):
            cost = lists.private[k] - t.private[i]
            for s in range(legs):
                r, w = lists.resource[k, s], lists.weight[k, s]
                if r < 0:
                    continue
                others = load[r]
                for q in range(legs):
                    if t.resource[i, q] == r:
                        others -= t.weight[i, q]
                cost += w * (w + (1.0 + t.toll[r]) * others) / t.capacity[r]
            most = max(most, paid[i] - cost)
    return most


@njit(**ROOMY)
def holders(t, paid):
    """Who holds what, as :class:`Held`; fill ``paid`` (N,) with what holders are charged for their resources under the
    floors, 0 for who holds none; see :func:`games.certificate_places.measure_fitting_regret`."""
    n, legs = t.resource.shape
    resources = len(t.capacity)
    start = np.zeros(resources + 1, np.int64)
    for i in range(n):
        for s in range(legs):
            if t.held[i] and t.resource[i, s] >= 0:
                start[t.resource[i, s] + 1] += 1
    for r in range(resources):
        start[r + 1] += start[r]
    many = start[resources]
    ratio, wide, low, who = np.empty(many), np.empty(many), np.empty(many), np.empty(many, np.int64)
    count = np.zeros(resources, np.int64)
    delay, room = np.empty(resources), np.ones(resources)
    for i in range(n):
        for s in range(legs):
            r = t.resource[i, s]
            if not t.held[i] or r < 0:
                continue
            w, f = t.weight[i, s] / np.sqrt(t.capacity[r]), t.floor[i, s]
            room[r] -= f
            key = f / w if w > 0.0 else np.inf
            k = start[r] + count[r]
            while k > start[r] and ratio[k - 1] < key:
                ratio[k], wide[k], low[k], who[k] = ratio[k - 1], wide[k - 1], low[k - 1], who[k - 1]
                k -= 1
            ratio[k], wide[k], low[k], who[k] = key, w, f, i
            count[r] += 1
    h = Held(start, ratio, wide, low, who, delay, room)
    for r in range(resources):
        delay[r] = _least(h, r, -1, -1.0, 0.0)
    for i in range(n):
        paid[i] = 0.0
        for s in range(legs):
            r = t.resource[i, s]
            if t.held[i] and r >= 0:
                paid[i] += _charged(t, h, i, r, t.weight[i, s], t.floor[i, s], _least(h, r, i, -1.0, 0.0))
    return h


@njit(**LEAN)
def _least(h, r, without, weight, floor):
    """The least sum of w^2 / f over f >= floor, sum f <= 1, of resource r's holders less one, and one more (weight >=
    0); as in :mod:`games.certificate`."""
    k, end = h.start[r], h.start[r + 1]
    total = max(weight, 0.0)
    for j in range(k, end):
        if h.who[j] != without:
            total += h.wide[j]
    left, bound = 1.0, 0.0
    key = floor / weight if weight > 0.0 else np.inf
    inserted = weight < 0.0
    while k < end or not inserted:
        if k < end and h.who[k] == without:
            k += 1
            continue
        mine = not inserted and (k >= end or key >= h.ratio[k])
        w, f = (weight, floor) if mine else (h.wide[k], h.low[k])
        if w > 0.0 or f > 0.0:  # one without weight and floor takes nothing
            if total <= 0.0 or f * total <= w * max(left, 1e-3):  # free at the present price, as are all that follow
                break
            left -= f
            total = max(total - w, 0.0)
            bound += w * w / f
        if mine:
            inserted = True
        else:
            k += 1
    return bound + (total * total / max(left, 1e-3) if total > 0.0 else 0.0)


@njit(**INLINE)
def _charged(t, h, i, r, weight, floor, without):
    """What agent i is charged on resource r with a floor there; ``without`` is the others' least delay."""
    w = weight / np.sqrt(t.capacity[r])
    added = _least(h, r, i, w, floor) - without
    return 0.5 * (1.0 + t.toll[r]) * added + 0.5 * (1.0 - t.toll[r]) * w * w


@njit(**ROOMY)
def gain_among_places(t, lists, h, paid):
    """The most that one holder gains by moving alone to another place that fits, as
    :func:`games.certificate_places.measure_fitting_regret`."""
    n, legs = t.resource.shape
    floor, free, without, trial = np.zeros(legs), np.empty(legs), np.empty(legs), np.zeros(legs)
    most = 0.0
    for i in range(n):
        if not t.held[i] or not t.live[i]:
            continue
        now = least = paid[i]
        for k in range(lists.start[i], lists.start[i + 1]):
            cost = lists.private[k] - t.private[i]
            if not lists.fitting[k] or cost >= least or lists.option[k] == t.option[i]:
                continue
            for s in range(legs):
                r = lists.resource[k, s]
                free[s] = h.room[r] if r >= 0 else 1.0
                without[s] = h.delay[r] if r >= 0 else 0.0
                for q in range(legs):
                    if r >= 0 and t.resource[i, q] == r:
                        free[s] += t.floor[i, q]
                        without[s] = _least(h, r, i, -1.0, 0.0)
            floor[:] = 0.0
            if not t.home[i] and not _fits(lists, k, free, trial, floor):
                continue
            for s in range(legs):
                r = lists.resource[k, s]
                if r >= 0:
                    cost += _charged(t, h, i, r, lists.weight[k, s], floor[s], without[s])
            least = min(least, cost)
        gain = now - least
        size = abs(now)
        if gain > 1e-9 + 4e-9 * size:  # a gain that rounding could make is none
            most = max(most, gain)
    return most


@njit(**LEAN)
def _fits(lists, k, free, trial, floor):
    """The least floors (S,) of entry k in ``free`` room (S,): of all sets of legs that take their whole room, the one
    with which the floors, weighed by the room, are least. False: none ends within its slack."""
    seconds, slack, resource = lists.seconds[k], lists.slack[k], lists.resource[k]
    legs = len(seconds)
    best = np.inf
    for clamped in range(1 << legs):  # bit s: leg s takes all its room
        left, root, possible = slack, 0.0, slack > 0.0
        for s in range(legs):
            if resource[s] < 0 or seconds[s] <= 0.0:
                possible = possible and not (clamped >> s) & 1
                continue
            if free[s] <= 1e-9:
                return False
            if (clamped >> s) & 1:
                left -= seconds[s] / free[s]
            else:
                root += np.sqrt(seconds[s] / free[s])
        if not possible or left < 0.0 or (root > 0.0 and left <= 0.0):
            continue
        weighed = 0.0
        for s in range(legs):
            trial[s] = 0.0
            if resource[s] >= 0 and seconds[s] > 0.0:
                trial[s] = free[s] if (clamped >> s) & 1 else np.sqrt(seconds[s] * free[s]) * root / left
                possible = possible and trial[s] <= free[s]
                weighed += trial[s] / free[s]
        if possible and weighed < best:
            best = weighed
            for s in range(legs):
                floor[s] = trial[s]
    return best < np.inf


@njit(**ROOMY)
def envious(t, lists, out, rank, has, floor, found):
    """Fill ``found`` (M,) with whether each agent of ``out`` (M,) would be served, were lower classes to give way, as
    :func:`games.certificate_places.measure_envy`; beside the floors (N, S) of who ``has`` one (N,) in its class (N,) or
    above."""
    legs = t.resource.shape[1]
    room = np.empty(len(t.capacity))
    last = -1
    for a in range(len(out)):
        i = out[a]
        found[a] = False
        if lists.start[i] == lists.start[i + 1]:
            continue
        if rank[i] != last:  # those of one class see one room
            last = rank[i]
            room[:] = 1.0
            for j in range(len(has)):
                for s in range(legs):
                    if has[j] and rank[j] <= last and t.resource[j, s] >= 0:
                        room[t.resource[j, s]] -= floor[j, s]
        for k in range(lists.start[i], lists.start[i + 1]):
            time = 0.0
            for s in range(legs):
                r, seconds = lists.resource[k, s], lists.seconds[k, s]
                if r >= 0 and seconds > 0.0:
                    time += seconds / room[r] if room[r] > 1e-9 else np.inf
            found[a] |= lists.fitting[k] and time < lists.slack[k] * (1.0 - 1e-9)


def taken_floors(t: Taken) -> tuple[Bool, Float]:
    """Who is in time on a resource, and (N, S) the least of its shares, all legs alike, that would do: where nobody was
    given a place."""
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.where(t.seconds > 0, t.seconds / t.share, 0.0).sum(axis=1)
        stretch = np.where(t.slack > 0, time / t.slack, 1.0)
    has = t.live & t.in_time & (t.resource >= 0).any(axis=1) & ~t.home
    kept = np.where(has & np.isfinite(stretch), np.minimum(stretch, 1.0), 0.0)
    return has, t.share * kept[:, None]
