"""What would a router gain by knowing more? ``python benchmarks/balancer_known.py``.

The balancer of the suite (azure, four routers, reports every second, load .85), its game at default prices, and the
same with one thing more that is known; up to the clairvoyant, which runs every replica ahead as it truly is and sends a
request where it is served first. The clairvoyant once more with every output taken for the mean one shows what knowing
their lengths is worth. Differences from the game are paired over episodes, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import make_problem  # noqa: E402
from hybridalloc.problems.balancer.ahead import foresee  # noqa: E402
from hybridalloc.problems.balancer.card import figures_of  # noqa: E402
from hybridalloc.problems.balancer.core import advance, send  # noqa: E402
from hybridalloc.problems.balancer.play import Router, play  # noqa: E402
from hybridalloc.problems.balancer.rules import CLAIRVOYANT, Rule  # noqa: E402
from hybridalloc.problems.balancer.scorer import BalancerPrices  # noqa: E402
from hybridalloc.problems.balancer.sim import Sim  # noqa: E402
from hybridalloc.problems.balancer.workload import expected_output  # noqa: E402

SCENARIO, HELD_OUT = "azure", 10_000
KEYS = ("ttft_p99", "ttft_mean", "e2e_p99")
Rows = dict[str, np.ndarray]


def game(seeds: range, prices: BalancerPrices | None = None, **settings: object) -> Rows:
    """The game with other prices or settings of the problem."""
    return make_problem("balancer", scenario=SCENARIO, **settings).play(prices or BalancerPrices(), seeds)


def by_hand(seeds: range, finish: Callable[[Sim, int], None]) -> Rows:
    """Every episode of the suite's, played by ``finish``."""
    problem, rows = make_problem("balancer", scenario=SCENARIO), []
    for seed in seeds:
        sim = problem.episode(np.random.default_rng([seed, 1]), seed >= HELD_OUT)
        finish(sim, seed)
        rows.append(figures_of(sim))
    return {key: np.array([row[key] for row in rows]) for key in KEYS}


def clairvoyant(sim: Sim, seed: int) -> None:
    play(sim, Router(Rule(CLAIRVOYANT)), seed)


def without_lengths(sim: Sim, seed: int) -> None:
    """The clairvoyant that takes every output for the mean one, and what has run longer for a quarter from its end."""
    usual, out = int(expected_output(SCENARIO)), np.zeros(1)
    replicas, requests, lines, true = sim.replicas, sim.requests, sim.lines, sim.trace.output.copy()
    while (i := advance(sim)) >= 0:
        ends, least, costs = requests.done_step.copy(), replicas.least.copy(), np.zeros(len(replicas.end))
        sim.trace.output[:] = usual
        for r in range(len(costs)):
            running = lines.running[r, : replicas.runs[r]]
            if len(running):
                made = requests.made[running] + replicas.step[r] - requests.from_step[running]
                left = np.maximum(usual - made, usual // 4).astype(int)
                requests.done_step[running] = replicas.step[r] + left
                replicas.least[r] = requests.done_step[running].min()
            foresee(sim, i, r, out)
            costs[r] = out[0]
        sim.trace.output[:], requests.done_step[:], replicas.least[:] = true, ends, least
        send(sim, i, int(np.argmin(costs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=HELD_OUT, help="seed; from 10000 on the second half of the trace")
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.seeds)
    fresh = {"report_s": 0.0, "told_tokens": True}
    rows: dict[str, Callable[[], Rows]] = {
        "game": lambda: game(seeds),
        "own requests only": lambda: game(seeds, belief="own"),
        "learned belief": lambda: game(seeds, belief="learned"),
        "one router, which knows all requests": lambda: game(seeds, dispatchers=1),
        "fresh reports": lambda: game(seeds, report_s=0.0),
        "fresh reports that tell waiting tokens": lambda: game(seeds, **fresh),
        "the same, prices without noise": lambda: game(seeds, BalancerPrices(noise=0.0), **fresh),
        "clairvoyant, output lengths unknown": lambda: by_hand(seeds, without_lengths),
        "clairvoyant": lambda: by_hand(seeds, clairvoyant),
    }
    base: Rows = {}
    for label, make in rows.items():
        found = make()
        base = base or found
        text = ""
        for key in KEYS:
            text += f" | {key} {found[key].mean():.3f} s"
            if found is not base:
                gain = found[key] - base[key]
                half = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
                text += f", {gain.mean():+.3f} [{gain.mean() - half:+.3f}, {gain.mean() + half:+.3f}]"
        print(f"{label:40s}{text}", flush=True)


if __name__ == "__main__":
    main()
