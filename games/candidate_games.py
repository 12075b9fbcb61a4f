r"""Best response and the Gibbs-prior equilibrium on candidate lists.

The certificate of the answer still measures regret over every allowed option
(:func:`games.certificate.deviations`); agents that would rather be elsewhere get that option into their list, in
the place of their last, and the search goes on, up to ``rounds`` times (column generation).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from games.best_response import ROUNDING
from games.candidates import Candidates, admit_option
from games.certificate import deviations
from games.congestion import CongestionGame, Equilibrium, Float, Int
from games.errors import InvalidGameError, floats, shaped
from games.gibbs_sweeps import NEVER, soft_choice
from games.lean import KEPT


def best_response_candidates(
    game: CongestionGame,
    lists: Candidates,
    start: ArrayLike | None = None,
    *,
    tolerance: float = 1e-10,
    max_sweeps: int = 1000,
    rounds: int = 20,
    check: bool = True,
) -> Equilibrium:
    """Best-response dynamics over the lists, then over what the certificate finds outside them.

    Args:
        game: the game that ``lists`` were taken from.
        lists: short lists.
        start: (N,) options; one that is not on its agent's list gives way to the best that is.
        tolerance: smallest gain that moves an agent, in cost or as a part of its costs, beyond rounding.
        max_sweeps: passes over all agents, in all rounds together.
        rounds: how often options from outside may join the lists; 0 keeps to the lists.
        check: measure regret over all options (N x O work); False reports regret within the lists only.

    Returns:
        Equilibrium. ``regret`` is over all options when ``check``; ``status`` says if options off the lists
        would still be better.
    """
    table = lists
    choice = np.full(game.agents, -1, np.int64) if start is None else game.check_choice(start)
    used = 0
    regret = 0.0
    for turn in range(rounds + 1):
        place = _place(table.option, choice)
        sweeps, regret = _settle(
            table.private, table.resource, table.weight, game.capacity, game.toll, place, tolerance,
            max_sweeps - used,
        )  # fmt: skip
        used += min(int(sweeps), max_sweeps - used)
        choice = table.option[np.arange(game.agents), place]
        if not check:
            break
        gain, better = deviations(game, choice)
        size = _size(game, choice)
        regret = float(gain.max(initial=0.0))
        outside = np.flatnonzero(gain > tolerance * np.minimum(1.0, size) + ROUNDING * size)
        outside = outside[~(table.option[outside] == better[outside, None]).any(axis=1)]
        if not len(outside) or turn == rounds or used >= max_sweeps:
            break
        table = admit_option(game, table, outside, better[outside], place[outside])
    inside = used < max_sweeps
    status = "converged" if inside else f"stopped after {max_sweeps} sweeps"
    if inside and check and len(outside):
        status = f"{len(outside)} agents prefer an option that is not on their list"
    potential = game.potential(choice) if check else np.nan
    return Equilibrium(choice, None, regret, potential, used, 0.0, status == "converged", status)


def _size(game: CongestionGame, choice: Int) -> Float:
    """(N,) twice the size of what each agent's cost at ``choice`` is summed from."""
    who, uses = np.arange(game.agents), game.options[choice]
    used = np.where(uses >= 0, uses, 0)
    w = np.where(uses >= 0, game.weight[who[:, None], used], 0.0)
    load, toll, capacity = game.loads(choice)[used], game.toll[used], game.capacity[used]
    paid = (w * (w + (1 + toll) * (load - w)) / capacity).sum(axis=1)
    return np.asarray(2 * (np.abs(game.private_cost[who, choice]) + np.abs(paid)))


