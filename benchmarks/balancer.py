"""Routers of requests to language models side by side, each tuned by as many trials of one search.

    python benchmarks/balancer.py --scenario azure --dispatchers 16 --report 1
    python benchmarks/balancer.py --scenario azure --drift            # learned speeds where they wander, and where not
    python benchmarks/balancer.py --speed

Tuned on the first half of a trace, reported on five slices of the second, the same for all; differences are paired,
with 95 % intervals of Student's t. A router without settings is as shipped; "tuned" ones are searched by CMA-ES, at
loads of .75 and .92 of the measured capacity, for the mean logarithm of the mean and the 99 % quantile of the times to
the first and the last token.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import Allocator, make_problem  # noqa: E402
from hybridalloc.problems.balancer import rules as R  # noqa: E402
from hybridalloc.problems.balancer.belief import CORRECTED, OWN, REPORT, VIEWS  # noqa: E402
from hybridalloc.problems.balancer.card import PRICE_SPACE  # noqa: E402
from hybridalloc.problems.balancer.play import Router, play  # noqa: E402
from hybridalloc.problems.balancer.rules import GAME, Rule  # noqa: E402
from hybridalloc.problems.balancer.scorer import BalancerPrices  # noqa: E402
from hybridalloc.problems.balancer.sim import Law  # noqa: E402
from hybridalloc.problems.balancer.workload import Episode, classes_of, sim_of  # noqa: E402
from hybridalloc.serving.picker import Picker, Replica  # noqa: E402
from rl.cma_es import CmaEs  # noqa: E402

SLICES, MEMBERS, REQUESTS = 5, 10, 1500  # reported on by default, of a generation, of a tuning slice
Span = tuple[float, float, bool]
GAME_SPACE = {name: span for name, span in PRICE_SPACE.items() if name != "speed"}


class Family(NamedTuple):
    """A router with the space of its settings, (lowest, highest, on a logarithmic scale), and how they make it."""

    label: str
    make: Callable[[dict[str, float]], Router]
    space: dict[str, Span]
    published: bool  # in its published form, without what is added here


def fixed(label: str, rule: Rule, published: bool) -> Family:
    return Family(label, lambda _: Router(rule), {}, published)


def game(view: str) -> Family:
    """The routing game on one belief. Prices of a belief that is not read are left out."""
    space = dict(GAME_SPACE)
    for name in ("fade_requests", "fade_tokens", "alike") if view != "blend" else ():
        del space[name]
    label = {"own": "game, own only", "report": "game, reports"}.get(view, f"game, {view}")
    return Family(label, lambda p: Router(Rule(GAME), VIEWS.index(view), BalancerPrices(**p)), space, False)


def weighted(capacity: float, flight: bool) -> Callable[[dict[str, float]], Router]:
    return lambda p: Router(
        Rule(R.WEIGHTED, capacity, REPORT, p["prefix"], p["queue"], p["memory"], p["flight"] if flight else 0.0)
    )


WEIGHTS: dict[str, Span] = {name: (0.0, 4.0, False) for name in ("prefix", "queue", "memory")}
GUARD: dict[str, Span] = {"most": (1.0, 64.0, True), "factor": (1.0, 3.0, False), "least": (0.05, 0.9, False)}
SCALE: dict[str, Span] = {"scale": (0.05, 4.0, True)}
QUANTILE: dict[str, Span] = {"quantile": (0.2, 1.0, False)}


def interpreted(capacity: float, aggressive: float) -> Callable[[dict[str, float]], Router]:
    return lambda p: Router(Rule(R.INTERPRETED, capacity, REPORT, p["scale"], aggressive))


def affine(capacity: float) -> Callable[[dict[str, float]], Router]:
    return lambda p: Router(Rule(R.PREFIX_AFFINITY, capacity, OWN, p["most"], p["factor"], p["least"]))


def probed(capacity: float) -> Callable[[dict[str, float]], Router]:
    return lambda p: Router(Rule(R.PREQUAL, capacity, REPORT, p["quantile"]))


FAMILIES = {
    "random": fixed("random", Rule(R.RANDOM), True),
    "random/c": fixed("random by capacity", Rule(R.RANDOM, 1.0), True),
    "rr": fixed("round robin", Rule(R.ROUND_ROBIN), True),
    "wrr": fixed("weighted round robin", Rule(R.ROUND_ROBIN, 1.0), True),
    "jsq": fixed("shortest queue", Rule(R.SHORTEST_QUEUE), True),
    "jsq/c": fixed("shortest queue over capacity", Rule(R.SHORTEST_QUEUE, 1.0, CORRECTED), False),
    "work": fixed("least work", Rule(R.LEAST_WORK), True),
    "work/c": fixed("least work over capacity", Rule(R.LEAST_WORK, 1.0, CORRECTED), False),
    "p2c": fixed("two choices", Rule(R.TWO_CHOICES), True),
    "p2c/c": fixed("two choices over capacity", Rule(R.TWO_CHOICES, 1.0, CORRECTED), False),
    "sed": fixed("shortest expected delay", Rule(R.EXPECTED_DELAY), True),
    "sed/own": fixed("the same, corrected by own", Rule(R.EXPECTED_DELAY, 1.0, CORRECTED), False),
    "li": Family("load interpretation, basic, tuned", interpreted(1.0, 0.0), SCALE, True),
    "li+": Family("load interpretation, aggressive, tuned", interpreted(1.0, 1.0), SCALE, True),
    "prefix": fixed("prefix affinity, as shipped", Rule(R.PREFIX_AFFINITY, 0.0, OWN, 64.0, 1.5, 0.3), True),
    "prefix*": Family("prefix affinity, tuned", affine(0.0), GUARD, True),
    "prefix/c": Family("prefix affinity, capacities, tuned", affine(1.0), GUARD, False),
    "llm-d": fixed("llm-d's weights, as shipped", Rule(R.WEIGHTED, 0.0, REPORT, 3.0, 2.0, 2.0), True),
    "llm-d*": Family("llm-d's weights, tuned", weighted(0.0, True), WEIGHTS | {"flight": (0.0, 4.0, False)}, True),
    "llm-d/c": Family(
        "llm-d's weights, capacities, tuned", weighted(1.0, True), WEIGHTS | {"flight": (0.0, 4.0, False)}, False
    ),
    "prequal": fixed("Prequal, as shipped", Rule(R.PREQUAL, 0.0, REPORT, 0.84), True),
    "prequal*": Family("Prequal, tuned", probed(0.0), QUANTILE, True),
    "prequal/c": Family("Prequal, capacities, tuned", probed(1.0), QUANTILE, False),
    "own": fixed("least own in flight", Rule(R.OWN_IN_FLIGHT, 0.0, OWN), True),
    "own/c": fixed("own in flight over capacity", Rule(R.OWN_IN_FLIGHT, 1.0, OWN), True),
    **{view: game(view) for view in ("own", "report", "corrected", "blend", "learned") if view != "own"},
    "game own": game("own"),
    "clairvoyant": fixed("clairvoyant, one by one", Rule(R.CLAIRVOYANT), False),
}


class Cell(NamedTuple):
    """Where routers are compared: how many dispatchers, the period of their reports, the load of the capacity."""

    dispatchers: int
    report_s: float
    load: float


def figures(
    scenario: str, cell: Cell, router: Router, seeds: Sequence[int], requests: int, held_out: bool, replicas: int = 8,
    drift: bool = False, play: Callable[..., dict[str, float]] = play,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Metrics by slice, (len(seeds),) of each."""
    law, rows = Law(cell.dispatchers, cell.report_s), []
    for seed in seeds:
        start = seed / max(len(seeds) - 1, 1) if held_out else float(np.random.default_rng([seed, 9]).random())
        episode = Episode(cell.load, requests, held_out, start)
        rows.append(play(sim_of(scenario, classes_of(replicas), law, episode, seed, drift=drift), router, seed))
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def objective(m: dict[str, np.ndarray]) -> float:
    """What is tuned for, lower is better."""
    return float(np.mean([np.log(m[key]).mean() for key in ("ttft_mean", "ttft_p99", "e2e_mean", "e2e_p99")]))


