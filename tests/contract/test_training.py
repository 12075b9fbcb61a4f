"""Training on every problem: resumed it is the uninterrupted run, and it pays where one step's game does not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coordinator import Coordinator
from examples.chargers import Chargers
from hybridalloc.training.checkpoints import Checkpoints
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.evaluation import evaluate
from hybridalloc.training.trainer import train
from hybridalloc.training.tuning import tune_prices


class Stop(Exception):
    pass


def same(a, b, at=""):
    """Every array, number and text of two states is the same."""
    assert type(a) is type(b), at
    if isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a:
            same(a[key], b[key], f"{at}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), at
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{at}.{k}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), at
    else:
        np.testing.assert_array_equal(a, b, at)


@pytest.mark.parametrize("belief", ["", "learned"])
def test_a_resumed_run_is_the_uninterrupted_one(moving, belief, tmp_path):
    """Stopped in the middle of a rollout, after more than one update."""
    if belief and belief not in moving.card.beliefs:
        pytest.skip(f"{moving.card.name} has no belief {belief!r}")
    a_slot = 4 * moving.card.agents
    config = TrainConfig(
        "imappo", "hybrid", 24 * a_slot, networks=4, checks=1, check_seeds=1, check_slots=1, belief=belief,
        belief_steps=2 * a_slot, settings=(("horizon", 8),),
    )  # fmt: skip
    prices = moving.card.prices()

    def interrupted(steps, figures):
        if "value_loss" in figures and steps >= 14 * a_slot:
            raise Stop

    whole = train(moving, prices, config)
    with pytest.raises(Stop):
        train(moving, prices, config, interrupted, checkpoints=Checkpoints(tmp_path / "cut", 5 * a_slot))
    resumed = train(
        moving, prices, config, checkpoints=Checkpoints(tmp_path / "on", 10**9, tmp_path / "cut" / "last.pt")
    )
    same(whole.learner.state_dict(), resumed.learner.state_dict())
    rows = lambda run: [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.updates]
    assert len(whole.updates) == -(-config.extent_on(moving.card)[1] // 8) >= 3
    same(rows(whole), rows(resumed))
    same(whole.curve, resumed.curve)
    assert (whole.allocations, whole.violations) == (resumed.allocations, 0) and whole.violations == 0
    if belief:
        same(whole.belief.state_dict(), resumed.belief.state_dict())


def test_a_headline_that_is_better_lower_is_tuned_downwards():
    tuned = tune_prices(Chargers(cars=5), Coordinator("game"), 6, seeds=4, slots=20)
    earned = [value for _, value in tuned.trials]
    assert tuned.welfare == max(earned) < 0  # its sign such that larger is better
    seen = evaluate(Chargers(cars=5), tuned.prices, Coordinator("game"), None, range(5000, 5004), slots=20)
    assert seen.means()["cost"] == pytest.approx(-tuned.welfare)


def test_the_hybrid_learns_what_no_game_of_one_ferry_sees():
    """Ten thousand agent-steps, a second or two: cheaper than the game by several standard errors, pair by pair."""
    problem, prices, seeds = Chargers(), Chargers().card.prices(), range(10000, 10020)
    trained = train(problem, prices, TrainConfig("imappo", "hybrid", 10_000, networks=16, checks=0))
    assert trained.violations == 0
    run = lambda coordinator, policy: evaluate(problem, prices, coordinator, policy, seeds, slots=60).metrics["cost"]
    gain = run(Coordinator("game"), None) - run(Coordinator("hybrid"), trained.learner.policy)
    assert gain.mean() > 0.02 and gain.mean() > 5 * gain.std() / len(seeds) ** 0.5
