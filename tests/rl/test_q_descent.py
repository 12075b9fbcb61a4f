"""Q-learning's compiled passes against torch's own, gradient by gradient, and what is learned by either."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl.learner import Executed
from rl.networks import Sizes
from rl.proposal import Observation, own_features
from rl.registry import make_learner
from rl.replay import DRAWN, Replay

SIZES = Sizes(agent=5, resource=4, pair=3)
CASES = [
    ("dqn", {}),
    ("dqn", {"double": False}),
    ("dqn", {"dueling": False, "steps": 3, "huber": 0.3}),
    ("dqn", {"dueling": False, "double": False, "prioritised": True, "steps": 2}),
    ("dqn", {"prioritised": True, "agents": False}),
    ("iql", {}),
    ("iql", {"dueling": True}),
    ("vdn", {}),
    ("vdn", {"double": False, "prioritised": True}),
    ("qmix", {}),
    ("qmix", {"dueling": True, "huber": 1.0}),
]


def situation(rng, networks=4, n=7):
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)
    of = np.array([-1, 0, 1, 2, 1])
    live, allowed = rng.random((networks, n)) < 0.7, rng.random((networks, n, 5)) < 0.7
    allowed[..., 0] |= ~allowed.any(-1)
    return Observation(f(networks, n, 5), f(networks, 3, 4), f(networks, n, 5, 3), live, allowed, of)


def filled(name, engine, seed=0, slots=9, reward=1.0, **settings):
    """A learner that has seen ``slots`` random slots, some of which were cut, with random networks."""
    learner = make_learner(
        name, SIZES, 0, {"engine": engine, "hidden": 16, "temperature": 0.5, "limit": 3.0} | settings
    )
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    for p in (*learner.online.parameters(), *learner.target.parameters()):
        torch.nn.init.normal_(p, std=0.4)
    for _ in range(slots):
        o = situation(rng)
        option = np.where(o.allowed, rng.random(o.allowed.shape), -1.0).argmax(-1)
        option[~o.live] = 0
        learner.record(Executed(
            o, option, np.zeros(o.allowed.shape), 3 * rng.normal(size=o.allowed.shape),
            reward * rng.normal(size=o.live.shape), np.zeros((*o.live.shape, 2)), rng.random(len(option)) < 0.1, None,
            elapsed=rng.uniform(0.5, 2.0, len(option)),
        ))  # fmt: skip
    return learner, torch.from_numpy(o.resource_of), o


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_the_passes_give_the_targets_and_gradients_of_autograd(name, settings, seed):
    found = {}
    for engine in ("torch", "compiled"):
        learner, of, _ = filled(name, engine, seed, **settings)
        drawn = learner.replay.sample(np.random.default_rng(seed), 300, 0.9, learner.config.steps, 0.5)
        following = learner.ahead(drawn.then, of)
        goal = following + torch.randn(following.shape, generator=torch.Generator().manual_seed(seed))
        learner.optimizer.zero_grad()
        lesson = learner.set_gradients(drawn.now, of, goal, drawn.weight)
        found[engine] = following, lesson, {k: p.grad for k, p in learner.online.named_parameters()}
    (following, lesson, theirs), (mine, told, gradients) = found["torch"], found["compiled"]
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    close(mine, following)
    close(told.value, lesson.value)
    close(told.delta, lesson.delta)
    assert told.loss == pytest.approx(lesson.loss, rel=1e-5)
    assert set(gradients) == set(theirs)
    for key, gradient in gradients.items():
        scale = max(float(theirs[key].abs().max()), 1.0)
        torch.testing.assert_close(gradient / scale, theirs[key] / scale, rtol=0, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("name", "settings"), [("dqn", {"prioritised": True}), ("iql", {}), ("vdn", {}), ("qmix", {})], ids=str
)
def test_whole_updates_go_where_torchs_go(name, settings):
    found = {}
    for engine in ("torch", "compiled"):
        learner, _, last = filled(name, engine, slots=20, batch=32, updates=1, **settings)
        figures = learner.update(last, 0.3)
        found[engine] = figures, learner.policy.weights
    (figures, weights), (told, mine) = found["torch"], found["compiled"]
    assert set(told) == set(figures)
    for key, figure in figures.items():
        assert told[key] == pytest.approx(figure, rel=2e-3, abs=1e-4), key
    for key, weight in weights.items():
        if key == "out.bias" and learner.online.value is not None:
            continue  # taken off with the options' mean: its gradient is rounding alone, and Adam's step by sign
        np.testing.assert_allclose(mine[key], weight, atol=1e-3, err_msg=key)


@pytest.mark.parametrize("name", ["dqn", "iql", "vdn", "qmix"])
@pytest.mark.parametrize("engine", ["torch", "compiled"])
def test_a_gradient_that_is_not_finite_leaves_the_weights(name, engine):
    learner, _, last = filled(name, engine, reward=np.nan)
    before = [p.detach().clone() for p in learner.online.parameters()]
    with pytest.raises(FloatingPointError, match="the weights are as they were"):
        learner.update(last, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.online.parameters(), strict=True))


@pytest.mark.parametrize("engine", ["torch", "compiled"])
def test_the_team_optimum_is_found_by_either_engine(lab, engine):
    game = lab.ServerContexts(credit="difference")
    settings = {"horizon": 16, "updates": 4, "batch": 256, "rate": 5e-3, "target_rate": 0.05, "gamma": 0.0}
    learner = make_learner("dqn", lab.Sizes.of(game.observe()), 0, settings | {"capacity": 128, "engine": engine})
    lab.play(learner, game, 40)
    assert (learner.engine == engine) and any((game.table(learner) == best).all() for best in game.team_optima())


def test_what_computes_is_chosen_by_name_and_refused_where_it_cannot():
    of = lambda name, **settings: make_learner(name, SIZES, 0, settings).engine
    assert of("dqn") == of("iql") == of("vdn") == of("qmix", engine="compiled") == "compiled"
    assert of("maddpg") == of("dqn", engine="torch") == of("maddpg", engine="torch") == "torch"
    with pytest.raises(ValueError, match=r"engine = 'compiled' knows the plain pair scorer alone.*another kind"):
        of("maddpg", engine="compiled")
    with pytest.raises(ValueError, match="engine = 'numpy'; it must be one of auto, compiled, torch"):
        of("dqn", engine="numpy")


@pytest.mark.parametrize("agents", [False, True], ids=["slots", "agents"])
def test_a_draw_is_what_was_kept_in_room_that_the_next_one_fills(agents):
    replay, rng = Replay(8, agents), np.random.default_rng(0)
    for _ in range(11):
        o = situation(rng)
        option = np.where(o.allowed, rng.random(o.allowed.shape), -1.0).argmax(-1)
        replay.add(o, option, rng.normal(size=o.allowed.shape), rng.normal(size=o.live.shape), np.zeros(4, bool))
    drawn = replay.sample(rng, 50, 0.9)
    slots, networks = (x[drawn.place] for x in replay._starts)
    for slot, at in ((drawn.now, slots), (drawn.then, (slots + 1) % 8)):
        seen = {k: replay.arrays[k][at, networks] for k in DRAWN}
        if agents:  # which of them is found by its features
            who = [
                int(np.flatnonzero((seen["agent"][b] == slot["agent"][b].numpy()).all(-1))[0]) for b in range(len(at))
            ]
            alone = lambda k, v, who=who: v if k == "resource" else v[np.arange(len(who)), who][:, None]
            seen = {k: alone(k, v) for k, v in seen.items()}
        for k in DRAWN:
            np.testing.assert_array_equal(slot[k].numpy(), seen[k], err_msg=k)
        view = Observation(
            seen["agent"], seen["resource"], seen["pair"], seen["live"], seen["allowed"], np.zeros(5, int)
        )
        np.testing.assert_array_equal(slot["own"].numpy(), own_features(view))
    assert replay.sample(rng, 50, 0.9).now["pair"].data_ptr() == drawn.now["pair"].data_ptr()
    assert replay.sample(rng, 30, 0.9).now["pair"].shape[0] == 30
    learner, _, _ = filled("iql", "auto")  # whose network reads no summary of the pairs
    assert "own" not in learner.replay.sample(rng, 5, 0.9).now
