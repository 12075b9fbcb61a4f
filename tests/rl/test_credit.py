"""Who is paid what, and when: late charges, regions, the counterfactual setting, and what is refused."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

import rl.mappo
from rl.a2c import A2cConfig
from rl.imappo import Imappo, ImappoConfig
from rl.learner import Executed
from rl.mappo import IppoConfig, Mappo, MappoConfig
from rl.networks import Sizes
from rl.on_policy import entropy_of, executed_log_density, head_entropies, paid

sys.path.insert(0, str(Path(__file__).parent))
from toys import TwoSlots

H = 5


def record(learner, toy, reward, carried, cut=None):
    o = toy.observe()
    zero = np.zeros(o.allowed.shape)
    cut = np.zeros(len(o.live), bool) if cut is None else cut
    learner.record(Executed(o, np.zeros(o.live.shape, int), zero, zero, reward, carried, cut, o if cut.any() else None))


@pytest.mark.parametrize("horizon", [8, 3])
def test_every_slot_is_learned_from_once_with_all_that_fell_due(horizon):
    """Also across the ends of rollouts; a horizon shorter than the wait still learns."""
    toy = TwoSlots(2, 0)
    learner = Imappo(Sizes.of(toy.observe()), ImappoConfig(horizon=horizon, gamma=0.5, carry=2.0))
    rng = np.random.default_rng(0)
    slots = 40
    carried, reward = rng.random((slots, 2, 3, H)), rng.random((slots, 2, 3))
    learned, followed, updates = [], [], []
    for t in range(slots):
        record(learner, toy, reward[t], carried[t])
        learner.slots[-1]["agent"] = np.full_like(learner.slots[-1]["agent"], t)
        if learner.ready():
            batch = learner.batch(toy.observe())
            learned.extend(batch.reward)
            followed.append(batch.next_own[0, 0, 0])
            updates.append(t + 1)
            assert followed[-1] == len(learned)  # the critic looks at the slot that came next
    wanted = reward.copy()
    for t, h in product(range(slots), range(H)):
        if t + h + 1 < slots:
            wanted[t] += 2.0 * 0.5 ** (h + 1) * carried[t + h + 1, :, :, h]
    assert len(learned) == updates[-1] - H
    np.testing.assert_allclose(learned, wanted[: len(learned)])
    assert set(np.diff(updates)) == {horizon}


@pytest.mark.parametrize("settings", [{"credit": "team"}, {"credit": "own"}, {"carry": 0.0}], ids=str)
def test_nothing_is_held_back_where_nothing_can_fall_due(settings):
    toy = TwoSlots(2, 0)
    learner = Imappo(Sizes.of(toy.observe()), ImappoConfig(horizon=4, **settings))
    for _ in range(4):
        record(learner, toy, np.ones((2, 3)), -np.ones((2, 3, H)))
    assert learner.ready()
    np.testing.assert_array_equal(learner.batch(toy.observe()).reward, 1.0)


def test_a_region_is_those_on_the_same_resource():
    toy = TwoSlots(2, 0)
    view = toy.observe()._replace(resource_of=np.array([-1, 1, 1]))  # two options of one resource
    view.live[1, 2] = False
    option = np.array([[0, 1, 2], [1, 2, 1]])
    reward = np.array([[1.0, 2.0, 4.0], [1.0, 3.0, 9.0]])
    wanted = [[1.0, 3.0, 3.0], [2.0, 2.0, 9.0]]  # local: its own; the idle agent is in nobody's region
    np.testing.assert_array_equal(paid(reward, "region", option, view), wanted)
    np.testing.assert_array_equal(paid(reward, "own", option, view), reward)
    np.testing.assert_array_equal(paid(reward, "difference", option, view), reward)
    for credit in ("team", "counterfactual"):
        np.testing.assert_allclose(paid(reward, credit, option, view), np.repeat(reward.mean(1)[:, None], 3, 1))
    np.testing.assert_array_equal(reward[0], [1.0, 2.0, 4.0])


@pytest.mark.parametrize("credit", ["counterfactual", "team", "difference"])
def test_team_difference_and_counterfactual_credit_find_the_team_optimum(lab, credit):
    game = lab.ServerContexts(credit=credit)
    learner = Imappo(lab.Sizes.of(game.observe()), ImappoConfig(horizon=16, gamma=0.0, credit=credit), seed=1)
    lab.play(learner, game, 20)
    assert (learner.without is None) is (credit != "counterfactual")
    np.testing.assert_array_equal(game.table(learner), game.team_optima()[0])


def test_own_and_regional_pay_miss_the_team_optimum(lab):
    """As the enumerated game says of selfish play; a region's mean does not show what a newcomer takes from it."""
    for credit in ("own", "region"):
        game = lab.ServerContexts()
        learner = Imappo(lab.Sizes.of(game.observe()), ImappoConfig(horizon=16, gamma=0.0, credit=credit), seed=1)
        lab.play(learner, game, 20)
        table = tuple(game.table(learner))
        assert game.enumerate().mean(-1)[table] < game.enumerate().mean(-1).max() - 0.01, credit


