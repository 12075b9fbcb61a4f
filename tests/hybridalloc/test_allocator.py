"""Allocator.step: certified on every state, by every method, whatever a recommender does."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from games.certificate import measure_regret
from hybridalloc import Allocator, CheckpointError, InvalidStateError, make_problem
from hybridalloc.errors import UnknownNameError
from rl.policy import ArrayPolicy


@pytest.fixture(scope="module")
def problem():
    return make_problem("mec", agents=12, servers=3)


class Random:
    """A recommender that proposes noise of a given strength."""

    name = "noise"

    def __init__(self, seed: int, strength: float = 5.0) -> None:
        self.rng, self.strength = np.random.default_rng(seed), strength

    def propose(self, observation):
        return self.strength * self.rng.standard_normal(observation.allowed.shape)


class Broken(Random):
    def __init__(self, answer) -> None:
        self.answer = answer

    def propose(self, observation):
        return self.answer(observation)


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
        assert c.regret == pytest.approx(measure_regret(allocation.game, allocation.option), abs=1e-12)
        assert (allocation.option[~state.active] == 0).all()
        state, _ = problem.advance(state, allocation, seed=slot)


def test_trust_spans_from_the_proposal_to_the_game(problem):
    state = problem.reset(3)
    proposal = Allocator(problem, "rl", Random(1)).step(state).option
    free = Allocator(problem, "hybrid", Random(1), trust=0.0).step(state)
    np.testing.assert_array_equal(free.option, proposal)
    bound = Allocator(problem, "hybrid", Random(1), trust=np.inf).step(state)
    assert bound.certificate.regret <= 1e-9
    assert bound.certificate.epsilon_bound == 0
    some = Allocator(problem, "hybrid", Random(1), trust=5.0).step(state).certificate
    assert some.epsilon_bound == pytest.approx(10.0 / 5.0)


def test_an_untrained_hybrid_is_an_equilibrium_of_the_game(problem):
    for seed in range(20):
        c = Allocator(problem, "hybrid", "imappo").step(problem.reset(seed)).certificate
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


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda o: np.full(o.allowed.shape, np.nan), "log-prior of agent 0, option 0 is nan"),
        (lambda o: np.zeros((1, 2, 2)), "log-priors have shape (1, 2, 2); this state needs (1, 12, 4)"),
        (lambda o: np.full(o.allowed.shape, -np.inf), "agent 0 is left without an allowed option"),
        (lambda o: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_broken_recommender_leaves_the_game_and_says_so_once(problem, answer, reason):
    allocator = Allocator(problem, "hybrid", Broken(answer))
    with pytest.warns(RuntimeWarning, match="recommender failed"):
        first = allocator.step(problem.reset(0)).certificate
    assert first.source == "game" and reason in first.status
    assert first.feasible and first.regret <= 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert allocator.step(problem.reset(1)).certificate.source == "game"


def test_a_broken_game_leaves_the_fallback(problem, monkeypatch):
    allocator = Allocator(problem)
    monkeypatch.setattr("coordinator.coordinator.equilibrate", lambda *_: 1 / 0)
    with pytest.warns(RuntimeWarning, match="all agents opt out"):
        c = allocator.step(problem.reset(0)).certificate
    assert c.source == "fallback" and "ZeroDivisionError" in c.status and c.feasible


def test_a_budget_of_nothing_gives_the_cheapest_certified_allocation(problem):
    allocation = Allocator(problem, "hybrid", budget_ms=0).step(problem.reset(0))
    assert allocation.certificate.source == "fallback"
    assert "budget of 0 ms" in allocation.certificate.status
    assert allocation.certificate.feasible
    assert Allocator(problem, budget_ms=1e4).step(problem.reset(0)).certificate.source == "hybrid"


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


def test_why_lists_every_option_and_what_would_admit_it(problem):
    state = problem.reset(2)
    allocation = Allocator(problem, "hybrid", Random(4)).step(state)
    for agent in np.flatnonzero(state.active):
        rows = allocation.why(int(agent))
        assert [r["total"] for r in rows] == sorted(r["total"] for r in rows)
        chosen = next(r for r in rows if r["chosen"])
        assert chosen["option"] == allocation.option[agent] and chosen["admits"] == 0
        assert rows[0]["total"] == pytest.approx(chosen["total"], abs=1e-9)  # nobody wants to move
        other = next(r for r in rows if not r["chosen"])
        private = allocation.game.private_cost.copy()
        private[agent, other["option"]] -= other["admits"] + 1e-6
        cheaper = type(allocation.game)(
            allocation.game.options, allocation.game.weight, allocation.game.capacity, private,
            allocation.game.allowed, allocation.game.toll,
        )  # fmt: skip
        cost = cheaper.costs(allocation.option)[agent] - allocation.log_prior[agent] / allocation.trust
        assert cost.argmin() == other["option"]  # the stated change does admit it
    with pytest.raises(IndexError, match="agent 12: this allocation has 12 agents"):
        allocation.why(12)


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


class Wishful(Random):
    """Proposes options at random, and a power and a fraction with a given spread."""

    def __init__(self, spread: float) -> None:
        super().__init__(2)
        self.spread = spread

    def propose_continuous(self, observation):
        shape = observation.live.shape
        ask = {"power": 0.05, "power_spread": self.spread, "fraction": 0.7, "fraction_spread": self.spread}
        return {name: np.full(shape, value) for name, value in ask.items()}


def test_continuous_parts_are_pulled_by_the_proposals_spread(problem):
    """A sure proposal is followed, a vague one ignored, and between them the pull is monotone; always feasible."""
    state = problem.reset(7)
    free = Allocator(problem, "hybrid", Random(2)).step(state)
    sent = np.flatnonzero((free.option > 0) & (free.fraction > 0))
    powers = []
    for spread in (np.inf, 10.0, 0.3, 1e-6):
        allocation = Allocator(problem, "hybrid", Wishful(spread)).step(state)
        np.testing.assert_array_equal(allocation.option, free.option)
        assert allocation.certificate.feasible
        powers.append(allocation.power[sent])
    np.testing.assert_array_equal(powers[0], free.power[sent])
    gaps = [np.abs(p - 0.05).mean() for p in powers]
    assert gaps[0] >= gaps[1] > gaps[2] > gaps[3]
    np.testing.assert_allclose(powers[3], 0.05, atol=1e-6)
    np.testing.assert_allclose(
        Allocator(problem, "hybrid", Wishful(1e-6)).step(state).fraction[sent][:3], 0.7, atol=1e-6
    )
    game = Allocator(problem, "hybrid", Wishful(0.1), trust=np.inf).step(state)
    np.testing.assert_array_equal(game.power, Allocator(problem, "hybrid", Random(2), trust=np.inf).step(state).power)


def test_prices_are_the_marginal_worth_of_capacity():
    """Square-root shares cost (sum of w)^2 / C in all; what C (1 + h) saves is h times the price."""
    problem = make_problem("mec", agents=12, servers=3, floors=False, partial=False, power_control=False)
    state = problem.reset(1)
    allocation = Allocator(problem, "game").step(state)
    for k in range(3):
        here = allocation.option == k + 1
        weight = np.sqrt(0.5 / state.deadline_s[here] * state.task_cycles[here])

        def cost(capacity, weight=weight):
            return weight.sum() ** 2 / capacity

        slope = (cost(state.server_hz[k] * (1 - 1e-6)) - cost(state.server_hz[k] * (1 + 1e-6))) / 2e-6
        assert allocation.prices["cpu"][k] == pytest.approx(slope, rel=1e-5)


def test_a_recommender_that_fails_half_way_leaves_nothing_behind(problem):
    """Options proposed, then an error in the continuous parts: the game alone, and `why` speaks of it alone."""
    recommender = Wishful(0.1)
    recommender.propose_continuous = lambda observation: 1 / 0
    with pytest.warns(RuntimeWarning, match="recommender failed"):
        allocation = Allocator(problem, "hybrid", recommender).step(problem.reset(7))
    assert allocation.certificate.source == "game"
    assert not allocation.log_prior.any()
    np.testing.assert_array_equal(allocation.option, Allocator(problem, "game").step(problem.reset(7)).option)
