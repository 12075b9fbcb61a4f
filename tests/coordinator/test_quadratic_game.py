"""Quadratic games: against cvxpy and the definitions, both ends of trust, the bound, sampling, the coordinator."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from coordinator import Coordinator
from coordinator.budget import Clock
from coordinator.game import Choice, Game, only_levels
from coordinator.quadratic import SURE, Quadratic, log_density
from games.certificate_convex import measure_kkt
from games.errors import InvalidGameError
from games.quadratic import reference_equilibrium
from games.quadratic_batch import project_batch, quadratic_batch, solve_batch, value_batch
from games.quadratic_certificate import quadratic_gains
from rl.proposal import Observation, Proposal


def games(rng, count, agents, levels=1, limits=0, skew=1.0, curvature=0.1, symmetric=False):
    """Random strongly monotone games with boxes about 0 and limits that a point in the boxes keeps, some narrowly."""
    k = agents * levels
    factor = rng.normal(size=(count, k, k))
    turn = np.zeros_like(factor) if symmetric else rng.normal(size=(count, k, k)) * skew / np.sqrt(max(k, 1))
    turn = turn - np.swapaxes(turn, 1, 2)
    for i in range(agents):
        own = slice(i * levels, (i + 1) * levels)
        turn[:, own, own] = 0.0
    jacobian = factor @ np.swapaxes(factor, 1, 2) / k + curvature * np.eye(k) + turn
    shape = (count, agents, levels)
    lower, upper = -rng.random(shape), rng.random(shape)
    inside = lower + rng.random(shape) * (upper - lower)
    constraint = rng.normal(size=(count, limits, k))
    limit = np.einsum("emk,ek->em", constraint, inside.reshape(count, k)) + 0.3 * rng.random((count, limits))
    return quadratic_batch(jacobian, 2 * rng.normal(size=shape), lower, upper, constraint, limit)


def proposal(rng, batch, spread=(0.05, 2.0), asked=1.0):
    shape = batch.linear.shape
    wide = np.exp(rng.uniform(*np.log(spread), shape))
    wide[rng.random(shape) > asked] = np.inf
    names = tuple(f"level {k}" for k in range(shape[2]))
    return Proposal(None, 1.5 * rng.normal(size=shape), wide, names)


def excess(batch, level):
    """Worst excess over a box or a limit."""
    over = np.maximum(batch.lower - level, level - batch.upper).max(initial=0.0)
    used = np.einsum("emk,ek->em", batch.constraint, level.reshape(len(level), -1)) - batch.limit
    return max(over, used.max(initial=0.0))


def nearest(batch, e, point, weight):
    """cvxpy: the feasible point of game e nearest to ``point`` in the norm of ``weight``, each (N, D)."""
    x = cp.Variable(point.size)
    rules = [x >= batch.lower[e].ravel(), x <= batch.upper[e].ravel()]
    if batch.limit.shape[1]:
        rules.append(batch.constraint[e] @ x <= batch.limit[e])
    cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(np.sqrt(weight.ravel()), x - point.ravel()))), rules).solve(
        solver=cp.CLARABEL
    )
    return x.value.reshape(point.shape)


# --- solving


@pytest.mark.parametrize("agents", range(1, 13))
@pytest.mark.parametrize(("levels", "limits"), [(1, 0), (1, 3), (2, 2), (3, 4)])
def test_an_equilibrium_meets_its_conditions_and_nobody_gains(agents, levels, limits):
    """KKT residual and regret, each by code that shares nothing with the solver."""
    batch = games(np.random.default_rng([agents, levels, limits]), 8, agents, levels, limits)
    found = solve_batch(batch)
    assert found.converged.all() and (found.price >= 0).all()
    for e in range(8):
        single = batch.single(e)
        assert measure_kkt(single, found.level[e].ravel(), found.price[e]) <= 1e-9
        assert quadratic_gains(single, agents, found.level[e]).max() <= 1e-8


@pytest.mark.parametrize(("agents", "levels", "limits"), [(2, 1, 2), (5, 2, 3), (12, 1, 6)])
def test_equilibria_are_those_of_the_reference(agents, levels, limits):
    batch = games(np.random.default_rng(agents), 5, agents, levels, limits)
    found = solve_batch(batch)
    for e in range(5):
        expected, price = reference_equilibrium(batch.single(e))
        np.testing.assert_allclose(found.level[e].ravel(), expected, atol=1e-5)
        np.testing.assert_allclose(batch.constraint[e].T @ found.price[e], batch.constraint[e].T @ price, atol=1e-4)


def test_without_limits_the_textbook_cases_hold():
    """Cournot with n firms: each supplies (a - c) / (b (n + 1)); as a monopoly in its box it supplies the box."""
    for n in (1, 2, 5):
        jacobian = np.ones((1, n, n)) + np.eye(n)
        free = solve_batch(quadratic_batch(jacobian, np.full((1, n, 1), -9.0), 0.0, np.inf))
        np.testing.assert_allclose(free.level, 9.0 / (n + 1), rtol=1e-12)
        small = solve_batch(quadratic_batch(jacobian, np.full((1, n, 1), -9.0), 0.0, 0.5))
        np.testing.assert_allclose(small.level, 0.5)
        # a shared limit on the total has one price for all, so equals share it alike
        shared = quadratic_batch(jacobian, np.full((1, n, 1), -9.0), 0.0, np.inf, np.ones((1, 1, n)), [[1.0]])
        found = solve_batch(shared)
        np.testing.assert_allclose(found.level, 1.0 / n, rtol=1e-9)
        np.testing.assert_allclose(found.price, 9.0 - 1.0 - 1.0 / n, rtol=1e-9)


def test_an_empty_game_a_game_of_nobody_and_an_impossible_one():
    nobody = quadratic_batch(np.zeros((2, 0, 0)), np.zeros((2, 0, 1)), 0.0, 1.0)
    assert solve_batch(nobody).converged.all() and Quadratic(nobody).regret(
        only_levels(np.zeros((2, 0, 1)))
    ).tolist() == [0, 0]
    full = quadratic_batch(np.eye(1)[None], np.zeros((1, 1, 1)), 1.0, 2.0, np.ones((1, 1, 1)), [[0.0]])
    solved = Quadratic(full).solve()
    assert not solved.converged[0] and not solved.stable[0]
    assert Quadratic(full).regret(solved.choice)[0] == np.inf  # it breaks the limit: nothing can be said
    idle = quadratic_batch(
        np.eye(2)[None], [[[-5.0], [-5.0]]], [[[0.0], [0.0]]], [[[0.0], [1.0]]], live=[[False, True]]
    )
    assert solve_batch(idle).level.ravel().tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jacobian": np.zeros((1, 3, 3))}, r"jacobian has shape \(1, 3, 3\); linear \(1, 2, 1\) needs \(1, 2, 2\)"),
        ({"linear": np.zeros(2)}, r"linear has shape \(2,\); it needs axes \(E, N, D\)"),
        ({"linear": [[[0.0], [np.nan]]]}, r"linear\[0, 1, 0\] = nan; it is finite"),
        ({"lower": [[[0.0], [2.0]]]}, r"upper\[0, 1, 0\] = 1; it is at least the lower bound"),
        ({"jacobian": [np.diag([1.0, -1.0])]}, r"least curvature of jacobian\[0, 1\] = -1; an agent's cost is convex"),
        ({"live": [[True, False]]}, r"upper\[0, 1, 0\] = 1; it is the lower bound of an agent that is not live"),
        ({"constraint": np.zeros((1, 1, 3)), "limit": [[1.0]]}, r"constraint has shape \(1, 1, 3\)"),
    ],
)
def test_bad_arrays_are_named(change, message):
    good = {"jacobian": [np.eye(2)], "linear": np.zeros((1, 2, 1)), "lower": 0.0, "upper": 1.0}
    quadratic_batch(**good)
    with pytest.raises(InvalidGameError, match=message):
        quadratic_batch(**good | change)
    with pytest.raises(InvalidGameError, match=r"skew of jacobian\[0, 0\] = 1; an agent's own block is symmetric"):
        quadratic_batch([[[1.0, 1.0], [0.0, 1.0]]], np.zeros((1, 1, 2)), 0.0, 1.0)


# --- regret


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_gains_are_those_of_the_best_deviation_by_cvxpy(levels):
    """At points that are no equilibrium: each agent's own program under what the others leave of the limits."""
    rng = np.random.default_rng(levels)
    batch = games(rng, 4, 4, levels, 3)
    points = project_batch(batch, rng.normal(size=batch.linear.shape), np.ones(batch.linear.shape)).level
    large = 0
    for e in range(4):
        game, x = batch.single(e), points[e].ravel()
        found = quadratic_gains(game, 4, points[e])
        pull = game.gradient(x)
        for i in range(4):
            own = slice(i * levels, (i + 1) * levels)
            step = cp.Variable(levels)
            hessian = game.jacobian[own, own]
            cost = pull[own] @ step + cp.quad_form(step, cp.psd_wrap(hessian)) / 2
            rules = [x[own] + step >= game.lower[own], x[own] + step <= game.upper[own]]
            rules.append(game.constraint[:, own] @ step <= np.maximum(game.limit - game.constraint @ x, 0))
            problem = cp.Problem(cp.Minimize(cost), rules)
            problem.solve(solver=cp.CLARABEL)
            assert found[i] == pytest.approx(-problem.value, abs=1e-6)
            large += found[i] > 0.1
    assert large > 2


