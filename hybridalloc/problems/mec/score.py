"""The seed's score of a task, by which classes, prices of being late and what is watched are told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from games.congestion import Bool, Float
from hybridalloc.problems.mec.scenario import Scenario


def score(scenario: Scenario, weights: tuple[float, float, float], told: Callable[[str], NDArray[Any]]) -> Float:
    """(E, N) P = alpha (1 - t_remaining / tau) + beta c / c_max + gamma SLA, terms in [0, 1].

    A task is decided in the slot it comes in, so what is gone of its time is what its queues will take; with
    ``closeness`` tau in this term is the scenario's longest deadline.

    Args:
        weights: alpha, beta, gamma. told: the networks' fields by name.
    """
    alpha, beta, gamma = weights
    most = scenario.bits[1] * scenario.cycles_per_bit[1]
    shortest = told("queue_s").min(axis=1, initial=np.inf)[:, None]
    waited = np.minimum(shortest / told("deadline_s"), 1)
    if scenario.closeness:
        waited = np.clip(1.0 - (told("deadline_s") - shortest) / scenario.deadline_s[1], 0.0, 1.0)
    work = told("task_cycles") / most
    return np.asarray(alpha * waited + beta * np.minimum(work, 1) + gamma * told("sla"))


def above_median(found: Float, active: Bool) -> Bool:
    """(E, N) tasks whose score is above the median of all tasks of the slot in their network."""
    found = np.where(active, found, np.nan)
    pairs = zip(found, active, strict=True)
    middle = np.array([np.median(row[there]) if there.any() else np.inf for row, there in pairs])
    return np.asarray(found > middle[:, None])
