"""Checks of a packing by code that shares nothing with the solver: from the definitions, in plain arrays."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Bool, Float, Int

TOLERANCE = 1e-9  # relative, of a capacity


class Packs(Protocol):
    """A packing game's arrays, wherever they come from; see :class:`games.packing.Packing`."""

    @property
    def rows(self) -> Int: ...
    @property
    def demand(self) -> Float: ...
    @property
    def capacity(self) -> Float: ...
    @property
    def curve(self) -> Float: ...
    @property
    def private(self) -> Float: ...
    @property
    def ok(self) -> Bool: ...
    @property
    def rank(self) -> Int: ...
    @property
    def stay(self) -> Int: ...
    @property
    def preempt(self) -> Float: ...


class PackingVerdict(NamedTuple):
    """excess: worst relative excess over a capacity, <= 0 where it fits (inf where nothing is there and something is
    taken). regret: most that a holder saves by moving alone to a place that fits. envy: (agent, option) of those left
    out where what is free, with what lower classes hold and may be made to give up, has room. potential: of the choice.
    """

    excess: float
    regret: float
    envy: tuple[tuple[int, int], ...]
    potential: float

    def holds(self, tolerance: float = TOLERANCE) -> bool:
        """Whether it fits, nobody gains by moving and nobody has cause for envy."""
        return self.excess <= tolerance and self.regret <= tolerance and not self.envy


def certify_packing(game: Packs, choice: ArrayLike) -> PackingVerdict:
    """What a joint choice (N,) is worth, O(N O S R): for verification, not for a hot path."""
    option = np.asarray(choice)
    n = len(option)
    taken = np.stack([_use(game, i, option[i]) for i in range(n)]) if n else np.zeros((0, len(game.capacity)))
    used = taken.sum(0)
    regret, envy = 0.0, []
    for i in range(n):
        others = used - taken[i]
        pinned = option[i] == game.stay[i] and np.isinf(game.preempt[i])
        if option[i] and not pinned:
            now = _cost(game, others, i, option[i])
            moves = [_cost(game, others, i, o) for o in _places(game, i) if _fits(game, others + _use(game, i, o))]
            regret = max(regret, now - min(moves, default=now))
        if not option[i]:
            for o in _places(game, i):
                kept, price = used.copy(), 0.0
                for j in np.flatnonzero((option > 0) & (game.rank > game.rank[i])):
                    pays = game.preempt[j] if option[j] == game.stay[j] else 0.0
                    if np.isinf(pays):
                        continue
                    if ((_use(game, i, o) > 0) & (taken[j] > 0)).any():
                        kept, price = kept - taken[j], price + pays
                worth = price == 0 or price < game.private[i, 0] - game.private[i, o]
                if worth and _fits(game, kept + _use(game, i, o)):
                    envy.append((i, o))
    some = game.capacity > 0
    over = np.where(some, used / np.where(some, game.capacity, 1) - 1, np.where(used > 0, np.inf, -1))
    private = sum(float(game.private[i, option[i]]) for i in range(n))
    return PackingVerdict(float(over.max(initial=-1.0)), float(regret), tuple(envy), private + _curves(game, used))


def _places(game: Packs, i: int) -> list[int]:
    return [int(o) for o in np.flatnonzero(game.ok[i]) if o > 0]


def _use(game: Packs, i: int, o: int) -> Float:
    """(R,) what agent i takes on option o."""
    out = np.zeros(len(game.capacity))
    for r, d in zip(game.rows[i, o], game.demand[i, o], strict=True):
        if r >= 0:
            out[r] += d
    return out


def _fits(game: Packs, used: Float) -> bool:
    return bool((used <= game.capacity * (1 + TOLERANCE)).all())


def _curves(game: Packs, used: Float) -> float:
    """Sum over resources of the potential at ``used`` (R,)."""
    at = [np.linspace(0, c, game.curve.shape[1]) for c in game.capacity]
    each = zip(used, at, game.curve, strict=True)
    return sum(float(np.interp(u, x, v)) if x[-1] > 0 else float(v[0]) for u, x, v in each)


def _cost(game: Packs, others: Float, i: int, o: int) -> float:
    """What the potential changes by when agent i joins ``others`` (R,) on option o."""
    return float(game.private[i, o]) + _curves(game, others + _use(game, i, o)) - _curves(game, others)
