"""What serving agents at places is checked by: envy of who is left out, and what a holder gains by moving alone."""

from __future__ import annotations

import numpy as np
from numba import njit

from games.certificate import Audit
from games.congestion import Bool, Float
from games.lean import KEPT


def measure_envy(found: Audit) -> tuple[tuple[int, int], ...]:
    """Justified envy: (agent, option) where an agent that is left out would be served if lower classes gave way.

    Left out is who is live, has no place, needs one and is not in time. It would be served on an option that it accepts
    if the legs end within its slack with all that its own class and those above hold of each resource left aside. Where
    nobody was given a place (a heuristic, RL alone), who is in time holds what that takes: its shares, all legs shrunk
    alike until the deadline just holds.
    """
    out = np.flatnonzero(found.live & ~found.home & ~found.in_time & ~found.held & found.acceptable.any(axis=1))
    if not len(out):
        return ()
    has, floor = found.held & ~found.home, found.floor
    if not found.held.any():
        has, floor = _taken_floors(found)
    fits = np.zeros((len(out), len(found.options)), bool)
    _would_fit(found, out, has, np.asarray(floor, np.float64), fits)
    return tuple((int(out[a]), int(o)) for a, o in np.argwhere(fits))


@njit(**KEPT)
def _would_fit(a, out, has, floor, fits):
    """Fill ``fits`` (M, O) for agents ``out`` (M,), beside the floors (N, S) of who ``has`` one in their class or
    above."""
    span = a.options.shape[1]
    room = np.empty(len(a.capacity))
    last = -1
    for k in range(len(out)):
        i = out[k]
        if a.rank[i] != last:  # those of one class see one room
            last = a.rank[i]
            room[:] = 1.0
            for j in range(len(has)):
                if has[j] and a.rank[j] <= last:
                    for s in range(span):
                        r = a.options[a.choice[j], s]
                        if r >= 0:
                            room[r] -= floor[j, s]
        for o in range(len(a.options)):
            if not a.acceptable[i, o]:
                continue
            time = 0.0
            for s in range(span):
                r, seconds = a.options[o, s], a.seconds[i, o, s]
                if r >= 0 and seconds > 0.0:
                    share = min(room[r], a.cap[i, o])
                    time += seconds / share if share > 1e-9 else np.inf
            fits[k, o] = time < a.slack[i, o] * (1.0 - 1e-9)


def _taken_floors(found: Audit) -> tuple[Bool, Float]:
    """Who is in time on a resource, and (N, S) the least of its shares, all legs alike, that would do."""
    agents = np.arange(len(found.choice))
    seconds, slack = found.seconds[agents, found.choice], found.slack[agents, found.choice]
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.where(seconds > 0, seconds / found.share, 0.0).sum(axis=1)
        stretch = np.where(slack > 0, time / slack, 1.0)
    has = found.live & found.in_time & (found.choice > 0) & ~found.home
    kept = np.where(has & np.isfinite(stretch), np.minimum(stretch, 1.0), 0.0)
    return has, found.share * kept[:, None]


def measure_fitting_regret(found: Audit) -> float:
    """Largest gain of one holder by moving alone to another place that fits; 0 where nobody holds one.

    A holder's cost is private_i(o) + sum over the resources of o of (1 + toll) / 2 times what it adds to the
    resource's least delay + (1 - toll) / 2 times w^2 / C; the least delay is min sum w^2 / (C f) over f >= floor,
    sum f <= 1, of the holders alone, a thousandth at least being left by the floors that bind. A place fits if the legs
    can end within the slack beside the others' floors; its floors are the least, weighed by the room. Who is ``home``
    needs none and may move anywhere it is allowed, option 0 included. A gain that rounding could make is none.
    """
    if not found.held.any():
        return 0.0
    agents = np.flatnonzero(found.held & found.live)
    now, least = np.full(len(found.choice), np.inf), np.full(len(found.choice), np.inf)
    _fitting(found, True, now, least, np.empty((0, 0)))
    gain = now[agents] - least[agents]
    return float(np.where(gain > 1e-9 + 4e-9 * np.abs(now[agents]), gain, 0.0).max(initial=0.0))


def fitting_costs(found: Audit) -> Float:
    """(N, O) what each holder would be charged at each option, above the private cost of the one it has; inf where no
    place of its own fits, and for who holds none."""
    out = np.full(found.private_cost.shape, np.inf)
    _fitting(found, False, np.empty(len(out)), np.empty(len(out)), out)
    return out


