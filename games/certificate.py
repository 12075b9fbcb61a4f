r"""Checks of an answer by code that shares nothing with the solvers: from the definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from games.congestion import Bool, CongestionGame, Float, Int
from games.quadratic import QuadraticGame


class Costs(Protocol):
    """What a regret is measured in: a congestion game's arrays, wherever they come from."""

    @property
    def options(self) -> Int: ...  # (O, S)
    @property
    def weight(self) -> Float: ...  # (N, R)
    @property
    def capacity(self) -> Float: ...  # (R,)
    @property
    def private_cost(self) -> Float: ...  # (N, O)
    @property
    def allowed(self) -> Bool: ...  # (N, O)
    @property
    def toll(self) -> Float: ...  # (R,)


class Audit(NamedTuple):
    """What a problem's own auditor reads from one state and one allocation, from the definitions. N agents, O options.

    Attributes:
        options, weight, capacity, private_cost, allowed, toll: the game, as in :class:`games.congestion`.
        live: (N,) has something to decide.
        in_time: (N,) is served by its deadline with what it was given, as was believed; True where it has none.
        by_reports: (N,) the same by the state's reports at their face value.
        seconds, slack, cap, acceptable, home: what serving takes, as in :class:`games.places.Places`, of one state.
        rank: (N,) class, 0 the highest.
        choice: (N,) options taken. held: (N,) holds a place, or needs none. share, floor: (N, S) of each leg.
    """

    options: Int
    weight: Float
    capacity: Float
    private_cost: Float
    allowed: Bool
    toll: Float
    live: Bool
    in_time: Bool
    by_reports: Bool
    seconds: Float
    slack: Float
    cap: Float
    acceptable: Bool
    home: Bool
    rank: Int
    choice: Int
    held: Bool
    share: Float
    floor: Float


@dataclass(frozen=True)
class CapacityCheck:
    """Worst excess over a capacity, relative to it, and where.

    Attributes:
        max_violation: largest (use - capacity) / capacity, at least 0.
        violations: one line for each resource whose excess is above the tolerance.
    """

    max_violation: float
    violations: tuple[str, ...]

    @property
    def feasible(self) -> bool:
        return not self.violations


def check_capacity(
    family: str, resource: ArrayLike, use: ArrayLike, capacity: ArrayLike, tolerance: float = 1e-9
) -> CapacityCheck:
    """Does what the agents use fit each resource of one family?

    Args:
        family: name for messages, such as "cpu".
        resource: (N,) resource of each agent, -1 for none.
        use: (N,) what each agent takes of it, >= 0, in the capacity's unit.
        capacity: (R,) what there is.
        tolerance: relative excess that counts as rounding.
    """
    where, taken, limit = np.asarray(resource), np.asarray(use, float), np.asarray(capacity, float)
    messages: list[str] = []
    worst = 0.0
    for agent in np.flatnonzero(~(np.isfinite(taken) & (taken >= 0))):
        messages.append(f"{family}: agent {agent} uses {taken[agent]}, which is not a finite amount >= 0")
        worst = np.inf
    held = where >= 0
    total_of = np.bincount(where[held], taken[held], len(limit)).tolist()
    for r in range(len(limit)):
        total = total_of[r]
        excess = (total - limit[r]) / limit[r] if limit[r] > 0 else (np.inf if total > 0 else 0.0)
        worst = max(worst, excess)
        if excess > tolerance:
            messages.append(f"{family}: resource {r} is used to {total:.6g} of {limit[r]:.6g}")
    return CapacityCheck(float(worst), tuple(messages))


