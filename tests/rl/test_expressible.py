"""What value decomposition can say of a payoff table, against closed forms and convex programmes over all orders."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from rl.expressible import additive, monotone, off

sys.path.insert(0, str(Path(__file__).parent))
from payoffs import CLIMBING, MONOTONE, best_monotone_fit


def test_a_table_that_grows_in_both_is_said_exactly_and_a_sum_by_both():
    rng = np.random.default_rng(0)
    shuffled = MONOTONE[np.ix_([2, 0, 1], [1, 2, 0])][None]
    fit = monotone(shuffled)
    assert fit.error[0] < 1e-6 and fit.regret[0] == 0 and shuffled[0, fit.first[0], fit.second[0]] == 2.0
    sums = rng.normal(size=(20, 5, 1)) + rng.normal(size=(20, 1, 4))
    for made in (additive(sums), monotone(sums)):
        assert made.error.max() < 1e-9 and made.regret.max() == 0


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_monotone_fit_is_that_of_the_convex_programmes(seed):
    table = CLIMBING if seed is None else np.random.default_rng(seed).normal(size=(3, 3))
    loss, _ = best_monotone_fit(table)
    assert monotone(table[None]).error[0] ** 2 == pytest.approx(loss, rel=1e-4)


def test_an_isotonic_fit_in_given_orders_is_the_convex_programmes():
    import cvxpy as cp

    rng = np.random.default_rng(3)
    table, a, b = rng.normal(size=(6, 5)), rng.permutation(6), rng.permutation(5)
    fit = cp.Variable((6, 5))
    error = cp.sum_squares(fit - table[np.ix_(a, b)])
    found = cp.Problem(cp.Minimize(error), [cp.diff(fit, axis=0) >= 0, cp.diff(fit, axis=1) >= 0])
    assert off(table, a, b) == pytest.approx(found.solve(solver=cp.CLARABEL), rel=1e-5)


def test_the_climbing_game_is_said_by_neither():
    for fit in (additive(CLIMBING[None]), monotone(CLIMBING[None])):
        assert fit.regret[0] > 0  # 11 is not what is played
