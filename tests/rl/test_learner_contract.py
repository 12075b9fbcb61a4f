"""What every registered learner obeys: shapes with masks and idle agents, cuts, seeds, checkpoints, a flat start."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest

from coordinator.merge import clip_prior
from rl.learner import Executed, Learner
from rl.policy import ArrayPolicy
from rl.proposal import Observation, Proposal, Sizes
from rl.registry import LEARNERS, make_learner

E, N, M = 6, 4, 3
REPLAYING = ("dqn", "iql", "vdn", "qmix", "maddpg")


def small(name):
    return {"horizon": 8} | ({"batch": 48} if name in REPLAYING else {})


def observation(rng):
    """E situations with idle agents and options that are not allowed; option 0 always is."""
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)
    allowed = rng.random((E, N, M)) < 0.7
    allowed[..., 0] = True
    live = rng.random((E, N)) < 0.7
    live[0] = False  # a network where nobody has anything to decide
    return Observation(f(E, N, 5), f(E, 2, 3), f(E, N, M, 4), live, allowed, np.array([-1, 0, 1]))


SIZES = Sizes(5, 3, 4)


def cost_for(learner, rng):
    """What the trainer also passes to a learner under a constraint."""
    return {"cost": rng.random(E)} if learner.wants_cost else {}


def run(learner, updates, seed=0, episode=5, charges=1.0, **times):
    """Updates on random situations, staggered cuts and credit that comes late."""
    rng = np.random.default_rng(seed)
    view = observation(rng)
    logs, slot = [], 0
    for _ in range(updates):
        while not learner.ready():
            raw = learner.propose(view).log_prior
            prior = clip_prior(raw, view.allowed, learner.config.limit)
            bias = rng.normal(size=prior.shape)
            logits = np.where(view.allowed, prior + bias, -np.inf)
            option = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
            option[~view.live] = 0
            reward = rng.normal(size=(E, N)) + option
            carried = -charges * rng.random((E, N, 2))
            following = observation(rng)
            slot += 1
            truncated = (slot + np.arange(E)) % episode == 0
            final = observation(rng) if truncated.any() else None
            kept = copy.deepcopy((view, option, reward))
            learner.record(
                Executed(
                    view, option, prior, bias, reward, carried, truncated, final, **cost_for(learner, rng), **times
                )
            )
            for a, b in zip((*view, option, reward), (*kept[0], *kept[1:]), strict=True):
                np.testing.assert_array_equal(a, b)  # what it is given stays as it was
            view = following
        logs.append(learner.update(view, 0.5))
    return logs


pytestmark = pytest.mark.parametrize("name", list(LEARNERS))


def test_an_untrained_prior_is_flat_and_has_the_right_shape(name):
    view = observation(np.random.default_rng(0))
    learner = make_learner(name, SIZES, 0, small(name))
    raw = learner.propose(view).log_prior
    assert raw.shape == (E, N, M)
    np.testing.assert_array_equal(clip_prior(raw, view.allowed, 10.0), 0.0)
    assert learner.name == name == learner.policy.name
    with pytest.raises(TypeError, match="horizons"):
        make_learner(name, SIZES, 0, {"horizons": 8})


def test_updates_are_finite_and_move_the_policy(name):
    learner = make_learner(name, SIZES, 0, small(name))
    logs = run(learner, 4)
    assert learner.updates == len(logs) == 4
    for row in logs:
        assert row and all(np.isfinite(v) and isinstance(v, float) for v in row.values())
        assert {"value_loss", "norm", "learning_rate", "kl", "entropy", "explained_variance"} <= row.keys()
        assert row["kl"] > -1e-6 and 0 <= row["entropy"] <= np.log(M) + 1e-6 and row["explained_variance"] <= 1
    view = observation(np.random.default_rng(9))
    raw = learner.propose(view).log_prior
    assert np.isfinite(raw).all()
    assert np.abs(clip_prior(raw, view.allowed, 10.0)).max() > 1e-4
    assert not raw[~view.live].any()


def test_nobody_to_decide_for(name):
    """Slots in which no agent is live are recorded and learned from without a fault."""
    learner = make_learner(name, SIZES, 0, small(name))
    rng = np.random.default_rng(0)
    for _ in range(40):
        view = observation(rng)._replace(live=np.zeros((E, N), bool))
        zero = np.zeros((E, N, M))
        learner.record(Executed(
            view, np.zeros((E, N), np.int64), zero, zero, np.zeros((E, N)), np.zeros((E, N, 2)), np.zeros(E, bool),
            None, **cost_for(learner, rng),
        ))  # fmt: skip
        if learner.ready():
            assert all(np.isfinite(v) for v in learner.update(view, 0.0).values())
            assert learner.updates == 1
            return
    pytest.fail("never ready")


def test_training_is_a_function_of_the_seed(name):
    runs = [make_learner(name, SIZES, seed, small(name)) for seed in (3, 3, 4)]
    logs = [run(learner, 3) for learner in runs]
    assert logs[0] == logs[1] != logs[2]
    for k, v in runs[0].policy.weights.items():
        np.testing.assert_array_equal(v, runs[1].policy.weights[k])


def test_state_round_trip_and_training_goes_on_as_if_uninterrupted(name):
    first = make_learner(name, SIZES, 0, small(name))
    run(first, 3)
    second = make_learner(name, SIZES, 1, small(name))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    view = observation(np.random.default_rng(5))
    np.testing.assert_array_equal(first.propose(view).log_prior, second.propose(view).log_prior)
    assert second.updates == first.updates == 3
    assert run(first, 3, seed=8) == run(second, 3, seed=8)
    for k, v in first.policy.weights.items():
        np.testing.assert_array_equal(v, second.policy.weights[k])


def test_a_decentralised_actor_cannot_see_another_agents_observation(name):
    learner = make_learner(name, SIZES, 0, small(name))
    run(learner, 3)
    view = observation(np.random.default_rng(5))._replace(live=np.ones((E, N), bool))
    agent, pair = view.agent.copy(), view.pair.copy()
    agent[:, 1:] += 1.0
    pair[:, 1:] -= 1.0
    other = learner.propose(view._replace(agent=agent, pair=pair)).log_prior
    np.testing.assert_allclose(learner.propose(view).log_prior[:, 0], other[:, 0], rtol=1e-5, atol=1e-6)
    assert np.abs(learner.propose(view).log_prior[:, 1:] - other[:, 1:]).max() > 1e-3


def test_agents_may_be_reordered(name):
    learner = make_learner(name, SIZES, 0, small(name))
    run(learner, 2)
    view = observation(np.random.default_rng(6))
    turn = np.array([2, 0, 3, 1])
    turned = view._replace(**{k: getattr(view, k)[:, turn] for k in ("agent", "pair", "live", "allowed")})
    np.testing.assert_allclose(
        learner.propose(view).log_prior[:, turn], learner.propose(turned).log_prior, rtol=1e-5, atol=1e-6
    )


def test_it_is_a_learner_by_type(name):
    """Every member of the Protocol is there, with the same arguments, so that a trainer needs to ask for none."""
    learner = make_learner(name, SIZES, 0, small(name))
    assert isinstance(learner, Learner)
    for member, wanted in inspect.getmembers(Learner, inspect.isfunction):
        if not member.startswith("_"):
            own = getattr(type(learner), member)
            assert own is not wanted, f"{member} is not written"
            assert list(inspect.signature(own).parameters) == list(inspect.signature(wanted).parameters)
    assert isinstance(learner.policy, ArrayPolicy) and isinstance(learner.wants_cost, bool)
    assert learner.credit in ("team", "region", "own", "difference")
    view = observation(np.random.default_rng(0))
    assert isinstance(learner.propose(view), Proposal) and learner.propose(view).mean is None
    assert learner.sample_continuous(view, np.zeros((E, N), int), np.random.default_rng(0)) is None


def test_a_decision_of_two_units_is_one_of_a_squared_discount(name):
    """To the last bit, and with a unit each as without a word on time."""
    made = lambda gamma: make_learner(name, SIZES, 0, small(name) | {"gamma": gamma})
    two, squared = made(0.9), made(0.9**2)
    logs = run(two, 3, charges=0.0, elapsed=np.full(E, 2.0))
    assert logs == run(squared, 3, charges=0.0)
    one, untold = made(0.9), made(0.9)
    assert run(one, 3, elapsed=np.ones(E), terminated=np.zeros(E, bool)) == run(untold, 3) != logs
    for k, v in two.policy.weights.items():
        np.testing.assert_array_equal(v, squared.policy.weights[k])
    assert any((v != one.policy.weights[k]).any() for k, v in two.policy.weights.items())


def test_what_comes_after_an_end_for_good_teaches_nothing(name):
    """Every episode ends with its decision: no later reward, value or length has a say in what is learned."""
    every = np.ones(E, bool)
    short, long = (make_learner(name, SIZES, 0, small(name)) for _ in range(2))
    logs = run(short, 3, charges=0.0, terminated=every)
    assert logs == run(long, 3, charges=0.0, terminated=every, elapsed=np.full(E, 7.0))
    going_on = make_learner(name, SIZES, 0, small(name))
    assert run(going_on, 3, charges=0.0) != logs


def test_a_last_rollout_may_be_short(name):
    """What was recorded is learned from though it is less than a horizon; with nothing new there is nothing to do."""
    learner = make_learner(name, SIZES, 0, small(name) | {"horizon": 64})
    rng = np.random.default_rng(0)
    assert not learner.ready(final=True)
    before = {k: v.copy() for k, v in learner.policy.weights.items()}
    for _ in range(5):
        view = observation(rng)
        zero = np.zeros((E, N, M))
        option = np.where(view.live & view.allowed[..., 1], 1, 0)
        learner.record(Executed(
            view, option, zero, zero, rng.normal(size=(E, N)), np.zeros((E, N, 2)), np.zeros(E, bool), None,
            **cost_for(learner, rng),
        ))  # fmt: skip
    assert not learner.ready() and learner.ready(final=True)
    figures = learner.update(observation(rng), 1.0)
    assert learner.updates == 1 and figures and all(np.isfinite(v) for v in figures.values())
    assert any((v != before[k]).any() for k, v in learner.policy.weights.items())
    assert not learner.ready(final=True)
