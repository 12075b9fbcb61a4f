r"""Replicator dynamics of two populations:  x_i' = x_i ((A y)_i - x'A y),  y_j' = y_j ((B'x)_j - x'B y).

Rest points inside the simplex are the fully mixed equilibria; a stable limit is an equilibrium. In a zero-sum
game interior orbits are closed and  sum_i x*_i log x_i + sum_j y*_j log y_j  is constant along them. In a
congestion game the potential falls along every orbit.

Source: Taylor and Jonker (1978); Hofbauer and Sigmund (1998), "Evolutionary Games and Population Dynamics",
chapters 7 and 10.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from games.congestion import Float
from games.errors import InvalidGameError, shaped
from games.fictitious_play import Play
from games.normal_form import check_payoffs, regret

MOST_TURNS = 1e6  # time in units of 1 / payoff, a minute of work


def replicator(
    A: ArrayLike,
    B: ArrayLike | None = None,
    start: tuple[ArrayLike, ArrayLike] | None = None,
    time: float = 100.0,
    samples: int = 100,
) -> Play:
    """Integrate from ``start`` for ``time`` (in 1 / payoff) by DOP853 in log-coordinates.

    Args:
        A: (M, K) payoffs of the row population.
        B: (M, K) payoffs of the column population; None for -A.
        start: strategies (M,), (K,); an action at 0 stays there. Default the barycentre, slightly moved.
        time: > 0; at most 1e6 times 1 / payoff, since orbits that turn are followed turn by turn.
        samples: rows of ``path``, the last at ``time``.

    Raises:
        InvalidGameError: as for :func:`games.normal_form.equilibria`, a start that is no strategy, or a ``time`` too
            long to follow.
    """
    first, second = check_payoffs(A, B)
    m, k = first.shape
    if not 0 < time < np.inf:
        raise InvalidGameError(f"time = {time}; it is finite and > 0")
    if not samples >= 1:
        raise InvalidGameError(f"samples = {samples}; it is >= 1")
    # the flow depends on differences alone: from each player's middle they keep their digits
    one, two = (p - (p.max() / 2 + p.min() / 2) for p in (first, second))
    pace = max(float(np.abs(one).max()), float(np.abs(two).max()))
    if not time * pace <= MOST_TURNS:
        raise InvalidGameError(
            f"time = {time} at payoffs that differ by {2 * pace:.3g} is {time * pace:.3g} turns; "
            f"at most {MOST_TURNS:g} are followed, so take at most {MOST_TURNS / pace:.3g}"
        )
    if start is None:
        x, y = 1 + 0.01 * np.arange(m), 1 + 0.01 * np.arange(k)
        x, y = x / x.sum(), y / y.sum()
    else:
        x, y = shaped("start row", start[0], (m,), 0.0), shaped("start column", start[1], (k,), 0.0)
        for name, z in (("row", x), ("column", y)):
            if abs(z.sum() - 1) > 1e-9:
                raise InvalidGameError(f"start {name} sums to {z.sum()}; probabilities sum to 1")
    alive = np.append(x, y) > 0
    log = np.log(np.where(alive, np.append(x, y), 1.0))

    def strategies(z: Float) -> tuple[Float, Float]:
        e = np.where(alive, z, -np.inf)
        a, b = np.exp(e[:m] - e[:m].max()), np.exp(e[m:] - e[m:].max())
        return a / a.sum(), b / b.sum()

    def slope(_: float, z: Float) -> Float:
        a, b = strategies(z)
        to_rows, to_columns = one @ b, a @ two
        return np.append(to_rows - a @ to_rows, to_columns - to_columns @ b)

    grid = np.linspace(0, time, samples + 1)[1:]
    flow = solve_ivp(slope, (0.0, time), log, method="DOP853", t_eval=grid, rtol=1e-10, atol=1e-10)
    if flow.status != 0:
        raise InvalidGameError(f"the flow could not be followed to time {time}: {flow.message}")
    path = np.array([np.concatenate(strategies(z)) for z in flow.y.T])
    row, column = path[-1, :m], path[-1, m:]
    return Play(row, column, regret(first, second, row, column), len(flow.t), path)