# --- both ends of trust


@pytest.mark.parametrize(("levels", "limits"), [(1, 0), (1, 3), (2, 4)])
def test_trust_inf_is_the_equilibrium_and_trust_0_the_nearest_feasible_proposal(levels, limits):
    rng = np.random.default_rng(levels + limits)
    batch = games(rng, 6, 5, levels, limits)
    said = proposal(rng, batch)
    game = Quadratic(batch)
    own = solve_batch(batch).level
    np.testing.assert_allclose(game.tilted(said, np.inf).solve().choice.level, own, atol=1e-9)
    np.testing.assert_allclose(game.tilted(said, 1e9).solve().choice.level, own, atol=1e-5)
    at_0 = game.tilted(said, 0.0).solve().choice.level
    for e in range(6):
        np.testing.assert_allclose(at_0[e], nearest(batch, e, said.mean[e], 1 / said.spread[e] ** 2), atol=2e-5)
    np.testing.assert_allclose(game.tilted(said, 1e-8).solve().choice.level, at_0, atol=1e-5)
    apart = [np.abs(game.tilted(said, t).solve().choice.level - own).max() for t in (1e-3, 0.1, 10.0, 1e5)]
    assert apart == sorted(apart, reverse=True) and apart[0] > 10 * apart[-1]


