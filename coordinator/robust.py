r"""Robust trust: a zero-sum meta-game between trusts and worlds, against regret and never below the parents.

Row k is trust k of a grid that holds both parents (0: the proposal, inf: the game); column s is a world that may
differ from the one trained in. P_ks is what trust k earns in world s. Where the problem can simulate its worlds the
payoffs are whole rollouts, so that what a prior gains later (its foresight) is in them.

In plain maximin the harshest world decides alone, whatever is at stake in the others. So the game that is solved
is Savage's: the shortfall max_k P_ks - P_ks of each row from the best of its world. Two promises, w the mix:

* its worst shortfall is at most that of every row, both parents included;
* its worst case min_s w P_s is at least that of every row that is a parent.

The first is the minimax theorem's: each row is itself a mix. The second is not implied (a shortfall avoided in a mild
world may cost more in a harsh one), so it is checked. Where it fails, as little as mends it of the plain maximin mix
is blended in, of which it holds, again by the minimax theorem: a world's payoff is linear in the blend, so the least
share is the largest of the worlds' own. The second promise then holds, the first up to that ``share``.

Solved by :mod:`games.normal_form` (nashpy's support enumeration, Lemke-Howson paths; a linear program or exact
arithmetic where these leave more than rounding of what is at stake), whose answers are bounded in time and carry a
measured regret. Source: Savage (1951), "The theory of statistical decision".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from coordinator.hedge import check_grid
from games.congestion import Float
from games.normal_form import equilibria, is_tight, zero_sum

ROUNDING = 1e-12  # of a world's payoffs: less than this below a parent is not below it


class Robust:
    """Mix over trusts that falls least short of the best in the world where it falls shortest.

    Args:
        grid: (K,) trusts; the parents are the first and the last, so they should be 0 and inf.
        period: steps for which a trust that was drawn is held. keep: weight of the old payoffs when new ones come.
        start: index of the trust to take until :meth:`solve` was called; default the middle.

    Attributes:
        weights: (K,) the mix. payoff: (K, S) as last solved, None before.
        value: min over worlds of the mix's payoff. shortfall: its worst shortfall from the best of a world.
        share: of the plain maximin mix in it. regret: of the solutions, in the games that were solved.
        against: (S,) the worlds' worst mix in the game of shortfalls.
    """

    name = "robust"

    def __init__(self, grid: ArrayLike, period: int = 50, keep: float = 0.8, start: int | None = None) -> None:
        self.grid = check_grid(grid)
        if period < 1:
            raise ValueError(f"period = {period}; a drawn trust is held for period steps, so it must be >= 1")
        self.period, self.keep, self.steps = period, keep, 0
        self.weights: Float = np.zeros(len(self.grid))
        self.weights[len(self.grid) // 2 if start is None else start] = 1.0
        self.payoff: Float | None = None
        self.against, self.share = np.zeros(0), 0.0
        self.value, self.shortfall, self.regret = -np.inf, np.inf, np.inf

    def due(self) -> bool:
        """Whether the step that begins now is the first of a period; counts the steps."""
        self.steps += 1
        return (self.steps - 1) % self.period == 0

    def solve(self, payoff: ArrayLike) -> None:
        """Take in payoffs (K, S), larger is better, and solve the meta-game of their fading average.

        Raises:
            ValueError: no world, a wrong shape, or a payoff that is not finite; the mix stays as it was.
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
        self.payoff, self.share, self.steps = new, 0.0, 0  # what was drawn before is not held on to
        power = int(np.frexp(np.abs(new).max())[1])
        unit = np.ldexp(new, -power)  # exact, and no difference overflows
        best, promised = unit.max(axis=0), unit[[0, -1]].min(axis=1).max()
        self.weights, self.against, regret = maximin(unit - best)
        low = self.weights @ unit
        need = low < promised - ROUNDING * np.abs(unit).max(axis=0)
        if need.any():
            plain, _, more = maximin(unit)
            high = plain @ unit
            gained = np.where(high > low, high - low, 1.0)
            self.share = float(np.clip(np.where(high > low, (promised - low) / gained, 1.0)[need], 0, 1).max())
            self.weights = (1 - self.share) * self.weights + self.share * plain
            regret = max(regret, more)
        self.regret = float(np.ldexp(regret, power))
        self.value = float((self.weights @ new).min())
        self.shortfall = float(np.ldexp((best - self.weights @ unit).max(), power))

    def state(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON; :meth:`restore` reads them."""
        return {"steps": self.steps, "payoff": None if self.payoff is None else self.payoff.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        self.payoff = None
        if state["payoff"] is not None:
            self.solve(state["payoff"])
        self.steps = state["steps"]


def maximin(payoff: Float) -> tuple[Float, Float, float]:
    """Maximin row mix, minimax column mix and their measured regret; by program where no search is exact enough."""
    unit = (payoff - payoff.min()) / (np.ptp(payoff) or 1.0)
    for row, column, regret in equilibria(payoff, budget_s=0.05):
        if is_tight(unit, row, column):
            return row, column, regret
        break
    answer = zero_sum(payoff)
    return answer.row, answer.column, answer.regret
