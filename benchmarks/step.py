"""Time of ``Allocator.step`` in one thread: median and 99th percentile, by stage, with and without improving.

    python benchmarks/step.py [--agents 50 --servers 9 --states 1000]

``mec``, set H, fresh states. Methods take turns on each state, so that what else the machine does meets all alike.
Stages are medians and their share of the whole: build (state to arrays, the game), observe, propose, equilibrate (for
the game: its best responses), choose, improve, settle (shares, power, fractions, filter), certify. The reference in
the same run is nashpy's support enumeration of one 3 x 3 game, so that a reader can scale the figures to another
machine. All are read from the thread's own processor time, which is what a machine of one's own would show; with
``--wall`` from the wall clock, and what other processes take counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import nashpy  # noqa: E402
import numpy as np  # noqa: E402

from coordinator import budget as clock  # noqa: E402
from hybridalloc import Allocation, Allocator, make_problem  # noqa: E402
from hybridalloc.problems.mec.problem import Mec  # noqa: E402
from hybridalloc.problems.mec.state import MecState  # noqa: E402

WARM = 10
STAGES = ("build", "observe", "propose", "equilibrate", "choose", "improve", "settle", "certify")


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


def steps(problem: Mec, states: list[MecState]) -> None:
    """Print the table of methods and that of their stages."""
    rng = np.random.default_rng(0)
    bimatrix = nashpy.Game(rng.normal(size=(3, 3)), rng.normal(size=(3, 3)))
    allocators = methods(problem)
    spent: dict[str, list[float]] = {name: [] for name in allocators}
    stages: dict[str, dict[str, list[float]]] = {name: {} for name in allocators}
    feasible, regret, tried = dict.fromkeys(allocators, 0), dict.fromkeys(allocators, 0.0), dict.fromkeys(allocators, 0)
    reference: list[float] = []
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
    count = len(states) - WARM
    print(
        f"{'method':24s} {'median':>8s} {'p99':>8s} {'feasible':>9s} {'regret':>8s} {'tried':>6s} {'nashpy 3x3':>11s}"
    )
    for name, all_ms in spent.items():
        ms = np.array(all_ms)
        ratio = np.median(ms) / np.median(reference)
        print(f"{name:24s} {np.median(ms):8.3f} {np.quantile(ms, 0.99):8.3f} {feasible[name] / count:9.1%} "
              f"{regret[name]:8.4f} {tried[name] / count:6.1f} {ratio:11.2f}")  # fmt: skip
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
    parser.add_argument("--wall", action="store_true")
    given = parser.parse_args()
    clock.now = time.perf_counter if given.wall else time.thread_time
    problem = make_problem("mec", agents=given.agents, servers=given.servers)
    states = [problem.reset(seed) for seed in range(given.states + WARM)]
    print(f"Allocator.step, mec set H, {given.agents} devices x {given.servers} servers, {given.states} states (ms)")
    steps(problem, states)


if __name__ == "__main__":
    main()
