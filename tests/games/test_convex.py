"""Alpha-fair shares, markets, routing, water-filling, joint shares: against cvxpy and closed forms."""

from __future__ import annotations

import re

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games import InvalidStateError, delay_shares
from games.alpha_fair import alpha_fair_shares, utility
from games.certificate_convex import measure_market, measure_wardrop
from games.joint_shares import joint_shares
from games.market import eisenberg_gale
from games.routing import route
from games.water_filling import water_filling

seeds = st.integers(0, 2**32 - 1)


# ---- alpha-fair -------------------------------------------------------------------------------------


def cvxpy_alpha(w, g, low, high, alpha):
    f = cp.Variable(len(w))
    x = cp.multiply(g, f)
    if alpha == 0:
        objective = w @ x
    elif alpha == 1:
        objective = w @ cp.log(x)
    elif alpha == 2:
        objective = -w @ cp.inv_pos(x)
    elif np.isinf(alpha):
        objective = cp.min(x)
    else:
        objective = w @ cp.power(x, 1 - alpha) / (1 - alpha)
    problem = cp.Problem(cp.Maximize(objective), [f >= low, f <= high, cp.sum(f) <= 1])
    problem.solve(solver=cp.CLARABEL)
    return problem.value


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0, 5.0, np.inf])
def test_alpha_fair_against_cvxpy(alpha, rng):
    for _ in range(15):
        n = int(rng.integers(1, 9))
        w, g = rng.uniform(0.2, 3, n), rng.uniform(0.2, 3, n)
        low = rng.dirichlet(np.ones(n)) * rng.uniform(0, 0.9) * (rng.random(n) < 0.5)
        high = np.minimum(low + rng.uniform(0.05, 1, n), 1)
        found = alpha_fair_shares(w, np.zeros(n, int), 1, alpha, gain=g, floor=low, ceiling=high)
        f = found.share
        assert (f >= low - 1e-12).all()
        assert (f <= high + 1e-12).all()
        assert f.sum() <= 1 + 1e-12
        value = (g * f).min() if np.isinf(alpha) else w @ utility(g * f, alpha)
        expected = cvxpy_alpha(w, g, low, high, alpha)
        assert value >= expected - 1e-5 * max(1, abs(expected))
        assert found.gap <= 1e-9
        assert found.status == "optimal"


def test_alpha_fair_closed_forms():
    where = [0, 0, 1]
    assert alpha_fair_shares([1.0, 3.0, 2.0], where, 2, 1.0).share.tolist() == [0.25, 0.75, 1.0]
    assert alpha_fair_shares([1.0, 4.0, 2.0], where, 2, 2.0).share == pytest.approx([1 / 3, 2 / 3, 1])
    found = alpha_fair_shares([1.0, 4.0, 2.0], where, 2, np.inf, gain=[1.0, 3.0, 1.0])
    assert found.share == pytest.approx([0.75, 0.25, 1.0])
    assert found.price == pytest.approx([0.75, 1.0])
    found = alpha_fair_shares([1.0, 4.0, 2.0], where, 2, 0.0, ceiling=[1.0, 0.7, 1.0])
    assert found.share == pytest.approx([0.3, 0.7, 1.0])
    assert found.price == pytest.approx([1.0, 2.0])


def test_max_min_is_lexicographic():
    # ceilings hold two agents down; the others share what is left, not only the worst off counts
    found = alpha_fair_shares(np.ones(4), np.zeros(4, int), 1, np.inf, gain=[1, 1, 1, 2.0], ceiling=[0.1, 1, 1, 1])
    assert found.share == pytest.approx([0.1, 0.36, 0.36, 0.18])


def test_alpha_two_is_the_delay_rule(rng):
    for _ in range(30):
        n = 12
        w, where = rng.lognormal(0, 2, n), rng.integers(-1, 3, n)
        floor = rng.uniform(0, 0.15, n)
        found = alpha_fair_shares(w**2, where, 3, 2.0, floor=np.where(where >= 0, floor, 0))
        twin = delay_shares(w, np.where(where >= 0, floor, 0), where, 3)
        assert np.allclose(found.share, twin.share, rtol=1e-9)
        assert np.array_equal(found.served, twin.served)


