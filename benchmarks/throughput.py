"""Training speed beside public libraries, and what is learned in it; paired in one run, in turns.

    python benchmarks/throughput.py                                    # speed, by stage; --device cuda: on a GPU too
    python benchmarks/throughput.py learning --against ../checkout     # learning curves, two versions of hybridalloc
    python -m pip install --no-deps stable-baselines3; python -m pip install benchmarl "torch<2.14"   # for their rows

**Speed**: one problem (mec, set H), 32 networks and 32 slots a rollout for us and for stable-baselines3; agent-steps
a second of elapsed time, the median of ``--rounds`` turns. Every turn measures all rows, and ratios are between rows
of a turn, so that what else the machine does meets all alike. "two cores" collects the next rollout (of 8 slots) while
another process learns from the last, each bound to a core; stable-baselines3 has two threads, or one, and the faster
counts.
Its PPO shares its parameters between agents: every device of every network is one of its environments, fed from the
PettingZoo view through a thin VecEnv (SuperSuit's wrappers would only add to its time); it learns in as many passes
over a rollout as ours ("1 pass of 8 parts"), in 4 of 4, and at its own default of 10 with batches of 64. Its network
is its own default (two layers of 64 each for policy and value) on an agent's own row of features; ours score every
option. BenchMARL's MAPPO has the view of one network, its own defaults but for the batch (``--frames`` slots).

Stages are shares of elapsed time; where a rollout is collected beside the update, the update's share is what was waited
for it. The ceiling is what would be left without any update.

**Learning**: IMAPPO in the hybrid with a learned belief at EUA's sites, the belief game's tuned prices, either
version's settings. The welfare at the end above that of the game with the same belief, on 48 tuning seeds that no check
has seen; and seconds of training until the checks' mean (16 other tuning seeds) is above by .002, without the time of
checks and of what the belief watches first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
import numpy as np

HERE = Path(__file__).resolve().parents[1]
sys.path[0] = os.environ.get("HYBRIDALLOC_TREE", str(HERE))  # benchmarks/games.py would hide the package games

from hybridalloc import make_problem  # noqa: E402
from hybridalloc.environments import make_env  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.training.config import TrainConfig  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402

CALL = "import json, runpy, sys; f = runpy.run_path(sys.argv[1])['run']; print(json.dumps(f(*json.loads(sys.argv[2]))))"
TUNED = {
    "toll": 2.13,
    "delay": 0.0445,
    "energy": 0.053,
    "risk": 1.433,
    "backlog": 0.25,
    "migration": 0.0415,
    "margin": 0.83,
    "caution": 0.584,
}  # of the belief game, on tuning seeds: docs/results.md
NETWORKS, HORIZON, ABOVE, UNSEEN = 32, 32, 0.002, 48
Rate = tuple[float, dict[str, float]]  # agent-steps a second, and seconds by stage


def ours(a: argparse.Namespace, **config: Any) -> Rate:
    """Of ``hybridalloc.training.trainer``, from the first update to the last."""
    problem = make_problem("mec", agents=a.agents, servers=a.servers)
    rollout = HORIZON * NETWORKS * a.agents
    told: list[tuple[int, float]] = []
    steps = a.rollouts * rollout
    every = os.sched_getaffinity(0)

    def tell(steps: int, _: Any) -> None:
        told.append((steps, time.perf_counter()))
        for process in multiprocessing.active_children() if len(every) > 1 else ():  # a core for each of the two
            os.sched_setaffinity(process.pid or 0, {max(every)})
            os.sched_setaffinity(0, {min(every)})

    given = TrainConfig("imappo", "hybrid", steps, networks=NETWORKS, checks=0, belief_steps=rollout // 4)
    try:
        trained = train(problem, problem.card.prices(), replace(given, **config), tell)
    finally:
        os.sched_setaffinity(0, every)
    (first, began), (last, ended) = told[0], told[-1]
    return (last - first) / (ended - began), trained.seconds


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
            began = time.perf_counter()
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
            self.seconds += time.perf_counter() - began
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


def sb3(a: argparse.Namespace, epochs: int, batch: int, threads: int) -> Rate:
    """Of stable-baselines3's PPO, from the first rollout on."""
    import torch
    from stable_baselines3 import PPO

    env = shared_agents(NETWORKS, a.agents, a.servers)
    updating = 0.0

    class Timed(PPO):
        def train(self) -> None:
            nonlocal updating
            began = time.perf_counter()
            super().train()
            updating += time.perf_counter() - began

    torch.set_num_threads(threads)
    size = HORIZON * NETWORKS * a.agents
    model = Timed(
        "MlpPolicy", env, n_steps=HORIZON, batch_size=batch or size // 8, n_epochs=epochs, gamma=0.9, gae_lambda=0.9,
        device="cpu", seed=0,
    )  # fmt: skip
    began = time.perf_counter()
    model.learn(size)
    spent = time.perf_counter() - began
    torch.set_num_threads(1)
    return size / spent, {"environment": env.seconds, "update": updating, "policy": spent - env.seconds - updating}


