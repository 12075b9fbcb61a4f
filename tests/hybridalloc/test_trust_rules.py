"""Rules of trust: hedged, robust, learned, raised where features drift, held against flipping."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from coordinator import Coordinator
from coordinator.drift import Ranges
from coordinator.trust import DEFAULT_GRID
from hybridalloc import Allocator, make_problem
from hybridalloc.problems.mec.shift import SHIFTS, Shift
from hybridalloc.training.evaluation import evaluate
from rl.policy import Notes
from tests.hybridalloc.recommenders import Random


@pytest.fixture(scope="module")
def problem():
    return make_problem("mec", agents=12, servers=3)


def follow(allocator, seed, slots):
    state = allocator.problem.reset(seed)
    for slot in range(slots):
        allocation = allocator.step(state)
        c = allocation.certificate
        assert c.feasible and c.regret <= c.epsilon_bound + 1e-9
        state, outcome = allocator.problem.advance(state, allocation, seed=slot)
        yield state, allocation, outcome


def test_hedge_leaves_a_recommender_that_misleads(problem):
    """Noise as a prior: the weight goes to trusts that ignore it, and the certificate's bound is the drawn one's."""
    allocator = Allocator(problem, "hybrid", Random(0, 20.0), trust="hedge", improve=False)
    drawn = set()
    for state, allocation, _ in follow(allocator, 0, 80):
        allocator.feedback(state)
        drawn.add(allocation.trust)
        if 0 < allocation.trust < np.inf:
            assert allocation.certificate.epsilon_bound == pytest.approx(10.0 / allocation.trust)
    rule = allocator.trust_rule.rule
    assert len(drawn) > 1 and rule.regret <= rule.bound
    assert rule.weights[np.array(DEFAULT_GRID) >= 10].sum() > 0.9
    assert allocator.trust == "hedge" and np.isfinite(rule.loss).all()


def test_exp3_learns_from_scores_alone(problem):
    allocator = Allocator(problem, "hybrid", Random(0), trust="exp3")
    for _, _, outcome in follow(allocator, 0, 30):
        allocator.observe_outcome(np.clip(outcome["welfare"], 0, 1))
    assert allocator.trust_rule.rule.steps == 30 and allocator.trust_rule.rule.loss.any()
    with pytest.raises(ValueError, match=r"needs a loss in \[0, 1\]"):
        allocator.observe_outcome(3.0)


def test_robust_rehearses_every_scenario_and_guarantees_either_parents_worst_case(problem):
    """The payoffs are what ``evaluate`` measures in each shifted world; until then the trained trust stays."""
    allocator = Allocator(problem, "hybrid", "imappo", trust="robust", period=2, improve=False)
    status = allocator.step(problem.reset(0)).certificate.status
    assert status == "ok: robust trust 5 until rehearse() is called"
    allocator.rehearse(networks=3, slots=4)
    rule = allocator.trust_rule.rule
    assert rule.payoff.shape == (len(DEFAULT_GRID), len(problem.scenarios()))
    k, s = 4, 3
    at, world = Coordinator("hybrid", DEFAULT_GRID[k]), problem.shifted(problem.scenarios()[s])
    seen = evaluate(world, allocator.prices, at, allocator.recommender, range(5000, 5003), slots=4)
    assert rule.payoff[k, s] == pytest.approx(seen.metrics["welfare"].mean(), abs=1e-12)
    worst = rule.payoff.min(axis=1)
    assert DEFAULT_GRID[0] == 0 and DEFAULT_GRID[-1] == np.inf
    assert rule.value >= max(worst[0], worst[-1]) - 1e-8 and rule.regret <= 1e-7
    assert rule.payoff.std() > 0.01  # the scenarios do differ
    drawn = [a.trust for _, a, _ in follow(allocator, 1, 8)]
    assert set(drawn) <= set(rule.grid[rule.weights > 0]) and drawn[::2] == drawn[1::2]
    with pytest.raises(ValueError, match='needs trust="robust"'):
        Allocator(problem, "hybrid").rehearse()


def test_robust_leaves_a_recommender_that_misleads(problem):
    """Noise as a prior: what it costs in rollouts leaves the proposal and low trusts without weight."""
    allocator = Allocator(problem, "hybrid", Random(0, 20.0), trust="robust")
    allocator.rehearse(networks=8, slots=10)
    rule = allocator.trust_rule.rule
    assert rule.weights[rule.grid >= 10].sum() > 0.9
    assert rule.shortfall < 0.5 * (rule.payoff.max(axis=0) - rule.payoff)[3].max()  # of trust 5, left alone


@pytest.mark.parametrize("shift", SHIFTS[1:], ids=lambda s: s.name)
def test_a_shifted_world_shifts_what_it_names_and_nothing_else(problem, shift):
    seeds = range(40)
    base, other = problem.worlds(seeds), problem.shifted(shift).worlds(seeds)
    for _ in range(3):
        for batch in (base, other):
            batch.execute(batch.settle(np.zeros(batch.world.active.shape, np.int64), problem.card.prices()))
            batch.drift()
    a, b = base.world, other.world
    if shift.load > 1:
        assert b.active.shape[1] == shift.load * a.active.shape[1] and b.server_hz.shape == a.server_hz.shape
        return
    np.testing.assert_allclose(b.mean_gain * shift.path_loss**2, a.mean_gain)
    np.testing.assert_allclose(b.server_hz * shift.cpu, a.server_hz)
    np.testing.assert_allclose(b.correlation, a.correlation**shift.decorrelation)
    np.testing.assert_array_equal(a.task_bits, b.task_bits)
    if shift.decorrelation == 1:
        np.testing.assert_allclose(b.true_gain * shift.path_loss**2, a.true_gain)
    if shift.decorrelation == 1 and shift.staleness == 1:
        np.testing.assert_allclose(b.reported_gain * shift.path_loss**2, a.reported_gain)


def test_late_reports_are_as_old_as_stated_and_teach_nothing(problem):
    """Mean age 2 slots of the reports in use; a belief sees a truth only in slots in which reports arrive."""
    batch = problem.shifted(Shift("late", staleness=2.0)).worlds(range(4))
    seen = []
    batch.attach(SimpleNamespace(quantiles=1, learning=True, look=lambda *_: None, reveal=lambda b: seen.append(1)))
    gains, ages, fresh = [], [], 0
    for _ in range(400):
        gains.append(batch.world.true_gain.copy())
        batch.execute(batch.settle(np.zeros(batch.world.active.shape, np.int64), problem.card.prices()))
        ages.append(next((k for k, g in enumerate(reversed(gains)) if (g == batch.world.reported_gain).all()), 0))
        fresh += ages[-1] == 0
        batch.drift()
    assert np.mean(ages) + 1 == pytest.approx(2.0, abs=0.25) and len(seen) == fresh
    with pytest.raises(ValueError, match=r"cpu = 0.5; a shift is a factor >= 1"):
        problem.shifted(Shift("faster", cpu=0.5))


def test_revealed_is_what_the_next_reports_say(problem):
    state = problem.reset(3)
    allocation = Allocator(problem).step(state)
    following, _ = problem.advance(state, allocation, seed=0)
    seen = problem.revealed(state, following)
    gain = 10 * np.log10(problem.world_at(state).world.true_gain[0])
    np.testing.assert_allclose(seen.reported_gain_db, gain, atol=1e-9)  # the next report is this slot's truth
    np.testing.assert_allclose(seen.queue_s, state.truth.backlog_s)
    with pytest.raises(ValueError, match="feedback needs the same devices and servers"):
        problem.revealed(state, make_problem("mec", agents=4, servers=3).reset(0))


def test_an_empty_set_of_scenarios_is_refused(problem, monkeypatch):
    monkeypatch.setattr(type(problem), "scenarios", lambda self: ())
    with pytest.raises(ValueError, match="mec has an empty set"):
        Allocator(problem, trust="robust")


@pytest.mark.parametrize("trust", ["hedge", "robust"])
def test_what_a_rule_has_learned_is_saved(problem, tmp_path, trust):
    allocator = Allocator(problem, "hybrid", "imappo", trust=trust, period=5)
    for state, _, _ in follow(allocator, 0, 12):
        allocator.feedback(state)
    again = Allocator.load(allocator.save(tmp_path / "a"))
    assert again.trust == trust
    if trust == "robust":
        allocator.rehearse(networks=2, slots=2)
        again = Allocator.load(allocator.save(tmp_path / "a"))
        assert again.trust_rule.rule.payoff is not None
    np.testing.assert_allclose(again.trust_rule.rule.weights, allocator.trust_rule.rule.weights)
    assert Allocator.load(tmp_path / "a.npz", trust=2.0).trust == 2.0


def test_learned_trust_comes_with_the_policy(problem, tmp_path):
    with pytest.raises(ValueError, match="needs a recommender that was trained with"):
        Allocator(problem, "hybrid", "imappo", trust="learned")
    allocator = Allocator(problem, "hybrid", "imappo")
    allocator.recommender.notes = Notes(learned_trust=8.25)
    path = allocator.save(tmp_path / "a")
    learned = Allocator.load(path, trust="learned")
    assert learned.step(problem.reset(0)).certificate.epsilon_bound == pytest.approx(10 / 8.25)


def test_the_default_trust_is_the_one_trained_at(problem, tmp_path):
    """A prior counts at the trust that it was trained at: saved there, it comes back so, as a recommender too."""
    assert Allocator(problem, "hybrid", "imappo").trust == 5.0
    path = Allocator(problem, "hybrid", "imappo", trust=20.0).save(tmp_path / "a")
    assert Allocator(problem, "hybrid", path).trust == 20.0
    hedged = Allocator(problem, "hybrid", path, trust="hedge")
    assert hedged.trust_rule.grid.tolist() == [0, 5, 10, 20, 40, 80, np.inf]
    again = Allocator.load(hedged.save(tmp_path / "b"))
    assert again.trust == "hedge" and again.trust_rule.grid[3] == 20.0


def test_drift_raises_trust_and_says_so(problem):
    allocator = Allocator(problem, "hybrid", "imappo")
    ranges = Ranges()
    batch, rng = problem.worlds(range(64)), np.random.default_rng(0)
    for _ in range(20):
        ranges.update(batch.observe())
        batch.execute(batch.settle(batch.baseline("greedy", rng), allocator.prices))
        batch.drift()
    allocator.recommender.notes = Notes(ranges=ranges.bounds())
    allocator = Allocator(problem, "hybrid", allocator.recommender)
    c = allocator.step(problem.reset(30)).certificate
    assert c.trust == 5.0 and c.status.startswith("ok") and c.drift < 0.01
    state = problem.reset(31)
    far = replace(state, reported_gain_db=state.reported_gain_db - 60, task_bits=50 * state.task_bits,
                  queue_s=state.queue_s + 0.5, device_hz=state.device_hz * 20)  # fmt: skip
    for _ in range(40):
        c = allocator.step(far).certificate
    assert c.trust == np.inf and c.epsilon_bound == 0 and c.drift > 0.05
    assert "of features out of range; trust 5 -> inf" in c.status


def test_hysteresis_calms_agents_that_go_back_and_forth(problem):
    """A prior that flips each step between two options of like cost: flips without it, rests with it."""
    state = problem.reset(4)

    class Flipping:
        step = 0

        def propose(self, observation):
            self.step += 1
            out = np.zeros(observation.allowed.shape)
            out[..., 1 + self.step % 2] = 3.0
            return out

    moves, wasted = [], []
    for hysteresis in (0.0, 4.0):
        allocator = Allocator(problem, "hybrid", Flipping(), trust=1.0, hysteresis=hysteresis)
        allocator.watch.worth = 4.0
        held = []
        for _ in range(24):
            allocation = allocator.step(state)
            c = allocation.certificate
            assert c.regret <= c.epsilon_bound + 1e-9 and c.feasible
            held.append(allocation.option)
        moves.append(sum((a != b).sum() for a, b in pairwise(held[8:])))
        wasted.append(allocator.health())
    assert wasted[0].oscillating and moves[1] < 0.3 * moves[0]
    with pytest.raises(ValueError, match=r"hysteresis = -1"):
        Allocator(problem, hysteresis=-1)


@pytest.mark.parametrize("rule", ["hedge", "robust"])
def test_a_prior_that_calibration_silenced_can_still_be_tried_by_a_rule(problem, tmp_path, rule):
    """Saved at trust inf: the rules mix about the default trust, and both parents are in their grid."""
    saved = Allocator(problem, "hybrid", "imappo", trust=np.inf).save(tmp_path / "a")
    allocator = Allocator.load(saved, trust=rule)
    assert allocator.trust_rule.grid.tolist() == list(DEFAULT_GRID)
    assert allocator.step(problem.reset(0)).certificate.feasible
    assert Allocator.load(saved).step(problem.reset(0)).certificate.regret <= 1e-9