def test_a_feasible_proposal_is_taken_at_trust_0_and_an_infinite_spread_asks_for_nothing():
    rng = np.random.default_rng(3)
    batch = games(rng, 6, 4, 2, 3)
    inside = project_batch(batch, 0.3 * rng.normal(size=batch.linear.shape), np.ones(batch.linear.shape)).level
    names = ("level 0", "level 1")
    game = Quadratic(batch)
    said = Proposal(None, inside, np.full(inside.shape, 0.2), names)
    np.testing.assert_allclose(game.tilted(said, 0.0).solve().choice.level, inside, atol=1e-9)
    nothing = game.clip(said._replace(spread=np.full(inside.shape, np.inf)), 10.0)
    own = solve_batch(batch).level
    for trust in (0.0, 0.5, np.inf):
        np.testing.assert_allclose(game.tilted(nothing, trust).solve().choice.level, own, atol=1e-9)
    assert not game.proposes(nothing) and game.proposes(said)


@pytest.mark.parametrize("limits", [0, 3])
def test_at_trust_0_levels_that_nothing_is_asked_of_settle_under_what_is_left(limits):
    """The limit of small trusts, and its definition: a projection over all feasible points, then an equilibrium."""
    rng = np.random.default_rng(limits)
    batch = games(rng, 8, 4, 2, limits)
    said = proposal(rng, batch, asked=0.5)
    asked = np.isfinite(said.spread)
    solved = Quadratic(batch).tilted(said, 0.0).solve()
    level = solved.choice.level
    assert solved.converged.all() and excess(batch, level) <= 1e-7
    np.testing.assert_allclose(Quadratic(batch).tilted(said, 1e-6).solve().choice.level, level, atol=1e-4)
    for e in range(8):
        weight = np.where(asked[e], 1 / np.where(asked[e], said.spread[e], 1.0) ** 2, 0.0)
        np.testing.assert_allclose(level[e][asked[e]], nearest(batch, e, said.mean[e], weight)[asked[e]], atol=1e-4)
    fixed = batch._replace(lower=np.where(asked, level, batch.lower), upper=np.where(asked, level, batch.upper))
    for e in range(8):
        assert quadratic_gains(fixed.single(e), 4, level[e]).max() <= 1e-6


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), agents=st.integers(1, 8), levels=st.integers(1, 3), limits=st.integers(0, 4),
    trust=st.floats(0.01, 100.0), asked=st.sampled_from([1.0, 0.6]),
)  # fmt: skip
def test_no_agent_gains_more_than_the_bound(seed, agents, levels, limits, trust, asked):
    """In the untilted game, from the tilted equilibrium, deviations keeping the shared limits; feasible throughout."""
    rng = np.random.default_rng(seed)
    batch = games(rng, 4, agents, levels, limits)
    game = Quadratic(batch)
    said = game.clip(proposal(rng, batch, asked=asked), 10.0)
    tilted = game.tilted(said, trust)
    solved = tilted.solve()
    level = solved.choice.level
    assert solved.converged.all() and solved.stable.all() and excess(batch, level) <= 1e-8
    bound, regret = tilted.bound(solved.choice, 10.0), game.regret(solved.choice)
    assert (regret <= bound + 1e-7 * (1 + bound)).all()
    # and the bound is no more than the far corner of the box would cost in the tilt
    weight = np.where(np.isfinite(said.spread), 1 / said.spread**2, 0.0)
    far = np.maximum((batch.lower - said.mean) ** 2, (batch.upper - said.mean) ** 2)
    coarse = (weight * (far - (level - said.mean) ** 2)).sum(axis=2) / (2 * trust)
    assert (bound <= coarse.max(axis=1) + 1e-9 * (1 + bound)).all()


