r"""Robust trust: a zero-sum meta-game between candidates and scenarios.

Row k is the allocation made at trust k of a grid that holds both parents (0: the proposal, inf: the game); column
s is a way in which the world may differ from what is believed: a worse channel, more load, less CPU, staler
reports. The payoff is the one-step welfare of that allocation in that world, averaged over the occasions so far
with a fading memory. The maximin mix over rows guarantees its value against every scenario in the set, and since
each parent is a row, value >= min over s of payoff(parent, s): never below either parent's worst case. The mix
holds for expectations, so the trust of each following step is drawn from it.

Solved by :mod:`games.normal_form` (nashpy's support enumeration, Lemke-Howson paths), whose answers are bounded in
time and carry a measured regret: the value stated is the one that the mix is measured to guarantee.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from coordinator.hedge import check_grid
from games.congestion import Float
from games.normal_form import equilibria, zero_sum

TOLERANCE = 1e-8


class Robust:
    """Mix over trusts that does best in the worst scenario.

    Args:
        grid: (K,) trusts; should hold 0 and inf, so that the guarantee is against both parents.
        period: steps between two solutions. keep: weight of the old payoffs when new ones come.

    Attributes:
        weights: (K,) the mix; all of it on the grid's entry nearest to 5 until :meth:`solve` was called.
        value: the least expected payoff over scenarios that the mix guarantees. regret: of the solution.
        against: (S,) the scenarios' worst mix.
    """

    name = "robust"

    def __init__(self, grid: ArrayLike, period: int = 50, keep: float = 0.8) -> None:
        self.grid = check_grid(grid)
        if period < 1:
            raise ValueError(f"period = {period}; the meta-game is solved every period steps, so it must be >= 1")
        self.period, self.keep, self.steps = period, keep, 0
        self.weights: Float = np.zeros(len(self.grid))
        self.weights[int(np.argmin(np.abs(self.grid - 5.0)))] = 1.0
        self.payoff: Float | None = None
        self.value, self.regret, self.against = -np.inf, np.inf, np.zeros(0)

    def due(self) -> bool:
        """Whether the step that begins now is one at which to solve; counts the steps."""
        self.steps += 1
        return (self.steps - 1) % self.period == 0

    def solve(self, payoff: ArrayLike) -> None:
        """Take in payoffs (K, S), larger is better, and solve the meta-game of their fading average.

        Raises:
            ValueError: no scenario, a wrong shape, or a payoff that is not finite; the mix stays as it was.
        """
        new = np.asarray(payoff, dtype=float)
        if new.ndim != 2 or len(new) != len(self.grid):
            raise ValueError(f"payoff has shape {new.shape}; one row for each of {len(self.grid)} trusts is needed")
        if not new.shape[1]:
            raise ValueError("the scenario set is empty; a robust trust needs at least one scenario to hold against")
        if not np.isfinite(new).all():
            k, s = np.argwhere(~np.isfinite(new))[0]
            raise ValueError(f"payoff[{k}, {s}] = {new[k, s]}; a payoff is finite")
        if self.payoff is not None and self.payoff.shape == new.shape:
            new = self.keep * self.payoff + (1 - self.keep) * new
        self.payoff = new
        self.weights, self.against, self.regret = maximin(new)
        self.value = float((self.weights @ new).min())

    def state(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON; :meth:`restore` reads them."""
        return {"steps": self.steps, "payoff": None if self.payoff is None else self.payoff.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps, self.payoff = state["steps"], None
        if state["payoff"] is not None:
            self.solve(state["payoff"])


def maximin(payoff: Float) -> tuple[Float, Float, float]:
    """Maximin row mix, minimax column mix and their measured regret; the linear program where no search arrives."""
    for row, column, regret in equilibria(payoff, budget_s=0.05, tolerance=TOLERANCE):
        return row, column, regret
    answer = zero_sum(payoff)
    return answer.row, answer.column, answer.regret
