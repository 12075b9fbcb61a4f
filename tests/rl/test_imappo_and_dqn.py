"""IMAPPO and DQN on tiny environments whose optima are enumerated, and the arithmetic inside them."""

from __future__ import annotations

import copy
import io
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.dqn import Dqn, DqnConfig
from rl.imappo import Imappo, ImappoConfig
from rl.learner import Executed
from rl.networks import Sizes, own_features
from rl.on_policy import generalised_advantage

sys.path.insert(0, str(Path(__file__).parent))
from toys import OPTIONS, Crowd, TwoSlots, drive, executes, observation_of

torch.set_num_threads(1)


FEW = {"epochs": 4, "minibatches": 4, "rate": 3e-3}  # a toy's rollouts are small: they are gone through more often


def make(name, toy, seed=0, **settings):
    sizes = Sizes.of(toy.observe())
    if name == "imappo":
        return Imappo(sizes, ImappoConfig(**FEW | settings), seed)
    return Dqn(sizes, DqnConfig(**settings), seed)


# --- the toys are what they say


def test_the_crowds_optimum_is_the_only_choice_no_agent_would_leave():
    toy = Crowd(1, 0)
    every = np.ones(3, bool)
    best = [max(toy.joint_choices(), key=lambda o, c=c: toy.paid(c, o, every).sum()) for c in range(3)]
    assert len(set(best)) == 3
    assert [toy.stable_choices(c) for c in range(3)] == [[b] for b in best]
    flat = np.mean([toy.score(lambda o, a=a: np.tile(a, (3, 1))) for a in toy.joint_choices()])
    assert flat < 0.75 * toy.best()


def test_the_difference_reward_is_the_agents_share_of_the_team():
    """What an agent gains by moving is what the team gains, for every joint choice."""
    toy = Crowd(1, 0)
    toy.context[:] = 1

    def step(option):
        toy.context[:] = 1
        return toy.step(np.array([option]))

    for option in toy.joint_choices():
        reward, _, team = step(option)
        for i, o in product(range(3), range(OPTIONS)):
            other = (*option[:i], o, *option[i + 1 :])
            if toy.allowed[0, i, o]:
                changed, _, total = step(other)
                assert changed[0, i] - reward[0, i] == pytest.approx(total[0] - team[0])


# --- they learn


