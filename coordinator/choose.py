r"""Step 4: among candidates the best by the one-step model.

The model is the tilted game's potential: with toll 1 the social cost, with more also an insurance against
loads that are worse than believed, less what the recommender has learned to add, sum_i log prior_i(o_i) / trust.
Every candidate (the mean-field equilibrium, the proposal, the game's own answer) is improved by best responses,
which only lower this potential. So the answer is never worse on the model than either parent, and, being an
equilibrium of the tilted game itself, it keeps the epsilon bound.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from coordinator.budget import Clock
from coordinator.merge import MAX_REPLIES, respond
from games.congestion import Bool, CongestionBatch, Float, Int


def choose_best(
    batch: CongestionBatch, starts: list[Int], tilt: Float, clock: Clock | None = None
) -> tuple[Int, Int, Bool]:
    """Improve each start (E, N) and keep the best of each game.

    Args:
        starts: joint choices; the first wins a tie. tilt: (E, N, O) added to private costs, -log prior / trust.

    Returns:
        (E, N) options, (E,) index of the start that each came from, and (E,) whether its responses came to rest.
    """
    finished = [start.copy() for start in starts]
    stable = [respond(batch, option, tilt, clock) <= MAX_REPLIES for option in finished]
    value = np.stack([model_cost(batch, option, tilt) for option in finished])
    winner = (value > value.min(axis=0) + 1e-12).argmin(axis=0)
    every = np.arange(len(winner))
    return np.stack(finished)[winner, every], winner, np.stack(stable)[winner, every]


def model_cost(batch: CongestionBatch, option: Int, tilt: Float) -> Float:
    """(E,) potential of the tilted games at joint choices (E, N)."""
    out = np.empty(len(option))
    _potential(
        batch.options,
        batch.weight,
        batch.capacity,
        batch.private_cost,
        batch.live,
        batch.toll,
        tilt,
        option,
        out,
    )
    return out


@njit(cache=True)
def _potential(options, weight, capacity, private, live, toll, tilt, option, out):
    games, n, resources = weight.shape
    load = np.empty(resources)
    square = np.empty(resources)
    for e in range(games):
        load[:] = 0.0
        square[:] = 0.0
        total = 0.0
        for i in range(n):
            if not live[e, i]:
                continue
            o = option[e, i]
            total += private[e, i, o] + tilt[e, i, o]
            for s in range(options.shape[1]):
                r = options[o, s]
                if r >= 0:
                    load[r] += weight[e, i, r]
                    square[r] += weight[e, i, r] ** 2
        for r in range(resources):
            t = toll[e, r]
            total += ((1.0 + t) * load[r] ** 2 + (1.0 - t) * square[r]) / (2.0 * capacity[e, r])
        out[e] = total
