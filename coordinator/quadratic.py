r"""Quadratic games as the coordinator sees them: levels alone, tilted by a Gaussian proposal N(m, s^2).

At trust t the tilted game charges each agent :math:`\sum_d (x_d - m_d)^2 / (2 t s_d^2)` beside its own cost. That is
quadratic and its own, so the tilted game is a quadratic game again: J gains :math:`1 / (t s^2)` on its diagonal, q
loses :math:`m / (t s^2)`, the limits stay. At trust inf it is the game's own variational equilibrium; as trust goes to
0 it is the proposal, projected in the norm of its spreads onto what boxes and limits allow all agents together
(:func:`games.quadratic_batch.propose_batch`). A spread of inf asks for nothing.

To train, each agent draws from the density that its proposal and its cost make,

.. math:: p_i(x) \propto \exp(-\tfrac12 \sum_d (x_d - m_d)^2 / s_d^2 + b' x - \tfrac t2 x' H x)

with H its own block of J and b held constant, such that the mean is the tilted equilibrium :math:`x^*`:
:math:`b = (S^{-2} + t H) x^* - S^{-2} m`, which where no limit binds is -t times the rest of its gradient. So p is
Gaussian with precision :math:`P = S^{-2} + t H` and mean :math:`x^*`; its log-density as a function of m and s, at
fixed b and H, is what a policy gradient is to see of the draw (:func:`log_density`). What is executed is the draw made
feasible, by the nearest joint levels in the norm of P's diagonal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from coordinator.budget import Clock
from coordinator.game import Choice, Pull, Sample, Solved, check_levels, only_levels
from games.congestion import Bool, Float
from games.quadratic import QuadraticGame
from games.quadratic_batch import QuadraticBatch, Solution, weights
from games.quadratic_certificate import quadratic_gains
from games.quadratic_tilt import gain_bound, propose_batch
from games.tree import TreeBatch
from games.tree_certificate import tree_gains
from rl.proposal import Proposal

SURE = 1e-6  # of the box, or of 1 + |mean| where that is open: a smaller spread counts as this much
SMALL = 1e-12  # of the largest: a precision below is none


@dataclass(frozen=True)
class Quadratic:
    """E quadratic games whose levels are named, tilted by a clipped proposal at ``trust``; as they are at inf.

    ``near`` (E, N, D): where to begin, such as where a model was made; default at nothing. It changes no answer.
    """

    batch: QuadraticBatch | TreeBatch
    levels: tuple[str, ...] = ()
    proposal: Proposal | None = None
    trust: float = np.inf
    near: Float | None = None

    @property
    def live(self) -> Bool:
        return self.batch.live

    @property
    def draws(self) -> tuple[int, ...]:
        return self.batch.linear.shape

    @property
    def unique(self) -> bool:
        return True  # the variational equilibrium of a strongly monotone game

    def flat(self) -> Proposal:
        shape = self.batch.linear.shape
        return Proposal(None, np.zeros(shape), np.full(shape, np.inf), self._names())

    def clip(self, proposal: Proposal, limit: float) -> Proposal:
        """``limit`` is for log priors, which there are none of; a spread below ``SURE`` of the box counts as that."""
        if proposal.log_prior is not None:
            raise ValueError("log-priors are proposed and this game has no options; propose mean and spread alone")
        shape, names = self.batch.linear.shape, self._names()
        if proposal.mean is None and proposal.spread is None:
            return self.flat()
        if proposal.levels != names:
            raise ValueError(f"levels = ({', '.join(proposal.levels)}); this game's are ({', '.join(names)})")
        check_levels(proposal, (shape[:2],))
        mean, spread = np.asarray(proposal.mean, float), np.asarray(proposal.spread, float)
        width = self.batch.upper - self.batch.lower
        unit = np.where(np.isfinite(width) & (width > 0), width, 1.0 + np.abs(mean))
        return Proposal(None, mean, np.maximum(spread, SURE * unit), names)

    def proposes(self, proposal: Proposal) -> bool:
        return proposal.spread is not None and bool(np.isfinite(proposal.spread).any())

    def tilted(self, proposal: Proposal, trust: float) -> Quadratic:
        return Quadratic(self.batch, self.levels, proposal, trust, self.near)

    def solve(self, start: Choice | None = None, clock: Clock | None = None) -> Solved:
        found = self._solve(None if start is None else start.level, _stop(clock))
        return Solved(only_levels(found.level), found.converged, found.converged & (self.trust > 0))

    def sample(self, proposal: Proposal, trust: float, uniform: Float) -> Sample:
        """A draw from each agent's Gaussian about the tilted equilibrium, and what of it is executed; see above."""
        at = self.tilted(proposal, trust)
        centre = at._solve(None, lambda: False).level
        mean, spread = at._gaussian()
        precision = weights(spread)
        own = trust * self.batch.own() if 0 < trust < np.inf else np.zeros((*centre.shape, centre.shape[2]))
        whole = own + precision[..., None] * np.eye(centre.shape[2])
        linear = (whole @ centre[..., None])[..., 0] - precision * mean
        if np.isinf(trust):
            drawn = centre  # the equilibrium is certain
        else:
            size, axes = np.linalg.eigh(whole)
            known = size > SMALL * size.max(axis=-1, keepdims=True, initial=0.0)
            normal = ndtri(np.clip(uniform, 1e-12, 1 - 1e-12)) * np.where(
                known, 1 / np.sqrt(np.where(known, size, 1)), 0
            )
            drawn = centre + (axes @ normal[..., None])[..., 0] * self.live[..., None]
        diagonal = np.einsum("enkk->enk", whole)
        unit = np.where(diagonal > 0, diagonal, 1.0)
        level = drawn if np.isinf(trust) else self.batch.project(drawn, unit).level
        return Sample(only_levels(level), None, drawn, Pull(linear, own))

    def value(self, choice: Choice) -> Float:
        """The potential of the tilted game where its matrix is symmetric, else a distance from equilibrium: see
        :func:`games.quadratic_batch.value_batch`. At trust 0 the distance from the proposal, in its spreads."""
        mean, spread = self._gaussian()
        if self.trust == 0:
            return np.asarray((weights(spread) * (choice.level - mean) ** 2).sum(axis=(1, 2)) / 2)
        return self._tilted().value(choice.level)

    def bound(self, choice: Choice, limit: float) -> Float:
        if self.trust == 0:
            return np.full(len(self.live), np.inf)
        mean, spread = self._gaussian()
        gains = gain_bound(self.batch, choice.level, mean, spread, self.trust)
        return np.asarray(gains.max(axis=1, initial=0.0))

    def regret(self, choice: Choice) -> Float:
        if isinstance(self.batch, TreeBatch):
            return tree_gains(self.batch, choice.level).max(axis=1, initial=0.0)
        agents, batch = choice.level.shape[1], self.batch
        gains = [quadratic_gains(batch.single(e), agents, level) for e, level in enumerate(choice.level)]
        return np.array([gain.max(initial=0.0) for gain in gains])

    def single(self, e: int = 0) -> QuadraticGame | TreeBatch:
        return self.batch.single(e)

    def _names(self) -> tuple[str, ...]:
        return self.levels or tuple(f"level {k}" for k in range(self.batch.linear.shape[2]))

    def _gaussian(self) -> tuple[Float, Float]:
        given = self.flat() if self.proposal is None else self.proposal
        assert given.mean is not None and given.spread is not None
        return given.mean, given.spread

    def _tilted(self) -> QuadraticBatch | TreeBatch:
        return self.batch if np.isinf(self.trust) else self.batch.tilted(*self._gaussian(), self.trust)

    def _solve(self, start: Float | None, stop: Callable[[], bool]) -> Solution:
        if self.trust == 0:
            return propose_batch(self.batch, *self._gaussian(), stop)
        return self._tilted().solve(self.near if start is None else start, stop=stop)