def benchmarl(a: argparse.Namespace) -> Rate:
    """Of BenchMARL's MAPPO over one network's PettingZoo view."""
    import tempfile

    import torch
    from benchmarl.algorithms import MappoConfig
    from benchmarl.environments import PettingZooTask
    from benchmarl.experiment import Experiment, ExperimentConfig
    from benchmarl.models.mlp import MlpConfig
    from torchrl.envs import PettingZooWrapper

    base = PettingZooTask.SIMPLE_SPREAD.get_from_yaml()

    class View(type(base)):  # type: ignore[misc]
        def get_env_fun(self, num_envs: int, continuous_actions: bool, seed: Any, device: Any) -> Any:
            def make() -> Any:
                view = make_env("mec", view="pettingzoo", agents=a.agents, servers=a.servers)
                group = {"agents": list(view.possible_agents)}  # their names' stem, "device", has another meaning there
                return PettingZooWrapper(view, categorical_actions=True, device=device, seed=seed, group_map=group)

            return make

        def __reduce__(self) -> Any:  # BenchMARL pickles its task, which nobody reads here
            return str, ("mec",)

        def supports_continuous_actions(self) -> bool:
            return False

        def supports_discrete_actions(self) -> bool:
            return True

        def has_state(self) -> bool:
            return False

        def has_render(self, env: Any) -> bool:
            return False

        def max_steps(self, env: Any) -> int:
            return 100

    torch.set_num_threads(1)
    config = ExperimentConfig.get_from_yaml()
    config.on_policy_collected_frames_per_batch, config.max_n_frames = a.frames, 2 * a.frames
    config.on_policy_n_envs_per_worker, config.evaluation, config.render = 1, False, False
    config.loggers, config.create_json, config.checkpoint_interval = [], False, 0
    config.sampling_device = config.train_device = config.buffer_device = "cpu"
    config.save_folder = tempfile.mkdtemp()
    experiment = Experiment(
        task=View("hybridalloc", {}), algorithm_config=MappoConfig.get_from_yaml(),
        model_config=MlpConfig.get_from_yaml(), critic_model_config=MlpConfig.get_from_yaml(), seed=0, config=config,
    )  # fmt: skip
    began = time.perf_counter()
    experiment.run()
    return 2 * a.frames * a.agents / (time.perf_counter() - began), {}


