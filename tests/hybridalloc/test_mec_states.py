"""States of mec: what JSON may hold, exact messages for what it may not, round trips, edge cases that are valid."""

from __future__ import annotations

import json
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from hybridalloc.errors import InvalidStateError
from hybridalloc.problems import make_problem
from hybridalloc.problems.mec.state import HIDDEN, OBSERVED, MecState

PROBLEM = make_problem("mec", agents=4, servers=2)


def plain(**changes):
    """A valid state of 3 devices and 2 servers as JSON has it, with fields replaced (or removed by ...)."""
    data = {
        "active": [True, True, False],
        "task_bits": [1e5, 8e4, 0],
        "task_cycles": [3e7, 2e7, 0],
        "deadline_s": [0.03, 0.04, 0.03],
        "device_hz": [1e9, 8e8, 9e8],
        "mean_gain_db": [[-90, -100], [-95, -110], [-105, -92]],
        "reported_gain_db": [[-91, -99], [-96, -108], [-104, -95]],
        "server_hz": [1e10, 8e9],
    }
    data |= changes
    return {k: v for k, v in data.items() if v is not ...}


def namespace(batch, plan):
    return SimpleNamespace(**batch.parts(plan))


def test_the_plain_state_is_valid_and_optional_fields_have_their_defaults():
    state = MecState.from_dict(plain())
    assert state.agents == 3
    assert state.battery_j.tolist() == [1.0] * 3
    assert state.last_server.tolist() == [-1] * 3
    assert state.reachable.tolist() == [[True, True]] * 3
    assert state.queue_s.tolist() == [0.0, 0.0] and state.noise_rise.tolist() == [0.0, 0.0]
    assert state.truth is None and state.slot == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_bits": [1e5, float("nan"), 0]}, "task_bits[1] = nan; it must be finite and >= 0 bit"),
        ({"mean_gain_db": [[-90, -100], [-95, float("inf")], [-105, -92]]},
         "mean_gain_db[1, 1] = inf; it must be finite and <= 0 dB"),
        ({"server_hz": [1e10, -8e9]}, "server_hz[1] = -8000000000.0; it must be finite and > 0 Hz"),
        ({"server_hz": [0, 8e9]}, "server_hz[0] = 0.0; it must be finite and > 0 Hz"),
        ({"deadline_s": [0.03, 0, 0.03]}, "deadline_s[1] = 0.0; it must be finite and > 0 s"),
        ({"battery_j": [1, -0.5, 1]}, "battery_j[1] = -0.5; it must be finite and >= 0 J"),
        ({"activity": [0.1, 0.2, 1.5]}, "activity[2] = 1.5; it must be finite and >= 0 and <= 1"),
        ({"task_bits": [1e5, 0, 0]}, "task_bits[1] = 0.0; an active device's task must be > 0"),
        ({"task_cycles": [0, 1e6, 0]}, "task_cycles[0] = 0.0; an active device's task must be > 0"),
        ({"task_bits": [1e5, 8e4]}, "task_bits has shape (2,); axis N has 3 entries in active"),
        ({"task_bits": []}, "task_bits has shape (0,); axis N has 3 entries in active"),
        ({"mean_gain_db": []}, "mean_gain_db has shape (0,); axis N has 3 entries in active"),
        ({"mean_gain_db": [-90, -95, -105]}, "mean_gain_db has shape (3,); it needs axes (N, K,)"),
        ({"server_hz": [1e10]}, "server_hz has shape (1,); axis K has 2 entries in mean_gain_db"),
        ({"server_hz": 1e10}, "server_hz has shape (); it needs axes (K,)"),
        ({"mean_gain_db": [[-90, -100], [-95], [-105, -92]]},
         "mean_gain_db[1] has 1 entries, mean_gain_db[0] has 2 entries; all need as many: axes (N, K,)"),
        ({"reported_gain_db": [[-91] * 3] * 3},
         "reported_gain_db has 3 bands for 2 servers; give one a server, or as many to each"),
        ({"mean_gain_db": [[], [], []], "reported_gain_db": [[], [], []], "server_hz": []},
         "reported_gain_db has 0 bands for 0 servers; give one a server, or as many to each"),
        ({"device_hz": ["fast", 8e8, 9e8]}, "device_hz[0] = 'fast'; it must be a number, finite and > 0 Hz"),
        ({"device_hz": [1e9, "8e8", "9e8"]}, "device_hz[1] = '8e8'; it must be a number, finite and > 0 Hz"),
        ({"device_hz": [1e9, True, 9e8]}, "device_hz[1] = True; it must be a number, finite and > 0 Hz"),
        ({"device_hz": [1e9, 10**400, 9e8]},
         "device_hz[1] = a whole number of 1329 bits; it must be a number, finite and > 0 Hz"),
        ({"device_hz": {"0": 1e9}}, "device_hz = a dict of 1; it must be a number, finite and > 0 Hz, with axes (N,)"),
        ({"mean_gain_db": [[-90, -100], [-95, [1, 2]], [-105, -92]]},
         "mean_gain_db[1, 1] = a list of 2; it must be a number, finite and <= 0 dB, with axes (N, K,)"),
        ({"mean_gain_db": [[-90, -100], -95, [-105, -92]]},
         "mean_gain_db[1] has no list but a number, mean_gain_db[0] has 2 entries; all need as many: axes (N, K,)"),
        ({"last_server": [0, 1, 10**19]},
         "last_server[2] = 1e+19; it must be a whole number of 64 bits"),
        ({"last_server": [0, 1, 10**20]},
         "last_server[2] = 100000000000000000000; it must be a whole number of 64 bits, finite and >= -1"),
        ({"device_hz": [1e9, None, 9e8]}, "device_hz[1] = None; it must be a number, finite and > 0 Hz"),
        ({"device_hz": None}, "field 'device_hz' is missing"),
        ({"active": ["yes", "no", "no"]}, "active[0] = 'yes'; it must be true or false"),
        ({"active": [1, 2, 0]}, "active[1] = 2; it must be true or false"),
        ({"active": [1.0, float("nan"), 0.0]}, "active[1] = nan; it must be true or false"),
        ({"last_server": [0, 0.5, 1]}, "last_server[1] = 0.5; it must be a whole number"),
        ({"last_server": [0, float("nan"), 1]}, "last_server[1] = nan; it must be a whole number"),
        ({"last_server": [0, 1, 2]}, "last_server[2] = 2; servers are 0 to 1, -1 is none"),
        ({"last_server": [0, -2, 1]}, "last_server[1] = -2; it must be finite and >= -1"),
        ({"reuse_group": [0, 1e30]}, "reuse_group[1] = 1e+30; it must be a whole number of 64 bits"),
        ({"slot": 2.5}, f"slot = 2.5; it must be a whole number from 0 to {2**62}"),
        ({"slot": 10**30}, f"slot = {10**30}; it must be a whole number from 0 to {2**62}"),
        ({"slot": None}, f"slot = None; it must be a whole number from 0 to {2**62}"),
        ({"slot": True}, f"slot = True; it must be a whole number from 0 to {2**62}"),
        ({"server_hz": ..., "device_hz": ...}, "field 'device_hz' is missing; required: device_hz, server_hz"),
        ({"server_htz": [1, 2]}, "unknown field 'server_htz'; did you mean 'server_hz'?"),
        ({"deadlines": [1, 2, 3]}, "unknown field 'deadlines'; did you mean 'deadline_s'?"),
        ({"truth": [1, 2]}, "truth is an object with named fields; got list"),
        ({"truth": {"fadin": 1}}, "truth: unknown field 'fadin'; did you mean 'fading'?"),
    ],
)  # fmt: skip
def test_bad_input_is_named_exactly(changes, message):
    with pytest.raises(InvalidStateError) as caught:
        MecState.from_dict(plain(**changes))
    assert str(caught.value) == message


