"""A seed's table as a page: ours with its interval, the document's beside it, the order, claims, contradictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import kendalltau

from hybridalloc.experiments.seeds.table import Cell, Claim, Column, Part, Table
from hybridalloc.experiments.suite import done
from hybridalloc.reports.statistics import Interval, mean_interval, paired_difference
from hybridalloc.reports.summary import NONE, number

FEW = 5  # training seeds, below which nothing is said to be better
MOST_TURNED = 6  # pairs that are named where an order is not kept
Stored = Mapping[str, Mapping[str, Any]]  # whole comparisons by the run's name


class Ours(NamedTuple):
    """A row's figures by column; without those that are not there."""

    cell: Cell
    figures: dict[str, Interval]


def stored(table: Table, folder: Path) -> dict[str, Mapping[str, Any]]:
    """What is done of a table's runs, by name."""
    places = {name: done(folder / name) for name in table.names}
    return {
        name: json.loads((place / "results.json").read_text(encoding="utf-8"))
        for name, place in places.items()
        if place is not None
    }


def page(name: str, table: Table, folder: Path, command: str = "") -> str:
    """Markdown of a table from what is done of it in ``folder``; ``command`` makes it again."""
    runs = stored(table, folder)
    lines = [f"# {table.title}", ""]
    lines += [f"Made by `{command}`; a larger budget moves the figures.", ""] if command and runs else []
    for part in table.parts:
        lines += _part(part, runs)
    lines += [*_settings(table, runs), ""]
    if table.why:
        lines += ["Where it is not as in the document:", "", *(f"- {reason}" for reason in table.why), ""]
    lines += ["What the document contradicts itself in, or leaves open:", "", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _part(part: Part, runs: Stored) -> list[str]:
    rows = [_ours(cell, part.columns, runs) for cell in part.cells]
    lines = [f"## {part.heading}", ""] if part.heading else []
    theirs = {c.key for c in part.columns if any(c.key in cell.theirs for cell in part.cells)}
    heads = [f"{c.label}, ours | the seed's" if c.key in theirs else c.label for c in part.columns]
    if rows:
        lines.append("| row | " + " | ".join(heads) + " |")
        lines.append("|---" + "".join("|---:|---:" if c.key in theirs else "|---:" for c in part.columns) + "|")
    for row in rows:
        cells = []
        for c in part.columns:
            cells.append(_text(row.figures.get(c.key), c.digits))
            if c.key in theirs:
                cells.append(_plain(row.cell.theirs.get(c.key)))
        lines.append(f"| {row.cell.label} | {' | '.join(cells)} |")
    lines += [""] * bool(rows)
    told = [*(_order(c, rows) for c in part.columns if c.key in theirs), *(_claim(c, runs) for c in part.claims)]
    lines += [*(f"- {sentence}" for sentence in told), ""] if told else []
    return lines + ([*(f"- {sentence}" for sentence in part.about), ""] if part.about else [])


def _ours(cell: Cell, columns: Sequence[Column], runs: Stored) -> Ours:
    found = {}
    for column in columns if cell.row in runs else ():
        matrix = column.read(runs[cell.row], cell.method, column.key)
        if np.isfinite(matrix).any():
            found[column.key] = mean_interval(matrix)
    return Ours(cell, found)


def _text(figure: Interval | None, digits: int) -> str:
    if figure is None:
        return NONE
    known = np.isfinite(figure.low) and np.isfinite(figure.high)
    span = f" [{number(figure.low, digits)}, {number(figure.high, digits)}]" if known else ""
    return f"{number(figure.mean, digits)}{span}"


def _plain(value: float | None) -> str:
    return NONE if value is None else f"{value:,g}"


def _order(column: Column, rows: Sequence[Ours]) -> str:
    """Whether our figures of a column order the rows as the document's do, ties apart; otherwise which are turned."""
    key = column.key
    both = [row for row in rows if key in row.cell.theirs]
    there = [row for row in both if key in row.figures]
    if len(there) < 2:
        return f"{column.label}: {len(there)} of {len(both)} rows are done; an order needs two."
    ours, theirs = [r.figures[key].mean for r in there], [r.cell.theirs[key] for r in there]
    turned = [
        (a, b)
        for a, b in combinations(there, 2)
        if (a.figures[key].mean - b.figures[key].mean) * (a.cell.theirs[key] - b.cell.theirs[key]) < 0
    ]
    tau = kendalltau(ours, theirs).statistic
    size = f"Kendall's tau {tau:.2f}, {len(there)} rows" if np.isfinite(tau) else f"{len(there)} rows, all alike"
    if not turned:
        return f"{column.label}: order kept, {size}."
    apart = [pair for pair in turned if _apart(*(row.figures[key] for row in pair))]
    named = "; ".join(f"{a.cell.label} and {b.cell.label}" for a, b in apart[:MOST_TURNED])
    more = f" and {len(apart) - MOST_TURNED} more" if len(apart) > MOST_TURNED else ""
    pairs = "one pair" if len(turned) == 1 else f"{len(turned)} pairs"
    if not apart:
        return f"{column.label}: order not kept, {size}: {pairs} turned, each within the rows' intervals."
    beyond = f"{len(apart)} beyond the rows' intervals" if len(apart) < len(turned) else "beyond the rows' intervals"
    return f"{column.label}: order not kept, {size}: {pairs} turned, {beyond}: {named}{more}."


def _apart(a: Interval, b: Interval) -> bool:
    """Whether two intervals are both known and do not touch."""
    return a.low > b.high or b.low > a.high


def _claim(claim: Claim, runs: Stored) -> str:
    """A claim with our differences, each with its interval over common seeds."""
    other = claim.against or claim.row
    head = f'"{claim.text}": {claim.column.label}, '
    if not {claim.row, other} <= runs.keys():
        return head + "not run yet."
    read, sign = claim.column.read, 1.0 if claim.column.better == "higher" else -1.0
    mine = read(runs[claim.row], claim.method, claim.column.key)
    told, seeds = [], 0
    for name in claim.others:
        theirs = read(runs[other], name, claim.column.key)
        wide = min(mine.shape[1], theirs.shape[1])
        d = paired_difference(mine[:, :wide], theirs[:, :wide])
        label = next((m["label"] for m in runs[other]["methods"] if m["key"] == name), name)
        if not d.pairs:
            told.append(f"{label} not measured")
            continue
        seeds = max(seeds, d.training_seeds)
        base = abs(float(np.nanmean(theirs)))
        share = lambda x, base=base: f"{number(100 * x / base, 1, sign=True)} %" if base > 0 else NONE
        span = f" [{share(d.low)}, {share(d.high)}]" if np.isfinite(d.low) else ""
        low, high = (sign * d.low, sign * d.high) if sign > 0 else (-d.high, -d.low)
        word = "undecided" if not (low > 0 or high < 0) else ("as claimed" if low > 0 else "the other way round")
        told.append(f"{label} {share(d.mean)}{span}, {word}")
    few = f" Of {seeds} training seeds: no more than a direction." if 0 < seeds < FEW else ""
    return f"{head}against {'; '.join(told)}.{few}"


def _settings(table: Table, runs: Stored) -> list[str]:
    if not runs:
        return ["- No run is done yet."]
    lines = []
    first: dict[tuple[Any, ...], list[str]] = {}
    for name, run in runs.items():
        budget, seeds = run["budget"], run["seeds"]
        told = (len(seeds["train"]), budget["agent_steps"], len(seeds["report"]), budget["tuning_trials"])
        first.setdefault(told, []).append(name)
    for (trained, steps, reported, trials), names in first.items():
        which = f" ({', '.join(names)})" if len(first) > 1 else ""
        lines.append(
            f"- Ours{which}: {trained} training seeds of {steps:,} agent-steps, {reported} reporting seeds, {trials} "
            "tuning trials."
        )
    commits = dict.fromkeys(str(run["git_commit"])[:16] for run in runs.values())
    lines.append(f"- {len(runs)} of {len(table.names)} comparisons done, at commit {', '.join(commits)}.")
    problems = dict.fromkeys(str(run["problem"]) for run in runs.values())
    lines.append(f"- Problems: {'; '.join(problems)}.")
    return lines
