r"""Drift: is what the recommender sees still what it was trained on?

In training :class:`Ranges` notes each feature's distribution over live agents (a uniform sample of rows, Vitter's
reservoir); saved with the policy are the .001 and .999 quantiles of each. In use the *score* is the share of
feature values outside their range widened by a tenth, averaged over steps: well below a hundredth on what was
trained on.

The rule. Trust multiplies the game's cost, so to distrust the recommender is to *raise* trust:

.. math:: trust' = trust / (1 - d), \quad d = clip((score - .01) / (.05 - .01), 0, 1)

so up to a score of 1 % nothing changes, and from 5 % on the game decides alone (trust' = inf). The bound limit / trust'
only gets tighter.

Source: Vitter (1985), "Random sampling with a reservoir", algorithm R.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl.proposal import Observation

KINDS = ("agent", "resource", "pair")
LOW, HIGH = 0.01, 0.05  # scores at which trust starts to rise, and at which the recommender is left out
WIDEN = 0.1


class Ranges:
    """Notes the range of every feature in training.

    Args:
        keep: rows of each kind that the reservoir holds. seed: of the sample.
    """

    def __init__(self, keep: int = 4096, seed: int = 0) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep}; the reservoir holds at least one row")
        self.keep, self._rng = keep, np.random.default_rng([seed, 11])
        self._rows: dict[str, NDArray[np.float32]] = {}
        self._seen = dict.fromkeys(KINDS, 0)

    def update(self, observation: Observation) -> None:
        """Take in what the recommender sees in E situations."""
        for kind, rows in _rows(observation).items():
            if not len(rows):
                continue
            held = self._rows.get(kind)
            if held is None:
                held = self._rows[kind] = np.zeros((0, rows.shape[1]), np.float32)
            room = min(self.keep - len(held), len(rows))
            if room:
                self._rows[kind] = held = np.concatenate([held, rows[:room]])
            late = rows[room:]
            rank = self._seen[kind] + room + 1 + np.arange(len(late))
            place = (self._rng.random(len(late)) * rank).astype(np.int64)
            taken = place < self.keep
            held[place[taken]] = late[taken]
            self._seen[kind] += len(rows)

    def bounds(self) -> dict[str, NDArray[np.float32]]:
        """(2, features) lowest and highest by kind: what a policy's :class:`rl.policy.Notes` keep."""
        return {k: np.quantile(rows, (0.001, 0.999), axis=0).astype(np.float32) for k, rows in self._rows.items()}

    def state_dict(self) -> dict[str, Any]:
        """All of it, the random state too: training that goes on from it notes the same rows."""
        return {"rows": dict(self._rows), "seen": dict(self._seen), "rng": json.dumps(self._rng.bit_generator.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows = {kind: np.array(rows, np.float32) for kind, rows in state["rows"].items()}
        self._seen = {kind: int(count) for kind, count in state["seen"].items()}
        self._rng.bit_generator.state = json.loads(state["rng"])


class DriftWatch:
    """Scores observations against the ranges that a policy's notes keep, and raises trust by the rule above.

    Args:
        ranges: by kind, as :meth:`Ranges.bounds` gives them; empty where none were noted.
        keep: weight of the old score at each step.

    Attributes:
        level: the running score, a share in [0, 1].
    """

    def __init__(self, ranges: Mapping[str, NDArray[np.float32]], keep: float = 0.9) -> None:
        self.low: dict[str, NDArray[np.float32]] = {}
        self.high: dict[str, NDArray[np.float32]] = {}
        for kind in KINDS:
            if kind in ranges:
                low, high = np.asarray(ranges[kind], np.float32)
                margin = np.maximum(WIDEN * (high - low), 1e-3)
                self.low[kind], self.high[kind] = low - margin, high + margin
        self.keep, self.level = keep, 0.0  # nothing is suspected before it is seen

    @property
    def active(self) -> bool:
        """Whether there are ranges to compare with."""
        return bool(self.low)

    def score(self, observation: Observation) -> float:
        """Share of values out of range, the mean over features of live agents, resources and pairs; in [0, 1]."""
        shares = []
        for kind, rows in _rows(observation).items():
            if kind in self.low and rows.shape[1] == len(self.low[kind]) and len(rows):
                out = (rows < self.low[kind]) | (rows > self.high[kind]) | np.isnan(rows)
                shares.extend(out.mean(axis=0).tolist())
        return float(np.mean(shares)) if shares else 0.0

    def update(self, observation: Observation) -> float:
        """Take in one step; returns the running score."""
        self.level = self.keep * self.level + (1 - self.keep) * self.score(observation)
        return self.level

    def distrust(self) -> float:
        """d in [0, 1] of the rule."""
        return float(np.clip((self.level - LOW) / (HIGH - LOW), 0.0, 1.0))

    def trust(self, trust: float) -> float:
        """The trust to use where ``trust`` was set: at least as large. Pure RL (0) stays what was asked for."""
        d = self.distrust()
        return trust if d == 0.0 or trust == 0.0 else (float("inf") if d == 1.0 else trust / (1.0 - d))


def _rows(observation: Observation) -> dict[str, NDArray[np.float32]]:
    """Feature vectors that the recommender reads, one a row: of live agents, of all resources, of live pairs."""
    live = observation.live
    pair = observation.pair[live]
    return {
        "agent": observation.agent[live],
        "resource": observation.resource.reshape(-1, observation.resource.shape[-1]),
        "pair": pair.reshape(-1, pair.shape[-1]),
    }