def check_limit(name: str, value: ArrayLike, limit: ArrayLike, tolerance: float = 1e-9) -> CapacityCheck:
    """Is every agent's own value within [0, its limit]? ``value`` and ``limit`` are (N,), in one unit."""
    got, most = np.asarray(value, float), np.asarray(limit, float)
    scale = np.where(most != 0, np.abs(most), np.where(np.abs(got) > 0, np.abs(got), 1.0))
    excess = np.where(np.isfinite(got), np.maximum(got - most, -got) / scale, np.inf)
    over = np.flatnonzero(excess > tolerance)
    messages = tuple(f"{name}: agent {i} has {got[i]:.6g}, permitted is 0 to {most[i]:.6g}" for i in over)
    return CapacityCheck(float(excess.max(initial=0.0)), messages)


def measure_regret(game: Costs, choice: ArrayLike) -> float:
    """Largest gain of one agent by deviating alone, each deviation evaluated from the definition.

    O(N O S), from arrays of size N x O x S: for verification, not for a hot path.
    """
    taken = np.asarray(choice)
    if not len(taken):
        return 0.0
    agents = np.arange(len(taken))
    own = np.zeros((len(taken), game.weight.shape[1] + 1))  # the last column is for resource -1: none
    own[:, :-1] = game.weight
    used = np.zeros(own.shape)
    of = game.options[taken]
    used[agents[:, None], of] = own[agents[:, None], of]
    others = used.sum(axis=0) - used
    price = own * (own + others)
    price[:, :-1] += own[:, :-1] * game.toll * others[:, :-1]
    price[:, :-1] /= game.capacity
    base = np.where(game.allowed, game.private_cost, np.inf).min(axis=1, keepdims=True)  # large offsets drown no gain
    costs = (game.private_cost - base) + price[:, game.options].sum(axis=2)
    costs[~game.allowed] = np.inf
    return float((costs[agents, taken] - costs.min(axis=1)).max())


def rank_by(priority: ArrayLike, gap: float) -> Int:
    """(N,) class of each agent, 0 the highest; one begins more than ``gap`` below the first of the last."""
    value = np.asarray(priority, float)
    heads: list[float] = []
    for level in sorted(set(value.tolist()), reverse=True):
        if not heads or level < heads[-1] - gap:
            heads.append(level)
    return np.searchsorted(-np.array(heads), -value, side="right").astype(np.int64) - 1


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


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
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


def measure_residual(game: CongestionGame, log_prior: ArrayLike, trust: float, mixed: ArrayLike) -> float:
    """Largest gap between a mixed strategy and the Gibbs reply to it, from the definition."""
    prior, sigma = np.asarray(log_prior, float), np.asarray(mixed, float)
    incidence = np.zeros((len(game.options), game.weight.shape[1]))
    for o, resources in enumerate(game.options):
        incidence[o, resources[resources >= 0]] = 1.0
    expected = (sigma @ incidence) * game.weight
    others = expected.sum(axis=0)[None] - expected
    price = game.weight * (game.weight + (1 + game.toll) * others) / game.capacity
    logits = prior - trust * (game.private_cost + price @ incidence.T)
    logits[~game.allowed] = -np.inf
    reply = np.exp(logits - logits.max(axis=1, keepdims=True))
    reply /= reply.sum(axis=1, keepdims=True)
    return float(np.abs(reply - sigma).max(initial=0.0))


def count_excess(resource: ArrayLike, share: ArrayLike, resources: int) -> NDArray[np.float64]:
    """(E,) worst excess over one of E x ``resources`` unit capacities, for many joint allocations at once.

    Args:
        resource: (E, N) resource of each agent, -1 for none.
        share: (E, N) what each takes; a negative or non-finite share counts as an infinite excess.
        resources: how many each allocation has.
    """
    where, taken = np.asarray(resource), np.asarray(share, float)
    count = len(where)
    index = np.where(where >= 0, where, resources) + np.arange(count)[:, None] * (resources + 1)
    total = np.bincount(index.ravel(), taken.ravel(), count * (resources + 1)).reshape(count, resources + 1)
    worst = np.maximum(total[:, :resources].max(axis=1, initial=0.0) - 1.0, 0.0)
    broken = (~np.isfinite(taken) | (taken < 0)).any(axis=1)
    return np.asarray(np.where(broken, np.inf, worst))


