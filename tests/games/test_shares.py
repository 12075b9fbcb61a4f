"""Delay and square-root shares against cvxpy, closed forms and infeasible floors."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games import InvalidStateError, delay_shares, square_root_shares
from games.certificate import check_capacity, check_limit
from games.reference import delay_shares as cvxpy_shares

seeds = st.integers(0, 2**32 - 1)


def test_square_root_rule_by_hand():
    found = square_root_shares([1.0, 3.0, 2.0, 5.0], [0, 0, 1, -1], 3)
    assert found.share.tolist() == [0.25, 0.75, 1.0, 0.0]
    assert found.price.tolist() == [16.0, 4.0, 0.0]
    assert found.status == "optimal"


def test_against_cvxpy(rng):
    for _ in range(60):
        n = int(rng.integers(1, 9))
        w = rng.uniform(0.1, 3, n)
        floor = rng.dirichlet(np.ones(n)) * rng.uniform(0, 0.999) * (rng.random(n) < 0.7)
        _, objective = cvxpy_shares(w, floor)
        found = delay_shares(w, floor, np.zeros(n, int), 1)
        assert found.served.all()
        assert (found.share >= floor - 1e-12).all()
        assert found.share.sum() <= 1 + 1e-12
        assert found.gap <= 1e-12
        assert (w**2 / found.share).sum() == pytest.approx(objective, rel=1e-8)


def test_price_is_the_slope_of_the_objective(rng):
    for _ in range(30):
        n = 6
        w, floor = rng.uniform(0.1, 3, n), rng.dirichlet(np.ones(n)) * 0.8 * (rng.random(n) < 0.5)
        where = np.zeros(n, int)
        price = delay_shares(w, floor, where, 1).price[0]
        h = 1e-6
        # capacity 1 + h: floors as fractions shrink, and fractions count for more
        grown = (w**2 / (delay_shares(w, floor / (1 + h), where, 1).share * (1 + h))).sum()
        shrunk = (w**2 / (delay_shares(w, floor / (1 - h), where, 1).share * (1 - h))).sum()
        assert (shrunk - grown) / (2 * h) == pytest.approx(price, rel=1e-4)


def test_wide_spread_of_weights(rng):
    for _ in range(100):
        n = 30
        w = rng.lognormal(0, 8, n)
        floor = rng.dirichlet(np.full(n, 0.1)) * 0.99
        found = delay_shares(w, floor, np.zeros(n, int), 1)
        assert found.served.all()
        assert (found.share >= floor * (1 - 1e-12)).all()
        assert found.share.sum() <= 1 + 1e-12
        # KKT: one level nu for all whose floor does not bind
        free = found.share > floor * (1 + 1e-9) + 1e-300
        level = found.share[free] / w[free]
        assert np.ptp(level) <= 1e-9 * level.max()
        assert (found.share[~free] >= level.max() * w[~free] * (1 - 1e-9)).all()


def test_floors_whose_sum_rounds_above_one_are_served(rng):
    rounded = 0
    for _ in range(200):
        floor = rng.dirichlet(np.ones(11))
        rounded += sum(floor.tolist()) > 1.0
        found = delay_shares(np.ones(11), floor, np.zeros(11, int), 1)
        assert found.status == "optimal"
        assert np.allclose(found.share, floor, rtol=1e-11)
        assert found.share.sum() <= 1 + 1e-12
    assert rounded > 10


def test_floors_that_fill_the_resource_exactly_are_served():
    found = delay_shares(np.ones(10), np.full(10, 0.1), np.zeros(10, int), 1)
    assert found.served.all()
    assert found.status == "optimal"
    assert np.allclose(found.share, 0.1)
    assert found.price == pytest.approx([100.0])
    assert found.shortfall[0] == pytest.approx(0.0, abs=1e-12)


def test_infeasible_floors_name_who_cannot_be_served_and_the_shortfall():
    found = delay_shares([1.0, 1.0, 1.0, 1.0], [0.5, 0.4, 0.3, 0.9], [0, 0, 0, 1], 2, priority=[1, 3, 2, 0])
    assert found.status == "infeasible"
    assert found.served.tolist() == [False, True, True, True]
    assert found.shortfall == pytest.approx([0.2, 0.0])
    assert (found.share[[1, 2]] >= [0.4 - 1e-12, 0.3 - 1e-12]).all()
    assert found.share[:3].sum() <= 1 + 1e-12


def test_floor_above_one_is_never_served_but_others_are():
    found = delay_shares([1.0, 1.0], [1.5, 0.2], [0, 0], 1)
    assert found.served.tolist() == [False, True]
    assert found.shortfall[0] == pytest.approx(0.7)


def test_zero_weight_gets_its_floor_only():
    found = delay_shares([0.0, 1.0, 0.0], [0.2, 0.0, 0.0], [0, 0, 0], 1)
    assert found.share == pytest.approx([0.2, 0.8, 0.0])


@pytest.mark.parametrize(
    ("floor", "share"),
    [([0, 0], [0.5, 0.5]), ([0.7, 0.1], [0.7, 0.3]), ([0.2, 0.1], [0.5, 0.5]), ([0.25, 0.75], [0.25, 0.75])],
)
def test_weights_that_are_all_zero_share_equally_above_the_floors(floor, share):
    """The limit of weights that go to 0 together: one level for all whose floor does not bind, at price 0."""
    found = delay_shares([0.0, 0.0], floor, [0, 0], 1)
    assert found.share == pytest.approx(share, abs=1e-15)
    assert found.price.tolist() == [0.0]
    assert found.served.all()
    assert found.gap == 0.0
    near = delay_shares([1e-9, 1e-9], floor, [0, 0], 1)
    assert near.share == pytest.approx(found.share, abs=1e-12)


def test_one_resource_without_weights_leaves_the_others_as_they_are(rng):
    for _ in range(50):
        w, floor = rng.uniform(0.1, 2, 12), rng.dirichlet(np.ones(12)) * 0.9
        where = rng.integers(-1, 3, 12)
        plain = delay_shares(w, floor, where, 3)
        idle = delay_shares(np.where(where == 1, 0.0, w), floor, where, 3)
        here = where == 1
        assert np.array_equal(idle.share[~here], plain.share[~here])
        assert (idle.share >= floor * (1 - 1e-12))[where >= 0].all()
        if here.any():
            assert idle.share[here].sum() == pytest.approx(1.0)
            assert (idle.share[here] > 0).all()


def test_weights_of_zero_that_are_not_admitted_share_what_is_left():
    found = delay_shares([0.0, 0.0, 0.0], [0.6, 0.7, 0.0], [0, 0, 0], 1, priority=[1, 2, 0])
    assert found.served.tolist() == [False, True, True]
    assert found.share == pytest.approx([0.15, 0.7, 0.15])


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e-12, 1e12, 1e150, 1e300])
def test_shares_do_not_depend_on_the_weights_unit(scale, rng):
    w, floor, where = np.array([1.0, 2.0, 4.0, 1.0]), np.array([0.0, 0.3, 0.0, 0.9]), np.array([0, 0, 0, 1])
    plain, scaled = delay_shares(w, floor, where, 2), delay_shares(w * scale, floor, where, 2)
    assert scaled.share == pytest.approx(plain.share, rel=1e-12)
    assert scaled.gap <= 1e-12
    with np.errstate(over="ignore", under="ignore"):
        assert scaled.price == pytest.approx(plain.price * scale * scale, rel=1e-9)
    many = 40
    apart = np.append(np.full(many, scale), 1.0)
    both = delay_shares(apart, np.append(np.full(many, 0.01), 0.05), np.zeros(many + 1, int), 1)
    assert (both.share >= 0.01 * (1 - 1e-12)).all()
    assert both.share.sum() == pytest.approx(1.0)


def test_floors_that_fit_are_honoured_in_any_order_and_unit(rng):
    """Whoever hands in floors that fill a resource gets them, however they were added up before."""
    for _ in range(300):
        n = int(rng.integers(2, 60))
        floor = rng.dirichlet(np.full(n, 10.0 ** rng.uniform(-2, 1))) * (1 + 1e-12)
        weight = rng.lognormal(0, 5, n) * (rng.random(n) < rng.choice([0.0, 0.5, 1.0]))
        found = delay_shares(weight, floor, np.zeros(n, int), 1)
        assert found.status == "optimal"
        assert found.shortfall.tolist() == [0.0]
        assert (found.share >= floor * (1 - 1e-11)).all()
        assert found.share.sum() <= 1 + 1e-12


def test_no_agents():
    found = delay_shares([], [], np.zeros(0, int), 2)
    assert found.share.shape == (0,)
    assert found.price.tolist() == [0.0, 0.0]


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_invariance(seed):
    rng = np.random.default_rng(seed)
    n, r = 9, 3
    w, where = rng.uniform(0.1, 2, n), rng.integers(-1, r, n)
    floor = rng.uniform(0, 0.3, n)
    found = delay_shares(w, floor, where, r)
    who, what = rng.permutation(n), rng.permutation(r)
    renamed = np.where(where[who] >= 0, np.argsort(what)[where[who]], -1)
    again = delay_shares(w[who] * 7, floor[who], renamed, r)
    assert np.allclose(again.share, found.share[who], rtol=1e-9)
    assert np.array_equal(again.served, found.served[who])
    assert np.allclose(again.price, 49 * found.price[what], rtol=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_two_halves_with_equal_load_give_everyone_the_same_rate(seed):
    # every agent becomes two of half the weight and floor; half of the twins move to their own half
    rng = np.random.default_rng(seed)
    n = 5
    w, floor = rng.uniform(0.1, 2, n), rng.dirichlet(np.ones(n)) * 0.7
    whole = delay_shares(w, floor, np.zeros(n, int), 1)
    halves = delay_shares(np.tile(w, 2), np.tile(floor, 2), np.repeat([0, 1], n), 2)
    assert np.allclose(halves.share[:n], whole.share)
    assert np.allclose(halves.share[n:], whole.share)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([1.0, -2.0], [0, 0], [0, 0], 1), "weight[1] = -2.0; a weight is finite and >= 0"),
        (([1.0, np.nan], [0, 0], [0, 0], 1), "weight[1] = nan; a weight is finite and >= 0"),
        (([1.0, 1.0], [0, -0.1], [0, 0], 1), "floor[1] = -0.1; a floor is a finite fraction >= 0"),
        (([1.0, 1.0], [0.0], [0, 0], 1), "floor has shape (1,); weight has (2,)"),
        (([1.0, 1.0], [0, 0], [0, 1], 1), "resource[1] = 1; a resource is -1 or 0 to 0"),
        (([1.0, 1.0], [0, 0], [0, 0.5], 1), "resource[1] = 0.5; a whole number is needed"),
        (([1.0, 1.0], [0, 0], [0, np.nan], 1), "resource[1] = nan; a whole number is needed"),
        (([1.0], [0], [0], 0), "resource[0] = 0; there is no resource, so it is -1"),
        (([1.0], [0], [0], -1), "resources = -1; it is a whole number >= 0"),
        (([1.0], [0], [0], 1.5), "resources = 1.5; it is a whole number >= 0"),
        (([1.0, 1.0], [0, 0], [0, 0], 1, [1.0, np.nan]), "priority[1] = nan; a priority is a number"),
        (([1.0, 1.0], [0, 0], [0, 0], 1, [1.0]), "priority has shape (1,); weight has (2,)"),
        (([1.0, 1.0], [0, 0], [0], 1), "weight has shape (2,) and resource (1,); both are (N,)"),
    ],
)
def test_bad_input(args, message):
    with pytest.raises(InvalidStateError, match="^" + re.escape(message) + "$"):
        delay_shares(*args)


def test_certificates_see_what_is_wrong():
    good = check_capacity("cpu", [0, 0, 1, -1], [0.5, 0.5, 1.0, 0.0], [1.0, 1.0])
    assert good.feasible
    assert good.max_violation == 0.0
    bad = check_capacity("cpu", [0, 0], [0.75, 0.5], [1.0])
    assert not bad.feasible
    assert bad.max_violation == pytest.approx(0.25)
    assert bad.violations == ("cpu: resource 0 is used to 1.25 of 1",)
    negative = check_capacity("cpu", [0], [-0.5], [1.0])
    assert negative.violations == ("cpu: agent 0 uses -0.5, which is not a finite amount >= 0",)
    assert check_limit("power", [0.1, 0.2], [0.2, 0.2]).feasible
    over = check_limit("power", [0.3, np.nan], [0.2, 0.2])
    assert over.violations == (
        "power: agent 0 has 0.3, permitted is 0 to 0.2", "power: agent 1 has nan, permitted is 0 to 0.2",
    )  # fmt: skip
    assert over.max_violation == np.inf


def test_a_delay_that_costs_nothing_still_gets_a_share_of_an_idle_server():
    from hybridalloc import Allocator, make_problem

    problem = make_problem("custom", work=[1.0, 2.0], capacity=[4.0], delay_cost=[0.0, 0.0])
    allocation = Allocator(problem, "game").step(problem.reset(0))
    assert allocation.option.tolist() == [1, 1]
    assert next(iter(allocation.shares.values())) == pytest.approx([0.5, 0.5])
