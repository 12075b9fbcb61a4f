"""Games on a tree against the same games as matrices: products, equilibria, tilts, gains; who turns in circles."""

from __future__ import annotations

import numpy as np
import pytest

from games.errors import InvalidGameError
from games.quadratic import reference_equilibrium
from games.quadratic_batch import solve_batch
from games.quadratic_certificate import quadratic_gains
from games.quadratic_tilt import gain_bound, propose_batch
from games.tree import tree_batch
from games.tree_certificate import tree_gains


def games(seed, count=3, agents=12, nodes=30, own=0.2, give=(1e-7, 1e-2)):
    """Random games; some levels are fixed, some limits cross, and some are far from what the costs ask for."""
    rng = np.random.default_rng(seed)
    most = rng.uniform(0.2, 1, (count, agents, 1))
    most[rng.random(most.shape) < 0.1] = 0.0
    side = (count, nodes)
    return tree_batch(
        parent=[0, *(rng.integers(max(0, k - 3), k) for k in range(1, nodes))], place=rng.integers(0, nodes, agents),
        cost=rng.uniform(0, 20, nodes), effect=rng.uniform(0, 0.02, nodes), diagonal=np.full(most.shape, own),
        linear=50 * rng.normal(size=most.shape), lower=-most, upper=most, inner=rng.uniform(0.9, 1.1, most.shape),
        outer=rng.uniform(0.9, 1.1, side), low=-rng.uniform(-0.006, 0.1, side), high=rng.uniform(0, 0.1, side),
        give=np.exp(rng.uniform(*np.log(give), side)), live=most[..., 0] >= 0,
    )  # fmt: skip


def path(game, node):
    """Its branches, by the node at their lower end."""
    out = set()
    while node:
        out.add(int(node))
        node = game.parent[node]
    return out


def test_costs_and_values_are_those_of_shared_paths():
    game = games(0, 1, 6, 15)
    mine, its = [path(game, k) for k in game.place], [path(game, k) for k in range(15)]
    shared = lambda a, b, of: sum(of[k] for k in a & b)
    J = np.array([[shared(a, b, game.cost) for b in mine] for a in mine]) + np.diag(game.diagonal[0, :, 0])
    A = np.array([[shared(a, b, game.effect) for b in mine] for a in its])
    A = game.outer[0][:, None] * A * game.inner[0, :, 0]
    dense, x = game.dense(), np.random.default_rng(1).uniform(-1, 1, (1, 6, 1))
    np.testing.assert_allclose(dense.jacobian[0], J, rtol=1e-12)
    np.testing.assert_allclose(dense.constraint[0], np.concatenate([A, -A]), atol=1e-15)
    np.testing.assert_allclose(game.gradient(x)[0, :, 0], J @ x[0, :, 0] + game.linear[0, :, 0], rtol=1e-12)
    np.testing.assert_allclose(game.own()[0, :, 0, 0], J.diagonal(), rtol=1e-12)
    s = A @ x[0, :, 0]
    over = np.concatenate([np.maximum(s - game.high[0], 0), np.maximum(game.low[0] - s, 0)])
    np.testing.assert_allclose(game.charges(x)[0], over / np.tile(game.give[0], 2), rtol=1e-9)
    cost = x[0, :, 0] @ (J @ x[0, :, 0] / 2 + game.linear[0, :, 0]) + (over**2 / np.tile(game.give[0], 2)).sum() / 2
    assert game.value(x)[0] == pytest.approx(cost, rel=1e-12)
    step = np.random.default_rng(2).uniform(-1, 1, (1, 6, 4))
    np.testing.assert_allclose(
        game.charged_more(x[..., 0], step), dense.charged_more(x[..., 0], step), rtol=1e-9, atol=1e-9
    )
    there = game.shifted(x)
    rise = lambda g, u: g.value(u) - g.value(0 * u)
    np.testing.assert_allclose(rise(there, x + 0.1) - rise(there, x), game.value(0 * x + 0.1) - game.value(0 * x))


