r"""Divisible shares of one resource after the choice is made: closed forms, all resources at once.

Square-root rule: minimise :math:`\sum_i \omega_i c_i / f_i` subject to :math:`\sum_i f_i \le 1`; then
:math:`f_i = w_i / \sum_j w_j` with :math:`w_i = \sqrt{\omega_i c_i}`, and agent i's cost becomes
:math:`w_i \sum_j w_j`, which is what makes the congestion game affine.

Delay shares: the same objective with floors :math:`f_i \ge l_i` (what each agent needs to meet its deadline).
By the KKT conditions :math:`f_i = \max(l_i, \nu w_i)`; the floors that bind are fixed, the rest is shared,
until no new floor binds. Floors that cannot all hold are admitted by priority, and who was left out is said.

An agent of weight 0, whose delay costs nothing, gets its floor beside others that have a weight. On a resource where
nobody has one, all weights are taken to be equal, which is the limit as they go to 0 together:
:math:`f_i = \max(l_i, \nu)`, so that what is left is used, at price 0.

Source: Boyd and Vandenberghe (2004), section 5.5.3, for the conditions; the floors that bind form a growing
set, so at most N rounds are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable
from numpy.typing import ArrayLike

from games.congestion import Bool, Float, Int, whole_numbers
from games.errors import InvalidStateError, floats
from games.lean import KEPT, LEAN, ROOMY

# Floors that fill a resource exactly may sum to a little more than it, in whatever order they are added.
FULL = 1.0 + 1e-11


@dataclass(frozen=True)
class Shares:
    """Shares of each agent's resource.

    Attributes:
        share: (N,) fraction of the resource's capacity, in [0, 1]; 0 for an agent with no resource.
        price: (R,) dual of each capacity: what one more unit of capacity (in capacities) would save.
        served: (N,) bool, False where an agent's floor could not be met.
        shortfall: (R,) by how many capacities all floors together exceed the resource (0 if they fit).
        status: "optimal", or "infeasible" when some floors were left out.
        gap: relative duality gap over the resources whose floors fit, recomputed from ``share`` and ``price``.
    """

    share: Float
    price: Float
    served: Bool
    shortfall: Float
    status: str
    gap: float = 0.0


def square_root_shares(weight: ArrayLike, resource: ArrayLike, resources: int) -> Shares:
    """Shares that minimise total weighted delay: f_i = w_i / sum of w on the same resource.

    Args:
        weight: (N,) w_i = sqrt(omega_i c_i), >= 0; where all of a resource's are 0, it is shared equally.
        resource: (N,) resource of each agent, -1 for none.
        resources: how many resources there are.

    Raises:
        InvalidStateError: a negative or non-finite weight, or a resource out of range.
    """
    w, r = check_weights(weight, resource, resources)
    return delay_shares(w, np.zeros_like(w), r, resources)


def delay_shares(
    weight: ArrayLike,
    floor: ArrayLike,
    resource: ArrayLike,
    resources: int,
    priority: ArrayLike | None = None,
) -> Shares:
    """Shares that minimise total weighted delay with a floor for each deadline.

    Args:
        weight: (N,) w_i = sqrt(omega_i c_i), >= 0; see the module for 0.
        floor: (N,) fraction of the capacity needed to meet each deadline, >= 0; above 1 can never be met.
        resource: (N,) resource of each agent, -1 for none.
        resources: how many resources there are.
        priority: (N,) who is admitted first when the floors do not all fit; default the smallest floor first.

    Returns:
        Shares. Agents that were not admitted divide what the admitted floors leave, by the square-root rule.

    Raises:
        InvalidStateError: a negative or non-finite weight or floor, a resource out of range, or a NaN priority.
    """
    w, r = check_weights(weight, resource, resources)
    low = floats("floor", floor)
    bad = ~(np.isfinite(low) & (low >= 0)) if low.shape == w.shape else np.ones(1, bool)
    if low.shape != w.shape:
        raise InvalidStateError(f"floor has shape {low.shape}; weight has {w.shape}")
    if bad.any():
        i = int(np.argmax(bad))
        raise InvalidStateError(f"floor[{i}] = {low[i]}; a floor is a finite fraction >= 0")
    rank = check_priority(low, priority)
    share = np.zeros_like(w)
    served = np.ones(len(w), bool)
    price = np.zeros(resources)
    # each resource's weights in units of about its largest, a power of two, so that no square leaves float64 early
    top = np.zeros(resources)
    np.maximum.at(top, r[r >= 0], w[r >= 0])
    power = np.frexp(top)[1]
    unit = np.ldexp(w, np.where(r >= 0, -power[r], 0)) if resources else w
    split_resources(unit, low, r, rank, share, served, price)
    need = np.zeros(resources)
    np.add.at(need, r[r >= 0], low[r >= 0])
    shortfall = np.where(need > FULL, need - 1.0, 0.0)
    status = "optimal" if served.all() else "infeasible"
    gap = _gap(unit, low, r, shortfall, share, price)
    with np.errstate(over="ignore", under="ignore"):
        return Shares(share, np.ldexp(price, 2 * power), served, shortfall, status, gap)


def _gap(w: Float, low: Float, r: np.ndarray, shortfall: Float, share: Float, price: Float) -> float:
    """Each agent alone would take max(floor, w / sqrt(price)); what that promises against what is had."""
    on = (r >= 0) & (w > 0)
    on[on] = shortfall[r[on]] <= 0
    w, low, f, charge = w[on], low[on], share[on], price[r[on]]
    if not (f > 0).all():
        return np.inf
    with np.errstate(divide="ignore"):  # a share so small that its square leaves float64
        ideal = np.maximum(low, w / np.sqrt(charge))
    primal = w**2 / f
    # capacity that is priced is used up, so the prices times capacities cancel against the shares
    return float(np.abs((primal + charge * f) - (w**2 / ideal + charge * ideal)).sum() / max(primal.sum(), 1e-300))


def check_weights(weight: ArrayLike, resource: ArrayLike, resources: int) -> tuple[Float, Int]:
    """Weights (N,) and resources (N,) as arrays, or an InvalidStateError that names the agent."""
    w = floats("weight", weight)
    r = whole_numbers("resource", resource)
    if isinstance(resources, bool) or not isinstance(resources, int | np.integer) or resources < 0:
        raise InvalidStateError(f"resources = {resources!r:.60}; it is a whole number >= 0")
    if w.ndim != 1 or r.shape != w.shape:
        raise InvalidStateError(f"weight has shape {w.shape} and resource {r.shape}; both are (N,)")
    bad = ~(np.isfinite(w) & (w >= 0))
    if bad.any():
        i = int(np.argmax(bad))
        raise InvalidStateError(f"weight[{i}] = {w[i]}; a weight is finite and >= 0")
    bad = (r < -1) | (r >= resources)
    if bad.any():
        i = int(np.argmax(bad))
        rule = f"a resource is -1 or 0 to {resources - 1}" if resources else "there is no resource, so it is -1"
        raise InvalidStateError(f"resource[{i}] = {r[i]}; {rule}")
    return w, r


def check_priority(floor: Float, priority: ArrayLike | None) -> Float:
    """(N,) whose floor comes first, highest first, or an InvalidStateError; the smallest floor where it is None."""
    if priority is None:
        return -floor
    rank = floats("priority", priority)
    if rank.shape != floor.shape:
        raise InvalidStateError(f"priority has shape {rank.shape}; weight has {floor.shape}")
    if np.isnan(rank).any():
        raise InvalidStateError(f"priority[{int(np.isnan(rank).argmax())}] = nan; a priority is a number")
    return rank


@njit(**KEPT)
def admit(floor, resource, priority, need, served):
    """Set ``served`` (N,): by priority, highest first, on the resources whose floors ``need`` (R,) exceed 1."""
    room = np.full(len(need), FULL)
    for i in range(len(floor)):
        if resource[i] >= 0 and need[resource[i]] > FULL:
            served[i] = False
    for i in np.argsort(-priority):
        r = resource[i]
        if r >= 0 and not served[i] and floor[i] <= room[r]:
            served[i] = True
            room[r] -= floor[i]


@njit(**ROOMY)
def _admit_first(n, floor, resource, priority, need, resources, served):
    """:func:`admit` among the first ``n`` agents and ``resources``."""
    admit(floor[:n], resource[:n], priority[:n], need[:resources], served)


class Split(NamedTuple):
    """Scratch of :func:`split_into`, for at least N agents and R resources; whatever it holds."""

    need: Float  # (R,)
    top: Float  # (R,)
    left: Float  # (R,)
    taken: Float  # (R,)
    total: Float  # (R,)
    used: Float  # (R,)
    own: Float  # (N,)
    bound: Bool  # (N,)


@register_jitable
def new_split(n, resources):
    """Scratch for ``n`` agents and ``resources``."""
    f = np.empty
    return Split(
        f(resources), f(resources), f(resources), f(resources), f(resources), f(resources), f(n), f(n, np.bool_)
    )  # fmt: skip


@njit(**KEPT)
def split_resources(weight, floor, resource, priority, share, served, price):
    """Delay shares of every resource at once, compiled; arrays as in :func:`delay_shares`.

    ``share`` (N,), ``served`` (N,) and ``price`` (R,) are filled.
    """
    room = new_split(len(weight), len(price))
    split_into(len(weight), weight, floor, resource, priority, share, served, price, room)


@njit(**LEAN)
def split_into(n, weight, floor, resource, priority, share, served, price, room):
    """:func:`split_resources` of the first ``n`` agents, scratch given; nothing is allocated where all floors fit."""
    resources = price.shape[0]
    need, top, left, taken, total, used = room.need, room.top, room.left, room.taken, room.total, room.used
    bound = room.bound
    for r in range(resources):
        need[r] = top[r] = taken[r] = total[r] = used[r] = price[r] = 0.0
        left[r] = 1.0
    for i in range(n):
        share[i] = 0.0
        served[i] = True
        r = resource[i]
        if r >= 0:
            need[r] += floor[i]
            top[r] = max(top[r], weight[i])
    # weights whose sums or products could leave float64 are taken in units of their largest; all 0: all alike
    odd = short = False
    for r in range(resources):
        odd = odd or not 1e-100 <= top[r] <= 1e100
        short = short or need[r] > FULL
    if short:
        _admit_first(n, floor, resource, priority, need, resources, served)
    own = weight
    if odd:
        own = room.own
        for i in range(n):
            r = resource[i]
            if r < 0:
                own[i] = 0.0
            elif top[r] == 0.0:
                own[i] = 1.0
            else:
                own[i] = weight[i] if 1e-100 <= top[r] <= 1e100 else weight[i] / top[r]
    # f_i = max(floor_i, nu w_i): fix the floors that bind, share the rest, repeat
    for i in range(n):
        bound[i] = False
        if resource[i] >= 0:
            total[resource[i]] += own[i]
    changed = True
    while changed:
        changed = False
        for i in range(n):
            r = resource[i]
            if r < 0 or bound[i] or not served[i]:
                continue
            # strictly below its floor at the present nu = left / total
            if left[r] * own[i] < floor[i] * total[r]:
                bound[i] = True
                changed = True
                taken[r] += floor[i]
        # summed afresh: taking large weights off a sum would leave the small ones to rounding
        for r in range(resources):
            left[r] = max(1.0 - taken[r], 0.0)
            total[r] = 0.0
        for i in range(n):
            if resource[i] >= 0 and not bound[i]:
                total[resource[i]] += own[i]
    for i in range(n):
        r = resource[i]
        if r < 0:
            continue
        if bound[i]:
            share[i] = floor[i]
        elif total[r] > 0.0:
            share[i] = left[r] * own[i] / total[r]
            if served[i]:
                share[i] = max(share[i], floor[i])
    # rounding: never above one
    for i in range(n):
        if resource[i] >= 0:
            used[resource[i]] += share[i]
    for i in range(n):
        r = resource[i]
        if r >= 0 and used[r] > 1.0:
            share[i] /= used[r]
    # dual of the capacity: omega c / f^2 of an agent whose floor does not bind, (total / left)^2; where the
    # floors take all, the least dual that holds them
    for i in range(n):
        r = resource[i]
        if r >= 0 and bound[i] and floor[i] > 0.0:
            price[r] = max(price[r], (weight[i] / floor[i]) ** 2)
    for r in range(resources):
        if total[r] > 0.0 and left[r] > 0.0:
            unit = 1.0 if 1e-100 <= top[r] <= 1e100 else top[r]
            price[r] = (total[r] / left[r] * unit) ** 2


@njit(**KEPT)
def capped_shares(weight, floor, cap, share):
    """Delay shares of one resource with floors (which fit) and caps; fills ``share`` (M,) and returns the dual.

    Who would exceed its cap is fixed at it and the rest is shared afresh; sharing what others give back only ever
    raises a share, so who is capped once stays capped: exact, after at most M rounds.
    """
    size = len(weight)
    part, met, price = np.empty(size), np.empty(size, np.bool_), np.zeros(1)
    family, rank, fixed = np.zeros(size, np.int64), np.zeros(size), np.zeros(size, np.bool_)
    left = 1.0
    while True:
        split_resources(
            np.where(fixed, 0.0, weight), np.where(fixed, 0.0, floor / left), family, rank, part, met, price
        )
        again, used = False, 0.0
        for m in range(size):
            if not fixed[m]:
                share[m] = part[m] * left
                if share[m] > cap[m] * (1.0 + 1e-12):
                    share[m], fixed[m], family[m], again = cap[m], True, -1, True
            if fixed[m]:
                used += share[m]
        if not again:
            break
        left = max(1.0 - used, 1e-12)
    for m in range(size):
        share[m] = min(share[m], cap[m])
    return price[0] / left**2
