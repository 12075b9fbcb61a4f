"""What every problem must obey, for all that are registered: add a line to CASES with a new one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from coordinator import Coordinator
from coordinator.coordinator import game_of
from games.congestion import CongestionBatch, CongestionGame
from hybridalloc import Allocator
from hybridalloc.environments import make_env
from hybridalloc.problems import PROBLEMS, make_problem, restore_problem
from rl.proposal import Observation

CASES = [
    ("mec", {"agents": 9, "servers": 3}),
    ("mec", {"agents": 9, "servers": 3, "scenario": "A"}),
    ("mec", {"agents": 6, "servers": 2, "choose_channel": True}),
    ("mec", {"agents": 1, "servers": 1}),
    ("custom", {"transition": "hybridalloc.problems.farm:Farm"}),
]


@pytest.fixture(params=CASES, ids=str)
def problem(request):
    name, settings = request.param
    return make_problem(name, **settings)


def allocate(problem, state, seed=0, baseline=None):
    batch = problem.world_at(state)
    option = batch.baseline(baseline or problem.card.baselines[0], np.random.default_rng(seed))
    return SimpleNamespace(**batch.parts(batch.settle(option, problem.card.prices())))


def test_every_registered_problem_has_a_case():
    assert {name for name, _ in CASES} == set(PROBLEMS)


def test_reset_is_seeded_and_survives_json(problem):
    state = problem.reset(seed=3)
    assert isinstance(state, problem.state_type)
    assert state.to_dict() == problem.reset(seed=3).to_dict() != problem.reset(seed=4).to_dict()
    again = problem.state_type.from_dict(json.loads(json.dumps(state.to_dict())))
    assert again.to_dict() == state.to_dict()


def test_a_state_is_frozen(problem):
    state = problem.reset(seed=0)
    with pytest.raises(AttributeError):
        state.slot = 3


def test_describe_makes_it_again(problem):
    again = restore_problem(json.loads(json.dumps(problem.describe())))
    assert again == problem
    assert again.reset(seed=1).to_dict() == problem.reset(seed=1).to_dict()


def test_metrics_have_units_and_a_direction_and_evaluate_gives_each(problem):
    keys = [m.key for m in problem.card.metrics]
    assert len(set(keys)) == len(keys) and "welfare" in keys
    assert all(m.better in ("higher", "lower") and m.label for m in problem.card.metrics)
    state = problem.reset(seed=0)
    found = problem.evaluate(state, allocate(problem, state))
    assert set(found) == set(keys)
    assert all(isinstance(v, float) and not np.isinf(v) for v in found.values())  # nan: a mean of nothing
    assert np.isfinite(found["welfare"])


def test_every_baseline_is_feasible_and_allowed(problem):
    for seed in range(5):
        state = problem.reset(seed=seed)
        for name in problem.card.baselines:
            allocation = allocate(problem, state, seed, name)
            assert problem.check(state, allocation).feasible, name
    with pytest.raises(ValueError, match="unknown baseline 'best'"):
        problem.world_at(state).baseline("best", np.random.default_rng(0))


def test_evaluate_leaves_the_state_and_advance_is_seeded(problem):
    state = problem.reset(seed=0)
    held = json.dumps(state.to_dict())
    allocation = allocate(problem, state, baseline=problem.card.baselines[-1])
    metrics = problem.evaluate(state, allocation)
    one, first = problem.advance(state, allocation, seed=5)
    two, second = problem.advance(state, allocation, seed=5)
    other, _ = problem.advance(state, allocation, seed=6)
    assert json.dumps(state.to_dict()) == held
    assert metrics == pytest.approx(first, nan_ok=True, rel=0, abs=0)
    assert first == pytest.approx(second, nan_ok=True, rel=0, abs=0)
    assert one.to_dict() == two.to_dict() != other.to_dict()


def test_observation_and_game_have_the_shapes_that_the_parts_expect(problem):
    batch = problem.worlds([0, 1, 2])
    seen, game = batch.observe(), batch.game(problem.card.prices())
    assert isinstance(seen, Observation) and isinstance(game, CongestionBatch)
    e, n, o = seen.allowed.shape
    assert (e, n) == (3, problem.agents)
    assert seen.agent.shape[:2] == (e, n) and seen.pair.shape[:3] == (e, n, o)
    assert seen.agent.dtype == seen.pair.dtype == seen.resource.dtype == np.float32
    assert seen.resource_of.shape == (o,) and seen.resource_of[0] == -1
    assert seen.resource_of.max() < seen.resource.shape[1]
    for x in (seen.agent, seen.pair, seen.resource):
        assert np.isfinite(x).all() and np.abs(x).max() < 100  # of order one
    assert seen.allowed[..., 0].all()  # opting out is always there
    assert np.array_equal(game.live, seen.live)
    assert np.array_equal(game.allowed[game.live], seen.allowed[game.live])
    assert game.private_cost.shape == (e, n, o) and game.options.shape[0] == o
    assert (game.options[0] == -1).all() and (game.capacity > 0).all() and (game.weight >= 0).all()
    alone = game_of(problem.world_at(batch.state(0)).game(problem.card.prices())).single(0)
    assert isinstance(alone, CongestionGame) and alone.private_cost.shape == (n, o)


def test_prices_have_a_default_inside_the_space_that_is_searched(problem):
    prices = problem.card.prices()._asdict()
    for name, (low, high, logarithmic) in problem.card.price_space.items():
        assert name in prices and low < high and (low > 0 or not logarithmic)
        assert low <= prices[name] <= high or prices[name] == 0.0


def test_the_games_equilibrium_settles_feasibly_from_any_prices(problem):
    rng = np.random.default_rng(0)
    batch = problem.worlds(range(8))
    for _ in range(10):
        drawn = {k: rng.uniform(a, b) for k, (a, b, _) in problem.card.price_space.items()}
        prices = problem.card.prices(**drawn)
        decision = Coordinator("game").decide(batch, None, prices)
        plan = Coordinator("game").settle(batch, decision, prices)
        assert batch.excess(plan).max() <= 1e-9
        c = Allocator(problem, "game", prices=prices).step(batch.state(0)).certificate
        assert c.feasible and c.regret <= 1e-9 and not c.envy and not c.late
        batch.execute(plan, batch.requested(decision.option, prices))
        batch.drift()
    assert set(batch.summary()) == {m.key for m in problem.card.metrics}


@pytest.mark.parametrize("view", ["gymnasium", "pettingzoo"])
def test_both_views_run(problem, view):
    env = make_env(problem, view=view)
    env.reset(seed=0)
    for _ in range(3):
        if view == "gymnasium":
            env.step(env.action_space.sample())
        else:
            env.step({a: env.action_space(a).sample() for a in env.agents})


@pytest.mark.parametrize("rule", ["robust", "hedge"])
def test_trust_that_adapts_works_on_every_problem(problem, rule):
    """Robust against its own scenarios, the first of which changes nothing; hedge on what the next state reveals."""
    allocator = Allocator(problem, "hybrid", trust=rule, period=2)
    for seed in range(3):
        state = problem.reset(seed)
        allocation = allocator.step(state)
        assert allocation.certificate.feasible and allocation.certificate.status.startswith("ok")
        allocator.feedback(problem.advance(state, allocation, seed)[0])
    if rule == "robust":
        allocator.rehearse(networks=2, slots=2)
    weights = allocator.trust_rule.rule.weights
    assert abs(weights.sum() - 1) < 1e-9 and (weights >= -1e-12).all()
    first = problem.scenarios()[0]
    if hasattr(problem, "shifted"):
        assert problem.shifted(first).worlds([seed]).state(0).to_dict() == state.to_dict()
    else:
        assert problem.perturbed(state, first, 0).to_dict() == state.to_dict()