def test_the_leave_one_out_advantage_is_a_plus_v_less_b(lab):
    """With GAE: A + V(s) - b_i = R_lambda - b_i, and b_i is the learned critic's, in units of reward."""
    game = lab.Chain(agents=2, networks=4)
    config = MappoConfig(horizon=6, credit="own", baseline="leave_one_out")
    learner = Mappo(lab.Sizes.of(game.observe()), config, seed=0)
    lab.play(learner, game, 2)
    seen = {}
    learner.update = lambda last, progress: seen.update(batch=learner.batch(last)) or {}
    lab.play(learner, game, 1)
    advantage, returns, value = learner.advantages(seen["batch"])
    b = learner.baseline(seen["batch"], value)
    raw = learner.without(seen["batch"], torch.arange(24)).detach().numpy().reshape(b.shape)
    np.testing.assert_allclose(b, learner.norm.centre + learner.norm.spread * raw, rtol=1e-5)
    np.testing.assert_allclose(advantage + value - b, returns - b)
    assert np.abs(b - value).max() > 1e-3


@pytest.mark.parametrize("baseline", ["value", "leave_one_out"])
def test_the_actor_is_given_the_return_less_the_baseline(lab, monkeypatch, baseline):
    game = lab.Chain(agents=2, networks=4)
    config = MappoConfig(horizon=6, credit="own", baseline=baseline)
    learner = Mappo(lab.Sizes.of(game.observe()), config, seed=0)
    lab.play(learner, game, 1)
    seen = {}
    lesson, scale = learner.lesson, rl.mappo.scaled

    def taught(batch):
        seen["lesson"] = lesson(batch)
        seen["b"] = learner.baseline(batch, seen["lesson"].value)
        return seen["lesson"]

    def scaled(advantage, live):
        seen["advantage"] = advantage
        return scale(advantage, live)

    learner.lesson = taught
    monkeypatch.setattr(rl.mappo, "scaled", scaled)
    lab.play(learner, game, 1)
    np.testing.assert_allclose(seen["advantage"], seen["lesson"].returns - seen["b"])
    assert (baseline == "value") == np.array_equal(seen["b"], seen["lesson"].value)


def test_the_entropies_of_the_heads_sum_to_the_whole():
    """H = H(mode) + pi(away) H(server | away), by hand; masked options have no part in either."""
    g = torch.Generator().manual_seed(0)
    raw = 3 * torch.randn(50, 6, generator=g, dtype=torch.float64)
    mask = torch.rand(50, 6, generator=g) < 0.7
    mask[:, 0] = True
    mask[:, 2] = True
    resource_of = torch.tensor([-1, 0, 0, 1, 1, 2])
    log_pi = executed_log_density(raw, torch.zeros_like(raw), mask, 10.0)
    for m in range(50):
        one = head_entropies(log_pi[m : m + 1], mask[m : m + 1], resource_of)
        away = 1 - float(log_pi[m, 0].exp())
        whole = float(entropy_of(log_pi[m : m + 1], mask[m : m + 1]))
        assert one["entropy_mode"] + away * one["entropy_server"] == pytest.approx(whole, abs=1e-9)
        p = np.array([1 - away, away])
        assert one["entropy_mode"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-9)
    alone = torch.zeros(4, 6, dtype=torch.bool)
    alone[:, 0] = True  # reaches nothing: no second head
    assert head_entropies(log_pi[:4], alone, resource_of) == {}


def test_what_is_not_supported_names_the_learner_and_those_that_do():
    with pytest.raises(ValueError, match=r"leave-one-out critic, which a2c lacks; imappo, mappo and counterfactual"):
        A2cConfig(credit="counterfactual")
    with pytest.raises(ValueError, match=r"critic = 'own' \(ippo\).*imappo, mappo and counterfactual"):
        IppoConfig(baseline="leave_one_out")
    with pytest.raises(ValueError, match=r"baseline = 'q'; it must be one of value, leave_one_out"):
        MappoConfig(baseline="q")
    with pytest.raises(ValueError, match=r"credit = 'all'; it must be one of team, region, own, difference, counterf"):
        ImappoConfig(credit="all")


def test_the_gain_of_the_last_layer_is_a_setting(lab):
    game = lab.ServerContexts()
    flat, near = (Imappo(lab.Sizes.of(game.observe()), ImappoConfig(gain=gain), seed=0) for gain in (0.0, 0.01))
    assert not flat.propose(game.observe()).log_prior.any()
    np.testing.assert_allclose(float(near.actor.out.weight.detach().norm()), 0.01, rtol=1e-5)
    assert 0 < np.abs(near.propose(game.observe()).log_prior).max() < 1.0
