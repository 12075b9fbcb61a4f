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
    """What a joint choice (N,) is worth, from each agent's use of every resource: for verification, not for a hot path.
    Agents that accept no place and hold none are passed over."""
    option = np.asarray(choice)
    n, r = len(option), len(game.capacity)
    seen = [i for i in range(n) if option[i] or game.ok[i].any()]
    use = {i: _uses(game, i) for i in seen}  # (O, R)
    taken = np.zeros((n, r))
    for i in seen:
        taken[i] = use[i][option[i]]
    used = taken.sum(0)
    limit = game.capacity * (1 + TOLERANCE)
    pays = np.where(option == game.stay, game.preempt, 0.0)
    regret, envy, flat = 0.0, [], not np.any(game.curve)
    for i in seen:
        places = np.flatnonzero(game.ok[i])
        places = places[places > 0]
        pinned = option[i] == game.stay[i] and np.isinf(game.preempt[i])
        if option[i] and not pinned:
            others = used - taken[i]
            fits = places[(others + use[i][places] <= limit).all(-1)]
            if len(fits):
                costs = game.private[i, [option[i], *fits]]
                if not flat:
                    joined = others + use[i][[option[i], *fits]]
                    costs = costs + _curves(game, joined)  # what the others come to is the same for all
                regret = max(regret, float(costs[0] - costs.min()))
        if not option[i]:
            below = np.flatnonzero((option > 0) & (game.rank > game.rank[i]) & np.isfinite(pays))
            for o in places.tolist():
                gives = below[((taken[below] > 0) & (use[i][o] > 0)).any(-1)]
                price = float(pays[gives].sum())
                worth = price == 0 or price < game.private[i, 0] - game.private[i, o]
                if worth and (used - taken[gives].sum(0) + use[i][o] <= limit).all():
                    envy.append((i, o))
    some = game.capacity > 0
    over = np.where(some, used / np.where(some, game.capacity, 1) - 1, np.where(used > 0, np.inf, -1))
    private = sum(float(game.private[i, option[i]]) for i in range(n))
    total = private + float(_curves(game, used[None])[0])
    return PackingVerdict(float(over.max(initial=-1.0)), float(regret), tuple(envy), total)


def _uses(game: Packs, i: int) -> Float:
    """(O, R) what agent i takes on each option."""
    rows = game.rows[i]
    out = np.zeros((len(rows), len(game.capacity) + 1))  # the last column is of legs that are none
    np.add.at(out, (np.arange(len(rows))[:, None], rows), np.where(rows >= 0, game.demand[i], 0.0))
    return out[:, :-1]


def _curves(game: Packs, used: Float) -> Float:
    """(K,) sum over resources of the potential at ``used`` (K, R), straight between the curves' points."""
    steps = game.curve.shape[1] - 1
    share = used / np.where(game.capacity > 0, game.capacity, np.inf)
    x = np.clip(share, 0.0, 1.0) * steps
    low = np.minimum(x.astype(int), steps - 1)
    r = np.arange(used.shape[1])
    return np.asarray((game.curve[r, low] + (x - low) * (game.curve[r, low + 1] - game.curve[r, low])).sum(-1))
