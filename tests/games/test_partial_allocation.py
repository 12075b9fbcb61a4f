"""Partial allocation: nobody gains by a lie, everyone keeps more than 1/e; the plain market is gained from."""

from __future__ import annotations

import numpy as np
import pytest

from games.errors import InvalidStateError
from games.market import eisenberg_gale
from games.partial_allocation import partial_allocation


def drawn(seed, n, k):
    rng = np.random.default_rng(seed)
    value = rng.lognormal(0.0, 1.0, (n, k)) * (rng.random((n, k)) < 0.8)
    value[value.sum(axis=1) == 0, 0] = 1.0
    return value, rng.uniform(0.5, 2.0, n), rng.uniform(0.5, 3.0, k), rng


def gains(mechanism, value, budget, capacity, i, lies):
    """What agent ``i`` gains, by its own true values, by each report in place of the truth."""
    truly = (value[i] * mechanism(value, budget, capacity, tolerance=1e-9).share[i]).sum()
    out = []
    for lie in lies:
        told = value.copy()
        told[i] = lie
        out.append((value[i] * mechanism(told, budget, capacity, tolerance=1e-9).share[i]).sum() / truly - 1.0)
    return np.array(out)


@pytest.mark.parametrize("seed", range(6))
def test_no_lie_gains(seed):
    value, budget, capacity, rng = drawn(seed, 2 + seed % 3, 2 + seed % 2)
    spreads, k = np.repeat([0.1, 0.3, 1.0, 3.0], 8), value.shape[1]
    grid = [value[0] * rng.lognormal(0.0, s, k) + 1e-6 for s in spreads]
    grid += [row + 1e-6 for row in np.eye(k)]  # wants one resource alone
    assert gains(partial_allocation, value, budget, capacity, 0, grid).max() <= 1e-6


def test_the_market_itself_is_gained_from():
    value, one = np.array([[0.6, 0.4], [0.1, 0.9]]), np.ones(2)
    lie = [np.array([w, 1 - w]) for w in np.linspace(0.05, 0.95, 19)]
    assert gains(eisenberg_gale, value, one, one, 0, lie).max() > 0.1
    assert gains(partial_allocation, value, one, one, 0, lie).max() <= 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_what_is_kept_is_feasible_and_more_than_one_in_e(seed):
    value, budget, capacity, _ = drawn(seed, 6, 3)
    found = partial_allocation(value, budget, capacity)
    assert found.converged and found.gap <= 1e-9
    assert (found.share.sum(axis=0) <= capacity * (1 + 1e-9)).all()
    assert (found.fraction > np.exp(-1)).all() and (found.fraction <= 1.0).all()
    np.testing.assert_allclose(found.utility, (value * found.share).sum(axis=1))


def test_two_who_want_the_same_keep_half_of_their_half():
    """u_j is 1 alone and 1/2 together: each keeps 1/2 of its half."""
    found = partial_allocation(np.ones((2, 1)), np.ones(2), np.ones(1))
    np.testing.assert_allclose(found.share[:, 0], [0.25, 0.25], rtol=1e-6)


def test_who_is_alone_keeps_all_and_who_values_nothing_gets_nothing():
    found = partial_allocation(np.array([[1.0, 2.0], [0.0, 0.0]]), np.ones(2), np.array([3.0, 4.0]))
    np.testing.assert_allclose(found.share, [[3.0, 4.0], [0.0, 0.0]], rtol=1e-6)
    assert found.fraction.tolist() == [1.0, 1.0]
    with pytest.raises(InvalidStateError, match=r"budget\[1\] = -1.0"):
        partial_allocation(np.ones((2, 1)), np.array([1.0, -1.0]), np.ones(1))
