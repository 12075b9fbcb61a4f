"""The compiled passes against autograd, gradient by gradient, and whole updates against torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl.descent import log_densities, set_gradients
from rl.light import LightCritic
from rl.mappo import clipped_value_loss
from rl.networks import PairScorer, Sizes
from rl.on_policy import entropy_of, executed_log_density, head_entropies
from rl.pairs import CLIPPED, PLAIN
from rl.policy import ArrayPolicy
from rl.proposal import Observation, own_features
from rl.registry import make_learner

SIZES = Sizes(agent=5, resource=4, pair=3)


def rollout(seed: int, b: int = 7, n: int = 11, r: int = 3, home: bool = True):
    """A batch by :class:`rl.on_policy.Batch`'s fields, as far as an actor's step reads them; one row has nobody."""
    rng = np.random.default_rng(seed)
    of = np.array([-1] * home + [0, 1, 2, 1][: r + 1])
    o = len(of)
    live = rng.random((b, n)) < 0.7
    live[0] = False
    allowed = rng.random((b, n, o)) < 0.8
    allowed[..., 0] |= ~allowed.any(-1)
    option = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(-1)
    f = lambda *shape: torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    t = torch.from_numpy
    return Fields(
        agent=f(b, n, 5), pair=f(b, n, o, 3), resource=f(b, r, 4), bias=3 * f(b, n, o), old=-1.5 + 0.5 * f(b, n),
        allowed=t(allowed), option=t(option), live=t(live), resource_of=t(of),
    ), f(b, n)  # fmt: skip


class Fields:
    def __init__(self, **fields):
        self.__dict__.update(fields)


def by_autograd(actor, batch, rows, advantage, limit, clip, weight, kind):
    """The same gradients and figures by torch's own layers."""
    actor.zero_grad()
    row, agent = torch.nonzero(batch.live[rows], as_tuple=True)
    at = rows[row]
    mask = batch.allowed[at, agent]
    raw = actor(batch.agent[at, agent], batch.pair[at, agent], batch.resource[rows], row, batch.resource_of, mask)
    log_pi = executed_log_density(raw, batch.bias[at, agent], mask, limit)
    taken = log_pi.gather(1, batch.option[at, agent][:, None])[:, 0]
    a, change = advantage[at, agent], taken - batch.old[at, agent]
    ratio = change.exp()
    gain = torch.min(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a).mean() if kind == CLIPPED else (taken * a).mean()
    entropy = entropy_of(log_pi, mask)
    (-gain - weight * entropy).backward()
    figures = {
        "policy_loss": -float(gain.detach()), "entropy": float(entropy.detach()),
        "kl": float((ratio - 1 - change).mean().detach()),
        "clipped": float(((ratio - 1).abs() > clip).float().mean()),
    }  # fmt: skip
    return {k: p.grad.clone() for k, p in actor.named_parameters()}, figures | head_entropies(
        log_pi, mask, batch.resource_of
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [CLIPPED, PLAIN])
def test_the_pass_gives_the_gradients_and_the_figures_of_autograd(seed, kind):
    batch, advantage = rollout(seed, b=40 if seed == 5 else 7, home=seed != 3)
    torch.manual_seed(seed)
    actor = PairScorer(SIZES, 16, gain=1.0)
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(batch.live))[: 30 if seed == 5 else 5])
    given = (rows, advantage, 2.0 if seed % 2 else 10.0, 0.2, 0.3, kind)
    theirs, told = by_autograd(actor, batch, *given)
    actor.zero_grad()
    mine = set_gradients(actor, batch, *given)
    for name, p in actor.named_parameters():
        scale = max(float(theirs[name].abs().max()), 1.0)
        np.testing.assert_allclose(p.grad.numpy() / scale, theirs[name].numpy() / scale, atol=1e-5, err_msg=name)
    assert set(mine) == set(told)
    for name, figure in told.items():
        assert mine[name] == pytest.approx(figure, rel=1e-4, abs=1e-5), name


