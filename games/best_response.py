r"""Best-response dynamics: round-robin improvement to a pure Nash equilibrium.

Every accepted move lowers the exact potential by more than the rounding of the costs compared, so the dynamics
terminate from any start (Monderer and Shapley 1996, lemma 2.3). A tie never moves an agent.

Costs are compared above each agent's own least private cost: a constant in all of an agent's costs moves nobody, and
here takes no digits either.

The compiled pass is branch-free: an agent's costs are filled in one vector loop, their minimum taken in a
second, and only an agent that gains looks for the option that attains it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike

from games.congestion import Bool, CongestionBatch, CongestionGame, Equilibrium, Float, Int
from games.lean import KEPT

# Relative rounding allowed for in comparing two costs: loads are sums over up to 1e4 agents.
ROUNDING = 1e-12
# What the loads, summed in another order, leave of a gain when it is measured.
SUMS = 1e-10


def best_response_dynamics(
    game: CongestionGame,
    start: ArrayLike | None = None,
    *,
    tolerance: float = 1e-10,
    max_sweeps: int = 1000,
) -> Equilibrium:
    """Pure Nash equilibrium of a congestion game by sweeps of best replies.

    Args:
        game: the game; N agents, O options.
        start: (N,) starting options; default each agent's best when alone.
        tolerance: an agent moves only if it gains more than this, in cost or as a part of the costs compared,
            whichever is less, and more than rounding (1e-12 of them).
        max_sweeps: passes over all agents before the search gives up.

    Returns:
        Equilibrium; when ``converged``, no agent's measured gain is above ``tolerance`` of its costs plus rounding.

    Raises:
        InvalidGameError: ``start`` has a wrong shape or a forbidden option.
    """
    choice = game.check_choice(alone(game) if start is None else start)[None].copy()
    sweeps = int(best_response_batch(game.batch(), choice, tolerance, max_sweeps)[0])
    gain, size = game.gains(choice[0])
    most = tolerance * np.minimum(1.0, size) + SUMS * size
    settled, status = bool((gain <= most).all()), "converged"
    if sweeps > max_sweeps:
        status = f"stopped after {max_sweeps} sweeps"
    elif not settled:
        agent = int(np.argmin(gain <= most))
        status = f"costs leave float64: agent {agent} may gain {gain[agent]:.3g} at costs of {size[agent]:.3g}"
    converged = status == "converged"
    return Equilibrium(
        choice=choice[0],
        mixed=None,
        regret=float(gain.max(initial=0.0)),
        potential=game.potential(choice[0]),
        sweeps=min(sweeps, max_sweeps),
        residual=0.0,
        converged=converged,
        status=status,
    )


def alone(game: CongestionGame) -> Int:
    """(N,) the option that each agent would take with nobody else there."""
    if not game.agents:
        return np.zeros(0, np.int64)
    with np.errstate(over="ignore"):
        own = np.append(game.weight * (game.weight / game.capacity), np.zeros((game.agents, 1)), axis=1)
    cost = above_least(game.private_cost, game.allowed) + sum(own[:, column] for column in game.options.T)
    return np.asarray(np.where(game.allowed, cost, np.inf).argmin(axis=1), np.int64)


def best_response_batch(
    batch: CongestionBatch,
    choice: Int,
    tolerance: float = 1e-10,
    max_sweeps: int = 1000,
    tilt: Float | None = None,
    parallel: bool = False,
) -> Int:
    """Best responses in E games at once; ``choice`` (E, N) is the start and is overwritten.

    ``tilt`` (E, N, O) is added to the private costs: the coordinator passes -log prior / trust, which keeps
    the potential exact. ``parallel`` spreads the games over numba's threads. Returns (E,) sweeps used,
    ``max_sweeps + 1`` where the limit stopped the search.
    """
    private = batch.private_cost
    if tilt is not None:
        private = above_least(private, batch.allowed)
        private += tilt
    sweeps = np.empty(len(choice), np.int64)
    run: Any = _dynamics_parallel if parallel else _dynamics
    run(
        batch.options, batch.weight, batch.capacity, private, batch.allowed, batch.live, batch.toll, choice,
        tolerance, max_sweeps, sweeps,
    )  # fmt: skip
    return sweeps


@njit(**KEPT)
def _above_least(private, allowed, out):
    for i in range(len(private)):
        low = np.inf
        for o in range(private.shape[1]):
            if allowed[i, o] and private[i, o] < low:
                low = private[i, o]
        low = low if low < np.inf else 0.0
        for o in range(private.shape[1]):
            out[i, o] = private[i, o] - low


def above_least(private: Float, allowed: Bool) -> Float:
    """Private costs (..., N, O) above each agent's least allowed one, as a new array."""
    out = np.empty(private.shape)
    rows = (-1, private.shape[-1]) if private.size else (0, private.shape[-1])
    _above_least(private.reshape(rows), allowed.reshape(rows), out.reshape(rows))
    return out


