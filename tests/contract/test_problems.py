"""What every problem must obey; see ``conftest.py`` for those that are held to it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from coordinator import Coordinator
from coordinator.coordinator import game_of
from coordinator.marks import Marked
from games.congestion import CongestionBatch, CongestionGame
from games.packing import Packing
from games.packing_batch import PackingBatch
from games.quadratic import QuadraticGame
from hybridalloc import Allocator
from hybridalloc.environments import make_env
from hybridalloc.problems import restore_problem
from hybridalloc.problems.contract import Card, Facts, Perturbs, Reveals, Shifts
from hybridalloc.problems.members import check_problem
from hybridalloc.problems.metrics import Tally
from hybridalloc.training.rollout import Execute, Heuristic, Rollout
from rl.proposal import Observation

GAME = Coordinator("game")
RECORDED = ("voltage",)  # an episode follows a record: what is drawn is which


def allocate(problem, state, baseline=None, seed=0):
    world = problem.world_at(state)
    option = world.baseline(baseline or next(iter(problem.card.baselines)), np.random.default_rng(seed))
    return SimpleNamespace(**world.parts(world.settle(option, problem.card.prices())))


def played(world, prices):
    """The game's own answer, settled."""
    return GAME.settle(world, GAME.decide(world, None, prices), prices)


def step(world, prices):
    """One decision by the game; what happened, episodes begun anew where they ended."""
    facts = world.execute(played(world, prices))
    over = world.drift()
    world.restart(over)
    return facts, over


def told(state):
    """A state as text: equal where every bit is."""
    return json.dumps(state.to_dict())


def assert_same(a, b):
    assert a._fields == b._fields
    for name, mine, theirs in zip(a._fields, a, b, strict=True):
        if isinstance(mine, dict):
            assert mine.keys() == theirs.keys()
            for key in mine:
                np.testing.assert_array_equal(mine[key], theirs[key], f"{name}.{key}")
        else:
            np.testing.assert_array_equal(mine, theirs, name)


# --- the problem


def test_it_keeps_the_contract_as_a_problem_of_ones_own_is_asked_to(moving):
    assert check_problem(moving, "own") is moving


def test_reset_is_seeded_and_survives_json(problem):
    state = problem.reset(seed=3)
    assert isinstance(state, problem.state_type)
    assert told(state) == told(problem.reset(seed=3))
    assert told(problem.state_type.from_dict(json.loads(told(state)))) == told(state)


def test_another_seed_is_another_episode(moving):
    assert told(moving.reset(seed=3)) != told(moving.reset(seed=4))


def test_a_state_is_frozen(problem):
    state = problem.reset(seed=0)
    with pytest.raises(AttributeError):
        state.active = None


def test_describe_makes_it_again_with_every_setting_and_shift(problem):
    again = restore_problem(json.loads(json.dumps(problem.describe(), allow_nan=False)), trust_code=True)
    assert again == problem and type(again) is type(problem)
    assert again.describe() == problem.describe()
    for seed in range(3):
        assert told(again.reset(seed)) == told(problem.reset(seed))


def test_what_is_described_moves_on_alike(moving):
    again = restore_problem(json.loads(json.dumps(moving.describe())), trust_code=True)
    prices = moving.card.prices()
    mine, theirs = moving.worlds([5, 6]), again.worlds([5, 6])
    for _ in range(4):
        assert_same(step(mine, prices)[0], step(theirs, prices)[0])


def test_a_description_of_other_settings_is_another_problem(problem):
    description = json.loads(json.dumps(problem.describe()))
    with pytest.raises(ValueError):
        restore_problem({k: v for k, v in description.items() if k in ("name", "class")}, trust_code=True)


def test_the_card_says_what_tables_and_tuning_need(problem):
    card = problem.card
    assert isinstance(card, Card) and card.name and card.size and card.agent_word
    keys = [m.key for m in card.metrics]
    assert len(set(keys)) == len(keys) and set(card.headline) <= set(keys)
    assert all(m.better in ("higher", "lower") and m.label and m.fold is not None for m in card.metrics)
    assert card.baselines and all(isinstance(label, str) and label for label in card.baselines.values())
    prices = card.prices()._asdict()
    for name, (low, high, logarithmic) in card.price_space.items():
        assert name in prices and low < high and (low > 0 or not logarithmic)
        assert low <= prices[name] <= high or prices[name] == 0.0
    assert all(isinstance(named, card.prices) for named in card.reference_prices.values())
    assert card.cost_of_change(card.prices()) >= 0 and card.unit_s > 0
    options = problem.worlds([0]).observe().allowed.shape[2]
    assert len(card.options) in (0, options)


