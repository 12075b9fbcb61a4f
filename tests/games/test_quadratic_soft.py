"""Limits that give, and games with a potential by projected Newton: against cvxpy and the definitions."""

from __future__ import annotations

import time

import cvxpy as cp
import numpy as np
import pytest

from games.certificate_convex import measure_kkt
from games.errors import InvalidGameError
from games.quadratic import QuadraticGame, reference_equilibrium, variational_equilibrium
from games.quadratic_batch import charges, quadratic_batch, solve_batch, tilt_batch, value_batch
from games.quadratic_certificate import quadratic_gains
from games.quadratic_tilt import gain_bound


def games(rng, count, agents, levels=1, limits=4, skew=0.0, give=(1e-4, 1.0), hard=0.3):
    """Random games some of whose limits give and some of which contradict the costs; hard ones can hold."""
    k = agents * levels
    factor, turn = rng.normal(size=(count, k, k)), skew * rng.normal(size=(count, k, k))
    turn = turn - np.swapaxes(turn, 1, 2)
    for i in range(agents):
        turn[:, i * levels : (i + 1) * levels, i * levels : (i + 1) * levels] = 0.0
    jacobian = factor @ np.swapaxes(factor, 1, 2) / k + 0.1 * np.eye(k) + turn
    jacobian = jacobian if skew else (jacobian + np.swapaxes(jacobian, 1, 2)) / 2
    shape = (count, agents, levels)
    inside = rng.uniform(-0.5, 0.5, shape)
    constraint = rng.normal(size=(count, limits, k))
    constraint[:, 1::2] = constraint[:, : 2 * (limits // 2) : 2] + 1e-4 * rng.normal(size=constraint[:, 1::2].shape)
    soft = rng.random((count, limits)) > hard
    gives = np.where(soft, np.exp(rng.uniform(*np.log(give), soft.shape)), 0.0)
    limit = np.einsum("emk,ek->em", constraint, inside.reshape(count, k)) + 0.2 * rng.random((count, limits))
    limit -= np.where(soft, rng.uniform(0, 1, soft.shape), 0.0)
    return quadratic_batch(jacobian, 2 * rng.normal(size=shape), -1.0, 1.0, constraint, limit, give=gives)


@pytest.mark.parametrize("skew", [0.0, 1.0])
@pytest.mark.parametrize(("agents", "levels", "limits"), [(1, 1, 2), (4, 1, 6), (3, 2, 5), (6, 1, 20)])
def test_an_equilibrium_meets_its_conditions_is_the_oracles_and_nobody_gains(agents, levels, limits, skew):
    batch = games(np.random.default_rng([agents, limits, int(skew)]), 6, agents, levels, limits, skew)
    found = solve_batch(batch)
    assert found.converged.all()
    for e in range(6):
        single, x = batch.single(e), found.level[e].ravel()
        assert measure_kkt(single, x, found.price[e]) <= 1e-8
        expected, price = reference_equilibrium(single)
        np.testing.assert_allclose(x, expected, atol=2e-5)
        assert measure_kkt(single, expected, price) <= 1e-4
        alone = variational_equilibrium(single)
        assert alone.status == "converged"
        np.testing.assert_allclose(alone.x, x, atol=1e-6)
        assert quadratic_gains(single, agents, found.level[e]).max() <= 1e-8


@pytest.mark.parametrize("levels", [1, 2])
def test_gains_are_those_of_the_best_deviation_by_cvxpy(levels):
    rng = np.random.default_rng(levels)
    batch = games(rng, 5, 4, levels, 7, skew=0.5, give=(1e-2, 1.0), hard=0.0)
    for e in range(5):
        game, level = batch.single(e), rng.uniform(-1, 1, (4, levels))
        gains = quadratic_gains(game, 4, level)
        x = level.ravel()
        for i in range(4):
            own = slice(i * levels, (i + 1) * levels)
            u = cp.Variable(levels)
            gradient, H = (game.jacobian @ x + game.linear)[own], game.jacobian[own, own]
            broken = game.constraint @ x - game.limit
            charged = lambda over: cp.sum(cp.multiply(cp.square(cp.pos(over)), 1 / (2 * game.give)))  # noqa: B023
            cost = gradient @ u + cp.quad_form(u, cp.psd_wrap(H)) / 2 + charged(broken + game.constraint[:, own] @ u)
            problem = cp.Problem(cp.Minimize(cost), [x[own] + u >= -1, x[own] + u <= 1])
            problem.solve(solver=cp.CLARABEL)
            here = float((np.maximum(broken, 0) ** 2 / (2 * game.give)).sum())
            assert gains[i] == pytest.approx(here - problem.value, rel=1e-5, abs=1e-6)


def test_the_value_is_the_potential_with_what_breaking_costs():
    rng = np.random.default_rng(3)
    batch = games(rng, 4, 5, limits=6, hard=0.0)
    least = value_batch(batch, solve_batch(batch).level)
    for _ in range(50):
        assert (value_batch(batch, rng.uniform(-1, 1, batch.linear.shape)) >= least - 1e-9).all()
    x = rng.uniform(-1, 1, batch.linear.shape)
    over = np.maximum(np.einsum("emk,ek->em", batch.constraint, x[..., 0]) - batch.limit, 0)
    np.testing.assert_allclose(charges(batch, x), over / batch.give)


def test_the_bound_of_a_tilted_equilibrium_holds_where_limits_give():
    rng = np.random.default_rng(5)
    batch = games(rng, 10, 4, limits=6, hard=0.0)
    mean, spread = rng.normal(size=batch.linear.shape), np.exp(rng.uniform(-2, 1, batch.linear.shape))
    for trust in (0.1, 1.0, 30.0):
        level = solve_batch(tilt_batch(batch, mean, spread, trust)).level
        bound = gain_bound(batch, level, mean, spread, trust)
        for e in range(10):
            assert (quadratic_gains(batch.single(e), 4, level[e]) <= bound[e] + 1e-9).all()


def test_units_play_no_part():
    rng = np.random.default_rng(8)
    batch = games(rng, 6, 4, limits=6)
    for e in range(6):
        g = batch.single(e)
        x = variational_equilibrium(g).x
        unit, row, cost = np.exp(rng.uniform(-9, 9, 4)), np.exp(rng.uniform(-9, 9, 6)), np.exp(rng.uniform(-9, 9))
        other = QuadraticGame(
            cost * g.jacobian / unit[:, None] / unit, cost * g.linear / unit, g.lower * unit, g.upper * unit,
            g.constraint * row[:, None] / unit, g.limit * row, g.give * row**2 / cost,
        )  # fmt: skip
        again = variational_equilibrium(other)
        assert again.status == "converged"
        np.testing.assert_allclose(again.x / unit, x, atol=1e-6)


@pytest.mark.parametrize("give", [0.0, 1e-6])
def test_many_nearly_parallel_limits_take_milliseconds(give):
    """Voltages of a feeder: 64 rows of six unknowns, half of them within a per cent of each other."""
    rng, slowest = np.random.default_rng(0), 0.0
    common = np.cumsum(rng.uniform(0.001, 0.004, (32, 6)), axis=0)
    for trial in range(30):
        R, S = np.cumsum(np.full((6, 6), 0.01), 0), common * (1 + 0.01 * rng.normal(size=(32, 6)))
        H = np.minimum(R, R.T) + 1e-4 * np.eye(6)
        now = rng.uniform(0.9, 1.1) + 0.01 * rng.normal(size=32)
        limit = np.concatenate([1.05 - now, now - 0.95])
        rows = np.concatenate([S, -S])
        limit = limit if give else np.maximum(limit, rows @ rng.uniform(-1, 1, 6))  # which can be held
        game = QuadraticGame(H, 0.02 * rng.normal(size=6), -1, 1, rows, limit, np.full(64, give))
        began = time.perf_counter()
        found = variational_equilibrium(game)
        slowest = max(slowest, time.perf_counter() - began) if trial else 0.0
        assert found.status == "converged" and measure_kkt(game, found.x, found.multiplier) <= 1e-7
    assert slowest < 0.1  # operator splitting alone takes up to seconds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"give": -1.0}, r"give\[0, 0\] = -1; it is finite and >= 0"),
        ({"give": [[np.inf]]}, r"give\[0, 0\] = inf; it is finite and >= 0"),
        ({"give": [1.0, 2.0]}, r"give has shape \(2,\); one number or \(1, 1\) is needed"),
    ],
)
def test_what_gives_is_checked(change, message):
    given = dict(jacobian=[np.eye(2)], linear=np.zeros((1, 2, 1)), lower=0.0, upper=1.0, constraint=np.ones((1, 1, 2)))
    with pytest.raises(InvalidGameError, match=message):
        quadratic_batch(**given, limit=[[1.0]], **change)
    with pytest.raises(InvalidGameError, match=r"give has shape \(3,\); limit needs \(1,\)"):
        QuadraticGame(np.eye(2), np.zeros(2), 0.0, 1.0, np.ones((1, 2)), [1.0], np.ones(3))