def test_alpha_towards_infinity_is_max_min(rng):
    g = rng.uniform(0.5, 2, 6)
    close = alpha_fair_shares(np.ones(6), np.zeros(6, int), 1, 2000.0, gain=g).share
    limit = alpha_fair_shares(np.ones(6), np.zeros(6, int), 1, np.inf, gain=g).share
    assert np.allclose(close, limit, atol=1e-3)


def test_alpha_fair_infeasible_floors_and_slack():
    found = alpha_fair_shares(np.ones(3), [0, 0, 0], 1, 1.0, floor=[0.6, 0.5, 0.2], priority=[3, 1, 2])
    assert found.status == "infeasible"
    assert found.served.tolist() == [True, False, True]
    assert found.shortfall == pytest.approx([0.3])
    loose = alpha_fair_shares(np.ones(2), [0, 0], 1, 1.0, ceiling=[0.2, 0.3])
    assert loose.share.tolist() == [0.2, 0.3]
    assert loose.price.tolist() == [0.0]


@given(seeds, st.sampled_from([0.5, 1.0, 2.0, 7.0, np.inf]))
@settings(max_examples=40, deadline=None)
def test_alpha_fair_invariance(seed, alpha):
    rng = np.random.default_rng(seed)
    n = 8
    w, g, where = rng.uniform(0.1, 2, n), rng.uniform(0.1, 2, n), rng.integers(-1, 3, n)
    found = alpha_fair_shares(w, where, 3, alpha, gain=g).share
    who, what = rng.permutation(n), rng.permutation(3)
    renamed = np.where(where[who] >= 0, np.argsort(what)[where[who]], -1)
    assert np.allclose(alpha_fair_shares(9 * w[who], renamed, 3, alpha, gain=4 * g[who]).share, found[who])
    # two halves with equal load
    halves = alpha_fair_shares(np.tile(w, 2), np.append(where, np.where(where >= 0, where + 3, -1)), 6, alpha, gain=np.tile(g, 2))  # fmt: skip  # noqa: E501
    assert np.allclose(halves.share[:n], found)
    assert np.allclose(halves.share[n:], found)


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        (dict(alpha=-1.0), "alpha = -1.0; it is in [0, inf]"),
        (dict(alpha=np.nan), "alpha = nan; it is in [0, inf]"),
        (dict(weight=[1.0, 0.0]), "weight[1] = 0.0; a weight is finite and > 0"),
        (dict(gain=[1.0, 0.0]), "gain[1] = 0.0; a gain is finite and > 0"),
        (dict(floor=[0.5, 0.1], ceiling=[0.4, 1.0]), "ceiling[0] = 0.4; at least the floor"),
        (dict(floor=[0.5]), "floor has shape (1,); weight has (2,)"),
    ],
)
def test_alpha_fair_bad_input(kw, message):
    arguments = {"weight": [1.0, 1.0], "resource": [0, 0], "resources": 1, "alpha": 1.0, **kw}
    with pytest.raises(InvalidStateError, match="^" + re.escape(message) + "$"):
        alpha_fair_shares(**arguments)


# ---- Eisenberg-Gale ---------------------------------------------------------------------------------


def cvxpy_market(a, w, c):
    x = cp.Variable(a.shape, nonneg=True)
    problem = cp.Problem(cp.Maximize(w @ cp.log(cp.sum(cp.multiply(a, x), axis=1))), [cp.sum(x, axis=0) <= c])
    problem.solve(solver=cp.CLARABEL)
    return problem.value, problem.constraints[0].dual_value


