"""Decisions of unequal length, and episodes that end for good: discounting by time, against oracles."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from coordinator.learned_trust import LearnedTrust, trust_score
from rl.coma import td_lambda
from rl.elapsed import discounts, durations
from rl.learner import Executed
from rl.on_policy import generalised_advantage
from rl.proposal import Observation, Sizes
from rl.registry import make_learner
from rl.replay import Replay

sys.path.insert(0, str(Path(__file__).parent))
from toys import Errands, Farewell, drive, executes

GAMMA = 0.9
SETTINGS = {
    "ppo": {"horizon": 32, "gae": 0.8, "minibatches": 2},
    "imappo": {"horizon": 32, "gae": 0.8, "minibatches": 2},
    "dqn": {"horizon": 16, "updates": 2, "batch": 128, "temperature": 0.3, "rate": 3e-3, "target_rate": 0.05},
}


# --- learners find the semi-Markov optimum


def test_the_toys_have_another_optimum_by_time_than_by_decisions():
    errands = Errands(1, 0)
    by_time, by_decision = errands.values(GAMMA, errands.lasts), errands.values(GAMMA, np.ones_like(errands.lasts))
    assert by_time.argmax(axis=1).tolist() == [1, 2]
    assert by_decision.argmax(axis=1).tolist() == [2, 2]
    first, second = np.sort(by_time, axis=1).T[:-3:-1]
    assert (first - second).min() > 0.3  # no near tie


@pytest.mark.parametrize("name", SETTINGS)
def test_learners_find_the_optimum_of_a_semi_markov_problem(name):
    errands = Errands(32, 0)
    best = errands.values(GAMMA, errands.lasts).argmax(axis=1).tolist()
    learner = make_learner(name, Sizes.of(errands.observe()), 0, SETTINGS[name])
    right = []

    def found():
        right.append(errands.table(executes(learner)) == best)
        return len(right) >= 4 and all(right[-4:])

    drive(learner, errands, 3000, stop=found)
    assert all(right[-4:])


def test_without_the_time_that_went_by_a_learner_finds_the_optimum_by_decisions():
    errands = Errands(32, 0)
    learner = make_learner("ppo", Sizes.of(errands.observe()), 0, SETTINGS["ppo"])
    step = errands.step

    def timeless(option):
        out = step(option)
        errands.elapsed = None
        return out

    errands.step = timeless
    drive(learner, errands, 1500)
    assert errands.table(executes(learner)) == [2, 2]


@pytest.mark.parametrize(("waiting", "best"), [(0.2, 2), (0.05, 1)])
@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_follows_an_episode_that_ended_for_good(name, waiting, best):
    """To wait for ever is worth ``waiting`` / (1 - .9), to take 1; were an end a cut, to take would be 1 + .9 V."""
    toy = Farewell(32, 0, waiting)
    learner = make_learner(name, Sizes.of(toy.observe()), 0, SETTINGS[name])
    right = []

    def found():
        right.append(toy.table(executes(learner)) == [best])
        return len(right) >= 4 and all(right[-4:])

    drive(learner, toy, 3000, stop=found)
    assert all(right[-4:])


# --- the arithmetic


def test_a_unit_of_time_is_discounted_as_it_ever_was():
    for gamma in (0.9, 0.95, 0.99, 0.0, 1, 1.0):
        for units in range(1, 12):
            assert discounts(gamma, np.full(3, float(units))).tolist() == [gamma**units] * 3
    assert durations(None, 2).tolist() == [1.0, 1.0]


def test_generalised_advantages_by_time_against_their_sum():
    rng = np.random.default_rng(0)
    t, e, n, lam = 9, 3, 2, 0.7
    reward, value = rng.normal(size=(2, t, e, n))
    following, after = rng.normal(size=(e, n)), rng.normal(size=(t, e, n))
    cut = rng.random((t, e)) < 0.25
    d = discounts(GAMMA, rng.uniform(0.2, 3.0, (t, e)))
    got = generalised_advantage(reward, value, following, cut, after, d, lam)
    for i in range(e):
        for k in range(t):
            total, weight = np.zeros(n), 1.0
            for s in range(k, t):
                ahead = after[s, i] if cut[s, i] else (following[i] if s == t - 1 else value[s + 1, i])
                total += weight * (reward[s, i] + d[s, i] * ahead - value[s, i])
                weight *= lam * d[s, i]
                if cut[s, i]:
                    break
            np.testing.assert_allclose(got[k, i], total, rtol=1e-12, atol=1e-12)


def test_a_decision_that_is_split_in_two_leaves_the_return_as_it_was():
    """At lambda 1: a long decision, and the same one as two of which the second is paid nothing."""
    no = lambda t: (np.zeros((t, 1), bool), np.zeros((t, 1, 1)))
    column = lambda x: np.array(x, float).reshape(-1, 1, 1)
    time = lambda x: discounts(GAMMA, np.array(x).reshape(-1, 1))
    last = np.full((1, 1), 0.7)
    whole = generalised_advantage(column([1.0, 2.0]), column([0.0, 0.0]), last, *no(2), time([3.5, 1.0]), 1.0)
    split = generalised_advantage(column([1.0, 0, 2]), column([0.0, 0, 0]), last, *no(3), time([1.5, 2.0, 1.0]), 1.0)
    np.testing.assert_allclose(split[0], whole[0], rtol=1e-12)


def test_td_lambda_by_time_and_at_an_end():
    rng = np.random.default_rng(1)
    t, e, n, lam = 6, 4, 2, 0.6
    reward, q = rng.normal(size=(2, t, e, n))
    ended = rng.random((t, e)) < 0.3
    cut = ended | (rng.random((t, e)) < 0.2)
    d = discounts(GAMMA, rng.uniform(0.2, 3.0, (t, e)))
    y, exists = td_lambda(reward, q, cut, d, lam, np.repeat(ended[..., None], reward.shape[2], axis=2))
    for i in range(e):
        for k in reversed(range(t)):
            if ended[k, i]:
                wanted, there = reward[k, i], True
            elif cut[k, i] or k == t - 1:
                wanted, there = q[k, i], False
            else:
                wanted, there = reward[k, i] + d[k, i] * ((1 - lam) * q[k + 1, i] + lam * y[k + 1, i]), True
            np.testing.assert_allclose(y[k, i], wanted)
            assert exists[k, i] == there


def situation(rng, e=3, n=2, o=3):
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)
    ones = np.ones((e, n), bool)
    return Observation(f(e, n, 4), f(e, 2, 3), f(e, n, o, 2), ones, np.ones((e, n, o), bool), np.array([-1, 0, 1]))


def test_returns_last_as_long_as_asked_and_end_with_an_agents_part():
    """Decisions of a quarter, half and a whole unit: at least one, and on until a unit has gone by, each agent's to
    where it left."""
    rng = np.random.default_rng(4)
    e, n, length, span = 3, 2, 12, 1.0
    replay, lasted = Replay(length), np.array([0.25, 0.5, 1.0])
    reward, left = rng.normal(size=(length, e, n)), rng.random((length, e, n)) < 0.2
    seen = [situation(rng) for _ in range(length)]
    for k in range(length):
        zero, none = np.zeros((e, n), np.int64), np.zeros(e, bool)
        replay.add(seen[k], zero, np.zeros((e, n, 3)), reward[k], none, lasted, left=left[k])
    found = replay.sample(rng, 300, GAMMA, 1, span=span)
    agent = np.stack([x.agent for x in seen])
    for row in range(300):
        (k,), (i,) = (np.unique(x) for x in np.nonzero((agent == found.now["agent"][row].numpy()).all((2, 3))))
        total, weight, last = np.zeros(n), np.ones(n), min(k + int(span / lasted[i]), length - 1)
        for at in range(k, last):
            total += weight * reward[at, i]
            weight *= np.where(left[at, i], 0.0, GAMMA ** lasted[i])
        np.testing.assert_allclose(found.reward[row], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.discount[row], weight, rtol=1e-6)
        if weight.any():
            np.testing.assert_array_equal(found.then["agent"][row], agent[last, i])


def test_who_leaves_ends_its_own_return_and_not_the_teams():
    """An agent's advantage from where it left is of its reward alone; agents that share their pay go on."""
    rng = np.random.default_rng(5)
    left = np.array([[True, False]])
    for credit in ("own", "team"):
        learner = make_learner("mappo", Sizes(4, 3, 2), 0, {"credit": credit})
        seen = [situation(rng, 1) for _ in range(3)]
        for k in range(2):
            zero, none = np.zeros((1, 2, 3)), np.zeros(1, bool)
            option = np.zeros((1, 2), np.int64)
            learner.record(Executed(
                seen[k], option, zero, zero, np.ones((1, 2)), np.zeros((1, 2, 1)), none, None,
                left=left if k == 0 else None,
            ))  # fmt: skip
        batch = learner.batch(seen[2])
        _, returns, _ = learner.advantages(batch)
        follows = batch.discount[0, 0].tolist()
        assert follows == ([0.0, GAMMA] if credit == "own" else [GAMMA, GAMMA])
        assert not batch.cut.any()
        assert (returns[0, 0, 0] == pytest.approx(1.0)) == (credit == "own")
    learner = make_learner("mappo", Sizes(4, 3, 2), 0, {"credit": "own"})
    with pytest.raises(ValueError, match=r"left has shape \(2,\); 1 networks of 2 agents need \(1, 2\)"):
        learner.record(Executed(
            seen[0], option, zero, zero, np.ones((1, 2)), np.zeros((1, 2, 1)), none, None, left=left[0]
        ))  # fmt: skip


