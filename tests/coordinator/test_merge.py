"""Merging a proposal and a game: both ends of trust, the epsilon bound on mec's games, sampling, choosing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from coordinator import Coordinator, clip_prior, equilibrate, explore
from coordinator.budget import Clock
from coordinator.choose import choose_best
from coordinator.congestion import Congestion, model_cost
from coordinator.coordinator import game_of
from coordinator.game import only_options
from coordinator.merge import flat_prior
from games.best_response import best_response_batch
from games.certificate import measure_regret, measure_residual
from games.congestion import CongestionBatch, CongestionGame
from hybridalloc.problems import make_problem
from rl.imappo import Imappo
from rl.learner import Executed
from rl.networks import Sizes


def situations(count, agents=12, servers=3, seed=0, slots=3, **changes):
    """Mec's games on ``count`` networks some slots in, with reach masks, and their batch."""
    problem = make_problem("mec", agents=agents, servers=servers, **changes)
    batch = problem.worlds(range(seed, seed + count))
    rng = np.random.default_rng(seed)
    prices = problem.card.prices(toll=1.3)
    for _ in range(slots):
        batch.execute(batch.settle(batch.baseline("random", rng), prices))
        batch.drift()
    batch.world.reachable[:] = rng.random(batch.world.reachable.shape) < 0.9
    return batch, prices, rng


def single(game, e):
    return CongestionGame(
        game.options, game.weight[e], game.capacity[e], game.private_cost[e], game.allowed[e], game.toll[e]
    )


def random_prior(rng, game, limit, sharpness):
    return clip_prior(rng.normal(0, sharpness, game.private_cost.shape), game.allowed, limit)


def test_clip_prior_shifts_the_best_allowed_option_to_0_and_floors_the_rest():
    raw = np.array([[[5.0, 3.0, -20.0], [9.0, 1.0, 2.0]]])
    allowed = np.array([[[True, True, True], [False, True, True]]])
    assert clip_prior(raw, allowed, 10.0).tolist() == [[[0.0, -2.0, -10.0], [0.0, -1.0, 0.0]]]
    assert clip_prior(raw - 7, allowed, 10.0).tolist() == clip_prior(raw, allowed, 10.0).tolist()
    rng = np.random.default_rng(0)
    many = rng.normal(0, 30, (50, 8, 6))
    mask = rng.random(many.shape) < 0.7
    mask[..., 0] = True
    z = clip_prior(many, mask, 4.0)
    assert z.min() >= -4 and (np.where(mask, z, -np.inf).max(axis=-1) == 0).all()
    assert np.array_equal(z, clip_prior(z, mask, 4.0))
    assert clip_prior(np.zeros((2, 0, 5)), np.ones((2, 0, 5), bool), 1.0).shape == (2, 0, 5)
    minus_inf = clip_prior(np.array([[[0.0, -np.inf]]]), np.ones((1, 1, 2), bool), 3.0)
    assert minus_inf.tolist() == [[[0.0, -3.0]]]


def test_trust_0_is_the_filtered_proposals_argmax():
    batch, prices, rng = situations(40)
    game = batch.game(prices)
    raw = rng.normal(0, 3, game.private_cost.shape)
    option = equilibrate(game, clip_prior(raw, game.allowed, 10.0), 0.0).option
    wanted = np.where(game.allowed, raw, -np.inf).argmax(axis=-1)
    assert np.array_equal(option[game.live], wanted[game.live])
    assert not option[~game.live].any()
    for coordinator in (Coordinator("rl"), Coordinator("hybrid", trust=0.0)):
        decision = coordinator.decide_on(game, clip_prior(raw, game.allowed, 10.0), True)
        assert np.array_equal(decision.option, option) and np.array_equal(decision.raw, option)
        assert coordinator.epsilon_bound == np.inf


