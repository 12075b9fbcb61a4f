"""Jobs that queue for a cluster, round by round through the contract: seed 001's table, its frontier, and Gavel's jobs.

    python benchmarks/cluster_queue.py seed001 --hours 100 --load .9 --seeds 10000 10003
    python benchmarks/cluster_queue.py frontier --hours 20 --loads .6 .7 .8 .9 1 1.1
    python benchmarks/cluster_queue.py gavel --jobs 300 --loads .7 .85 .95 --misjudged 1 --seeds 10000 10005
    python benchmarks/cluster_queue.py makespan --jobs 100 --misjudged 1 --seeds 10000 10005
    python benchmarks/cluster_queue.py time

All methods run on the same jobs; differences are paired, with 95 % intervals. Prices are tuned on seeds of their own
(``--tuning`` candidates of a random search), never on those that are reported. *told* says what a method knows of
durations: nothing, or what users said with a lognormal error of spread ``--misjudged`` (0: the truth).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402

from coordinator import Coordinator  # noqa: E402
from hybridalloc import Allocator, make_problem  # noqa: E402
from hybridalloc.problems.cluster.shares import max_min  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.training.evaluation import Evaluation, evaluate  # noqa: E402
from hybridalloc.training.tuning import tune_prices  # noqa: E402

OBLIVIOUS = ("fifo", "backfill", "round_robin", "random", "best_fit", "worst_fit", "attained", "drf", "max_min")
TOLD = ("srtf", "area", "tetris")
SHOWN = {
    "seed001": ("used", "held", "flow", "jct", "jct_0", "jct_1", "jct_p95", "there", "starts"),
    "makespan": ("makespan", "jct", "worst", "used", "starts"),
    "gavel": ("jct", "jct_p95", "jct_p99", "worst", "ratio", "jain", "makespan", "used", "starts", "energy"),
}


def run(problem: Any, seeds: range, methods: tuple[str, ...], prices: dict[str, Any]) -> dict[str, Evaluation]:
    rows = {name: evaluate(problem, problem.card.prices(), None, None, seeds, baseline=name) for name in methods}
    for name, given in prices.items():
        rows[name] = evaluate(problem, given, Coordinator("game"), None, seeds)
    return rows


def tell(rows: dict[str, Evaluation], keys: tuple[str, ...], key: str, against: tuple[str, ...], told: str) -> None:
    """A line a method: the means of ``keys``, and of ``key`` how far it is from others, paired."""
    for name, found in rows.items():
        line = "  ".join(f"{k} {np.nanmean(found.metrics[k]):8.2f}" for k in keys if k in found.metrics)
        line += f"  ms {found.step_ms:.2f}  violations {found.violations}"
        for other in against:
            if other in rows:
                base = rows[other].metrics[key]
                d = paired_difference(100 * (found.metrics[key] / base - 1), np.zeros(len(base)))
                line += f"  | {key} against {other} {d.mean:+.1f} % [{d.low:+.1f}, {d.high:+.1f}]"
        print(f"{'oblivious' if name in OBLIVIOUS else told:9s} {name:12s} {line}", flush=True)


def tuned(problem: Any, candidates: int, seeds: int) -> dict[str, Any]:
    """Prices of the game: as shipped, and the best of a random search on tuning seeds."""
    given = {"game": problem.card.prices()}
    if candidates:
        found = tune_prices(problem, Coordinator("game"), candidates, seeds=seeds)
        print("tuned:", {key: round(value, 3) for key, value in found.prices._asdict().items()}, flush=True)
        given["game, tuned"] = found.prices
    return given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("seed001", "frontier", "gavel", "makespan", "time"))
    parser.add_argument("--hours", type=float, default=100.0)
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--loads", type=float, nargs="+", default=(0.6, 0.7, 0.8, 0.9, 1.0, 1.1))
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--misjudged", type=float, default=1.0)
    parser.add_argument("--stragglers", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, nargs=2, default=(10000, 10005))
    parser.add_argument("--tuning", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--workloads", nargs="+", default=("light", "medium", "heavy"))
    args = parser.parse_args()
    seeds = range(*args.seeds)
    if args.what == "time":
        timed()
    elif args.what == "makespan":
        full(args.jobs, args.misjudged, seeds, args.methods or ("backfill", "max_min", "makespan", *TOLD))
    elif args.what == "gavel":
        methods = tuple(args.methods or ("fifo", "backfill", "attained", "drf", "max_min", *TOLD))
        for load in args.loads:
            problem = make_problem("cluster", scenario="gavel", jobs=args.jobs, load=load, misjudged=args.misjudged)
            known = problem.card.reference_prices["known durations"]
            prices = {"game": problem.card.prices() if args.misjudged else known}
            print(f"\n{problem.card.size}, durations misjudged by {args.misjudged:g}, 60 s a start")
            found = run(problem, seeds, methods, prices)
            tell(found, SHOWN["gavel"], "jct", ("max_min", "area"), "believes" if args.misjudged else "knows")
    else:
        loads = (args.load,) if args.what == "seed001" else args.loads
        for workload in args.workloads:
            make = lambda load, hours=args.hours, workload=workload: make_problem(
                "cluster", scenario="seed001", workload=workload, load=load, hours=hours, misjudged=args.misjudged,
                stragglers=args.stragglers,
            )  # fmt: skip
            prices = tuned(make(loads[-1], 5.0), args.tuning, 2)
            for load in loads:
                problem = make(load)
                print(f"\n{workload}, {problem.card.size}, {args.hours:g} h, seeds {seeds.start} to {seeds.stop - 1}")
                methods = tuple(args.methods or ("fifo", "backfill", "round_robin", "best_fit", "attained", *TOLD))
                tell(run(problem, seeds, methods, prices), SHOWN["seed001"], "flow", ("fifo",), "believes")


def full(jobs: int, misjudged: float, seeds: range, methods: tuple[str, ...]) -> None:
    """All jobs there at once: who is done with them first, beside what no rule can do better than."""
    problem = make_problem("cluster", scenario="gavel", jobs=jobs, load=0, misjudged=misjudged, slots=jobs)
    print(f"{problem.card.size}, all there at once, durations misjudged by {misjudged:g}, 60 s a start")
    bound = np.array([least_makespan_h(problem, seed) for seed in seeds])
    prices = {"game": problem.card.prices()} | {f"game, {k}": v for k, v in problem.card.reference_prices.items()}
    found = run(problem, seeds, methods, prices)
    tell(found, SHOWN["makespan"], "makespan", ("max_min", "makespan"), "believes" if misjudged else "knows")
    print(f"bound: {bound.mean():.2f} h; above it, mean of seeds:", end="")
    for name, rows in found.items():
        print(f" {name} {100 * (rows.metrics['makespan'] / bound - 1).mean():.1f} %", end="")
    print()


def least_makespan_h(problem: Any, seed: int) -> float:
    """Hours before which nobody can be done: Gavel's program with true durations, whose parts of time need no rounds,
    whole gangs or starts."""
    jobs, setup = problem.worlds([seed]).jobs, problem.setup
    kind, alone_h = jobs["type"][0], jobs["alone"][0] / 3600
    return 1 / max_min(setup.speed[kind] / alone_h[:, None], setup.gang[kind], setup.units)[1]


def timed() -> None:
    """A round of 200 jobs, decided and settled, and as a step with its certificate: time of the processor."""
    problem = make_problem("cluster", scenario="gavel", jobs=400, load=0.0, slots=200, pools=(48, 48, 48))
    state = problem.reset(10_000)
    game, allocator = Coordinator("game"), Allocator(problem, "game")
    for _ in range(3):
        allocator.step(state)
    spent = []
    for _ in range(20):
        world = problem.world_at(state)
        began = time.process_time()
        game.settle(world, game.decide(world, None, problem.card.prices()), problem.card.prices())
        spent.append(time.process_time() - began)
    steps = []
    for _ in range(20):
        began = time.process_time()
        allocator.step(state)
        steps.append(time.process_time() - began)
    told = f"a round {1e3 * np.median(spent):.2f} ms, a step {1e3 * np.median(steps):.2f} ms of one core"
    print(f"{int(state.active.sum())} jobs: {told}")


if __name__ == "__main__":
    main()
