"""Step 4: among candidates the best by the one-step model.

The model is the tilted game's value, what the recommender has learned to add included. Every candidate (the merged
equilibrium, the proposal, the game's own answer) is solved on in the tilted game, which only lowers this value. So the
answer is never worse on the model than either parent, and, being an equilibrium of the tilted game itself, it keeps the
epsilon bound.
"""

from __future__ import annotations

import numpy as np

from coordinator.budget import Clock
from coordinator.game import Choice, Game
from games.congestion import Bool, Int


def choose_best(game: Game, starts: list[Choice], clock: Clock | None = None) -> tuple[Choice, Int, Bool]:
    """Solve the tilted games from each start and keep the best of each.

    Args:
        starts: joint choices; the first wins a tie.

    Returns:
        the choice, (E,) index of the start that each game's came from, and (E,) whether it came to rest.
    """
    found = [game.solve(start, clock) for start in starts]
    value = np.stack([game.value(solved.choice) for solved in found])
    winner = (value > value.min(axis=0) + 1e-12).argmin(axis=0)
    if len(winner) == 1:
        best = found[winner[0]]
        return best.choice, winner, best.stable
    every = np.arange(len(winner))
    pick = lambda parts: np.stack(parts)[winner, every]
    choice = Choice(pick([s.choice.option for s in found]), pick([s.choice.level for s in found]))
    return choice, winner, pick([s.stable for s in found])
