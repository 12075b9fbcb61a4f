"""Recommenders trained at 50 x 9, run without training at other sizes, against the game with the same belief.

    python benchmarks/transfer.py runs/mec-20261121-150000-abcd [--method hybrid-imappo] [--seeds 20]

Takes the allocators of every training seed of a stored comparison. Seeds are reporting seeds; both sides see the same
networks, the same prices and the same belief, which goes on learning. The interval is the t-interval over training
and reporting seeds.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from coordinator import Coordinator  # noqa: E402
from hybridalloc import Allocator  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.training.config import REPORT_SEEDS  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402

SIZES = ((10, 3, 1.0), (50, 9, 1.0), (100, 18, 1.0), (1000, 100, 0.1))  # agents, servers, share of the seeds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--method", default="hybrid-imappo")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slots", type=int, default=60)
    given = parser.parse_args()
    paths = sorted(given.comparison.glob(f"{given.method}-seed*/allocator.npz"))
    if not paths:
        raise SystemExit(f"{given.comparison} holds no allocator of {given.method}")
    print(f"{given.method}, {len(paths)} training seeds, {given.slots} slots\n")
    print("| size | welfare | the game's | gain | 95 % t-interval | completion % | the game's | violations |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for agents, servers, share in SIZES:
        seeds = REPORT_SEEDS[: max(2, round(share * given.seeds))]
        rows: dict[str, list[np.ndarray]] = {key: [] for key in ("welfare", "game", "completion", "game completion")}
        violations = 0
        for path in paths:
            a = Allocator.load(path)
            problem = replace(a.problem, agents=agents, servers=servers)
            one = evaluate(
                problem, a.prices, a.coordinator, a.recommender, seeds, slots=given.slots, chunk=10, belief=a.belief
            )
            two = evaluate(
                problem, a.prices, Coordinator("game"), None, seeds, slots=given.slots, chunk=10, belief=a.belief
            )
            violations += one.violations + two.violations
            for head, seen in (("", one), ("game ", two)):
                rows[(head + "welfare").replace("game welfare", "game")].append(seen.metrics["welfare"])
                rows[head + "completion"].append(seen.metrics["completion"])
        d = paired_difference(rows["welfare"], rows["game"])
        low, high = d.conservative or (d.low, d.high)
        mean = {key: float(np.mean(value)) for key, value in rows.items()}
        print(
            f"| {agents} x {servers} | {mean['welfare']:.4f} | {mean['game']:.4f} | {d.mean:+.4f} | "
            f"[{low:+.4f}, {high:+.4f}] | {mean['completion']:.2f} | {mean['game completion']:.2f} | {violations} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
