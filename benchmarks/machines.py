"""What Ray costs and brings: ``python benchmarks/machines.py`` (extra ray).

A small comparison is run by one process, by two, and by a Ray cluster of two nodes of one core each on this machine,
and a training by this process alone, by two actors in it, and by two actors on that cluster; all in turns, ``--rounds``
times. Seconds to the end are medians, ratios are of rows of one turn: whatever else the machine does, it does to all of
them. The cluster is started before, its workers are not; every result must be the same.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc.experiments.compare import Settings, compare  # noqa: E402
from hybridalloc.problems import make_problem  # noqa: E402
from hybridalloc.training.config import TrainConfig  # noqa: E402
from hybridalloc.training.on_ray import hiring  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402

SMALL = Settings(
    agents=20, servers=4, sites="synthetic", train_seeds=4, report_seeds=4, tuning=0, methods=("hybrid-imappo",),
    quiet=True, tracking_uri="sqlite:////dev/null/m.db",  # refused at once: MLflow is another measurement
)  # fmt: skip
CHECKLESS = TrainConfig(belief="bayesian", networks=32, checks=0)


def comparing(folder: str, steps: int, **options: Any) -> Callable[[], Any]:
    """Runs the comparison; what its methods earned."""

    def run() -> Any:
        with tempfile.TemporaryDirectory(dir=folder) as runs:
            settings = replace(SMALL, agent_steps=steps, runs=runs, report=f"{runs}/report.html", **options)
            told = compare(settings)
        return [{k: v for k, v in m["values"].items() if k != "step_ms"} for m in told["methods"]]

    return run


def training(steps: int, actors: int, address: str = "") -> Callable[[], Any]:
    """Trains once; the rows of its updates."""

    def run() -> Any:
        problem = make_problem("mec", agents=50, servers=9, sites="synthetic")
        config = replace(CHECKLESS, agent_steps=steps, actors=actors)
        with hiring("ray" if address else "processes", address, quiet=True) as hires:
            trained = train(problem, problem.card.prices(), config, hires=hires)
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in trained.updates]

    return run


def in_turns(rows: dict[str, Callable[[], Any]], rounds: int) -> None:
    """Print each row's median seconds and its median ratio to the first row of the same turn."""
    spent: dict[str, list[float]] = {name: [] for name in rows}
    first: Any = None
    for turn in range(rounds):
        for name, run in rows.items():
            began = time.perf_counter()
            found = run()
            spent[name].append(time.perf_counter() - began)
            first = found if first is None else first
            if found != first:
                raise AssertionError(f"{name}, turn {turn}: another result than {next(iter(rows))}")
    one = spent[next(iter(rows))]
    for name, seconds in spent.items():
        ratio = statistics.median(a / b for a, b in zip(one, seconds, strict=True))
        print(f"{name:45s} {statistics.median(seconds):8.1f} s   {ratio:5.2f} times as fast", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400_000, help="agent-steps of each training of the comparison")
    parser.add_argument("--large", type=int, default=4_000_000, help="agent-steps of the training by actors")
    asked = parser.parse_args()
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])  # of its workers
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    cluster.add_node(**node)
    address = cluster.address
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the beginning; {asked.rounds} turns")
    try:
        with tempfile.TemporaryDirectory() as folder:
            local, far = (comparing(folder, asked.steps, **o) for o in ({"workers": 1}, {"workers": 2}))
            ray = comparing(folder, asked.steps, engine="ray", address=address)
            in_turns({"a comparison, one process": local, "two processes": far, "Ray, two nodes": ray}, asked.rounds)
        one, two = training(asked.large, 1), training(asked.large, 2)
        there = training(asked.large, 2, address)
        in_turns({"a training, alone": one, "two actors here": two, "two actors on Ray": there}, asked.rounds)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
