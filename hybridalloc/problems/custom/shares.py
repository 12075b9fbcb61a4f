"""Shares of a custom problem's resources: floors for deadlines by priority, the rest by the square-root rule."""

from __future__ import annotations

import numpy as np
from numba import njit

from games.admission import Seating
from games.congestion import Float, Int
from games.lean import KEPT
from games.shares import capped_shares
from hybridalloc.problems.custom.plan import CustomPlan
from hybridalloc.problems.custom.standing import CustomStates


def legs_of(world: CustomStates, option: Int) -> tuple[Int, Float, Float, Float]:
    """(E, N, S) resource of each leg that has work, its square-root weight, its work in s alone; (E, N) waiting."""
    resource = world.rows[option]
    at = np.maximum(resource, 0)
    work = np.take_along_axis(world.at["work"], at, 2)
    resource = np.where((work > 0) & world.at["active"][..., None], resource, -1)
    on = resource >= 0
    e = np.arange(world.size)[:, None, None]
    seconds = np.where(on, work / world.at["capacity"][e, at], 0.0)
    weight = np.where(on, np.sqrt(world.at["delay_cost"][..., None] * seconds), 0.0)
    wait = np.where(on, world.at["wait_s"][e, at], 0.0).sum(-1)
    return resource, weight, seconds, wait


def floors_of(world: CustomStates, option: Int, margin: float) -> tuple[Int, Float, Float, Float, Float]:
    """Legs and the share (E, N, S) each needs, stretching its square-root shares alike until the deadline holds."""
    resource, weight, seconds, wait = legs_of(world, option)
    e, n, s = resource.shape
    r = world.at["capacity"].shape[1]
    flat = np.where(resource >= 0, resource + r * np.arange(e)[:, None, None], e * r).ravel()
    base = np.where(resource >= 0, np.maximum(weight, 1e-150), 0.0)
    total = np.bincount(flat, base.ravel(), e * r + 1).astype(np.float64)  # counts where there is no leg at all
    total[-1] = np.inf
    even = base / total[flat].reshape(e, n, s)
    time = np.where(resource >= 0, seconds / np.where(even > 0, even, 1.0), 0.0).sum(-1)
    slack = margin * world.at["deadline_s"] - wait
    stretch = np.where(slack > 0, time / np.where(slack > 0, slack, 1.0), np.inf)
    need = np.where(resource >= 0, even * stretch[..., None], 0.0)
    return resource, weight, seconds, wait, need


def settled(world: CustomStates, option: Int, margin: float, seating: Seating | None = None) -> CustomPlan:
    """Shares for a joint choice (E, N), after the safety filter. A choice that is not allowed becomes option 0; the
    floors of ``seating`` are kept, and who holds a place is served."""
    at = world.at
    may = np.take_along_axis(at["allowed"], option[..., None], 2)[..., 0]
    kept = np.where(at["active"] & may, option, 0)
    held = np.zeros(option.shape, bool) if seating is None else seating.held & (kept == option)
    option = kept
    resource, weight, seconds, wait, need = floors_of(world, option, margin)
    e, n, s = resource.shape
    r = at["capacity"].shape[1]
    flat = np.where(resource >= 0, resource + r * np.arange(e)[:, None, None], -1)
    draw = np.where(resource >= 0, np.take_along_axis(at["full_power_w"], np.maximum(resource, 0), 2), 0.0)
    whole = draw.sum(-1, keepdims=True)
    # exact for one leg; with several each is capped as if all ran at that share
    cap = np.where(whole > 0, at["power_limit_w"][..., None] / np.where(whole > 0, whole, 1.0), np.inf)
    cap = np.broadcast_to(cap, need.shape)
    if seating is None:
        admitted = np.empty(e * n, bool)
        hopeless = (need > np.minimum(cap, 1.0) * (1 + 1e-12)).any(-1)
        order = np.lexsort((need.sum(-1).ravel(), -at["priority"].ravel()))
        room = np.full(e * r, 1 + 1e-12)
        _admit(flat.reshape(-1, s), need.reshape(-1, s), hopeless.ravel(), order, room, admitted)
        promised = np.zeros(need.shape)
        floor = np.where(admitted.reshape(e, n, 1), need, 0.0)
    else:
        floor = promised = np.where(held[..., None] & (resource >= 0), seating.floor, 0.0)
    share, price = _split(flat.ravel(), weight.ravel(), floor.ravel(), cap.ravel(), e * r)
    share = share.reshape(e, n, s)
    speed = np.where(share > 0, share, 1.0)
    leg_s = np.where(resource >= 0, np.where(share > 0, seconds / speed, np.inf), 0.0)
    time = np.where(option > 0, wait + leg_s.sum(-1), np.inf)
    served = at["active"] & (option > 0) & (time <= at["deadline_s"] * (1 + 1e-9))
    power = (share * draw).sum(-1)
    return CustomPlan(option, resource, share, power, served, time, price.reshape(e, r), held, promised)


@njit(**KEPT)
def _admit(resource, need, hopeless, order, room, admitted):
    """By priority, an agent is admitted if what its deadline needs is left on all of its resources."""
    for i in order:
        fits = not hopeless[i]
        for s in range(resource.shape[1]):
            if resource[i, s] >= 0 and need[i, s] > room[resource[i, s]]:
                fits = False
        admitted[i] = fits
        if fits:
            for s in range(resource.shape[1]):
                if resource[i, s] >= 0:
                    room[resource[i, s]] -= need[i, s]


@njit(**KEPT)
def _split(resource, weight, floor, cap, count):
    """Delay shares with floors (which fit) and caps of M legs on ``count`` resources, and each one's dual."""
    share, price = np.zeros(len(resource)), np.zeros(count)
    order = np.argsort(resource, kind="mergesort")
    at = 0
    while at < len(order):
        r, begin = resource[order[at]], at
        while at < len(order) and resource[order[at]] == r:
            at += 1
        if r >= 0:
            here = order[begin:at]
            part = np.empty(len(here))
            price[r] = capped_shares(weight[here], floor[here], cap[here], part)
            share[here] = part
    return share, price