def test_the_bound_is_reached_where_one_agent_alone_has_one_level():
    """f = (x - 1)^2 / 2, proposal 0 with spread 1 at trust 1: x = 1/2, gain 1/8, and that is the bound."""
    batch = quadratic_batch([[[1.0]]], [[[-1.0]]], -10.0, 10.0)
    said = Proposal(None, np.zeros((1, 1, 1)), np.ones((1, 1, 1)), ("level 0",))
    tilted = Quadratic(batch).tilted(said, 1.0)
    solved = tilted.solve()
    assert solved.choice.level.item() == pytest.approx(0.5)
    assert tilted.bound(solved.choice, 0.0).item() == pytest.approx(0.125)
    assert Quadratic(batch).regret(solved.choice).item() == pytest.approx(0.125)


# --- value


def test_the_value_is_the_potential_or_a_distance_that_an_equilibrium_alone_has_none_of():
    rng = np.random.default_rng(5)
    for symmetric in (True, False):
        batch = games(rng, 6, 4, 2, 3, symmetric=symmetric)
        said = proposal(rng, batch)
        tilted = Quadratic(batch).tilted(said, 2.0)
        best = tilted.solve().choice
        if symmetric:  # a deviation changes the potential by the deviator's cost
            x, y = best.level, best.level.copy()
            y[:, 1] += 0.1
            slope = batch.gradient((x + y) / 2)[:, 1].sum(axis=1) * 0.1
            np.testing.assert_allclose(value_batch(batch, y) - value_batch(batch, x), slope, atol=1e-12)
        else:
            assert tilted.value(best).max() <= 1e-7
        for _ in range(5):
            other = project_batch(batch, rng.normal(size=batch.linear.shape), np.ones(batch.linear.shape)).level
            assert (tilted.value(best) <= tilted.value(only_levels(other)) + 1e-9).all()