# --- metrics


def test_evaluate_gives_the_metrics_of_the_card_and_so_does_a_rollout(moving):
    keys = [m.key for m in moving.card.metrics]
    found = moving.evaluate(moving.reset(seed=0), allocate(moving, moving.reset(seed=0)))
    assert list(found) == keys
    assert all(isinstance(v, float) and not np.isinf(v) for v in found.values())  # nan: a mean of nothing
    run = Rollout(moving, [0, 1])
    run.step(Heuristic(next(iter(moving.card.baselines)), moving.card.prices()), moving.card.prices())
    assert list(run.tally.summary()) == keys
    assert all(value.shape == (2,) for value in run.tally.summary().values())


def test_evaluate_leaves_the_state_and_agrees_with_its_world(problem):
    state = problem.reset(seed=2)
    before = told(state)
    for name in problem.card.baselines:
        allocation = allocate(problem, state, name)
        world = problem.world_at(state)
        facts = world.execute(world.plan_of(allocation))
        tally = Tally(problem.card.metrics, 1)
        tally.add(facts.counts, facts.elapsed_s)
        found = problem.evaluate(state, allocation)
        assert found == pytest.approx({k: float(v[0]) for k, v in tally.summary().items()}, nan_ok=True, rel=0, abs=0)
    assert told(state) == before


def test_advance_is_seeded_and_agrees_with_evaluate(moving):
    state = moving.reset(seed=0)
    before = told(state)
    allocation = allocate(moving, state, list(moving.card.baselines)[-1])
    one, first = moving.advance(state, allocation, seed=5)
    two, second = moving.advance(state, allocation, seed=5)
    other, _ = moving.advance(state, allocation, seed=6)
    assert told(state) == before
    assert first == pytest.approx(second, nan_ok=True, rel=0, abs=0)
    assert told(one) == told(two)
    assert told(one) != told(other) or moving.card.name in RECORDED
    timed = {m.key for m in moving.card.metrics if "elapsed_s" in (m.fold or ())}  # how long it lasts is drawn
    if moving.card.events:  # what has ended until the next decision, whenever that comes
        return
    now = moving.evaluate(state, allocation)
    for key in now.keys() - timed:
        assert first[key] == pytest.approx(now[key], nan_ok=True, rel=0, abs=0)