def test_games_that_nothing_ties_together_are_solved_as_each_alone_and_as_in_any_order():
    """Twenty levels of five games side by side in one: found part by part, and as a whole where they are shuffled."""
    rng = np.random.default_rng(3)
    parts = [games(rng, 2, 4, limits=6, hard=0.2) for _ in range(5)]
    jacobian, constraint = np.zeros((2, 20, 20)), np.zeros((2, 31, 20))  # the last limit is of nobody
    for k, part in enumerate(parts):
        own, rows = slice(4 * k, 4 * k + 4), slice(6 * k, 6 * k + 6)
        jacobian[:, own, own], constraint[:, rows, own] = part.jacobian, part.constraint
    linear = np.concatenate([part.linear for part in parts], 1)
    limit = np.concatenate([*(part.limit for part in parts), np.full((2, 1), 0.5)], 1)
    give = np.concatenate([*(part.give for part in parts), np.ones((2, 1))], 1)
    whole = solve_batch(quadratic_batch(jacobian, linear, -1.0, 1.0, constraint, limit, give=give))
    assert whole.converged.all() and not whole.price[:, 30].any()
    for k, part in enumerate(parts):
        alone = solve_batch(part)
        np.testing.assert_allclose(whole.level[:, 4 * k : 4 * k + 4], alone.level, atol=1e-7)
        np.testing.assert_allclose(whole.price[:, 6 * k : 6 * k + 6], alone.price, rtol=1e-4, atol=1e-6)
    mix = rng.permutation(20)
    mixed = quadratic_batch(
        jacobian[:, mix][:, :, mix], linear[:, mix], -1.0, 1.0, constraint[:, :, mix], limit, give=give
    )  # fmt: skip
    np.testing.assert_allclose(solve_batch(mixed).level, whole.level[:, mix], atol=1e-7)