# --- sampling


@pytest.mark.parametrize("trust", [0.0, 0.7, 5.0])
def test_draws_follow_the_density_that_is_learned_from(trust):
    """Mean, covariance and log-density of 20,000 draws against a normal with precision 1 / s^2 + t H about x*."""
    rng = np.random.default_rng(7)
    batch = games(rng, 1, 3, 2, 2)
    wide = quadratic_batch(
        *(np.repeat(a, 20_000, axis=0) for a in batch[:4]), np.zeros((20_000, 0, 6)), np.zeros((20_000, 0))
    )
    batch = quadratic_batch(*batch[:4])
    game = Quadratic(wide)
    said = proposal(rng, batch, spread=(0.2, 1.0))
    many = said._replace(mean=np.repeat(said.mean, 20_000, 0), spread=np.repeat(said.spread, 20_000, 0))
    assert game.draws == (20_000, 3, 2)
    sample = game.sample(many, trust, rng.random(game.draws))
    centre = Quadratic(batch).tilted(said, trust).solve().choice.level[0]
    log = log_density(many, sample.pull, sample.drawn)
    assert sample.bias is None and not sample.option.any() and excess(wide, sample.choice.level) <= 1e-9
    for i in range(3):
        precision = np.diag(1 / said.spread[0, i] ** 2) + trust * batch.own()[0, i]
        cover = np.linalg.inv(precision)
        drawn = sample.drawn[:, i]
        np.testing.assert_allclose(drawn.mean(axis=0), centre[i], atol=5 * np.sqrt(np.diag(cover).max() / 20_000))
        np.testing.assert_allclose(np.cov(drawn.T), cover, atol=0.05 * np.abs(cover).max())
        np.testing.assert_allclose(log[:, i], multivariate_normal(centre[i], cover).logpdf(drawn), rtol=1e-9, atol=1e-9)


def test_the_pull_is_the_games_gradient_where_no_limit_binds():
    """Then log-density is that of the proposal times exp(-trust cost), the others at the equilibrium."""
    rng = np.random.default_rng(1)
    batch = games(rng, 5, 4, 2)._replace(lower=np.full((5, 4, 2), -50.0), upper=np.full((5, 4, 2), 50.0))
    said, trust = proposal(rng, batch), 3.0
    sample = Quadratic(batch).sample(said, trust, np.full((5, 4, 2), 0.5))
    centre = Quadratic(batch).tilted(said, trust).solve().choice.level
    np.testing.assert_allclose(sample.drawn, centre, atol=1e-9)
    rest = batch.gradient(centre) - np.einsum("enkl,enl->enk", batch.own(), centre)
    np.testing.assert_allclose(sample.pull.linear, -trust * rest, atol=1e-7)


def test_what_is_executed_in_training_is_feasible_and_certain_at_trust_inf():
    rng = np.random.default_rng(2)
    batch = games(rng, 30, 5, 2, 4)
    game, said = Quadratic(batch), proposal(rng, batch, asked=0.7)
    for trust in (0.0, 2.0, np.inf):
        sample = Coordinator("hybrid", trust).explore(game, said, rng.random(game.draws))
        assert excess(batch, sample.choice.level) <= 1e-8
        assert (np.abs(sample.drawn - sample.choice.level).max() > 0.01) == (trust < np.inf)
    np.testing.assert_allclose(sample.choice.level, solve_batch(batch).level, atol=1e-9)


# --- the coordinator