def gibbs_candidates(
    game: CongestionGame,
    lists: Candidates,
    log_prior: ArrayLike,
    trust: float,
    start: ArrayLike | None = None,
    *,
    tolerance: float = 1e-4,
    max_sweeps: int = 200,
    check: bool = True,
) -> Equilibrium:
    """Gibbs-prior equilibrium over the lists: options off a list have prior 0.

    Args:
        game: the game that ``lists`` were taken from.
        lists: short lists.
        log_prior: (N, T) log-prior of the listed options, up to a constant an agent.
        trust: >= 0 and finite, in 1 / cost.
        start: (N, T) mixed strategies to warm-start from.
        tolerance: largest change of a probability in the last sweep.
        max_sweeps: passes over all agents.
        check: round to a pure choice and measure its regret over all options.

    Returns:
        Equilibrium with ``mixed`` (N, T) in the order of the lists; ``choice`` rounded as in
        :func:`games.gibbs.gibbs_equilibrium`.

    Raises:
        InvalidGameError: a wrong shape, NaN, or trust outside [0, inf).
    """
    prior = floats("log_prior", log_prior)
    if prior.shape != lists.option.shape:
        raise InvalidGameError(f"log_prior has shape {prior.shape}; the lists need {lists.option.shape}")
    if not 0 <= trust < np.inf:
        raise InvalidGameError(f"trust = {trust}; it must be in [0, inf)")
    listed = lists.option >= 0
    prior = np.where(listed, prior, NEVER)
    if not np.isfinite(prior).all():
        raise InvalidGameError("log_prior has an entry that is not finite; take the option off the list")
    if start is None:
        mixed = np.exp(prior - prior.max(axis=1, keepdims=True, initial=-np.inf))
        mixed /= mixed.sum(axis=1, keepdims=True)
    else:
        mixed = np.where(listed, shaped("start", start, prior.shape, 0.0), 0.0)
        total = mixed.sum(axis=1, keepdims=True)
        if not (total > 0).all():
            agent = int(np.argmin(total > 0))
            raise InvalidGameError(f"start[{agent}] sums to 0 over its list; give a listed option a probability")
        mixed /= total
    score = np.empty_like(mixed)
    sweeps, residual = _mix(
        np.where(listed, lists.private, 0.0), lists.resource, lists.weight, game.capacity, game.toll, prior,
        trust, mixed, score, tolerance, max_sweeps,
    )  # fmt: skip
    choice, regret, potential = np.zeros(0, np.int64), 0.0, 0.0
    place = score.argmax(axis=1) if game.agents else choice
    if check and game.agents:
        if trust > 0:
            tilted = replace(lists, private=lists.private - prior / trust)
            _settle(
                tilted.private, lists.resource, lists.weight, game.capacity, game.toll, place, 1e-10, 200
            )  # fmt: skip
        choice = lists.option[np.arange(game.agents), place]
        regret, potential = float(deviations(game, choice)[0].max()), game.potential(choice)
    elif game.agents:
        choice = lists.option[np.arange(game.agents), place]
        regret = potential = np.nan
    done = sweeps <= max_sweeps
    return Equilibrium(
        choice, mixed, regret, potential, int(min(sweeps, max_sweeps)), float(residual), bool(done),
        "converged" if done else f"stopped after {max_sweeps} sweeps",
    )  # fmt: skip


@njit(**KEPT)
def _place(option, choice):
    out = np.full(len(choice), -1, np.int64)
    for i in range(len(choice)):
        for t in range(option.shape[1]):
            if choice[i] >= 0 and option[i, t] == choice[i]:
                out[i] = t
                break
    return out