def tune(
    scenario: str, family: Family, cells: Sequence[Cell], trials: int, requests: int = REQUESTS, drift: bool = False
) -> dict[str, float]:
    """The settings that CMA-ES comes to in so many trials, each on slices of the first half that no other generation
    has; every family sees the same."""
    names = list(family.space)
    if not names:
        return {}
    run = CmaEs(np.full(len(names), 0.5), np.full(len(names), 0.2), 0, MEMBERS)
    for generation in range(max(trials // MEMBERS, 1)):
        asked, earned = run.ask(), []
        for x in asked:
            router = family.make(settings(family, x))
            seeds = [1000 * generation + k for k in range(len(cells))]
            lost = [
                objective(figures(scenario, cell, router, [s], requests, False, drift=drift))
                for cell, s in zip(cells, seeds, strict=True)
            ]
            beyond = float(((x - np.clip(x, 0, 1)) ** 2).sum())
            earned.append(-float(np.mean(lost)) - 0.05 * beyond)
        run.tell(np.array(earned))
    return settings(family, run.best)


def settings(family: Family, x: np.ndarray) -> dict[str, float]:
    """A point of the unit cube as settings."""
    out = {}
    for at, (name, (low, high, logarithmic)) in zip(np.clip(x, 0, 1), family.space.items(), strict=True):
        out[name] = float(low * (high / low) ** at if logarithmic else low + at * (high - low))
    return out


def paired(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """How much less mine is than theirs, in %, with a 95 % interval: of the mean logarithm of the ratio."""
    ratio = np.log(mine / theirs)
    half = stats.t.ppf(0.975, len(ratio) - 1) * ratio.std(ddof=1) / len(ratio) ** 0.5
    return tuple(100 * (np.exp(x) - 1) for x in (ratio.mean(), ratio.mean() - half, ratio.mean() + half))  # type: ignore[return-value]


def compare(args: argparse.Namespace) -> None:
    """One table: every family tuned for this number of dispatchers and period of reports."""
    tuning = [Cell(args.dispatchers, args.report, load) for load in (0.75, 0.92) for _ in range(3)]
    names = args.families.split(",") if args.families else [n for n in FAMILIES]
    found = {}
    print(f"{args.scenario}, D = {args.dispatchers}, reports every {args.report:g} s, {args.trials} trials each")
    print(f"{'router':40s}" + "".join(f"| load {load:.2f}: TTFT mean, p99, E2E p99 " for load in args.loads))
    for name in names:
        family, began = FAMILIES[name], time.perf_counter()
        told = tune(args.scenario, family, tuning, args.trials, args.tuning_requests)
        router = family.make(told)
        rows = {
            load: figures(
                args.scenario,
                Cell(args.dispatchers, args.report, load),
                router,
                range(args.slices),
                args.requests,
                True,
            )
            for load in args.loads
        }
        found[name] = rows
        text = "".join(
            f"| {m['ttft_mean'].mean():7.3f} {m['ttft_p99'].mean():7.2f} {m['e2e_p99'].mean():7.1f}     "
            for m in rows.values()
        )
        print(f"{family.label:40s}{text} {time.perf_counter() - began:4.0f} s {json.dumps(_round(told))}", flush=True)
    ours = [name for name in ("blend", "learned") if name in found]
    for key in ("ttft_p99", "e2e_p99"):
        for mine in ours:
            for load in args.loads:
                rivals = [n for n in found if FAMILIES[n].published and n != mine]
                if rivals:
                    best = min(rivals, key=lambda n: found[n][load][key].mean())
                    _say(key, mine, best, "best published form", load, found)
                for other in ("game own", "llm-d/c", "llm-d*"):
                    if other in found:
                        _say(key, mine, other, "", load, found)
    if args.out:
        plain = {
            n: {str(v): {k: x.tolist() for k, x in m.items()} for v, m in rows.items()} for n, rows in found.items()
        }
        Path(args.out).write_text(json.dumps(plain))


def _say(key: str, mine: str, other: str, note: str, load: float, found: dict) -> None:
    mean, low, high = paired(found[mine][load][key], found[other][load][key])
    label = f"{FAMILIES[other].label}{f' ({note})' if note else ''}"
    print(f"{key} at {load:.2f}: {FAMILIES[mine].label} {mean:+.0f} % [{low:+.0f}, {high:+.0f}] of {label}")


def drift(args: argparse.Namespace) -> None:
    """The game with nominal and with learned speeds, tuned alike where speeds wander; then both where they do not."""
    tuning = [Cell(args.dispatchers, args.report, load) for load in (0.75, 0.92) for _ in range(3)]
    make = FAMILIES["blend"].make
    nominal = Family("nominal speeds", make, FAMILIES["blend"].space, False)
    learned = Family("learned speeds", make, FAMILIES["blend"].space | {"speed": PRICE_SPACE["speed"]}, False)
    one, two = (tune(args.scenario, f, tuning, args.trials, args.tuning_requests, True) for f in (learned, nominal))
    print(f"{args.scenario}, D = {args.dispatchers}, reports every {args.report:g} s, {args.trials} trials each")
    print(f"learned speeds: {json.dumps(_round(one))}; nominal: {json.dumps(_round(two))}", flush=True)
    for wander in (True, False):
        for load in args.loads:
            cell, seeds = Cell(args.dispatchers, args.report, load), range(args.slices)
            mine, theirs = (
                figures(args.scenario, cell, make(prices), seeds, args.requests, True, drift=wander)
                for prices in (one, two)
            )
            text = ""
            for key in ("ttft_p99", "e2e_p99"):
                mean, low, high = paired(mine[key], theirs[key])
                both = f"{mine[key].mean():.2f} s, {theirs[key].mean():.2f} s nominal"
                text += f"; {key} {both}: {mean:+.0f} % [{low:+.0f}, {high:+.0f}]"
            print(f"speeds {'wander' if wander else 'stay'}, load {load:.2f}{text}", flush=True)


def _round(told: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in told.items()}


def speed() -> None:
    """Processor time of one decision in the compiled path and of one event-driven request in all; medians of the clock
    for a step and for a pick of a real router."""
    from numba import njit

    from games.lean import LEAN
    from hybridalloc.problems.balancer.chance import stream_of
    from hybridalloc.problems.balancer.core import advance, look, send

    @njit(**(LEAN | {"cache": False}))
    def again(sim, i, rule, belief, prices, room, stream, times):
        for _ in range(times):
            look(sim, i, room.seen)
            R.choose(sim, i, rule, belief, prices, False, room, stream)

    for replicas in (8, 64):
        law = Law(16, 1.0)
        sim = sim_of("synthetic", classes_of(replicas), law, Episode(0.85, 4000, True, 0.5), 0)
        room, stream = R.new_room(16, sim.fleet.share), stream_of(0)
        for k in range(2000):
            send(sim, advance(sim), k % replicas)
        i = advance(sim)
        for view in ("own", "blend", "learned"):
            given = (sim, i, Rule(GAME), VIEWS.index(view), BalancerPrices(noise=0.1), room, stream)
            again(*given, 10)
            began = time.process_time()
            again(*given, 100_000)
            print(f"{replicas} replicas, {view}: {1e6 * (time.process_time() - began) / 100_000:.2f} us a decision")
        problem = make_problem("balancer", replicas=replicas, dispatchers=16)
        allocator, state = Allocator(problem, "game"), problem.reset(seed=0)
        took = []
        for _ in range(300):
            began = time.perf_counter()
            allocator.step(state)
            took.append(time.perf_counter() - began)
        print(f"{replicas} replicas, Allocator.step with its certificate: {1e3 * np.median(took):.2f} ms, median")
        picker, took = Picker([Replica(str(k), 1.0 + k % 3) for k in range(replicas)], 4), []
        for k in range(2000):
            picker.report(str(k % replicas), k % 5, k % 7, 0.1)
            began = time.perf_counter()
            picker.pick(500.0)
            took.append(time.perf_counter() - began)
        print(f"{replicas} replicas, Picker.pick of a real router: {1e6 * np.median(took):.0f} us, median")
        whole = sim_of("synthetic", classes_of(replicas), law, Episode(0.85, 4000, True, 0.5), 0)
        began = time.process_time()
        play(whole, Router())
        print(
            f"{replicas} replicas: {1e6 * (time.process_time() - began) / 4000:.2f} us a request, all events included"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="synthetic", choices=("synthetic", "azure", "mooncake"))
    parser.add_argument("--dispatchers", type=int, default=16)
    parser.add_argument("--report", type=float, default=1.0)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.7, 0.85, 0.95])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--tuning-requests", type=int, default=REQUESTS)
    parser.add_argument("--families", default="")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--drift", action="store_true")
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--out", default="")
    args = parser.parse_args()
    if args.speed:
        speed()
    else:
        (drift if args.drift else compare)(args)


if __name__ == "__main__":
    main()
