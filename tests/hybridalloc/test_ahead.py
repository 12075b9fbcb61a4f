"""The next rollout while the last is learned from: one update behind, the same on any machine, resumed to the bit."""

from __future__ import annotations

import copy
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybridalloc import make_problem
from hybridalloc.errors import WorkError
from hybridalloc.training.ahead import Ahead
from hybridalloc.training.apart import Apart, Learned
from hybridalloc.training.checkpoints import Checkpoints
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.trainer import train
from rl.batch import joined
from rl.imappo import Imappo
from rl.learner import Executed
from rl.proposal import Sizes
from rl.recall import again
from rl.recall import weights as truncated
from rl.registry import make_learner

sys.path.insert(0, str(Path(__file__).parents[1] / "rl"))
from toys import Crowd, drive, executes

TINY = TrainConfig(
    "imappo", "hybrid", 6 * 8 * 4 * 5, networks=4, checks=1, check_seeds=2, check_slots=4, overlap=True,
    settings=(("horizon", 8),),
)  # fmt: skip


def make():
    return make_problem("mec", agents=6, servers=2, episode=12)


def weights(trained):
    return trained.learner.policy.weights


def test_a_run_is_the_same_each_time_and_learns_from_every_rollout():
    one, two = (train(make(), make().card.prices(), TINY) for _ in "ab")
    for name, value in weights(one).items():
        np.testing.assert_array_equal(value, weights(two)[name])
    assert len(one.updates) == one.learner.updates == 5
    plain = train(make(), make().card.prices(), replace(TINY, overlap=False))
    assert plain.learner.updates == 5
    assert any((weights(one)[k] != weights(plain)[k]).any() for k in ("pair.weight", "mix.weight"))


