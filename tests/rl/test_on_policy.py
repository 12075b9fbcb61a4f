"""IPPO, MAPPO, PPO and A2C: the enumerated optimum or the enumerated equilibrium, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl.a2c import A2c, A2cConfig
from rl.lagrangian import LagrangianConfig
from rl.mappo import Ippo, IppoConfig, Mappo, MappoConfig, OwnCritic
from rl.networks import Critic
from rl.on_policy import ValueNorm, executed_log_density, generalised_advantage
from rl.ppo import Ppo, PpoConfig

ONE_SLOT = {"gamma": 0.0}
CASES = {
    "mappo": (Mappo, MappoConfig(horizon=16, **ONE_SLOT), 24),
    "ippo": (Ippo, IppoConfig(horizon=16, **ONE_SLOT), 24),
    "ppo": (Ppo, PpoConfig(horizon=16, **ONE_SLOT), 24),
    "a2c": (A2c, A2cConfig(horizon=4, **ONE_SLOT), 150),
}


def train(lab, name, game, bias=0.0, **changes):
    make, config, updates = CASES[name]
    config = type(config)(**(vars(config) | changes))
    learner = make(lab.Sizes.of(game.observe()), config, seed=1)
    lab.play(learner, game, updates, bias=bias)
    return learner


def test_the_problem_tells_team_from_selfish_play(lab):
    """One team optimum, without another local one, and one equilibrium, which is another and pays less."""
    game = lab.ServerContexts()
    (best,), (nash,) = game.team_optima(), game.equilibria()
    value = game.enumerate().mean(-1)
    assert value[tuple(best)] == value.max() > value[tuple(nash)] + 0.05


@pytest.mark.parametrize("name", ["mappo", "ppo", "a2c"])
def test_team_pay_finds_the_team_optimum(lab, name):
    game = lab.ServerContexts()
    np.testing.assert_array_equal(game.table(train(lab, name, game)), game.team_optima()[0])


def test_the_difference_reward_finds_the_team_optimum(lab):
    game = lab.ServerContexts(credit="difference")
    learner = train(lab, "mappo", game, credit="difference")
    np.testing.assert_array_equal(game.table(learner), game.team_optima()[0])


def test_independent_agents_paid_by_themselves_end_in_the_selfish_equilibrium(lab):
    """IPPO's known failure, and the seed's reason for a game: the enumerated Nash equilibrium, not the optimum."""
    game = lab.ServerContexts()
    np.testing.assert_array_equal(game.table(train(lab, "ippo", game)), game.equilibria()[0])


@pytest.mark.parametrize("name", list(CASES))
def test_inside_the_hybrid_the_residual_corrects_a_game_that_is_wrong(lab, name):
    """The game's part favours the worst joint choice by 3 nats an agent; the executed argmax is the best one."""
    payoff = np.array([[0.0, 0.2, 0.4], [0.2, 0.5, 0.7], [0.3, 0.6, 1.0]])
    game = lab.MatrixGame(payoff, networks=32)
    bias = np.array([3.0, 0.0, 0.0])
    learner = train(lab, name, game, bias, credit="team")
    assert game.greedy(learner, bias) == game.optimum
    np.testing.assert_array_equal(lab.greedy(learner, game.view, 0.0)[0], [2, 2])


@pytest.mark.parametrize("name", list(CASES))
def test_foresight(lab, name):
    """On the chain the next payment lies the other way: the greedy policy is that of value iteration."""
    game = lab.Chain(agents=2, networks=16)
    learner = train(lab, name, game, gamma=0.9, credit="own")
    policy = lab.greedy(learner, game.view_of(np.tile(np.arange(4)[:, None], 2)))
    best = game.q_star(0.9).argmax(1)
    np.testing.assert_array_equal(policy, np.tile(best[:, None], 2))
    assert best[0] == 1  # where the payment at once is for stepping back


