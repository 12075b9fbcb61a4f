"""One job replaced a minute: how many others move for it, and how many are served, over the cost of moving.

    python benchmarks/moves.py                  # 20 tables of 40 jobs for an hour; two minutes
    python benchmarks/moves.py --tables 2 --minutes 5 --loads 0.9

Each table has 40 jobs of three priorities on 4 servers, whose floors would fill ``load`` of them if every job were on
its own server. Every minute one job, drawn at random, leaves and another comes. *Moves*: of the 39 others, those with a
place in both minutes and on another server in the second. *Served*: in time, of 40. *Takes*: how long those that are
served take, in deadlines, on average. "none": nothing is known of the minute before. All rows see the same jobs, so
that they are paired, table by table.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import Allocator, make_problem  # noqa: E402
from hybridalloc.reports.statistics import t_quantile  # noqa: E402

COSTS = (None, 0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def jobs(rng: np.random.Generator, count: int, capacity: Any, load: float, each: int) -> dict[str, Any]:
    """``count`` jobs, each for a server of its own drawn at random, of whose room it needs about ``load / each``."""
    own = rng.integers(0, len(capacity), count)
    floor = load / each * rng.gamma(4.0, 0.25, count)
    deadline = rng.uniform(2, 30, count)
    return {
        "work": np.repeat((floor * deadline * capacity[own])[:, None], len(capacity), axis=1), "deadline_s": deadline,
        "delay_cost": 1 / deadline, "priority": rng.integers(0, 3, count).astype(float),
    }  # fmt: skip


def an_hour(seed: int, load: float, cost: float | None, minutes: int, agents: int = 40, servers: int = 4) -> Any:
    """(minutes, 3) moves of jobs that were not replaced, jobs served, and what those take in deadlines."""
    rng = np.random.default_rng([seed, round(100 * load)])
    capacity = rng.uniform(5, 20, servers)
    problem = make_problem("custom", capacity=capacity, **jobs(rng, agents, capacity, load, agents // servers))
    state, allocator = problem.reset(), Allocator(problem)
    was, found = allocator.step(state), []
    for _ in range(minutes):
        gone, new = int(rng.integers(agents)), jobs(rng, 1, capacity, load, agents // servers)
        fields = {name: getattr(state, name).copy() for name in new}
        for name, value in new.items():
            fields[name][gone] = value[0]
        previous = np.where(np.arange(agents) == gone, -1, was.option)
        state = replace(state, **fields)
        known = {} if cost is None else {"previous": previous, "moving_cost": np.full(agents, cost)}
        now = allocator.step(replace(state, **known))
        moved = (previous > 0) & (now.option > 0) & (now.option != previous)
        took = (problem.times(state, now) / state.deadline_s)[now.served]
        found.append((moved.sum(), now.served.sum(), took.mean()))
        was = now
    return np.array(found, float)


def main() -> None:
    """The curve for every load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=20)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--loads", type=float, nargs="*", default=[0.5, 0.9, 1.2])
    a = parser.parse_args()
    for load in a.loads:
        print(f"floors fill {load:.0%}; {a.tables} tables, {a.minutes} minutes; means over tables, 95 % intervals")
        print(
            f"{'moving_cost':12s}{'moves a minute':>16s}{'served':>9s}{'less none':>18s}{'takes':>9s}{'less none':>20s}"
        )
        first = None
        for cost in COSTS:
            seen = np.array([an_hour(seed, load, cost, a.minutes).mean(axis=0) for seed in range(a.tables)])
            first = seen if first is None else first
            mean, more = seen.mean(axis=0), [paired(seen[:, k] - first[:, k]) for k in (1, 2)]
            label = "none" if cost is None else f"{cost:g}"
            print(f"{label:12s}{mean[0]:16.2f}{mean[1]:9.2f}{more[0]:>18s}{mean[2]:9.4f}{more[1]:>20s}", flush=True)


def paired(gain: Any) -> str:
    """A mean difference with its 95 % t-interval; without one where there is but one pair."""
    if len(gain) < 2:
        return f"{gain.mean():+.4f}"
    return f"{gain.mean():+.4f} +- {t_quantile(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5:.4f}"


if __name__ == "__main__":
    main()