@pytest.mark.parametrize("method", ["interior", "response", "smooth"])
def test_market_against_cvxpy(method, rng):
    for _ in range(8):
        n, k = rng.integers(2, 12), rng.integers(2, 6)
        a = rng.uniform(0.05, 1, (n, k)) * (rng.random((n, k)) < 0.7)
        a[:, 0] += 0.1
        w, c = rng.uniform(0.5, 2, n), rng.uniform(0.5, 2, k)
        found = eisenberg_gale(a, w, c, method=method, tolerance=1e-4 if method == "response" else 1e-7)
        value, price = cvxpy_market(a, w, c)
        assert found.converged
        assert found.status == "optimal"
        assert w @ np.log(found.utility) >= value - (found.gap + 1e-6) * w.sum()
        assert w @ np.log(found.utility) <= value + 1e-5
        assert (found.share.sum(axis=0) <= c * (1 + 1e-9)).all()
        assert (found.share >= 0).all()
        if method != "response":
            assert np.allclose(found.price, price, atol=2e-3 * price.max())


def test_market_by_hand():
    # Cobb-Douglas by symmetry: the agent who values only resource 0 buys it with its whole budget
    found = eisenberg_gale([[1.0, 0.0], [1.0, 1.0]], [1.0, 1.0], [1.0, 1.0], tolerance=1e-10)
    assert np.allclose(found.share, [[1, 0], [0, 1]], atol=1e-4)
    assert np.allclose(found.price, [1, 1], atol=1e-4)
    single = eisenberg_gale([[2.0], [5.0]], [1.0, 3.0], [8.0])
    assert np.allclose(single.share[:, 0], [2, 6], rtol=1e-5)
    assert single.price == pytest.approx([0.5])


def test_market_prices_are_competitive(rng):
    a, w, c = rng.uniform(0, 1, (30, 6)), rng.uniform(0.5, 2, 30), rng.uniform(0.5, 2, 6)
    found = eisenberg_gale(a, w, c, tolerance=1e-9)
    assert found.price @ c == pytest.approx(w.sum())
    assert np.allclose(found.share @ found.price, w, rtol=1e-4)
    best = (a / found.price).max(axis=1)
    # money goes to the best value only
    assert (found.share[a / found.price < best[:, None] * (1 - 1e-3)] <= 1e-4).all()


def test_market_stress():
    failed = []
    for seed in range(120):
        rng = np.random.default_rng([7, seed])
        n, k = int(rng.integers(1, 40)), int(rng.integers(1, 30))
        a = rng.lognormal(0, 3, (n, k)) * (rng.random((n, k)) < 0.5) * 10.0 ** rng.uniform(-2, 2, (n, 1))
        w, c = 10.0 ** rng.uniform(-2, 2, n), 10.0 ** rng.uniform(-2, 2, k)
        found = eisenberg_gale(a, w, c)
        useful = (a > 0).any(axis=1)
        if not found.converged or not np.array_equal(found.unserved, ~useful):
            failed.append(seed)
        # by code that shares nothing with the solver
        excess, gap = measure_market(a, w, c, found.share, found.price)
        assert excess <= 1e-9
        assert gap <= 1.01e-6
    assert failed == []


def test_market_of_many_agents_uses_the_smooth_method(rng):
    found = eisenberg_gale(rng.lognormal(0, 1, (20_000, 3)), np.ones(20_000), np.ones(3), tolerance=1e-5)
    assert found.converged
    assert found.iterations < 60


def test_market_certificate_sees_what_is_wrong():
    a, w, c = [[1.0, 0.0], [1.0, 1.0]], [1.0, 1.0], [1.0, 1.0]
    assert measure_market(a, w, c, [[1, 0], [0, 1]], [1.0, 1.0]) == pytest.approx((0.0, 0.0))
    assert measure_market(a, w, c, [[1.5, 0], [0, 1]], [1.0, 1.0])[0] == pytest.approx(0.5)
    # half of what it could have costs the first agent log 2, of weight one half
    assert measure_market(a, w, c, [[0.5, 0], [0, 1]], [1.0, 1.0])[1] == pytest.approx(np.log(2) / 2)
    assert measure_market(a, w, c, [[1, 0], [0, 1]], [2.0, 0.0])[1] == np.inf
    assert measure_wardrop([3.0], [4.0, 2.0], [[0.0, 0.0]], [[2.5, 0.5]]) == pytest.approx((0.0, 0.0))
    assert measure_wardrop([3.0], [4.0, 2.0], [[0.0, 0.0]], [[2.0, 1.0]])[1] == pytest.approx(0.25)
    assert measure_wardrop([3.0], [4.0, 2.0], [[0.0, 0.0]], [[1.0, 2.0]])[1] == np.inf


