"""Allocator.step: certified on every state, by every method, whatever a recommender does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coordinator import Coordinator
from coordinator.coordinator import game_of
from coordinator.merge import clip_prior
from games.certificate import measure_regret
from hybridalloc import Allocator, CheckpointError, InvalidStateError, make_problem
from hybridalloc.errors import UnknownNameError
from rl.networks import Sizes
from rl.policy import ArrayPolicy
from rl.registry import make_learner
from tests.hybridalloc.recommenders import Random, Wishful


@pytest.fixture(scope="module")
def problem():
    return make_problem("mec", agents=12, servers=3)


@pytest.mark.parametrize("method", ["hybrid", "rl", "game", "local", "nearest", "random", "greedy"])
def test_every_method_is_feasible_and_certified(problem, method):
    allocator = Allocator(problem, method, Random(0) if method in ("hybrid", "rl") else None)
    state = problem.reset(0)
    for slot in range(150):
        allocation = allocator.step(state)
        c = allocation.certificate
        assert c.feasible and c.max_violation <= 1e-9 and c.violations == ()
        assert c.source == method
        assert c.regret <= c.epsilon_bound + 1e-9
        assert c.late == ()
        if allocation.seated:
            assert c.envy == () and allocation.served[allocation.held & state.active].all()
        else:
            assert c.regret == pytest.approx(measure_regret(allocation.game, allocation.option), abs=1e-9)
        assert (allocation.option[~state.active] == 0).all()
        state, _ = problem.advance(state, allocation, seed=slot)


def test_trust_spans_from_the_proposal_to_the_game(problem):
    state = problem.reset(3)
    proposal = Allocator(problem, "rl", Random(1)).step(state).option
    free = Allocator(problem, "hybrid", Random(1), trust=0.0).step(state)
    np.testing.assert_array_equal(free.option, proposal)
    bound = Allocator(problem, "hybrid", Random(1), trust=np.inf, improve=False).step(state)
    assert bound.certificate.regret <= 1e-9
    assert bound.certificate.epsilon_bound == 0
    some = Allocator(problem, "hybrid", Random(1), trust=5.0, improve=False).step(state).certificate
    assert some.epsilon_bound == pytest.approx(10.0 / 5.0)


def test_an_untrained_hybrid_is_an_equilibrium_of_the_game(problem):
    for seed in range(20):
        c = Allocator(problem, "hybrid", "imappo", improve=False).step(problem.reset(seed)).certificate
        assert c.regret <= 1e-9


def test_a_dict_as_from_json_gives_the_same_allocation(problem):
    state = problem.reset(5)
    again = json.loads(json.dumps(state.to_dict()))
    a, b = Allocator(problem).step(state), Allocator(problem).step(again)
    np.testing.assert_array_equal(a.option, b.option)
    assert json.loads(json.dumps(b.to_dict()))["certificate"]["source"] == "hybrid"


def test_an_empty_agent_list_is_an_empty_allocation(problem):
    names = ("active", "task_bits", "task_cycles", "deadline_s", "device_hz", "mean_gain_db", "reported_gain_db")
    allocation = Allocator(problem).step({name: [] for name in names} | {"server_hz": [1e10, 2e10]})
    assert allocation.option.shape == (0,)
    assert allocation.certificate.feasible
    assert allocation.certificate.unserved == ()
    assert allocation.prices["cpu"].tolist() == [0.0, 0.0]


def test_a_server_without_reach_serves_nobody(problem):
    state = problem.reset(0).to_dict()
    state["reachable"] = [[True, False, True]] * 12
    allocation = Allocator(problem).step(state)
    assert not (allocation.option == 2).any()
    assert allocation.prices["cpu"][1] == 0.0
    assert allocation.certificate.feasible
    state["reachable"] = [[False] * 3] * 12
    assert Allocator(problem).step(state).option.tolist() == [0] * 12


def test_a_budget_of_nothing_gives_the_cheapest_certified_allocation(problem):
    allocation = Allocator(problem, "hybrid", budget_ms=0).step(problem.reset(0))
    assert allocation.certificate.source == "fallback"
    assert "budget of 0 ms" in allocation.certificate.status
    assert allocation.certificate.feasible and not allocation.option.any()
    ample = Allocator(problem, "hybrid", Random(1), budget_ms=1e4)
    free = Allocator(problem, "hybrid", Random(1))
    for _ in range(20):
        free.recommender.propose(problem.worlds([0]).observe())  # the warm-up's draws
    state = problem.reset(0)
    timed = ample.step(state)
    assert timed.certificate.source == "hybrid"
    np.testing.assert_array_equal(timed.option, free.step(state).option)


def test_bad_arguments_are_named():
    problem = make_problem("mec", agents=2, servers=1)
    with pytest.raises(UnknownNameError, match="unknown method 'hybird'; did you mean 'hybrid'"):
        Allocator(problem, "hybird")
    with pytest.raises(ValueError, match="trust = -1"):
        Allocator(problem, trust=-1.0)
    with pytest.raises(ValueError, match='method="rl" needs a recommender'):
        Allocator(problem, "rl")
    with pytest.raises(ValueError, match="budget_ms = -3"):
        Allocator(problem, budget_ms=-3)
    with pytest.raises(InvalidStateError, match="a state of mec is a MecState or a dict; got list"):
        Allocator(problem).step([1, 2])
    with pytest.raises(UnknownNameError, match="unknown problem 'mek'; did you mean 'mec'"):
        make_problem("mek")
    with pytest.raises(UnknownNameError, match="unknown setting of mec 'agent'; did you mean 'agents'"):
        make_problem("mec", agent=3)


def test_saved_and_loaded_allocators_agree(problem, tmp_path):
    allocator = Allocator(problem, "hybrid", "dqn", trust=7.0, seed=3)
    assert isinstance(allocator.recommender, ArrayPolicy)
    allocator.recommender.weights["out.weight"] = np.full((1, 32), 0.1, np.float32)
    path = allocator.save(tmp_path / "a")
    again = Allocator.load(path)
    assert (again.trust, again.method, again.prices) == (7.0, "hybrid", allocator.prices)
    assert again.problem == problem
    for seed in range(5):
        state = problem.reset(seed)
        np.testing.assert_array_equal(again.step(state).option, allocator.step(state).option)
    assert Allocator.load(path, trust=0.0).trust == 0.0
    assert Allocator(problem, "rl", str(path)).step(problem.reset(0)).certificate.source == "rl"


def test_checkpoints_that_cannot_be_used_say_why(problem, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        Allocator.load(tmp_path / "none.npz")
    path = Allocator(problem, "hybrid", "imappo").save(tmp_path / "a.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
        Allocator.load(path)
    assert path.read_bytes() == whole[: len(whole) // 2]
    np.savez(tmp_path / "b.npz", meta=np.array(json.dumps({"format": 99})))
    with pytest.raises(CheckpointError, match="has format 99; this version reads format 1"):
        Allocator.load(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x=np.zeros(2))
    with pytest.raises(CheckpointError, match="holds no allocator"):
        Allocator.load(tmp_path / "c.npz")
    with pytest.raises(CheckpointError, match="holds no recommender: it was saved from method 'game'"):
        Allocator(problem, "hybrid", str(Allocator(problem, "game").save(tmp_path / "g.npz")))
    with pytest.raises(CheckpointError, match="cannot be saved"):
        Allocator(problem, "hybrid", Random(0)).save(tmp_path / "d.npz")


def test_a_recommender_with_a_memory_keeps_it_from_step_to_step():
    problem = make_problem("mec", agents=6, servers=2)
    policy = make_learner("imappo", Sizes.of(problem.worlds([0]).observe()), 0, {"memory": 8}).policy
    rng = np.random.default_rng(1)
    policy.weights["out.weight"][:] = rng.standard_normal(policy.weights["out.weight"].shape)
    allocator = Allocator(problem, "hybrid", policy, trust=1.0)
    speaker, state = policy.carrying(), problem.reset(4)
    for seed in range(4):
        allocation = allocator.step(state)
        raw = speaker.propose(problem.world_at(state).observe()).log_prior
        expected = clip_prior(raw, np.ones_like(raw, bool), allocator.coordinator.limit)[0]
        live = state.active
        np.testing.assert_allclose(allocation.log_prior[live], expected[live], atol=1e-6)
        state, _ = problem.advance(state, allocation, seed)
    alone = policy.propose(problem.world_at(state).observe()).log_prior
    assert not np.allclose(alone, speaker.propose(problem.world_at(state).observe()).log_prior)


@pytest.mark.parametrize("method", ["hybrid", "nearest"])
def test_the_game_is_built_once_a_step(problem, monkeypatch, method):
    batch, built = type(problem.worlds([0])), []
    make = batch.game
    monkeypatch.setattr(batch, "game", lambda *a: built.append(1) or make(*a))
    recommender = Random(1) if method == "hybrid" else None
    allocator = Allocator(problem, method, recommender, hysteresis=0.1)
    for seed in range(3):
        allocation = allocator.step(problem.reset(seed))
        assert len(built) == 1 and allocation.certificate.feasible
        built.clear()
        single = game_of(problem.world_at(problem.reset(seed)).game(allocator.prices)).single(0)
        np.testing.assert_array_equal(allocation.game.private_cost, single.private_cost)
        np.testing.assert_array_equal(allocation.game.toll, single.toll)
        built.clear()


def test_the_allocators_choice_is_the_coordinators(problem):
    """One place decides: a step is Coordinator.decide and settle on the same state, to the last bit."""
    for seed, trust in enumerate((0.0, 0.7, 5.0, np.inf)):
        state = problem.reset(seed)
        allocation = Allocator(problem, "hybrid", Wishful(0.3), trust=trust).step(state)
        batch, prices = problem.world_at(state), problem.card.prices()
        coordinator = Coordinator("hybrid", trust)
        decision = coordinator.decide(batch, Wishful(0.3), prices)
        parts = batch.parts(coordinator.settle(batch, decision, prices))
        np.testing.assert_array_equal(allocation.option, parts["option"])
        np.testing.assert_array_equal(allocation.power, parts["power"])
        assert allocation.certificate.epsilon_bound == decision.bound[0]
