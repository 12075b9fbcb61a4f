r"""What ``voltage``'s operator believes of loads that it reads late: ridge regression of net loads, learned online.

What has changed since the reading, :math:`P(t) - P(t - a)` and Q likewise, is regressed on what is known now: the
inverters' voltages, reactive power and sun of the last two steps and their sun now and a day ago, the readings, those a
step and a week older, the hour and the season. It is told the truth when the reading comes in, a steps later, and
learns from it then.

Its errors persist: by what the inverters' voltages were off a step ago, on the exact flow and with what they did, its
loads are corrected, by a second regression of what the first leaves. How far it is off in the end is kept, by hour, as
the spread of each bus's voltage that its errors would have made, wider where the last voltages were further off.

Voltages are read with the inverters' own part counted off, v - X q: what was done to them is no feature of the loads.

Source: Hoerl and Kennard (1970), "Ridge regression".
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np

from games.congestion import Float, Int

RIDGE = 30.0  # examples' worth of pull towards no change
EVERY = 1024  # examples between two solutions
LEAST = 4.0  # examples a feature before anything is believed but the reading
HOURS = 24
ARRAYS = ("square", "cross", "weight", "again", "left", "gain", "widen", "off", "seen", "errors")
RECENT = 200.0  # examples of an hour by which its spread is kept up to date


class Told(NamedTuple):
    """What a world knows as features (E, F), the readings that they start from (E, 2 B), the time of day, and by what
    the inverters' last voltages were above those believed (E, N), p.u., 0 where that is not known."""

    feature: Float
    reading: Float
    hour: Int
    surprise: Float