def test_market_names_agents_that_value_nothing():
    found = eisenberg_gale([[1.0, 2.0], [0.0, 0.0]], [1.0, 1.0], [1.0, 1.0])
    assert found.unserved.tolist() == [False, True]
    assert found.status == "optimal; 1 agents value no resource, the first is 1"
    assert found.share[1].tolist() == [0.0, 0.0]
    nobody = eisenberg_gale(np.zeros((0, 2)), np.zeros(0), [1.0, 1.0])
    assert nobody.share.shape == (0, 2)


def test_market_stopped_early_says_so(rng):
    found = eisenberg_gale(
        rng.random((30, 5)), np.ones(30), np.ones(5), method="response", tolerance=1e-9, max_iterations=3
    )
    assert not found.converged
    assert found.status.startswith("response stopped after 3 iterations with gap ")


def test_market_warm_start(rng):
    a, w, c = rng.uniform(0.1, 1, (50, 6)), np.ones(50), np.ones(6)
    cold = eisenberg_gale(a, w, c, method="response", tolerance=1e-3)
    warm = eisenberg_gale(a, w, c, method="response", tolerance=1e-3, start=cold.share)
    assert warm.converged
    assert warm.iterations < cold.iterations


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_market_invariance(seed):
    rng = np.random.default_rng(seed)
    n, k = 7, 4
    a, w, c = rng.uniform(0.1, 1, (n, k)), rng.uniform(0.5, 2, n), rng.uniform(0.5, 2, k)
    found = eisenberg_gale(a, w, c, tolerance=1e-9)
    who, what = rng.permutation(n), rng.permutation(k)
    scale = rng.uniform(0.1, 10, n)
    again = eisenberg_gale((a * scale[:, None])[who][:, what], 3 * w[who], c[what], tolerance=1e-9)
    # a gap of 1e-9 leaves log utilities free within sqrt(2 gap / budget share), 2.4e-4 here, on either side
    assert np.allclose(again.utility, (found.utility * scale)[who], rtol=6e-4)
    assert w[who] @ np.log(again.utility) == pytest.approx(w @ np.log(found.utility * scale), abs=3e-9 * w.sum())
    assert np.allclose(again.price, 3 * found.price[what], rtol=2e-2)
    halves = eisenberg_gale(
        np.append(a, a[:, :1], axis=1), w, np.append(np.append(c[0] / 2, c[1:]), c[0] / 2), tolerance=1e-9
    )
    assert np.allclose(halves.utility, found.utility, rtol=6e-4)
    assert halves.price[0] == pytest.approx(halves.price[-1], rel=1e-6)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([[1.0, -1.0]], [1.0], [1.0, 1.0]), "value[0, 1] = -1.0; a value is finite and >= 0"),
        (([[1.0, np.nan]], [1.0], [1.0, 1.0]), "value[0, 1] = nan; a value is finite and >= 0"),
        (([[1.0, 1.0]], [0.0], [1.0, 1.0]), "budget[0] = 0.0; a budget is finite and > 0"),
        (([[1.0, 1.0]], [1.0], [1.0, 0.0]), "capacity[1] = 0.0; a capacity is finite and > 0"),
        (([1.0, 1.0], [1.0], [1.0, 0.0]), "value has shape (2,); it is (N, K), agents first"),
        (
            ([[1.0, 1.0]], [1.0, 1.0], [1.0, 1.0]),
            "budget has shape (2,) and capacity (2,); value (1, 2) needs (1,) and (2,)",
        ),
    ],
)
def test_market_bad_input(args, message):
    with pytest.raises(InvalidStateError, match="^" + re.escape(message) + "$"):
        eisenberg_gale(*args)
    with pytest.raises(InvalidStateError, match="method = 'simplex'"):
        eisenberg_gale([[1.0]], [1.0], [1.0], method="simplex")


