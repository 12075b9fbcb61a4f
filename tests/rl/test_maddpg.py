"""MADDPG: the relaxed sample is a sample; the enumerated optimum is found, alone and against a wrong game."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl.maddpg import JointCritic, Maddpg, MaddpgConfig

FAST = {"horizon": 16, "batch": 64, "capacity": 128}


def train(lab, game, updates, bias=0.0, seed=1, **changes):
    learner = Maddpg(lab.Sizes.of(game.observe()), MaddpgConfig(**(FAST | changes)), seed)
    lab.play(learner, game, updates, bias=bias)
    return learner


@pytest.mark.parametrize("credit", ["team", "difference"])
def test_the_team_optimum_is_found(lab, credit):
    game = lab.ServerContexts(credit="difference" if credit == "difference" else "own")
    learner = train(lab, game, 40, gamma=0.0, credit=credit)
    np.testing.assert_array_equal(game.table(learner), game.team_optima()[0])


def test_inside_the_hybrid_the_residual_corrects_a_game_that_is_wrong(lab):
    game = lab.MatrixGame([[0.0, 0.2, 0.4], [0.2, 0.5, 0.7], [0.3, 0.6, 1.0]], networks=32)
    bias = np.array([3.0, 0.0, 0.0])
    assert game.greedy(train(lab, game, 30, bias, gamma=0.0), bias) == game.optimum


def test_foresight(lab):
    game = lab.Chain(agents=2, networks=16)
    learner = train(lab, game, 50, gamma=0.8)
    policy = lab.greedy(learner, game.view_of(np.tile(np.arange(4)[:, None], 2)))
    np.testing.assert_array_equal(policy, np.tile(game.q_star(0.8).argmax(1)[:, None], 2))


def test_draws_follow_the_executed_strategy_and_carry_its_gradient(lab):
    learner = Maddpg(lab.Sizes(2, 1, 3), MaddpgConfig(), 0)
    p = torch.tensor([0.6, 0.3, 0.1, 0.0])
    log_pi = p.log().expand(20000, 4).clone().requires_grad_(True)
    drawn = learner.draw(log_pi)
    assert set(drawn.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.detach().mean(0), p, atol=0.015, rtol=0.0)
    (slope,) = torch.autograd.grad((drawn * torch.tensor([0.0, 1.0, 0.0, 0.0])).sum(), log_pi)
    assert slope[:, 1].mean() > 0 > slope[:, 0].mean()  # more of the rewarded option, less of the rest
    torch.testing.assert_close(slope.sum(1), torch.zeros(20000), atol=1e-5, rtol=0.0)


def test_the_critic_reads_all_actions_and_its_own_is_the_one_that_is_varied(lab):
    torch.manual_seed(0)
    critic = JointCritic(lab.Sizes(4, 2, 3), 16)
    slot = {
        "agent": torch.randn(1, 3, 4), "pair": torch.randn(1, 3, 5, 3), "resource": torch.randn(1, 2, 2),
        "own": torch.randn(1, 3, 13), "live": torch.ones(1, 3, dtype=torch.bool),
    }  # fmt: skip
    of = torch.tensor([-1, 0, 1, 0, 1])
    eye = torch.eye(5)
    a, b = eye[[0, 1, 2]][None], eye[[3, 1, 2]][None]
    q, mine, seen = critic(slot, a, a, of), critic(slot, b, a, of), critic(slot, a, b, of)
    changed = lambda x: ((x - q).abs() > 1e-5)[0].tolist()
    assert changed(mine) == [True, False, False]
    assert changed(seen) == [False, True, True]