@pytest.mark.parametrize(
    ("name", "mislead"),
    [("imappo", 0.0), ("imappo", 1.5), ("dqn", 0.0), ("dqn", 1.0)],
    ids=["imappo alone", "imappo misled", "dqn alone", "dqn misled"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_learns_a_small_crowd(name, mislead, seed):
    """At least .97 of the enumerated optimum; a game there may be makes the right choice e^-mislead as likely.

    IMAPPO is misled by 1.5 nats: at 2 it still gets there, but from some seeds not within this budget.
    DQN's prior is Q / temperature, so what it can outweigh is a game that is wrong by less than Q's own differences.
    """
    toy = Crowd(32, seed)
    learner = make(name, toy, seed)
    cost = toy.misleading(mislead) if mislead else None
    run = executes(learner, cost)
    before = toy.score(run) / toy.best()
    assert before < 0.9
    scores = []

    def settled():
        scores.append(toy.score(run) / toy.best())
        return min(scores[-3:]) >= 0.97 and len(scores) >= 3

    drive(learner, toy, 32 * 40, seed, cost, settled)
    assert scores[-1] >= 0.97, scores[::4]


@pytest.mark.parametrize("name", ["imappo", "dqn"])
def test_foresight_needs_the_carried_credit(name):
    for carry, option, share in ((1.0, 2, 1.0), (0.0, 1, 0.5)):
        toy = TwoSlots(32, 1)
        learner = make(name, toy, 1, carry=carry)
        drive(learner, toy, 32 * 14, 1)
        run = executes(learner)
        assert toy.best() == pytest.approx(3.0)
        assert toy.score(run) == pytest.approx(share * toy.best())
        first = run(observation_of(np.zeros(1, int), np.ones((1, 3), bool), np.ones((1, 3, 3), bool), 2))
        assert (first == option).all()


def test_idle_agents_teach_nothing_to_the_actor():
    """An agent that is never live keeps a flat score where the others learn, and never meets a nan."""
    toy = Crowd(32, 0)

    def draw():
        toy.context = toy.rng.integers(0, 3, 32)
        toy.live[:, 1] = False

    toy.draw = draw
    toy.draw()
    learner = make("imappo", toy)
    drive(learner, toy, 32 * 4)
    assert all(torch.isfinite(p).all() for p in learner.actor.parameters())
    o = toy.observe()
    assert not learner.propose(o).log_prior[:, 1].any() and learner.propose(o).log_prior[:, 0].any()


# --- arithmetic


def test_generalised_advantage_equals_the_direct_sum():
    rng = np.random.default_rng(0)
    slots, networks, agents, gamma, gae = 12, 4, 3, 0.9, 0.8
    reward, values, bootstrap = (rng.normal(size=(slots, networks, agents)) for _ in range(3))
    following = rng.normal(size=(networks, agents))
    ended = rng.random((slots, networks)) < 0.2
    ended[-1, 0] = True  # a cut in the last slot too
    got = generalised_advantage(reward, values, following, ended, bootstrap, gamma, gae)
    assert ended.any(axis=0).sum() >= 2
    for e, i in product(range(networks), range(agents)):
        for t in range(slots):
            total = 0.0
            for k in range(t, slots):
                after = values[k + 1, e, i] if k + 1 < slots else following[e, i]
                after = bootstrap[k, e, i] if ended[k, e] else after
                total += (gamma * gae) ** (k - t) * (reward[k, e, i] + gamma * after - values[k, e, i])
                if ended[k, e]:
                    break
            assert got[t, e, i] == pytest.approx(total, abs=1e-12)


def test_generalised_advantage_at_lambda_1_is_the_discounted_return():
    rng = np.random.default_rng(1)
    reward, values = rng.normal(size=(2, 7, 1, 2))[0], rng.normal(size=(7, 1, 2))
    following = rng.normal(size=(1, 2))
    got = generalised_advantage(reward, values, following, np.zeros((7, 1), bool), np.zeros((7, 1, 2)), 0.9, 1.0)
    wanted = sum(0.9**k * reward[k] for k in range(7)) + 0.9**7 * following - values[0]
    assert np.allclose(got[0], wanted)


def record_blank(learner, toy, reward, carried, truncated=None, final=None):
    o = toy.observe()
    zero = np.zeros(o.allowed.shape)
    cut = np.zeros(len(o.live), bool) if truncated is None else truncated
    learner.record(Executed(o, np.zeros(o.live.shape, int), zero, zero, reward, carried, cut, final))


@pytest.mark.parametrize("name", ["imappo", "dqn"])
def test_what_is_carried_is_charged_to_the_slot_that_left_it(name):
    toy = TwoSlots(2, 0)
    learner = make(name, toy, gamma=0.5, carry=2.0)
    rng = np.random.default_rng(0)
    carried = rng.random((9, 2, 3, 5))
    reward = rng.random((9, 2, 3))
    for t in range(9):
        record_blank(learner, toy, reward[t], carried[t])
    wanted = reward.copy()
    for t, h in product(range(9), range(5)):
        if t + h + 1 < 9:
            wanted[t] += 2.0 * 0.5 ** (h + 1) * carried[t + h + 1, :, :, h]
    kept = [s["reward"] for s in learner.slots] if name == "imappo" else learner.replay.arrays["reward"][:9]
    assert np.allclose(np.array(kept), wanted, rtol=1e-5)


def test_bootstrap_is_the_critics_value_of_what_came_before_the_reset():
    toy = Crowd(4, 0)
    learner = make("imappo", toy)
    final = toy.observe()
    toy.draw()
    cut = np.array([True, False, True, False])
    record_blank(learner, toy, np.zeros((4, 3)), np.zeros((4, 3, 5)), cut, final)
    record_blank(learner, toy, np.zeros((4, 3)), np.zeros((4, 3, 5)))
    with torch.no_grad():
        value = learner.critic(torch.from_numpy(own_features(final)), torch.from_numpy(final.resource)).numpy()
    learner.late = 0  # no charge is waited for
    batch = learner.batch(toy.observe())
    assert np.allclose(batch.after[0][cut], value[cut], atol=1e-6)
    assert np.array_equal(batch.cut[0], cut)
    assert not batch.after[1].any()


class Chain:
    """One agent, 3 contexts, 3 options: the option decides where it goes. Cut (not ended) every 7 slots."""

    reward = np.array([[0.0, 0.4, 0.1], [0.2, 0.0, 0.9], [1.0, 0.3, 0.0]])
    goes = np.array([[0, 1, 2], [2, 0, 0], [1, 0, 2]])

    @staticmethod
    def seen(context):
        live = np.ones((len(context), 1), bool)
        return observation_of(context, live, np.ones((len(context), 1, 3), bool), 3)

    def values(self, gamma, temperature, limit, bias):
        """(3, 3) Q of what is executed: argmax of clipped Q / temperature + bias, by iteration."""
        q = np.zeros((3, 3))
        for _ in range(2000):
            prior = np.maximum((q - q.max(axis=1, keepdims=True)) / temperature, -limit)
            follow = (prior + bias).argmax(axis=1)
            q = self.reward + gamma * q[self.goes, follow[self.goes]]
        return q


def slot_of(o):
    """An observation as a batch of joint slots."""
    slot = {k: torch.from_numpy(getattr(o, k)) for k in ("agent", "pair", "resource", "allowed", "live")}
    return slot | {"own": torch.from_numpy(own_features(o)), "option": torch.zeros(o.live.shape, dtype=torch.int64)}


@pytest.mark.parametrize("bias", [np.zeros(3), np.array([0.0, -2.0, -4.0])], ids=["alone", "in a game"])
def test_dqns_q_is_that_of_exact_dynamic_programming(bias):
    mdp = Chain()
    settings = {"gamma": 0.8, "target_rate": 0.05, "rate": 3e-3, "batch": 256, "updates": 2}
    networks = 48
    rng = np.random.default_rng(0)
    context = rng.integers(0, 3, networks)
    age = np.arange(networks) % 7
    learner = Dqn(Sizes.of(mdp.seen(context)), DqnConfig(**settings), seed=0)
    slots = 640
    wide = np.broadcast_to(bias, (networks, 1, 3))
    for slot in range(slots):
        o = mdp.seen(context)
        option = rng.integers(0, 3, networks)  # off-policy: uniform
        reward = mdp.reward[context, option]
        following = mdp.goes[context, option]
        age += 1
        cut = age >= 7
        age[cut] = 0
        final = mdp.seen(following)
        context = np.where(cut, rng.integers(0, 3, networks), following)
        learner.record(Executed(
            o, option[:, None], np.zeros((networks, 1, 3)), wide, reward[:, None], np.zeros((networks, 1, 5)), cut,
            final,
        ))  # fmt: skip
        if learner.ready():
            learner.update(mdp.seen(context), slot / slots)
    o = mdp.seen(np.arange(3))
    with torch.no_grad():
        q = learner.online(slot_of(o), torch.from_numpy(o.resource_of)).numpy()[:, 0]
    want = mdp.values(0.8, learner.config.temperature, learner.config.limit, bias)
    alone = mdp.values(0.8, learner.config.temperature, learner.config.limit, np.zeros(3))
    assert np.abs(q - want).max() < 0.05 * np.ptp(want)
    if bias.any():
        assert np.abs(want - alone).max() > 0.3  # the game does change what is executed next
    prior = learner.propose(o).log_prior[:, 0]
    assert np.allclose(prior - prior[:, :1], (q - q[:, :1]) / learner.config.temperature, atol=1e-3)


# --- reproducible


def weights_of(learner):
    nets = (learner.actor, learner.critic) if isinstance(learner, Imappo) else (learner.online, learner.target)
    return [p.detach().numpy().copy() for net in nets for p in net.parameters()]


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["imappo", "dqn"])
def test_the_same_seed_learns_the_same_and_another_does_not(name):
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed * 17 + len(found))  # the global generator has no say
        np.random.seed(len(found))  # noqa: NPY002
        toy = Crowd(16, 0)
        learner = make(name, toy, seed)
        drive(learner, toy, 96, seed=0)
        assert learner.updates >= 2
        found.append(weights_of(learner))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


