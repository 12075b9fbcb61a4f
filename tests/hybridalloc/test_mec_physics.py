"""mec's compiled slot against plain Python, and the credit against brute-force counterfactuals."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hybridalloc.problems import make_problem
from hybridalloc.problems.mec.scenario import Dynamics

sys.path.insert(0, str(Path(__file__).parent))
from mec_reference import late, move_queue, plan_of, slot, smooth_completion, snapshot

SWITCHES = tuple(Dynamics.__dataclass_fields__)
VARIANTS = (
    [{}]
    + [{name: False} for name in SWITCHES]
    + [{"choose_channel": True}, {"scenario": "A"}, {"scenario": "A", "interference": True, "reuse": 2}]
    + [{"partial": False}, {"floors": False}, {"power_control": False}, {"harvest_j": 0.001}]
)


def name_of(changes):
    return ",".join(f"{k}={v}" for k, v in changes.items()) or "H"


def random_option(batch, rng, pull=0.0):
    """(E, N) any option, reachable or not; ``pull`` is the chance of the first server."""
    e, n, b = batch.world.rate.shape
    option = rng.integers(0, 1 + b, (e, n))
    return np.where(rng.random((e, n)) < pull, 1, option)


@pytest.mark.parametrize("changes", VARIANTS, ids=name_of)
def test_one_slot_equals_plain_python(changes):
    problem = make_problem("mec", agents=20, servers=4, **changes)
    batch = problem.worlds(range(5))
    prices = problem.card.prices(energy=0.3, interference=1e-3)
    rng = np.random.default_rng(1)
    seen = {"done": 0, "switched": 0, "queued": 0, "late": 0}
    for _ in range(12):
        plan = batch.settle(random_option(batch, rng, pull=0.4), prices)
        before = [snapshot(batch, e) for e in range(5)]
        outcome = batch.run(plan)
        for e in range(5):
            want = slot(problem, before[e], plan_of(plan, e))
            for name in ("done", "switched"):
                assert np.array_equal(getattr(outcome, name)[e], getattr(want, name)), name
            for name in ("reward", "latency_s", "device_j", "server_j", "sinr", "rise"):
                got = getattr(outcome, name)[e]
                assert np.allclose(got, getattr(want, name), rtol=1e-9, atol=1e-12, equal_nan=True), name
            for name in ("battery_j", "age_slots", "last_server", "backlog_s", "air_backlog_s"):
                got = getattr(batch.world, name)[e]
                assert np.allclose(got, getattr(want, name), rtol=1e-9, atol=1e-12), name
            seen["done"] += int(want.done.sum())
            seen["switched"] += int(want.switched.sum())
            seen["queued"] += int((want.backlog_s > 0).any() or (want.air_backlog_s > 0).any())
            seen["late"] += int((want.able & ~want.done).sum())
        batch.drift()
    dynamics = problem.scenario.dynamics
    assert seen["done"] > 50 and seen["late"] > 2  # the comparison saw both
    assert (seen["switched"] > 0) == dynamics.migration
    if dynamics.queues and problem.scenario.name == "H":
        assert seen["queued"] > 0


def test_rates_and_units_of_a_link_worked_by_hand():
    """A device 100 m off at 1 W: 128.1 + 37.6 log10 .1 = 90.5 dB; 5.4 MHz; everything else idle."""
    problem = make_problem("mec", agents=1, servers=1, interference=False, batteries=False)
    state = problem.state_type.from_dict(
        {
            "active": [True], "task_bits": [1e5], "task_cycles": [3e7], "deadline_s": [0.05], "device_hz": [1e9],
            "mean_gain_db": [[-90.5]], "reported_gain_db": [[-90.5]], "server_hz": [1e10],
        }
    )  # fmt: skip
    noise_dbm = -174 + 5 + 10 * np.log10(3 * 1.8e6)
    rate = 5.4e6 * np.log2(1 + 10 ** ((30 - 90.5 - noise_dbm) / 10)) + 1e4
    allocation = SimpleNamespace(
        option=np.array([1]), shares={"air": np.array([1.0]), "cpu": np.array([0.5])}, power=np.array([1.0]),
        fraction=np.array([1.0]), served=np.array([True]), prices={"air": np.zeros(1), "cpu": np.zeros(1)},
    )  # fmt: skip
    metrics = problem.evaluate(state, allocation)
    seconds = 1e5 / rate + 3e7 / 0.5e10 + 1e-3
    joules = 1.0 * 1e5 / rate / 0.35
    assert metrics["latency"] == pytest.approx(1e3 * seconds, rel=1e-9)
    assert metrics["completion"] == 100.0
    assert metrics["tasks_per_joule"] == pytest.approx(1 / joules, rel=1e-9)
    assert metrics["tasks_per_joule_all"] == pytest.approx(1 / (joules + 3.5 * 0.02 + 3e-9 * 3e7), rel=1e-9)
    assert metrics["welfare"] == pytest.approx(1 - 0.2 * joules / 0.1 - 0.05 / 10, rel=1e-9)
    assert metrics["aoi"] == 1.0 and metrics["outage"] == 0.0 and metrics["jain"] == 1.0
    local = SimpleNamespace(**vars(allocation) | {"option": np.array([0]), "fraction": np.zeros(1)})
    metrics = problem.evaluate(state, local)
    assert metrics["latency"] == pytest.approx(30.0)  # 3e7 cycles at 1 GHz
    assert metrics["tasks_per_joule"] == pytest.approx(1 / (5e-27 * 1e18 * 3e7), rel=1e-9)


# --- credit


def without(plan, i, per):
    """The plan with device ``i`` gone: its shares divided in proportion among its band's and its server's others."""
    other = SimpleNamespace(**{k: v.copy() for k, v in vars(plan).items()})
    b = int(plan.option[i]) - 1
    if b < 0 or plan.fraction[i] <= 0:
        return other
    other.option[i] = other.fraction[i] = 0
    other.power_w[i] = 0.0
    band = (plan.option == b + 1) & (plan.air > 0)
    server = (plan.option > 0) & ((plan.option - 1) // per == b // per) & (plan.cpu > 0)
    band[i] = server[i] = False
    if plan.air[i] < 1:
        other.air[band] /= 1 - plan.air[i]
    if plan.cpu[i] < 1:
        other.cpu[server] /= 1 - plan.cpu[i]
    return other


def replay(problem, w, plan, i):
    """(N,) smooth completions of the others with ``i`` gone."""
    per = w.true_gain.shape[1] // len(w.server_hz)
    out = slot(problem, w, without(plan, i, per))
    value = smooth_completion(out, w)
    value[i] = 0.0
    return value


def credit_case(changes, slots=6, networks=3, agents=24, servers=3, pull=0.3):
    problem = make_problem("mec", agents=agents, servers=servers, **changes)
    batch = problem.worlds(range(networks))
    rng = np.random.default_rng(2)
    prices = problem.card.prices()
    for _ in range(slots):
        plan = batch.settle(random_option(batch, rng, pull), prices)
        worlds = [snapshot(batch, e) for e in range(networks)]
        outcome = batch.run(plan)
        for e in range(networks):
            yield (
                problem,
                worlds[e],
                plan_of(plan, e),
                SimpleNamespace(lost=outcome.lost[e], carried=outcome.carried[e]),
            )
        batch.drift()


CUT = 0.0025  # an other's loss is left out where it cannot reach this: 1 - sigmoid(6), sigmoid(-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"interference": False},
        {"interference": False, "choose_channel": True},
        {"interference": False, "partial": False},
        {"interference": False, "harvest_j": 0.001},
        {"interference": False, "scenario": "A", "load": 1.0, "server_hz": (4e9, 8e9)},
    ],
    ids=name_of,
)
def test_lost_without_interference_is_the_exact_counterfactual(changes):
    """Exact but for the cut of tiny losses: rates do not depend on the others, shares are divided in proportion."""
    largest, charged = 0.0, 0
    for problem, w, plan, outcome in credit_case(changes):
        now = smooth_completion(slot(problem, w, plan), w)
        for i in range(len(now)):
            each = np.delete(now - replay(problem, w, plan, i), i)
            slack = CUT * ((np.abs(each) > 1e-12) & (np.abs(each) <= CUT)).sum()
            assert outcome.lost[i] == pytest.approx(each.sum(), abs=slack + 1e-9)
            largest = max(largest, -each.sum())
            charged += outcome.lost[i] < -0.05
    assert largest > 0.4 and charged > 20


@pytest.mark.parametrize("changes", [{}, {"choose_channel": True}, {"reuse": 1}], ids=name_of)
def test_lost_with_interference_is_close_to_the_counterfactual(changes):
    """Approximate: the others' duty cycles are held. In the replay those of i's band send longer and disturb others.

    Measured on these choices (random, so far worse than any method's): mean error 13 %, 3 % and 15 % of the mean
    loss, correlation .968, .995 and .969, mean loss 7 %, 1 % and 11 % too large.
    """
    got, want = [], []
    for problem, w, plan, outcome in credit_case(changes, servers=6, agents=40, networks=8):
        now = smooth_completion(slot(problem, w, plan), w)
        for i in np.flatnonzero(plan.fraction > 0):
            want.append(np.delete(now - replay(problem, w, plan, i), i).sum())
            got.append(outcome.lost[i])
    one, other = np.array(got), np.array(want)
    assert other.mean() < -0.1
    assert np.abs(one - other).mean() < 0.25 * np.abs(other).mean()
    assert np.corrcoef(one, other)[0, 1] > 0.92
    assert one.mean() == pytest.approx(other.mean(), rel=0.15)


def test_what_one_loses_to_the_only_interferer_is_the_exact_counterfactual():
    """Two devices, a server each, one spectrum: nothing but the interference ties them."""
    problem = make_problem("mec", agents=2, servers=2, reuse=1, load=3.0, bursts=False)
    batch = problem.worlds(range(150))
    charged = 0
    for _ in range(4):
        plan = batch.settle(np.tile([1, 2], (150, 1)), problem.card.prices())
        worlds = [snapshot(batch, e) for e in range(150)]
        outcome = batch.run(plan)
        for e, w in enumerate(worlds):
            now = smooth_completion(slot(problem, w, plan_of(plan, e)), w)
            for i in range(2):
                want = (now - replay(problem, w, plan_of(plan, e), i))[1 - i]
                assert outcome.lost[e, i] == pytest.approx(want, abs=CUT if abs(want) <= CUT else 1e-9)
                charged += want < -0.1
        batch.drift()
    assert charged > 30


def test_lost_is_nothing_for_those_who_send_nothing_and_never_a_gain():
    for _, w, plan, outcome in credit_case({}):
        quiet = ~w.active | (plan.option == 0) | (plan.fraction == 0)
        assert (outcome.lost[quiet] == 0).all()
        assert (outcome.lost <= 1e-12).all() and (outcome.carried <= 1e-12).all()


@pytest.mark.parametrize("changes", [{}, {"choose_channel": True}, {"interference": False}], ids=name_of)
def test_carried_replays_the_queues_without_what_was_left(changes):
    """Exact but for the cut: queues are replayed with the same intake, less what i left in them h + 1 slots ago."""
    slow = {"server_hz": (2e9, 4e9)}  # so that queues last
    cases = list(credit_case(changes | slow, slots=30, networks=1, agents=24, servers=2, pull=0.2))
    problem = cases[0][0]
    per = problem.bands
    cap, slot_s = 3 * problem.scenario.slot_s, problem.scenario.slot_s
    outs = [slot(problem, w, plan) for _, w, plan, _ in cases]
    values = [smooth_completion(out, w) for out, (_, w, _, _) in zip(outs, cases, strict=True)]
    want = np.zeros((len(cases), 24, 5))
    slack = np.zeros_like(want)
    for s, (out, (_, w, plan, _)) in enumerate(zip(outs, cases, strict=True)):
        for i in np.flatnonzero(out.air_used > 0):
            b = int(plan.option[i]) - 1
            air_in, cpu_in = out.air_in.copy(), out.cpu_in.copy()
            air_in[b] -= out.air_used[i]
            cpu_in[b // per] -= out.cpu_used[i]
            air = move_queue(w.air_backlog_s, air_in, slot_s, cap)
            cpu = move_queue(w.backlog_s, cpu_in, slot_s, cap)
            for h in range(5):
                t = s + 1 + h
                if t >= len(cases):
                    break
                _, then, plan_then, _ = cases[t]
                if abs(then.air_backlog_s - air).max() + abs(then.backlog_s - cpu).max() <= 1e-7:
                    break
                lighter = SimpleNamespace(**vars(then) | {"air_backlog_s": air, "backlog_s": cpu})
                each = np.delete(values[t] - smooth_completion(slot(problem, lighter, plan_then), then), i)
                want[t, i, h] = each.sum()
                slack[t, i, h] = CUT * ((np.abs(each) > 1e-12) & (np.abs(each) <= CUT)).sum()
                air = move_queue(air, outs[t].air_in, slot_s, cap)
                cpu = move_queue(cpu, outs[t].cpu_in, slot_s, cap)
    got = np.array([outcome.carried for *_, outcome in cases])
    assert (np.abs(got - want) <= slack + 1e-5).all()
    assert (want[..., 0] < -0.05).sum() > 10
    assert (want[..., 1] < -0.05).any()  # some are still felt two slots later


def test_no_queues_no_carried_charge():
    for *_, outcome in credit_case({"queues": False}, pull=0.6):
        assert not outcome.carried.any()


def test_a_restart_forgets_what_was_left():
    problem = make_problem("mec", agents=24, servers=2, server_hz=(1e9, 2e9))
    batch = problem.worlds(range(2))
    rng = np.random.default_rng(0)
    left = lambda: (batch.world.trail_band >= 0).any(axis=(1, 2)).tolist()
    for _ in range(40):
        batch.execute(batch.settle(random_option(batch, rng), problem.card.prices()))
        batch.drift()
        if left() == [True, True]:
            break
    assert left() == [True, True]
    batch.restart(np.array([True, False]))
    assert left() == [False, True]
    assert not batch.execute(batch.settle(random_option(batch, rng), problem.card.prices())).carried[0].any()


def test_late_is_half_at_the_deadline():
    assert late(0.03, 0.03) == 0.5
    assert late(1.25 * 0.03, 0.03) == pytest.approx(0.95, abs=0.005)


def test_a_whole_number_among_the_settings_is_the_same_physics():
    """To compiled code 1 and 1.0 are two types: for each it would compile every kernel anew, for a minute."""
    whole, given = (make_problem("mec", slot_s=x, static_w=4 * x, reward_age=0 * x).physics for x in (1, 1.0))
    assert whole == given and {type(x) for x in whole} == {float, bool}
