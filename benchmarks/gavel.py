"""Rounds of training jobs on V100, P100 and K80: rules by what they are told, at loads of the sustainable rate.

    python benchmarks/gavel.py --pools 12 12 12 --jobs 300 --seeds 10000 10010 --loads .7 .85 .95

Jobs are Gavel's (hybridalloc/problems/cluster/jobs.py); the load is a part of the rate that a linear program says can
be sustained at most. Completion times and finish-time ratios are those of the middle half of the jobs. A ratio's
denominator is the time on a part of the cluster of one's own, with as many sharers as max-min fairness has on average
at that load: it is the same for every rule. *Oblivious* rules know no durations, *believes* those that are misjudged by
a lognormal factor, *knows* the true ones.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402

from hybridalloc.problems.cluster import shares  # noqa: E402
from hybridalloc.problems.cluster.jobs import Jobs, draw_jobs, sustainable_rate  # noqa: E402
from hybridalloc.problems.cluster.rounds import DOUBTING, TRADING, Run, run_rounds  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402

Rule = tuple[str, str, dict[str, Any]]


def programs(pools: np.ndarray) -> dict[str, Callable[[Any], np.ndarray]]:
    return {
        "max-min (LAS)": lambda t: shares.least_attained(t.speed, t.gang, pools),
        "finish-time fairness": lambda t: shares.finish_time(t.speed, t.gang, pools, t.left, t.age_s, t.own_s),
        "makespan": lambda t: shares.makespan(t.speed, t.gang, pools, t.left),
    }


def rules(pools: np.ndarray, slow: bool) -> list[Rule]:
    given = programs(pools)
    of = lambda name: {"rule": "shares", "shares": given[name]}
    plain = [
        ("oblivious", "FIFO", {"rule": "fifo"}), ("oblivious", "FIFO with backfill", {"rule": "backfill"}),
        ("oblivious", "least attained first", {"rule": "attained"}),
        ("oblivious", "max-min (LAS)", of("max-min (LAS)")),
    ]  # fmt: skip
    programmed = [("knows", name, of(name)) for name in ("finish-time fairness", "makespan")] if slow else []
    told = {"SRTF": {"rule": "srtf"}, "SRTF x GPUs": {"rule": "area"}, "guarded": {"rule": "guard"}}
    known = told | {"market": {"rule": "market", "guard": TRADING}}
    doubted = told | {
        "SRTF x GPUs, doubted": {"rule": "area", "doubt": 1.0},
        "market, doubted": {"rule": "market", "guard": DOUBTING, "doubt": 1.0},
    }  # fmt: skip
    rows = [("knows", name, how) for name, how in known.items()]
    return [*plain, *programmed, *rows, *(("believes", name, how) for name, how in doubted.items())]


def middle(values: np.ndarray) -> np.ndarray:
    return values[len(values) // 4 : len(values) - len(values) // 4]


def figures(run: Run) -> dict[str, float]:
    hours, ratio = middle(run.completion_s) / 3600, middle(run.ratio)
    return {
        "mean h": hours.mean(), "p95 h": np.quantile(hours, 0.95), "worst": ratio.max(), "mean ratio": ratio.mean(),
        "Jain": 1 / (ratio.size * ((ratio / ratio.sum()) ** 2).sum()), "makespan h": run.makespan_s / 3600,
        "used %": 100 * run.used, "starts": run.starts, "ms": run.decision_ms,
    }  # fmt: skip


def sharers(jobs: Jobs, pools: np.ndarray) -> float:
    """Jobs there on average under max-min fairness."""
    return run_rounds(jobs, pools, "shares", shares=programs(pools)["max-min (LAS)"]).active


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pools", type=int, nargs=3, default=(12, 12, 12))
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs=2, default=(10000, 10010))
    parser.add_argument("--loads", type=float, nargs="+", default=(0.7, 0.85, 0.95))
    parser.add_argument("--restart", type=float, default=0.0, help="seconds that a start costs")
    parser.add_argument("--misjudged", type=float, default=1.0, help="of the believed durations, lognormal")
    parser.add_argument("--fast", action="store_true", help="without the programs that take minutes")
    args = parser.parse_args()
    pools = np.array(args.pools)
    for load in args.loads:
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for seed in range(*args.seeds):
            draw = lambda rate, seed=seed: draw_jobs(np.random.default_rng([seed, 3]), args.jobs, rate)
            jobs = draw(load * sustainable_rate(draw(1.0), pools))
            own = jobs.steps / shares.own_part(jobs.speed, jobs.gang, pools, sharers(jobs, pools))
            noise = np.exp(np.random.default_rng([seed, 5]).normal(0, args.misjudged, args.jobs))
            for told, name, how in rules(pools, not args.fast):
                believed = jobs.steps * noise if told == "believes" else None
                run = run_rounds(jobs, pools, own_s=own, believed=believed, restart_s=args.restart, **how)
                found.setdefault((told, name), []).append(figures(run))
        print(
            f"\nload {load:g} of the sustainable rate, {args.jobs} jobs, seeds {args.seeds[0]} to {args.seeds[1] - 1}"
        )
        hours = {key: np.array([row["mean h"] for row in rows]) for key, rows in found.items()}
        for (told, name), rows in found.items():
            line = "  ".join(f"{key} {np.mean([row[key] for row in rows]):7.2f}" for key in rows[0])
            for against in ("oblivious", "max-min (LAS)"), ("knows", "SRTF x GPUs"), ("believes", "SRTF x GPUs"):
                d = paired_difference(100 * (hours[told, name] / hours[against] - 1), np.zeros(len(rows)))
                line += f"  | {against[0][0]} {against[1]} {d.mean:+.1f} % [{d.low:+.1f}, {d.high:+.1f}]"
            print(f"{told:9s} {name:22s} {line}")


if __name__ == "__main__":
    main()
