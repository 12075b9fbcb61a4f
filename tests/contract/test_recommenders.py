"""What every recommender must obey: the learners' policies, fresh and after an update."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import Coordinator, clip_prior
from hybridalloc.problems import make_problem
from rl.learner import Executed
from rl.policy import ArrayPolicy
from rl.proposal import Proposal, Sizes
from rl.registry import make_learner

NAMES = ["imappo", "dqn"]


def learner_of(name, updates):
    """A learner of mec's features, after ``updates`` rollouts of what it proposes."""
    problem = make_problem("mec", agents=10, servers=3)
    batch = problem.worlds(range(6))
    prices = problem.card.prices()
    learner = make_learner(name, Sizes.of(batch.observe()), seed=0)
    coordinator = Coordinator("hybrid", 10.0, learner.config.limit)
    rng = np.random.default_rng(0)
    seen = batch.observe()
    while learner.updates < updates:
        game = batch.game(prices)
        log_prior = clip_prior(learner.propose(seen).log_prior, game.allowed, learner.config.limit)
        merged = coordinator.explore(game, log_prior, rng.random(seen.live.shape))
        out = batch.execute(batch.settle(merged.option, prices))
        batch.drift()
        learner.record(
            Executed(
                seen, merged.option, log_prior, merged.bias, out.reward + out.lost, out.carried, np.zeros(6, bool), None
            )
        )
        seen = batch.observe()
        if learner.ready():
            learner.update(seen, 0.0)
    return learner


@pytest.fixture(scope="module", params=[(n, u) for n in NAMES for u in (0, 2)], ids=str)
def case(request):
    return learner_of(*request.param), request.param[1]


@pytest.mark.parametrize(
    ("agents", "servers", "changes"), [(10, 3, {}), (1, 1, {}), (30, 9, {}), (7, 2, {"choose_channel": True})]
)
def test_proposes_finite_scores_for_any_size_and_changes_nothing(case, agents, servers, changes):
    learner, updates = case
    batch = make_problem("mec", agents=agents, servers=servers, **changes).worlds([0, 1])
    seen = batch.observe()
    held = [x.copy() for x in seen]
    for proposer in (learner, learner.policy):
        raw = proposer.propose(seen).log_prior
        assert raw.shape == seen.allowed.shape and raw.dtype == np.float64
        assert np.isfinite(raw).all() and not raw[~seen.live].any()
        assert np.array_equal(raw, proposer.propose(seen).log_prior)  # no hidden randomness
    assert all(np.array_equal(a, b) for a, b in zip(seen, held, strict=True))
    assert raw.any() == (updates > 0 and bool(seen.live.any()))  # untrained it is flat, so the hybrid is the game


def test_each_network_is_proposed_for_alone(case):
    learner, _ = case
    seen = make_problem("mec", agents=10, servers=3).worlds(range(4)).observe()
    together = learner.propose(seen).log_prior
    for e in range(4):
        part = seen._replace(**{k: getattr(seen, k)[e : e + 1] for k in seen._fields if k != "resource_of"})
        assert np.allclose(learner.propose(part).log_prior[0], together[e], rtol=1e-5, atol=1e-5)


def test_has_a_name_and_its_settings(case):
    learner, updates = case
    assert learner.policy.name == learner.name in NAMES
    assert learner.config.limit > 0 and learner.config.horizon > 0
    assert learner.updates == updates


@pytest.mark.parametrize(
    "settings",
    [
        {"network": "graph"},
        {"network": "pooled"},
        {"memory": 4},
        {"continuous": ("power", "fraction"), "ranges": ((0.001, 1.0), (0.0, 1.0))},
        {"continuous": ("power",), "ranges": ((0.001, 1.0),), "memory": 4},
    ],
    ids=str,
)
def test_all_that_speaks_says_one_proposal(settings):
    """Learner, policy, the policy with its memory and the policy from a file: the same, levels where there are any."""
    seen = make_problem("mec", agents=10, servers=3).worlds([0, 1]).observe()
    learner = make_learner("imappo", Sizes.of(seen), 0, settings)
    shape, names = seen.allowed.shape, settings.get("continuous", ())
    filed = ArrayPolicy({k: np.array(v) for k, v in learner.policy.weights.items()})
    said = [x.propose(seen) for x in (learner.policy, learner.policy.carrying(), filed, learner)]
    for proposal in said:
        assert isinstance(proposal, Proposal) and proposal.levels == names
        assert proposal.log_prior.shape == shape and proposal.log_prior.dtype == np.float64
        if names:
            assert proposal.mean.shape == proposal.spread.shape == (*shape, len(names))
            idle = ~seen.live[..., None] | (seen.resource_of < 0)
            assert np.isinf(proposal.spread[idle]).all() and np.isfinite(proposal.spread[~idle]).all()
            assert (proposal.spread > 0).all() and np.isfinite(proposal.mean).all()
        else:
            assert proposal.mean is None and proposal.spread is None
        for ours, first in zip(proposal, said[0], strict=True):
            assert np.array_equal(ours, first) if isinstance(ours, np.ndarray) else ours == first
