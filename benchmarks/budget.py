"""Does ``budget_ms`` hold? ``python benchmarks/budget.py``: 10,000 steps at each of several budgets, 50 x 9.

A step may run over by the one kernel sweep that is under way when time is up, and below the time of settling and
certifying (the floor) nothing can be in time: a budget of 0 gives the cheapest certified allocation. Printed: the
share of steps over budget plus one sweep, quantiles, and what came out.

By default allocator and table read the thread's own processor time, which is what a machine of one's own would show;
with ``--wall`` both read the wall clock, and what other processes take counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402

from coordinator import budget as budget_clock  # noqa: E402
from hybridalloc import Allocator, make_problem  # noqa: E402


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--servers", type=int, default=9)
    parser.add_argument("--wall", action="store_true")
    arguments = parser.parse_args()
    budget_clock.now = now = time.perf_counter if arguments.wall else time.thread_time
    problem = make_problem("mec", agents=arguments.agents, servers=arguments.servers)
    states = [problem.reset(seed) for seed in range(500)]
    free = Allocator(problem, "hybrid", "imappo")
    seen = [free.step(state).certificate for state in states]
    whole = [c.elapsed_ms for c in seen[100:]]
    sweep = float(np.median([c.stages["equilibrate"] for c in seen])) / 12  # 12 sweeps at most
    floor = Allocator(problem, "hybrid", "imappo", budget_ms=0)
    least = float(np.median([floor.step(state).certificate.elapsed_ms for state in states]))
    usual = float(np.median(whole))
    clock = "wall clock" if arguments.wall else "own processor time"
    print(f"mec set H, {arguments.agents} x {arguments.servers}, {arguments.steps} steps a budget, {clock}. Unlimited:")
    print(f"median {usual:.2f} ms. Floor (opting out, certified): median {least:.2f} ms. A sweep: {sweep:.4f} ms")
    print(f"{'budget ms':>10s} {'over':>8s} {'median':>8s} {'p99.9':>8s} {'most':>8s}  outcome")
    for budget in (0.0, 1.5 * least, usual, 1.5 * usual, 3.0 * usual):
        allocator = Allocator(problem, "hybrid", "imappo", budget_ms=budget)
        spent, outcome, feasible = [], Counter(), 0
        for k in range(arguments.steps):
            began = now()
            c = allocator.step(states[k % len(states)]).certificate
            spent.append(1e3 * (now() - began))
            cut = "" if c.status == "ok" or c.source != "hybrid" else " (cut short)"
            outcome[c.source + cut] += 1
            feasible += c.feasible
        over = 100 * float(np.mean(np.array(spent) > budget + sweep))
        shares = ", ".join(f"{name} {100 * n / arguments.steps:.1f} %" for name, n in outcome.most_common())
        print(
            f"{budget:10.2f} {over:6.2f} % {np.median(spent):8.2f} {np.quantile(spent, 0.999):8.2f} "
            f"{max(spent):8.2f}  {shares}; {feasible} feasible",
            flush=True,
        )


if __name__ == "__main__":
    main()
