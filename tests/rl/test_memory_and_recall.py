"""A memory where one is needed, and learning again from recent policies' rollouts."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.imappo import Imappo, ImappoConfig
from rl.learner import Executed
from rl.networks import Sizes
from rl.on_policy import generalised_advantage
from rl.policy import ArrayPolicy, Carried
from rl.proposal import summary
from rl.recall import again, join

sys.path.insert(0, str(Path(__file__).parent))
from toys import OPTIONS, Crowd, Slots, drive, executes, observation_of


class Recall(Slots):
    """Two slots an episode: a cue is shown in the first, and paid for in the second, when it is not seen any more.

    Paid 1 for the option that the cue named (1 or 2), so no policy without a memory is paid more than .5 on average.
    """

    agents, contexts, episode = 2, 3, 2

    def __init__(self, networks, seed):
        self.rng = np.random.default_rng(seed)
        self.networks = networks
        self.age = np.arange(networks) % 2
        self.allowed = np.ones((networks, 2, OPTIONS), bool)
        self.cue = self.rng.integers(1, 3, (networks, 2))
        self.live = np.ones((networks, 2), bool)

    def observe(self):
        view = observation_of(np.zeros(self.networks, int), self.live.copy(), self.allowed.copy(), 3)
        shown = np.where(self.age[:, None] == 0, self.cue, 0)
        view.agent[..., 2:] = np.eye(3, dtype=np.float32)[shown]
        return view

    def step(self, option):
        paid = np.where(self.age[:, None] == 1, option == self.cue, 0.0)
        self.age += 1
        return paid, np.zeros((self.networks, 2, 1)), paid.sum(1)

    def restart(self, which):
        self.age[which] = 0
        self.cue[which] = self.rng.integers(1, 3, (int(which.sum()), 2))


def recalled(policy, seed=5, networks=200):
    """Share of the second slots that are right, executed without exploration; the first slot's memory is carried."""
    toy = Recall(networks, seed)
    toy.age[:] = 0
    speaker = policy.carrying()
    speaker.propose(toy.observe())
    toy.age[:] = 1
    return float((speaker.propose(toy.observe()).log_prior.argmax(-1) == toy.cue).mean())


def make(toy, seed=0, **settings):
    return Imappo(Sizes.of(toy.observe()), ImappoConfig(credit="own", **settings), seed)


def test_a_memory_solves_what_no_policy_without_one_can():
    scores = {}
    for memory in (8, 0):
        toy = Recall(32, 0)
        learner = make(toy, horizon=16, memory=memory, rate=1e-2)
        drive(learner, toy, 16 * 30, stop=lambda learner=learner: recalled(learner.policy) == 1.0)
        scores[memory] = recalled(learner.policy)
    assert scores[8] >= 0.98
    assert scores[0] < 0.6


def test_the_memory_is_the_one_that_was_acted_with_and_ends_with_the_episode():
    """Recomputed along the sequences it is the executed one, so the first ratio is 1, cuts and held-back slots too."""
    toy = Recall(8, 0)
    learner = make(toy, horizon=8, memory=4, gamma=0.5)
    learner.late = 2  # the last slots wait for the next rollout
    seen = []
    update = learner.update

    def spy(last, progress):
        batch = learner.batch(last)
        for part in learner.parts(batch):
            torch.testing.assert_close(learner.memory.replay(batch, part), batch.agent[part], atol=1e-6, rtol=0.0)
            taken = learner.taken(batch, part)
            old = batch.old[part[taken.row], taken.agent]
            torch.testing.assert_close(taken.log_density, old, atol=1e-5, rtol=0.0)
        seen.append((batch.agent[:, :, -4:].abs().max(), learner.held))
        learner.batch = lambda _: batch
        out = update(last, progress)
        del learner.batch
        return out

    learner.update = spy
    drive(learner, toy, 8)
    assert seen[0][0] > 1e-2
    assert learner.held == 2
    with torch.no_grad():
        learner.actor.out.weight.normal_()
    learner.policy = learner.export()
    toy.age[:] = 0
    fresh = ArrayPolicy(learner.policy.weights)
    learner.memory.reset(np.ones(8, bool))
    np.testing.assert_array_equal(learner.propose(toy.observe()).log_prior, fresh.propose(toy.observe()).log_prior)


def test_a_cut_clears_the_memory_of_its_network_alone():
    toy = Recall(4, 0)
    learner = make(toy, memory=4)
    o = toy.observe()
    zero = np.zeros(o.allowed.shape)
    cut = np.array([True, False, False, True])
    learner.record(Executed(
        o, np.zeros((4, 2), int), zero, zero, np.zeros((4, 2)), np.zeros((4, 2, 1)), cut, toy.observe()
    ))  # fmt: skip
    held = np.abs(learner.memory.state).max(axis=(1, 2))
    assert (held[cut] == 0).all() and (held[~cut] > 0).all()
    # the value at the cut was taken with the memory that the network had then
    kept = learner.values(*learner.slots[-1]["final"])
    slot = learner.slots[-1]
    with_memory = learner.values(summary(slot["agent"], slot["pair"]), o.resource)
    assert kept.shape == with_memory.shape and not np.allclose(kept, with_memory)


