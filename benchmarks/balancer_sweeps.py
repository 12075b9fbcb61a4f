"""Do sweeps to an equilibrium, or tolls, help a router? ``python benchmarks/balancer_sweeps.py --scenario azure``.

The router of ``benchmarks/balancer.py`` once more, with two things that it leaves out. Sweeps: those who sent since a
report was taken are taken to have done so by the mixed strategy that the costs make, found by going round a few times,
as the mixed equilibrium of all dispatchers would be. A toll: what is there already is charged again, as a request's
marginal cost to those who come with it. Each is tuned by as many trials as the router without.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from games.lean import LEAN  # noqa: E402
from hybridalloc.problems.balancer.belief import VIEWS, believe, learn  # noqa: E402
from hybridalloc.problems.balancer.chance import stream_of, uniform  # noqa: E402
from hybridalloc.problems.balancer.core import DISPATCHERS, GAP_S, MEAN_PROMPT, PROMPT, advance, look, send  # noqa: E402
from hybridalloc.problems.balancer.play import measure  # noqa: E402
from hybridalloc.problems.balancer.rules import least, new_room  # noqa: E402
from hybridalloc.problems.balancer.scorer import BalancerPrices, capacity_of, cost_of, gumbel  # noqa: E402
from hybridalloc.problems.balancer.sim import NOW  # noqa: E402

SWEEPS = 4


class Swept(NamedTuple):
    """A belief and prices; how much of those who came since counts, 0 for no sweeps; the toll."""

    belief: int
    prices: BalancerPrices
    react: float
    toll: float


@njit(**(LEAN | {"cache": False}))
def run(sim, belief, prices, react, toll, room, stream, base, part):
    """Decide every request."""
    view, fleet, cost, load = room.seen, sim.fleet, room.cost, room.load
    room.fade[0], room.fade[1] = prices.fade_requests, prices.fade_tokens
    while True:
        i = advance(sim)
        if i < 0:
            break
        look(sim, i, view)
        d, about = sim.trace.dispatcher[i], view.about
        learn(d, sim.clock[NOW], view, fleet, False, room.know)
        believe(belief, d, view, False, room.fade, prices.alike, room.know, load)
        speed, replicas = room.know.speed[d], len(cost)
        for r in range(replicas):
            base[r, 0], base[r, 1] = load[r, 0], load[r, 1]
        for sweep in range(SWEEPS if react > 0.0 else 1):
            if sweep > 0:
                low, total, warmth = cost[0], 0.0, max(prices.noise, 0.02)
                for r in range(replicas):
                    low = min(low, cost[r])
                for r in range(replicas):
                    part[r] = np.exp((low - cost[r]) / warmth) * fleet.share[r] if view.up[r] else 0.0
                    total += part[r]
                for r in range(replicas):
                    came = react * (about[DISPATCHERS] - 1.0) * view.age_s[r] / max(about[GAP_S], 1e-6)
                    load[r, 0] = base[r, 0] + came * part[r] / total
                    load[r, 1] = base[r, 1] + came * part[r] / total * about[MEAN_PROMPT]
            cost_of(load, view, about[PROMPT], fleet.share, fleet, prices, speed, cost)
            for r in range(replicas):
                there = prices.tokens * load[r, 1] / 1000.0 + prices.requests * load[r, 0]
                cost[r] += toll * there / capacity_of(r, replicas, fleet.share, speed, prices)
        for r in range(replicas):
            if prices.noise > 0.0:
                cost[r] -= prices.noise * (gumbel(uniform(stream)) + np.log(fleet.share[r]))
        send(sim, i, least(cost, view.up, stream))


def play(sim, router: Swept, seed: int = 0) -> dict[str, float]:
    room, n = new_room(sim.law.dispatchers, sim.fleet.share), len(sim.fleet)
    prices = BalancerPrices(*map(float, router.prices))
    run(
        sim, int(router.belief), prices, float(router.react), float(router.toll), room, stream_of(seed, 5),
        np.zeros((n, 2)), np.zeros(n),
    )  # fmt: skip
    return measure(sim)


def made(view: str, told: dict[str, float]) -> Swept:
    told = dict(told)
    react, toll = told.pop("react", 0.0), told.pop("toll", 0.0)
    return Swept(VIEWS.index(view), BalancerPrices(**told), react, toll)


def main() -> None:
    import balancer as bench  # beside this file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="azure", choices=("synthetic", "azure", "mooncake"))
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--dispatchers", type=int, default=16)
    parser.add_argument("--report", type=float, default=1.0)
    parser.add_argument("--slices", type=int, default=10)
    args = parser.parse_args()
    bench.figures = partial(bench.figures, play=play)
    tuning = [bench.Cell(args.dispatchers, args.report, load) for load in (0.75, 0.92) for _ in range(3)]
    react, toll = {"react": (0.005, 1.0, True)}, {"toll": (0.0, 1.5, False)}
    print(f"{args.scenario}, D = {args.dispatchers}, reports every {args.report:g} s, {args.trials} trials each")
    for view in ("report", "blend"):
        plain = {}
        for name, more in (("alone", {}), ("sweeps", react), ("toll", toll)):
            family = bench.Family(name, partial(made, view), bench.FAMILIES[view].space | more, False)
            told = bench.tune(args.scenario, family, tuning, args.trials)
            line = f"{view:7s} {name:7s}"
            for load in (0.7, 0.85, 0.95):
                cell = bench.Cell(args.dispatchers, args.report, load)
                rows = bench.figures(args.scenario, cell, family.make(told), range(args.slices), 3000, True)
                line += f" | {load:.2f}: TTFT p99 {rows['ttft_p99'].mean():.2f} s"
                if name == "alone":
                    plain[load] = rows
                    continue
                mean, low, high = bench.paired(rows["ttft_p99"], plain[load]["ttft_p99"])
                line += f", {mean:+.0f} % [{low:+.0f}, {high:+.0f}]"
            print(f"{line} { ({k: round(told[k], 3) for k in more}) }", flush=True)


if __name__ == "__main__":
    main()
