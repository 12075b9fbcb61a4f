"""Time of ``Allocator.step`` in one thread: median and 99th percentile, by stage, with and without improving.

    python benchmarks/step.py [--agents 50 --servers 9 --states 1000]
    python benchmarks/step.py --grow 100 1000 10000 --servers 100 --states 3    # growth at as many options, and memory
    python benchmarks/step.py --lists 8 12 16 24 --agents 1000 --servers 100 --states 12    # lists against all

``mec``, set H, fresh states. Methods take turns on each state, so that what else the machine does meets all alike.
Stages are medians and their share of the whole: build (state to arrays, the game), observe, propose, equilibrate (for
the game: its best responses), choose, admit (seats), improve, settle (shares, power, fractions, filter), certify. The
reference in the same run is nashpy's support enumeration of one 3 x 3 game, so that a reader can scale the figures to
another machine; and, where it is installed, stable-baselines3's ``predict`` of its default policy (two layers of 64)
for as many agents, which only proposes. All are read from the thread's own processor time, which is what a machine of
one's own would show; with ``--wall`` from the wall clock, and what other processes take counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import nashpy  # noqa: E402
import numpy as np  # noqa: E402

from coordinator import budget as clock  # noqa: E402
from coordinator.shortlisted import Lists  # noqa: E402
from hybridalloc import Allocation, Allocator, make_problem  # noqa: E402
from hybridalloc.problems.mec.arrays import AGENT_FEATURES, PAIR_FEATURES  # noqa: E402
from hybridalloc.problems.mec.problem import Mec  # noqa: E402
from hybridalloc.problems.mec.state import MecState  # noqa: E402

WARM = 10
STAGES = ("build", "observe", "propose", "equilibrate", "choose", "admit", "improve", "settle", "certify")


def timed(allocator: Allocator, state: MecState) -> tuple[float, Allocation]:
    """ms of one step, and its answer."""
    began = clock.now()
    allocation = allocator.step(state)
    return 1e3 * (clock.now() - began), allocation


def methods(problem: Mec) -> dict[str, Allocator]:
    return {
        "hybrid, IMAPPO network": Allocator(problem, "hybrid", "imappo"),
        "the same, not improved": Allocator(problem, "hybrid", "imappo", improve=False),
        "hybrid, flat prior": Allocator(problem, "hybrid"),
        "the same, not improved ": Allocator(problem, "hybrid", improve=False),
        "game": Allocator(problem, "game"),
        "pure RL, IMAPPO network": Allocator(problem, "rl", "imappo"),
        "nearest": Allocator(problem, "nearest"),
    }


def predictor(problem: Mec) -> Callable[[], object] | None:
    """What stable-baselines3 takes to propose an option for every agent; None where it is not installed."""
    try:
        import gymnasium
        import torch
        from stable_baselines3 import PPO
    except ImportError:
        return None
    torch.set_num_threads(1)
    agents, servers = problem.card.agents, problem.servers
    own = AGENT_FEATURES + PAIR_FEATURES * (1 + servers)

    class Nothing(gymnasium.Env):
        """Spaces alone: an agent's own features and those of its options, and its options."""

        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (own,), np.float32)
        action_space = gymnasium.spaces.Discrete(1 + servers)

    model = PPO("MlpPolicy", Nothing(), device="cpu")
    seen = np.random.default_rng(0).normal(size=(agents, own)).astype(np.float32)
    return lambda: model.predict(seen, deterministic=True)


