"""Beliefs of ``mec``: against the fading law's closed form, against what was true, and never against the present."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from coordinator import Coordinator
from hybridalloc import Allocator, CheckpointError, make_problem
from hybridalloc.problems.beliefs import load_belief, save_belief
from hybridalloc.problems.mec.belief import BLOCK, BLOCKED, BayesianBelief, LearnedBelief
from hybridalloc.training.beliefs import learn_belief
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.evaluation import evaluate


def play(batch, slots, trust=5.0, seed=0):
    rng = np.random.default_rng(seed)
    coordinator = Coordinator("hybrid", trust)
    prices = batch.problem.card.prices()
    for _ in range(slots):
        game = batch.game(prices)
        option = coordinator.explore(game, np.zeros_like(game.private_cost), rng.random(game.live.shape)).option
        batch.execute(batch.settle(option, prices))
        batch.drift()
        batch.restart(batch.epoch >= 40)
    return batch


@pytest.fixture(scope="module")
def learned():
    problem = make_problem("mec", agents=24, servers=4)
    belief = LearnedBelief()
    play(problem.worlds(range(32), belief), 200)
    return problem, belief


def test_untrained_it_is_the_reports():
    problem = make_problem("mec", agents=12, servers=3)
    prices = problem.card.prices()
    naive, believed = play(problem.worlds(range(3)), 6), play(problem.worlds(range(3), LearnedBelief(plans=False)), 6)
    for a, b in zip(naive.game(prices), believed.game(prices), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_learned_quantiles_cover_what_comes(learned):
    problem, belief = learned
    assert belief.channel.miscoverage < 0.03
    assert belief.channel.score[0] < 0.75 * belief.channel.score[1]
    assert belief.queues.score[0] < belief.queues.score[1]
    # and on networks it has not seen, judged by the truth itself
    batch = play(problem.worlds(range(900, 932), belief.copy(learning=False)), 6)
    w, p = batch.world, batch.physics
    rates = w.rates.copy()
    rise = batch.run(batch.settle(batch.baseline("nearest", np.random.default_rng(0)), problem.card.prices())).rise
    sinr = p.nominal_w * w.true_gain / (p.noise_w * (1 + rise[:, None]))
    truth = p.band_hz * np.log2(1 + sinr) + 1e4
    below = (truth[..., None] <= rates)[w.active].mean(axis=(0, 1))
    np.testing.assert_allclose(below, belief.channel.levels, atol=0.08)


def test_a_belief_does_not_see_the_present(learned):
    problem, belief = learned
    one, other = problem.worlds(range(4)), problem.worlds(range(4))
    for name in ("fading", "true_gain", "attenuation", "backlog_s", "air_backlog_s", "correlation"):
        getattr(other.world, name)[:] *= 1.7
    for batch in (one, other):
        batch.attach(belief.copy(learning=False))
    for name in ("rates", "cpu_wait_s", "air_wait_s"):
        assert (getattr(one.world, name) == getattr(other.world, name)).all()


@pytest.mark.parametrize("staleness", [True, False])
def test_what_is_learned_from_is_what_was_true(staleness):
    problem = make_problem("mec", agents=10, servers=3, staleness=staleness)
    belief = LearnedBelief(sample=5000)
    batch = play(problem.worlds(range(2), belief), 5)
    w, seen = batch.world, belief.channel.seen
    rng = np.random.default_rng(0)
    truth, queue, air = w.true_gain.copy(), w.backlog_s.copy(), w.air_backlog_s.copy()
    out = batch.run(batch.settle(batch.baseline("random", rng), problem.card.prices()))
    y = belief.channel._y[seen : belief.channel.seen, 0]
    expected = np.log(truth / w.mean_gain) - np.log1p(out.rise)[:, None]
    assert np.isclose(y[:, None], expected.ravel()[None].astype(np.float32), rtol=1e-5).any(axis=1).all()
    last = belief.queues.seen - 6
    pairs = np.stack([queue, air], axis=-1).reshape(-1, 2) / problem.scenario.slot_s
    np.testing.assert_allclose(belief.queues._y[last : last + 6], pairs, atol=1e-6)


def test_fresh_reports_of_quiet_networks_are_believed():
    problem = make_problem("mec", agents=10, servers=3, staleness=False, interference=False)
    belief = LearnedBelief()
    batch = play(problem.worlds(range(16), belief), 100)
    w = batch.world
    spread = np.log(w.rates[..., -1] / w.rates[..., 0])[w.active]
    assert np.median(spread) < 0.1
    ratio = (
        w.rate / (batch.physics.band_hz * np.log2(1 + batch.physics.nominal_w * w.true_gain / batch.physics.noise_w))
    )[w.active]
    assert np.median(np.abs(np.log(ratio))) < 0.05


@pytest.mark.parametrize("blockage", [False, True])
def test_the_oracle_is_the_law(blockage):
    problem = make_problem("mec", agents=6, servers=2, blockage=blockage, interference=False)
    batch = problem.worlds([3], BayesianBelief())
    w, p = batch.world, batch.physics
    w.active[:] = True
    batch.attach(batch.belief)
    rates = batch.world.rates[0]
    levels = (np.arange(15) + 0.5) / 15
    for i in range(6):
        for k in range(2):
            rho, att = w.correlation[0, i], w.attenuation[0, i, k]
            before = w.reported_gain[0, i, k] / (w.mean_gain[0, i, k] * att)
            scale = (1 - rho**2) / 2
            law = stats.ncx2(2, rho**2 * before / scale, scale=scale)  # |h|^2 given the last
            gain = (2 ** ((rates[i, k] - 1e4) / p.band_hz) - 1) * p.noise_w / p.nominal_w / w.mean_gain[0, i, k]
            if not blockage:
                found = law.cdf(gain)
            else:
                other, turn = (1.0, 0.12) if att < 1 else (BLOCKED, BLOCK)
                found = (1 - turn) * law.cdf(gain / att) + turn * law.cdf(gain / other)
            np.testing.assert_allclose(found[2:-2], levels[2:-2], atol=0.07)


def test_expected_costs_are_means_over_the_quantiles():
    problem = make_problem("mec", agents=8, servers=3)
    prices = problem.card.prices(risk=1.3, backlog=0.2)
    batch = play(problem.worlds(range(2), LearnedBelief()), 40)
    mixed = batch.game(prices).private_cost
    single = []
    rates = batch.world.rates
    for q in range(rates.shape[-1]):
        batch.world = batch.world._replace(rates=np.ascontiguousarray(rates[..., q : q + 1]))
        single.append(batch.game(prices).private_cost)
    live = batch.world.active & (batch.world.battery_j > 0.1)[..., None].all(axis=-1)
    np.testing.assert_allclose(mixed[live], np.mean(single, axis=0)[live], rtol=1e-9)


def test_belief_games_beat_games_that_take_reports_at_face_value(learned):
    problem, belief = learned
    prices = problem.card.prices()
    naive = evaluate(problem, prices, Coordinator("game"), None, range(5000, 5024), slots=30).metrics["welfare"]
    with_it = evaluate(problem, prices, Coordinator("game"), None, range(5000, 5024), slots=30, belief=belief)
    gain = with_it.metrics["welfare"] - naive
    assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain)) and with_it.violations == 0


def test_a_belief_by_name_and_an_unknown_one():
    problem = make_problem("mec", agents=6, servers=2)
    config = TrainConfig(belief="learned", belief_steps=600, networks=2)
    belief, allocations, violations = learn_belief(problem, problem.card.prices(), config)
    assert belief.slots == 50 and allocations == 100 and violations == 0
    with pytest.raises(ValueError, match="learned"):
        learn_belief(problem, problem.card.prices(), TrainConfig(belief="lerned"))


def test_resumed_it_learns_on_bit_for_bit():
    problem = make_problem("mec", agents=6, servers=2)
    one = LearnedBelief(every=2)
    play(problem.worlds(range(3), one), 9)
    other = one.copy()
    for belief in (one, other):
        play(problem.worlds(range(3), belief), 9, seed=1)
    assert one.figures() == other.figures()
    assert all((a == b).all() for a, b in zip(one.channel.network.weights, other.channel.network.weights, strict=True))


@pytest.mark.parametrize("staleness", [True, False])
def test_step_by_step_an_allocator_believes_and_learns_as_a_batch_does(learned, staleness):
    problem = make_problem("mec", agents=24, servers=4, staleness=staleness)
    prices = problem.card.prices(caution=0.4)
    inside, outside = learned[1].copy(), learned[1].copy()
    for belief in (inside, outside):
        belief.every = 3
    batch = problem.worlds([77], inside)
    allocator = Allocator(problem, "game", prices=prices, belief=outside)
    for _ in range(8):
        allocation = allocator.step(batch.state(0))
        decision = Coordinator("game").decide(batch, None, prices)
        assert (allocation.option == decision.option[0]).all() and allocation.certificate.feasible
        plan = Coordinator("game").settle(batch, decision, prices)
        np.testing.assert_allclose(allocation.shares["air"], plan.air[0], rtol=1e-9)
        np.testing.assert_allclose(allocation.power, plan.power_w[0], rtol=1e-9)
        batch.execute(plan)
        batch.drift()
    assert inside.channel.network.steps == outside.channel.network.steps > learned[1].channel.network.steps
    for a, b in zip(inside.channel.network.weights, outside.channel.network.weights, strict=True):
        assert (a == b).all()


def test_a_gap_or_another_network_begins_the_memory_anew(learned):
    problem, belief = learned
    allocator = Allocator(problem, "game", belief=belief.copy())
    batch = problem.worlds([5])
    seen = []
    for slot in range(6):
        allocator.step(batch.state(0))
        seen.append(int(allocator._past[0].history.seen[0]))
        batch.execute(batch.settle(batch.baseline("nearest", None), problem.card.prices()))
        batch.drift()
        if slot == 2:
            batch.drift()  # a slot that the allocator was not asked about
    assert seen == [1, 2, 3, 1, 2, 3]
    allocator.step(make_problem("mec", agents=7, servers=4).reset(1))
    assert allocator._past[0].history.seen[0] == 1


def test_saved_and_loaded_an_allocator_goes_on_learning(learned, tmp_path):
    problem, belief = learned
    one = Allocator(problem, "game", belief=belief.copy())
    other = Allocator.load(one.save(tmp_path / "a.npz"))
    assert other.belief.settings() == one.belief.settings()
    batch = problem.worlds([8])
    for _ in range(18):
        a, b = one.step(batch.state(0)), other.step(batch.state(0))
        assert (a.option == b.option).all() and (a.power == b.power).all()
        batch.execute(batch.settle(a.option[None], problem.card.prices()))
        batch.drift()
    np.testing.assert_array_equal(one.belief.channel.network.weights[0], other.belief.channel.network.weights[0])
    assert one.belief.channel.network.steps > belief.channel.network.steps


def test_a_belief_that_fails_leaves_the_reports_and_says_so(learned):
    problem, belief = learned
    broken = belief.copy()
    broken.channel.network.flat = np.zeros(9, np.float32)
    state = problem.reset(2)
    with pytest.warns(RuntimeWarning, match="belief failed"):
        allocation = Allocator(problem, "game", belief=broken).step(state)
    assert allocation.certificate.source == "game" and "reports at their face value" in allocation.certificate.status
    assert (allocation.option == Allocator(problem, "game").step(state).option).all()


def test_files_of_beliefs_are_refused_with_the_reason(learned, tmp_path):
    problem, belief = learned
    path = save_belief(tmp_path / "b.npz", belief)
    assert load_belief(problem, path).figures() == belief.figures()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated or not a belief"):
        load_belief(problem, path)
    assert path.read_bytes() == whole[: len(whole) // 2]
    with pytest.raises(CheckpointError, match="no belief at"):
        load_belief(problem, tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    with pytest.raises(CheckpointError, match="holds no belief; it has x"):
        load_belief(problem, tmp_path / "other.npz")
    with pytest.raises(ValueError, match="learned"):
        Allocator(problem, "game", belief="lerned")


def test_what_would_admit_a_device_is_asked_under_the_same_belief(learned):
    crowded = make_problem("mec", agents=24, servers=4, server_hz=(1e9, 2e9))
    allocator = Allocator(crowded, "nearest", belief=learned[1].copy())
    state = crowded.reset(3)
    for seed in range(3):
        state, _ = crowded.advance(state, allocator.step(state), seed)
    allocation = allocator.step(state)
    asked = 0
    for i in allocation.certificate.unserved[:4]:
        for row in allocation.why(i).admission:
            if row["knob"] == "deadline_s":
                tau = state.deadline_s.copy()
                tau[i] = row["needed"] * (1 + 1e-9)
                eased = crowded.world_at(replace(state, deadline_s=tau, truth=None), allocation.origin.memory)
                assert eased.settle(allocation.option[None], allocator.prices).served[0, i]
                asked += 1
    assert asked
