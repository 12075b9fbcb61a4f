"""COMA and the leave-one-out critic: unbiased by enumeration, less variance, and the enumerated optima."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rl.coma import Coma, ComaConfig, coma_advantage, td_lambda
from rl.counterfactual import Counterfactual, CounterfactualConfig
from rl.leave_one_out import LeaveOneOut
from rl.networks import PairScorer, own_features
from rl.on_policy import Batch, executed_log_density

PAYOFF = np.array([[1.0, -2.0, 0.5], [-1.0, 3.0, 0.0], [0.0, 1.0, 4.0]])
CASES = {
    "coma": (Coma, ComaConfig(gamma=0.0), 80),
    "counterfactual": (Counterfactual, CounterfactualConfig(horizon=16, gamma=0.0), 16),
}


def joint_batch(lab):
    """All nine joint choices of two agents with three options each, as a batch."""
    view = lab.MatrixGame(PAYOFF, networks=9).view
    joint = np.array(list(itertools.product(range(3), repeat=2)))
    t = torch.from_numpy
    zero = torch.zeros(9, 2, 3)
    return Batch(
        t(view.agent), t(view.pair), t(view.resource), t(own_features(view)), t(joint), zero, t(view.allowed),
        t(view.live), torch.zeros(9, 2), t(view.resource_of), np.zeros((9, 1, 2)), np.zeros((9, 1), bool),
    )  # fmt: skip


def estimators(actor, batch, baselines):
    """Exact mean (P,) and total variance of grad log pi (R - b) by enumeration; and the enumerated gradient."""
    every = torch.arange(9).repeat_interleave(2)
    raw = actor(batch.agent.flatten(0, 1), batch.pair.flatten(0, 1), batch.resource, every, batch.resource_of)
    bias = torch.tensor([0.3, -0.2, 0.1])  # the game's part: what is executed is not the prior
    log_pi = executed_log_density(raw, bias.expand(18, 3), torch.ones(18, 3, dtype=torch.bool), 10.0).view(9, 2, 3)
    taken = log_pi.gather(-1, batch.option[..., None])[..., 0]  # (9, 2)
    reward = torch.from_numpy(PAYOFF.ravel()).float()
    weights = [p for p in actor.parameters()]
    flat = lambda gs: torch.cat([g.reshape(-1) for g in gs])
    probability = taken.sum(1).exp()
    exact = flat(torch.autograd.grad((probability * reward).sum(), weights, retain_graph=True))
    out = {}
    for name, b in baselines(log_pi.detach(), reward).items():
        rows = [
            flat(torch.autograd.grad((taken[k] * (reward[k] - b[k])).sum(), weights, retain_graph=True))
            for k in range(9)
        ]
        g, p = torch.stack(rows), probability.detach()[:, None]
        mean = (p * g).sum(0)
        out[name] = (mean, float((p * (g - mean).square()).sum()))
    return exact, out


def test_counterfactual_gradients_are_the_enumerated_one_with_less_variance(lab):
    """On a two-agent game, a random policy: every baseline leaves the expected gradient, and takes variance away."""
    batch = joint_batch(lab)
    sizes = lab.Sizes(2, 1, 3)
    torch.manual_seed(0)
    actor, critic = PairScorer(sizes, 16), LeaveOneOut(sizes, 32)
    with torch.no_grad():
        actor.out.weight.normal_(0, 0.05)
    untrained = critic(batch, torch.arange(9)).detach()
    reward = torch.from_numpy(PAYOFF.ravel()).float()
    # as in training: regressed on the returns of what the policy executes
    every = torch.arange(9).repeat_interleave(2)
    raw = actor(batch.agent.flatten(0, 1), batch.pair.flatten(0, 1), batch.resource, every, batch.resource_of)
    bias = torch.tensor([0.3, -0.2, 0.1])
    log_pi = torch.log_softmax(raw.detach() + bias, -1).view(9, 2, 3)
    weight = log_pi.gather(-1, batch.option[..., None])[..., 0].sum(1).exp()
    optimizer = torch.optim.Adam([p for p in critic.parameters() if p.requires_grad], 5e-3)
    for _ in range(400):
        loss = (weight[:, None] * (critic(batch, torch.arange(9)) - reward[:, None]).square()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = critic(batch, torch.arange(9)).detach()

    def baselines(log_pi, reward):
        pi, table = log_pi[0].exp(), reward.view(3, 3)
        value = (pi[0] @ table @ pi[1]).expand(9, 2)
        enumerated = torch.stack([(pi[0] @ table)[batch.option[:, 1]], (table @ pi[1])[batch.option[:, 0]]], 1)
        torch.testing.assert_close(learned, enumerated, atol=0.05, rtol=0.0)  # E[R | a_-i], as theory says
        return {
            "none": torch.zeros(9, 2), "V(s)": value, "leave one out, untrained": untrained,
            "leave one out, learned": learned, "COMA, enumerated": enumerated,
        }  # fmt: skip

    exact, found = estimators(actor, batch, baselines)
    for name, (mean, variance) in found.items():
        print(f"{name:26s} variance {variance:10.4f}  |bias| {float((mean - exact).norm()):.1e}")
        torch.testing.assert_close(mean, exact, atol=2e-5, rtol=1e-4)
    variance = {k: v for k, (_, v) in found.items()}
    assert variance["COMA, enumerated"] < 0.9 * variance["V(s)"] < 0.9 * variance["none"]
    assert variance["leave one out, learned"] == pytest.approx(variance["COMA, enumerated"], rel=0.05)


def test_a_baseline_that_reads_its_own_choice_would_be_biased(lab):
    """The check above can fail: taking R itself away leaves no gradient."""
    actor = PairScorer(lab.Sizes(2, 1, 3), 16)
    with torch.no_grad():
        actor.out.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    exact, found = estimators(actor, joint_batch(lab), lambda log_pi, reward: {"R": reward[:, None].expand(9, 2)})
    assert exact.norm() > 0.1 > 1e-6 > found["R"][0].norm()


def test_the_leave_one_out_critic_does_not_read_its_agents_choice(lab):
    batch = joint_batch(lab)
    torch.manual_seed(0)
    b = LeaveOneOut(lab.Sizes(2, 1, 3), 32)(batch, torch.arange(9)).view(3, 3, 2)
    torch.testing.assert_close(b[..., 0], b[:1, :, 0].expand(3, 3), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(b[..., 1], b[:, :1, 1].expand(3, 3), atol=1e-6, rtol=0.0)
    assert b[0, :, 0].std() > 1e-3  # and does read the other's


def test_what_was_chosen_is_embedded_as_among_all_options(lab):
    torch.manual_seed(0)
    b, n, o = 4, 3, 5
    batch = joint_batch(lab)._replace(
        agent=torch.randn(b, n, 2), pair=torch.randn(b, n, o, 3), resource=torch.randn(b, 2, 1),
        option=torch.randint(0, o, (b, n)), resource_of=torch.tensor([-1, 0, 1, 0, 1]),
    )  # fmt: skip
    others = LeaveOneOut(lab.Sizes(2, 1, 3), 16).others
    part = torch.tensor([2, 0, 3])
    every = others.options(batch, part)
    for k, e in enumerate(part):
        for i in range(n):
            torch.testing.assert_close(others.chosen(batch, part)[k, i], every[k, i, batch.option[e, i]])


def test_coma_advantage_against_its_sum():
    rng = np.random.default_rng(0)
    q, pi = rng.normal(size=(6, 4)), rng.dirichlet(np.ones(4), 6)
    option = rng.integers(0, 4, 6)
    expected = [q[m, option[m]] - sum(pi[m, o] * q[m, o] for o in range(4)) for m in range(6)]
    got = coma_advantage(torch.from_numpy(q), torch.from_numpy(pi), torch.from_numpy(option))
    np.testing.assert_allclose(got.numpy(), expected)


def test_td_lambda_against_its_sum_of_n_step_returns():
    rng = np.random.default_rng(1)
    reward, q = rng.normal(size=(6, 2, 1)), rng.normal(size=(6, 2, 1))
    cut = np.zeros((6, 2), bool)
    cut[3, 1] = True
    gamma, lam = 0.8, 0.7
    y, exists = td_lambda(reward, q, cut, gamma, lam)
    assert not exists[5].any() and not exists[3, 1] and exists.sum() == 9
    for e, end in ((0, 5), (1, 3)):  # from slot 0 to the last with a successor
        n_step = [sum(gamma**k * reward[k, e, 0] for k in range(n)) + gamma**n * q[n, e, 0] for n in range(1, end + 1)]
        total = sum((1 - lam) * lam**k * g for k, g in enumerate(n_step[:-1])) + lam ** (end - 1) * n_step[-1]
        assert y[0, e, 0] == pytest.approx(total)


def train(lab, name, game, bias=0.0, updates=None, **changes):
    make, config, count = CASES[name]
    learner = make(lab.Sizes.of(game.observe()), type(config)(**(vars(config) | changes)), seed=1)
    lab.play(learner, game, updates or count, bias=bias)
    return learner


@pytest.mark.parametrize("name", list(CASES))
def test_team_pay_finds_the_team_optimum(lab, name):
    game = lab.ServerContexts()
    np.testing.assert_array_equal(game.table(train(lab, name, game)), game.team_optima()[0])


@pytest.mark.parametrize("name", list(CASES))
def test_inside_the_hybrid_the_residual_corrects_a_game_that_is_wrong(lab, name):
    game = lab.MatrixGame([[0.0, 0.2, 0.4], [0.2, 0.5, 0.7], [0.3, 0.6, 1.0]], networks=32)
    bias = np.array([3.0, 0.0, 0.0])
    assert game.greedy(train(lab, name, game, bias), bias) == game.optimum


@pytest.mark.parametrize("name", list(CASES))
def test_foresight(lab, name):
    game = lab.Chain(agents=2, networks=16)
    learner = train(lab, name, game, gamma=0.9, credit="own")
    policy = lab.greedy(learner, game.view_of(np.tile(np.arange(4)[:, None], 2)))
    np.testing.assert_array_equal(policy, np.tile(game.q_star(0.9).argmax(1)[:, None], 2))
