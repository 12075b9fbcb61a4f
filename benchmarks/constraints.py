"""Violations over all of training, RL alone: the safety filter, a Lagrange multiplier, a fixed penalty.

    python benchmarks/constraints.py [--agent-steps 300000] [--seeds 2] [--limit 0.05]

``mec`` H with 16 devices and 3 servers. An allocation is violated raw when the learner's own joint choice, executed as
it asks without a filter, would overload at least one server or channel; the filter stands behind all of them in these
runs, so that they meet the same world, and what is executed never violates. The same learner (MAPPO, paid by
difference) is under all rows; only what it is told of its overloads differs. The last line is the share of the training
time that settling (shares, power, fractions and the filter in one) and the certificate's count of violations took.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from coordinator import Coordinator  # noqa: E402
from hybridalloc import make_problem  # noqa: E402
from hybridalloc.problems.mec.world import MecWorld  # noqa: E402
from hybridalloc.training.config import REPORT_SEEDS, TrainConfig  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agent-steps", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--limit", type=float, default=0.05)
    parser.add_argument("--penalties", type=float, nargs="*", default=(1.0, 10.0))
    parser.add_argument("--rows", default="", help="only rows whose name holds this")
    asked = parser.parse_args()
    problem = make_problem("mec", agents=16, servers=3)
    prices = problem.card.prices()
    rows = [("filter alone", "mappo", {}), (f"Lagrangian, at most {asked.limit:g}", "mappo_lagrangian", {
        "cost_limit": asked.limit, "integral": 2.0, "proportional": 5.0,
    })]  # fmt: skip
    rows += [(f"fixed penalty {p:g}", "mappo_penalty", {"penalty": p}) for p in asked.penalties]
    print(f"mec H, 16 x 3, RL alone, {asked.agent_steps:,} agent-steps, {asked.seeds} training seeds: means")
    print(f"{'':28s} {'executed':>9s} {'raw, of all':>12s} {'resources overloaded raw, %':>36s} {'welfare':>9s}")
    print(f"{'':28s} {'':>9s} {'allocations':>12s} {'training':>10s} {'last fifth':>12s} {'trained':>12s}")
    clock, whole = {"settle": 0.0, "excess": 0.0}, 0.0
    for name in clock:
        setattr(MecWorld, name, timed(getattr(MecWorld, name), name, clock))
    filtered = 0.0
    for label, learner, settings in (row for row in rows if asked.rows in row[0]):
        began = time.perf_counter()
        found = []
        for seed in range(asked.seeds):
            config = TrainConfig(
                learner, "rl", asked.agent_steps, networks=8, seed=seed, checks=0,
                settings=(("credit", "difference"), *settings.items()),
            )  # fmt: skip
            before = sum(clock.values())
            run = train(problem, prices, config)
            filtered, whole = filtered + sum(clock.values()) - before, whole + sum(run.seconds.values())
            raw = np.array([row["raw_violation"] for row in run.updates])
            seen = evaluate(problem, prices, Coordinator("rl"), run.learner.policy, REPORT_SEEDS[:20], slots=60)
            figures = {k: float(seen.metrics[k].mean()) for k in ("raw_violation", "welfare")}
            found.append([
                run.violations, 100 * run.overloads / run.allocations, raw.mean(), raw[-max(len(raw) // 5, 1):].mean(),
                figures["raw_violation"], figures["welfare"], getattr(run.learner, "multiplier", np.nan),
            ])  # fmt: skip
        executed, share, mean, late, trained, welfare, multiplier = np.mean(found, axis=0)
        note = "" if np.isnan(multiplier) else f"  multiplier {multiplier:.2f}"
        print(
            f"{label:28s} {executed:9.0f} {share:11.1f}% {mean:10.1f} {late:12.1f} {trained:12.1f} {welfare:9.4f}"
            f"{note}  ({time.perf_counter() - began:.0f} s)",
            flush=True,
        )
    print(f"settling and counting violations: {100 * filtered / whole:.1f} % of the training time")


def timed(method: Callable[..., Any], name: str, clock: dict[str, float]) -> Callable[..., Any]:
    """The method, its time added to ``clock[name]``."""

    def call(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments, **options)
        finally:
            clock[name] += time.perf_counter() - began

    return call


if __name__ == "__main__":
    main()
