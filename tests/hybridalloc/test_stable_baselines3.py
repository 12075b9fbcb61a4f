"""stable-baselines3 as a client of the Gymnasium view, unchanged; skipped where the extra [bench] is not installed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

from stable_baselines3 import A2C, PPO  # noqa: E402
from stable_baselines3.common.env_checker import check_env  # noqa: E402

from hybridalloc.environments import make_env  # noqa: E402


def small(**changes):
    return make_env("mec", view="gymnasium", agents=3, servers=2, **changes)


def test_its_checker_finds_nothing_wrong():
    check_env(small(), warn=True, skip_render_check=True)


@pytest.mark.parametrize("learner", [PPO, A2C])
def test_it_trains_on_the_joint_view_as_it_is(learner):
    env = small()
    model = learner("MlpPolicy", env, n_steps=64, seed=0, device="cpu")
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(256)
    after = list(model.policy.parameters())
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    assert all(np.isfinite(p.detach().numpy()).all() for p in after)
    observation, _ = env.reset(seed=1)
    for _ in range(5):
        action, _ = model.predict(observation)
        observation, reward, _, _, info = env.step(action)
        assert np.isfinite(reward) and env.observation_space.contains(observation)
        assert info["executed"].shape == (3,)


def test_ppo_learns_where_to_send():
    """One device next to one strong server and a long battery life: sending beats keeping, and PPO finds it."""
    setting = {"bursts": False, "load": 1.0, "batteries": False, "device_hz": (3e8, 3e8), "server_hz": (14e9, 14e9)}
    env = make_env("mec", view="gymnasium", agents=1, servers=1, **setting)

    def welfare(choose):
        total, seen = 0.0, env.reset(seed=5)[0]
        for _ in range(199):
            seen, reward, *_ = env.step(choose(seen))
            total += reward / 199
        return total

    keeping, sending = welfare(lambda _: np.array([0])), welfare(lambda _: np.array([1]))
    assert sending > keeping + 0.2
    model = PPO("MlpPolicy", env, n_steps=256, batch_size=64, seed=0, device="cpu", gamma=0.5, learning_rate=1e-3)
    model.learn(2048)
    assert welfare(lambda seen: model.predict(seen, deterministic=True)[0]) > sending - 0.05
