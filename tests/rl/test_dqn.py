"""DQN's switches: double removes the overestimation of a known toy, n steps and priorities reach the same Q."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl.dqn import Dqn, DqnConfig
from rl.networks import Sizes, own_features
from rl.proposal import Observation
from tests.rl.toys import Places, drive, executes


def slot_of(view):
    """An observation as a batch of joint slots."""
    slot = {k: torch.from_numpy(getattr(view, k)) for k in ("agent", "pair", "resource", "allowed", "live")}
    return slot | {
        "own": torch.from_numpy(own_features(view)),
        "option": torch.zeros(view.live.shape, dtype=torch.int64),
    }


def values_of(learner, view):
    with torch.no_grad():
        return learner.online(slot_of(view), torch.from_numpy(view.resource_of)).numpy()


@pytest.mark.parametrize(
    "switches",
    [
        {"double": False, "dueling": False, "steps": 1},
        {"prioritised": True, "steps": 1},
        {"dueling": False, "steps": 3},
        {"prioritised": True, "steps": 3},
    ],
    ids=str,
)
def test_q_is_the_enumerated_fixed_point_of_the_n_step_return(lab, switches):
    """Uniform behaviour on the chain: n - 1 random steps after the option, then the greedy value, by iteration."""
    gamma, game = 0.6, lab.Chain(agents=2, networks=16)
    fast = {"horizon": 16, "batch": 96, "capacity": 96, "rate": 1e-2, "rate_floor": 0.02, "target_rate": 0.1}
    learner = Dqn(Sizes.of(game.observe()), DqnConfig(gamma=gamma, credit="own", **fast, **switches), 0)
    logs = lab.play(learner, game, 25, uniform=True)
    pay, goes = np.zeros((4, 2)), np.clip(np.arange(4)[:, None] + [-1, 1], 0, 3)
    pay[0, 0], pay[3, 1] = 0.2, 1.0
    want = np.zeros((4, 2))
    for _ in range(100):
        value = want.max(1)
        for _ in range(switches["steps"] - 1):
            value = (pay + gamma * value[goes]).mean(1)
        want = pay + gamma * value[goes]
    q = values_of(learner, game.view_of(np.arange(4)[:, None]))[:, 0]
    assert np.abs(q - want).max() < 0.06 * np.ptp(want)
    assert {"kl", "entropy", "explained_variance", "norm", "value_loss", "learning_rate"} <= logs[-1].keys()
    assert logs[-1]["kl"] >= 0 and 0 <= logs[-1]["entropy"] <= np.log(2)


def test_double_removes_the_overestimation_of_independent_errors(lab):
    """van Hasselt et al. (2016), theorem 1 and its double counterpart: all options are worth 0, estimates are noise."""
    eye = np.eye(8, dtype=np.float32)
    pair = np.tile(eye, (1, 1, 1, 1))
    view = Observation(
        np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32), pair, np.ones((1, 1), bool),
        np.ones((1, 1, 8), bool), np.full(8, -1),
    )  # fmt: skip
    then, of = slot_of(view) | {"bias": torch.zeros(1, 1, 8)}, torch.from_numpy(view.resource_of)
    ahead = {False: [], True: []}
    for double in ahead:
        learner = Dqn(Sizes.of(view), DqnConfig(double=double, dueling=False), 0)
        torch.manual_seed(1)
        for _ in range(400):
            for net in (learner.online, learner.target):
                for layer in (net.utility.pair, net.utility.out):
                    torch.nn.init.normal_(layer.weight)
            ahead[double].append(float(learner.ahead(then, of)))
    single, double = (np.array(ahead[k]) for k in (False, True))
    print(
        f"value of what is worth 0: single {single.mean():.2f}, double {double.mean():.2f}, spread {double.std():.2f}"
    )
    assert single.mean() > 0.8 * double.std()
    assert abs(double.mean()) < 3 * double.std() / 20


def test_the_game_decides_what_follows(lab):
    """With a bias that rules an option out, its value does not reach the target."""
    game = lab.Chain(agents=1, networks=1)
    learner = Dqn(Sizes.of(game.observe()), DqnConfig(double=False, dueling=False), 0)
    torch.manual_seed(0)
    torch.nn.init.normal_(learner.target.utility.out.weight)
    view = game.view_of(np.array([[2]]))
    then, of = slot_of(view), torch.from_numpy(view.resource_of)
    with torch.no_grad():
        q = learner.target(then, of)[0, 0]
    for option in (0, 1):
        bias = torch.full((1, 1, 2), -1e3)
        bias[..., option] = 0.0
        assert float(learner.ahead(then | {"bias": bias}, of)) == pytest.approx(float(q[option]), rel=1e-6)


def test_priorities_follow_the_errors_and_beta_grows_to_one(lab):
    game = lab.Chain(agents=2, networks=8)
    learner = Dqn(Sizes.of(game.observe()), DqnConfig(horizon=17, batch=64, capacity=64, prioritised=True), 0)
    betas = []
    sample = learner.replay.sample
    learner.replay.sample = lambda rng, count, gamma, steps, beta, span: (
        betas.append(beta) or sample(rng, count, gamma, steps, beta, span)
    )
    lab.play(learner, game, 5)
    assert betas == sorted(betas) and np.unique(betas) == pytest.approx(0.4 + 0.6 * np.arange(5) / 5)
    weights = learner.replay.tree[np.arange(64 * 16)]
    assert len(np.unique(weights)) > 50


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="steps = 0; it must be a whole number >= 1"):
        DqnConfig(steps=0)
    with pytest.raises(ValueError, match=r"steps = 256; it must be below capacity = 256"):
        DqnConfig(steps=256)
    with pytest.raises(ValueError, match=r"schedule = 'cubic'; it must be one of constant, linear, cosine"):
        DqnConfig(schedule="cubic")


@pytest.mark.parametrize(
    ("shape", "at"), [("constant", [1, 1, 1]), ("linear", [1, 0.55, 0.1]), ("cosine", [1, 0.55, 0.1])]
)
def test_the_rate_follows_its_schedule(lab, shape, at):
    learner = Dqn(lab.Sizes(2, 1, 2), DqnConfig(rate=2.0, schedule=shape), 0)
    got = [learner.set_rate(p, {"optimizer": 0.5}) for p in (0.0, 0.5, 1.0)]
    assert got == pytest.approx(2.0 * np.array(at))
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(got[-1] / 2)
    if shape == "cosine":  # by its own formula, slower at first than the line
        assert learner.set_rate(0.25, {}) == pytest.approx(2 * (0.1 + 0.9 * (1 + np.cos(np.pi / 4)) / 2))


def test_it_learns_to_run_where_decisions_are_many_and_jobs_come_and_go():
    """:class:`toys.Places` against its values by iteration. A return that runs on into the place's next job pays
    nothing for being done; a backup a decision does not see the end of a job in so few updates; by a temperature as of
    decisions a unit long, options whose gaps are a sixtieth of a unit's are drawn nearly evenly, and jobs wait."""
    toy = Places(8, 0)
    best = toy.values(0.9)
    assert (best.argmax(1) == 1).all() and 0.01 < (best[:, 1] - best[:, 0]).min() < 1 / 60
    learner = Dqn(Sizes.of(toy.observe()), DqnConfig(horizon=8, rate=3e-3, batch=256, span=0.2), 0)
    drive(learner, toy, 160)
    assert toy.table(executes(learner)).count(1) >= toy.longest - 2
    every = toy.view(np.arange(1, toy.longest + 1)[:, None])
    said = np.exp(learner.propose(every).log_prior)
    assert (said[..., 0] / said.sum(-1)).max() < 0.1
    q = values_of(learner, every)[:, 0, 1]
    assert np.median(np.abs(q / best[:, 1] - 1)) < 0.15
