r"""Fictitious play: each player best-responds to the other's play so far.

Converges in frequencies for zero-sum games (Robinson 1951), for potential and 2 x n games; cycles in
Shapley's (1964). Ties go to the first action. Play goes by payoffs in each player's own range: no reply
changes, and sums over many rounds keep the digits that replies differ by.

Sources: Brown (1951), "Iterative solution of games by fictitious play"; Robinson (1951), "An iterative
method of solving a game".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from games.congestion import Float
from games.errors import InvalidGameError
from games.lean import KEPT
from games.normal_form import check_payoffs, regret, unit_payoffs


@dataclass(frozen=True)
class Play:
    """Where a learning process stands.

    Attributes:
        row, column: (M,), (K,) strategies at the end (frequencies of play, or the state of a flow).
        regret: largest gain by a pure deviation from them, in payoff.
        rounds: steps taken.
        path: (samples, M + K) strategies along the way.
    """

    row: Float
    column: Float
    regret: float
    rounds: int
    path: Float


def fictitious_play(
    A: ArrayLike, B: ArrayLike | None = None, rounds: int = 10_000, start: tuple[int, int] = (0, 0)
) -> Play:
    """Play ``rounds`` rounds from the pure actions ``start``.

    Args:
        A: (M, K) payoffs of the row player.
        B: (M, K) payoffs of the column player; None for -A.
        rounds: >= 1.
        start: first action of each.

    Returns:
        Play with the empirical frequencies; ``path`` at 100 moments.

    Raises:
        InvalidGameError: as for :func:`games.normal_form.equilibria`, rounds < 1, or a start that is no action.
    """
    first, second = check_payoffs(A, B)
    if not isinstance(rounds, int | np.integer) or rounds < 1:
        raise InvalidGameError(f"rounds = {rounds!r:.60}; it is a whole number >= 1")
    for player, (action, count) in enumerate(zip(start, first.shape, strict=True)):
        if not 0 <= action < count:
            raise InvalidGameError(f"start[{player}] = {action}; an action is 0 to {count - 1}")
    samples = min(rounds, 100)
    path = np.empty((samples, sum(first.shape)))
    counts = _play(unit_payoffs(first), np.ascontiguousarray(unit_payoffs(second).T), rounds, start[0], start[1], path)
    m = len(first)
    row, column = counts[:m] / rounds, counts[m:] / rounds
    return Play(row, column, regret(first, second, row, column), rounds, path)


@njit(**KEPT)
def _play(A, B, rounds, i, j, path):
    m, k = A.shape
    to_rows = np.zeros(m)
    to_columns = np.zeros(k)
    counts = np.zeros(m + k)
    for t in range(rounds):
        if t:
            i, j = np.argmax(to_rows), np.argmax(to_columns)
        counts[i] += 1.0
        counts[m + j] += 1.0
        to_rows += A[:, j]
        to_columns += B[:, i]
        if (t + 1) * len(path) // rounds > t * len(path) // rounds:
            path[(t + 1) * len(path) // rounds - 1] = counts / (t + 1)
    return counts
