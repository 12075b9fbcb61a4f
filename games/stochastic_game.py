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
from games.errors import InvalidGameError, floats
from games.lean import KEPT
from games.normal_form import equilibria, is_tight, zero_sum
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
        T, r = floats("transition", self.transition), floats("reward", self.reward)
        if T.ndim != 4 or T.shape[0] != T.shape[3] or 0 in T.shape:
            raise InvalidGameError(f"transition has shape {T.shape}; it is (S, A, B, S), each at least 1")
        if r.shape != (2, *T.shape[:3]):
            raise InvalidGameError(f"reward has shape {r.shape}; transition needs {(2, *T.shape[:3])}")
        total = T.sum(axis=3)
        for name, array, good, rule in (
            ("reward", r, np.isfinite(r), "a reward is finite"),
            ("transition", T, np.isfinite(T) & (T >= 0), "a probability is >= 0"),
            ("sum of transition", total, np.isclose(total, 1), "probabilities of next states sum to 1"),
        ):
            if not good.all():
                at = tuple(int(v) for v in np.argwhere(~good)[0])
                raise InvalidGameError(f"{name}[{', '.join(map(str, at))}] = {array[at]}; {rule}")
        if not 0 <= self.discount < 1:
            raise InvalidGameError(f"discount = {self.discount}; it is in [0, 1)")
        object.__setattr__(self, "transition", T)
        object.__setattr__(self, "reward", r)

    def check_zero_sum(self, needs: str) -> None:
        """Refuse rewards that do not sum to zero, to 1e-9 of the largest, in the name of what ``needs`` that."""
        total = self.reward.sum(axis=0)
        off = np.abs(total) > 1e-9 * np.abs(self.reward).max()
        if off.any():
            s, a, b = (int(v) for v in np.argwhere(off)[0])
            raise InvalidGameError(
                f"reward[:, {s}, {a}, {b}] sums to {total[s, a, b]}; {needs} a zero-sum game, where it sums to zero"
            )


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

    Args:
        game: rewards that sum to zero.
        tolerance: of the values, in the rewards' range; rounding may leave more where gamma is all but 1.

    Raises:
        InvalidGameError: the rewards do not sum to zero.
    """
    game.check_zero_sum("Shapley's values need")
    states = len(game.transition)
    # in the rewards' own unit and from their middle: strategies do not change, and values do by what is known
    middle, span = 0.5 * game.reward[0].max() + 0.5 * game.reward[0].min(), float(np.ptp(game.reward[0] / 2)) * 2
    unit = span if 0 < span < np.inf else max(float(np.abs(game.reward[0]).max()), np.finfo(float).tiny)
    reward = game.reward[0] / unit - middle / unit
    value = np.zeros(states)
    row, column = np.zeros(game.reward.shape[1:3]), np.zeros((states, game.reward.shape[3]))
    while True:
        stage = reward + game.discount * game.transition @ value
        after = np.empty(states)
        for s in range(states):
            row[s], column[s] = minimax(stage[s])
            after[s] = row[s] @ stage[s] @ column[s]
        change = np.abs(after - value).max()
        value = after
        rounding = 64 * np.finfo(float).eps * np.abs(value).max()
        if change <= max(tolerance * (1 - game.discount), rounding):
            return value * unit + middle / (1 - game.discount), row, column


def minimax(payoff: Float) -> tuple[Float, Float]:
    """Optimal strategies (A,), (B,) of a zero-sum matrix game, the row player maximising; compiled."""
    span = float(np.ptp(payoff))
    unit = (payoff - payoff.min()) / (span if span > 0 else 1.0)
    row, column, done = lemke_howson_path(unit + 1.0, 2.0 - unit, 0, 500)
    if not done or not is_tight(unit, row, column):
        # a path that rounding broke, or a saddle point, where nothing differs in play
        found = zero_sum(payoff)
        row, column = found.row, found.column
    return row, column


def nash(first: Float, second: Float) -> tuple[Float, Float]:
    """The equilibrium with the largest sum of payoffs among those found within 10 ms: a rule both can follow.

    Raises:
        InvalidGameError: none was found, which takes a large game and payoffs of very different sizes.
    """
    both = first / 2 + second / 2
    tie = 1e-12 * float(np.ptp(both))
    best, pair = -np.inf, None
    for row, column, _ in equilibria(first, second, budget_s=0.01):
        mean = float(row @ both @ column)
        if pair is None or mean > best + tie:
            best, pair = mean, (row, column)
    if pair is None:
        raise InvalidGameError(f"no equilibrium of a stage game {first.shape} was found; scale the rewards alike")
    return pair


@njit(**KEPT)
def next_state(cumulative, s, a, b, u):
    """State drawn with the uniform ``u`` from cumulative probabilities (S, A, B, S)."""
    states = cumulative.shape[3]
    for t in range(states - 1):
        if u < cumulative[s, a, b, t]:
            return t
    return states - 1
