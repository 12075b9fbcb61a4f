r"""Congestion games as the coordinator sees them: options alone, tilted by a log prior.

At trust t the tilted game charges each agent -log prior / t beside its own costs: a private cost, so the potential
stays exact (:mod:`coordinator.merge`). Its value is that potential,

.. math:: \Phi_t(s) = \Phi(s) - \frac1t \sum_i \ell_i(s_i)

with toll 1 the social cost up to a constant, with more also an insurance against loads that are worse than believed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numba import njit

from coordinator.budget import Clock
from coordinator.game import Choice, Sample, Solved, check_levels, only_options
from coordinator.merge import MAX_REPLIES, clip_prior, equilibrate, explore, flat_prior, respond
from games.admission import Seating, admit
from games.certificate import measure_regret
from games.congestion import Bool, CongestionBatch, CongestionGame, Float, Int
from games.lean import KEPT
from games.places import Places
from games.seated import better
from rl.proposal import Proposal


@runtime_checkable
class Admits(Protocol):
    """A batch that knows what serving an agent on an option takes: it gets stable admission. None: not as it is set."""

    def places(self, prices: Any, game: CongestionBatch) -> Places | None: ...


@dataclass(frozen=True)
class Congestion:
    """E congestion games, tilted by a clipped log prior (E, N, O) at ``trust``; as they are where that is inf."""

    batch: CongestionBatch
    log_prior: Float | None = None
    trust: float = np.inf
    tilt: Float | None = None  # (E, N, O) -log prior / trust; None where nothing is tilted

    @property
    def live(self) -> Bool:
        return self.batch.live

    @property
    def draws(self) -> tuple[int, ...]:
        return self.batch.live.shape

    @property
    def unique(self) -> bool:
        return False

    def flat(self) -> Proposal:
        return Proposal(flat_prior(self.batch))

    def clip(self, proposal: Proposal, limit: float) -> Proposal:
        shape = self.batch.private_cost.shape
        check_levels(proposal, (shape[:2], shape))
        if proposal.log_prior is None:
            return proposal._replace(log_prior=flat_prior(self.batch))
        raw = np.ascontiguousarray(proposal.log_prior, dtype=np.float64)
        clipped = np.empty(shape)
        if raw.shape != shape or not _clip(raw, self.batch.allowed, float(limit), clipped):
            clipped = clip_prior(_usable(raw, self.batch), self.batch.allowed, limit)
        return proposal._replace(log_prior=clipped)

    def proposes(self, proposal: Proposal) -> bool:
        return proposal.log_prior is not None and bool(proposal.log_prior.any())

    def tilted(self, proposal: Proposal, trust: float) -> Congestion:
        prior = flat_prior(self.batch) if proposal.log_prior is None else proposal.log_prior
        tilt = -prior / trust if 0 < trust < np.inf else None
        return Congestion(self.batch, prior, trust, tilt)

    def charged(self, cost: Float) -> Congestion:
        """With ``cost`` (N, O) more in private costs."""
        return replace(self, batch=self.batch._replace(private_cost=self.batch.private_cost + cost))

    def solve(self, start: Choice | None = None, clock: Clock | None = None) -> Solved:
        """Best responses in the tilted game, from ``start`` or from the mean field's most likely options."""
        if start is None:
            prior = flat_prior(self.batch) if self.log_prior is None else self.log_prior
            m = equilibrate(self.batch, prior, self.trust, clock=clock)
            return Solved(only_options(m.option), m.converged, m.stable)
        option = start.option.copy()
        stable = respond(self.batch, option, self.tilt, clock) <= MAX_REPLIES
        return Solved(only_options(option), stable, stable)

    def sample(self, proposal: Proposal, trust: float, uniform: Float) -> Sample:
        """Each agent's draw from its own Gibbs-prior strategy, softmax(log prior + bias)."""
        prior = flat_prior(self.batch) if proposal.log_prior is None else proposal.log_prior
        m = explore(self.batch, prior, trust, uniform)
        return Sample(only_options(m.option), m.bias)

    def value(self, choice: Choice) -> Float:
        tilt = np.zeros(self.batch.private_cost.shape) if self.tilt is None else self.tilt
        return model_cost(self.batch, choice.option, tilt)

    def bound(self, choice: Choice, limit: float) -> Float:
        epsilon = 0.0 if np.isinf(self.trust) else (limit / self.trust if self.trust > 0 else np.inf)
        return np.full(len(self.batch.live), epsilon)

    def regret(self, choice: Choice) -> Float:
        return np.array([measure_regret(self.single(e), choice.option[e]) for e in range(len(choice.option))])

    def single(self, e: int = 0) -> CongestionGame:
        """Agents that are not live have what the batch gives them: by a problem's rule option 0 alone, at no cost."""
        b = self.batch
        return CongestionGame(b.options, b.weight[e], b.capacity[e], b.private_cost[e], b.allowed[e], b.toll[e])

    def seated(self, places: Places, option: Int, effort: int) -> Seating:
        """Stable admission from the choice ``option`` (E, N), under the tilt.

        Where agents had places before it is also tried from those, by replies: what serves more is taken, of as many
        what costs less, moving included.
        """
        tilt = self.tilt if self.log_prior is not None and self.log_prior.any() else None
        seating = admit(self.batch, places, option, tilt, effort)
        if places.stay is None or not places.stay.any():
            return seating
        start = np.where(places.stay > 0, places.stay, option)
        start = np.where(np.take_along_axis(self.batch.allowed, start[..., None], 2)[..., 0], start, option)
        respond(self.batch, start, tilt)
        return better(self.batch, places, admit(self.batch, places, start, tilt, effort), seating, tilt)