def test_a_run_goes_on_to_the_bit(tmp_path):
    problem, prices = make(), make().card.prices()
    whole = train(problem, prices, TINY)
    kept = Checkpoints(tmp_path, 2 * 8 * 24)  # every other rollout
    stopped = []

    def stop(steps, figures):
        stopped.append(steps)
        if len(stopped) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(problem, prices, TINY, stop, checkpoints=kept)
    again = train(problem, prices, TINY, checkpoints=Checkpoints(tmp_path / "on", resume=tmp_path / "last.pt"))
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(value, weights(again)[name])
    strip = lambda rows: [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
    assert strip(again.updates) == strip(whole.updates)


def test_who_acts_is_one_update_behind():
    world = make().worlds(range(3))
    seen = world.observe()
    learner = make_learner("imappo", Sizes.of(seen), 0, {"horizon": 2, "gain": 1.0})
    ahead, rng = Ahead(learner), np.random.default_rng(0)
    first, acting = learner.policy, []
    for _ in range(3):
        for _ in range(2):
            bias = np.zeros(seen.allowed.shape)
            reward = rng.normal(size=seen.live.shape)
            learner.record(Executed(
                seen, seen.allowed.argmax(-1), learner.propose(seen).log_prior, bias, reward,
                np.zeros((*reward.shape, 1)), np.zeros(3, bool), None,
            ))  # fmt: skip
        if learner.ready():
            ahead.turn(seen, 0.0)
            acting.append(learner.policy)
    assert acting[0] is first and acting[1] is not first
    ahead.settle()
    assert learner.policy is acting[-1]
    assert ahead.finish() is not None and learner.policy is not acting[-1] and ahead.finish() is None


@pytest.mark.parametrize(
    ("learner", "settings"),
    [("dqn", ()), ("a3c", ()), ("mappo_lagrangian", ()), ("imappo", (("memory", 4),)), ("coma", ())],
)
def test_a_learner_that_is_read_while_it_acts_is_refused_by_name(learner, settings):
    config = replace(TINY, learner=learner, settings=settings, checks=0)
    with pytest.raises(ValueError, match=f"{learner} as it is set cannot learn while it acts"):
        train(make(), make().card.prices(), config)


def test_a_gradient_that_is_not_finite_stops_the_run_with_what_was_kept(tmp_path):
    with pytest.raises(FloatingPointError, match=r"training stopped after .* not finite"):
        train(make(), make().card.prices(), replace(TINY, settings=(("horizon", 8), ("rate", 1e30))))


def test_a_learners_process_that_fails_stops_the_run_and_says_which(monkeypatch):
    def broken(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(Imappo, "learn", broken)  # a forked process has it too
    with pytest.raises(
        WorkError, match=r"training stopped after .* the learner's process failed \(MemoryError: no room\)"
    ):
        train(make(), make().card.prices(), TINY)


def test_a_learners_process_that_is_killed_stops_the_run_which_goes_on(tmp_path):
    problem, prices = make(), make().card.prices()
    whole = train(problem, prices, TINY)

    def kill(steps, figures):
        if steps >= 3 * 8 * 24:
            for process in multiprocessing.active_children():
                if process.name == "learner":
                    process.kill()

    with pytest.raises(
        WorkError, match=r"training stopped after .* the learner's process ended by signal 9; .*last.pt"
    ):
        train(problem, prices, TINY, kill, checkpoints=Checkpoints(tmp_path, 2 * 8 * 24))
    again = train(problem, prices, TINY, checkpoints=Checkpoints(tmp_path / "on", resume=tmp_path / "last.pt"))
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(value, weights(again)[name])


@pytest.mark.parametrize(
    ("learner", "settings"),
    [
        ("imappo", {"replay": 2}), ("imappo", {"engine": "torch"}), ("mappo", {"network": "graph"}), ("ppo", {}),
        ("mappo", {"baseline": "leave_one_out"}), ("a2c", {}),
    ],
)  # fmt: skip
def test_in_another_process_the_same_is_learned(monkeypatch, learner, settings):
    """What is learned there is what is learned here, one update late."""
    config = replace(TINY, learner=learner, checks=0, settings=(*TINY.settings, *settings.items()))
    found = train(make(), make().card.prices(), config)
    assert found.learner.updates == 5
    left = [p for p in multiprocessing.active_children() if p.name == "learner"]
    assert not left

    class Within(Apart):
        """The same calls, without a process: a copy of the learner learns when it is asked."""

        def put(self, slots, following):
            self.process = None
            if self._turn == 0:
                self.twin, self._turn = copy.deepcopy(self.learner), 1
                self.twin.slots = []
            return slots

        def learn(self, put, following, progress):
            figures = self.twin.learn(self.twin.batch_of(joined(put), following), progress)
            self.answer = Learned(figures, self.twin.export().weights)

        def learned(self):
            return self.answer

    monkeypatch.setattr("hybridalloc.training.ahead.Apart", Within)
    same = train(make(), make().card.prices(), config)
    for name, value in weights(found).items():
        np.testing.assert_array_equal(value, weights(same)[name])
    after = found.learner.export().weights  # the networks came back
    for name, value in weights(found).items():
        np.testing.assert_array_equal(value, after[name])


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_an_update_that_comes_late_is_corrected(engine):
    """What the policy that learns would have done by now is where the ratio starts and what the advantages count by."""
    toy = Crowd(8, 0)
    learner = make_learner("imappo", Sizes.of(toy.observe()), 0, {"horizon": 8, "rate": 0.05, "engine": engine})
    drive(learner, toy, 8)  # learned from a first rollout, by who collected it
    acting = learner.policy
    drive(learner, toy, 8)
    learner.policy, learner.lags, kept = acting, True, []
    lesson = learner.lesson
    learner.lesson = lambda batch: kept.append((batch, lesson(batch))) or kept[-1][1]
    drive(learner, toy, 8)
    (batch, late), fresh = kept[0], again(learner, kept[0][0], 1.0)
    assert late.weight is not None and 0 < late.weight.min() < 0.95 and late.weight.max() == 1.0
    np.testing.assert_array_equal(late.weight, truncated(late.batch.old, batch, 1.0))
    assert (fresh.batch.old != late.batch.old).any()  # it has learned since
    assert late.target - late.value == pytest.approx(late.weight * (late.returns - late.value))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("imappo", {"horizon": 16}),
        ("mappo", {"horizon": 16}),
        ("a2c", {"horizon": 4, "gamma": 0.0, "credit": "difference"}),
    ],
)
def test_one_update_behind_as_much_is_learned(name, settings):
    found = []
    for behind in (False, True):
        toy = Crowd(32, 0)
        learner = make_learner(name, Sizes.of(toy.observe()), 0, settings)
        if behind:
            learner.update = Ahead(learner).turn
        drive(learner, toy, 16 * 60)
        found.append(toy.score(executes(learner)) / toy.best())
    assert found[1] >= max(found[0] - 0.01, 0.95)
