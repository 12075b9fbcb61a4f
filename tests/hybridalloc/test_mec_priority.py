"""Whom mec's score prefers, by closeness of the deadline too, and how completion is told apart by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hybridalloc import make_problem
from hybridalloc.problems.mec.audit import _rank
from hybridalloc.problems.mec.problem import METRICS, Mec


def test_closeness_counts_towards_the_longest_deadline():
    """By hand: of a longest deadline of 50 ms one of 20 ms with 5 ms of queue has 15 ms left: 1 - 15 / 50 = .7."""
    problem = make_problem("mec", agents=3, servers=2, scenario="S", priority=(1.0, 0.0, 0.0), closeness=True)
    state = replace(problem.reset(0), deadline_s=np.array([0.02, 0.05, 0.015]), queue_s=np.array([0.005, 0.009]))
    np.testing.assert_allclose(problem.world_at(state).priority()[0], [0.7, 0.1, 0.8])
    own = replace(problem, scenario=replace(problem.scenario, closeness=False))
    np.testing.assert_allclose(own.world_at(state).priority()[0], [0.25, 0.1, 1 / 3])


@pytest.mark.parametrize("closeness", [False, True])
def test_the_certificate_ranks_by_the_same_score(closeness):
    problem = make_problem(
        "mec", agents=20, servers=3, priority=(0.4, 0.3, 0.3), priority_gap=0.05, closeness=closeness
    )
    for seed in range(3):
        state = problem.reset(seed)
        state = replace(state, queue_s=np.random.default_rng(seed).uniform(0.001, 0.02, 3))
        np.testing.assert_array_equal(_rank(problem, state), problem.world_at(state).classes()[0])


def test_completion_is_told_apart_by_the_watched_score():
    """Above the median of the tasks of the slot and network, and the rest: each task is in one of the two."""
    problem = make_problem("mec", agents=12, servers=2, watched=(0.0, 1.0, 0.0))
    world = problem.worlds([3, 4])
    for _ in range(3):
        active, cycles = world.active.copy(), world.world.task_cycles.copy()
        plan = world.settle(world.baseline("nearest", np.random.default_rng(0)), problem.card.prices())
        counts = world.execute(plan).counts
        high = [sum(c > np.median(row[on]) for c in row[on]) for row, on in zip(cycles, active, strict=True)]
        np.testing.assert_array_equal(counts["generated_high"], high)
        for name in ("generated", "done"):
            np.testing.assert_array_equal(counts[f"{name}_high"] + counts[f"{name}_low"], counts[name])
        world.drift()


def test_only_who_watches_has_the_metrics():
    plain, watching = make_problem("mec", agents=4, servers=2), make_problem("mec", watched=(0.0, 0.0, 1.0))
    assert plain.card.metrics == METRICS
    assert [m.key for m in watching.card.metrics[len(METRICS) :]] == ["completion_high", "completion_low"]
    assert not {"closeness", "watched"} & plain.describe()["scenario"].keys()  # written as before they were there
    assert Mec.restore(watching.describe()) == watching
