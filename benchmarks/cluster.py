"""Prices of the cluster's game by evolution, and what they are worth on fresh seeds beside published schedulers.

    python benchmarks/cluster.py train openb --mixes 8 --minutes 20 --out one.json     # the default trace alone
    python benchmarks/cluster.py train openb openb-gpushare100 --minutes 20 --out both.json
    python benchmarks/cluster.py table one.json both.json --seeds 10010 10020 --bounds
    python benchmarks/cluster.py ablate --seeds 5000 5003                               # what each term is worth

``train`` begins at the published rule and plays training seeds alone: what is earned is the mean allocation at 88 to
100 % demand, less .02 for every per cent of 8-GPU pods that are turned away. Beside the traces it plays ``--mixes``
clusters whose pods come in other numbers, so that prices hold for work that they have not seen. ``table`` plays whole
episodes of fresh seeds, all methods the same, on both traces and, with ``--others``, on mixes that training never saw.
``ablate`` sets the weights of terms to 0 and leaves the others as they are, on tuning seeds: what is lost is what the
others, which evolved beside them, do not make up for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402

from hybridalloc import make_problem  # noqa: E402
from hybridalloc.problems.cluster.bound import cutting_stock, expected_demand  # noqa: E402
from hybridalloc.problems.cluster.prices import PUBLISHED, ClusterPrices  # noqa: E402
from hybridalloc.problems.cluster.stream import run_stream  # noqa: E402
from hybridalloc.problems.cluster.world import FGD_RANDOM  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.training.evolution import evolve_prices  # noqa: E402

TRACES = ("openb", "openb-gpushare100")
START = PUBLISHED._replace(fill=2.0, gpu_square=1.0)
UNSEEN = range(101, 107)  # mixes
PARTS = {  # of the potential, by where they come from
    "price": ("price", "bid"), "fill": ("fill", "fill_gpu"), "price and fill": ("price", "bid", "fill", "fill_gpu"),
    "published rule": ("fgd", "order"), "fragments": ("fragments",),
}  # fmt: skip
RULES = {
    "random": {"rule": "random"}, "first fit": {"rule": "first_fit"}, "dot product": {"rule": "dot_product"},
    "GPU packing": {"rule": "packing"}, "best fit": {"rule": "best_fit"},
    "FGD, ties at random": {"weights": FGD_RANDOM, "random_ties": True}, "FGD, as published": {},
}  # fmt: skip


def train(args: argparse.Namespace) -> None:
    traces = [make_problem("cluster", scenario=name, until=1.02) for name in args.traces]
    names = [(name, 1 + k) for k in range(args.mixes) for name in args.traces]
    mixes = [make_problem("cluster", scenario=name, until=1.02, mix=mix) for name, mix in names]
    checks = [make_problem("cluster", scenario=name, until=1.02) for name in TRACES]

    def report(generation: int, row: dict[str, float], prices: Any) -> None:
        Path(args.out).write_text(json.dumps(prices._asdict(), indent=1), encoding="utf-8")
        if generation % 10 == 9:
            at = [float(p.play(prices, range(5000, 5004))["used100"].mean()) for p in checks]
            told = "  ".join(f"{key} {value:.2f}" for key, value in row.items())
            print(f"{generation + 1:4d}  {told}  tuning seeds at 100 %: {at[0]:.2f} {at[1]:.2f}", flush=True)

    begin = ClusterPrices(**json.loads(Path(args.start).read_text())) if args.start else START
    episodes = 0 if not mixes and len(traces) > 1 else args.episodes
    found = evolve_prices(
        [*traces, *mixes], start=begin, generations=args.generations, episodes=episodes, seed=args.seed,
        beside={"failed_eight": -0.02}, limit_s=60 * args.minutes, report=report,
    )  # fmt: skip
    Path(args.out).write_text(json.dumps(found.prices._asdict(), indent=1), encoding="utf-8")
    print(f"{len(found.rows)} generations, {found.episodes} episodes: {args.out}")


def table(args: argparse.Namespace) -> None:
    seeds = range(*args.seeds)
    learned = {Path(name).stem: ClusterPrices(**json.loads(Path(name).read_text())) for name in args.prices}
    rows = RULES | {name: {"weights": prices.weights()} for name, prices in learned.items()}
    cases: Sequence[tuple[str, int]] = [(name, 0) for name in TRACES]
    cases = [*cases, *((TRACES[0], mix) for mix in UNSEEN)] if args.others else cases
    for scenario, mix in cases:
        problem = make_problem("cluster", scenario=scenario, mix=mix)
        work = problem.workload
        print(f"\n{work.name}: {len(work.nodes.cpu)} nodes, seeds {seeds.start} to {seeds.stop - 1}")
        if args.bounds:
            bound = cutting_stock(work, expected_demand(work))
            print(f"bound by cutting stock {bound.percent:.2f} %, {'proved' if bound.proved else 'NOT PROVED'}")
        base: dict[str, np.ndarray] = {}
        for name, how in rows.items():
            figures = [run_stream(work, problem.tables, s, arrived=1.02, **how).figures(work) for s in seeds]
            mine = {key: np.array([row[key] for row in figures]) for key in figures[0]}
            base = mine if name == "FGD, as published" else base
            used = " ".join(f"{mine[key].mean():6.2f}" for key in ("used90", "used95", "used100"))
            lost = " ".join(f"{mine[f'failed_{size}'].mean():5.1f}" for size in ("share", "one", "few", "eight"))
            line = f"{name:22s} at 90, 95, 100 %: {used}   failed: {lost}"
            if base and name in learned:
                for key in ("used90", "used95", "used100"):
                    d = paired_difference(mine[key], base[key])
                    line += f"   {key[4:]}: {d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}]"
            print(line, flush=True)


def ablate(args: argparse.Namespace) -> None:
    seeds = range(*args.seeds)
    prices = ClusterPrices(**json.loads(Path(args.prices).read_text())) if args.prices else ClusterPrices()
    without = {f"without {word}": prices._replace(**dict.fromkeys(terms, 0.0)) for word, terms in PARTS.items()}
    for scenario in TRACES:
        problem = make_problem("cluster", scenario=scenario, nodes=args.nodes)
        work = problem.workload
        print(f"\n{work.name}: {len(work.nodes.cpu)} nodes, seeds {seeds.start} to {seeds.stop - 1}", flush=True)
        base: np.ndarray | None = None
        for name, given in ({"as learned": prices} | without).items():
            runs = [run_stream(work, problem.tables, s, weights=given.weights(), arrived=1.02) for s in seeds]
            figures = [run.figures(work) for run in runs]
            used = np.array([row["used100"] for row in figures])
            lost = float(np.mean([row["failed_eight"] for row in figures]))
            base = used if base is None else base
            d = paired_difference(used, base)
            told = f"   {d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}]" if name != "as learned" else ""
            large = "" if np.isnan(lost) else f"   failed of 8 GPUs {lost:5.1f}"  # where any such pods come
            print(f"{name:24s} at 100 %: {used.mean():6.2f}{told}{large}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trains = commands.add_parser("train")
    trains.add_argument("traces", nargs="+", choices=TRACES)
    trains.add_argument("--mixes", type=int, default=0)
    trains.add_argument("--episodes", type=int, default=3)
    trains.add_argument("--generations", type=int, default=10_000)
    trains.add_argument("--minutes", type=float, default=20.0)
    trains.add_argument("--seed", type=int, default=0)
    trains.add_argument("--start", help="prices to go on from instead of the published rule's")
    trains.add_argument("--out", required=True)
    tables = commands.add_parser("table")
    tables.add_argument("prices", nargs="*")
    tables.add_argument("--seeds", type=int, nargs=2, default=(10010, 10020))
    tables.add_argument("--bounds", action="store_true")
    tables.add_argument("--others", action="store_true")
    ablations = commands.add_parser("ablate")
    ablations.add_argument("--prices", help="a file that train wrote, instead of the defaults")
    ablations.add_argument("--seeds", type=int, nargs=2, default=(5000, 5003))
    ablations.add_argument("--nodes", type=int, default=0, help="of a smaller cluster of the same mix")
    args = parser.parse_args()
    {"train": train, "table": table, "ablate": ablate}[args.command](args)


if __name__ == "__main__":
    main()
