"""Pair-scoring networks: numpy equals torch, order does not matter, any N and any O, untrained is flat."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coordinator.merge import clip_prior
from rl.dqn import QNetwork
from rl.networks import Critic, PairScorer, Sizes, own_features
from rl.on_policy import executed_log_density
from rl.policy import ArrayPolicy
from rl.proposal import Observation

SIZES = Sizes(5, 4, 3)


def random_observation(rng, networks=3, agents=6, options=5):
    f = lambda *shape: rng.normal(0, 1, shape).astype(np.float32)
    allowed = rng.random((networks, agents, options)) < 0.8
    allowed[..., 0] = True
    live = rng.random((networks, agents)) < 0.7
    rows = np.concatenate([[-1], rng.permutation(options - 1)])
    return Observation(
        f(networks, agents, SIZES.agent), f(networks, options - 1, SIZES.resource),
        f(networks, agents, options, SIZES.pair), live, allowed, rows,
    )  # fmt: skip


def trained(seed=0, scale=10.0):
    """A scorer whose last layer says something."""
    torch.manual_seed(seed)
    actor = PairScorer(SIZES, 16, scale)
    with torch.no_grad():
        for p in actor.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return actor


def in_torch(actor, o):
    row, agent = np.nonzero(o.live)
    t = torch.from_numpy
    with torch.no_grad():
        got = actor(
            t(o.agent[row, agent]), t(o.pair[row, agent]), t(o.resource), t(row), t(np.asarray(o.resource_of))
        ).numpy()
    out = np.zeros(o.allowed.shape)
    out[row, agent] = got
    return out


@pytest.mark.parametrize(("agents", "options"), [(1, 2), (6, 5), (50, 10), (3, 40)])
def test_array_policy_equals_torch(agents, options):
    rng = np.random.default_rng(0)
    actor = trained()
    o = random_observation(rng, 4, agents, options)
    got, want = ArrayPolicy(actor.export()).propose(o).log_prior, in_torch(actor, o)
    assert np.abs(want).max() > 0.5
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5)
    assert not got[~o.live].any()


def test_no_live_agents_and_no_agents_are_fine():
    o = random_observation(np.random.default_rng(0))
    policy = ArrayPolicy(trained().export())
    assert not policy.propose(o._replace(live=np.zeros_like(o.live))).log_prior.any()
    empty = Observation(o.agent[:, :0], o.resource, o.pair[:, :0], o.live[:, :0], o.allowed[:, :0], o.resource_of)
    assert policy.propose(empty).log_prior.shape == (3, 0, 5)


def test_permuting_agents_permutes_scores_and_values():
    rng = np.random.default_rng(1)
    o = random_observation(rng)
    order = rng.permutation(6)
    shuffled = o._replace(
        agent=o.agent[:, order], pair=o.pair[:, order], live=o.live[:, order], allowed=o.allowed[:, order]
    )
    policy = ArrayPolicy(trained().export())
    assert np.allclose(policy.propose(o).log_prior[:, order], policy.propose(shuffled).log_prior, atol=1e-6)
    torch.manual_seed(0)
    critic = Critic(SIZES)
    with torch.no_grad():
        value = critic(torch.from_numpy(own_features(o)), torch.from_numpy(o.resource)).numpy()
        other = critic(torch.from_numpy(own_features(shuffled)), torch.from_numpy(o.resource)).numpy()
    assert value.std() > 1e-3
    assert np.allclose(value[:, order], other, atol=1e-6)


def test_permuting_options_permutes_scores():
    rng = np.random.default_rng(2)
    o = random_observation(rng)
    order = rng.permutation(5)
    shuffled = o._replace(pair=o.pair[:, :, order], resource_of=o.resource_of[order])
    policy = ArrayPolicy(trained().export())
    assert np.allclose(policy.propose(o).log_prior[:, :, order], policy.propose(shuffled).log_prior, atol=1e-6)
    rows = np.where(o.resource_of < 0, -1, 3 - o.resource_of)
    relabelled = o._replace(resource=o.resource[:, ::-1].copy(), resource_of=rows)
    assert np.allclose(policy.propose(o).log_prior, policy.propose(relabelled).log_prior, atol=1e-6)


def test_an_option_does_not_see_the_others_resources():
    """Decentralised execution: the score of a pair reads the agent's features, the pair's and its resource's only."""
    rng = np.random.default_rng(3)
    o = random_observation(rng)
    policy = ArrayPolicy(trained().export())
    resource = o.resource.copy()
    resource[:, o.resource_of[2]] += 1.0
    change = np.abs(policy.propose(o._replace(resource=resource)).log_prior - policy.propose(o).log_prior).max(
        axis=(0, 1)
    )
    assert change[2] > 1e-3
    assert np.delete(change, 2).max() == 0