# ---- M/M/1 routing ----------------------------------------------------------------------------------


def cvxpy_routing(r, mu, d, social):
    x = cp.Variable(d.shape, nonneg=True)
    y = cp.sum(x, axis=0)
    reach = np.isfinite(d)
    travel = cp.sum(cp.multiply(np.where(reach, d, 0), x))
    queue = cp.sum(cp.multiply(mu, cp.inv_pos(mu - y)) - 1) if social else -cp.sum(cp.log(mu - y))
    rules = [cp.sum(x, axis=1) == r, cp.multiply(~reach, x) == 0]
    problem = cp.Problem(cp.Minimize(travel + queue), rules)
    problem.solve(solver=cp.CLARABEL)
    return problem.value


@pytest.mark.parametrize("social", [False, True])
def test_routing_against_cvxpy(social, rng):
    for trial in range(15):
        n, k = rng.integers(1, 8), rng.integers(2, 6)
        mu = rng.uniform(1, 5, k)
        r = rng.dirichlet(np.ones(n)) * mu.sum() * rng.uniform(0.1, 0.95)
        d = rng.uniform(0, 1, (n, k))
        if trial % 3 == 0:
            d[rng.random((n, k)) < 0.2] = np.inf
            d[:, 0], r = 0.1, r * 0.5
        found = route(r, mu, d, social=social)
        if found.status == "infeasible":
            continue
        assert found.status == "optimal"
        missed, gap = measure_wardrop(r, mu, d, found.flow, social)
        assert missed <= 1e-9
        assert -1e-12 <= gap <= 1.01e-8
        y = found.flow.sum(axis=0)
        assert (y < mu).all()
        travel = (np.where(np.isfinite(d), d, 0) * found.flow).sum()
        value = travel + ((y / (mu - y)).sum() if social else -np.log(mu - y).sum())
        assert value == pytest.approx(cvxpy_routing(r, mu, d, social), rel=1e-5, abs=1e-5)


def test_routing_by_hand():
    # Wardrop: 1 / (4 - y) = 1 / (2 - (3 - y)) at y = 2.5
    found = route([3.0], [4.0, 2.0], [[0.0, 0.0]])
    assert found.flow[0] == pytest.approx([2.5, 0.5])
    assert found.delay == pytest.approx([1 / 1.5, 1 / 1.5])
    # the planner: 4 / (4 - y)^2 = 2 / (y - 1)^2
    planner = route([3.0], [4.0, 2.0], [[0.0, 0.0]], social=True)
    flow = planner.flow[0]
    assert 4 / (4 - flow[0]) ** 2 == pytest.approx(2 / (2 - flow[1]) ** 2, rel=1e-6)
    assert planner.mean_delay < found.mean_delay


def test_social_routing_never_costs_more(rng):
    for _ in range(20):
        mu, d = rng.uniform(1, 5, 4), rng.uniform(0, 1, (6, 4))
        r = rng.dirichlet(np.ones(6)) * mu.sum() * 0.7
        assert route(r, mu, d, social=True).mean_delay <= route(r, mu, d).mean_delay * (1 + 1e-7)


