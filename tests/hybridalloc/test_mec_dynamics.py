"""mec as a process: batches, seeds, what believing may read, invariance, feasibility, statistics of the drift."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from coordinator.coordinator import game_of
from games.certificate import measure_regret
from hybridalloc.problems import make_problem
from hybridalloc.problems.mec.law import streams
from hybridalloc.problems.mec.state import HIDDEN, MecState
from hybridalloc.problems.metrics import Tally

CHANGING = (
    "active", "task_bits", "task_cycles", "deadline_s", "battery_j", "age_slots", "last_server", "activity",
    "reported_gain", "queue_s", "air_queue_s", "noise_rise", "slot", "fading", "attenuation", "true_gain",
    "backlog_s", "air_backlog_s", "bursting", "rate", "trail_band", "trail_cpu_s", "trail_air_s",
)  # fmt: skip
EXOGENOUS = (
    "active", "task_bits", "task_cycles", "deadline_s", "activity", "slot", "fading", "attenuation", "true_gain",
    "bursting",
)  # fmt: skip


def any_option(batch, rng):
    e, n, b = batch.world.rate.shape
    return rng.integers(0, 1 + b, (e, n))


def allocation_of(batch, option, prices):
    return SimpleNamespace(**batch.parts(batch.settle(option, prices)))


def play(batch, options, prices):
    """Execute a list of joint choices, moving on after each; what came out of the last slot, and the figures of all."""
    tally = Tally(batch.problem.card.metrics, batch.size)
    for option in options:
        facts = batch.execute(batch.settle(option, prices))
        tally.add(facts.counts, facts.elapsed_s)
        batch.drift()
    return facts, tally.summary()


@pytest.mark.parametrize("changes", [{}, {"choose_channel": True}, {"scenario": "A"}])
def test_a_batch_of_many_equals_batches_of_one(changes):
    problem = make_problem("mec", agents=15, servers=4, **changes)
    prices = problem.card.prices()
    seeds = [3, 1, 4, 100]
    rng = np.random.default_rng(0)
    many = problem.worlds(seeds)
    options = [any_option(many, rng) for _ in range(10)]
    facts, figures = play(many, options, prices)
    for e, seed in enumerate(seeds):
        one = problem.worlds([seed])
        alone, own = play(one, [o[e : e + 1] for o in options], prices)
        for name in CHANGING:
            assert np.array_equal(getattr(many.world, name)[e], getattr(one.world, name)[0]), name
        for name in ("reward", "lost", "carried", "elapsed_s"):
            assert np.array_equal(getattr(facts, name)[e], getattr(alone, name)[0]), name
        for name, count in facts.counts.items():
            assert np.array_equal(count[e], alone.counts[name][0]), name
        assert {k: v[e] for k, v in figures.items()} == {k: v[0] for k, v in own.items()}
        for name in ("agent", "resource", "pair", "live", "allowed"):
            assert np.array_equal(getattr(many.observe(), name)[e], getattr(one.observe(), name)[0]), name
        for mine, its in zip(many.game(prices)[1:], one.game(prices)[1:], strict=True):
            assert np.array_equal(mine[e], its[0])


def test_restart_of_some_leaves_the_others_alone():
    problem = make_problem("mec", agents=8, servers=3)
    prices = problem.card.prices()
    rng = np.random.default_rng(0)
    one, other = problem.worlds([1, 2]), problem.worlds([1, 2])
    options = [any_option(one, rng) for _ in range(6)]
    play(one, options[:3], prices)
    play(other, options[:3], prices)
    one.restart(np.array([False, True]))
    assert one.epoch.tolist() == [3, 0]
    play(one, options[3:], prices)
    play(other, options[3:], prices)
    for name in CHANGING:
        assert np.array_equal(getattr(one.world, name)[0], getattr(other.world, name)[0]), name
    assert not np.array_equal(one.world.mean_gain[1], other.world.mean_gain[1])


def test_the_same_randomness_comes_whatever_is_executed():
    for changes in ({}, {"scenario": "A"}, {"choose_channel": True}):
        problem = make_problem("mec", agents=12, servers=3, **changes)
        rng = np.random.default_rng(0)
        one, other = problem.worlds([5, 6]), problem.worlds([5, 6])
        play(one, [any_option(one, rng) for _ in range(20)], problem.card.prices())
        play(other, [np.zeros((2, 12), int)] * 20, problem.card.prices(energy=1.0))
        for name in EXOGENOUS:
            assert np.array_equal(getattr(one.world, name), getattr(other.world, name)), name
        one.restart(np.ones(2, bool))
        other.restart(np.ones(2, bool))
        assert np.array_equal(one.world.position, other.world.position)


def walk(problem, seed=0, slots=6):
    """A state some slots in, with queues, ages and servers in it."""
    batch = problem.worlds([seed])
    rng = np.random.default_rng(seed)
    play(batch, [any_option(batch, rng) for _ in range(slots)], problem.card.prices())
    return batch.state(0)


def same(one, other):
    a, b = one.to_dict(), other.to_dict()
    return a == b


def test_advance_is_reproducible_by_seed_and_evaluate_does_not_move_the_state_on():
    problem = make_problem("mec", agents=15, servers=3)
    state = walk(problem)
    held = state.to_dict()
    batch = problem.world_at(state)
    allocation = allocation_of(batch, any_option(batch, np.random.default_rng(1)), problem.card.prices())
    metrics = problem.evaluate(state, allocation)
    assert state.to_dict() == held
    one, first = problem.advance(state, allocation, seed=4)
    assert state.to_dict() == held
    two, second = problem.advance(state, allocation, seed=4)
    three, third = problem.advance(state, allocation, seed=5)
    assert same(one, two) and first == second == third == metrics
    assert not same(one, three)
    assert one.slot == state.slot + 1
    # what was executed is in it, whatever the seed
    assert np.array_equal(one.last_server, three.last_server) and np.array_equal(one.age_slots, three.age_slots)


def test_states_in_a_row_are_the_batch_in_a_row():
    """advance() carries all that the future depends on: the batch stepped with the same draws goes the same way."""
    problem = make_problem("mec", agents=10, servers=3)
    state = walk(problem)
    batch = problem.world_at(state)
    rng = np.random.default_rng(2)
    for turn in range(8):
        option = any_option(batch, rng)
        allocation = allocation_of(problem.world_at(state), option, problem.card.prices())
        state, _ = problem.advance(state, allocation, seed=turn)
        batch.stream = streams([turn])
        play(batch, [option], problem.card.prices())
        now = batch.state(0)
        for name in (*HIDDEN,):
            assert np.allclose(getattr(now.truth, name), getattr(state.truth, name), rtol=1e-9, atol=1e-12), name
        assert np.array_equal(now.active, state.active) and np.allclose(now.battery_j, state.battery_j, rtol=1e-9)
        assert np.allclose(now.reported_gain_db, state.reported_gain_db, rtol=1e-9)


def test_no_truth_takes_the_reports_as_true():
    problem = make_problem("mec", agents=10, servers=3)
    state = replace(walk(problem), truth=None)
    batch = problem.world_at(state)
    assert np.allclose(batch.world.true_gain, batch.world.reported_gain, rtol=1e-9)
    assert np.array_equal(batch.world.backlog_s[0], state.queue_s)
    allocation = allocation_of(batch, any_option(batch, np.random.default_rng(0)), problem.card.prices())
    after, _ = problem.advance(state, allocation, seed=0)
    assert np.isfinite(after.reported_gain_db).all()
    # positions are unknown: nobody is taken to stand in the hot spot, where 95 % are active
    active = [problem.advance(state, allocation, seed=s)[0].active.mean() for s in range(100)]
    assert 0.1 < np.mean(active) < 0.85


def test_believing_reads_no_truth():
    for changes in ({}, {"choose_channel": True}, {"staleness": False}):
        problem = make_problem("mec", agents=15, servers=4, **changes)
        prices = problem.card.prices(interference=1e-2)
        state = walk(problem)
        rng = np.random.default_rng(0)
        t = state.truth
        other = replace(
            state,
            truth=type(t)(
                fading=rng.standard_normal(t.fading.shape), attenuation=rng.random(t.attenuation.shape),
                backlog_s=rng.random(t.backlog_s.shape), air_backlog_s=rng.random(t.air_backlog_s.shape),
                correlation=rng.random(t.correlation.shape), bursting=~t.bursting,
                position=t.position + 100, site=t.site - 50,
            ),
        )  # fmt: skip
        one, two = problem.world_at(state), problem.world_at(other)
        option = any_option(one, rng)
        assert not np.array_equal(one.world.true_gain, two.world.true_gain)
        for a, b in zip(one.observe(), two.observe(), strict=True):
            assert np.array_equal(a, b)
        for a, b in zip(one.game(prices), two.game(prices), strict=True):
            assert np.array_equal(a, b)
        for a, b in zip(one.settle(option, prices), two.settle(option, prices), strict=True):
            assert np.array_equal(a, b)
        assert np.array_equal(one.requested(option, prices), two.requested(option, prices))
        for name in problem.card.baselines:
            a, b = (x.baseline(name, np.random.default_rng(3)) for x in (one, two))
            assert np.array_equal(a, b) == (name not in problem.card.bounds), name
        # and the world does read it
        assert not np.array_equal(
            one.execute(one.settle(option, prices)).reward, two.execute(two.settle(option, prices)).reward
        )


def test_permuting_agents_permutes_game_observation_and_plan():
    for changes in ({}, {"choose_channel": True}, {"scenario": "A"}):
        problem = make_problem("mec", agents=20, servers=4, **changes)
        prices = problem.card.prices(interference=1e-2)
        state = walk(problem)
        order = np.random.default_rng(0).permutation(20)
        shuffled = {
            name: value[order] if isinstance(value, np.ndarray) and value.shape[:1] == (20,) else value
            for name, value in vars(state).items()
            if name not in ("truth", "slot")
        }
        one, two = problem.world_at(state), problem.world_at(MecState(**shuffled))
        g, h = one.game(prices), two.game(prices)
        for name in ("weight", "private_cost", "allowed", "live"):
            assert np.array_equal(getattr(g, name)[:, order], getattr(h, name)), name
        assert np.array_equal(g.capacity, h.capacity)
        a, b = one.observe(), two.observe()
        for name in ("agent", "pair", "live", "allowed"):
            assert np.allclose(getattr(a, name)[:, order], getattr(b, name), rtol=1e-5, atol=1e-6), name
        assert np.allclose(a.resource, b.resource, rtol=1e-5, atol=1e-6)
        option = any_option(one, np.random.default_rng(1))
        p, q = one.settle(option, prices), two.settle(option[:, order], prices)
        for name in ("option", "air", "cpu", "power_w", "fraction", "served"):
            assert np.allclose(getattr(p, name)[:, order], getattr(q, name), rtol=1e-9, atol=1e-12), name
        assert np.allclose(p.air_price, q.air_price) and np.allclose(p.cpu_price, q.cpu_price)


def test_the_game_is_the_social_cost_of_what_settle_shares():
    """The congestion part of the game at toll 0 is omega times the transfer time at the square-root shares."""
    off = dict.fromkeys(("power_control", "partial", "floors", "batteries"), False)
    problem = make_problem("mec", agents=12, servers=3, **off)
    prices = problem.card.prices(toll=0.0, miss=0.0, energy=0.0, migration=0.0)
    batch = problem.world_at(walk(problem))
    option = any_option(batch, np.random.default_rng(0))
    plan = batch.settle(option, prices)
    game = game_of(batch.game(prices)).single(0)
    w = batch.world
    costs = game.costs(plan.option[0])
    for i in range(12):
        o = int(plan.option[0, i])
        if o == 0:
            continue
        tau = w.deadline_s[0, i]
        air_s = w.task_bits[0, i] / w.rate[0, i, o - 1] / plan.air[0, i]
        cpu_s = w.task_cycles[0, i] / w.server_hz[0, o - 1] / plan.cpu[0, i]
        moved = w.last_server[0, i] not in (-1, o - 1)
        wait = 1e-3 + w.queue_s[0, o - 1] + w.air_queue_s[0, o - 1] + 4e-3 * moved
        if w.task_bits[0, i] / w.rate[0, i, o - 1] < tau:  # otherwise the weight is capped at the deadline
            assert costs[i, o] == pytest.approx(prices.delay / tau * (min(wait, tau) + air_s + cpu_s), rel=1e-9)


# --- feasibility


HARSH = {"harvest_j": 0.0}
SETTINGS = [
    {}, {"choose_channel": True}, {"scenario": "A"}, {"scenario": "A", "batteries": True, "harvest_j": 0.0},
    {"partial": False}, {"floors": False}, {"power_control": False}, {"choose_channel": True, "reuse": 1},
]  # fmt: skip


def harsh(batch, rng):
    """Empty and nearly empty batteries, dead links, unreachable servers, full queues, deafening neighbours."""
    w = batch.world
    e, n, b = w.rate.shape
    k = w.server_hz.shape[1]
    if batch.physics.batteries:
        level = rng.choice([0.0, 1e-9, 1e-4, 0.01, 0.3, 1.0], (e, n))
        w.battery_j[:] = level * rng.random((e, n))
    w.reported_gain[:] *= rng.choice([1.0, 1e-3, 1e-12, 1e-30, 1e3], (e, n, b))
    w.reachable[:] = rng.random((e, n, k)) < 0.8
    w.queue_s[:] = rng.choice([0.0, 0.01, 10.0], (e, k))
    w.air_queue_s[:] = rng.choice([0.0, 0.01, 10.0], (e, b))
    w.noise_rise[:] = rng.choice([0.0, 10.0, 1e6], (e, b))
    w.last_server[:] = rng.integers(-1, k, (e, n))
    w.deadline_s[:] *= rng.choice([1.0, 0.01, 10.0], (e, n))
    from hybridalloc.problems.mec.build import believe

    believe(batch.physics, w, np.ones(e, bool))


@pytest.mark.parametrize("hard", [False, True], ids=["as drawn", "harsh"])
@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_no_choice_can_make_settle_infeasible(changes, hard):
    """16 x 1,250 = 20,000 random choices, by the batched and (a part) by the per-state certificate."""
    problem = make_problem("mec", agents=30, servers=4, **changes)
    rng = np.random.default_rng(7)
    low, high = problem.card.price_space["energy"][:2]
    networks, rounds = 250, 5
    batch = problem.worlds(range(networks))
    for turn in range(rounds):
        if hard:
            harsh(batch, rng)
        prices = problem.card.prices(
            energy=rng.uniform(low, high), miss=rng.uniform(0, 1.5), margin=rng.uniform(0.6, 1.0),
            interference=rng.choice([0.0, 1e-3, 0.1]), delay=rng.choice([0.5, 0.01]),
        )  # fmt: skip
        option = any_option(batch, rng)
        if turn == 1:
            option[:] = 1  # all on one server
        plan = batch.settle(option, prices)
        assert batch.excess(plan).max() <= 1e-9
        for value in plan[1:5]:
            assert np.isfinite(value).all()
        assert not plan.air[(plan.option == 0)].any() and not plan.power_w[plan.air == 0].any()
        for e in range(0, networks, 10):
            state = batch.state(e)
            allocation = SimpleNamespace(
                option=plan.option[e], shares={"air": plan.air[e], "cpu": plan.cpu[e]}, power=plan.power_w[e],
                fraction=plan.fraction[e], served=plan.served[e],
                prices={"air": plan.air_price[e], "cpu": plan.cpu_price[e]},
            )  # fmt: skip
            check = problem.check(state, allocation)
            assert check.feasible, (check.violations, e, turn)
        outcome = batch.run(plan)
        assert np.isfinite(outcome.reward).all() and np.isfinite(outcome.lost).all()
        assert np.isfinite(outcome.carried).all()
        if batch.physics.batteries:
            assert (batch.world.battery_j >= 0).all()
        batch.drift()


def test_no_device_spends_more_than_its_battery_holds():
    problem = make_problem("mec", agents=30, servers=3, harvest_j=0.0)
    batch = problem.worlds(range(100))
    rng = np.random.default_rng(3)
    poor = 0
    for _ in range(20):
        held = batch.world.battery_j.copy()
        outcome = batch.run(batch.settle(any_option(batch, rng), problem.card.prices()))
        assert (outcome.device_j <= held * (1 + 1e-9) + 1e-12).all()
        poor += int((held < 0.01).sum())
        batch.drift()
    assert poor > 1000


def test_the_certificate_finds_what_is_wrong():
    problem = make_problem("mec", agents=6, servers=2)
    data = problem.reset(seed=0).to_dict()
    data["active"], data["reachable"][3] = [True] * 6, [True, False]
    state = MecState.from_dict(data)
    batch = problem.world_at(state)
    good = allocation_of(batch, np.array([[1, 1, 1, 1, 2, 0]]), problem.card.prices())
    assert problem.check(state, good).feasible

    def broken(**changes):
        return problem.check(state, SimpleNamespace(**vars(good) | changes))

    shares = {k: v * 1.01 for k, v in good.shares.items()}
    found = broken(shares=shares)
    assert not found.feasible and found.max_violation == pytest.approx(0.01, rel=1e-3)
    assert any("air: resource 0 is used to 1.01 of 1" in v for v in found.violations)
    assert any("cpu: resource 0" in v for v in found.violations)
    assert "power (W): agent 0 has 1.5" in broken(power=np.array([1.5, 0, 0, 0, 0, 0])).violations[0]
    assert "power (W): agent 0 has -1" in broken(power=np.array([-1.0, 0, 0, 0, 0, 0])).violations[0]
    assert not broken(fraction=np.full(6, 1.2)).feasible
    assert not broken(power=np.full(6, np.nan)).feasible
    wrong = broken(option=np.array([1, 1, 1, 2, 2, 0]))
    assert "reach: agent 3 takes option 2, which it cannot reach" in wrong.violations
    wrong = broken(option=np.array([7, 1, 1, 1, 2, 0]))
    assert "reach: agent 0 takes option 7, which it cannot reach" in wrong.violations
    poor = MecState.from_dict(data | {"battery_j": [0.0] * 6})
    assert any("energy by the deadline (J): agent 0" in v for v in problem.check(poor, good).violations)


# --- statistics of the drift


def test_fading_has_each_devices_own_correlation_and_unit_power():
    problem = make_problem("mec", agents=6, servers=2)
    batch = problem.worlds(range(300))
    rho = batch.world.correlation.copy()
    series = []
    for _ in range(60):
        series.append(batch.world.fading.copy())
        batch.drift()
    x = np.array(series)
    assert (x**2).sum(-1).mean() == pytest.approx(1.0, abs=0.01)
    lagged = (x[1:] * x[:-1]).sum(-1).mean(axis=(0, 3))  # (E, N)
    wanted = rho
    for low, high in ((0.4, 0.55), (0.55, 0.7), (0.7, 0.85), (0.85, 0.95)):
        some = (rho >= low) & (rho < high)
        assert lagged[some].mean() == pytest.approx(wanted[some].mean(), abs=0.03)
    assert rho.min() >= 0.4 and rho.max() <= 0.95
    assert (make_problem("mec", agents=6, varied_fading=False).worlds([0]).world.correlation == 0.7).all()


def test_blockages_stand_a_quarter_of_the_time_at_15_db():
    problem = make_problem("mec", agents=10, servers=4)
    batch = problem.worlds(range(60))
    share, left, came, open_, blocked_ = [], 0, 0, 0, 0
    for _ in range(150):
        before = batch.world.attenuation < 1
        assert np.isin(batch.world.attenuation, [1.0, 10**-1.5]).all()
        share.append(before.mean())
        batch.drift()
        now = batch.world.attenuation < 1
        came += int((~before & now).sum())
        left += int((before & ~now).sum())
        open_ += int((~before).sum())
        blocked_ += int(before.sum())
    assert share[0] == pytest.approx(0.25, abs=0.03)
    assert np.mean(share) == pytest.approx(0.25, abs=0.01)
    assert came / open_ == pytest.approx(0.04, abs=0.002)
    assert left / blocked_ == pytest.approx(0.12, abs=0.005)


def test_reports_are_one_slot_late_and_on_time_without_staleness():
    for stale in (True, False):
        problem = make_problem("mec", agents=8, servers=3, staleness=stale)
        batch = problem.worlds(range(4))
        rng = np.random.default_rng(0)
        for _ in range(5):
            truth, queue = batch.world.true_gain.copy(), batch.world.backlog_s.copy()
            play(batch, [any_option(batch, rng)], problem.card.prices())
            assert np.array_equal(batch.world.reported_gain, truth if stale else batch.world.true_gain)
            assert np.array_equal(batch.world.queue_s, queue if stale else batch.world.backlog_s)


def test_activity_follows_the_tasks_and_the_load_drifts():
    problem = make_problem("mec", agents=30, servers=4)
    batch = problem.worlds(range(40))
    active, activity = [], []
    for _ in range(160):
        active.append(batch.world.active.mean())
        activity.append(batch.world.activity.mean())
        expected = 0.8 * batch.world.activity
        batch.drift()
        assert np.allclose(batch.world.activity, expected + 0.2 * batch.world.active)
    # half burst at min(1.5 load, 1), half are calm at .2 load, and a few stand in the hot spot at .95
    assert 0.5 < np.mean(active) < 0.65
    assert np.mean(activity[20:]) == pytest.approx(np.mean(active[20:]), abs=0.01)
    steady = make_problem("mec", agents=30, servers=4, bursts=False).worlds(range(40))
    share = []
    for _ in range(50):
        share.append(steady.world.active.mean())
        steady.drift()
    assert np.mean(share) == pytest.approx(0.6, abs=0.01)
    assert make_problem("mec", agents=20, scenario="A").reset(seed=0).active.all()


def test_tasks_stay_in_their_ranges():
    for scenario in ("A", "H"):
        problem = make_problem("mec", agents=40, servers=3, scenario=scenario)
        batch = problem.worlds(range(50))
        w, s = batch.world, problem.scenario
        for value, (low, high) in (
            (w.task_bits, s.bits), (w.task_cycles / w.task_bits, s.cycles_per_bit), (w.deadline_s, s.deadline_s),
            (w.device_hz, s.device_hz), (w.server_hz, s.server_hz),
        ):  # fmt: skip
            assert value.min() >= low * (1 - 1e-12) and value.max() <= high * (1 + 1e-12)
            if high > low:
                assert value.mean() == pytest.approx((low + high) / 2, rel=0.03)


def test_harvest_is_uniform_up_to_twice_its_mean_and_stops_at_the_battery():
    problem = make_problem("mec", agents=50, servers=2, harvest_j=0.03)
    batch = problem.worlds(range(40))
    batch.world.battery_j[:] = 0.5
    batch.drift()
    gained = batch.world.battery_j - 0.5
    assert gained.min() >= 0 and gained.max() <= 0.06
    assert gained.mean() == pytest.approx(0.03, abs=0.001)
    for _ in range(60):
        batch.drift()
    assert (batch.world.battery_j == 1.0).all()


def test_age_counts_slots_since_the_last_delivery():
    problem = make_problem("mec", agents=20, servers=3)
    batch = problem.worlds([0])
    rng = np.random.default_rng(0)
    since = np.ones(20)
    for _ in range(30):
        outcome = batch.run(batch.settle(any_option(batch, rng), problem.card.prices()))
        since = np.where(outcome.done[0], 1, since + 1)
        assert np.array_equal(batch.world.age_slots[0], since)
        batch.drift()
    assert since.max() > 3


def test_summary_is_the_mean_of_what_happened():
    problem = make_problem("mec", agents=20, servers=3)
    batch = problem.worlds([0, 1])
    rng = np.random.default_rng(0)
    done, made, reward, joules, ages, raw = [], [], [], [], [], []
    tally = Tally(problem.card.metrics, 2)
    for _ in range(12):
        made.append(batch.world.active.copy())
        option = any_option(batch, rng)
        raw.append(batch.requested(option, problem.card.prices()))
        facts = batch.execute(batch.settle(option, problem.card.prices()))
        tally.add(facts.counts, facts.elapsed_s, raw[-1])
        done.append(facts.counts["done_by"])
        reward.append(facts.reward)
        joules.append(facts.counts["device_j"])
        ages.append(batch.world.age_slots.copy())
        batch.drift()
    got = tally.summary()
    total = np.sum(done, axis=(0, 2))
    assert np.allclose(got["completion"], 100 * total / np.sum(made, axis=(0, 2)))
    assert np.allclose(got["welfare"], np.mean(reward, axis=(0, 2)))
    assert np.allclose(got["tasks_per_joule"], total / np.sum(joules, axis=0))
    assert np.allclose(got["aoi"], np.mean(ages, axis=(0, 2)))
    assert np.allclose(got["raw_violation"], 100 * np.mean(raw, axis=0))
    with np.errstate(invalid="ignore"):
        rate = np.sum(done, axis=0) / np.sum(made, axis=0)
    for e in range(2):
        x = rate[e][np.isfinite(rate[e])]
        assert got["jain"][e] == pytest.approx(x.sum() ** 2 / (len(x) * (x**2).sum()))
    tally.clear()
    assert np.isnan(tally.summary()["welfare"]).all()  # a mean of nothing


def test_a_game_leaves_idle_agents_only_option_0_at_no_cost():
    problem = make_problem("mec", agents=20, servers=3)
    batch = problem.worlds([0])
    game = game_of(batch.game(problem.card.prices())).single(0)
    idle = ~batch.world.active[0]
    assert idle.any()
    assert not game.allowed[idle, 1:].any() and not game.weight[idle].any() and not game.private_cost[idle].any()
    assert measure_regret(game, np.zeros(20, int)) > 0


def test_neighbouring_servers_do_not_share_a_reuse_group():
    problem = make_problem("mec", agents=1, servers=9)
    world = problem.worlds([0]).world
    group, site = world.reuse_group[0], world.site[0]
    assert set(group.tolist()) == {0, 1, 2}
    distance = np.sqrt(((site[:, None] - site[None]) ** 2).sum(-1))
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(axis=1)
    assert (group != group[nearest]).mean() >= 0.75
    assert not make_problem("mec", agents=1, servers=4, reuse=1).worlds([0]).world.reuse_group.any()