@pytest.mark.parametrize("seed", range(3))
def test_untrained_scores_are_exactly_flat(seed):
    torch.manual_seed(seed)
    actor = PairScorer(SIZES)
    o = random_observation(np.random.default_rng(seed))
    assert not ArrayPolicy(actor.export()).propose(o).log_prior.any()
    assert not in_torch(actor, o).any()
    scorer = QNetwork(SIZES, 16, dueling=True)
    assert not scorer.utility.out.weight.any() and not scorer.utility.out.bias.any()


def test_dueling_advantages_average_to_the_value_over_allowed_options():
    rng = np.random.default_rng(4)
    o = random_observation(rng)
    torch.manual_seed(0)
    scorer = QNetwork(SIZES, 16, dueling=True)
    scorer.utility.load_state_dict(trained(scale=1.0).state_dict())
    t = torch.from_numpy
    own, allowed, resource = t(own_features(o)), t(o.allowed), t(o.resource)
    slot = {"agent": t(o.agent), "pair": t(o.pair), "resource": resource, "own": own, "allowed": allowed}
    with torch.no_grad():
        q = scorer(slot | {"option": torch.zeros(o.live.shape)}, t(o.resource_of))
        shared = resource.mean(1)[:, None].expand(-1, own.shape[1], -1)
        value = scorer.value(torch.cat([own, shared], -1))[..., 0]
    mean = (q * allowed).sum(-1) / allowed.sum(-1)
    assert torch.allclose(mean, value, atol=1e-5)
    assert q.std(dim=-1).max() > 0.1


def test_executed_log_density_is_that_of_the_clipped_prior_and_the_game():
    rng = np.random.default_rng(5)
    raw = rng.normal(0, 6, (40, 7))
    bias = -np.abs(rng.normal(0, 3, (40, 7)))
    allowed = rng.random((40, 7)) < 0.7
    allowed[:, 3] = True
    t = torch.from_numpy
    got = executed_log_density(t(raw), t(bias), t(allowed), 5.0).numpy()
    logits = np.where(allowed, clip_prior(raw, allowed, 5.0) + bias, -np.inf)
    top = logits.max(axis=1, keepdims=True)
    want = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    assert np.array_equal(np.isneginf(got), ~allowed)
    assert np.allclose(got[allowed], want[allowed], rtol=1e-12)
    assert np.allclose(np.exp(got).sum(axis=1), 1.0)


def test_executed_log_density_has_the_policy_gradients_gradient():
    """d log pi(a) / d score = 1[a] - pi, none where the prior is clipped, whatever the constant part."""
    raw = torch.tensor([[0.0, -1.0, -30.0, 2.0]], dtype=torch.float64, requires_grad=True)
    bias = torch.tensor([[-1.0, 0.5, 0.0, -3.0]], dtype=torch.float64)
    allowed = torch.tensor([[True, True, True, False]])
    log_pi = executed_log_density(raw, bias, allowed, 10.0)
    log_pi[0, 1].backward()
    pi = log_pi.exp().detach().numpy()[0]
    gradient = raw.grad.numpy()[0]
    assert gradient[1] == pytest.approx(1 - pi[1])
    assert gradient[0] == pytest.approx(-pi[0])
    assert gradient[2] == 0.0 and gradient[3] == 0.0
