r"""Q-learning in two-player stochastic games: minimax-Q, Nash-Q, friend-or-foe-Q.

All keep action values over joint actions and update, on a transition (s, a, b, r, s'),

.. math:: Q_i(s, a, b) \leftarrow (1 - \alpha) Q_i(s, a, b) + \alpha (r_i + \gamma V_i(s')),

and differ in the value of the next stage game:

- *minimax-Q* (zero-sum): the matrix game's value; converges to Shapley's (1953).
- *Nash-Q*: each player's payoff in one equilibrium of the stage game (Q_1(s'), Q_2(s')), chosen by a rule both
  know: the largest sum. Convergence is proven only where every stage game has a global optimum or a saddle point.
- *friend-or-foe-Q*: a friend's maximum over joint actions, or a foe's minimax; always converges.

Play explores uniformly; the learning rate of a joint action is count^-decay. The three share one loop, since they
differ in one line.

Sources: Littman (1994), "Markov games as a framework for multi-agent reinforcement learning"; Hu and Wellman
(2003), "Nash Q-learning for general-sum stochastic games"; Littman (2001), "Friend-or-foe Q-learning in
general-sum games".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from games.congestion import Float
from games.errors import InvalidGameError
from games.stochastic_game import Learned, StochasticGame, minimax, nash, next_state

Stage = Callable[[Float, Float], tuple[Float, Float]]


def minimax_q(game: StochasticGame, steps: int = 50_000, seed: int = 0, decay: float = 0.7) -> Learned:
    """Littman's minimax-Q for zero-sum games.

    Args:
        game: rewards must sum to zero.
        steps: transitions to learn from.
        seed: of play and transitions.
        decay: exponent of the learning rate, in (0.5, 1].

    Raises:
        InvalidGameError: rewards do not sum to zero, or a bad ``steps`` or ``decay``.
    """
    game.check_zero_sum("minimax-Q needs")
    return _learn(game, lambda first, _: minimax(first), steps, seed, decay)


def nash_q(game: StochasticGame, steps: int = 20_000, seed: int = 0, decay: float = 0.7) -> Learned:
    """Hu and Wellman's Nash-Q; arguments as for :func:`minimax_q`."""
    return _learn(game, nash, steps, seed, decay)


def friend_or_foe_q(
    game: StochasticGame, friends: bool, steps: int = 50_000, seed: int = 0, decay: float = 0.7
) -> Learned:
    """Littman's friend-or-foe-Q.

    With ``friends`` each player takes the joint maximum of its own values; otherwise each its own minimax, as if
    the other played against it. Other arguments as for :func:`minimax_q`.
    """
    return _learn(game, _friend if friends else _foe, steps, seed, decay, separate=True)


def _friend(own: Float, _: Float) -> tuple[Float, Float]:
    a, b = np.unravel_index(int(own.argmax()), own.shape)
    return np.eye(own.shape[0])[a], np.eye(own.shape[1])[b]


def _foe(own: Float, _: Float) -> tuple[Float, Float]:
    return minimax(own)


def _learn(game: StochasticGame, stage: Stage, steps: int, seed: int, decay: float, separate: bool = False) -> Learned:
    """``separate``: each player solves the stage game from its own values alone."""
    if not 0.5 < decay <= 1:
        raise InvalidGameError(f"decay = {decay}; it is in (0.5, 1]")
    if steps < 1:
        raise InvalidGameError(f"steps = {steps}; it is >= 1")
    rng = np.random.default_rng(seed)
    _, states, actions, others = game.reward.shape
    q = np.zeros(game.reward.shape)
    seen = np.zeros(game.reward.shape[1:])
    cumulative = game.transition.cumsum(axis=3)
    # a state's stage value is solved again only after its values changed
    value = np.zeros((2, states))
    stale = np.zeros(states, bool)
    s, change = 0, 0.0
    draws = rng.random((steps, 2))
    plays = np.stack([rng.integers(actions, size=steps), rng.integers(others, size=steps)], axis=1)
    for t in range(steps):
        a, b = plays[t]
        after = next_state(cumulative, s, a, b, draws[t, 0])
        if stale[after]:
            value[:, after] = _stage_value(q[:, after], stage, separate)
            stale[after] = False
        seen[s, a, b] += 1
        rate = seen[s, a, b] ** -decay
        step = rate * (game.reward[:, s, a, b] + game.discount * value[:, after] - q[:, s, a, b])
        q[:, s, a, b] += step
        stale[s] = True
        if t >= 0.9 * steps:
            change = max(change, float(np.abs(step).max()))
        # now and then anywhere, so that no state is left unvisited
        s = after if draws[t, 1] > 0.1 else int(draws[t, 1] * 10 * states) % states
    row, column = np.empty((states, actions)), np.empty((states, others))
    for state in range(states):
        value[:, state] = _stage_value(q[:, state], stage, separate)
        row[state] = stage(q[0, state], q[1, state])[0]
        column[state] = stage(q[1, state].T, q[0, state].T)[0] if separate else stage(*q[:, state])[1]
    return Learned(q, row, column, value, change, steps)


def _stage_value(q: Float, stage: Stage, separate: bool) -> Float:
    if separate:
        x, y = stage(q[0], q[1])
        u, v = stage(q[1].T, q[0].T)
        return np.array([x @ q[0] @ y, u @ q[1].T @ v])
    x, y = stage(q[0], q[1])
    return np.array([x @ q[0] @ y, x @ q[1] @ y])
