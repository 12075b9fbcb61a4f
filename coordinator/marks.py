r"""Quadratic games for recommenders that choose among marks: a few values of a level, as options.

A learner of options (Q-learning, value decomposition, policy gradients over a softmax) gives log-priors over O marks of
each agent's one level. What of that the game can be tilted by is Gaussian: with m, v the prior's mean and variance over
the marks and m0, v0 those of a flat one, its natural parameters are what it adds to the flat one's,

.. math:: 1/s^2 = [1/v - 1/v_0]_+, \quad \mu / s^2 = m/v - m_0/v_0,

so that a flat prior asks for nothing, and one that is wider than flat neither; and s is wide enough for no mark to be
charged more than ``limit``, as no option's log-prior is clipped lower. At trust 0 the best mark is taken as it
is. To train, each agent draws a mark from softmax(log prior - trust cost), its cost at the tilted equilibrium of the
others: that is the density which its gradient is to see, as in congestion games.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from coordinator.budget import Clock
from coordinator.game import Choice, Sample, Solved, only_levels
from coordinator.merge import clip_prior, mixed_strategy
from coordinator.quadratic import Quadratic
from games.congestion import Bool, Float
from rl.proposal import Proposal

SURE = 1e-3  # of the marks' width: a prior's spread counts as at least so much


@dataclass(frozen=True)
class Marked(Quadratic):
    """:class:`Quadratic` with one level an agent, for which (E, N, O) ``marks`` stand; ``allowed`` likewise."""

    marks: Float = field(default_factory=lambda: np.zeros((0, 0, 0)))
    allowed: Bool = field(default_factory=lambda: np.zeros((0, 0, 0), bool))

    @property
    def draws(self) -> tuple[int, ...]:
        return self.batch.linear.shape[:2]

    def flat(self) -> Proposal:
        return super().flat()._replace(log_prior=np.zeros(self.marks.shape))

    def clip(self, proposal: Proposal, limit: float) -> Proposal:
        """Log-priors clipped to [-limit, 0], with the Gaussian that stands for them; one of levels as it is."""
        if proposal.log_prior is None:
            return super().clip(proposal, limit)
        prior = np.asarray(proposal.log_prior, np.float64)
        if prior.shape != self.marks.shape:
            raise ValueError(f"log_prior has shape {prior.shape}; this state needs {self.marks.shape}")
        if not np.isfinite(prior[self.allowed]).all():
            raise ValueError("log_prior holds what is not finite")
        clipped = clip_prior(prior, self.allowed, limit)
        mean, spread = self._gaussian_of(clipped, limit)
        return Proposal(clipped, mean[..., None], spread[..., None], self._names())

    def _gaussian_of(self, log_prior: Float, limit: float) -> tuple[Float, Float]:
        """(E, N) mean and spread, inf where nothing is asked."""
        marks = self.marks
        moments = []
        for weight in (mixed_strategy(log_prior, self.allowed), mixed_strategy(0 * log_prior, self.allowed)):
            mean = (weight * marks).sum(-1)
            moments += [mean, (weight * (marks - mean[..., None]) ** 2).sum(-1)]
        mean, variance, flat_mean, flat_variance = moments
        width = np.maximum(marks.max(-1) - marks.min(-1), 1e-12)
        floor = np.maximum(variance, (SURE * width) ** 2)
        flat = np.maximum(flat_variance, (SURE * width) ** 2)
        precision = 1 / floor - 1 / flat
        asks = precision > 1e-9 / flat
        safe = np.where(asks, precision, 1.0)
        centre = np.where(asks, (mean / floor - flat_mean / flat) / safe, 0.0)
        centre = np.clip(centre, marks.min(-1), marks.max(-1))
        reach = np.abs(marks - centre[..., None]).max(-1)
        least = reach / np.sqrt(2 * limit) if limit > 0 else np.inf
        return centre, np.where(asks, np.maximum(1 / np.sqrt(safe), least), np.inf)

    def proposes(self, proposal: Proposal) -> bool:
        if proposal.log_prior is not None:
            return bool((proposal.log_prior < 0).any())
        return super().proposes(proposal)

    def tilted(self, proposal: Proposal, trust: float) -> Marked:
        return replace(self, proposal=proposal, trust=trust)

    def solve(self, start: Choice | None = None, clock: Clock | None = None) -> Solved:
        prior = None if self.proposal is None else self.proposal.log_prior
        if self.trust > 0 or prior is None:
            return super().solve(start, clock)
        best = np.where(self.allowed, prior, -np.inf).argmax(-1)
        level = np.take_along_axis(self.marks, best[..., None], -1) * self.live[..., None]
        none = np.zeros(len(level), bool)
        return Solved(only_levels(np.clip(level, self.batch.lower, self.batch.upper)), ~none, none)

    def sample(self, proposal: Proposal, trust: float, uniform: Float) -> Sample:
        """A mark for each agent, drawn; ``uniform`` (E, N) in [0, 1)."""
        if proposal.log_prior is None:
            return super().sample(proposal, trust, uniform[..., None])
        bias = np.zeros(self.marks.shape)
        if trust > 0:
            centre = self.tilted(proposal, trust)._solve(None, lambda: False).level[..., 0]
            bias = -min(trust, 1e6) * self._costs(centre)
            bias -= np.where(self.allowed, bias, -np.inf).max(-1, keepdims=True)
            bias = np.where(self.allowed, bias, 0.0)
        cumulative = np.cumsum(mixed_strategy(proposal.log_prior + bias, self.allowed), axis=-1)
        draw = np.maximum(uniform, np.finfo(float).tiny)[..., None]
        option = (cumulative < draw * cumulative[..., -1:]).sum(-1)
        option[~self.live] = 0
        level = np.take_along_axis(self.marks, option[..., None], -1) * self.live[..., None]
        level = np.clip(level, self.batch.lower, self.batch.upper)
        return Sample(Choice(option, level), bias)

    def _costs(self, centre: Float) -> Float:
        """(E, N, O) what each mark costs its agent more than where it is, all others at ``centre`` (E, N)."""
        batch = self.batch
        pull = batch.gradient(centre[..., None])[..., 0]
        own = batch.own()[:, :, 0, 0]
        step = self.marks - centre[..., None]
        cost = pull[..., None] * step + own[..., None] * step**2 / 2
        cost += batch.charged_more(centre, step)
        return np.asarray(cost)
