r"""Best-response dynamics: round-robin improvement to a pure Nash equilibrium.

Every accepted move lowers the exact potential by more than the tolerance, so the dynamics terminate from
any start (Monderer and Shapley 1996, lemma 2.3). A tie never moves an agent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from games.congestion import CongestionBatch, CongestionGame, Equilibrium, Int


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
        tolerance: an agent moves only if it gains more than this, in cost.
        max_sweeps: passes over all agents before the search gives up.

    Returns:
        Equilibrium; ``regret`` at most ``tolerance`` when ``converged``.

    Raises:
        InvalidGameError: ``start`` has a wrong shape or a forbidden option.
    """
    batch = game.batch()
    alone = np.where(game.allowed, game.private_cost, np.inf).argmin(axis=1) if game.agents else np.zeros(0)
    choice = game.check_choice(alone if start is None else start)[None].copy()
    sweeps = best_response_batch(batch, choice, tolerance, max_sweeps)
    converged = bool(sweeps[0] <= max_sweeps)
    return Equilibrium(
        choice=choice[0],
        mixed=None,
        regret=game.regret(choice[0]),
        potential=game.potential(choice[0]),
        sweeps=int(min(sweeps[0], max_sweeps)),
        residual=0.0,
        converged=converged,
        status="converged" if converged else f"stopped after {max_sweeps} sweeps",
    )


def best_response_batch(
    batch: CongestionBatch,
    choice: Int,
    tolerance: float = 1e-10,
    max_sweeps: int = 1000,
    tilt: Any = None,
) -> Int:
    """Best responses in E games at once; ``choice`` (E, N) is the start and is overwritten.

    ``tilt`` (E, N, O) is added to the private costs: the coordinator passes -log prior / trust, which keeps
    the potential exact. Returns (E,) sweeps used, ``max_sweeps + 1`` where the limit stopped the search.
    """
    private = batch.private_cost if tilt is None else batch.private_cost + tilt
    sweeps = np.empty(len(choice), np.int64)
    _dynamics(
        batch.options, batch.weight, batch.capacity, private, batch.allowed, batch.live, batch.toll, choice,
        tolerance, max_sweeps, sweeps,
    )  # fmt: skip
    return sweeps


@njit(cache=True)
def _dynamics(options, weight, capacity, private, allowed, live, toll, choice, tolerance, max_sweeps, sweeps):  # type: ignore[no-untyped-def]
    games, n, resources = weight.shape
    count, span = options.shape
    load = np.empty(resources)
    marginal = np.empty(resources)
    for e in range(games):
        load[:] = 0.0
        for i in range(n):
            if not live[e, i]:
                choice[e, i] = 0
                continue
            for s in range(span):
                r = options[choice[e, i], s]
                if r >= 0:
                    load[r] += weight[e, i, r]
        sweeps[e] = max_sweeps + 1
        for sweep in range(max_sweeps):
            moved = False
            for i in range(n):
                if not live[e, i]:
                    continue
                now = choice[e, i]
                for s in range(span):
                    r = options[now, s]
                    if r >= 0:
                        load[r] -= weight[e, i, r]
                for r in range(resources):
                    w = weight[e, i, r]
                    marginal[r] = w * (w + (1 + toll[e, r]) * load[r]) / capacity[e, r]
                present = np.inf
                lowest = np.inf
                best = now
                for o in range(count):
                    if not allowed[e, i, o]:
                        continue
                    cost = private[e, i, o]
                    for s in range(span):
                        r = options[o, s]
                        if r >= 0:
                            cost += marginal[r]
                    if o == now:
                        present = cost
                    if cost < lowest:
                        lowest = cost
                        best = o
                if lowest < present - tolerance:
                    choice[e, i] = best
                    moved = True
                for s in range(span):
                    r = options[choice[e, i], s]
                    if r >= 0:
                        load[r] += weight[e, i, r]
            if not moved:
                sweeps[e] = sweep + 1
                break
