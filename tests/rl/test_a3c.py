"""A3C: one worker is A2C to the last bit; several are stale, reproducible, and still find the optimum."""

from __future__ import annotations

import numpy as np
import pytest

from rl.a2c import A2c, A2cConfig
from rl.a3c import A3c, A3cConfig


def test_one_worker_is_a2c(lab):
    weights = []
    for make, config in ((A2c, A2cConfig(horizon=4)), (A3c, A3cConfig(horizon=4, workers=1))):
        game = lab.Chain(networks=8)
        learner = make(lab.Sizes.of(game.observe()), config, seed=2)
        lab.play(learner, game, 12, episode=5)
        weights.append(learner.policy.weights)
    for k, v in weights[0].items():
        np.testing.assert_array_equal(v, weights[1][k])


def test_workers_act_on_stale_copies_and_take_turns(lab):
    game = lab.Chain(networks=8)
    learner = A3c(lab.Sizes.of(game.observe()), A3cConfig(horizon=8, workers=4), seed=0)
    turns = []
    for _ in range(8):
        lab.play(learner, game, 1)
        turns.append(sorted(len(w.slots) for w in learner.workers))
    assert turns[0] == [0, 2, 2, 2]  # the first worker's rollout was cut to two slots, so they stay apart
    assert all(row == [0, 2, 4, 6] for row in turns[3:])
    view = game.observe()
    shared = learner.policy.propose(view).log_prior
    stale = [np.abs(learner.propose(view).log_prior[w::4] - shared[w::4]).max() for w in range(4)]
    assert min(stale) == 0 < sorted(stale)[1]  # the one that has just fetched, and the others


def test_it_is_a_function_of_the_seed_with_any_number_of_workers(lab):
    runs = []
    for seed in (0, 0, 1):
        game = lab.Chain(networks=8)
        learner = A3c(lab.Sizes.of(game.observe()), A3cConfig(horizon=4, workers=3), seed)
        runs.append(lab.play(learner, game, 9))
    assert runs[0] == runs[1] != runs[2]


def test_team_pay_finds_the_team_optimum(lab):
    game = lab.ServerContexts()
    learner = A3c(lab.Sizes.of(game.observe()), A3cConfig(horizon=4, workers=4, gamma=0.0), seed=1)
    lab.play(learner, game, 600)
    np.testing.assert_array_equal(game.table(learner), game.team_optima()[0])


def test_inside_the_hybrid_the_residual_corrects_a_game_that_is_wrong(lab):
    game = lab.MatrixGame([[0.0, 0.2, 0.4], [0.2, 0.5, 0.7], [0.3, 0.6, 1.0]], networks=32)
    bias = np.array([3.0, 0.0, 0.0])
    learner = A3c(lab.Sizes.of(game.observe()), A3cConfig(horizon=4, workers=4, gamma=0.0), seed=1)
    lab.play(learner, game, 600, bias=bias)
    assert game.greedy(learner, bias) == game.optimum


def test_foresight(lab):
    game = lab.Chain(agents=2, networks=16)
    learner = A3c(lab.Sizes.of(game.observe()), A3cConfig(workers=4, credit="own"), seed=1)
    lab.play(learner, game, 400)
    policy = lab.greedy(learner, game.view_of(np.tile(np.arange(4)[:, None], 2)))
    np.testing.assert_array_equal(policy, np.tile(game.q_star(0.9).argmax(1)[:, None], 2))


def test_more_workers_than_networks(lab):
    game = lab.MatrixGame([[0.0, 1.0], [1.0, 2.0]], networks=2)
    learner = A3c(lab.Sizes.of(game.observe()), A3cConfig(horizon=4, workers=5), seed=0)
    logs = lab.play(learner, game, 6)
    assert all(np.isfinite(list(row.values())).all() for row in logs)
    with pytest.raises(ValueError, match=r"workers = 0; it must be a whole number >= 1"):
        A3cConfig(workers=0)