class Plain:
    """A situation of quadratic games alone: what settling does is to hand the levels over."""

    def __init__(self, batch):
        self.batch, self.settled = batch, None

    def observe(self):
        e, n, _ = self.batch.linear.shape
        one = np.zeros((e, n, 1, 1), np.float32)
        live = self.batch.live
        return Observation(one[:, :, 0], one[:, :1, 0], one, live, np.ones((e, n, 1), bool), np.array([-1]))

    def game(self, prices):
        return Quadratic(self.batch, ("volts", "vars")[: self.batch.linear.shape[2]])

    def settle(self, choice, prices, proposal=None, trust=np.inf, seating=None):
        self.settled = choice, proposal, trust, seating
        return choice.level


class Says:
    name = "says"

    def __init__(self, said):
        self.said = said

    def propose(self, observation):
        return self.said


@pytest.mark.parametrize("kind", ["hybrid", "rl", "game"])
def test_a_game_without_options_is_decided_and_settled_like_any_other(kind):
    rng = np.random.default_rng(4)
    batch = games(rng, 7, 4, 2, 3)
    said = proposal(rng, batch)._replace(levels=("volts", "vars"))
    situation, coordinator = Plain(batch), Coordinator(kind, 2.0)
    decision = coordinator.decide(situation, Says(said), None)
    plan = coordinator.settle(situation, decision, None)
    trust = {"hybrid": 2.0, "rl": 0.0, "game": np.inf}[kind]
    game: Game = situation.game(None)
    np.testing.assert_array_equal(plan, game.tilted(said, trust).solve().choice.level)
    assert decision.option.shape == (7, 4) and not decision.option.any() and decision.log_prior is None
    assert situation.settled[1] is None and decision.seating is None and excess(batch, plan) <= 1e-8
    assert decision.converged.all() and decision.stable.all() == (kind != "rl")
    assert (decision.game.regret(decision.choice) <= decision.bound + 1e-7).all()
    assert np.isinf(decision.bound).all() == (kind == "rl")
    if kind == "hybrid":
        np.testing.assert_array_equal(decision.asked.level, game.tilted(said, 0.0).solve().choice.level)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_prior": np.zeros((2, 3, 1))}, "log-priors are proposed and this game has no options"),
        ({"levels": ("volts",)}, r"levels = \(volts\); this game's are \(volts, vars\)"),
        ({"mean": np.zeros((2, 3, 1, 2))}, r"volts has shape \(2, 3, 1\); this state needs \(2, 3\)"),
        ({"spread": np.full((2, 3, 2), -1.0)}, "volts_spread = -1.0; a spread is >= 0"),
        ({"mean": np.full((2, 3, 2), np.inf)}, "volts = inf; it must be finite"),
        ({"mean": None}, "the mean is None"),
    ],
)
def test_a_proposal_that_cannot_be_used_is_named(change, message):
    rng = np.random.default_rng(0)
    batch = games(rng, 2, 3, 2)
    said = proposal(rng, batch)._replace(levels=("volts", "vars"))
    with pytest.raises(ValueError, match=message):
        Coordinator().decide(Plain(batch), Says(said._replace(**change)), None)


def test_a_sure_proposal_is_followed_as_far_as_a_spread_counts():
    batch = quadratic_batch([np.eye(2)], np.full((1, 2, 1), -1.0), 0.0, 2.0)
    said = Proposal(None, np.full((1, 2, 1), 0.25), np.zeros((1, 2, 1)), ("level 0",))
    clipped = Quadratic(batch).clip(said, 10.0)
    assert (clipped.spread == 2 * SURE).all()
    decision = Coordinator("hybrid", 5.0).decide_on(Quadratic(batch), clipped, True)
    np.testing.assert_allclose(decision.choice.level, 0.25, atol=1e-9)


def test_a_clock_that_has_run_out_leaves_feasible_boxes_and_promises_nothing():
    rng = np.random.default_rng(9)
    batch = games(rng, 3, 6, 2, 3)
    clock = Clock(0.0)
    solved = Quadratic(batch).solve(clock=clock)
    level = solved.choice.level
    assert not solved.converged.any() and clock.skipped
    assert (level >= batch.lower).all() and (level <= batch.upper).all()
    assert isinstance(solved.choice, Choice)