def test_the_densities_are_those_of_autograd():
    batch, _ = rollout(1)
    actor, rows = PairScorer(SIZES, 16, gain=1.0), torch.arange(7)
    now, row, agent = log_densities(actor, batch, rows, 4.0)
    r, a = torch.nonzero(batch.live, as_tuple=True)
    np.testing.assert_array_equal(row, r.numpy())
    np.testing.assert_array_equal(agent, a.numpy())
    mask = batch.allowed[r, a]
    raw = actor(batch.agent[r, a], batch.pair[r, a], batch.resource, r, batch.resource_of, mask)
    log_pi = executed_log_density(raw, batch.bias[r, a], mask, 4.0)
    np.testing.assert_allclose(now, log_pi.gather(1, batch.option[r, a][:, None])[:, 0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("n", [1, 11, 300])
def test_the_light_critic_gives_the_values_and_gradients_of_autograd(n):
    rng = np.random.default_rng(n)
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)
    critic = LightCritic(SIZES, 8)
    torch.nn.init.normal_(critic.out.weight)
    torch.nn.init.normal_(critic.out.bias)
    own, resource, held, target = f(9, n, 14), f(9, 3, 4), f(9, n), f(9, n)
    t = torch.from_numpy
    np.testing.assert_allclose(
        critic.values(own, resource), critic(t(own), t(resource)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    rows = rng.permutation(9)[:6]
    loss = clipped_value_loss(critic(t(own[rows]), t(resource[rows])), t(held[rows]), t(target[rows]), 0.2, 1.0)
    loss.backward()
    theirs = {k: p.grad.clone() for k, p in critic.named_parameters()}
    critic.zero_grad()
    assert critic.learn(own, resource, rows, held, target, 0.2, 1.0) == pytest.approx(float(loss), rel=1e-5)
    for name, p in critic.named_parameters():
        scale = max(float(theirs[name].abs().max()), 1.0)
        np.testing.assert_allclose(p.grad.numpy() / scale, theirs[name].numpy() / scale, atol=1e-5, err_msg=name)


def test_what_an_agent_shows_of_its_pairs_is_mean_least_and_greatest():
    rng = np.random.default_rng(0)
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)
    seen = Observation(
        f(2, 5, 3), f(2, 4, 2), f(2, 5, 6, 4), np.ones((2, 5), bool), np.ones((2, 5, 6), bool), np.arange(6) - 1
    )
    parts = [seen.agent, seen.pair.mean(axis=2), seen.pair.min(axis=2), seen.pair.max(axis=2)]
    np.testing.assert_allclose(own_features(seen), np.concatenate(parts, axis=2), rtol=1e-6, atol=1e-6)


def test_what_computes_the_gradients_is_chosen_by_name_and_refused_where_it_cannot():
    of = lambda name, **settings: make_learner(name, SIZES, 0, settings).engine
    assert of("imappo") == of("ppo") == of("a2c") == of("mappo", engine="compiled") == "compiled"
    assert of("imappo", memory=4) == of("coma") == of("mappo", network="graph") == of("ppo", engine="torch") == "torch"
    for name, settings, has in (
        ("imappo", {"memory": 4}, "memory"), ("mappo", {"network": "graph"}, "neighbours"),
        ("coma", {}, "another kind"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"engine = 'compiled' knows the plain pair scorer alone.*{has}"):
            of(name, engine="compiled", **settings)
    with pytest.raises(ValueError, match="engine = 'numpy'; it must be one of auto, compiled, torch"):
        of("mappo", engine="numpy")


def test_weights_that_do_not_fit_each_other_are_refused_before_compiled_code_reads_them():
    policy = make_learner("imappo", SIZES, 0, {"gain": 1.0}).policy
    rng = np.random.default_rng(0)
    f = lambda *shape: rng.normal(size=shape)
    seen = Observation(
        f(2, 5, 5), f(2, 4, 4), f(2, 5, 5, 3), np.ones((2, 5), bool), np.ones((2, 5, 5), bool), np.arange(5) - 1
    )
    wide = {k: v.astype(np.float64) for k, v in policy.weights.items()}
    for weights in (policy.weights, wide):  # whatever the precision of features and weights
        assert np.isfinite(ArrayPolicy(weights).propose(seen).log_prior).all()
    for name in ("mix.bias", "agent.bias", "resource.weight", "out.weight"):
        short = policy.weights | {
            name: policy.weights[name][..., :-1] if name == "out.weight" else policy.weights[name][:-1]
        }
        with pytest.raises(ValueError):
            ArrayPolicy(short).propose(seen)