@njit(**KEPT)
def slots_of(options, resources):
    """(S, O) resource of each option with -1 replaced by ``resources``, an extra slot whose price is 0."""
    count, span = options.shape
    out = np.empty((span, count), np.uint32)
    for o in range(count):
        for s in range(span):
            out[s, o] = options[o, s] if options[o, s] >= 0 else resources
    return out


@njit(**KEPT)
def _dynamics(options, weight, capacity, private, allowed, live, toll, choice, tolerance, max_sweeps, sweeps):
    slots = slots_of(options, weight.shape[2])
    for e in range(len(weight)):
        sweeps[e] = _settle(
            slots, weight[e], capacity[e], private[e], allowed[e], live[e], toll[e], choice[e], tolerance,
            max_sweeps,
        )  # fmt: skip


@njit(**KEPT, parallel=True)
def _dynamics_parallel(options, weight, capacity, private, allowed, live, toll, choice, tolerance, max_sweeps, sweeps):
    slots = slots_of(options, weight.shape[2])
    for e in prange(len(weight)):
        sweeps[e] = _settle(
            slots, weight[e], capacity[e], private[e], allowed[e], live[e], toll[e], choice[e], tolerance,
            max_sweeps,
        )  # fmt: skip


@njit(**KEPT, fastmath={"nnan", "nsz", "contract"}, error_model="numpy")
def _settle(slots, weight, capacity, private, allowed, live, toll, choice, tolerance, max_sweeps):
    n, resources = weight.shape
    span, count = slots.shape
    inverse = 1.0 / capacity
    slope = (1.0 + toll) * inverse
    load = np.empty(resources + 1)
    price = np.zeros(resources + 1)
    cost = np.empty(count)
    # each option is its own resource: no indirection
    direct = span == 1 and count == resources
    for o in range(count):
        direct = direct and slots[0, o] == o
    least = np.zeros(n)
    for i in range(n):
        if not live[i]:
            choice[i] = 0
            continue
        low = np.inf
        for o in range(count):
            c = private[i, o] if allowed[i, o] else np.inf
            low = c if c < low else low
        least[i] = low if low < np.inf else 0.0
    for sweep in range(max_sweeps):
        # afresh each sweep, so that rounding does not pile up
        load[:] = 0.0
        for i in range(n):
            if live[i]:
                for s in range(span):
                    r = slots[s, choice[i]]
                    if r < resources:
                        load[r] += weight[i, r]
        moved = False
        for i in range(n):
            if not live[i]:
                continue
            now = choice[i]
            for s in range(span):
                r = slots[s, now]
                if r < resources:
                    load[r] -= weight[i, r]
            for r in range(resources):
                w = weight[i, r]
                price[r] = w * (w * inverse[r] + slope[r] * load[r])
            low = least[i]
            lowest = np.inf
            if direct:
                for r in range(resources):
                    cost[r] = (private[i, r] - low) + price[r]
            else:
                for o in range(count):
                    cost[o] = (private[i, o] - low) + price[slots[0, o]]
                for s in range(1, span):
                    for o in range(count):
                        cost[o] += price[slots[s, o]]
            for o in range(count):
                c = cost[o] if allowed[i, o] else np.inf
                lowest = c if c < lowest else lowest
            present = cost[now] if allowed[i, now] else np.inf
            if lowest < present:
                best = now
                for o in range(count):
                    if allowed[i, o] and cost[o] == lowest:
                        best = o
                        break
                # private costs above the least, and prices, are no less than 0: no term is larger than its cost
                size = abs(present) + abs(lowest)
                if not allowed[i, now] or lowest < present - tolerance * min(1.0, size) - ROUNDING * size:
                    choice[i] = best
                    moved = True
            for s in range(span):
                r = slots[s, choice[i]]
                if r < resources:
                    load[r] += weight[i, r]
        if not moved:
            return sweep + 1
    return max_sweeps + 1
