"""Learners of levels and of shares of the room on the feeder, alone and inside the hybrid, one agent for all too."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import Coordinator
from hybridalloc.problems import make_problem
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.learners import LEVELS_ALONE
from hybridalloc.training.trainer import train

PROBLEM = make_problem("voltage", variant="mapdn", levels=5, rounds=1)
PRICES = PROBLEM.card.prices(slope=0.0)
OTHERS = ("iql", "vdn", "qmix", "ppo")


@pytest.mark.parametrize("kind", ["rl", "hybrid"])
@pytest.mark.parametrize("name", [*LEVELS_ALONE, *OTHERS])
def test_it_trains_and_what_it_says_is_executed(name, kind):
    horizon = {"horizon": 8, **({} if name in ("ppo", "imappo", "mappo", "ippo") else {"warmup": 4, "batch": 16})}
    config = TrainConfig(name, kind, 2 * 6 * 24, networks=2, checks=0, settings=tuple(horizon.items()))
    trained = train(PROBLEM, PRICES, config)
    policy = trained.learner.policy
    assert len(trained.updates) == 3 and trained.violations == 0 and trained.allocations == 48
    assert all(np.isfinite(value) for row in trained.updates for value in row.values())
    world = PROBLEM.worlds([10_000, 10_001])
    decided = lambda who: who.settle(world, who.decide(world, policy, PRICES), PRICES).level
    room, said = world.most, policy.propose(world.observe())
    alone = decided(Coordinator("rl"))
    if name in LEVELS_ALONE:  # its mean, as far as there is room
        assert said.log_prior is None and said.levels == ("reactive_mvar",)
        np.testing.assert_allclose(alone, np.clip(said.mean[..., 0], -room, room), atol=1e-9)
    else:  # the share of the room that it prefers
        assert said.mean is None and said.log_prior.shape == (2, 6, 5)
        taken = np.take_along_axis(
            said.log_prior, np.abs(PROBLEM.marks - (alone / room)[..., None]).argmin(2)[..., None], 2
        )
        np.testing.assert_allclose(taken[..., 0], said.log_prior.max(2), atol=1e-5)
    game = decided(Coordinator("game"))
    far = np.abs(decided(Coordinator("hybrid", 1.0)) - game).max()
    near = np.abs(decided(Coordinator("hybrid", 1e9)) - game).max()
    assert near < 1e-3 and near <= far + 1e-9