@pytest.mark.parametrize(("seed", "agents", "nodes", "own"), [(1, 6, 12, 0.2), (2, 25, 60, 0.02), (3, 40, 20, 0.002)])
def test_equilibria_are_those_of_the_matrices(seed, agents, nodes, own):
    game = games(seed, 3, agents, nodes, own)
    found, dense = game.solve(), solve_batch(game.dense())
    assert found.converged.all() and dense.converged.all()
    np.testing.assert_allclose(found.level, dense.level, atol=1e-7)
    np.testing.assert_allclose(found.price, dense.price, rtol=1e-5, atol=1e-4)
    assert tree_gains(game, found.level).max() <= 1e-9
    if agents == 6:
        oracle = np.array([reference_equilibrium(game.dense().single(e))[0] for e in range(3)])
        np.testing.assert_allclose(found.level[..., 0], oracle, atol=1e-4)


def test_who_turns_in_circles_is_solved_from_within():
    """Many levels at few nodes under narrow limits, where pivoting alone ends nowhere in one game of ten."""
    for seed in range(12):
        game = games(seed, 3, 60, 2 + seed, (0.002, 0.02, 0.2)[seed % 3], (1e-9, 1e-2))
        found = game.solve()
        assert found.converged.all(), seed
        assert tree_gains(game, found.level).max() <= 1e-8
        assert (np.abs(found.level) <= game.upper).all()
    gone = game.solve(stop=lambda: True)
    assert not gone.converged.any() and not gone.level.any()


def test_tilts_run_from_the_proposal_to_the_game_and_bounds_hold():
    game, rng = games(5), np.random.default_rng(6)
    mean, spread = rng.uniform(-0.5, 0.5, game.linear.shape), rng.uniform(0.1, 1, game.linear.shape)
    alone = game.solve().level
    apart = [np.abs(game.tilted(mean, spread, t).solve().level - alone).max() for t in (1e-3, 1.0, 1e3, 1e6)]
    assert apart == sorted(apart, reverse=True) and apart[-1] < 1e-3 < apart[0]
    for trust in (0.1, 10.0):
        level = game.tilted(mean, spread, trust).solve().level
        np.testing.assert_allclose(level, solve_batch(game.dense().tilted(mean, spread, trust)).level, atol=1e-7)
        assert (tree_gains(game, level) <= gain_bound(game, level, mean, spread, trust) + 1e-9).all()
    np.testing.assert_array_equal(propose_batch(game, mean, spread).level, np.clip(mean, game.lower, game.upper))
    some = np.where(rng.random(spread.shape) < 0.5, np.inf, spread)
    np.testing.assert_allclose(
        propose_batch(game, mean, some).level, propose_batch(game.dense(), mean, some).level, atol=1e-5
    )


def test_gains_are_those_of_the_matrices():
    for seed in range(4):
        game = games(seed, 2, 20, 40, 0.2, (1e-9, 1e-2))
        level = np.random.default_rng(seed).uniform(-1, 1, game.upper.shape) * game.upper
        dense = np.array([quadratic_gains(game.dense().single(e), 20, level[e]) for e in range(2)])
        assert dense.max() > 1.0
        np.testing.assert_allclose(tree_gains(game, level), dense, rtol=1e-9, atol=1e-9)
        near = game.solve().level
        near[:, 3] = np.clip(near[:, 3] + 0.01, -game.upper[:, 3], game.upper[:, 3])
        dense = np.array([quadratic_gains(game.dense().single(e), 20, near[e]) for e in range(2)])
        np.testing.assert_allclose(tree_gains(game, near), dense, rtol=1e-7, atol=1e-8)
    assert np.isinf(tree_gains(game, level + 2)).all() and np.isinf(tree_gains(game, np.nan * level)).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parent": lambda a: np.roll(a, 3)}, "parent.*comes before its child"),
        ({"place": lambda a: a + 100}, r"place\[0\] = .*nodes are 0 to 29"),
        ({"cost": lambda a: -a}, r"cost\[0\] = -.*finite and >= 0"),
        ({"give": lambda a: 0 * a}, r"give\[0, 0\] = 0; .*every limit gives"),
        ({"outer": lambda a: a[:, 1:]}, r"outer has shape \(3, 29\); \(3, 30\) is needed"),
        ({"upper": lambda a: a - 5}, "upper.*at least the lower bound"),
    ],
)
def test_what_is_no_game_is_named(change, words):
    told = games(0)._asdict()
    with pytest.raises(InvalidGameError, match=words):
        tree_batch(**told | {name: f(told[name]) for name, f in change.items()})