def model_cost(batch: CongestionBatch, option: Int, tilt: Float) -> Float:
    """(E,) potential of the tilted games at joint choices (E, N)."""
    out = np.empty(len(option))
    _potential(
        batch.options,
        batch.weight,
        batch.capacity,
        batch.private_cost,
        batch.live,
        batch.toll,
        tilt,
        option,
        out,
    )
    return out


@njit(**KEPT)
def _potential(options, weight, capacity, private, live, toll, tilt, option, out):
    games, n, resources = weight.shape
    load = np.empty(resources)
    square = np.empty(resources)
    for e in range(games):
        load[:] = 0.0
        square[:] = 0.0
        total = 0.0
        for i in range(n):
            if not live[e, i]:
                continue
            o = option[e, i]
            total += private[e, i, o] + tilt[e, i, o]
            for s in range(options.shape[1]):
                r = options[o, s]
                if r >= 0:
                    load[r] += weight[e, i, r]
                    square[r] += weight[e, i, r] ** 2
        for r in range(resources):
            t = toll[e, r]
            total += ((1.0 + t) * load[r] ** 2 + (1.0 - t) * square[r]) / (2.0 * capacity[e, r])
        out[e] = total


@njit(**KEPT)
def _clip(raw, allowed, limit, out):
    """:func:`coordinator.merge.clip_prior`, all (E, N, O); False where :func:`_usable` has something to say."""
    for e in range(raw.shape[0]):
        for i in range(raw.shape[1]):
            most = -np.inf
            for o in range(raw.shape[2]):
                z = raw[e, i, o]
                if np.isnan(z) or z == np.inf:
                    return False
                if allowed[e, i, o]:
                    most = max(most, z)
            if most == -np.inf:
                return False
            for o in range(raw.shape[2]):
                out[e, i, o] = max(raw[e, i, o] - most, -limit) if allowed[e, i, o] else 0.0
    return True


def _usable(raw: Float, game: CongestionBatch) -> Float:
    """A recommender's log-priors, or a ValueError that says what is wrong with them."""
    shape = game.private_cost.shape
    if raw.shape != shape:
        raise ValueError(f"log-priors have shape {raw.shape}; this state needs {shape}")
    if np.isnan(raw).any() or np.isposinf(raw).any():
        e, i, o = np.argwhere(np.isnan(raw) | np.isposinf(raw))[0]
        raise ValueError(f"log-prior of agent {i}, option {o} is {raw[e, i, o]}")
    finite = (np.isfinite(raw) & game.allowed).any(axis=-1)
    if not finite.all():
        raise ValueError(f"agent {int(np.argwhere(~finite)[0][1])} is left without an allowed option")
    return raw
