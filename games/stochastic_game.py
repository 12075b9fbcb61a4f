r"""Two-player stochastic games on tables, their values, and the stage games that learners solve.

In state s the players choose a and b, receive :math:`r_1, r_2` and move to s' with probability :math:`T(s, a, b, s')`.
Shapley's iteration replaces each state's value by the value of the matrix game
:math:`r(s, a, b) + \gamma \sum_{s'} T V(s')`; it contracts by gamma in zero-sum games, and so gives the learners'
oracle.

Source: Shapley (1953), "Stochastic games"; Filar and Vrieze (1997), "Competitive Markov Decision Processes".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from games.congestion import Float
from games.errors import InvalidGameError
from games.normal_form import equilibria
from games.polytopes import lemke_howson_path


@dataclass(frozen=True)
class StochasticGame:
    """Tables of a two-player game.

    Args:
        transition: (S, A, B, S) probabilities of the next state.
        reward: (2, S, A, B) each player's expected reward.
        discount: gamma in [0, 1).

    Raises:
        InvalidGameError: names the table and what is permitted.
    """

    transition: Float
    reward: Float
    discount: float

    def __post_init__(self) -> None:
        T, r = np.asarray(self.transition, dtype=np.float64), np.asarray(self.reward, dtype=np.float64)
        if T.ndim != 4 or T.shape[0] != T.shape[3]:
            raise InvalidGameError(f"transition has shape {T.shape}; it is (S, A, B, S)")
        if r.shape != (2, *T.shape[:3]):
            raise InvalidGameError(f"reward has shape {r.shape}; transition needs {(2, *T.shape[:3])}")
        if not np.isfinite(r).all():
            raise InvalidGameError("reward has an entry that is not finite")
        if not ((T >= 0).all() and np.allclose(T.sum(axis=3), 1)):
            s, a, b = np.argwhere(~(np.isclose(T.sum(axis=3), 1) & (T >= 0).all(axis=3)))[0]
            raise InvalidGameError(f"transition[{s}, {a}, {b}] is no distribution over next states")
        if not 0 <= self.discount < 1:
            raise InvalidGameError(f"discount = {self.discount}; it is in [0, 1)")
        object.__setattr__(self, "transition", T)
        object.__setattr__(self, "reward", r)


@dataclass(frozen=True)
class Learned:
    """What a learner ends with.

    Attributes:
        q: (2, S, A, B) each player's action values.
        row: (S, A), column (S, B): stage strategies from the final q.
        value: (2, S) their values.
        change: largest change of a q entry in the last tenth of the steps.
        steps: transitions seen.
    """

    q: Float
    row: Float
    column: Float
    value: Float
    change: float
    steps: int


def shapley_values(game: StochasticGame, tolerance: float = 1e-10) -> tuple[Float, Float, Float]:
    """Zero-sum values (S,) of player one and optimal strategies (S, A), (S, B), by Shapley's iteration.

    Raises:
        InvalidGameError: the rewards do not sum to zero.
    """
    if not np.allclose(game.reward[0], -game.reward[1]):
        raise InvalidGameError("the rewards do not sum to zero; Shapley's values need a zero-sum game")
    states = len(game.transition)
    value = np.zeros(states)
    row, column = np.zeros(game.reward.shape[1:3]), np.zeros((states, game.reward.shape[3]))
    while True:
        stage = game.reward[0] + game.discount * game.transition @ value
        after = np.empty(states)
        for s in range(states):
            row[s], column[s] = minimax(stage[s])
            after[s] = row[s] @ stage[s] @ column[s]
        change = np.abs(after - value).max()
        value = after
        if change <= tolerance * (1 - game.discount):
            return value, row, column


def minimax(payoff: Float) -> tuple[Float, Float]:
    """Optimal strategies (A,), (B,) of a zero-sum matrix game, the row player maximising; compiled."""
    span = float(np.ptp(payoff))
    unit = (payoff - payoff.min()) / (span if span > 0 else 1.0)
    row, column, done = lemke_howson_path(unit + 1.0, 2.0 - unit, 0, 500)
    if not done:
        # a path that rounding broke: the first verified equilibrium instead
        row, column, _ = next(equilibria(payoff))
    return row, column


def nash(first: Float, second: Float) -> tuple[Float, Float]:
    """The equilibrium with the largest sum of payoffs among those found within 10 ms: a rule both can follow."""
    best, pair = -np.inf, None
    for row, column, _ in equilibria(first, second, budget_s=0.01):
        total = float(row @ (first + second) @ column)
        if total > best + 1e-12:
            best, pair = total, (row, column)
    assert pair is not None  # every finite game has one, and a path to it is always walked
    return pair


@njit(cache=True)
def next_state(cumulative, s, a, b, u):
    """State drawn with the uniform ``u`` from cumulative probabilities (S, A, B, S)."""
    states = cumulative.shape[3]
    for t in range(states - 1):
        if u < cumulative[s, a, b, t]:
            return t
    return states - 1
