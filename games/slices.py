r"""Two agents of a congestion game as a bimatrix game, the others held: why did these two settle as they did?

Payoffs are minus the agents' costs. With both tolls and weights as in the whole game, the slice inherits the
exact potential, so it always has a pure equilibrium.

Source: Monderer and Shapley (1996), "Potential games", section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import CongestionGame, Float, Int
from games.errors import InvalidGameError
from games.normal_form import equilibria


@dataclass(frozen=True)
class Slice:
    """A bimatrix game of two agents.

    Attributes:
        agents: the two.
        options: (options of the first (M,), of the second (K,)): only those allowed.
        A, B: (M, K) payoffs, minus the cost of the first and of the second agent.
        present: (row, column) of what they choose now.
    """

    agents: tuple[int, int]
    options: tuple[Int, Int]
    A: Float
    B: Float
    present: tuple[int, int]

    def explain(self, name: str = "agent") -> str:
        """In words: where they stand, what each would pay elsewhere, and which joint choices are stable."""
        i, j = self.present
        lines = []
        for who, (options, payoff, at) in enumerate(
            ((self.options[0], self.A[:, j], i), (self.options[1], self.B[i], j))
        ):
            best = int(payoff.argmax())
            lines.append(
                f"{name} {self.agents[who]} is at option {options[at]} and pays {-payoff[at]:.4g}; "
                + (
                    f"its best reply is option {options[best]} at {-payoff[best]:.4g}"
                    if payoff[best] > payoff[at]
                    else "no other option costs it less"
                )
            )
        stable = [
            f"({self.options[0][int(x.argmax())]}, {self.options[1][int(y.argmax())]})"
            for x, y, _ in equilibria(self.A, self.B)
            if x.max() == 1.0 and y.max() == 1.0
        ]
        lines.append(f"stable joint choices: {', '.join(stable)}")
        return "\n".join(lines)


def bimatrix_slice(game: CongestionGame, choice: ArrayLike, first: int, second: int) -> Slice:
    """The game between agents ``first`` and ``second`` while the others stay at ``choice`` (N,).

    Raises:
        InvalidGameError: a bad choice, an agent out of range, or the same agent twice.
    """
    chosen = game.check_choice(choice)
    for agent in (first, second):
        if not isinstance(agent, int | np.integer) or not 0 <= agent < game.agents:
            raise InvalidGameError(f"agent {agent} is out of range; agents are 0 to {game.agents - 1}")
    if first == second:
        raise InvalidGameError(f"agents {first} and {second} are the same; a slice needs two")
    own = [np.flatnonzero(game.allowed[agent]) for agent in (first, second)]
    A, B = np.empty((len(own[0]), len(own[1]))), np.empty((len(own[0]), len(own[1])))
    at = chosen.copy()
    for j, option in enumerate(own[1]):
        at[second] = option
        A[:, j] = -game.costs(at)[first, own[0]]
    at[second] = chosen[second]
    for i, option in enumerate(own[0]):
        at[first] = option
        B[i] = -game.costs(at)[second, own[1]]
    here = (
        int(np.flatnonzero(own[0] == chosen[first])[0]),
        int(np.flatnonzero(own[1] == chosen[second])[0]),
    )
    return Slice((first, second), (own[0], own[1]), A, B, here)
