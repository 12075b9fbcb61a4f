"""Replay: a ring in order, n-step returns by hand, priorities' frequencies, nothing across a cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from rl.proposal import Observation
from rl.replay import Replay, SumTree

E, N, K = 3, 2, 3


def fill(replay, slots, cut_at=(), pay=None, late=0):
    """Slots stamped by time; network 0 is cut after those in ``cut_at``."""
    for t in range(slots):
        stamp = np.full((E, N, 1), t, np.float32)
        stamp[:, 1] += 0.5  # which agent
        pair = np.tile(np.arange(E, dtype=np.float32)[:, None, None, None], (1, N, K, 1))  # which network
        live, allowed = np.ones((E, N), bool), np.ones((E, N, K), bool)
        seen = Observation(stamp, np.zeros((E, 1, 1), np.float32), pair, live, allowed, np.array([-1, 0, 0]))
        reward = np.full((E, N), float(t)) if pay is None else pay[t]
        cut = np.array([t in cut_at, False, False])
        replay.add(seen, np.zeros((E, N), np.int64), np.full((E, N, K), -float(t)), reward, cut, late=late)
    return replay


@pytest.mark.parametrize("agents", [False, True], ids=["slots", "agents"])
@pytest.mark.parametrize("alpha", [None, 0.6], ids=["uniform", "prioritised"])
def test_a_ring_pairs_slots_with_their_successors_and_never_across_a_cut(agents, alpha):
    replay = fill(Replay(7, agents, alpha), 12, cut_at=(4, 9))
    assert len(replay) == 7
    now, then, reward, discount, weight, _ = replay.sample(np.random.default_rng(0), 3000, 0.9)
    assert now["agent"].shape == (3000, 1 if agents else N, 1)
    torch.testing.assert_close(then["agent"], now["agent"] + 1)
    torch.testing.assert_close(then["pair"], now["pair"])
    slot, network = now["agent"][:, 0, 0].floor(), now["pair"][:, 0, 0, 0]
    assert set(slot.tolist()) == set(range(5, 11))  # the newest has no successor yet
    assert not ((network == 0) & (slot == 9)).any() and ((network == 1) & (slot == 9)).any()
    torch.testing.assert_close(reward, slot[:, None].expand_as(reward))
    torch.testing.assert_close(then["bias"][:, 0, 0], -(slot + 1))
    assert (discount == np.float32(0.9)).all() and (weight == 1).all()
    counts = np.unique(slot * E + network, return_counts=True)[1]
    assert len(counts) == 6 * E - 1
    assert stats.chisquare(counts).pvalue > 1e-4


def test_nothing_to_draw_where_every_slot_ends_an_episode():
    replay = Replay(5)
    fill(replay, 1)
    assert replay.sample(np.random.default_rng(0), 4, 0.9) is None
    replay = fill(Replay(5), 4)
    replay.arrays["cut"][:] = True
    assert replay.sample(np.random.default_rng(0), 4, 0.9) is None


@pytest.mark.parametrize("agents", [False, True], ids=["slots", "agents"])
def test_n_step_returns_by_hand(agents):
    gamma, steps, slots, cuts = 0.8, 3, 11, (4,)
    pay = np.random.default_rng(1).normal(size=(slots, E, N)).astype(np.float32)
    replay = fill(Replay(8, agents), slots, cuts, pay)
    now, then, reward, discount, _, _ = replay.sample(np.random.default_rng(0), 500, gamma, steps)
    seen = set()
    for b in range(500):
        t, e = int(now["agent"][b, 0, 0]), int(now["pair"][b, 0, 0, 0])
        who = [int(2 * (now["agent"][b, 0, 0] % 1))] if agents else [0, 1]
        end = min([t + steps, slots - 1] + [c for c in cuts if e == 0 and c >= t])  # bootstraps from this slot
        m = end - t
        want = sum(gamma**k * pay[t + k, e, who] for k in range(m))
        assert m >= 1
        np.testing.assert_allclose(reward[b].numpy(), want, rtol=1e-5)
        np.testing.assert_allclose(discount[b].numpy(), gamma**m, rtol=1e-6)
        assert int(then["agent"][b, 0, 0]) == end
        seen.add((e == 0, m))
    assert seen == {(a, m) for a in (False, True) for m in (1, 2, 3)}


def test_late_credit_reaches_the_n_step_return():
    replay = fill(Replay(8), 6)
    replay.add_reward(2, np.full((E, N), 100.0))  # slot 3
    now, _, reward, _, _, _ = replay.sample(np.random.default_rng(0), 200, 0.5, 2)
    by = {int(t): float(r) for t, r in zip(now["agent"][:, 0, 0], reward[:, 0], strict=True)}
    assert by == {0: 0.5, 1: 2.0, 2: 2 + 51.5, 3: 103 + 2.0, 4: 4.0}


def test_the_sum_tree_draws_by_weight_and_never_what_weighs_nothing():
    rng = np.random.default_rng(0)
    for size in (1, 2, 13, 64):
        tree, weight = SumTree(size), rng.random(size) * (rng.random(size) < 0.7)
        weight[0] = 0.3
        tree.set(np.arange(size), rng.random(size))
        tree.set(rng.permutation(size), 0.0)
        tree.set(np.arange(size), weight)
        assert tree.total == pytest.approx(weight.sum())
        found = tree.find(rng.random(4000) * tree.total)
        counts = np.bincount(found, minlength=size)
        assert not counts[weight == 0].any() and len(counts) == size
        if (weight > 0).sum() > 1:
            assert stats.chisquare(counts[weight > 0], 4000 * weight[weight > 0] / weight.sum()).pvalue > 1e-4
        edge = tree.find(np.array([0.0, np.nextafter(tree.total, 0)]))
        assert (weight[edge] > 0).all()


@pytest.mark.parametrize("agents", [False, True], ids=["slots", "agents"])
def test_priorities_set_the_frequencies_and_importance_weights_undo_them(agents):
    alpha, rng = 0.7, np.random.default_rng(0)
    replay = fill(Replay(8, agents, alpha), 6)
    _, _, _, _, _, index = replay.sample(rng, 4000, 0.9)
    leaves = np.unique(index)
    assert len(leaves) == 5 * E * (N if agents else 1)
    error = rng.exponential(size=len(leaves))
    replay.prioritise(leaves, error)
    share = (error + 1e-6) ** alpha / ((error + 1e-6) ** alpha).sum()
    drawn = [replay.sample(rng, 50, 0.9, 1, 1.0) for _ in range(200)]
    counts = np.array([sum((d.place == leaf).sum() for d in drawn) for leaf in leaves])
    assert counts.sum() == 10_000
    rare = share * 10_000 >= 5
    assert stats.chisquare(counts[rare], share[rare] / share[rare].sum() * counts[rare].sum()).pvalue > 1e-4
    d = drawn[0]
    w = 1 / share  # over the largest of all, which is of the least likely, in the batch or not
    assert share.argmin() not in np.searchsorted(leaves, d.place)
    np.testing.assert_allclose(d.weight.numpy(), (w / w.max())[np.searchsorted(leaves, d.place)], rtol=1e-5)
    assert (replay.sample(rng, 50, 0.9, 1, 0.0).weight == 1).all()
    top = max(1.0, (error.max() + 1e-6) ** alpha)
    fill(replay, 2)  # what comes in is drawn soon: at the largest priority so far
    assert replay.tree[replay._leaves(replay.newest - 1)] == pytest.approx(top)
    assert not replay.tree[replay._leaves(replay.newest)].any()


@pytest.mark.parametrize("alpha", [None, 0.6], ids=["uniform", "prioritised"])
@pytest.mark.parametrize("slots", [5, 12], ids=["not full", "wrapped"])
def test_state_round_trip_draws_the_same_and_goes_on_the_same(alpha, slots):
    first, second = fill(Replay(7, True, alpha), slots, (3, 8)), Replay(7, True, alpha)
    if alpha:
        drawn = first.sample(np.random.default_rng(2), 40, 0.9)
        first.prioritise(drawn.place, np.random.default_rng(3).exponential(size=40))
    second.load_state_dict({k: np.copy(v) if isinstance(v, np.ndarray) else v for k, v in first.state_dict().items()})
    for _ in range(3):
        a, b = (r.sample(np.random.default_rng(5), 100, 0.9, 2, 0.5) for r in (first, second))
        for x, y in zip(a, b, strict=True):
            if isinstance(x, dict):
                assert all(torch.equal(x[k], y[k]) for k in x)
            else:
                np.testing.assert_array_equal(x, y)
        fill(first, 4, (1,))
        fill(second, 4, (1,))


@pytest.mark.parametrize("agents", [False, True], ids=["slots", "agents"])
@pytest.mark.parametrize("alpha", [None, 0.6], ids=["uniform", "prioritised"])
def test_what_may_yet_be_charged_is_not_drawn_nor_counted_between(agents, alpha):
    """Slots 8 and 9 are not through when 10 is the newest: draws start at 7 at most, and add nothing of theirs."""
    pay = np.where(np.arange(11) >= 8, 1e6, 1.0)[:, None, None] * np.ones((E, N))
    replay = fill(Replay(7, agents, alpha), 11, cut_at=(5,), pay=pay, late=3)
    now, then, reward, _, _, _ = replay.sample(np.random.default_rng(0), 2000, 0.5, 4)
    slot = now["agent"][:, 0, 0].floor()
    assert set(slot.tolist()) == {4.0, 5.0, 6.0, 7.0} and float(then["agent"].floor().max()) == 8.0
    assert float(reward.max()) <= 2.0
    fill(replay, 1, pay=pay, late=3)
    assert set(replay.sample(np.random.default_rng(0), 2000, 0.5)[0]["agent"][:, 0, 0].floor().tolist()) == {5, 6, 7, 8}


def test_a_replay_that_keeps_no_slot_until_its_charges_are_in_is_refused():
    with pytest.raises(ValueError, match=r"capacity = 5; a slot is drawn 5 slots later, so that at least 6 must be"):
        fill(Replay(5), 1, late=5)
    assert fill(Replay(6), 5, late=5).sample(np.random.default_rng(0), 4, 0.9) is None
    assert fill(Replay(6), 6, late=5).sample(np.random.default_rng(0), 4, 0.9) is not None
