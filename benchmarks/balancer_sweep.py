"""One setting of each router for every number of dispatchers and every period of reports, as a page.

    python benchmarks/balancer_sweep.py --keep sweep.jsonl --page docs/balancer-sweep.md

Each router of ``benchmarks/balancer.py`` is tuned once, over many numbers of dispatchers, periods and loads together,
by as many trials of one search on the first half of a trace; then it is played, as it is, on five slices of the second
half in every cell. What is in ``--keep`` is not measured again, so that a run that is cut off goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import balancer as bench  # beside this file; it finds the house
import numpy as np

DISPATCHERS, PERIODS_S, LOADS = (1, 4, 16, 64), (0.0, 0.25, 1.0, 4.0, 8.0), (0.7, 0.85, 0.95)
REQUESTS = {"synthetic": 3000, "azure": 3000, "mooncake": 2500}  # of a slice: the same horizon for all
GAMES = ("blend", "learned", "game own", "report", "corrected")
FIELD = ("wrr", "p2c/c", "own/c", "li", "prefix/c", "llm-d*", "llm-d/c", "prequal/c")
SHORT = {
    "game own": "own only", "report": "reports", "wrr": "round robin", "p2c/c": "two choices", "own/c": "own in flight",
    "li": "load interpretation", "prefix/c": "prefix affinity", "llm-d*": "llm-d", "llm-d/c": "llm-d, capacities",
    "prequal/c": "Prequal",
}  # fmt: skip
METRICS = {
    "ttft_mean": "TTFT mean, s", "ttft_p95": "p95", "ttft_p99": "p99", "e2e_mean": "end-to-end mean, s",
    "e2e_p95": "p95", "e2e_p99": "p99", "throughput": "requests/s", "utilisation": "busy, %", "jain": "Jain",
    "hits": "cached, %",
}  # fmt: skip
PERCENT = ("utilisation", "hits")
JUDGED = {"ttft_p99": "TTFT p99", "ttft_mean": "TTFT mean", "e2e_p99": "end-to-end p99"}
HEAD = """`{command}` wrote this page ([what is compared](balancer.md#against-the-field)).

Every router is tuned once, by {trials} trials of one search on the first half of a trace, over all numbers of routers
and stale periods together, and then played as it is on {count} slices of the second half ({slices}): 1 to 64 routers
before eight replicas, reports every 0 (always fresh) to 8 s, at three loads of the measured capacity. Round robin is
weighted; two choices, own in flight, prefix affinity, Prequal and one of llm-d's are given the capacities, which is
added here. In published form are round robin, load interpretation and llm-d's weights, tuned."""
WORST = """*Worse* and *better* count the cells of {many} in which the whole 95 % interval is above or below 0; about
{chance:.1f} would be each by chance alone."""
Found = dict[bench.Cell, dict[str, np.ndarray]]


def cells() -> list[bench.Cell]:
    return [bench.Cell(d, t, load) for load in LOADS for d in DISPATCHERS for t in PERIODS_S]


def tuned(scenario: str, name: str, trials: int) -> dict[str, float]:
    """One setting over all numbers of dispatchers and stale periods, at two loads in turn."""
    over = [
        bench.Cell(d, t, (0.75, 0.92)[(i + j) % 2])
        for i, d in enumerate(DISPATCHERS)
        for j, t in enumerate((0.25, 1.0, 4.0))
    ]
    return bench.tune(scenario, bench.FAMILIES[name], over, trials)


class Kept:
    """A file of lines: what was tuned and measured so far."""

    def __init__(self, path: str) -> None:
        self.path = Path(path) if path else None
        lines = self.path.read_text().splitlines() if self.path and self.path.exists() else []
        self.known = {tuple(key): value for key, value in map(json.loads, lines)}

    def get(self, key: tuple, make):
        if key not in self.known:
            self.known[key] = make()
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps([key, self.known[key]]) + "\n")
        return self.known[key]


def measured(
    scenario: str, names: Sequence[str], trials: int, slices: int, kept: Kept
) -> tuple[dict[str, dict[str, float]], dict[str, Found]]:
    """The settings and the metrics (slices,) of every router in every cell."""
    told: dict[str, dict[str, float]] = {}
    found: dict[str, Found] = {}
    for name in names:
        told[name] = kept.get((scenario, name, trials), lambda name=name: tuned(scenario, name, trials))
        router, found[name] = bench.FAMILIES[name].make(told[name]), {}
        for cell in cells():
            rows = kept.get(
                (scenario, name, trials, slices, *cell),
                lambda cell=cell, router=router: {
                    key: values.tolist()
                    for key, values in bench.figures(
                        scenario, cell, router, range(slices), REQUESTS[scenario], True
                    ).items()
                },
            )
            found[name][cell] = {key: np.array(values) for key, values in rows.items()}
        print(f"{scenario} {name}: {json.dumps(bench._round(told[name]))}", flush=True)
    return told, found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def interval(x: tuple[float, float, float]) -> str:
    return f"{x[0]:+.0f} % [{x[1]:+.0f}, {x[2]:+.0f}]"


def short(name: str) -> str:
    return SHORT.get(name, name)


def at(cell: bench.Cell) -> list[str]:
    return [f"{cell.load:.2f}", str(cell.dispatchers), f"{cell.report_s:g}"]


def worst(found: dict[str, Found]) -> list[str]:
    """The largest paired difference of one setting, over all cells, and how many are beyond their interval."""
    rows = []
    for key, label in JUDGED.items():
        for mine in ("blend", "learned"):
            for other in ("game own", "report", "corrected"):
                pairs = [(c, bench.paired(found[mine][c][key], found[other][c][key])) for c in cells()]
                cell, most = max(pairs, key=lambda p: p[1][0])
                cell_low, least = min(pairs, key=lambda p: p[1][0])
                where = lambda c: f"{c.load:.2f}, {c.dispatchers}, {c.report_s:g} s"
                rows.append([
                    label, mine, short(other), interval(most), where(cell), interval(least), where(cell_low),
                    str(sum(r[1] > 0 for _, r in pairs)), str(sum(r[2] < 0 for _, r in pairs)),
                ])  # fmt: skip
    head = [
        "", "of", "against", "worst", "at load, routers, period", "best", "at", f"worse of {len(cells())}", "better",
    ]  # fmt: skip
    return table(head, rows)


def page(scenario: str, told: dict, found: dict[str, Found]) -> list[str]:
    names = list(found)
    field = [n for n in FIELD if n in found and bench.FAMILIES[n].published]
    many = len(cells())
    lines = [f"## {scenario}", "", WORST.format(many=many, chance=0.025 * many), "", *worst(found)]
    lines += ["TTFT p99 in s, mean of the slices:", ""]
    rows = [[*at(c), *(f"{found[n][c]['ttft_p99'].mean():.2f}" for n in names)] for c in cells()]
    lines += table(["load", "routers", "period, s", *map(short, names)], rows)
    lines += ["The blend's TTFT p99 against others, paired over slices; the best published form is the cell's own:", ""]
    rows = []
    for c in cells():
        best = min(field, key=lambda n: found[n][c]["ttft_p99"].mean())
        pairs = (bench.paired(found["blend"][c]["ttft_p99"], found[n][c]["ttft_p99"]) for n in (*GAMES[2:], best))
        rows.append([*at(c), *map(interval, pairs), short(best)])
    lines += table(["load", "routers", "period, s", *map(short, GAMES[2:]), "best published", "which"], rows)
    for name in ("blend", "own/c"):
        lines += [f"All metrics, {bench.FAMILIES[name].label}:", ""]
        rows = []
        for c in cells():
            means = {key: found[name][c][key].mean() * (100 if key in PERCENT else 1) for key in METRICS}
            rows.append([*at(c), *(f"{v:.3f}" if k == "jain" else f"{v:.3g}" for k, v in means.items())])
        lines += table(["load", "routers", "period, s", *METRICS.values()], rows)
    lines += ["Settings that were found:", ""]
    rows = [[short(n), ", ".join(f"{k} {v:g}" for k, v in bench._round(told[n]).items()) or "none"] for n in names]
    return lines + table(["router", "settings"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=["azure", "mooncake"], choices=list(REQUESTS))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--slices", type=int, default=bench.SLICES)
    parser.add_argument("--keep", default="", help="a file of what is measured, read and written")
    parser.add_argument("--page", default="", help="a file for the page; printed without")
    args = parser.parse_args()
    kept, asked = Kept(args.keep), f"--trials {args.trials} --slices {args.slices}"
    command = f"python benchmarks/balancer_sweep.py --scenarios {' '.join(args.scenarios)} {asked}"
    slices = " and ".join(f"{REQUESTS[s]:,} requests on {s}" for s in args.scenarios)
    lines = ["# One setting for every number of routers and every age of reports", ""]
    lines += [HEAD.format(command=command, trials=args.trials, count=args.slices, slices=slices), ""]
    for scenario in args.scenarios:
        told, found = measured(scenario, (*GAMES, *FIELD), args.trials, args.slices, kept)
        lines += page(scenario, told, found)
    text = "\n".join(lines).rstrip() + "\n"
    if args.page:
        Path(args.page).write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
