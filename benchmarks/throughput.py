"""Training speed against stable-baselines3, paired in one run: agent-steps a second, and where the time goes.

    pip install --no-deps stable-baselines3   # or the extra [bench]; without it only our own rows are measured
    python benchmarks/throughput.py

Same problem (mec set H), same number of networks, slots a rollout, epochs and minibatches, one thread each, in turns.
The library's PPO shares its parameters between agents: every device of every network is one of its environments, fed
from the PettingZoo view through a thin VecEnv (SuperSuit's wrappers would only add to its time). Its network is its
own default (two layers of 64 each for policy and value) on an agent's own row of features; ours score every option.
Seconds are the process's CPU time, so that a busy machine does not count; stages of ours are shares of elapsed time.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import make_problem  # noqa: E402
from hybridalloc.environments import make_env  # noqa: E402
from hybridalloc.training.config import TrainConfig  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402

TARGET = 10.0
OURS = (("mappo", "rl"), ("imappo", "rl"), ("mappo", "hybrid"), ("imappo", "hybrid"))


def ours(learner: str, kind: str, a: argparse.Namespace, slots: int) -> tuple[float, dict[str, float]]:
    """Agent-steps a second of ``hybridalloc.training.trainer``, and seconds by stage."""
    problem = make_problem("mec", agents=a.agents, servers=a.servers)
    settings = (("horizon", a.horizon), ("epochs", a.epochs), ("minibatches", a.minibatches))
    steps = slots * a.networks * a.agents
    config = TrainConfig(learner, kind, steps, networks=a.networks, checks=0, settings=settings)
    began = time.process_time()
    trained = train(problem, problem.card.prices(), config)
    return steps / (time.process_time() - began), trained.seconds


def shared_agents(networks: int, agents: int, servers: int) -> Any:
    """A stable-baselines3 VecEnv of networks x agents environments over the PettingZoo view."""
    from stable_baselines3.common.vec_env import VecEnv

    class SharedAgents(VecEnv):
        """Every agent of every network as an environment of its own; a network restarts when its episode is cut."""

        def __init__(self) -> None:
            self.parts = [make_env("mec", view="pettingzoo", agents=agents, servers=servers) for _ in range(networks)]
            self.names = self.parts[0].possible_agents
            self.seconds = 0.0
            self.chosen: Any = None
            one = self.names[0]
            super().__init__(networks * agents, self.parts[0].observation_space(one), self.parts[0].action_space(one))

        def reset(self) -> Any:
            return np.concatenate([list(p.reset(seed=k)[0].values()) for k, p in enumerate(self.parts)])

        def step_async(self, actions: Any) -> None:
            self.chosen = np.asarray(actions).reshape(len(self.parts), -1)

        def step_wait(self) -> Any:
            began = time.process_time()
            seen, reward, done, infos = [], [], [], []
            for part, chosen in zip(self.parts, self.chosen, strict=True):
                obs, paid, _, cut, _ = part.step(dict(zip(self.names, chosen.tolist(), strict=True)))
                ended = cut[self.names[0]]
                extra = (
                    [{"TimeLimit.truncated": True, "terminal_observation": o} for o in obs.values()] if ended else []
                )
                infos += extra or [{} for _ in self.names]
                if ended:
                    obs, _ = part.reset()
                seen += obs.values()
                reward += paid.values()
                done += [ended] * len(self.names)
            out = np.array(seen), np.array(reward, np.float32), np.array(done), infos
            self.seconds += time.process_time() - began
            return out

        def close(self) -> None:
            pass

        def get_attr(self, attr_name: str, indices: Any = None) -> Any:
            return [None] * self.num_envs  # render_mode: none

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            raise NotImplementedError("nothing here can be set")

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
            raise NotImplementedError("nothing here can be called")

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * self.num_envs

    return SharedAgents()


def theirs(a: argparse.Namespace, slots: int) -> tuple[float, dict[str, float]]:
    """Agent-steps a second of stable-baselines3's PPO, and seconds by stage."""
    from stable_baselines3 import PPO

    env = shared_agents(a.networks, a.agents, a.servers)
    size = a.horizon * a.networks * a.agents
    updating = 0.0

    class Timed(PPO):
        def train(self) -> None:
            nonlocal updating
            began = time.process_time()
            super().train()
            updating += time.process_time() - began

    model = Timed(
        "MlpPolicy", env, n_steps=a.horizon, batch_size=size // a.minibatches, n_epochs=a.epochs, gamma=0.9,
        gae_lambda=0.9, device="cpu", seed=0,
    )  # fmt: skip
    rollouts = max(round(slots / a.horizon), 1)
    began = time.process_time()
    model.learn(rollouts * size)
    spent = time.process_time() - began
    stages = {"environment": env.seconds, "update": updating, "policy": spent - env.seconds - updating}
    return rollouts * size / spent, stages


def show(label: str, rates: list[float], stages: dict[str, float], against: float) -> None:
    total = sum(stages.values())
    parts = ", ".join(f"{k} {100 * v / total:.0f} %" for k, v in sorted(stages.items(), key=lambda x: -x[1]))
    rate = float(np.median(rates))
    ratio = f"{rate / against:6.1f} x" if against else ""
    print(f"{label:28s} {rate:12,.0f} {ratio:>9s}   {parts}", flush=True)


def main() -> None:
    """Print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("agents", 50), ("servers", 9), ("networks", 32), ("horizon", 32), ("epochs", 4), ("minibatches", 4),
        ("slots", 128), ("rounds", 3),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.set_num_threads(1)
    try:
        import stable_baselines3
    except ImportError:
        stable_baselines3 = None
        print("stable-baselines3 is not installed: no comparison (pip install --no-deps stable-baselines3)")
    print(
        f"mec set H, {a.agents} devices x {a.servers} servers, {a.networks} networks, {a.horizon} slots a rollout, "
        f"{a.epochs} epochs of {a.minibatches} minibatches, one thread; median of {a.rounds} rounds in turns"
    )
    print(f"{'':28s} {'agent-steps/s':>12s} {'ratio':>9s}   time")
    for learner, kind in OURS:
        ours(learner, kind, a, a.horizon)  # compiles
    rates: dict[Any, list[float]] = {}
    stages: dict[Any, dict[str, float]] = {}
    for _ in range(a.rounds):
        for case in OURS:
            rate, stages[case] = ours(*case, a, a.slots)
            rates.setdefault(case, []).append(rate)
        if stable_baselines3 is not None:
            rate, stages["library"] = theirs(a, a.horizon)
            rates.setdefault("library", []).append(rate)
    against = float(np.median(rates["library"])) if "library" in rates else 0.0
    for case in OURS:
        show(
            f"{case[0]}, {'inside the hybrid' if case[1] == 'hybrid' else 'alone'}", rates[case], stages[case], against
        )
    if against:
        show("stable-baselines3 PPO", rates["library"], stages["library"], against)
        worst = min(float(np.median(rates[case])) for case in OURS) / against
        print(f"slowest of ours against the library: {worst:.1f} x, target {TARGET:.0f} x")


if __name__ == "__main__":
    main()