def test_a_field_like_no_other_gets_the_list_of_known_ones():
    with pytest.raises(InvalidStateError, match=r"unknown field 'xyzzy'; known fields: active, task_bits, "):
        MecState.from_dict(plain(xyzzy=1))


@pytest.mark.parametrize("data", [[1, 2], "state", None, 3])
def test_a_state_is_an_object(data):
    message = f"a state is a JSON object with named fields; got {type(data).__name__}"
    with pytest.raises(InvalidStateError, match=message):
        MecState.from_dict(data)


def test_a_truth_of_another_size_is_refused():
    state = PROBLEM.reset(seed=1).to_dict()
    other = make_problem("mec", agents=1, servers=2).reset(seed=1).to_dict()
    with pytest.raises(InvalidStateError, match=r"truth.fading has shape \(1, 2\); this state needs \(4, 2\)"):
        MecState.from_dict(state | {"truth": other["truth"]})
    with pytest.raises(InvalidStateError, match=r"axis 2 has 2 entries"):
        MecState.from_dict(state | {"truth": state["truth"] | {"position": [[0.0]] * 4}})


@pytest.mark.parametrize("channels", [{}, {"choose_channel": True}])
@pytest.mark.parametrize("scenario", ["H", "A"])
def test_round_trip_through_json(scenario, channels):
    problem = make_problem("mec", agents=7, servers=3, scenario=scenario, **channels)
    batch = problem.worlds([3])
    rng = np.random.default_rng(0)
    for _ in range(12):
        batch.execute(batch.settle(batch.baseline("random", rng), problem.card.prices()))
        batch.drift()
    state = batch.state(0)
    again = MecState.from_dict(json.loads(json.dumps(state.to_dict())))
    for f in fields(MecState):
        if f.name not in ("truth", "slot", "cloudy"):
            one, other = getattr(state, f.name), getattr(again, f.name)
            assert one.dtype == other.dtype and np.array_equal(one, other), f.name
    for name in HIDDEN:
        assert np.array_equal(getattr(state.truth, name), getattr(again.truth, name)), name
    assert again.slot == state.slot
    # a batch made of it stands where the first one stood: dB are the only detour
    twin = problem.world_at(again)
    for name in (*OBSERVED, *HIDDEN):
        assert np.array_equal(getattr(batch.world, name), getattr(twin.world, name)), name
    for name in ("mean_gain", "reported_gain", "true_gain", "rate"):
        assert np.allclose(getattr(batch.world, name), getattr(twin.world, name), rtol=1e-9, atol=0), name


