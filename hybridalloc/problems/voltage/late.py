"""What was told and waits for its truth, and what an error of loads makes of voltages: what beliefs learn from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from games.congestion import Bool, Float, Int
from hybridalloc.problems.voltage.belief import Told
from hybridalloc.problems.voltage.feeder import Feeder


class Late:
    """What E worlds were told in the last ``age`` steps, until the truth of it comes in."""

    def __init__(self, size: int, age: int, features: int, readings: int, inverters: int) -> None:
        room = age if features else 0
        self.feature, self.reading = np.zeros((size, room, features)), np.zeros((size, room, readings))
        self.hour, self.step = np.zeros((size, room), np.int64), np.zeros((size, room), np.int64)
        self.surprise = np.zeros((size, room, inverters))
        self.known = np.zeros((size, room), bool)

    def turn(self, step: Int, told: Told) -> tuple[Told, Bool]:
        """Keep what is told at ``step`` (E,); what was kept ``age`` steps before, and of which worlds."""
        e, at = np.arange(len(step)), step % self.known.shape[1]
        then = self.known[e, at] & (self.step[e, at] == step - self.known.shape[1])
        due = Told(*(part[e, at][then] for part in self._parts))
        self.feature[e, at], self.reading[e, at], self.hour[e, at], self.surprise[e, at] = told
        self.step[e, at], self.known[e, at] = step, True
        return due, then

    def rest(self, which: Bool) -> Iterator[tuple[Int, Told]]:
        """All that is kept of worlds ``which`` (E,), with its steps, world by world."""
        for e in np.flatnonzero(which & self.known.any(axis=1)):
            kept = self.known[e]
            yield self.step[e][kept], Told(*(part[e][kept] for part in self._parts))

    @property
    def _parts(self) -> Told:
        return Told(self.feature, self.reading, self.hour, self.surprise)


def path_drop(net: Feeder, p: Float, q: Float) -> Float:
    """(E, B) rise of voltage drops, p.u., with loads (E, B), MW and Mvar: summed up the tree, then down its paths."""
    below = np.stack([p, q]).copy()
    for k in range(net.size - 1, 0, -1):
        below[:, :, net.parent[k]] += below[:, :, k]
    out = np.zeros(p.shape)
    for k in range(1, net.size):
        out[:, k] = out[:, net.parent[k]] + net.r[k] * below[0, :, k] + net.x[k] * below[1, :, k]
    return out
