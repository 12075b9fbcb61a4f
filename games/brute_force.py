"""Every joint choice of a small congestion game: the oracle for optima and for pure equilibria."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from games.congestion import CongestionGame
from games.errors import InvalidGameError


def brute_force(game: CongestionGame, most: int = 2_000_000) -> tuple[NDArray[np.int64], float, list[tuple[int, ...]]]:
    """Every joint choice of a small game.

    Returns the choice of least social cost (N,), that cost, and all pure Nash equilibria.

    Raises:
        InvalidGameError: more than ``most`` joint choices.
    """
    per_agent = [np.flatnonzero(row) for row in game.allowed]
    joint = int(np.prod([len(o) for o in per_agent], dtype=float))
    if joint > most:
        raise InvalidGameError(f"{joint} joint choices; brute force takes at most {most}")
    best: tuple[int, ...] = ()
    least = np.inf
    equilibria = []
    for choice in itertools.product(*per_agent):
        social = game.social_cost(np.array(choice))
        if social < least:
            best, least = tuple(int(o) for o in choice), social
        gain, size = game.gains(np.array(choice))
        if (gain <= 1e-12 * size).all():  # of each agent's own costs: what rounding leaves
            equilibria.append(tuple(int(o) for o in choice))
    return np.array(best, dtype=np.int64), float(least), equilibria