EMPTY = {
    "active": [], "task_bits": [], "task_cycles": [], "deadline_s": [], "device_hz": [], "mean_gain_db": [],
    "reported_gain_db": [],
}  # fmt: skip


@pytest.mark.parametrize("servers", [0, 1, 3])
@pytest.mark.parametrize("channels", [{}, {"choose_channel": True}])
def test_an_empty_agent_list_is_valid(servers, channels):
    problem = make_problem("mec", agents=4, servers=3, **channels)
    state = MecState.from_dict(EMPTY | {"server_hz": [1e10] * servers})
    assert state.mean_gain_db.shape == (0, servers)
    assert MecState.from_dict(json.loads(json.dumps(state.to_dict()))).server_hz.shape == (servers,)
    batch = problem.world_at(state)
    prices = problem.card.prices()
    assert batch.observe().agent.shape[:2] == (1, 0)
    assert batch.game(prices).private_cost.shape == (1, 0, 1 + servers)
    plan = batch.settle(np.zeros((1, 0), int), prices)
    assert plan.air_price.shape == (1, servers) and not plan.air_price.any() and not plan.cpu_price.any()
    assert batch.excess(plan).tolist() == [0.0]
    allocation = namespace(batch, plan)
    assert problem.check(state, allocation).feasible
    metrics = problem.evaluate(state, allocation)
    assert all(np.isnan(metrics[key]) for key in ("welfare", "completion", "latency", "aoi", "outage", "jain"))
    after, _ = problem.advance(state, allocation, seed=1)
    assert after.agents == 0 and after.server_hz.shape == (servers,)


def test_a_problem_without_agents_resets_and_steps():
    problem = make_problem("mec", agents=0, servers=3)
    state = problem.reset(seed=0)
    batch = problem.world_at(state)
    assert problem.check(state, namespace(batch, batch.settle(np.zeros((1, 0), int), problem.card.prices()))).feasible


@pytest.mark.filterwarnings("error")
def test_a_world_without_agents_is_stepped_evaluated_and_shown():
    from coordinator import Coordinator
    from hybridalloc import Allocator
    from hybridalloc.training.evaluation import evaluate
    from hybridalloc.training.tuning import tune_prices

    problem = make_problem("mec", agents=0, servers=3)
    state = problem.reset(seed=0)
    for method in ("hybrid", "game", *problem.card.baselines):
        allocation = Allocator(problem, method).step(state)
        c = allocation.certificate
        assert (c.status, c.feasible, c.regret, c.unserved) == ("ok", True, 0.0, ())
        assert json.loads(json.dumps(allocation.to_dict(), allow_nan=False))["option"] == []
        assert "0 agents" in str(allocation) and "0 agents" in allocation._repr_html_()
    seen = evaluate(problem, problem.card.prices(), Coordinator("game"), None, range(3), slots=31, health=True)
    assert seen.allocations and not seen.violations and "welfare" not in seen.means()
    assert np.isnan(seen.metrics["welfare"]).all() and np.isnan(seen.metrics["lazy"]).all()
    tuned = tune_prices(problem, Coordinator("game"), 2, seeds=2, slots=2)
    assert tuned.prices == problem.card.prices() and np.isnan(tuned.welfare) and len(tuned.trials) == 3


def test_tuning_takes_the_trial_that_has_a_welfare(monkeypatch):
    from types import SimpleNamespace

    from coordinator import Coordinator
    from hybridalloc.training import tuning

    told = iter([[np.nan], [np.nan, 1.0], [np.nan], [0.5], [2.0]])
    answer = lambda *given, **named: SimpleNamespace(metrics={"welfare": np.array(next(told))})
    monkeypatch.setattr(tuning, "evaluate", answer)
    tuned = tuning.tune_prices(PROBLEM, Coordinator("game"), 4)
    assert tuned.welfare == 2.0 and tuned.prices == tuned.trials[4][0]
    assert [w for _, w in tuned.trials] == pytest.approx([np.nan, 1.0, np.nan, 0.5, 2.0], nan_ok=True)