def test_generalised_advantage_against_its_definition():
    rng = np.random.default_rng(0)
    t, e, n, gamma, lam = 7, 2, 3, 0.8, 0.6
    reward, value, after = (rng.normal(size=(t, e, n)) for _ in range(3))
    following = rng.normal(size=(e, n))
    cut = np.zeros((t, e), bool)
    cut[3, 0] = cut[5, 1] = True
    got = generalised_advantage(reward, value, following, cut, after, gamma, lam)
    for start in range(t):
        for net in range(e):
            total = np.zeros(n)
            for k in range(start, t):
                ahead = after[k, net] if cut[k, net] else following[net] if k == t - 1 else value[k + 1, net]
                total += (gamma * lam) ** (k - start) * (reward[k, net] + gamma * ahead - value[k, net])
                if cut[k, net]:
                    break
            np.testing.assert_allclose(got[start, net], total, rtol=1e-12)


def test_value_norm_is_debiased():
    norm = ValueNorm(keep=0.9)
    values = [np.array([2.0, 4.0]), np.array([5.0, 7.0])]
    for v in values:
        norm.update(v)
    weights = np.array([0.9, 1.0]) / 1.9
    mean = weights @ [3.0, 6.0]
    assert norm.centre == pytest.approx(mean)
    assert norm.spread == pytest.approx((weights @ [10.0, 37.0] - mean**2) ** 0.5)


def test_executed_density_matches_the_coordinators_strategy():
    from coordinator.merge import clip_prior, prior_strategy

    rng = np.random.default_rng(1)
    raw, bias = 8 * rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 4))
    allowed = rng.random((2, 5, 4)) < 0.7
    allowed[..., 0] = True
    log_pi = executed_log_density(*map(torch.from_numpy, (raw, bias, allowed)), 3.0)
    expected = prior_strategy(clip_prior(raw, allowed, 3.0) + bias, allowed)
    np.testing.assert_allclose(log_pi.exp().numpy(), expected, atol=1e-12)


def test_a_decentralised_critic_reads_nothing_of_other_agents_and_a_centralised_one_does(lab):
    sizes = lab.Sizes(4, 2, 3)
    own, resource = torch.randn(1, 3, 4 + 9), torch.randn(1, 2, 2)
    other = own.clone()
    other[0, 1:] += 1.0
    torch.manual_seed(0)
    for critic, reads in ((OwnCritic(sizes), False), (Critic(sizes), True)):
        same = torch.equal(critic(own, resource)[0, 0], critic(other, resource)[0, 0])
        assert same is not reads


def test_a_gradient_that_is_not_finite_stops_and_leaves_the_weights(lab):
    game = lab.MatrixGame([[0.0, 1.0], [1.0, np.nan]], networks=8)
    learner = Mappo(lab.Sizes.of(game.observe()), MappoConfig(horizon=4), 0)
    before = {k: v.clone() for k, v in learner.actor.state_dict().items()}
    with pytest.raises(FloatingPointError, match="not finite"):
        lab.play(learner, game, 1)
    for k, v in learner.actor.state_dict().items():
        assert torch.equal(v, before[k])


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match=r"credit = 'regoin'.*team, region, own, difference"):
        MappoConfig(credit="regoin")
    with pytest.raises(ValueError, match=r"critic = 'graph'.*central, light, own"):
        MappoConfig(critic="graph")


@pytest.mark.parametrize("critic", ["central", "light", "own"])
def test_a_critic_of_gain_0_says_the_same_of_every_state(lab, critic):
    own, resource = (
        np.random.default_rng(0).normal(size=(2, 5, 3, 13)).astype(np.float32),
        np.ones((5, 2, 2), np.float32),
    )
    said = lambda gain: Mappo(lab.Sizes(4, 2, 3), MappoConfig(critic=critic, critic_gain=gain), 0).values(
        own[0], resource
    )
    assert np.ptp(said(0.0)) == 0.0 < np.ptp(said(1.0))


def test_the_costs_critic_learns_from_the_present_policy_alone():
    with pytest.raises(ValueError, match=r"replay = 2; .*set it to 0"):
        LagrangianConfig(replay=2)
