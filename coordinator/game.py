"""What the coordinator asks of a game: E games side by side that a proposal can tilt.

Three kinds are one: congestion games, in which agents choose options and share (:mod:`coordinator.congestion`), packing
games, in which they hold what they take (:mod:`coordinator.packing`), and quadratic games, in which they choose levels
(:mod:`coordinator.quadratic`). N agents, O options, D levels an agent.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from coordinator.budget import Clock
from games.congestion import Bool, CongestionGame, Float, Int
from games.packing import Packing
from games.quadratic import QuadraticGame
from games.tree import TreeBatch
from rl.proposal import Proposal

T = TypeVar("T")


class Choice(NamedTuple):
    """A joint choice in E games: option (E, N), all 0 in a game without options; level (E, N, D), D = 0 in one without
    levels."""

    option: Int
    level: Float


class Solved(NamedTuple):
    """An equilibrium of E games: converged (E,) whether the solver met its tolerance, stable (E,) whether nobody wants
    to move any more, which the bound on regret rests on."""

    choice: Choice
    converged: Bool
    stable: Bool


class Pull(NamedTuple):
    """What a game adds to the log-density of each agent's levels x: linear' x - x' curvature x / 2, costs and the
    others' levels held constant; linear (E, N, D), curvature (E, N, D, D)."""

    linear: Float
    curvature: Float


class Sample(NamedTuple):
    """A mixed choice to train on, drawn once.

    Attributes:
        choice: what is executed.
        bias: (E, N, O) what the game adds to the log prior of the options; None without options.
        drawn: (E, N, D) levels as drawn, before they were made feasible: what the density is of; None without levels.
        pull: what the game adds to their log-density; None without levels.
    """

    choice: Choice
    bias: Float | None = None
    drawn: Float | None = None
    pull: Pull | None = None

    @property
    def option(self) -> Int:
        return self.choice.option


class Game(Protocol):
    """E games of one shape. A game as the situation gives it is untilted: its trust is inf."""

    @property
    def live(self) -> Bool:
        """(E, N) has something to decide."""

    @property
    def draws(self) -> tuple[int, ...]:
        """Shape of the uniform numbers that :meth:`sample` takes."""

    @property
    def unique(self) -> bool:
        """Whether solving ends in the same equilibrium from any start, so that no other need be tried."""

    def flat(self) -> Proposal:
        """The proposal of who knows nothing: with it the merge is the game's own equilibrium."""

    def clip(self, proposal: Proposal, limit: float) -> Proposal:
        """What of a proposal is merged: log priors shifted so that each agent's best allowed option is at 0, and
        clipped to [-limit, 0].

        Raises:
            ValueError: it cannot be used; names what is wrong with it.
        """

    def proposes(self, proposal: Proposal) -> bool:
        """Whether a clipped proposal prefers anything."""

    def tilted(self, proposal: Proposal, trust: float) -> Self:
        """The game in which a clipped proposal counts: at trust 0 it alone, at inf not at all."""

    def solve(self, start: Choice | None = None, clock: Clock | None = None) -> Solved:
        """An equilibrium; in time where the clock has a budget."""

    def sample(self, proposal: Proposal, trust: float, uniform: Float) -> Sample:
        """A draw from the mixed choice about the tilted game's equilibrium; ``uniform`` in [0, 1)."""

    def value(self, choice: Choice) -> Float:
        """(E,) what is least at the better of two choices: a potential, tilt included, or a distance."""

    def bound(self, choice: Choice, limit: float) -> Float:
        """(E,) what no agent can gain more than by leaving alone, in the untilted game, an equilibrium ``choice`` of
        this one; ``limit`` is what log priors were clipped to."""

    def regret(self, choice: Choice) -> Float:
        """(E,) the most that one agent gains by leaving ``choice`` alone in the untilted game, by code that shares
        nothing with the solvers."""

    def single(self, e: int) -> CongestionGame | QuadraticGame | TreeBatch | Packing:
        """Game ``e``, untilted, by itself: what certificates and questions read."""


def renewed(record: T, **changes: Any) -> T:
    """A frozen record with some fields changed; ``dataclasses.replace``, which looks at every field, takes ten times as
    long. For records that check nothing when they are made."""
    new = object.__new__(type(record))
    new.__dict__.update(record.__dict__, **changes)
    return new


def options_of(choice: Choice | Int) -> Int:
    """(E, N) options of a joint choice, or of bare options."""
    return choice.option if isinstance(choice, Choice) else np.asarray(choice, np.int64)


def only_options(option: Int) -> Choice:
    """A choice in games without levels."""
    return Choice(option, np.zeros((*option.shape, 0)))


def only_levels(level: Float) -> Choice:
    """A choice in games without options."""
    return Choice(np.zeros(level.shape[:2], np.int64), level)


def check_levels(proposal: Proposal, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Raise a ValueError that says what is wrong with the levels of a proposal, if anything is.

    Args:
        shapes: that a level may have, the first as it is for a joint choice: (E, N), or also (E, N, O).
    """
    mean, spread, names = proposal.mean, proposal.spread, proposal.levels
    if mean is None and spread is None:
        return
    if mean is None or spread is None:
        raise ValueError(
            f"a proposal of levels has a mean and a spread; the {'mean' if mean is None else 'spread'} is None"
        )
    for what, array in (("mean", np.asarray(mean)), ("spread", np.asarray(spread))):
        if not array.ndim or array.shape[-1] != len(names):
            raise ValueError(f"{what} has shape {array.shape}; levels names {len(names)}: {', '.join(names)}")
    for k, name in enumerate(names):
        for what, array in ((name, mean[..., k]), (f"{name}_spread", spread[..., k])):
            if array.shape not in shapes:
                raise ValueError(f"{what} has shape {array.shape}; this state needs {' or '.join(map(str, shapes))}")
        for what, array, bad, rule in (
            (name, mean[..., k], ~np.isfinite(mean[..., k]), "it must be finite"),
            (f"{name}_spread", spread[..., k], ~(spread[..., k] >= 0), "a spread is >= 0"),
        ):
            if bad.any():
                raise ValueError(f"{what} = {array[bad].flat[0]}; {rule}")


def levels_beside(proposal: Proposal, option: Int) -> Proposal | None:
    """The levels that are proposed beside the chosen options, mean and spread (E, N, D), for the problem to settle;
    None where none are, or where there are no options, so that the game has decided them."""
    if proposal.log_prior is None or proposal.mean is None or proposal.spread is None:
        return None
    pick = lambda a: np.take_along_axis(a, option[..., None, None], 2)[:, :, 0] if a.ndim == 4 else a
    return Proposal(
        None, pick(np.asarray(proposal.mean, float)), pick(np.asarray(proposal.spread, float)), proposal.levels
    )
