"""What a problem reports: metrics with their folds, and the counts that they are folded from.

``execute`` says what happened in a decision as counts by name, (E,) a world or (E, N) an agent; a :class:`Tally` adds
them up, decision by decision, and folds the sums into the problem's metrics. No domain adds up anything by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
DECISIONS, ELAPSED, REQUESTED = "decisions", "elapsed_s", "requested"  # counted in every problem


class Ratio(NamedTuple):
    """``scale`` times the sum of one count over that of another; of decisions unless said otherwise: a mean."""

    of: str
    per: str = DECISIONS
    scale: float = 1.0


class Jain(NamedTuple):
    """Jain's index over agents of the rate ``part / of``, both counted by agent."""

    part: str
    of: str


class Quantile(NamedTuple):
    """``scale`` times the quantile ``share`` of all values of a count that are no NaN."""

    of: str
    share: float
    scale: float = 1.0


class Last(NamedTuple):
    """``scale`` times the last value of a count."""

    of: str
    scale: float = 1.0


Fold = Ratio | Jain | Quantile | Last


class Metric(NamedTuple):
    """A figure that a problem reports: key, label, unit, which way is better ("higher" | "lower"), and its fold.

    Without a fold it is measured elsewhere, such as the time of a step.
    """

    key: str
    label: str
    unit: str
    better: str
    fold: Fold | None = None

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return 1.0 if self.better == "higher" else -1.0


RAW_VIOLATION = Metric(
    "raw_violation", "resources the raw choice overloads", "%", "lower", Ratio(REQUESTED, scale=100.0)
)  # of every problem that asks a game: what the filter had to mend


class Tally:
    """Counts of E worlds since they were cleared.

    Args:
        metrics: those of a problem; only counts that their folds read are kept. size: E.
    """

    def __init__(self, metrics: Sequence[Metric], size: int) -> None:
        self.metrics = tuple(metric for metric in metrics if metric.fold is not None)
        self.size = size
        self.summed = tuple(dict.fromkeys(name for metric in self.metrics for name in _summed(metric.fold)))
        self.kept = tuple(dict.fromkeys(m.fold.of for m in self.metrics if isinstance(m.fold, Quantile)))
        self.latest = tuple(dict.fromkeys(m.fold.of for m in self.metrics if isinstance(m.fold, Last)))
        self.clear()

    def clear(self) -> None:
        """Begin again at nothing."""
        self.sums: dict[str, Float] = {}
        self.samples: dict[str, list[Float]] = {name: [] for name in self.kept}
        self.last: dict[str, Float] = {}

    def add(
        self, counts: Mapping[str, Any], elapsed_s: Float, requested: Float | None = None, of: Any = None
    ) -> None:  # fmt: skip
        """Take in one decision of every world, or of those ``of`` which (E,) is set.

        Args:
            counts: by name, (E,) or (E, N). elapsed_s: (E,). requested: (E,) share of the resources that the raw choice
                would have overloaded.

        Raises:
            KeyError: a metric folds what was not counted; names both.
        """
        told = {
            **counts, DECISIONS: np.ones(self.size), ELAPSED: elapsed_s,
            REQUESTED: np.zeros(self.size) if requested is None else requested,
        }  # fmt: skip
        for metric in self.metrics:
            for name in _names(metric.fold):
                if name not in told:
                    raise KeyError(
                        f"metric {metric.key!r} folds {name!r}, which execute() does not count; it counts "
                        f"{', '.join(counts) or 'nothing'}"
                    )
        out = None if of is None or of.all() else ~of
        for name in self.summed:
            value = np.asarray(told[name], np.float64)
            if out is not None:
                value = value.copy()
                value[out] = 0.0
            if name in self.sums:
                self.sums[name] += value
            else:
                self.sums[name] = value.copy()
        for name in self.kept:
            values = np.array(told[name], np.float64).reshape(self.size, -1)
            if out is not None:
                values[out] = np.nan
            values = values[:, ~np.isnan(values).all(axis=0)]
            self.samples[name].append(values)
        for name in self.latest:
            before, self.last[name] = self.last.get(name), np.array(told[name], np.float64)
            if out is not None:
                self.last[name][out] = np.nan if before is None else before[out]

    def summary(self) -> dict[str, Float]:
        """(E,) of each metric since the last :meth:`clear`; NaN where it is a mean of nothing."""
        return {metric.key: self._folded(metric.fold) for metric in self.metrics}

    def _folded(self, fold: Fold | None) -> Float:
        none = np.full(self.size, np.nan)
        if isinstance(fold, Ratio):
            return none if fold.of not in self.sums else fold.scale * ratio(self.sums[fold.of], self.sums[fold.per])
        if isinstance(fold, Jain):
            return none if fold.of not in self.sums else jain(self.sums[fold.part], self.sums[fold.of])
        if isinstance(fold, Quantile):
            if not self.samples[fold.of]:
                return none
            values = np.concatenate(self.samples[fold.of], axis=1)
            held = (row[~np.isnan(row)] for row in values)
            return fold.scale * np.array([np.quantile(row, fold.share) if len(row) else np.nan for row in held])
        assert isinstance(fold, Last)
        return none if fold.of not in self.last else fold.scale * self.last[fold.of]

    def state_dict(self) -> dict[str, Any]:
        """All counts, by name."""
        joined = {name: np.concatenate(rows, axis=1) for name, rows in self.samples.items() if rows}
        copies = lambda arrays: {name: value.copy() for name, value in arrays.items()}
        return {"sums": copies(self.sums), "samples": joined, "last": copies(self.last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises:
            ValueError: counts of another problem or number of worlds.
        """
        wanted = {"sums": self.summed, "samples": self.kept, "last": self.latest}
        for part, names in wanted.items():
            for name, value in state[part].items():
                if name not in names or len(value) != self.size:
                    raise ValueError(f"{part}.{name} is not a count of these {self.size} worlds")
        self.clear()
        self.sums = {name: np.array(value) for name, value in state["sums"].items()}
        self.last = {name: np.array(value) for name, value in state["last"].items()}
        for name, value in state["samples"].items():
            self.samples[name] = [np.array(value)]


def ratio(total: Any, count: Any) -> Float:
    """``total / count``, nan where there is nothing to take the mean of."""
    total, count = np.asarray(total, np.float64), np.asarray(count, np.float64)
    return np.asarray(np.where(count > 0, total / np.where(count > 0, count, 1.0), np.nan))


def jain(part: Float, of: Float) -> Float:
    """(E,) Jain's index of the rates ``part / of`` (E, N), of those that asked; nan where none did or none got any.

    Source: Jain, Chiu and Hawe (1984), "A quantitative measure of fairness".
    """
    rate = np.where(of > 0, part / np.where(of > 0, of, 1.0), 0.0)
    return ratio(rate.sum(axis=1) ** 2, (of > 0).sum(axis=1) * (rate**2).sum(axis=1))


def _summed(fold: Fold | None) -> tuple[str, ...]:
    if isinstance(fold, Ratio):
        return fold.of, fold.per
    return (fold.part, fold.of) if isinstance(fold, Jain) else ()


def _names(fold: Fold | None) -> tuple[str, ...]:
    return (fold.of,) if isinstance(fold, Quantile | Last) else _summed(fold)
