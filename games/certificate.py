r"""Checks of an answer by code that shares nothing with the solvers: from the definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from games.congestion import Bool, CongestionGame, Float, Int
from games.lean import KEPT


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


@njit(**KEPT)
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