def test_a_world_and_the_state_it_shows_agree(moving):
    """What a decision earns in a world is what it earns where its state is told alone."""
    prices = moving.card.prices()
    world = moving.worlds([4])
    for _ in range(3):
        alone = moving.world_at(world.state(0))
        plan = played(world, prices)
        parts = SimpleNamespace(**world.parts(plan))
        mine, theirs = world.execute(plan), alone.execute(alone.plan_of(parts))
        np.testing.assert_allclose(theirs.reward, mine.reward, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(theirs.lost, mine.lost, rtol=1e-9, atol=1e-9)
        world.restart(world.drift())


# --- worlds


def test_worlds_side_by_side_are_worlds_alone(moving):
    if "reports two" in str(getattr(moving, "shift", "")):
        pytest.skip("a shift's reports get lost in all of its worlds at once")
    prices, seeds = moving.card.prices(), [3, 4, 5]
    together, alone = moving.worlds(seeds), [moving.worlds([seed]) for seed in seeds]
    for _ in range(6):
        seen = together.observe()
        for e, world in enumerate(alone):
            assert told(together.state(e)) == told(world.state(0))
            for name, part, own in zip(seen._fields, seen, world.observe(), strict=True):
                np.testing.assert_array_equal(part if name == "resource_of" else part[e : e + 1], own, name)
        facts, over = step(together, prices)
        for e, world in enumerate(alone):
            own, ended = step(world, prices)
            counts = {name: value[e : e + 1] for name, value in facts.counts.items()}
            left = None if facts.left is None else facts.left[e : e + 1]
            assert_same(Facts(*(part[e : e + 1] for part in facts[:4]), counts, left), own)
            assert ended[0] == over[e]


def test_shapes_of_what_happened(moving):
    world, n = moving.worlds([0, 1, 2]), moving.card.agents
    facts, over = step(world, moving.card.prices())
    assert facts.reward.shape == facts.lost.shape == facts.carried.shape[:2] == (3, n) and facts.carried.ndim == 3
    assert facts.elapsed_s.shape == over.shape == (3,) and (facts.elapsed_s > 0).all()
    assert (facts.lost <= 1e-12).all() or moving.card.name == "custom"  # a user's world may have others gain
    assert all(len(value) == 3 and value.ndim <= 2 for value in facts.counts.values())
    assert world.priority().shape == world.active.shape == (3, n)
    assert facts.left is None or (facts.left.shape == (3, n) and facts.left.dtype == bool)


def test_episodes_end_and_begin_anew(moving):
    world, prices = moving.worlds([0, 1]), moving.card.prices()
    most = 4 * moving.card.epochs
    if most > 100:
        world.epoch[:] = moving.card.epochs - 2
    ended = np.zeros(2, bool)
    for _ in range(min(most, 100)):
        before = world.epoch.copy()
        world.execute(played(world, prices))
        over = world.drift()
        assert np.array_equal(world.epoch, before + 1)
        world.restart(over)
        assert (world.epoch[over] == 0).all()
        ended |= over
        if ended.all():
            return
    raise AssertionError(f"no end within {most} decisions")


def test_randomness_is_the_same_whatever_was_executed(moving):
    """After the same number of decisions the next episodes are the same, be everyone out or not."""
    prices = moving.card.prices()
    mine, theirs = moving.worlds([7, 8]), moving.worlds([7, 8])
    out = np.zeros(mine.active.shape, np.int64)
    for _ in range(3):
        plans = (mine, played(mine, prices)), (theirs, theirs.settle(out, prices))
        lasted = [world.execute(plan).elapsed_s for world, plan in plans]
        over = mine.drift(), theirs.drift()
        if not moving.card.events:  # where what is decided makes the next decision
            np.testing.assert_array_equal(*lasted)
            assert np.array_equal(*over)
            np.testing.assert_array_equal(mine.active, theirs.active)
    every = np.ones(2, bool)
    mine.restart(every), theirs.restart(every)
    assert [told(mine.state(e)) for e in range(2)] == [told(theirs.state(e)) for e in range(2)]


def test_a_reseeded_world_draws_afresh(moving):
    one, two, other = (moving.worlds([1]) for _ in range(3))
    one.reseed([9]), two.reseed([9]), other.reseed([10])
    for world in (one, two, other):
        world.execute(played(world, moving.card.prices()))
        world.drift()
        if moving.card.name in RECORDED:
            world.restart(np.ones(1, bool))
    assert told(one.state(0)) == told(two.state(0)) != told(other.state(0))


BELIEFS = ["", "learned", "bayesian"]


@pytest.mark.parametrize("belief", BELIEFS)
def test_a_kept_world_goes_on_bit_for_bit(moving, belief):
    """In the middle of an episode, into worlds of other seeds, with what a belief remembers."""
    if belief and belief not in moving.card.beliefs:
        pytest.skip(f"{moving.card.name} has no belief {belief!r}")
    made = moving.card.beliefs[belief](seed=0) if belief else None
    prices, world = moving.card.prices(), moving.worlds([1, 2, 3], made)
    for _ in range(3):
        step(world, prices)
    kept, knows = world.state_dict(), None if made is None else made.copy()
    frozen = json.dumps(kept, default=lambda x: np.asarray(x).tolist())
    on = moving.worlds([7, 8, 9], knows)
    on.load_state_dict(kept)
    for _ in range(4):
        for name, mine, theirs in zip(world.observe()._fields, world.observe(), on.observe(), strict=True):
            np.testing.assert_array_equal(mine, theirs, name)
        (mine, over), (theirs, ended) = step(world, prices), step(on, prices)
        assert_same(mine, theirs)
        np.testing.assert_array_equal(over, ended)
    assert [told(world.state(e)) for e in range(3)] == [told(on.state(e)) for e in range(3)]
    assert json.dumps(kept, default=lambda x: np.asarray(x).tolist()) == frozen  # copies, not the worlds' own


def test_the_state_of_other_worlds_is_refused(moving):
    kept = moving.worlds([1, 2]).state_dict()
    with pytest.raises(ValueError):
        moving.worlds([1]).load_state_dict(kept)


# --- what is observed and played


def test_observation_and_game_have_the_shapes_that_the_parts_expect(problem):
    world = problem.worlds([0, 1, 2])
    seen, game = world.observe(), world.game(problem.card.prices())
    e, n, o = seen.allowed.shape
    assert (e, n) == (3, problem.card.agents)
    assert seen.agent.shape[:2] == (e, n) and seen.pair.shape[:3] == (e, n, o)
    assert seen.agent.dtype == seen.pair.dtype == seen.resource.dtype == np.float32
    assert seen.resource_of.shape == (o,) and seen.resource_of[0] == -1
    assert seen.resource_of.max() < seen.resource.shape[1]
    for x in (seen.agent, seen.pair, seen.resource):
        assert np.isfinite(x).all() and np.abs(x).max() < 100  # of order one
    assert seen.allowed[..., 0].all()  # opting out is always there
    assert isinstance(seen, Observation)
    assert np.array_equal(game.live, seen.live) and np.array_equal(seen.live, world.active)
    if isinstance(game, Marked):  # of levels, for which options stand
        assert game.marks.shape == game.allowed.shape == (e, n, o) and np.array_equal(game.allowed, seen.allowed)
        assert game.batch.linear.shape == (e, n, 1) and not game.marks[..., 0].any()
        assert not game.batch.upper[~game.live].any() and not game.batch.lower[~game.live].any()
        alone = game_of(problem.world_at(world.state(0)).game(problem.card.prices())).single(0)
        assert isinstance(alone, QuadraticGame) and alone.linear.shape == (n,) and alone.monotonicity() > 0
        return
    if isinstance(game, PackingBatch):  # places that are held whole
        assert np.array_equal(game.allowed[game.live], seen.allowed[game.live])
        assert game.private.shape == (e, n, o) and game.rows.shape[:3] == game.demand.shape[:3] == (e, n, o)
        assert (game.rows[:, :, 0] == -1).all() and (game.capacity >= 0).all() and (game.demand >= 0).all()
        assert not game.ok[~game.live].any() and not game.private[~game.live].any()
        alone = game_of(problem.world_at(world.state(0)).game(problem.card.prices())).single(0)
        assert isinstance(alone, Packing) and alone.private.shape == (n, o)
        return
    assert isinstance(game, CongestionBatch)
    assert np.array_equal(game.allowed[game.live], seen.allowed[game.live])
    assert game.private_cost.shape == (e, n, o) and game.options.shape[0] == o
    assert (game.options[0] == -1).all() and (game.capacity > 0).all() and (game.weight >= 0).all()
    assert not game.allowed[~game.live][:, 1:].any() and game.allowed[~game.live][:, 0].all()
    assert not game.private_cost[~game.live].any()  # who has nothing to decide is out, at no cost
    alone = game_of(problem.world_at(world.state(0)).game(problem.card.prices())).single(0)
    assert isinstance(alone, CongestionGame) and alone.private_cost.shape == (n, o)


def test_any_prices_give_an_equilibrium_that_settles_feasibly(moving):
    rng = np.random.default_rng(0)
    world, card = moving.worlds(range(8)), moving.card
    run = Rollout(moving, range(8))
    for _ in range(10):
        prices = card.prices(**{k: rng.uniform(a, b) for k, (a, b, _) in card.price_space.items()})
        assert world.excess(played(world, prices)).max() <= 1e-9
        c = Allocator(moving, "game", prices=prices).step(world.state(0)).certificate
        assert c.feasible and c.regret <= 1e-9 and not c.envy and not c.late
        step(world, prices)
        run.step(Execute(GAME, None, prices), prices)
    assert (run.allocations, run.violations) == (80, 0)
    with pytest.raises(ValueError, match="unknown baseline 'best'"):
        world.baseline("best", rng)


# --- limits


def test_every_baseline_and_any_choice_is_feasible(problem):
    rng, prices = np.random.default_rng(0), problem.card.prices()
    for seed in range(5):
        state = problem.reset(seed=seed)
        for name in problem.card.baselines:
            assert problem.check(state, allocate(problem, state, name, seed)).feasible, name
        world = problem.world_at(state)
        option = rng.integers(0, world.observe().allowed.shape[2], world.active.shape)
        plan = world.settle(option, prices)
        assert world.excess(plan).max() <= 1e-9
        assert 0 <= world.requested(option, prices)[0] <= 1
        assert problem.check(state, SimpleNamespace(**world.parts(plan))).feasible


def busy(problem):
    """A state with an allocation that uses something."""
    for seed in range(50):
        state = problem.reset(seed)
        world = problem.world_at(state)
        parts = world.parts(played(world, problem.card.prices()))
        if (parts["option"] > 0).any():
            return state, parts
    raise AssertionError("nobody ever uses anything")


def test_a_level_beyond_its_box_is_refused_by_check_and_by_excess(levelled):
    state = levelled.reset(2)
    world = levelled.world_at(state)
    parts = world.parts(played(world, levelled.card.prices()))
    for name in levelled.card.levels:
        assert levelled.check(state, SimpleNamespace(**parts)).feasible
        wrong = SimpleNamespace(**parts | {name: parts[name] + 3 * levelled.card.levels[name][1]})
        found = levelled.check(state, wrong)
        assert not found.feasible and found.max_violation > 0.5 and found.violations
        assert world.excess(world.plan_of(wrong))[0] > 0.5


def test_an_overbooked_allocation_is_refused_by_check_and_by_excess(chosen):
    problem = chosen
    state, parts = busy(problem)
    world = problem.world_at(state)
    assert problem.check(state, SimpleNamespace(**parts)).feasible
    for family in problem.card.families:
        shares = parts["shares"] | {family: parts["shares"][family] * 3 + (parts["option"] > 0)}
        wrong = SimpleNamespace(**parts | {"shares": shares})
        found = problem.check(state, wrong)
        assert not found.feasible and found.max_violation > 0.5 and found.violations
        assert world.excess(world.plan_of(wrong))[0] > 0.5


def test_options_that_are_not_there_are_refused(chosen):
    problem = chosen
    state, parts = busy(problem)
    options = problem.world_at(state).observe().allowed.shape[2]
    for wrong in (options, -1):
        option = np.where(parts["option"] > 0, wrong, parts["option"])
        assert not problem.check(state, SimpleNamespace(**parts | {"option": option})).feasible


# --- what stands on it


@pytest.mark.parametrize("method", ["hybrid", "game"])
def test_a_step_from_json_is_certified_and_an_allocator_is_saved_and_loaded(problem, method, tmp_path):
    allocator = Allocator(problem, method)
    state = problem.reset(1)
    allocation = allocator.step(json.loads(told(state)))
    assert allocation.certificate.feasible and allocation.certificate.source == method
    assert allocation.certificate.status.startswith("ok")
    json.dumps(allocation.to_dict(), allow_nan=False)
    again = Allocator.load(allocator.save(tmp_path / "a.npz"), trust_code=True)
    assert again.problem == problem
    np.testing.assert_array_equal(again.step(state).option, allocation.option)


@pytest.mark.parametrize("view", ["gymnasium", "pettingzoo"])
def test_both_views_run(moving, view):
    env = make_env(moving, view=view)
    env.reset(seed=0)
    for _ in range(3):
        if view == "gymnasium":
            env.step(env.action_space.sample())
        else:
            env.step({a: env.action_space(a).sample() for a in env.agents})


def adapts(problem, rule):
    return isinstance(problem, Shifts | Perturbs) if rule == "robust" else isinstance(problem, Reveals)


@pytest.mark.parametrize("rule", ["robust", "hedge"])
def test_trust_that_adapts_works_where_the_problem_has_what_it_takes(moving, rule):
    """Robust against its own scenarios, the first of which changes nothing; hedge on what the next state reveals."""
    if not adapts(moving, rule):
        with pytest.raises(ValueError, match=f"trust='{rule}' needs"):
            Allocator(moving, "hybrid", trust=rule)
        return
    allocator = Allocator(moving, "hybrid", trust=rule, period=2)
    for seed in range(3):
        state = moving.reset(seed)
        allocation = allocator.step(state)
        assert allocation.certificate.feasible and allocation.certificate.status.startswith("ok")
        allocator.feedback(moving.advance(state, allocation, seed)[0])
    if rule == "robust":
        allocator.rehearse(networks=2, slots=2)
    weights = allocator.trust_rule.rule.weights
    assert abs(weights.sum() - 1) < 1e-9 and (weights >= -1e-12).all()


def test_the_first_scenario_changes_nothing(moving):
    if not isinstance(moving, Shifts | Perturbs) or getattr(moving, "shift", None) is not None:
        pytest.skip("no scenarios of its own law")
    state, first = moving.reset(2), moving.scenarios()[0]
    if isinstance(moving, Shifts):
        assert told(moving.shifted(first).worlds([2]).state(0)) == told(state)
    else:
        assert told(moving.perturbed(state, first, 0)) == told(state)