def test_trust_inf_and_kind_game_are_nash():
    batch, prices, rng = situations(100)
    game = batch.game(prices)
    prior = random_prior(rng, game, 10.0, 3.0)
    for found in (
        equilibrate(game, prior, np.inf).option,
        Coordinator("game").decide_on(game, prior, False).option,
        Coordinator("hybrid", trust=np.inf).decide_on(game, prior, True).option,
    ):
        assert max(measure_regret(single(game, e), found[e]) for e in range(100)) <= 1e-9
    assert Coordinator("game").epsilon_bound == Coordinator("hybrid", trust=np.inf).epsilon_bound == 0.0


@pytest.mark.parametrize(("limit", "trust", "sharpness"), [(10.0, 10.0, 5.0), (3.0, 30.0, 5.0), (10.0, 2.0, 50.0)])
@pytest.mark.parametrize("choose", [True, False])
def test_epsilon_bound_holds_on_mec_states_with_random_priors(limit, trust, sharpness, choose):
    """6 x 350 = 2,100 states; regret measured from the definition on the game as the certificate gets it."""
    batch, prices, rng = situations(350, seed=int(1000 * limit))
    game = batch.game(prices)
    prior = random_prior(rng, game, limit, sharpness)
    coordinator = Coordinator("hybrid", trust, limit, choose)
    decision = coordinator.decide_on(game, prior, True)
    assert coordinator.epsilon_bound == limit / trust
    regret = [measure_regret(single(game, e), decision.option[e]) for e in range(350)]
    assert max(regret) <= coordinator.epsilon_bound + 1e-9
    assert np.mean(np.array(regret) > 0.01) > 0.2  # the prior does pull away from the equilibrium
    for e in range(0, 350, 50):
        alone = game_of(batch.problem.world_at(batch.state(e)).game(prices)).single(0)
        assert measure_regret(alone, decision.option[e]) == pytest.approx(regret[e], abs=1e-6)


def test_a_flat_prior_is_the_game():
    batch, prices, _ = situations(60)
    game = batch.game(prices)
    zero = np.zeros_like(game.private_cost)
    decision = Coordinator("hybrid", 10.0).decide_on(game, zero, False)
    assert max(measure_regret(single(game, e), decision.option[e]) for e in range(60)) <= 1e-9
    alone = Coordinator("game").decide_on(game, zero, False)
    assert (model_cost(game, decision.option, zero) <= model_cost(game, alone.option, zero) + 1e-9).all()


def test_options_are_allowed_and_idle_agents_opt_out():
    batch, prices, rng = situations(60)
    game = batch.game(prices)
    prior = random_prior(rng, game, 10.0, 5.0)
    for settings in ({"kind": "rl"}, {"kind": "game"}, {}, {"choose": False}):
        coordinator = Coordinator(**settings)
        for option in (
            coordinator.decide_on(game, prior, True).option,
            coordinator.explore(game, prior, rng.random(game.live.shape)).option,
        ):
            assert np.take_along_axis(game.allowed, option[..., None], -1).all()
            assert not option[~game.live].any()


