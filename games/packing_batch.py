"""E packing games of one shape side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from games.congestion import Bool, Float, Int
from games.packing import Packing


class PackingBatch(NamedTuple):
    """The arrays of :class:`games.packing.Packing` with an axis E in front; live (E, N): has something to decide.

    Who is not live accepts no place, at no cost.
    """

    rows: Int
    demand: Float
    capacity: Float
    curve: Float
    private: Float
    ok: Bool
    rank: Int
    stay: Int
    preempt: Float
    live: Bool

    @property
    def allowed(self) -> Bool:
        """(E, N, O) places that are accepted, and opting out."""
        allowed = self.ok.copy()
        allowed[..., :1] = True
        return allowed

    def single(self, e: int = 0) -> Packing:
        """Game ``e`` by itself."""
        return Packing(*(part[e] for part in self[:-1]))


def side_by_side(games: Sequence[Packing], live: Bool) -> PackingBatch:
    """Games of one shape as a batch."""
    parts = {name: np.stack([getattr(game, name) for game in games]) for name in Packing._fields}
    return PackingBatch(**parts, live=live)