@pytest.mark.parametrize("name", ["imappo", "dqn"])
def test_making_a_learner_leaves_the_global_generator_alone(name):
    torch.manual_seed(5)
    make(name, Crowd(2, 0), 9)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


@pytest.mark.parametrize("name", ["imappo", "dqn"])
def test_a_learner_goes_on_bit_for_bit_from_its_state_dict(name):
    toy = Crowd(16, 0)
    learner = make(name, toy)
    drive(learner, toy, 64)
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    buffer.seek(0)
    resumed = make(name, toy, seed=99)
    resumed.load_state_dict(torch.load(buffer, weights_only=False))
    assert equal(weights_of(learner), weights_of(resumed))
    assert np.array_equal(learner.propose(toy.observe()).log_prior, resumed.propose(toy.observe()).log_prior)
    twin = copy.deepcopy(toy)
    drive(learner, toy, 64, seed=1)
    drive(resumed, twin, 64, seed=1)
    assert resumed.updates == learner.updates == 4
    assert equal(weights_of(learner), weights_of(resumed))


@pytest.mark.parametrize("name", ["imappo", "dqn"])
def test_a_gradient_that_is_not_finite_is_an_error(name):
    toy = Crowd(4, 0)
    learner = make(name, toy)
    for _ in range(learner.config.horizon):
        record_blank(learner, toy, np.full((4, 3), np.nan), np.zeros((4, 3, 5)))
    with pytest.raises(FloatingPointError, match="a gradient is not finite"):
        learner.update(toy.observe(), 0.0)