def test_numpy_remembers_as_torch_does_and_answers_without_a_past():
    toy = Recall(8, 0)
    learner = make(toy, memory=6)
    policy = learner.policy
    view = toy.observe()
    x = torch.from_numpy(np.concatenate([view.agent, view.pair.mean(2), view.pair.min(2), view.pair.max(2)], 2))
    h = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = learner.memory.cell(x.flatten(0, 1), h).view(8, 2, 6).numpy()
    np.testing.assert_allclose(policy.remember(view, h.view(8, 2, 6).numpy()), wanted, atol=1e-6)
    np.testing.assert_array_equal(policy.propose(view).log_prior, policy.propose(view).log_prior)
    speaker = policy.carrying()
    assert isinstance(speaker, Carried) and speaker.name == "imappo"
    np.testing.assert_array_equal(speaker.propose(view).log_prior, policy.propose(view).log_prior)
    after = speaker.after.copy()
    speaker.propose(view)
    assert np.abs(speaker.after - after).max() > 1e-3
    speaker.reset(np.arange(8) < 4)
    assert not speaker.after[:4].any() and speaker.after[4:].all()
    speaker.propose(Recall(3, 0).observe())  # other networks: afresh
    assert speaker.after.shape == (3, 2, 6)
    with pytest.raises(ValueError, match=r"memory has shape \(3, 2, 6\); this situation needs \(8, 2, 6\)"):
        policy.remember(view, speaker.after)
    plain = make(toy).policy
    assert plain.carrying() is plain


# --- replay of recent policies


def test_weights_of_1_leave_the_advantage_and_others_cut_the_trace():
    rng = np.random.default_rng(0)
    reward, value, after = (rng.normal(size=(6, 2, 3)) for _ in range(3))
    following, cut = rng.normal(size=(2, 3)), rng.random((6, 2)) < 0.2
    args = (reward, value, following, cut, after, 0.9, 0.8)
    np.testing.assert_array_equal(generalised_advantage(*args), generalised_advantage(*args, np.ones(reward.shape)))
    w = rng.random(reward.shape)
    got = generalised_advantage(*args, w)
    for t, e, i in np.ndindex(reward.shape):
        total, trace = 0.0, 1.0
        for k in range(t, 6):
            ahead = after[k, e, i] if cut[k, e] else following[e, i] if k == 5 else value[k + 1, e, i]
            total += trace * (reward[k, e, i] + 0.9 * ahead - value[k, e, i])
            if cut[k, e] or k == 5:
                break
            trace *= 0.9 * 0.8 * w[k + 1, e, i]
        assert got[t, e, i] == pytest.approx(total, abs=1e-12)


def test_what_is_replayed_is_weighed_by_how_likely_it_is_now():
    toy = Crowd(8, 0)
    learner = make(toy, horizon=8, replay=1)
    drive(learner, toy, 8)
    (batch,) = learner.past
    same = copy.deepcopy(learner)
    with torch.no_grad():
        learner.actor.out.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        same.actor.out.weight.zero_()
        same.actor.out.bias.zero_()  # the first rollout's policy was flat
    lesson = again(learner, batch, 1.0)
    taken = learner.taken(batch, torch.arange(len(batch.old)))
    wanted = (taken.log_density.detach() - batch.old[taken.row, taken.agent]).exp()
    assert wanted.max() > 1.2 and wanted.min() < 0.8
    got = lesson.weight.reshape(batch.old.shape)[taken.row, taken.agent]
    np.testing.assert_allclose(got, wanted.clamp(max=1.0).numpy(), rtol=1e-5)
    torch.testing.assert_close(lesson.batch.old[taken.row, taken.agent], taken.log_density.detach())
    np.testing.assert_allclose(lesson.target - lesson.value, lesson.weight * (lesson.returns - lesson.value))
    fresh = again(same, batch, 1.0)  # the policy that executed it: nothing to correct
    np.testing.assert_allclose(fresh.weight, 1.0, atol=1e-5)
    both = join([fresh, lesson])
    assert len(both.batch.option) == 2 * len(batch.option) and both.weight.shape[0] == 16
    np.testing.assert_array_equal(both.weight[8:], lesson.weight)
    torch.testing.assert_close(both.batch.old[len(batch.old) :], lesson.batch.old)


def test_replay_still_converges():
    """On the enumerated crowd, paid by difference: the optimum, from the rollouts of three policies at once."""
    toy = Crowd(32, 0)
    learner = Imappo(Sizes.of(toy.observe()), ImappoConfig(replay=2, horizon=16, epochs=2), 0)
    run = executes(learner)
    scores = []

    def settled():
        scores.append(toy.score(run) / toy.best())
        return len(scores) >= 3 and min(scores[-3:]) >= 0.97

    drive(learner, toy, 16 * 60, 0, None, settled)
    assert scores[-1] >= 0.97
    assert len(learner.past) == 2


@pytest.mark.parametrize("settings", [{"memory": 4}, {"replay": 2}], ids=str)
def test_training_goes_on_from_a_state_as_if_uninterrupted(settings):
    toy = Crowd(8, 0)
    config = ImappoConfig(horizon=8, **settings)
    learner, other = (Imappo(Sizes.of(toy.observe()), config, seed) for seed in (0, 9))
    drive(learner, toy, 24)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    twin = copy.deepcopy(toy)
    drive(learner, toy, 16, seed=1)
    drive(other, twin, 16, seed=1)
    assert learner.updates == other.updates == 5
    for k, v in learner.policy.weights.items():
        np.testing.assert_array_equal(v, other.policy.weights[k])


def test_a_memory_with_replay_is_refused():
    with pytest.raises(ValueError, match=r"memory = 4 with replay = 2.*set one of them to 0"):
        ImappoConfig(memory=4, replay=2)
    with pytest.raises(ValueError, match=r"memory = -1; it must be a whole number >= 0"):
        ImappoConfig(memory=-1)