def log_density(proposal: Proposal, pull: Pull, drawn: Float) -> Float:
    """(E, N) log-density of levels as :meth:`Quadratic.sample` drew them, as a function of the proposal's mean and
    spread with the pull held constant; 0 where nothing is uncertain."""
    assert proposal.mean is not None and proposal.spread is not None
    precision = weights(proposal.spread)
    whole = pull.curvature + precision[..., None] * np.eye(drawn.shape[2])
    size, axes = np.linalg.eigh(whole)
    known = size > SMALL * size.max(axis=-1, keepdims=True, initial=0.0)
    inverse = np.where(known, 1 / np.where(known, size, 1.0), 0.0)
    turn = lambda v: (np.swapaxes(axes, -1, -2) @ v[..., None])[..., 0]
    off = turn(drawn) - inverse * turn(precision * proposal.mean + pull.linear)
    log = np.log(np.where(known, size, 1.0)) - np.log(2 * np.pi)
    return np.asarray(np.where(known, (log - size * off**2) / 2, 0.0).sum(axis=-1))


def _stop(clock: Clock | None) -> Callable[[], bool]:
    """Asks whether a clock's budget is spent, and notes it where it is."""
    if clock is None or not clock.limited:
        return lambda: False
    timed = clock

    def stop() -> bool:
        over = timed.left_ms() <= 0
        if over:
            timed.skipped.append("equilibrate")
        return over

    return stop