def deviations(game: Costs, choice: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(N,) each agent's gain by its best deviation, >= 0, and (N,) that option: for games too large for
    :func:`measure_regret`, which it agrees with. O(N O S), compiled, and nothing of size N x O is made."""
    taken = np.asarray(choice, dtype=np.int64)
    gain = np.zeros(len(taken))
    option = taken.copy()
    _deviations(
        game.options,
        game.weight,
        game.capacity,
        game.private_cost,
        game.allowed,
        game.toll,
        taken,
        gain,
        option,
    )
    return gain, option


@njit(cache=True)
def _deviations(options, weight, capacity, private, allowed, toll, taken, gain, option):
    n, resources = weight.shape
    total = np.zeros(resources)
    for i in range(n):
        for r in options[taken[i]]:
            if r >= 0:
                total[r] += weight[i, r]
    charge = np.empty(resources)
    for i in range(n):
        base = np.inf  # large offsets drown no gain
        for o in range(len(options)):
            if allowed[i, o]:
                base = min(base, private[i, o])
        for r in range(resources):
            charge[r] = weight[i, r] * (weight[i, r] + total[r] + toll[r] * total[r]) / capacity[r]
        for r in options[taken[i]]:
            if r >= 0:
                charge[r] -= weight[i, r] * (1 + toll[r]) * weight[i, r] / capacity[r]
        least = np.inf
        present = np.inf
        for o in range(len(options)):
            if allowed[i, o]:
                cost = private[i, o] - base
                for s in range(options.shape[1]):
                    if options[o, s] >= 0:
                        cost += charge[options[o, s]]
                if o == taken[i]:
                    present = cost
                if cost < least:
                    least = cost
                    option[i] = o
        gain[i] = max(present - least, 0.0)
        if gain[i] == 0.0:
            option[i] = taken[i]


def measure_kkt(game: QuadraticGame, x: ArrayLike, multiplier: ArrayLike) -> float:
    """KKT residual of a variational equilibrium, relative to the sizes of what is compared.

    The largest of: coordinates outside their box, coupled limits broken beyond what they give, negative prices, price
    times slack, and gradient plus prices pointing where the coordinate could still go.
    """
    point, price = np.asarray(x, float), np.asarray(multiplier, float)
    if not (np.isfinite(point).all() and np.isfinite(price).all()):
        return float("inf")
    pull = game.linear.copy()
    for d in range(len(point)):
        pull += game.jacobian[:, d] * point[d]
    size = max(np.abs(game.linear).max(initial=0.0), np.abs(pull).max(initial=0.0)) or 1.0
    span = max(np.abs(point).max(initial=0.0), _widest(game.upper - game.lower)) or 1.0
    worst = 0.0
    for r in range(len(price)):
        slack = game.limit[r] + game.give[r] * price[r] - float(game.constraint[r] @ point)
        reach = float(np.abs(game.constraint[r]).sum()) * span  # what the left side may come to
        scale = max(abs(game.limit[r]) if np.isfinite(game.limit[r]) else 0.0, reach) or 1.0
        worst = max(worst, -slack / scale, -price[r] / size)
        if np.isfinite(slack):
            worst = max(worst, min(abs(price[r]) / size, abs(slack) / scale))
        pull = pull + price[r] * game.constraint[r]
    for d in range(len(point)):
        below, above = point[d] - game.lower[d], game.upper[d] - point[d]
        worst = max(worst, -below / span, -above / span)
        # wants to fall but is not at its lower end, or to rise but not at its upper
        if pull[d] > 0:
            worst = max(worst, min(pull[d] / size, below / span))
        else:
            worst = max(worst, min(-pull[d] / size, above / span))
    return float(worst)


def _widest(width: Float) -> float:
    """The widest finite interval."""
    return float(width[np.isfinite(width)].max(initial=0.0))


def measure_potential_gap(game: CongestionGame, choice: ArrayLike) -> float:
    """Proven bound on how far the potential at ``choice`` is above its least value over all choices.

    With mixtures allowed, sum_r [(1 + toll) L^2 + (1 - toll) sum w^2 p] / (2 C) + private costs is convex, agrees
    with the potential on pure choices, and lies above its tangent at ``choice``; the tangent's least value is a
    sum of minima, one an agent. (Frank and Wolfe 1956.)
    """
    taken = np.asarray(choice)
    n = len(taken)
    load = np.zeros(game.weight.shape[1])
    for i in range(n):
        for r in game.options[taken[i]]:
            if r >= 0:
                load[r] += game.weight[i, r]
    total = 0.0
    for i in range(n):
        slopes = []
        for o in range(len(game.options)):
            slope = np.inf
            if game.allowed[i, o]:
                slope = game.private_cost[i, o]
                for r in game.options[o]:
                    if r >= 0:
                        w = game.weight[i, r]
                        slope += (w * (1 + game.toll[r]) * load[r] + (1 - game.toll[r]) * w * w / 2) / game.capacity[r]
            slopes.append(slope)
        total += slopes[taken[i]] - min(slopes)
    return float(total)


def measure_market(
    value: ArrayLike, budget: ArrayLike, capacity: ArrayLike, share: ArrayLike, price: ArrayLike
) -> tuple[float, float]:
    """Largest relative excess over a capacity, and the duality gap of an Eisenberg-Gale answer.

    The gap is in the budget-weighted mean of log utility, over the agents that value something; arrays as in
    :func:`games.market.eisenberg_gale`. inf where a price of a valued resource is 0, or someone gets nothing.
    """
    a, w, c = np.asarray(value, float), np.asarray(budget, float), np.asarray(capacity, float)
    x, p = np.asarray(share, float), np.asarray(price, float)
    excess = 0.0
    for k in range(len(c)):
        over = max(float(sum(x[:, k])) / c[k] - 1, -float(x[:, k].min(initial=0.0)) / c[k])
        excess = max(excess, over if np.isfinite(over) else np.inf)
    served = [i for i in range(len(w)) if (a[i] > 0).any()]
    money = sum(w[i] for i in served)
    worth = float(p @ c)
    gap = 0.0
    for i in served:
        utility = float(a[i] @ x[i])
        best = max((a[i, k] / p[k] if p[k] > 0 else np.inf) for k in range(len(c)) if a[i, k] > 0)
        gap += w[i] / money * (np.log(w[i] / money * worth * best / utility) if utility > 0 else np.inf)
    return excess, float(gap)


def measure_wardrop(
    rate: ArrayLike, service: ArrayLike, travel: ArrayLike, flow: ArrayLike, social: bool = False
) -> tuple[float, float]:
    """Largest relative error of a class's carried rate, and the relative excess paid over cheapest routes.

    Arrays as in :func:`games.routing.route`; inf where a server is loaded to its rate or beyond.
    """
    r, mu, d, x = (np.asarray(v, float) for v in (rate, service, travel, flow))
    y = x.sum(axis=0)
    if (y >= mu).any() or (x < 0).any():
        return np.inf, np.inf
    missed, paid, least = 0.0, 0.0, 0.0
    for i in range(len(r)):
        missed = max(missed, abs(float(x[i].sum()) - r[i]) / max(r[i], 1e-300) if r[i] > 0 else float(x[i].sum()))
        costs = []
        for k in range(len(mu)):
            cost = d[i, k] + (mu[k] / (mu[k] - y[k]) ** 2 if social else 1 / (mu[k] - y[k]))
            costs.append(cost)
            paid += x[i, k] * cost if x[i, k] > 0 else 0.0
        least += r[i] * min(costs) if r[i] > 0 else 0.0
    return missed, (paid - least) / paid if paid > 0 else 0.0
