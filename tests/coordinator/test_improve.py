"""Choices improved on what a problem settles and expects, against enumeration, the definitions and the promises."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import Coordinator
from coordinator.budget import Clock
from coordinator.game import Choice
from coordinator.improve import GAIN, Improve, best_of, start_of
from examples.chargers import Chargers
from games.admission import Seating
from games.places import Places
from games.seated import seats_of, table_of
from hybridalloc import Allocator, make_problem, saved
from hybridalloc.problems.mec import ascent as mec_ascent
from rl.proposal import Observation, Proposal
from rl.value import StoreValue

EVERY = Improve(width=50, share=1e6, sweeps=30)


def table(seed: int, n: int = 8, r: int = 3):
    """A crowded custom problem."""
    rng = np.random.default_rng(seed)
    return make_problem(
        "custom", work=rng.uniform(1, 5, (n, r)), capacity=rng.uniform(1, 4, r), deadline_s=rng.uniform(2, 9, n),
        delay_cost=rng.uniform(0.01, 0.3, n), opt_out_cost=np.full(n, 1.2), priority=rng.integers(0, 2, n),
    )  # fmt: skip


def decided(world, prices, improve: Improve | None, kind: str = "game", recommender=None):
    coordinator = Coordinator(kind, improve=improve)
    decision = coordinator.decide(world, recommender, prices)
    return decision, coordinator.settle(world, decision, prices)


class Slanted:
    """A prior that prefers some options."""

    def propose(self, observation: Observation) -> Proposal:
        shape = observation.allowed.shape
        return Proposal(np.random.default_rng(7).uniform(-4, 0, shape))


def slot_worth(world, plan, prices, against) -> np.ndarray:
    """What a slot of ``mec`` is worth as believed, from the definitions, one device and one rate after the other."""
    p, w, dynamics = world.physics, world.world, world.problem.scenario.dynamics
    per = w.rate.shape[2] // w.server_hz.shape[1]

    def rises(of, e):
        rise = np.zeros(w.rate.shape[2])
        for i in range(w.rate.shape[1]) if p.interference else ():
            o = of.option[e, i]
            if not (w.active[e, i] and 0 < o <= w.rate.shape[2] and of.fraction[e, i] > 0 and of.air[e, i] > 0):
                continue
            k, channel = divmod(o - 1, per)
            gain = (2 ** ((w.rate[e, i, o - 1] - 1e4) / p.band_hz) - 1) / p.nominal_w
            rate = p.band_hz * np.log2(1 + of.power_w[e, i] * gain) + 1e4
            duty = min(of.air[e, i], of.fraction[e, i] * w.task_bits[e, i] / rate / p.slot_s)
            for q in range(w.server_hz.shape[1]):
                if q != k and w.reuse_group[e, q] == w.reuse_group[e, k]:
                    rise[q * per + channel] += duty * of.power_w[e, i] / p.noise_w * w.mean_gain[e, i, q]
        return rise

    def left(e, i, drawn):  # what a draw takes from what is left in the battery
        level, most = w.battery_j[e, i], p.battery_j
        if world.value is None:
            return drawn * prices.energy / 0.1 if dynamics.batteries and not p.reward_energy else 0.0
        gain, knots = world.worth().gain[e, i], world.worth().knot
        of = lambda b: sum(g * min(max(b, 0.0) / most, c) for g, c in zip(gain, knots, strict=True))
        return of(level) - of(level - drawn)

    out = np.zeros(len(w.rate))
    for e in range(len(out)):
        now, held = rises(plan, e), rises(against, e)
        for i in range(w.rate.shape[1]):
            older = min(w.age_slots[e, i] + 1, 20)
            if not w.active[e, i] or plan.option[e, i] > w.rate.shape[2]:  # nothing to do, or shed
                out[e] -= p.reward_age * older / 10
                continue
            tau, cycles, o, rho = w.deadline_s[e, i], w.task_cycles[e, i], plan.option[e, i], plan.fraction[e, i]
            sends = o > 0 and rho > 0 and plan.air[e, i] > 0
            rho = rho if sends else 0.0
            local_s = (1 - rho) * cycles / w.device_hz[e, i]
            local_j = (1 - rho) * p.kappa * w.device_hz[e, i] ** 2 * cycles
            able = local_s <= tau and not (p.batteries and local_j > w.battery_j[e, i])
            done, air, moved = [float(able)], [0.0], False
            if sends:
                b, k = o - 1, (o - 1) // per
                moved = p.migration and w.last_server[e, i] >= 0 and w.last_server[e, i] != k
                ready = p.backhaul_s + w.air_wait_s[e, b] + (p.switch_s if moved else 0.0)
                done, air = [], []
                for believed in w.rates[e, i, b]:
                    gain = (2 ** ((believed - 1e4) / p.band_hz) - 1) / p.nominal_w * (1 + held[b]) / (1 + now[b])
                    rate = p.band_hz * np.log2(1 + plan.power_w[e, i] * gain) + 1e4
                    air_s = rho * w.task_bits[e, i] / rate
                    time = ready + w.cpu_wait_s[e, k] + air_s / plan.air[e, i]
                    time += rho * cycles / w.server_hz[e, k] / plan.cpu[e, i]
                    late = 1 / (1 + np.exp(-12 * (max(time, local_s) / tau - 1)))
                    if w.rates.shape[3] == 1 and not (dynamics.staleness or dynamics.interference):
                        late = max(time, local_s) > tau
                    done.append(able * (1 - late))
                    air.append(min(air_s, plan.air[e, i] * max(tau - ready, 0)))
            joule = plan.power_w[e, i] * np.mean(air) / p.efficiency + able * local_j
            share = np.mean(done)
            for used in air:
                drawn = plan.power_w[e, i] * used / p.efficiency + able * local_j
                out[e] -= left(e, i, drawn) / len(air)
            out[e] += (
                w.worth[e, i] * share
                - p.reward_energy * joule / 0.1
                - p.reward_age * (share + (1 - share) * older) / 10
            )
            out[e] -= p.reward_switch * moved
    return out


def short_of_energy(valued: bool, agents: int = 14, networks: int = 6):
    """Networks by night of a set where foresight pays, batteries anywhere; what is left valued or priced."""
    problem = make_problem("mec", agents=agents, servers=3, scenario="F")
    world = problem.worlds(range(networks))
    if valued:
        value = StoreValue(world.stored().features.shape[-1], seed=3)
        value.weights[-1] += 8.0  # a full battery is worth some twenty tasks
        world.valuing(value)
    rng = np.random.default_rng(4)
    world.refill(world.physics.battery_j * rng.random(world.active.shape))
    return problem, world, problem.card.prices(energy=6.0)


@pytest.mark.parametrize("scenario", ["H", "A", "F", "F, valued"])
def test_what_mec_expects_is_that_of_the_definitions(scenario):
    if scenario[0] == "F":
        _, world, prices = short_of_energy("valued" in scenario)
    else:
        problem = make_problem("mec", agents=14, servers=3, scenario=scenario)
        world, prices = problem.worlds(range(6)), problem.card.prices()
    first, before = decided(world, prices, None)
    _, after = decided(world, prices, EVERY)
    assert not (first.option == after.option).all() or scenario == "A"
    for plan, against in ((before, before), (after, before), (before, None)):
        theirs = slot_worth(world, plan, prices, before if against is None else against)
        np.testing.assert_allclose(world.expected(plan, prices, against), theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("valued", [False, True])
def test_where_energy_is_short_improving_sheds_and_keeps_and_rests_where_no_change_brings_more(valued):
    problem, world, prices = short_of_energy(valued)
    d, after = decided(world, prices, EVERY)
    _, before = decided(world, prices, None)
    rise = world.expected(after, prices) - world.expected(before, prices)
    np.testing.assert_allclose(rise, d.gain, atol=1e-9)
    assert d.rest.all() and (d.gain >= 0).all() and d.gain.max() > 0.05
    shed = world.sheds(after.option) & world.active
    assert (shed != (world.sheds(before.option) & world.active)).any() and shed.any()
    assert not after.served[shed].any() and not after.power_w[shed].any()
    again = world.settle(d.choice, prices, None, d.trust, d.seating)
    for mine, theirs in zip(after, again, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for e in range(world.size):
        for i in np.flatnonzero(world.active[e]):
            for o in range(len(world.options)):
                option = d.option.copy()
                option[e, i] = o
                changed = world.expected(world.settle(option, prices), prices)[e]
                assert changed <= world.expected(after, prices)[e] + mec_ascent.LEAST_GAIN + 1e-9
    if valued:
        allocator = Allocator(problem, "game", prices=prices, value=world.value, improve=EVERY)
        allocation = allocator.step(world.state(0))
        assert allocation.certificate.status == "ok" and allocation.certificate.improvement.rest
        assert allocation.marginal_regret().gain <= mec_ascent.LEAST_GAIN + 1e-9


def test_in_portions_between_readings_of_the_clock_the_same_is_found_as_at_once():
    problem = make_problem("mec", agents=40, servers=6, choose_channel=True)
    world, prices = problem.worlds(range(6)), problem.card.prices()
    coordinator = Coordinator("game", improve=EVERY)
    at_once = coordinator.decide(world, None, prices)
    for most in (1, 7):
        clock = Clock(1e9)
        clock.portions = lambda items, *_, most=most: (items[k : k + most] for k in range(0, len(items), most))
        slowly = coordinator.decide(world, None, prices, clock)
        for name in ("option", "moved", "tried", "rest", "gain"):
            np.testing.assert_array_equal(getattr(slowly, name), getattr(at_once, name))
        for mine, theirs in zip(slowly.plan, at_once.plan, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert at_once.rest.all() and at_once.moved.sum() > 5


@pytest.mark.parametrize("kind", ["game", "hybrid"])
def test_a_plan_that_was_improved_is_what_settling_its_choice_gives(kind):
    problem = make_problem("mec", agents=30, servers=6)
    world, prices = problem.worlds(range(12)), problem.card.prices()
    given = Slanted() if kind == "hybrid" else None
    d, plan = decided(world, prices, Improve(), kind, given)
    assert d.moved is not None and d.moved.sum() > 5
    again = world.settle(d.choice, prices, None, d.trust, d.seating)
    for mine, theirs in zip(plan, again, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["mec", "custom"])
@pytest.mark.parametrize("kind", ["game", "hybrid"])
def test_improving_is_never_below_where_it_began_and_keeps_every_place(name, kind):
    problem = make_problem("mec", agents=20, servers=4) if name == "mec" else table(3, 16, 4)
    world, prices = problem.worlds(range(8)), problem.card.prices()
    given = Slanted() if kind == "hybrid" else None
    plain, before = decided(world, prices, None, kind, given)
    better, after = decided(world, prices, Improve(), kind, given)
    assert better.gain is not None and (better.gain >= 0).all()
    if kind == "game":
        rise = world.expected(after, prices, before) - world.expected(before, prices, before)
        np.testing.assert_allclose(rise, better.gain, atol=1e-9)
    assert (better.seating.held.sum(1) >= plain.seating.held.sum(1)).all()
    changed = better.moved > 0
    assert np.isinf(better.bound[changed]).all() and not better.stable[changed].any()
    np.testing.assert_array_equal(better.option[~changed], plain.option[~changed])


@pytest.mark.parametrize("seed", range(6))
def test_at_rest_no_single_change_of_a_table_brings_more(seed):
    problem = table(seed)
    world, prices = problem.worlds([0]), problem.card.prices()
    game, places = world.game(prices), world.places(prices, world.game(prices))
    d, plan = decided(world, prices, EVERY)
    assert d.rest is not None and d.rest.all()
    worth = world.expected(plan, prices)[0]
    t = table_of(game, places)
    for i in range(8):
        for o in range(4):
            z = seats_of(t, d.seating)
            if z.held[i]:
                continue  # what a holder may do is enumerated by marginal_regret, below
            option = d.option.copy()
            option[0, i] = o
            seats = d.seating._replace(option=option, floor=d.seating.floor.copy())
            seats.floor[0, i] = 0.0
            changed = world.expected(world.settle(option, prices, None, np.inf, seats), prices)[0]
            assert changed <= worth + 1e-5 * max(1.0, abs(worth))


@pytest.mark.parametrize("name", ["mec", "custom"])
def test_at_rest_after_all_changes_the_regret_over_all_is_what_a_change_must_bring(name):
    problem = make_problem("mec", agents=10, servers=3) if name == "mec" else table(11, 12, 4)
    for seed in range(5):
        allocator = Allocator(problem, improve=EVERY)
        allocation = allocator.step(problem.reset(seed))
        told = allocation.certificate.improvement
        assert told.rest and not told.off
        least = mec_ascent.LEAST_GAIN * 1.1 if name == "mec" else 1e-4
        assert allocation.marginal_regret().gain <= least + 0.01 * (name == "mec")  # noise that stays within STALE


def test_the_regret_over_all_finds_a_choice_that_is_not_at_rest():
    problem = make_problem("mec", agents=30, servers=6)
    found = []
    for seed in range(4):
        state = problem.reset(seed)
        allocation = Allocator(problem, improve=Improve(width=1, share=0.05, sweeps=1)).step(state)
        found.append(allocation.marginal_regret())
    best = max(found)
    assert best.gain > 10 * GAIN and best.option >= 0
    with pytest.raises(ValueError, match="nobody asked"):
        Allocator(problem, "game").step(state).marginal_regret()


def test_worlds_that_only_say_what_a_plan_is_worth_are_improved_too():
    problem = Chargers()
    prices = problem.card.prices()

    class Expecting(type(problem.worlds([0]))):
        def expected(self, plan, prices, against=None):
            return -np.square(np.bincount(plan.option[0], minlength=3)[None]).sum(1).astype(float)

    world = problem.worlds(range(1))
    world.__class__ = Expecting
    _, before = decided(world, prices, None)
    better, after = decided(world, prices, EVERY)
    assert better.gain[0] >= 0 and better.rest.all()
    assert world.expected(after, prices)[0] >= world.expected(before, prices)[0]


def test_a_problem_that_does_not_say_what_it_expects_says_so_in_the_certificate():
    problem = Chargers()
    allocation = Allocator(problem).step(problem.reset(0))
    assert "does not say what it expects" in str(allocation.certificate.improvement)
    assert allocation.certificate.epsilon_bound < np.inf or allocation.certificate.status != "ok"


def test_rl_alone_is_left_as_it_is_and_the_game_unless_it_is_asked_for():
    problem = make_problem("mec", agents=12, servers=3)
    state = problem.reset(1)
    for method, given in (("rl", Slanted()), ("game", None), ("greedy", None)):
        certificate = Allocator(problem, method, given).step(state).certificate
        assert certificate.improvement is None or certificate.improvement.off
    asked = Allocator(problem, "game", improve=True).step(state).certificate
    assert asked.improvement is not None and not asked.improvement.off
    with pytest.raises(ValueError, match="improve = 3"):
        Allocator(problem, improve=3)
    for bad in ({"width": 0}, {"sweeps": 1.5}, {"share": 0.0}):
        with pytest.raises(ValueError, match=f"improve.{next(iter(bad))}"):
            Improve(**bad)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_start_serves_most_of_the_highest_class_and_then_is_worth_most(seed):
    rng = np.random.default_rng(seed)
    e, n, count = 5, 4, 3
    rank = rng.integers(0, 3, (e, n))
    places = Places(*[None] * 4, rank, None, None)
    starts = []
    for _ in range(count):
        seats = Seating(np.zeros((e, n), int), rng.random((e, n)) < 0.5, np.zeros((e, n, 2)), np.ones(e, bool))
        choice = Choice(rng.integers(0, 9, (e, n)), np.zeros((e, n, 0)))
        starts.append(start_of(choice, seats, None, rng.integers(0, 3, e) * 1.0))
    best, winner = best_of(starts, places)
    for k in range(e):
        served = lambda s, k=k: [int((s.seating.held[k] & (rank[k] == c)).sum()) for c in range(3)]
        want = max(range(count), key=lambda j: (served(starts[j]), starts[j].worth[k], -j))
        assert winner[k] == want
        np.testing.assert_array_equal(best.choice.option[k], starts[want].choice.option[k])


def test_a_budget_stops_it_with_the_best_so_far():
    problem = make_problem("mec", agents=30, servers=6)
    world, prices = problem.worlds([2]), problem.card.prices()
    clock = Clock(0.05)
    clock.fits = lambda *stages: True  # whatever stage: only what improves is stopped
    clock.left_ms = lambda: 0.0
    d = Coordinator("game", improve=Improve()).decide(world, None, prices, clock)
    assert "improve" in clock.skipped and not d.rest.any() and (d.gain >= 0).all()


def test_nobody_is_envied_and_nothing_is_violated_step_after_step():
    problem = make_problem("mec", agents=24, servers=4)
    allocator, state = Allocator(problem, recommender="imappo"), problem.reset(4)
    moved = 0
    for t in range(12):
        allocation = allocator.step(state)
        certificate = allocation.certificate
        assert certificate.feasible and not certificate.envy and not certificate.late
        moved += certificate.improvement.moved
        state, _ = problem.advance(state, allocation, seed=t)
    assert moved > 0


def test_it_is_saved_and_a_file_without_it_has_none(tmp_path):
    problem = make_problem("mec", agents=6, servers=2)
    for given in (True, False, Improve(width=2, starts=("greedy",))):
        path = Allocator(problem, improve=given).save(tmp_path / "a.npz")
        assert Allocator.load(path).improve == given
    from hybridalloc.saved import read_checkpoint  # an older file says nothing of it, nor of leakage

    plain = read_checkpoint(path)
    meta = {k: v for k, v in plain.meta.items() if k != "improve"}
    meta["prices"] = {k: v for k, v in meta["prices"].items() if k != "leakage"}
    keep, saved.read_checkpoint = saved.read_checkpoint, lambda source: plain._replace(meta=meta)
    try:
        older = saved.made_from(Allocator, path, False, {})
    finally:
        saved.read_checkpoint = keep
    assert older.improve is False and older.prices.leakage == 0.0


def test_a_hysteresis_is_charged_while_it_is_improved():
    problem = make_problem("mec", agents=30, servers=6)
    world, prices = problem.worlds([1]), problem.card.prices()
    coordinator = Coordinator("game", improve=EVERY)
    free = coordinator.decide(world, None, prices)

    class Holds:
        def charged(self, game):
            cost = np.full(game.batch.private_cost.shape[1:], 50.0)
            np.put_along_axis(cost, stay[0][:, None], 0.0, 1)
            return game.charged(cost)

        def seen(self, observation): ...

        def trusted(self, game, proposal, proposes):
            return np.inf

    stay = Coordinator("game").decide(world, None, prices).option
    held = coordinator.decide(world, None, prices, steward=Holds())
    assert (held.option == stay).all()
    assert not (free.option == stay).all()  # free to, it would have moved


def test_why_says_who_was_put_where_the_game_alone_would_not_have_it():
    problem = make_problem("mec", agents=30, servers=6)
    state = problem.reset(1)
    allocation = Allocator(problem).step(state)
    told = [allocation.why(i) for i in range(30) if state.active[i]]
    improved = [why for why in told if ("improving" in dict(why.decided_by))]
    assert improved and len(improved) <= 30
    for why in improved:
        taken = next(row for row in why if row["chosen"])
        other = next(row for row in why if row["option"] == dict(why.decided_by)["improving"])
        assert other["total"] < taken["total"] and "expected to be worth more" in str(why)
    plain = Allocator(problem, improve=False).step(state)
    assert not any("improving" in dict(plain.why(i).decided_by) for i in range(30) if state.active[i])


def test_a_world_that_cannot_say_what_it_expects_leaves_the_choice_as_it_is_and_says_so(monkeypatch):
    problem = make_problem("mec", agents=12, servers=3)
    state = problem.reset(3)
    plain = Allocator(problem, improve=False).step(state)

    def fails(self, plan, prices, against=None):
        raise ZeroDivisionError("nothing to expect")

    monkeypatch.setattr(type(problem.worlds([0])), "expected", fails)
    with pytest.warns(RuntimeWarning, match="improving failed"):
        allocation = Allocator(problem).step(state)
    assert "nothing to expect" in allocation.certificate.improvement.off
    assert allocation.certificate.source == "hybrid" and allocation.certificate.epsilon_bound == 2.0
    np.testing.assert_array_equal(allocation.option, plain.option)


def test_why_and_what_if_of_an_improved_choice_are_held_against_the_games_own_replies():
    problem = make_problem("mec", agents=30, servers=6)
    allocation = Allocator(problem).step(problem.reset(1))
    assert allocation.certificate.improvement.moved and allocation.what_if().moved == ()
    for why in (allocation.why(i) for i in np.flatnonzero(allocation.origin.state.active)):
        assert not why.changes or "improving" not in dict(why.decided_by)


@pytest.mark.parametrize("starts", [("nearest", "proposal"), ("there is none",)])
def test_starts_are_the_problems_own(starts):
    problem = make_problem("mec", agents=12, servers=3)
    how = Improve(starts=starts)
    if starts[0] == "nearest":
        assert Allocator(problem, improve=how).step(problem.reset(0)).certificate.improvement.off == ""
    else:
        with pytest.raises(ValueError, match="start of improve"):
            Allocator(problem, improve=how)
    assert (
        "trust 0"
        in Allocator(problem, recommender="imappo", trust=0.0).step(problem.reset(0)).certificate.improvement.off
    )