def test_routing_infeasible_says_by_how_much():
    found = route([3.0, 2.0], [2.0, 2.0], np.zeros((2, 2)))
    assert found.status == "infeasible"
    assert found.shortfall == pytest.approx(1.0)
    blocked = route([3.0, 0.5], [2.0, 9.0], [[0.0, np.inf], [0.0, 0.0]])
    assert blocked.status == "infeasible"
    assert blocked.shortfall == pytest.approx(1.0)
    assert route([0.0], [1.0], [[0.0]]).status == "optimal"


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_routing_invariance(seed):
    rng = np.random.default_rng(seed)
    mu, d = rng.uniform(1, 5, 3), rng.uniform(0, 1, (4, 3))
    r = rng.dirichlet(np.ones(4)) * mu.sum() * 0.6
    found = route(r, mu, d)
    who, what = rng.permutation(4), rng.permutation(3)
    # twice the rates and half the delays: the same shares at half the time
    again = route(2 * r[who], 2 * mu[what], d[who][:, what] / 2)
    assert again.mean_delay == pytest.approx(found.mean_delay / 2, rel=1e-6)
    assert np.allclose(again.flow.sum(axis=0), 2 * found.flow.sum(axis=0)[what], rtol=1e-4)
    # a class in two equal halves
    twice = route(np.append(r, r) / 2, mu, np.tile(d, (2, 1)))
    assert np.allclose(twice.flow.sum(axis=0), found.flow.sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([-1.0], [1.0], [[0.0]]), "rate[0] = -1.0; a rate is finite and >= 0"),
        (([1.0], [0.0], [[0.0]]), "service[0] = 0.0; a service rate is finite and > 0"),
        (([1.0], [1.0], [[np.nan]]), "travel[0, 0] = nan; a travel delay is >= 0, inf where there is no way"),
        (([1.0], [1.0], [[np.inf]]), "travel[0] reaches no server; allow at least one"),
        (([1.0], [1.0], [[0.0, 1.0]]), "travel has shape (1, 2); rates and servers need (1, 1)"),
    ],
)
def test_routing_bad_input(args, message):
    with pytest.raises(InvalidStateError, match="^" + re.escape(message) + "$"):
        route(*args)


# ---- water-filling ----------------------------------------------------------------------------------


def cvxpy_water(g, own, w, common):
    p = cp.Variable(g.shape, nonneg=True)
    rules = [cp.sum(p, axis=1) <= own]
    if np.isfinite(common):
        rules.append(cp.sum(p) <= common)
    problem = cp.Problem(cp.Maximize(cp.sum(cp.multiply(w[:, None], cp.log1p(cp.multiply(g, p))))), rules)
    problem.solve(solver=cp.CLARABEL)
    return problem.value


def test_water_filling_against_cvxpy(rng):
    for trial in range(40):
        n, k = rng.integers(1, 6), rng.integers(1, 6)
        g = rng.lognormal(0, 1.5, (n, k)) * (rng.random((n, k)) < 0.9)
        own, w = rng.uniform(0.1, 3, n), rng.uniform(0.5, 2, n)
        common = np.inf if trial % 3 == 0 else own.sum() * rng.uniform(0.05, 1.2)
        if not (g > 0).any():
            continue
        found = water_filling(g, own, weight=w, common=common)
        value = (w[:, None] * np.log1p(g * found.power)).sum()
        assert value == pytest.approx(cvxpy_water(g, own, w, common), rel=1e-6, abs=1e-7)
        assert found.gap <= 1e-9
        assert (found.power.sum(axis=1) <= own * (1 + 1e-9)).all()
        assert found.power.sum() <= common * (1 + 1e-9)
        assert value == pytest.approx(w @ found.rate)


def test_water_filling_by_hand():
    # ground at 1 and 2, three units of water: level 3
    found = water_filling([[1.0, 0.5]], [3.0])
    assert found.level == pytest.approx([3.0])
    assert found.power[0] == pytest.approx([2.0, 1.0])
    assert found.own_price == pytest.approx([1 / 3])
    assert found.common_price == 0.0
    # a common budget of 1 for two equal agents halves it
    found = water_filling([[1.0], [1.0]], [5.0, 5.0], common=1.0)
    assert found.power[:, 0] == pytest.approx([0.5, 0.5])
    assert found.common_price == pytest.approx(1 / 1.5)
    only_common = water_filling([[1.0], [2.0]], [np.inf, np.inf], common=1.5)
    assert only_common.power[:, 0] == pytest.approx([0.5, 1.0])