def peers(a: argparse.Namespace) -> dict[str, Any]:
    """Rows of the libraries that are installed."""
    rows: dict[str, Any] = {}
    size = HORIZON * NETWORKS * a.agents
    try:
        import stable_baselines3  # noqa: F401

        for label, epochs, batch in (
            ("1 pass of 8 parts", 1, 0), ("4 passes of 4 parts", 4, size // 4), ("its default, 10 of 64", 10, 64),
        ):  # fmt: skip
            if batch != 64 or a.defaults:
                rows |= {
                    f"stable-baselines3 PPO, {label}, {threads} thread(s)": partial(sb3, a, epochs, batch, threads)
                    for threads in (1, 2)
                }
    except ImportError:
        print("stable-baselines3 is not installed: no rows of it (pip install --no-deps stable-baselines3)")
    try:
        import benchmarl as _  # noqa: F401

        rows["BenchMARL MAPPO"] = partial(benchmarl, a)
    except ImportError:
        print('BenchMARL is not installed: no row of it (pip install benchmarl "torch<2.14")')
    return rows


def speed(a: argparse.Namespace) -> None:
    """Print the table of speeds."""
    mine = {
        "hybrid IMAPPO, two cores": partial(ours, a, overlap=True),
        "hybrid IMAPPO, one core": partial(ours, a),
        "the same in torch, one core": partial(ours, a, settings=(("engine", "torch"),)),
        "with a learned belief, two cores": partial(ours, a, belief="learned", overlap=True),
        "with a learned belief, one core": partial(ours, a, belief="learned"),
        "IMAPPO alone, one core": partial(ours, a, kind="rl"),
    }
    if a.device:
        graph = ("network", "graph")
        mine |= {
            f"IMAPPO in torch, gradients on {a.device}": partial(ours, a, settings=(("device", a.device),)),
            "IMAPPO with the graph network": partial(ours, a, settings=(graph,)),
            f"the same, gradients on {a.device}": partial(ours, a, settings=(graph, ("device", a.device))),
            f"IMAPPO alone, gradients on {a.device}": partial(ours, a, kind="rl", settings=(("device", a.device),)),
        }
    others = peers(a)
    for row in mine.values():
        row()  # compiles
    rates: dict[str, list[float]] = {name: [] for name in (*mine, *others)}
    stages: dict[str, dict[str, float]] = {}
    for _ in range(a.rounds):
        for name, row in (mine | others).items():
            rate, stages[name] = row()
            rates[name].append(rate)
    print(
        f"mec set H, {a.agents} devices x {a.servers} servers, {NETWORKS} networks, {HORIZON} slots a rollout; "
        f"median of {a.rounds} turns\n"
    )
    print("| | agent-steps/s | time |\n|---|---:|---|")
    for name, found in rates.items():
        total = sum(stages[name].values())
        parts = ", ".join(f"{k} {100 * v / total:.0f} %" for k, v in sorted(stages[name].items(), key=lambda x: -x[1]))
        print(f"| {name} | {np.median(found):,.0f} | {parts} |", flush=True)
    one = stages["hybrid IMAPPO, one core"]
    ceiling = np.median(rates["hybrid IMAPPO, one core"]) * sum(one.values()) / (sum(one.values()) - one["update"])
    print(f"| the ceiling: roll-outs of the hybrid without update, one core | {ceiling:,.0f} | |")
    ratio = lambda x, y: np.median(np.array(rates[x]) / np.array(rates[y]))
    print()
    for label in sorted({name.rsplit(",", 1)[0] for name in others if name.startswith("stable")}):
        both = [name for name in others if name.startswith(label)]
        best = max(both, key=lambda name: np.median(rates[name]))
        for name in ("hybrid IMAPPO, two cores", "with a learned belief, two cores", "hybrid IMAPPO, one core"):
            print(f"{name}: {ratio(name, best):.1f} x {best}")
    if "BenchMARL MAPPO" in others:
        print(f"hybrid IMAPPO, two cores: {ratio('hybrid IMAPPO, two cores', 'BenchMARL MAPPO'):.0f} x BenchMARL MAPPO")


def run(steps: int, seed: int, overlap: bool, checks: int = 20, sites: str = "eua") -> dict[str, Any]:
    """One training run of whatever version is imported: gains over the game at the checks and at the end, seconds."""
    from coordinator import Coordinator
    from hybridalloc.training.config import TUNE_SEEDS, first_trust
    from hybridalloc.training.evaluation import evaluate

    problem = make_problem("mec", agents=50, servers=9, sites=sites)
    prices, extra = problem.card.prices(**TUNED), {"overlap": True} if overlap else {}
    config = TrainConfig(
        "imappo", "hybrid", steps, seed=seed, checks=checks, trust=first_trust(problem.card, "learned"),
        belief="learned", **extra,
    )  # fmt: skip
    trained = train(problem, prices, config)

    def earns(kind: str, policy: Any, seeds: Any) -> float:
        trust, knows = config.trust if kind == "hybrid" else 0.0, trained.belief.copy(learning=False)
        method = Coordinator(kind, trust)
        seen = evaluate(problem, prices, method, policy, seeds, slots=config.check_slots, belief=knows)
        return float(seen.means()["welfare"])

    checked, unseen = TUNE_SEEDS[: config.check_seeds], TUNE_SEEDS[config.check_seeds : config.check_seeds + UNSEEN]
    game, key = earns("game", None, checked), next(k for k in trained.curve[0] if k.endswith("welfare"))
    end = earns("hybrid", trained.learner.policy, unseen) - earns("game", None, unseen)
    return {"steps": [row["agent_steps"] for row in trained.curve], "gain": [row[key] - game for row in trained.curve],
            "seconds": sum(trained.seconds.values()), "end": end}  # fmt: skip


def elsewhere(tree: Path, steps: int, seed: int, overlap: bool) -> dict[str, Any]:
    """:func:`run` by the version in ``tree``, in a process of its own."""
    words = [sys.executable, "-c", CALL, __file__, json.dumps([steps, seed, overlap])]
    answer = subprocess.run(words, env=os.environ | {"HYBRIDALLOC_TREE": str(tree)}, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(answer.stderr[-2000:])
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def reached(found: list[dict[str, Any]]) -> float:
    """Seconds until the mean curve is above the game by ``ABOVE``, between two checks by a line; nan where never."""
    above = np.mean([f["gain"] for f in found], 0) - ABOVE
    at = np.mean([np.array(f["steps"]) * f["seconds"] / f["steps"][-1] for f in found], 0)
    over = np.flatnonzero(above >= 0)
    if not len(over):
        return float("nan")
    k = over[0]
    return float(at[k] if k == 0 else np.interp(0.0, above[k - 1 : k + 1], at[k - 1 : k + 1]))


def learning(a: argparse.Namespace) -> None:
    """Print what either version learns, and in what time."""
    versions = {"this version, two cores": (HERE, True), "this version, one core": (HERE, False)}
    versions |= {f"version in {a.against}": (a.against, False)} if a.against else {}
    for steps in a.steps:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
        for seed in range(a.seeds):
            for name, (tree, overlap) in versions.items():
                found[name].append(elsewhere(tree, steps, seed, overlap))
        print(f"\n{steps:,} agent-steps, {a.seeds} training seeds\n")
        print(f"| | above the game at the end | seconds | until {ABOVE:+.3f} |\n|---|---|---:|---:|")
        for name, runs in found.items():
            ends = np.array([f["end"] for f in runs])
            seconds = np.mean([f["seconds"] for f in runs])
            each = ", ".join(f"{x:+.4f}" for x in ends)
            print(f"| {name} | {ends.mean():+.4f} ({each}) | {seconds:.1f} | {reached(runs):.1f} |")
        last = list(found)[-1]
        for name in list(found)[:-1]:
            gains = [[[f["end"]] for f in found[which]] for which in (name, last)]
            d = paired_difference(*gains)
            low, high = d.conservative or (d.low, d.high)
            sooner = np.divide(reached(found[last]), reached(found[name]))
            print(f"{name} less {last}: {d.mean:+.4f} [{low:+.4f}, {high:+.4f}]; {sooner:.1f} x sooner")


def main() -> None:
    """Print the tables asked for."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=("speed", "learning"), default="speed")
    for name, value in (("agents", 50), ("servers", 9), ("rollouts", 6), ("rounds", 5), ("frames", 200), ("seeds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--defaults", action="store_true", help="stable-baselines3 also at its own 10 passes")
    parser.add_argument("--steps", type=int, nargs="+", default=[400_000, 2_000_000])
    parser.add_argument("--device", help="rows in which torch's gradients are computed there, such as cuda")
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    a = parser.parse_args()
    torch.set_num_threads(1)
    {"speed": speed, "learning": learning}[a.table](a)


if __name__ == "__main__":
    main()
