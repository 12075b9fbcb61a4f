r"""Packing games as the coordinator sees them: places that are had whole or not at all, tilted by a log prior.

At trust t the tilted game charges each agent -log prior / t beside what a place costs by itself, so its potential stays
exact, and who is served goes by class as before: an agent that is left out has no place that fits, whatever was
proposed. Its value is the potential, tilt included. At trust 0 agents are seated where they ask to be, as far as there
is room.

No agent that holds a place gains more than limit / t by moving alone to another that fits: at the tilted equilibrium
none saves anything there, and the tilt of two options differs by limit / t at most.

To train, each agent draws from softmax(log prior + bias), the bias -t times what a place costs it beside the others at
the tilted equilibrium. A place that does not fit there costs what having none does, which is what asking for it brings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from coordinator.budget import Clock
from coordinator.game import Choice, Sample, Solved, check_levels, only_options
from coordinator.merge import clip_prior, mixed_strategy
from games import packing_moves as moves
from games.congestion import Bool, Float, Int
from games.lean import ROOMY
from games.packing import Packing, pack, seat_asked
from games.packing_batch import PackingBatch
from games.packing_certificate import certify_packing
from rl.proposal import Proposal


@dataclass(frozen=True)
class PackingGames:
    """E packing games with trades, tilted by a clipped log prior (E, N, O) at ``trust``; as they are at inf."""

    batch: PackingBatch
    log_prior: Float | None = None
    trust: float = np.inf

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
        return Proposal(np.zeros(self.batch.private.shape))

    def clip(self, proposal: Proposal, limit: float) -> Proposal:
        shape, allowed = self.batch.private.shape, self.batch.allowed
        check_levels(proposal, (shape[:2], shape))
        if proposal.log_prior is None:
            return proposal._replace(log_prior=np.zeros(shape))
        raw = np.asarray(proposal.log_prior, np.float64)
        if raw.shape != shape:
            raise ValueError(f"log-priors have shape {raw.shape}; this state needs {shape}")
        bad = np.argwhere(np.isnan(raw) | np.isposinf(raw))
        for e, i, o in bad[:1]:
            raise ValueError(f"log-prior of agent {i}, option {o} is {raw[e, i, o]}")
        for _, i in np.argwhere(~(np.isfinite(raw) & allowed).any(-1))[:1]:
            raise ValueError(f"agent {i} is left without an allowed option")
        return proposal._replace(log_prior=clip_prior(raw, allowed, limit))

    def proposes(self, proposal: Proposal) -> bool:
        return proposal.log_prior is not None and bool(proposal.log_prior.any())

    def tilted(self, proposal: Proposal, trust: float) -> PackingGames:
        return PackingGames(self.batch, proposal.log_prior, trust)

    def solve(self, start: Choice | None = None, clock: Clock | None = None) -> Solved:
        """An equilibrium of the tilted games. They begin from nobody seated, dearest first; a ``start`` is what is held
        for as long as nothing is better."""
        n = self.batch.live.shape
        option, stable = np.zeros(n, np.int64), np.zeros(len(n) and n[0], bool)
        for e in range(len(option)):
            game = self._tilted(e)
            if self.trust == 0:
                option[e] = self._asked(e, game)
                continue
            if start is not None:
                pinned = np.isinf(game.preempt) & (game.stay > 0)
                held = np.where(pinned, game.stay, start.option[e])
                game = game._replace(stay=held, preempt=np.where(pinned, np.inf, 0.0))
            found = pack(game, trade=True)
            option[e], stable[e] = found.option, found.stable
        return Solved(only_options(option), stable | (self.trust == 0), stable)

    def _asked(self, e: int, game: Packing) -> Int:
        allowed = self.batch.allowed[e]
        prior = np.zeros(allowed.shape) if self.log_prior is None else self.log_prior[e]
        return seat_asked(game, np.where(allowed, prior, -np.inf).argmax(-1)).option

    def sample(self, proposal: Proposal, trust: float, uniform: Float) -> Sample:
        at = self.tilted(proposal, trust)
        prior = np.zeros(self.batch.private.shape) if proposal.log_prior is None else proposal.log_prior
        bias, allowed = np.zeros(prior.shape), self.batch.allowed
        if trust > 0:
            centre = at.solve().choice.option
            for e in range(len(centre)):
                cost = np.zeros(prior.shape[1:])
                _costs(self.batch.single(e), centre[e], cost)
                bias[e] = -min(trust, 1e6) * (cost - np.where(allowed[e], cost, np.inf).min(-1, keepdims=True))
            bias = np.where(allowed, bias, 0.0)
        cumulative = np.cumsum(mixed_strategy(prior + bias, allowed), axis=-1)
        draw = np.maximum(uniform, np.finfo(float).tiny)[..., None]
        option = (cumulative < draw * cumulative[..., -1:]).sum(-1)
        option[~self.live] = 0
        return Sample(only_options(option), bias)

    def value(self, choice: Choice) -> Float:
        games = (self._tilted(e) for e in range(len(choice.option)))
        return np.array([_potential(game, option) for game, option in zip(games, choice.option, strict=True)])

    def bound(self, choice: Choice, limit: float) -> Float:
        epsilon = 0.0 if np.isinf(self.trust) else (limit / self.trust if self.trust > 0 else np.inf)
        return np.full(len(self.batch.live), epsilon)

    def regret(self, choice: Choice) -> Float:
        return np.array([certify_packing(self.single(e), option).regret for e, option in enumerate(choice.option)])

    def single(self, e: int = 0) -> Packing:
        return self.batch.single(e)

    def _tilted(self, e: int) -> Packing:
        game = self.batch.single(e)
        if self.log_prior is None or not 0 < self.trust < np.inf:
            return game
        return game._replace(private=game.private - self.log_prior[e] / self.trust)


@njit(**ROOMY)
def _used(g, option):
    used = np.zeros(len(g.capacity))
    for i in range(len(option)):
        for s in range(g.rows.shape[2]):
            r = g.rows[i, option[i], s]
            if r >= 0:
                used[r] += g.demand[i, option[i], s]
    return used


@njit(**ROOMY)
def _potential(g, option):
    """The game's potential at ``option`` (N,)."""
    total, used = 0.0, _used(g, option)
    for i in range(len(option)):
        total += g.private[i, option[i]]
    for r in range(len(used)):
        total += moves.potential(g, r, used[r])
    return total


@njit(**ROOMY)
def _costs(g, option, out):
    """What each option costs each agent (N, O) beside the others; one that does not fit what opting out does."""
    used = _used(g, option)
    free = g.capacity * (1.0 + moves.ROUNDING) + 1e-300
    for i in range(len(option)):
        now = option[i]
        if now > 0:
            moves.leave(g, used, i, option)
        for o in range(out.shape[1]):
            there = o > 0 and g.ok[i, o] and moves.fits(g, free, used, i, o)
            out[i, o] = moves.cost_of(g, used, i, o) if there else g.private[i, 0]
        if now > 0:
            moves.seat(g, used, i, now, option)
