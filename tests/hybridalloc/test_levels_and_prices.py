"""Levels are pulled by what is proposed of them; prices are what more capacity would be worth."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

from hybridalloc import Allocator, make_problem
from tests.hybridalloc.recommenders import Random, Wishful


@pytest.fixture(scope="module")
def problem():
    return make_problem("mec", agents=12, servers=3)


def test_continuous_parts_are_pulled_by_the_proposals_spread(problem):
    """A sure proposal is followed, a vague one ignored, and between them the pull is monotone; always feasible."""
    state = problem.reset(7)
    free = Allocator(problem, "hybrid", Random(2), improve=False).step(state)
    sent = np.flatnonzero((free.option > 0) & (free.fraction > 0))
    powers = []
    for spread in (np.inf, 10.0, 0.3, 1e-6):
        allocation = Allocator(problem, "hybrid", Wishful(spread), improve=False).step(state)
        np.testing.assert_array_equal(allocation.option, free.option)
        assert allocation.certificate.feasible
        powers.append(allocation.power[sent])
    np.testing.assert_array_equal(powers[0], free.power[sent])
    gaps = [np.abs(p - 0.05).mean() for p in powers]
    assert gaps[0] >= gaps[1] > gaps[2] > gaps[3]
    np.testing.assert_allclose(powers[3], 0.05, atol=1e-6)
    np.testing.assert_allclose(
        Allocator(problem, "hybrid", Wishful(1e-6), improve=False).step(state).fraction[sent][:3], 0.7, atol=1e-6
    )
    for_each = Wishful(1e-6)  # the same, for every option: the chosen one's is taken
    flat = for_each.propose
    each = lambda v: np.where((np.arange(4) == free.option[None, :, None])[..., None], v[:, :, None], 9.0)
    for_each.propose = lambda o: (p := flat(o))._replace(mean=each(p.mean), spread=each(p.spread))
    np.testing.assert_array_equal(
        Allocator(problem, "hybrid", for_each, improve=False).step(state).power[sent], powers[3]
    )
    game = Allocator(problem, "hybrid", Wishful(0.1), trust=np.inf).step(state)
    np.testing.assert_array_equal(
        game.power, Allocator(problem, "hybrid", Random(2), trust=np.inf, improve=False).step(state).power
    )


def test_prices_are_the_marginal_worth_of_capacity():
    """Square-root shares cost (sum of w)^2 / C in all; what C (1 + h) saves is h times the price."""
    problem = make_problem("mec", agents=12, servers=3, floors=False, partial=False, power_control=False)
    state = problem.reset(1)
    allocation = Allocator(problem, "game").step(state)
    for k in range(3):
        here = allocation.option == k + 1
        weight = np.sqrt(0.5 / state.deadline_s[here] * state.task_cycles[here])

        def cost(capacity, weight=weight):
            return weight.sum() ** 2 / capacity

        slope = (cost(state.server_hz[k] * (1 - 1e-6)) - cost(state.server_hz[k] * (1 + 1e-6))) / 2e-6
        assert allocation.prices["cpu"][k] == pytest.approx(slope, rel=1e-5)


def test_prices_with_deadline_floors_are_marginal_too():
    """Floors that bind hold their share, the rest pay: differences of the optimum over capacity, both families."""

    from games.shares import delay_shares

    rng = np.random.default_rng(0)
    for _ in range(20):
        weight, where = rng.uniform(0.2, 2, 9), rng.integers(0, 3, 9)
        floor = rng.uniform(0, 0.3, 9)
        for r in range(3):
            total = floor[where == r].sum()
            floor[where == r] *= min(1.0, 0.9 / max(total, 1e-9))
        answer = delay_shares(weight, floor, where, 3)
        for r in range(3):
            here = where == r
            if not here.any():
                continue

            def cost(scale, w=weight[here], low=floor[here]):  # of a capacity times scale: floors shrink to low / scale
                share = delay_shares(w, low / scale, np.zeros(len(w), int), 1).share
                return (w**2 / (share * scale)).sum()

            slope = (cost(1 - 1e-5) - cost(1 + 1e-5)) / 2e-5
            assert answer.price[r] == pytest.approx(slope, rel=1e-3)


def test_levels_are_those_that_the_problem_names(problem):
    """mec has power and fraction, custom power alone; read by name, kept by copies, written to JSON by their names."""
    allocation = Allocator(problem).step(problem.reset(2))
    assert list(allocation.levels) == ["power", "fraction"] and allocation.power is allocation.levels["power"]
    custom = make_problem("custom", work=[1.0, 2.0], capacity=[4.0], full_power_w=[[3.0], [2.0]])
    other = Allocator(custom, "game").step(custom.start)
    assert list(other.levels) == ["power"] and list(Allocator(custom, budget_ms=0).step(custom.start).levels) == [
        "power"
    ]
    with pytest.raises(AttributeError, match="an allocation has no 'fraction'; its levels are: power"):
        other.fraction  # noqa: B018
    assert "fraction" in str(allocation) and "fraction" not in str(other) and "power (W)" in str(other)
    for one in (pickle.loads(pickle.dumps(allocation)), copy.deepcopy(allocation), replace(allocation, trust=1.0)):
        np.testing.assert_array_equal(one.power, allocation.power)
    told = allocation.to_dict()
    assert told["power"] == allocation.power.tolist() and told["fraction"] == allocation.fraction.tolist()
    assert "fraction" not in other.to_dict()