class RidgeBelief:
    """Net loads now, (E, 2 B), from old readings.

    Args:
        seed: has no effect: nothing is drawn. learning: False freezes it.
    """

    name, label, learns = "learned", "learned beliefs", True
    default_trust = 5.0

    def __init__(self, seed: int = 0, *, learning: bool = True) -> None:
        self.seed, self.learning = seed, learning
        self.count = self.since = 0
        self.square = np.zeros((0, 0))  # sums over examples of z z', z = (features, 1)
        self.cross = np.zeros((0, 0))  # of z y'
        self.weight = np.zeros((0, 0))  # (F + 1, 2 B), of raw features
        self.again = np.zeros((0, 0))  # sums of s s', s = surprises
        self.left = np.zeros((0, 0))  # of s times what the first regression leaves
        self.gain = np.zeros((0, 0))  # (N, 2 B), of surprises
        self.widen = np.zeros(5)  # sums of 1, u, u^2, y, u y: u mean squared surprise, y error, over that of the hour
        self.off = np.zeros((HOURS, 0))  # mean squared error of voltages, by hour
        self.seen = np.zeros(HOURS)
        self.errors = np.zeros(2)  # squared errors of loads: of the reading, of the belief

    # --- what it says

    def expect(self, told: Told) -> Float:
        """(E, 2 B) believed net loads now, MW then Mvar."""
        if not self.weight.size:
            return told.reading
        first = self._first(told)
        return np.asarray(first + told.surprise @ self.gain) if self.gain.size else first

    def _first(self, told: Told) -> Float:
        z = np.concatenate([told.feature, np.ones((len(told.feature), 1))], axis=1)
        return np.asarray(told.reading + z @ self.weight)

    def spread(self, told: Told, buses: int) -> Float:
        """(E, B) standard deviation of the voltages, p.u., that its errors would have made."""
        if not self.off.size:
            return np.zeros((len(told.hour), buses))
        usual = self._usual(told.hour)
        return np.asarray(np.sqrt(usual * self._width(told, usual)[:, None]))

    def _usual(self, hour: Int) -> Float:
        """(E, B) mean squared errors of the hour."""
        count = np.maximum(self.seen, 1)[:, None]
        whole = self.off.sum(0) / max(float(self.seen.sum()), 1.0)
        few = 20.0  # examples by which an hour of few leans on all
        return np.asarray(((self.off + few * whole) / (count + few))[hour])

    def _width(self, told: Told, usual: Float) -> Float:
        """(E,) squared errors expected over those of the hour: a line in the squared surprise, that does not fall."""
        n, u, square, y, both = self.widen
        if n < LEAST * HOURS or not square * n > u * u:
            return np.ones(len(usual))
        slope = max((both - u * y / n) / (square - u * u / n), 0.0)
        return np.maximum((y - slope * u) / n + slope * _unlike(told, usual), 0.25)

    # --- how it learns

    def reveal(self, told: Told, truth: Float, voltage_of: Any) -> None:
        """Examples whose truth (E, 2 B) has come in; ``voltage_of`` says what an error (E, 2 B) makes of voltages."""
        if not self.learning or not len(truth):
            return
        f, y, n = told.feature.shape[1], truth - told.reading, told.surprise.shape[1]
        if not self.square.size:
            self.again, self.left = np.zeros((n, n)), np.zeros((n, y.shape[1]))
            self.square, self.cross = np.zeros((f + 1, f + 1)), np.zeros((f + 1, y.shape[1]))
        if self.weight.size:  # before it learns from them: what it would have been off by
            wrong = truth - self.expect(told)
            apart = voltage_of(wrong)
            if not self.off.size:
                self.off = np.zeros((HOURS, apart.shape[1]))
            fresh = np.bincount(told.hour, minlength=HOURS)
            kept = np.maximum(1.0 - fresh / RECENT, 0.0)
            self.off *= kept[:, None]
            self.seen *= kept
            np.add.at(self.off, told.hour, apart**2)
            np.add.at(self.seen, told.hour, 1.0)
            known = told.surprise.any(axis=1)
            usual = self._usual(told.hour)
            u, more = _unlike(told, usual)[known], (apart**2).mean(1)[known] / np.maximum(usual.mean(1), 1e-12)[known]
            u, more = np.minimum(u, 25.0), np.minimum(more, 25.0)  # one collapse is not to teach it all
            self.widen += [known.sum(), u.sum(), (u**2).sum(), more.sum(), (u * more).sum()]
            self.again += told.surprise.T @ told.surprise
            self.left += told.surprise.T @ (truth - self._first(told))
            self.errors += [float((y**2).mean(1).sum()), float((wrong**2).mean(1).sum())]
        z = np.concatenate([told.feature, np.ones((len(y), 1))], axis=1)
        self.square += z.T @ z
        self.cross += z.T @ y
        self.count += len(y)
        self.since += len(y)
        if self.count >= LEAST * len(self.square) and (self.since >= EVERY or not self.weight.size):
            self.solve()

    def solve(self) -> None:
        """The ridge regression of all that it was shown, features in units of their own spread."""
        self.since = 0
        n = self.count
        mean = self.square[-1, :-1] / n
        scale = np.sqrt(np.maximum(self.square.diagonal()[:-1] / n - mean**2, 0.0)) + 1e-9
        # centred and scaled moments from the raw ones
        A = (self.square[:-1, :-1] - n * np.outer(mean, mean)) / np.outer(scale, scale)
        level = self.cross[-1] / n
        b = (self.cross[:-1] - np.outer(mean, self.cross[-1])) / scale[:, None]
        inner = np.linalg.solve(A + RIDGE * np.eye(len(mean)), b) / scale[:, None]
        self.weight = np.concatenate([inner, (level - mean @ inner)[None]])
        if len(self.again) and self.again.any():
            pull = RIDGE * np.trace(self.again) / (len(self.again) * max(self.widen[0], 1.0))
            self.gain = np.linalg.solve(self.again + pull * np.eye(len(self.again)), self.left)

    # --- as every belief

    def copy(self, learning: bool = True) -> Self:
        other = type(self)(self.seed, learning=learning)
        other.load_state_dict(self.state_dict())
        return other

    def figures(self) -> dict[str, float]:
        if not self.errors[0] > 0:
            return {}
        return {"belief_error": float(np.sqrt(self.errors[1] / self.errors[0]))}  # of the reading's own

    def settings(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def state_dict(self) -> dict[str, Any]:
        numbers = {"count": np.array(self.count), "since": np.array(self.since)}
        return {name: getattr(self, name).copy() for name in ARRAYS} | numbers

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ARRAYS:
            setattr(self, name, np.array(state[name], np.float64))
        self.count, self.since = int(state["count"]), int(state["since"])


def _unlike(told: Told, usual: Float) -> Float:
    """(E,) mean squared surprise over the hour's mean squared error."""
    return np.asarray((told.surprise**2).mean(1) / np.maximum(usual.mean(1), 1e-12))


BELIEFS: dict[str, type[RidgeBelief]] = {"learned": RidgeBelief}
