"""The two views: the projects' own API tests, masks, credit and what is executed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test, parallel_seed_test

from coordinator import Coordinator
from hybridalloc.environments import AgentsEnv, JointEnv, make_env
from hybridalloc.errors import UnknownNameError
from hybridalloc.problems import make_problem
from hybridalloc.problems.beliefs import load_belief, save_belief
from hybridalloc.problems.metrics import Tally
from hybridalloc.training.beliefs import learn_belief
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.rollout import Chosen, Execute, Rollout

SIZES = [{"agents": 4, "servers": 2}, {"agents": 3, "servers": 2, "choose_channel": True}, {"agents": 50, "servers": 9}]
small = {"agents": 6, "servers": 2}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", SIZES)
def test_gymnasium_check_env(size):
    check_env(make_env("mec", **size))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("credit", ["own", "difference", "team"])
@pytest.mark.parametrize("size", SIZES)
def test_pettingzoo_parallel_api_test(size, credit, capsys):
    settings = size if credit == "difference" else size | {"episode": 20}
    env = make_env("mec", view="pettingzoo", credit=credit, **settings)
    parallel_api_test(env, num_cycles=1000)
    assert env.agents == []  # it ran to the truncation
    assert "Passed" in capsys.readouterr().out


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", SIZES)
def test_pettingzoo_parallel_seed_test(size):
    parallel_seed_test(lambda: make_env("mec", view="pettingzoo", **size), num_cycles=2)


def test_importing_hybridalloc_loads_neither_view_nor_torch():
    code = (
        "import sys, hybridalloc; "
        "print(sorted({'gymnasium', 'pettingzoo', 'torch', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_without_the_extra_the_error_says_what_to_install():
    code = "import sys; sys.modules['pettingzoo'] = None; import hybridalloc; hybridalloc.make_env"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "make_env needs pettingzoo: pip install 'hybridalloc[envs]'" in found.stderr


def test_spaces_and_their_sizes():
    env = make_env("mec", agents=5, servers=3, choose_channel=True)
    assert isinstance(env, JointEnv)
    assert env.action_space.nvec.tolist() == [10] * 5  # out, and 3 servers of 3 channels
    seen, info = env.reset(seed=1)
    assert seen.dtype == np.float32
    assert np.isfinite(env.observation_space.low).all() and np.isfinite(env.observation_space.high).all()
    assert len(info["action_mask"]) == 5
    zoo = make_env("mec", view="pettingzoo", agents=5, servers=3, choose_channel=True)
    assert isinstance(zoo, AgentsEnv)
    assert zoo.possible_agents == [f"device_{i}" for i in range(5)]
    seen, _ = zoo.reset(seed=1)
    assert zoo.action_space("device_0").n == 10
    assert all(zoo.observation_space(a).contains(x) for a, x in seen.items())
    assert zoo.state_space.contains(zoo.state())


def test_takes_a_problem_object():
    problem = make_problem("mec", **small)
    one, other = make_env(problem), make_env("mec", **small)
    assert np.array_equal(one.reset(seed=7)[0], other.reset(seed=7)[0])
    with pytest.raises(ValueError, match="agents: settings go with a problem's name, not with a problem object"):
        make_env(problem, agents=3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"view": "gymnasum"}, UnknownNameError, "unknown view 'gymnasum'; did you mean 'gymnasium'"),
        ({"view": "pettingzoo", "credit": "diference"}, UnknownNameError, "did you mean 'difference'"),
        ({"credit": "own"}, ValueError, "credit is of the pettingzoo view"),
        ({"agents": 0}, ValueError, "agents = 0; an environment needs at least 1 agent"),
        ({"servrs": 2}, UnknownNameError, "unknown setting of mec 'servrs'; did you mean 'servers'"),
        ({"problem": "mecc"}, UnknownNameError, "unknown problem 'mecc'; did you mean 'mec'"),
    ],
)
def test_mistakes_are_named(arguments, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        make_env(**arguments)


def test_actions_outside_the_space_are_refused():
    env = make_env("mec", **small)
    with pytest.raises(ValueError, match="call reset first"):
        env.step(np.zeros(6, int))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="it must be 6 whole numbers, each 0 to 2"):
        env.step(np.full(6, 3))
    with pytest.raises(ValueError, match="it must be 6 whole numbers"):
        env.step(np.zeros(5, int))
    zoo = make_env("mec", view="pettingzoo", **small)
    zoo.reset(seed=0)
    actions = dict.fromkeys(zoo.agents, 0)
    with pytest.raises(ValueError, match="device_2 has action 3; it must be a whole number from 0 to 2"):
        zoo.step(actions | {"device_2": 3})
    del actions["device_4"]
    with pytest.raises(ValueError, match="device_4 has no action; every agent acts in every decision"):
        zoo.step(actions)


def test_truncates_at_the_scenarios_episode_and_then_stops():
    env = make_env("mec", episode=7, **small)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(7)]
    assert ends == [(False, False)] * 6 + [(False, True)]
    with pytest.raises(ValueError, match="call reset first"):
        env.step(env.action_space.sample())
    zoo = make_env("mec", view="pettingzoo", episode=7, **small)
    zoo.reset(seed=0)
    for _ in range(7):
        *_, truncated, _ = zoo.step(dict.fromkeys(zoo.agents, 0))
    assert all(truncated.values())
    with pytest.raises(ValueError, match="call reset first"):
        zoo.step({})


def test_masked_choices_become_option_0_and_nothing_infeasible_is_executed(monkeypatch):
    from hybridalloc.problems.mec.world import MecWorld

    executed = []
    original = MecWorld.execute

    def watched(self, plan):
        executed.append(float(self.excess(plan).max()))
        return original(self, plan)

    monkeypatch.setattr(MecWorld, "execute", watched)
    env = make_env("mec", agents=30, servers=3)
    env.action_space.seed(3)
    _, info = env.reset(seed=3)
    env.network.world.world.reachable[0, :, 1] = False  # nobody reaches server 1
    env.network.seen = env.network.world.observe()
    masked = 0
    for _ in range(40):
        mask = np.array(tuple(env.network.mask()))
        assert not mask[:, 2].any()
        action = env.action_space.sample()
        *_, info = env.step(action)
        refused = mask[np.arange(30), action] == 0
        masked += int(refused.sum())
        assert (info["executed"][refused] == 0).all()
        assert (info["executed"][~refused] == action[~refused]).all()
    assert masked > 100
    assert len(executed) == 40
    assert max(executed) <= 1e-9


def test_masks_sample_only_what_is_allowed_in_both_views():
    env = make_env("mec", agents=20, servers=3)
    _, info = env.reset(seed=1)
    idle = ~env.network.seen.live[0]
    assert idle.any()
    for _ in range(30):
        action = env.action_space.sample(mask=info["action_mask"])
        assert (action[idle] == 0).all()
    assert env.action_masks().shape == (20 * 4,)
    assert np.array_equal(env.action_masks(), np.concatenate(info["action_mask"]).astype(bool))
    zoo = make_env("mec", view="pettingzoo", agents=20, servers=3)
    _, infos = zoo.reset(seed=1)
    for i, agent in enumerate(zoo.agents):
        action = zoo.action_space(agent).sample(infos[agent]["action_mask"])
        assert infos[agent]["action_mask"].dtype == np.int8
        assert infos[agent]["action_mask"][action] == 1
        assert (infos[agent]["action_mask"].sum() == 1) == (not zoo.network.seen.live[0, i])


def test_rewards_and_metrics_are_the_problems_own():
    """Both views against the world driven by hand on the same seed and choices."""
    problem = make_problem("mec", agents=12, servers=3)
    prices = problem.card.prices(toll=0.5, energy=0.1)
    views = {c: make_env(problem, view="pettingzoo", credit=c, prices=prices) for c in ("own", "difference", "team")}
    for v in views.values():
        v.reset(seed=5)
    joint = make_env(problem, prices=prices)
    seed = int(np.random.default_rng(5).integers(2**31))
    joint.reset(seed=5)
    world = problem.worlds([seed])
    joint.network.start(seed)
    rng = np.random.default_rng(0)
    charged = 0.0
    for _ in range(25):
        action = rng.integers(0, 4, 12)
        tally = Tally(problem.card.metrics, 1)
        out = world.execute(world.settle(action[None], prices))
        tally.add(out.counts, out.elapsed_s)
        welfare = tally.summary()["welfare"][0]
        world.drift()
        got = {c: v.step(dict(enumerate_names(action))) for c, v in views.items()}
        _, reward, _, _, info = joint.step(action)
        assert reward == pytest.approx(welfare, abs=1e-12)
        assert info["metrics"]["welfare"] == pytest.approx(welfare, abs=1e-12)
        assert info["metrics"]["raw_violation"] >= 0 and info["elapsed"] == 1.0  # slots are of one length
        assert list(got["own"][1].values()) == out.reward[0].tolist()
        assert list(got["team"][1].values()) == pytest.approx([welfare] * 12)
        wanted = out.reward[0] + out.lost[0] + out.carried[0].sum(axis=-1)
        assert list(got["difference"][1].values()) == pytest.approx(wanted.tolist())
        charged += float((out.reward[0] - wanted).sum())
    assert charged > 0.1  # the three do differ


def enumerate_names(action):
    return ((f"device_{i}", int(a)) for i, a in enumerate(action))


def test_reset_without_a_seed_goes_on_from_the_stream():
    env = make_env("mec", **small)
    first, _ = env.reset(seed=4)
    second, _ = env.reset()
    assert not np.array_equal(first, second)
    again, _ = env.reset(seed=4)
    assert np.array_equal(first, again)
    assert np.array_equal(second, env.reset()[0])
    zoo = make_env("mec", view="pettingzoo", **small)
    a, _ = zoo.reset(seed=4)
    b, _ = zoo.reset()
    c, _ = zoo.reset(seed=4)
    assert np.array_equal(a["device_0"], c["device_0"])
    assert not np.array_equal(a["device_0"], b["device_0"])


def test_each_devices_view_holds_its_own_rows():
    zoo = make_env("mec", view="pettingzoo", **small)
    seen, _ = zoo.reset(seed=2)
    batch = zoo.network.seen
    for i, agent in enumerate(zoo.agents):
        wanted = np.concatenate([batch.agent[0, i], batch.resource[0].ravel(), batch.pair[0, i].ravel()])
        assert np.allclose(seen[agent], np.clip(wanted, -20, 20))


# --- what a belief shows


BELIEVED = {"agents": 8, "servers": 3}


def watched_belief(name="learned"):
    """A belief that has seen a few decisions of the game."""
    problem = make_problem("mec", **BELIEVED)
    config = TrainConfig(belief=name, belief_steps=20 * 4 * 8, networks=4)
    return problem, learn_belief(problem, problem.card.prices(), config)[0]


def test_an_outside_learner_sees_what_the_belief_rows_of_a_comparison_see(tmp_path):
    """Step by step the features of a rollout under the same belief; not those of the reports at their face value."""
    problem, belief = watched_belief()
    prices = problem.card.prices()
    belief = load_belief(problem, save_belief(tmp_path / "b.npz", belief))
    env, plain = make_env(problem, belief=belief.copy()), make_env(problem)
    seed = int(np.random.default_rng(3).integers(2**31))
    env.network.start(seed), plain.network.start(seed)
    env._running = plain._running = True
    run = Rollout(problem, [seed], belief.copy())
    told = Rollout(problem, [seed])
    decide = Execute(Coordinator("game"), None, prices)
    differs = 0
    for _ in range(20):
        for name, mine, theirs in zip(run.observation._fields, env.network.seen, run.observation, strict=True):
            np.testing.assert_array_equal(mine, theirs, name)
        np.testing.assert_array_equal(plain.network.seen.pair, told.observation.pair)
        differs += int(not np.array_equal(env.network.seen.pair, plain.network.seen.pair))
        option = run.step(decide, prices).chosen.option
        seen, *_ = env.step(option[0])
        assert env.observation_space.contains(seen)
        plain.step(option[0])
        told.step(lambda _, option=option: Chosen(option, told.world.settle(option, prices)), prices)
    assert differs == 20


@pytest.mark.parametrize("view", ["gymnasium", "pettingzoo"])
@pytest.mark.parametrize("name", ["learned", "bayesian"])
def test_a_belief_goes_by_its_name_and_learns_as_the_views_are_stepped(view, name):
    env = make_env("mec", view=view, belief=name, **BELIEVED)
    other = make_env("mec", view=view, **BELIEVED)
    assert env.network.belief.name == name and other.network.belief is None
    env.reset(seed=2), other.reset(seed=2)
    before = json.dumps(env.network.belief.state_dict(), default=lambda x: np.asarray(x).tolist())
    for _ in range(5):
        for one in (env, other):
            one.step(np.ones(8, int) if view == "gymnasium" else dict.fromkeys(one.agents, 1))
    assert not np.array_equal(env.network.joint(), other.network.joint())
    after = json.dumps(env.network.belief.state_dict(), default=lambda x: np.asarray(x).tolist())
    assert (before != after) == env.network.belief.learns


def test_the_rewards_are_the_worlds_own_whatever_is_believed():
    """A belief changes what is seen, and shares where they are settled by it; never the randomness."""
    problem, belief = watched_belief("bayesian")
    one, other = make_env(problem, belief=belief), make_env(problem)
    one.reset(seed=5), other.reset(seed=5)
    for _ in range(10):
        (_, mine, *_), (_, theirs, *_) = one.step(np.zeros(8, int)), other.step(np.zeros(8, int))
        assert mine == theirs  # everyone computes at home: there is nothing to believe in
        np.testing.assert_array_equal(one.network.seen.live, other.network.seen.live)


def test_a_belief_that_the_problem_has_not_is_refused():
    with pytest.raises(UnknownNameError, match="unknown belief of mec 'lerned'; did you mean 'learned'"):
        make_env("mec", belief="lerned", **BELIEVED)
    with pytest.raises(UnknownNameError, match="unknown belief of custom 'learned'"):
        make_env("custom", transition="farm", belief="learned")


class Tide:
    """A world whose agents come and go by the seed and from step to step, down to none."""

    counts = (3, 1, 0, 2)

    def state(self, step, count):
        return {
            "work": [[1.0 + i, 2.0] for i in range(count)], "capacity": [4.0, 3.0], "deadline_s": [2.0] * count,
            "features": [[0.5]] * count, "hidden": {"step": step},
        }  # fmt: skip

    def reset(self, seed):
        return self.state(0, 3 if seed == 0 else 2)

    def advance(self, state, allocation, rng):
        step = state.hidden["step"] + 1
        return self.state(step, self.counts[step % len(self.counts)])

    def reward(self, state, allocation):
        return [1.0] * state.agents


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("credit", ["own", "difference", "team"])
def test_agents_whom_the_world_lacks_have_option_0_and_no_reward(credit):
    env = make_env("custom", view="pettingzoo", transition=Tide(), credit=credit, episode=9, most_jobs=3)
    seen, infos = env.reset(seed=4)
    assert list(seen) == env.possible_agents == ["device_0", "device_1", "device_2"]
    assert infos["device_2"]["action_mask"].tolist() == [1, 0, 0]
    assert infos["device_0"]["action_mask"].all()
    there = 2
    for step in range(1, 9):
        assert env.state().shape == env.state_space.shape
        seen, reward, _, _, infos = env.step(dict.fromkeys(env.agents, 1))
        assert len(seen) == len(reward) == len(infos) == 3
        assert all(env.observation_space(a).contains(x) for a, x in seen.items())
        assert [infos[a]["executed"] for a in seen] == [1] * there + [0] * (3 - there)
        if credit != "team":
            assert [reward[a] for a in seen][there:] == [0.0] * (3 - there)
        if credit != "difference":
            each = 1.0 if credit == "own" else there / 3
            assert [reward[a] for a in seen][:there] == [each] * there
        assert ("completion" in infos["device_0"]["metrics"]) == (there > 0)
        there = Tide.counts[step % 4]
        assert [infos[a]["action_mask"].tolist() == [1, 0, 0] for a in seen] == [False] * there + [True] * (3 - there)


@pytest.mark.filterwarnings("error")
def test_the_joint_view_keeps_its_spaces_when_agents_come_and_go():
    env = make_env("custom", transition=Tide(), episode=9, most_jobs=3)
    seen, info = env.reset(seed=4)
    for _ in range(8):
        assert env.observation_space.contains(seen) and len(info["action_mask"]) == 3
        seen, reward, _, _, info = env.step(env.action_space.sample(info["action_mask"]))
        assert 0.0 <= reward <= 1.0


def test_of_more_agents_than_the_spaces_hold_the_lowest_priorities_sit_out():
    class Flood(Tide):
        counts = (3, 5)

    env = make_env("custom", view="pettingzoo", transition=Flood(), most_jobs=3)
    env.reset(seed=1)
    with pytest.warns(RuntimeWarning, match="5 jobs are there and this problem was made for 3"):
        seen = env.step(dict.fromkeys(env.agents, 0))[0]
    assert len(seen) == 3