def test_states_are_equal_when_every_entry_is_and_cannot_be_hashed():
    from dataclasses import replace

    one, two = PROBLEM.reset(1), PROBLEM.reset(1)
    assert one == two and one is not two
    assert one != PROBLEM.reset(2) and one != 5 and one != replace(one, slot=one.slot + 1)
    truth = one.truth
    assert truth == two.truth and one == replace(one, truth=replace(truth))
    assert one != replace(one, truth=None) and one != replace(one, truth=replace(truth, backlog_s=truth.backlog_s + 1))
    assert MecState.from_dict(plain()) == MecState.from_dict(plain()) != MecState.from_dict(plain(slot=3))
    assert MecState.from_dict(EMPTY | {"server_hz": [1.0]}) != MecState.from_dict(EMPTY | {"server_hz": [1.0, 1.0]})
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_a_server_without_reach_is_valid_nobody_is_sent_there_and_its_price_is_0():
    problem = make_problem("mec", agents=30, servers=3)
    data = problem.reset(seed=2).to_dict()
    data["reachable"] = [[True, False, True]] * 30
    state = MecState.from_dict(data)
    batch, prices = problem.world_at(state), problem.card.prices()
    assert not batch.game(prices).allowed[:, :, 2].any()
    assert not batch.observe().allowed[:, :, 2].any()
    rng = np.random.default_rng(0)
    for name in problem.card.baselines:
        assert not (batch.baseline(name, rng) == 2).any(), name
    plan = batch.settle(np.full((1, 30), 2), prices)  # all are sent there, and none goes
    assert not plan.option.any()
    assert plan.cpu_price[0, 1] == 0.0 and plan.air_price[0, 1] == 0.0
    plan = batch.settle(rng.integers(0, 4, (1, 30)), prices)
    assert (plan.cpu_price[0, [0, 2]] > 0).all() and plan.cpu_price[0, 1] == 0.0


def test_a_device_that_reaches_nobody_stays_local():
    problem = make_problem("mec", agents=10, servers=2)
    data = problem.reset(seed=2).to_dict()
    data["reachable"][4] = [False, False]
    batch = problem.world_at(MecState.from_dict(data))
    rng = np.random.default_rng(0)
    for name in problem.card.baselines:
        assert batch.baseline(name, rng)[0, 4] == 0, name
    assert batch.settle(np.full((1, 10), 1), problem.card.prices()).option[0, 4] == 0


def test_settings_are_checked():
    from hybridalloc.errors import UnknownNameError

    for name, value, rule in (
        ("agents", -1, "a whole number from 0 to 1000000"), ("agents", "x", "a whole number from 0"),
        ("servers", 0, "a whole number from 1 to 1000000"), ("servers", 2.5, "a whole number from 1"),
        ("channels", None, "a whole number from 1"), ("load", "much", "a number, finite"), ("load", -1.0, "a finite"),
        ("bits", 5, "2 finite numbers >= 0"), ("bits", [1, 2, 3], "2 finite numbers >= 0"), ("staleness", 1, "true or"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name} = .*; it must be {rule}"):
            make_problem("mec", **{name: value})
    with pytest.raises(ValueError, match=r"bits\[1\] = 'x'; it must be a number, finite"):
        make_problem("mec", bits=[1, "x"])
    with pytest.raises(ValueError, match=r"bits\[1\] = -2.0; it must be finite and >= 0"):
        make_problem("mec", bits=(1.0, -2.0))
    with pytest.raises(UnknownNameError, match="unknown scenario 'a list of 1'"):
        make_problem("mec", scenario=["H"])
    assert make_problem("mec", bits=[1e4, 2e4]) == make_problem("mec", bits=(1e4, 2e4))
    with pytest.raises(ValueError, match="sites = 'mars'; choose 'synthetic' or 'eua'"):
        make_problem("mec", sites="mars")
    with pytest.raises(UnknownNameError, match="unknown scenario 'B'"):
        make_problem("mec", scenario="B")
    with pytest.raises(UnknownNameError, match="unknown setting of mec 'stalenes'; did you mean 'staleness'"):
        make_problem("mec", stalenes=False)
    assert not make_problem("mec", staleness=False).scenario.dynamics.staleness


def test_describe_and_restore():
    from hybridalloc.problems import restore_problem

    problem = make_problem("mec", agents=7, servers=4, scenario="A", interference=True, load=0.3, bits=(1e4, 2e4))
    assert restore_problem(json.loads(json.dumps(problem.describe()))) == problem