def test_decisions_are_the_same_alone_and_in_a_batch():
    batch, prices, rng = situations(10)
    game = batch.game(prices)
    prior = random_prior(rng, game, 10.0, 4.0)
    many = Coordinator("hybrid").decide_on(game, prior, True)
    for e in range(10):
        part = game._replace(**{k: getattr(game, k)[e : e + 1] for k in game._fields if k != "options"})
        one = Coordinator("hybrid").decide_on(part, prior[e : e + 1], True)
        assert np.array_equal(one.option[0], many.option[e])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "hybird"}, "kind = 'hybird'; choose one of hybrid, rl, game"),
        ({"trust": -1.0}, r"trust = -1.0; it must be >= 0"),
        ({"trust": float("nan")}, r"trust = nan; it must be >= 0"),
        ({"limit": -2.0}, r"limit = -2.0; it must be >= 0"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Coordinator(**arguments)


# --- choose


def potential_of(game, e, option, tilt):
    """From the definition, by the one-game class."""
    own = tilt[e][np.arange(len(option)), option]
    return single(game, e).potential(option) + own[game.live[e]].sum()


def test_model_cost_is_the_tilted_potential():
    batch, prices, rng = situations(20)
    game = batch.game(prices)
    tilt = rng.random(game.private_cost.shape)
    option = batch.settle(batch.baseline("random", rng), prices).option
    got = model_cost(game, option, tilt)
    assert np.allclose(got, [potential_of(game, e, option[e], tilt) for e in range(20)], rtol=1e-12)


@pytest.mark.parametrize("trust", [1.0, 10.0, 100.0])
def test_choose_is_never_above_either_parent_on_the_model(trust):
    batch, prices, rng = situations(200)
    game = batch.game(prices)
    prior = random_prior(rng, game, 10.0, 3.0)
    tilt = -prior / trust
    proposal = equilibrate(game, prior, 0.0).option
    alone = equilibrate(game, prior, np.inf).option
    merged = equilibrate(game, prior, trust).option
    decision = Coordinator("hybrid", trust).decide_on(game, prior, True)
    mine = model_cost(game, decision.option, tilt)
    for parent in (proposal, alone, merged):
        assert (mine <= model_cost(game, parent, tilt) + 1e-9).all()
    assert (mine < model_cost(game, proposal, tilt) - 1e-6).any()
    assert (mine < model_cost(game, alone, tilt) - 1e-6).any()
    assert set(decision.origin.tolist()) <= {0, 1, 2} and (decision.origin == 0).any()


def test_choose_best_keeps_the_first_of_a_tie_and_leaves_the_starts_alone():
    batch, prices, rng = situations(30)
    game = batch.game(prices)
    zero = np.zeros_like(game.private_cost)
    start = equilibrate(game, zero, np.inf).option
    held = start.copy()
    tilted = Congestion(game)
    found, winner, _ = choose_best(tilted, [only_options(start), only_options(start.copy())])
    assert not winner.any() and np.array_equal(start, held) and np.array_equal(found.option, held)
    worse = batch.settle(batch.baseline("random", rng), prices).option
    before = worse.copy()
    found, winner, _ = choose_best(tilted, [only_options(worse), only_options(start)])
    assert np.array_equal(worse, before)
    improved = worse.copy()
    best_response_batch(game, improved, 1e-10, 200)
    lower = np.minimum(model_cost(game, improved, zero), model_cost(game, start, zero))
    assert np.allclose(model_cost(game, found.option, zero), lower, atol=1e-9)


# --- explore


@pytest.mark.parametrize("trust", [0.0, 5.0, 20.0])
def test_explore_draws_from_the_strategy_whose_log_density_is_learned_from(trust):
    """Chi-square of 40,000 draws a game against softmax(log prior + bias), and the density that Imappo stores."""
    batch, prices, rng = situations(3, agents=6)
    game = batch.game(prices)
    prior = random_prior(rng, game, 10.0, 1.5)
    e, n, o = prior.shape
    draws = 40_000
    first = explore(game, prior, trust, rng.random((e, n)))
    logits = np.where(game.allowed, prior + first.bias, -np.inf)
    sigma = np.exp(logits - logits.max(axis=-1, keepdims=True))
    sigma /= sigma.sum(axis=-1, keepdims=True)
    tally = np.zeros((e, n, o))
    # one solve serves all draws: the equilibrium does not depend on them
    wide = game._replace(**{k: np.repeat(getattr(game, k), 200, axis=0) for k in game._fields if k != "options"})
    for _ in range(draws // 200):
        merged = explore(wide, np.repeat(prior, 200, axis=0), trust, rng.random((e * 200, n)))
        assert np.array_equal(merged.bias[::200], first.bias)
        np.add.at(tally, (np.arange(e * 200)[:, None] // 200, np.arange(n)[None], merged.option), 1)
    statistic, freedom = 0.0, 0
    for i, j in np.argwhere(game.live):
        expected = draws * sigma[i, j]
        often = expected >= 5
        assert tally[i, j][expected == 0].sum() == 0
        seen, want = tally[i, j][often], expected[often]
        if (~often).any() and expected[~often].sum() > 0:
            seen, want = np.append(seen, tally[i, j][~often].sum()), np.append(want, expected[~often].sum())
        if len(want) > 1 and want.min() >= 1:
            statistic += ((seen - want) ** 2 / want).sum()
            freedom += len(want) - 1
    assert freedom >= 5
    assert chi2.sf(statistic, freedom) > 1e-3
    observation = batch.observe()
    learner = Imappo(Sizes.of(observation))
    zero = np.zeros((e, n))
    learner.record(
        Executed(observation, first.option, prior, first.bias, zero, np.zeros((e, n, 5)), np.zeros(e, bool), None)
    )
    stored = learner.slots[0]["old"]
    taken = np.log(np.take_along_axis(sigma, first.option[..., None], -1)[..., 0])
    assert np.allclose(stored[game.live], taken[game.live], rtol=1e-6, atol=1e-6)


def test_explore_is_the_gibbs_prior_equilibrium():
    batch, prices, rng = situations(20)
    game = batch.game(prices)
    prior = random_prior(rng, game, 10.0, 2.0)
    merged = explore(game, prior, 10.0, rng.random(game.live.shape))
    logits = np.where(game.allowed, prior + merged.bias, -np.inf)
    sigma = np.exp(logits - logits.max(axis=-1, keepdims=True))
    sigma /= sigma.sum(axis=-1, keepdims=True)
    for e in np.flatnonzero(merged.converged):
        idle = ~game.live[e]
        sigma[e, idle] = 0.0
        sigma[e, idle, 0] = 1.0
        assert measure_residual(single(game, e), np.where(idle[:, None], 0.0, prior[e]), 10.0, sigma[e]) < 5e-3
    assert merged.converged.mean() > 0.6


def test_a_draw_of_0_does_not_take_a_forbidden_option():
    batch, prices, _ = situations(5)
    game = batch.game(prices)
    allowed = game.allowed.copy()
    allowed[..., 0] = False
    allowed[..., 1] = True
    game = game._replace(allowed=allowed)
    for uniform in (0.0, 1 - 2.0**-53):
        option = explore(game, flat_prior(game), 3.0, np.full(game.live.shape, uniform)).option
        assert np.take_along_axis(allowed, option[..., None], -1)[..., 0][game.live].all()


def test_merging_at_once_is_merging_stage_by_stage():
    rng = np.random.default_rng(11)
    for k in range(60):
        n, r = int(rng.integers(0, 9)), int(rng.integers(1, 5))
        batch = random_games(rng, 2, n, r)
        prior = clip_prior(rng.normal(size=batch.private_cost.shape) * 4, batch.allowed, 10.0)
        for choose in (True, False):
            c = Coordinator("hybrid", float(rng.choice([0.3, 5.0, 40.0])), choose=choose)
            at_once, staged = c.decide_on(batch, prior, k % 4 > 0), c.decide_on(batch, prior, k % 4 > 0, Clock(1e9))
            for name in ("option", "raw", "origin", "converged", "stable", "bound"):
                assert np.array_equal(getattr(at_once, name), getattr(staged, name)), name


def random_games(rng, games, n, r):
    options = np.array([[-1, -1], *([q, r] for q in range(r))])
    allowed = rng.random((games, n, 1 + r)) < 0.8
    allowed[..., 0] = True
    return CongestionBatch(
        options, rng.uniform(0.1, 1, (games, n, r + 1)), rng.uniform(0.5, 2, (games, r + 1)),
        rng.uniform(0, 2, (games, n, 1 + r)), allowed, rng.random((games, n)) < 0.8, rng.uniform(0, 1, (games, r + 1)),
    )  # fmt: skip
