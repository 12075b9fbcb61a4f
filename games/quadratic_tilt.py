"""What a Gaussian proposal makes of quadratic games, whichever way they are written down: as matrices
(:mod:`games.quadratic_batch`) or on a tree (:mod:`games.tree`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import numpy as np

from games.congestion import Bool, Float
from games.quadratic_batch import TOLERANCE, Solution, weights

NEARLY = 1e-6


class LevelGames(Protocol):
    """E quadratic games of N agents with D levels each; shapes as in :class:`games.quadratic_batch.QuadraticBatch`."""

    @property
    def linear(self) -> Float: ...

    @property
    def lower(self) -> Float: ...

    @property
    def upper(self) -> Float: ...

    @property
    def live(self) -> Bool: ...

    def gradient(self, level: Float) -> Float:
        """(E, N, D) each agent's gradient in its own levels, limits left out."""

    def own(self) -> Float:
        """(E, N, D, D) Hessian of each agent's cost in its own levels."""

    def steepest(self) -> float:
        """The largest entry of J."""

    def tilted(self, mean: Float, spread: Float, trust: float) -> Self:
        """The games tilted by a Gaussian proposal; see :func:`games.quadratic_batch.tilt_batch`."""

    def solve(self, start: Float | None = None, *, tolerance: float = ..., stop: Callable[[], bool] = ...) -> Solution:
        """The variational equilibria; see :func:`games.quadratic_batch.solve_batch`."""

    def project(self, point: Float, weight: Float, stop: Callable[[], bool] = ...) -> Solution:
        """The nearest joint levels that are feasible; see :func:`games.quadratic_batch.project_batch`."""

    def value(self, level: Float) -> Float:
        """(E,) see :func:`games.quadratic_batch.value_batch`."""

    def charged_more(self, centre: Float, step: Float) -> Float:
        """(E, N, O) what limits cost more where agent i alone moves from ``centre`` (E, N) by ``step`` (E, N, O)."""


def propose_batch(game: LevelGames, mean: Float, spread: Float, stop: Callable[[], bool] = lambda: False) -> Solution:
    r"""The limit of the tilted games' equilibria as trust goes to 0: the proposal, as far as it is feasible for all.

    The levels with a finite spread are those of the point that minimises :math:`\sum (x - mean)^2 / spread^2` over all
    that boxes and limits that hold allow; with those fixed, the levels that nothing is asked of are at the game's own
    equilibrium under what is left of the limits. Where every level is asked for, it is that projection; otherwise the
    equilibrium at a trust at which the game's curvature is ``NEARLY`` of the least pull, since the limit itself leaves
    thin sets.
    """
    weight = weights(spread)
    asked = weight > 0
    if asked.all():
        return game.project(mean, weight, stop)
    if not asked.any():
        return game.solve(stop=stop)
    size = game.steepest()
    trust = NEARLY * float(weight[asked].min()) / (size if size > 0 else 1.0)
    tilted = game.tilted(mean, spread, trust)
    return tilted.solve(np.where(asked, mean, 0.0), tolerance=TOLERANCE / NEARLY * 1e-4, stop=stop)


def gain_bound(game: LevelGames, level: Float, mean: Float, spread: Float, trust: float) -> Float:
    r"""(E, N) no agent gains more than this, in the games as they are, by leaving ``level`` alone, where that is an
    equilibrium of the games tilted by a Gaussian proposal at ``trust``.

    With :math:`g = (x - mean) / (trust\, spread^2)` and a the least curvature of the agent's own cost, a step u of one
    level gains at most :math:`g u - a u^2 / 2`; the most over the steps that its box allows, summed over its levels.
    Proof in docs/coordinator.md.
    """
    if np.isinf(trust):
        return np.zeros(level.shape[:2])
    pull = weights(spread) * np.where(np.isfinite(spread), level - mean, 0.0) / trust
    own = game.own()
    curve = np.linalg.eigvalsh(own).min(axis=2, initial=np.inf) if own.size else np.zeros(level.shape[:2])
    curve = np.maximum(curve, 0.0)[..., None]
    far = np.where(pull > 0, game.upper - level, level - game.lower)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(curve > 0, np.minimum(np.abs(pull) / curve, far), far)
        most = np.abs(pull) * step - curve * step**2 / 2
    return np.asarray(np.where(pull == 0, 0.0, most).sum(axis=2))