def test_returns_of_n_steps_by_time_and_at_an_end():
    rng = np.random.default_rng(2)
    e, n, length, steps = 3, 2, 12, 3
    replay = Replay(length)
    reward = rng.normal(size=(length, e, n)).astype(np.float32)
    lasted, ended = rng.uniform(0.2, 3.0, (length, e)), rng.random((length, e)) < 0.2
    cut = ~ended & (rng.random((length, e)) < 0.15)
    seen = []
    for k in range(length):
        seen.append(situation(rng))
        zero = np.zeros((e, n), np.int64)
        replay.add(seen[-1], zero, np.zeros((e, n, 3)), reward[k], cut[k], lasted[k], ended[k])
    found = replay.sample(rng, 400, GAMMA, steps)
    agent = np.stack([x.agent for x in seen])
    through_an_end = 0
    for row in range(400):
        (k,), (i,) = (np.unique(x) for x in np.nonzero((agent == found.now["agent"][row].numpy()).all((2, 3))))
        assert not cut[k, i]
        total, weight, at = np.zeros(n), 1.0, k
        for _ in range(steps):
            total += weight * reward[at, i]
            weight *= 0.0 if ended[at, i] else GAMMA ** lasted[at, i]
            at += 1
            if not weight or at == length - 1 or cut[at, i]:
                break
        through_an_end += weight == 0
        np.testing.assert_allclose(found.reward[row], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.discount[row], weight, rtol=1e-6)
        if weight:
            np.testing.assert_array_equal(found.then["agent"][row], agent[at, i])
    assert 0 < through_an_end < 400


