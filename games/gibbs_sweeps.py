r"""Sweeps to the Gibbs-prior fixed point, compiled; :mod:`games.gibbs` says what is solved.

A sweep lets each agent in turn reply to the expected loads of the others: exact block descent, so sweeps
converge; but slowly where many agents share a resource, each handing its error to the next. There, passes at
common prices come in between: all agents reply to one guess of the loads, and the guess takes a Newton step
with the diagonal of its Jacobian, :math:`1 + trust (1 + toll) / C_r \sum_i Var(use_{ir})`. They are given up for
good if two of them do not halve the change, and a sweep always has the last word.

Inner loops are plain and short so that they become vector code; exp is a polynomial for the same reason.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from games.best_response import slots_of
from games.lean import KEPT

# A log-probability that is none: finite, so that differences stay numbers.
NEVER = -1e300
# Mean of trust (1 + toll) w^2 / C, an agent's own part in its logits, below which price passes are tried.
PRICE_PASSES = 1.5


@njit(**KEPT, nogil=True)
def sweep_games(
    options, weight, capacity, private, allowed, live, toll, log_prior, trust, mixed, costs, tolerance,
    max_sweeps, sweeps,
):  # fmt: skip
    slots = slots_of(options, weight.shape[2])
    for e in range(len(weight)):
        sweeps[e] = _fixed_point(
            slots, weight[e], capacity[e], private[e], allowed[e], live[e], toll[e], log_prior[e], trust,
            mixed[e], costs[e], tolerance, max_sweeps,
        )  # fmt: skip


@njit(**KEPT, parallel=True)
def sweep_games_parallel(
    options, weight, capacity, private, allowed, live, toll, log_prior, trust, mixed, costs, tolerance,
    max_sweeps, sweeps,
):  # fmt: skip
    slots = slots_of(options, weight.shape[2])
    for e in prange(len(weight)):
        sweeps[e] = _fixed_point(
            slots, weight[e], capacity[e], private[e], allowed[e], live[e], toll[e], log_prior[e], trust,
            mixed[e], costs[e], tolerance, max_sweeps,
        )  # fmt: skip


FAST = {"nnan", "nsz", "contract", "reassoc", "arcp"}


@njit(**KEPT, fastmath=FAST, error_model="numpy")
def _fixed_point(
    slots,
    weight,
    capacity,
    private,
    allowed,
    live,
    toll,
    log_prior,
    trust,
    mixed,
    costs,
    tolerance,
    max_sweeps,
):
    n, resources = weight.shape
    count = slots.shape[1]
    # rows of whole vector registers; the columns beyond O are never chosen
    wide = (count + 3) // 4 * 4
    span = (resources + 4) // 4 * 4
    inverse = 1.0 / capacity
    slope = trust * (1.0 + toll) * inverse
    direct = slots.shape[0] == 1 and count == resources
    for o in range(count):
        direct = direct and slots[0, o] == o
    base = np.empty((n, wide))
    # no copy where the caller's array has whole registers already
    sigma = mixed if wide == count else np.zeros((n, wide))
    use = np.zeros((1 if direct else n, span))
    load = np.zeros(span)
    price = np.zeros(span)
    reply = np.empty(wide)
    for i in range(n):
        if not live[i]:
            mixed[i, :] = 0.0
            mixed[i, 0] = 1.0
            continue
        for r in range(resources):
            price[r] = weight[i, r] * weight[i, r] * inverse[r]
        for o in range(count):
            sigma[i, o] = mixed[i, o]
        # above the least: a constant in an agent's costs changes no reply, and takes no digits here
        low = np.inf
        for o in range(count):
            c = private[i, o] if allowed[i, o] else np.inf
            low = c if c < low else low
        for o in range(count):
            reply[o] = (private[i, o] - low) + price[slots[0, o]]
        for s in range(1, slots.shape[0]):
            for o in range(count):
                reply[o] += price[slots[s, o]]
        for o in range(count):
            base[i, o] = log_prior[i, o] - trust * reply[o] if allowed[i, o] else NEVER
        for o in range(count, wide):
            base[i, o] = NEVER
    # price passes pay where an agent's own part in the price is small, and need a few turns
    own = 0.0
    for i in range(n):
        for r in range(resources):
            own += slope[r] * weight[i, r] * weight[i, r]
    try_prices = own < PRICE_PASSES * n * resources and max_sweeps >= 20
    guess = np.zeros(span)
    told = np.zeros(span)
    curve = np.zeros(span)
    by_price = False
    before = np.inf
    turns = 0
    used = max_sweeps + 1
    for sweep in range(max_sweeps):
        if not by_price and (sweep % 16 == 0 or turns < 0):
            # afresh now and then, so that rounding does not pile up
            _total(slots, weight, sigma, live, direct, use, load)
        if by_price:
            told[:] = 0.0
            curve[:] = 0.0
        change = 0.0
        for i in range(n):
            if not live[i]:
                continue
            top = -np.inf
            if direct:
                if by_price:
                    for o in range(count):
                        reply[o] = base[i, o] - weight[i, o] * slope[o] * (guess[o] - weight[i, o] * sigma[i, o])
                else:
                    for o in range(count):
                        load[o] -= weight[i, o] * sigma[i, o]
                    for o in range(count):
                        reply[o] = base[i, o] - weight[i, o] * slope[o] * load[o]
            else:
                if by_price:
                    for r in range(resources):
                        price[r] = weight[i, r] * slope[r] * (guess[r] - use[i, r])
                else:
                    for r in range(resources):
                        load[r] -= use[i, r]
                    for r in range(resources):
                        price[r] = weight[i, r] * slope[r] * load[r]
                for o in range(count):
                    reply[o] = base[i, o] - price[slots[0, o]]
                for s in range(1, slots.shape[0]):
                    for o in range(count):
                        reply[o] -= price[slots[s, o]]
            for o in range(count, wide):
                reply[o] = NEVER
            for o in range(wide):
                z = reply[o]
                top = z if z > top else top
            moved = soft_choice(reply, top, sigma[i])
            change = moved if moved > change else change
            if direct:
                if by_price:
                    for o in range(count):
                        u = weight[i, o] * sigma[i, o]
                        told[o] += u
                        curve[o] += u * (weight[i, o] - u)
                else:
                    for o in range(count):
                        load[o] += weight[i, o] * sigma[i, o]
            else:
                _expected_use(slots, weight[i], sigma[i], use[i])
                if by_price:
                    for r in range(resources):
                        told[r] += use[i, r]
                        curve[r] += use[i, r] * (weight[i, r] - use[i, r])
                else:
                    for r in range(resources):
                        load[r] += use[i, r]
        turns += 1
        if not by_price:
            if change <= tolerance:
                used = sweep + 1
                break
            if try_prices and turns >= 3:
                by_price, before, turns = True, np.inf, 0
                guess[:] = load
        else:
            for r in range(resources):
                guess[r] += (told[r] - guess[r]) / (1.0 + slope[r] * curve[r])
            # two passes that gain little: prices do not contract here, so sweep from now on
            if turns % 2 == 0:
                try_prices = change <= 0.5 * before
                before = change
            if change <= tolerance or not try_prices or sweep >= max_sweeps - 3:
                # sweeps have the last word; -1 makes the next one sum the loads afresh
                try_prices = try_prices and sweep < max_sweeps - 3
                by_price, turns = False, -1
    _total(slots, weight, sigma, live, direct, use, load)
    for i in range(n):
        if not live[i]:
            costs[i, :] = 0.0
            continue
        for o in range(count):
            mixed[i, o] = sigma[i, o]
        if direct:
            for o in range(count):
                w = weight[i, o]
                others = load[o] - w * sigma[i, o]
                costs[i, o] = private[i, o] + w * (w + (1.0 + toll[o]) * others) * inverse[o]
            continue
        for r in range(resources):
            w = weight[i, r]
            price[r] = w * (w + (1.0 + toll[r]) * (load[r] - use[i, r])) * inverse[r]
        price[resources] = 0.0
        for o in range(count):
            costs[i, o] = private[i, o] + price[slots[0, o]]
        for s in range(1, slots.shape[0]):
            for o in range(count):
                costs[i, o] += price[slots[s, o]]
    return used


@njit(**KEPT, fastmath=FAST, error_model="numpy")
def soft_choice(reply, top, sigma):
    """Replace ``sigma`` by exp(reply - top), normalised; returns the largest change. ``reply`` is scratch."""
    total = 0.0
    for o in range(len(reply)):
        z = reply[o] - top
        # exp(-40) is 4e-18: below the rounding of the sum
        y = (z if z > -40.0 else -40.0) * (1.0 / 128.0)
        # exp(z) = exp(z / 128)^128, Taylor to degree 6: 3e-14 of the total, and no call stops the vector loop
        square = y * y
        e = (1.0 + y) + square * ((1 / 2 + 1 / 6 * y) + square * ((1 / 24 + 1 / 120 * y) + 1 / 720 * square))
        e *= e
        e *= e
        e *= e
        e *= e
        e *= e
        e *= e
        e *= e
        e = e if z > -40.0 else 0.0
        reply[o] = e
        total += e
    scale = 1.0 / total
    change = 0.0
    for o in range(len(reply)):
        p = reply[o] * scale
        gap = abs(p - sigma[o])
        change = gap if gap > change else change
        sigma[o] = p
    return change


@njit(**KEPT, fastmath=FAST)
def _total(slots, weight, sigma, live, direct, use, load):
    """Fill ``load`` with the expected loads, and the rows of ``use`` unless ``direct``."""
    load[:] = 0.0
    for i in range(len(weight)):
        if live[i]:
            if direct:
                for r in range(weight.shape[1]):
                    load[r] += weight[i, r] * sigma[i, r]
            else:
                _expected_use(slots, weight[i], sigma[i], use[i])
                for r in range(weight.shape[1]):
                    load[r] += use[i, r]


@njit(**KEPT)
def _expected_use(slots, weight, sigma, use):
    """Fill ``use`` with an agent's expected load of each resource; the slot after the last is scratch."""
    use[:] = 0.0
    for s in range(slots.shape[0]):
        for o in range(slots.shape[1]):
            use[slots[s, o]] += sigma[o]
    for r in range(len(weight)):
        use[r] *= weight[r]
    use[len(weight)] = 0.0


@njit(**KEPT)
def largest_change(options, weight, capacity, private, allowed, toll, log_prior, trust, mixed):
    """Largest change that one more reply of any agent, alone, would make."""
    n, resources = weight.shape
    slots = slots_of(options, resources)
    count = slots.shape[1]
    use = np.zeros((n, resources + 1))
    load = np.zeros(resources + 1)
    reply = np.empty(count)
    for i in range(n):
        _expected_use(slots, weight[i], mixed[i], use[i])
        load += use[i]
    largest = 0.0
    for i in range(n):
        top = -np.inf
        low = np.inf
        for o in range(count):
            if allowed[i, o]:
                low = min(low, private[i, o])
        for o in range(count):
            cost = private[i, o] - low
            for s in range(slots.shape[0]):
                r = slots[s, o]
                if r < resources:
                    w = weight[i, r]
                    cost += w * (w + (1 + toll[r]) * (load[r] - use[i, r])) / capacity[r]
            reply[o] = log_prior[i, o] - trust * cost if allowed[i, o] else NEVER
            top = max(top, reply[o])
        largest = max(largest, soft_choice(reply, top, mixed[i].copy()))
    return largest