def grow(sizes: list[int], servers: int, count: int) -> None:
    """Print the step's time by the number of agents, at as many options for each, and the most memory so far."""
    found: list[float] = []
    print(f"hybrid, IMAPPO network, not improved; {servers} servers, {count} states each after one (ms)")
    for agents in sizes:
        problem = make_problem("mec", agents=agents, servers=servers)
        allocator = Allocator(problem, "hybrid", "imappo", improve=False)
        spent = [timed(allocator, problem.reset(seed))[0] for seed in range(1 + count)][1:]
        found.append(float(np.median(spent)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{agents:7,d} agents {found[-1]:10.1f}   peak {peak:.2f} GiB", flush=True)
    if len(sizes) > 1:
        slope = np.polyfit(np.log(sizes), np.log(found), 1)[0]
        print(f"exponent of growth: {slope:.2f}")


def widths(problem: Mec, sizes: list[int], states: list[MecState]) -> None:
    """Print how answers on short lists compare with those over all options, of the game and of the hybrid, with
    IMAPPO's fresh network and with one of large random weights, which prefers strongly."""
    head = f"{'width':>5s} {'listed':>8s} {'same choice':>12s} {'welfare less all':>17s} {'regret':>8s} {'envy':>5s}"
    print(f"{'':24s} {head}")
    for name in ("hybrid", "hybrid, strong", "game"):

        def made(lists: Lists | None, name: str = name) -> Allocator:
            method = name.split(",")[0]
            a = Allocator(problem, method, "imappo" if method == "hybrid" else None, improve=False, lists=lists)
            if "strong" in name:
                weights = a.recommender.weights
                weights["out.weight"][:] = np.random.default_rng(0).normal(size=weights["out.weight"].shape) / 2
            return a

        every = [made(None).step(state) for state in states]
        whole = [problem.evaluate(s, x)["welfare"] for s, x in zip(states, every, strict=True)]
        for width in sizes:
            found = [made(Lists(width, 0)).step(state) for state in states]
            same = sum(bool((x.option == y.option).all()) for x, y in zip(found, every, strict=True))
            gap = [problem.evaluate(s, x)["welfare"] - w for s, x, w in zip(states, found, whole, strict=True)]
            listed = sorted({x.certificate.listed for x in found})
            print(f"{name:24s} {width:5d} {'-'.join(map(str, listed)):>8s} {f'{same} of {len(states)}':>12s} "
                  f"{np.mean(gap):+17.5f} {max(x.certificate.regret for x in found):8.4f} "
                  f"{sum(len(x.certificate.envy) for x in found):5d}", flush=True)  # fmt: skip


def steps(problem: Mec, states: list[MecState]) -> None:
    """Print the table of methods and that of their stages."""
    rng = np.random.default_rng(0)
    bimatrix = nashpy.Game(rng.normal(size=(3, 3)), rng.normal(size=(3, 3)))
    allocators = methods(problem)
    spent: dict[str, list[float]] = {name: [] for name in allocators}
    stages: dict[str, dict[str, list[float]]] = {name: {} for name in allocators}
    feasible, regret, tried = dict.fromkeys(allocators, 0), dict.fromkeys(allocators, 0.0), dict.fromkeys(allocators, 0)
    reference: list[float] = []
    predict, predicted = predictor(problem), []
    for k, state in enumerate(states):
        for name, allocator in allocators.items():
            ms, allocation = timed(allocator, state)
            if k < WARM:
                continue
            spent[name].append(ms)
            certificate = allocation.certificate
            feasible[name] += certificate.feasible
            for stage, part in certificate.stages.items():
                stages[name].setdefault(stage, []).append(part)
            if np.isfinite(certificate.epsilon_bound):
                regret[name] = max(regret[name], certificate.regret)
            if certificate.improvement is not None:
                tried[name] += certificate.improvement.tried
        if k >= WARM and len(reference) < 100:
            began = clock.now()
            list(bimatrix.support_enumeration())
            reference.append(1e3 * (clock.now() - began))
        if k >= WARM and predict is not None:
            began = clock.now()
            predict()
            predicted.append(1e3 * (clock.now() - began))
    count = len(states) - WARM
    print(
        f"{'method':24s} {'median':>8s} {'p99':>8s} {'feasible':>9s} {'regret':>8s} {'tried':>6s} {'nashpy 3x3':>11s}"
    )
    for name, all_ms in spent.items():
        ms = np.array(all_ms)
        ratio = np.median(ms) / np.median(reference)
        print(f"{name:24s} {np.median(ms):8.3f} {np.quantile(ms, 0.99):8.3f} {feasible[name] / count:9.1%} "
              f"{regret[name]:8.4f} {tried[name] / count:6.1f} {ratio:11.2f}")  # fmt: skip
    if predicted:
        ms = np.array(predicted)
        ratio = np.median(ms) / np.median(reference)
        blank = f"{'':9s} {'':8s} {'':6s}"
        print(f"{'SB3 predict, 2 x 64':24s} {np.median(ms):8.3f} {np.quantile(ms, 0.99):8.3f} {blank} {ratio:11.2f}")
    print(f"\nmedian ms by stage (share of the step)\n{'method':24s}" + "".join(f"{stage:>15s}" for stage in STAGES))
    for name, found in stages.items():
        whole = float(np.median(spent[name]))
        if "game" in found:
            found["equilibrate"] = found["game"]
        parts = [float(np.median(found[stage])) if stage in found else 0.0 for stage in STAGES]
        print(f"{name:24s}" + "".join(f"{f'{part:.3f} ({part / whole:3.0%})':>15s}" for part in parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--servers", type=int, default=9)
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument("--grow", type=int, nargs="+")
    parser.add_argument("--lists", type=int, nargs="+")
    parser.add_argument("--wall", action="store_true")
    given = parser.parse_args()
    clock.now = time.perf_counter if given.wall else time.thread_time
    if given.grow:
        return grow(given.grow, given.servers, given.states)
    problem = make_problem("mec", agents=given.agents, servers=given.servers)
    if given.lists:
        return widths(problem, given.lists, [problem.reset(100 + seed) for seed in range(given.states)])
    states = [problem.reset(seed) for seed in range(given.states + WARM)]
    print(f"Allocator.step, mec set H, {given.agents} devices x {given.servers} servers, {given.states} states (ms)")
    steps(problem, states)


if __name__ == "__main__":
    main()