@njit(**KEPT)
def _fitting(a, cheaper, now, least, out):
    """Fill ``now`` and ``least`` (N,) with each holder's cost where it is and at its cheapest place, and unless
    ``cheaper`` is all that is asked ``out`` (N, O) with all. No share of others' delay is below 0, so an option whose
    private cost is no less than what the holder has cannot be cheaper."""
    taken, has, low = a.choice, a.held, a.floor
    n, resources = a.weight.shape
    span = a.options.shape[1]
    ratio = np.empty((resources, n))  # of each resource, holders by floor / weight, the largest first
    wide = np.empty((resources, n))
    low_of = np.empty((resources, n))
    who = np.empty((resources, n), np.int64)
    count = np.zeros(resources, np.int64)
    room = np.ones(resources)
    for i in range(n):
        if not has[i]:
            continue
        for s in range(span):
            r = a.options[taken[i], s]
            if r < 0:
                continue
            w, f = a.weight[i, r] / np.sqrt(a.capacity[r]), low[i, s]
            room[r] -= f
            key = f / w if w > 0.0 else np.inf
            k = count[r]
            while k > 0 and ratio[r, k - 1] < key:
                ratio[r, k], wide[r, k], low_of[r, k], who[r, k] = (
                    ratio[r, k - 1], wide[r, k - 1], low_of[r, k - 1], who[r, k - 1],
                )  # fmt: skip
                k -= 1
            ratio[r, k], wide[r, k], low_of[r, k], who[r, k] = key, w, f, i
            count[r] += 1
    whole = np.empty(resources)  # least delay of all holders
    for r in range(resources):
        whole[r] = _delay(ratio[r], wide[r], low_of[r], who[r], count[r], -1, -1.0, 0.0)
    floor = np.zeros(span)
    free = room.copy()
    without = whole.copy()
    for i in range(n):
        if not has[i]:
            continue
        for s in range(span):
            r = a.options[taken[i], s]
            if r >= 0:
                free[r] = room[r] + low[i, s]
                without[r] = _delay(ratio[r], wide[r], low_of[r], who[r], count[r], i, -1.0, 0.0)
        base = a.private_cost[i, taken[i]]
        for turn in range(2):  # where it is comes first
            for o in range(len(a.options)):
                stays = o == taken[i]
                if stays != (turn == 0):
                    continue
                if not stays and not (a.allowed[i, o] if a.home[i] else a.acceptable[i, o]):
                    continue
                cost = a.private_cost[i, o] - base
                if not stays and cheaper and cost >= least[i]:
                    continue
                if stays:
                    floor[:] = low[i]
                elif a.home[i]:
                    floor[:] = 0.0
                elif not _fits(a, i, o, free, floor):
                    continue
                for s in range(span):
                    r = a.options[o, s]
                    if r < 0:
                        continue
                    w = a.weight[i, r] / np.sqrt(a.capacity[r])
                    added = _delay(ratio[r], wide[r], low_of[r], who[r], count[r], i, w, floor[s]) - without[r]
                    cost += 0.5 * (1.0 + a.toll[r]) * added + 0.5 * (1.0 - a.toll[r]) * w * w
                if stays:
                    now[i] = least[i] = cost
                elif cost < least[i]:
                    least[i] = cost
                if not cheaper:
                    out[i, o] = cost
        for s in range(span):
            r = a.options[taken[i], s]
            if r >= 0:
                free[r], without[r] = room[r], whole[r]


@njit(**KEPT)
def _fits(a, i, o, free, floor):
    """Agent i's least floors on option o in ``free`` room: of all sets of legs that take their whole room, the one with
    which the floors, weighed by the room, are least. False: none ends within the slack."""
    span = a.options.shape[1]
    trial = np.zeros(span)
    best = np.inf
    for clamped in range(1 << span):  # bit s: leg s takes all its room
        left, root, possible = a.slack[i, o], 0.0, a.slack[i, o] > 0.0
        for s in range(span):
            r, sec = a.options[o, s], a.seconds[i, o, s]
            if r < 0 or sec <= 0.0:
                possible = possible and not (clamped >> s) & 1
                continue
            most = min(free[r], a.cap[i, o])
            if most <= 1e-9:
                return False
            if (clamped >> s) & 1:
                left -= sec / most
            else:
                root += np.sqrt(sec / most)
        if not possible or left < 0.0 or (root > 0.0 and left <= 0.0):
            continue
        weighed = 0.0
        for s in range(span):
            r, sec = a.options[o, s], a.seconds[i, o, s]
            trial[s] = 0.0
            if r >= 0 and sec > 0.0:
                most = min(free[r], a.cap[i, o])
                trial[s] = most if (clamped >> s) & 1 else np.sqrt(sec * most) * root / left
                possible = possible and trial[s] <= most
                weighed += trial[s] / most
        if possible and weighed < best:
            best = weighed
            floor[:] = trial
    return best < np.inf


@njit(**KEPT)
def _delay(ratio, wide, least, who, count, without, weight, floor):
    """Least sum of w^2 / f over f >= floor, sum f <= 1, of sorted holders less one, and one more (weight >= 0).

    Floors bind from the largest floor / weight on; each prefix is tried until the next floor holds by itself. Those
    that bind are taken to leave a thousandth at least.
    """
    total = max(weight, 0.0)
    for k in range(count):
        if who[k] != without:
            total += wide[k]
    left, bound = 1.0, 0.0
    key = floor / weight if weight > 0.0 else np.inf
    inserted = weight < 0.0
    k = 0
    while k < count or not inserted:
        if k < count and who[k] == without:
            k += 1
            continue
        mine = not inserted and (k >= count or key >= ratio[k])
        w, f = (weight, floor) if mine else (wide[k], least[k])
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
