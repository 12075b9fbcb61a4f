"""Figures of a method in a stored comparison, as matrices (training seeds, reporting seeds); NaN where none is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Read = Callable[[Mapping[str, Any], str, str], Matrix]  # comparison, method, key of the column
NOTHING = np.full((1, 1), np.nan)
SHARE = 0.95  # of what is earned at the end, from which on a learner has converged


def metric(comparison: Mapping[str, Any], method: str, key: str) -> Matrix:
    """A metric's values."""
    values: dict[str, Any] = next((m["values"] for m in comparison["methods"] if m["key"] == method), {})
    found = np.atleast_2d(np.asarray(values.get(key, []), dtype=np.float64))
    return found if found.size else NOTHING


def evenness(comparison: Mapping[str, Any], method: str, key: str) -> Matrix:
    """Completion of the half that does worse over that of the half that does better: 1 is equal."""
    high, low = (metric(comparison, method, name) for name in ("completion_high", "completion_low"))
    top = np.fmax(high, low)
    return np.asarray(np.where(top > 0, np.fmin(high, low) / np.where(top > 0, top, 1.0), np.nan))


def checks(comparison: Mapping[str, Any], method: str) -> tuple[Matrix, Matrix]:
    """Agent-steps (C,) and what the policy earned there (T, C), on the same worlds at every check of its training."""
    curve = next((c for c in comparison.get("curves", ()) if c["method"] == method), None)
    if curve is None:
        return np.empty(0), np.empty((0, 0))
    return np.asarray(curve["steps"], np.float64), np.asarray(curve["values"], np.float64)


def converged(comparison: Mapping[str, Any], method: str, key: str) -> Matrix:
    """(T, 1) agent-steps from which on no check is below ``SHARE`` of what the last one earned, in thousands."""
    steps, earned = checks(comparison, method)
    if not earned.size:
        return NOTHING
    found = []
    for row in earned:
        below = np.flatnonzero(~(row >= row[-1] - (1 - SHARE) * abs(row[-1])))
        found.append(steps[below[-1] + 1] if len(below) else steps[0])
    return np.array(found)[:, None] / 1e3


def wavering(comparison: Mapping[str, Any], method: str, key: str) -> Matrix:
    """(T, 1) standard deviation of what the policy earned over the checks of the second half of its training."""
    steps, earned = checks(comparison, method)
    late = steps >= 0.5 * steps[-1] if len(steps) else np.zeros(0, bool)
    if late.sum() < 2:
        return NOTHING
    return np.asarray(earned[:, late].std(axis=1, ddof=1)[:, None])