@njit(**KEPT, error_model="numpy")
def _settle(private, resource, weight, capacity, toll, place, tolerance, max_sweeps):
    """Best responses over the lists; ``place`` (N,) is start (-1: none) and answer. Sweeps and regret."""
    n, count, span = weight.shape
    resources = len(capacity)
    own = np.append(1.0 / capacity, 0.0)
    slope = np.append((1.0 + toll) / capacity, 0.0)
    load = np.empty(resources + 1)
    regret = 0.0
    for sweep in range(max_sweeps):
        load[:] = 0.0
        for i in range(n):
            if place[i] >= 0:
                for s in range(span):
                    load[resource[i, place[i], s]] += weight[i, place[i], s]
        moved = False
        regret = 0.0
        for i in range(n):
            now = place[i]
            if now >= 0:
                for s in range(span):
                    load[resource[i, now, s]] -= weight[i, now, s]
            # above the least private cost, as in games.best_response
            low = private[i].min()
            present = np.inf
            lowest = np.inf
            best = now
            for t in range(count):
                c = private[i, t] - low
                for s in range(span):
                    r = resource[i, t, s]
                    w = weight[i, t, s]
                    c += w * (w * own[r] + slope[r] * load[r])
                if t == now:
                    present = c
                if c < lowest:
                    lowest = c
                    best = t
            if now < 0:
                place[i] = best
                moved = True
            elif lowest < present:
                size = abs(present) + abs(lowest)
                if lowest < present - tolerance * min(1.0, size) - ROUNDING * size:
                    place[i] = best
                    moved = True
                else:
                    regret = max(regret, present - lowest)
            else:
                regret = max(regret, present - lowest)
            for s in range(span):
                load[resource[i, place[i], s]] += weight[i, place[i], s]
        if not moved:
            return sweep + 1, regret
    return max_sweeps + 1, regret


@njit(**KEPT, error_model="numpy")
def _mix(private, resource, weight, capacity, toll, prior, trust, mixed, score, tolerance, max_sweeps):
    """Gibbs sweeps over the lists; ``score`` receives the last logits. Sweeps and the last sweep's change."""
    n, count, span = weight.shape
    resources = len(capacity)
    own = np.append(1.0 / capacity, 0.0)
    slope = np.append((1.0 + toll) / capacity, 0.0)
    load = np.empty(resources + 1)
    reply = np.empty(count)
    guess = np.zeros(resources + 1)
    told = np.zeros(resources + 1)
    curve = np.zeros(resources + 1)
    # as in games.gibbs: sweeps, with passes at common prices between them while these contract
    by_price, try_prices = False, max_sweeps >= 20
    before, change, turns = np.inf, 0.0, 0
    for sweep in range(max_sweeps):
        if not by_price and (sweep % 16 == 0 or turns < 0):
            load[:] = 0.0
            for i in range(n):
                for t in range(count):
                    for s in range(span):
                        load[resource[i, t, s]] += weight[i, t, s] * mixed[i, t]
        if by_price:
            told[:] = 0.0
            curve[:] = 0.0
        seen = guess if by_price else load
        change = 0.0
        for i in range(n):
            # several listed options may share a resource: all of the agent's own load comes off first
            for t in range(count):
                for s in range(span):
                    seen[resource[i, t, s]] -= weight[i, t, s] * mixed[i, t]
            top = -np.inf
            for t in range(count):
                c = private[i, t]
                for s in range(span):
                    r = resource[i, t, s]
                    w = weight[i, t, s]
                    c += w * (w * own[r] + slope[r] * seen[r])
                z = prior[i, t] - trust * c
                score[i, t] = z
                reply[t] = z
                top = max(top, z)
            if by_price:
                for t in range(count):
                    for s in range(span):
                        seen[resource[i, t, s]] += weight[i, t, s] * mixed[i, t]
            change = max(change, soft_choice(reply, top, mixed[i]))
            if by_price:
                for t in range(count):
                    for s in range(span):
                        u = weight[i, t, s] * mixed[i, t]
                        told[resource[i, t, s]] += u
                        curve[resource[i, t, s]] += u * (weight[i, t, s] - u)
            else:
                for t in range(count):
                    for s in range(span):
                        seen[resource[i, t, s]] += weight[i, t, s] * mixed[i, t]
        turns += 1
        if not by_price:
            if change <= tolerance:
                return sweep + 1, change
            if try_prices and turns >= 3:
                by_price, before, turns = True, np.inf, 0
                guess[:] = load
        else:
            for r in range(resources):
                guess[r] += (told[r] - guess[r]) / (1.0 + trust * slope[r] * curve[r])
            if turns % 2 == 0:
                try_prices = change <= 0.5 * before
                before = change
            if change <= tolerance or not try_prices or sweep >= max_sweeps - 3:
                try_prices = try_prices and sweep < max_sweeps - 3
                by_price, turns = False, -1
    return max_sweeps + 1, change