@pytest.mark.parametrize("name", ["imappo", "dqn"])
def test_charges_that_come_late_are_discounted_by_the_time_since(name):
    rng = np.random.default_rng(3)
    learner = make_learner(name, Sizes(4, 3, 2), 0, {"credit": "difference", "carry": 0.5})
    lasted = np.array([[1.0, 2.0, 0.5], [3.0, 1.0, 0.25], [1.0, 1.0, 1.0]])
    charge = -rng.random((3, 3, 2, 2))
    zero, none = np.zeros((3, 2, 3)), np.zeros(3, bool)
    for k in range(3):
        option = np.zeros((3, 2), np.int64)
        learner.record(
            Executed(situation(rng), option, zero, zero, np.ones((3, 2)), charge[k], none, None, elapsed=lasted[k])
        )
    first = 1 + 0.5 * GAMMA ** lasted[0][:, None] * charge[1, ..., 0]
    first += 0.5 * GAMMA ** (lasted[0] + lasted[1])[:, None] * charge[2, ..., 1]
    kept = learner.slots[0]["reward"] if name == "imappo" else learner.replay.arrays["reward"][0]
    np.testing.assert_allclose(kept, first, rtol=1e-6)


def test_learned_trust_discounts_by_time():
    rng = np.random.default_rng(4)
    shape = (5, 3, 2, 3)
    prior, bias = -rng.random((2, *shape))
    option, reward = rng.integers(0, 3, shape[:3]), rng.normal(size=shape[:3])
    lasted = rng.uniform(0.2, 3.0, shape[:2])
    every, live = np.ones(shape[1:], bool), np.ones(shape[1:3], bool)
    learned = LearnedTrust(5.0)
    for k in range(5):
        learned.record(prior[k], bias[k], every, live, option[k], reward[k], lasted[k])
    returns = np.zeros(shape[:3])
    for k in range(5):
        for s in range(k, 5):
            returns[k] += learned.gamma ** lasted[k:s].sum(axis=0)[:, None] * reward[s]
    score = np.stack([trust_score(prior[k], bias[k], every, option[k]) for k in range(5)])
    wanted = ((returns - returns.mean(axis=(1, 2), keepdims=True)) * score).mean()
    assert learned.update() == pytest.approx(wanted, rel=1e-10)


def test_a_time_that_cannot_be_is_refused():
    for wrong, message in (
        ([1.0, -2.0], r"elapsed\[1\] = -2\.0; a decision lasts a finite time >= 0"),
        ([np.nan, 1.0], r"elapsed\[0\] = nan"),
        ([1.0], r"elapsed has shape \(1,\); 2 networks need \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            durations(np.array(wrong), 2)
    rng = np.random.default_rng(0)
    zero, none = np.zeros((3, 2, 3)), np.zeros(3, bool)
    for name in ("ppo", "a3c", "dqn"):
        learner = make_learner(name, Sizes(4, 3, 2), 0)
        slot = (np.zeros((3, 2), np.int64), zero, zero, np.zeros((3, 2)), np.zeros((3, 2, 1)), none, None)
        with pytest.raises(ValueError, match=r"terminated has shape \(2,\); 3 networks need \(3,\)"):
            learner.record(Executed(situation(rng), *slot, terminated=none[:2]))
