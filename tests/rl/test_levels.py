"""Levels alone: the density of what was drawn, and learning it where the optimum is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from coordinator.game import Pull
from coordinator.quadratic import log_density
from rl.imappo import ImappoConfig
from rl.learner import Executed
from rl.levels import log_drawn
from rl.policy import ArrayPolicy, wrong_weights
from rl.proposal import Observation, Proposal, Sizes, lens
from rl.registry import make_learner

BOX = ((-1.0, 1.0), (0.0, 3.0))


@pytest.mark.parametrize("levels", [1, 2])
def test_the_density_is_that_of_the_coordinators_draw(levels):
    rng = np.random.default_rng(levels)
    low, high = np.array(BOX[:levels]).T
    shape = (3, 4, levels)
    raw = 0.3 * rng.normal(size=(*shape, 2))
    factor = rng.normal(size=(3, 4, levels, levels))
    curvature, linear, drawn = factor @ np.swapaxes(factor, -1, -2), rng.normal(size=shape), rng.normal(size=shape)
    t = torch.from_numpy
    log, entropy = log_drawn(t(drawn), t(linear), t(curvature), t(raw), t(low), t(high), 0.2)
    mean = low + (high - low) * (0.5 + raw[..., 0])
    spread = (high - low) * 0.2 * np.exp(raw[..., 1])
    proposal = Proposal(None, mean, spread, ("a", "b")[:levels])
    np.testing.assert_allclose(log.numpy(), log_density(proposal, Pull(linear, curvature), drawn), atol=1e-9)
    for e, i in np.ndindex(3, 4):
        precision = np.diag(1 / spread[e, i] ** 2) + curvature[e, i]
        centre = np.linalg.solve(precision, mean[e, i] / spread[e, i] ** 2 + linear[e, i])
        law = multivariate_normal(centre, np.linalg.inv(precision))
        assert log[e, i].item() == pytest.approx(law.logpdf(drawn[e, i]), abs=1e-8)
        assert entropy[e, i].item() == pytest.approx(law.entropy(), abs=1e-8)


def seen(rng, worlds=16, agents=3, options=5):
    """Agents with one number each; options are marks, the feeder's is a row of its own."""
    agent = rng.uniform(-1, 1, (worlds, agents, 1)).astype(np.float32)
    resource = rng.uniform(-1, 1, (worlds, 1, 1)).astype(np.float32)
    pair = np.zeros((worlds, agents, options, 1), np.float32)
    live, allowed = np.ones((worlds, agents), bool), np.ones((worlds, agents, options), bool)
    return Observation(agent, resource, pair, live, allowed, np.array([-1, 0, 0, 0, 0]))


def settings(**more):
    given = dict(continuous=("q",), ranges=((-1.0, 1.0),), alone=True, gamma=0.0, gae=0.0, entropy=0.0, rate=1e-3)
    return given | dict(epochs=4, horizon=16) | more


def trained(updates, pulled, name="imappo", pay=(1.0, 0.0), team=False, steps=4):
    """On -(x - (agent + resource) / 2)^2, drawn alone or beside a game that pulls towards 0, paid in units ``pay[0]``
    from ``pay[1]`` on; of a ``team`` each is paid what all of them are off together."""
    rng = np.random.default_rng(0)
    off_policy = dict(continuous=("q",), ranges=((-1.0, 1.0),), gamma=0.0, horizon=16, updates=steps)
    given = off_policy if name == "maddpg" else settings()
    learner = make_learner(name, Sizes.of(seen(rng)), 0, given)
    assert learner.name == name
    errors = []
    while learner.updates < updates:
        now = seen(rng)
        said = learner.propose(now)
        assert said.log_prior is None and said.mean.shape == (16, 3, 1) and said.levels == ("q",)
        curvature = np.full((16, 3, 1, 1), 2.0 if pulled else 0.0)
        precision = 1 / said.spread**2 + curvature[..., 0]
        centre = said.mean / said.spread**2 / precision  # the game's pull is towards 0
        drawn = centre + rng.standard_normal(centre.shape) / np.sqrt(precision)
        aim = (now.agent + now.resource) / 2
        reward = -((drawn - aim)[..., 0] ** 2)
        if team:
            reward = np.repeat(reward.sum(1, keepdims=True), 3, 1)
        reward = pay[0] * reward + pay[1]
        errors.append(float(np.mean((centre - aim) ** 2)))
        none = np.zeros((16, 3, 1))
        learner.record(Executed(
            now, np.zeros((16, 3), np.int64), none, none, reward, none, np.zeros(16, bool), None,
            blended={"drawn": drawn, "linear": np.zeros_like(drawn), "curvature": curvature},
        ))  # fmt: skip
        if learner.ready():
            figures = learner.update(seen(rng), 0.0)
            assert np.isfinite(figures["kl"])
    return learner, errors


CRITICS = {"imappo": "light", "mappo": "central", "ippo": "own", "maddpg": None}


@pytest.mark.parametrize(("name", "pulled"), [*((name, False) for name in CRITICS), ("imappo", True), ("maddpg", True)])
def test_it_learns_levels_that_depend_on_agent_and_resource(name, pulled):
    if name == "maddpg":  # its critic is of everyone's levels: what it learns from is the team's pay
        learner, errors = trained(14, pulled, name, pay=(10.0, -5.0), team=not pulled)
    else:
        learner, errors = trained(30, pulled, name)
    assert getattr(learner.config, "critic", None) == CRITICS[name]
    assert np.mean(errors[:16]) > 0.1 and np.mean(errors[-64:]) < 0.02


def test_maddpg_is_led_by_a_critic_that_has_learned_and_not_by_the_unit_of_pay():
    first, _ = trained(1, False, "maddpg", steps=1)  # the critic alone
    now = seen(np.random.default_rng(5))
    assert (first.propose(now).mean == 0).all()
    plain, _ = trained(4, False, "maddpg", steps=2)
    paid, _ = trained(4, False, "maddpg", pay=(40.0, -30.0), steps=2)
    a, b = plain.propose(now).mean, paid.propose(now).mean
    assert np.abs(a).mean() > 0.02
    np.testing.assert_allclose(b, a, atol=0.03)


def test_a_kept_policy_proposes_the_same_without_torch():
    learner, _ = trained(2, False)
    weights = {k: np.array(v) for k, v in learner.policy.weights.items()}
    assert wrong_weights(weights) == ""
    now = seen(np.random.default_rng(5))
    a, b = ArrayPolicy(weights).propose(now), learner.propose(now)
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(a.spread, b.spread)
    raw = learner._raw(lens(now), np.zeros((16, 3), np.int64))
    np.testing.assert_allclose(a.mean[..., 0], -1 + 2 * (0.5 + raw[..., 0, 0].numpy()), atol=1e-5)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="levels alone are learned with names, density 'clipped' and memory 0"):
        ImappoConfig(**settings(density="beta"))