def test_water_filling_edges():
    assert water_filling([[1.0, 1.0]], [0.0]).power.tolist() == [[0.0, 0.0]]
    assert water_filling([[0.0, 0.0]], [1.0]).power.tolist() == [[0.0, 0.0]]
    assert water_filling([[1.0], [1.0]], [1.0, 1.0], common=0.0).power.sum() == 0.0
    assert water_filling(np.zeros((0, 3)), []).power.shape == (0, 3)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_water_filling_invariance(seed):
    rng = np.random.default_rng(seed)
    n, k = 4, 3
    g, own, w = rng.lognormal(0, 1, (n, k)), rng.uniform(0.1, 3, n), rng.uniform(0.5, 2, n)
    common = own.sum() * rng.uniform(0.2, 1.5)
    found = water_filling(g, own, weight=w, common=common)
    who, what = rng.permutation(n), rng.permutation(k)
    again = water_filling(g[who][:, what] / 8, 8 * own[who], weight=5 * w[who], common=8 * common)
    assert np.allclose(again.power, 8 * found.power[who][:, what], rtol=1e-9, atol=1e-12)
    # every channel in two halves: half the power on each at twice the budget
    halves = water_filling(np.tile(g, 2), 2 * own, weight=w, common=2 * common)
    assert np.allclose(halves.power[:, :k], found.power, rtol=1e-9, atol=1e-12)


def test_water_filling_bad_input():
    with pytest.raises(InvalidStateError, match=re.escape("gain[0, 1] = -1.0; a gain is finite and >= 0")):
        water_filling([[1.0, -1.0]], [1.0])
    with pytest.raises(InvalidStateError, match=re.escape("budget[0] = nan; a budget is >= 0")):
        water_filling([[1.0]], [np.nan])
    with pytest.raises(InvalidStateError, match="common = inf; it is >= 0, and finite where an own"):
        water_filling([[1.0]], [np.inf])


# ---- joint shares -----------------------------------------------------------------------------------


def test_joint_without_deadlines_is_the_square_root_rule(rng):
    n, m, r = 6, 2, 2
    w = rng.uniform(0.5, 2, (n, m))
    where = rng.integers(0, r, (n, m))
    found = joint_shares(w, np.zeros((n, m)), np.full(n, np.inf), where, r)
    for family in range(m):
        closed = delay_shares(w[:, family], np.zeros(n), where[:, family], r)
        assert np.allclose(found.share[:, family], closed.share, atol=1e-4)
    assert found.status == "optimal"
    assert found.gap <= 1e-6


def test_joint_deadlines_hold_and_cost_something(rng):
    n, m, r = 5, 2, 2
    w, t = rng.uniform(0.5, 2, (n, m)), rng.uniform(0.05, 0.1, (n, m))
    where = rng.integers(0, r, (n, m))
    free = joint_shares(w, t, np.full(n, np.inf), where, r)
    taken = (t / free.share).sum(axis=1)
    deadline = taken * 1.05
    deadline[0] = taken[0] * 0.9
    tight = joint_shares(w, t, deadline, where, r)
    assert tight.status == "optimal"
    assert ((t / tight.share).sum(axis=1) <= deadline * (1 + 1e-6)).all()
    assert tight.objective > free.objective
    assert tight.lateness_price[0] > 1e-6


def test_joint_infeasible_names_the_late_and_the_missing_capacity():
    # two agents on one resource, each needs .7 of it
    found = joint_shares([[1.0], [1.0]], [[0.7], [0.7]], [1.0, 1.0], [[0], [0]], 1)
    assert found.status == "infeasible"
    assert not found.served.all()
    assert found.shortfall[0, 0] == pytest.approx(0.4, abs=1e-4)


def test_joint_bad_input():
    good = dict(weight=[[1.0]], time=[[0.1]], deadline=[1.0], resource=[[0]], resources=1)
    for change, message in (
        (dict(deadline=[0.0]), "deadline[0] = 0.0; a deadline is > 0"),
        (dict(resource=[[1]]), "resource[0, 0] = 1; a resource is 0 to 0"),
        (dict(weight=[[np.nan]]), "weight[0, 0] = nan; a weight is finite and >= 0"),
        (dict(time=[[0.1, 0.2]]), "time has shape (1, 2); weight has (1, 1)"),
    ):
        with pytest.raises(InvalidStateError, match="^" + re.escape(message) + "$"):
            joint_shares(**{**good, **change})
