"""Time of ``Allocator.step`` at 50 x 9, one thread: median and 99th percentile over 1,000 states, and by stage.

    python benchmarks/step.py

Stages are medians and their share of the whole: build (state to arrays, the game), observe, propose, equilibrate
(for the game: its best responses), choose, settle (shares, power, fractions, filter), certify. The reference in
the same run is nashpy's support enumeration of one 3 x 3 game, so that a reader can scale the figures to another
machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nashpy
import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import Allocator, make_problem  # noqa: E402

STATES = 1000


def main() -> None:
    """Print the table."""
    problem = make_problem("mec", agents=50, servers=9)
    states = [problem.reset(seed) for seed in range(STATES)]
    rng = np.random.default_rng(0)
    bimatrix = nashpy.Game(rng.normal(size=(3, 3)), rng.normal(size=(3, 3)))
    print(f"Allocator.step, mec set H, 50 devices x 9 servers, {STATES} states, one thread (ms)")
    print(f"{'method':24s} {'median':>8s} {'p99':>8s} {'feasible':>9s} {'worst regret':>13s} {'of nashpy 3x3':>14s}")
    stages: dict[str, dict[str, float]] = {}
    for label, method, recommender in (
        ("hybrid, IMAPPO network", "hybrid", "imappo"), ("hybrid, flat prior", "hybrid", None),
        ("pure RL, IMAPPO network", "rl", "imappo"), ("game", "game", None), ("nearest", "nearest", None),
    ):  # fmt: skip
        allocator = Allocator(problem, method, recommender)
        for state in states[:20]:
            allocator.step(state)
        spent, reference, feasible, regret = [], [], 0, 0.0
        by_stage: dict[str, list[float]] = {}
        for state in states:
            began = time.perf_counter()
            certificate = allocator.step(state).certificate
            spent.append(time.perf_counter() - began)
            feasible += certificate.feasible
            for stage, ms in certificate.stages.items():
                by_stage.setdefault(stage, []).append(ms)
            if np.isfinite(certificate.epsilon_bound):
                regret = max(regret, certificate.regret)
            if len(reference) < 100:
                began = time.perf_counter()
                list(bimatrix.support_enumeration())
                reference.append(time.perf_counter() - began)
        median, tail = 1e3 * np.median(spent), 1e3 * np.quantile(spent, 0.99)
        ratio = np.median(spent) / np.median(reference)
        shown = f"{regret:13.4f}" if method in ("hybrid", "game") else f"{'':13s}"
        print(f"{label:24s} {median:8.3f} {tail:8.3f} {feasible:9d} {shown} {ratio:14.2f}")
        stages[label] = {stage: float(np.median(ms)) for stage, ms in by_stage.items()}
        stages[label]["whole"] = median
    names = ("build", "observe", "propose", "equilibrate", "choose", "settle", "certify")
    print(f"\nmedian ms by stage (share of the step)\n{'method':24s}" + "".join(f"{name:>15s}" for name in names))
    for label, median in stages.items():
        median["equilibrate"] = median.get("equilibrate", median.get("game", 0.0))
        cells = (f"{median.get(n, 0.0):.3f} ({100 * median.get(n, 0.0) / median['whole']:2.0f} %)" for n in names)
        print(f"{label:24s}" + "".join(f"{cell:>15s}" for cell in cells))


if __name__ == "__main__":
    main()
