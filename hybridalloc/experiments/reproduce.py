"""A seed's table again: our setting, our figure, the seed's figure, and whether the order is kept.

Runs lie as a suite's do, a comparison a row in a folder of its own; the same command goes on with what was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import kendalltau

from hybridalloc.errors import PlaceError, nearest
from hybridalloc.experiments.seed_tables import COLUMNS, TABLES, Cell, Table
from hybridalloc.experiments.suite import LOCK, Suite, done, engine_of, run_row
from hybridalloc.files import write_text
from hybridalloc.machines import check_engine
from hybridalloc.places import check_folder, locked
from hybridalloc.reports.statistics import mean_interval
from hybridalloc.reports.summary import NONE, number

PAGE = "table.md"


class Ours(NamedTuple):
    """A cell's figures by metric: mean and 95 % interval; empty where its run is not done."""

    cell: Cell
    figures: dict[str, tuple[float, float, float]]


def table_of(name: str) -> Table:
    """A table by its name; an UnknownNameError lists the nearest."""
    if name not in TABLES:
        raise nearest("table", name, TABLES)
    return TABLES[name]


def reproduce(name: str, suite: Suite, say: Callable[[str], None] = lambda text: None) -> str:
    """Run what is left of a table's comparisons and write its page.

    Args:
        suite: its ``out`` (default runs/reproduce-<name>), ``budget``, ``only`` (rows), workers, engine, store; its
            size says the budget that ``budget`` changes.

    Returns:
        the page, Markdown; it is written to <out>/table.md too.

    Raises:
        UnknownNameError: no such table or row. PlaceError: the folder cannot be written, or is being worked in.
    """
    table = table_of(name)
    for asked in suite.only:
        if asked not in table.runs:
            raise nearest("row", asked, table.runs)
    check_engine(suite.engine, suite.address)
    folder = check_folder("--out", suite.out or f"runs/reproduce-{name}").resolve()
    with locked(folder / LOCK) as held, ExitStack() as stack:
        if not held:
            raise PlaceError(f"--out {folder} is being worked on by another process; wait for it, or give another")
        stack.enter_context(engine_of(suite))
        for number_, (key, (row, methods)) in enumerate(table.runs.items(), start=1):
            if suite.only and key not in suite.only:
                continue
            place = folder / key
            if done(place) is None:
                say(f"{key}: row {number_} of {len(table.runs)}")
                run_row(place, row, suite, methods, f"reproduce-{name}")
            write_text(folder / PAGE, page(name, folder))
    told = page(name, folder)
    write_text(folder / PAGE, told)
    return told


def page(name: str, folder: Path) -> str:
    """The table from what is done: ours with its interval, the seed's beside it, the order, the contradictions."""
    table = table_of(name)
    rows = [_ours(cell, folder) for cell in table.cells]
    columns = [key for key in COLUMNS if any(key in cell.theirs for cell in table.cells)]
    lines = [
        f"# {table.title}",
        "",
        "| row | " + " | ".join(f"{COLUMNS[k]}, ours | the seed's" for k in columns) + " |",
    ]
    lines.append("|---" + "|---:|---:" * len(columns) + "|")
    for row in rows:
        told = [f"{_text(row.figures.get(key))} | {_plain(row.cell.theirs.get(key))}" for key in columns]
        lines.append(f"| {row.cell.label} | {' | '.join(told)} |")
    lines += ["", *(f"- {sentence}" for sentence in _orders(rows, columns)), *_settings(table, folder)]
    lines += ["", "What the document contradicts itself in:", "", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _ours(cell: Cell, folder: Path) -> Ours:
    place = done(folder / cell.row)
    if place is None:
        return Ours(cell, {})
    comparison = json.loads((place / "results.json").read_text(encoding="utf-8"))
    values: dict[str, Any] = next((m["values"] for m in comparison["methods"] if m["key"] == cell.method), {})
    found = {}
    for key in COLUMNS:
        matrix = np.atleast_2d(np.asarray(values.get(key, []), dtype=float))
        matrix = matrix[:, np.isfinite(matrix).all(axis=0)] if matrix.size else matrix
        if matrix.size:
            interval = mean_interval(matrix)
            found[key] = (interval.mean, interval.low, interval.high)
    return Ours(cell, found)


def _text(figure: tuple[float, float, float] | None) -> str:
    if figure is None:
        return NONE
    mean, low, high = figure
    span = "" if not np.isfinite(low) else f" [{number(low, 2)}, {number(high, 2)}]"
    return f"{number(mean, 2)}{span}"


def _plain(value: float | None) -> str:
    return NONE if value is None else f"{value:g}"


def _orders(rows: Sequence[Ours], columns: Sequence[str]) -> list[str]:
    """For each column whether our figures order the rows as the seed's do, ties apart."""
    told = []
    for key in columns:
        both = [(r.figures[key][0], r.cell.theirs[key]) for r in rows if key in r.figures and key in r.cell.theirs]
        if len(both) < 2:
            told.append(f"{COLUMNS[key]}: {len(both)} of {len(rows)} rows are done; an order needs two.")
            continue
        ours, theirs = (np.array(side) for side in zip(*both, strict=True))
        kept = not any((a - b) * (c - d) < 0 for a, c in both for b, d in both)
        tau = kendalltau(ours, theirs).statistic
        told.append(
            f"{COLUMNS[key]}: order {'kept' if kept else 'not kept'}, Kendall's tau {tau:.2f}, {len(both)} rows."
        )
    return told


def _settings(table: Table, folder: Path) -> list[str]:
    places = [(key, place) for key in table.runs if (place := done(folder / key)) is not None]
    if not places:
        return ["- No run is done yet."]
    record: dict[str, Any] = json.loads((places[0][1] / "comparison.json").read_text(encoding="utf-8"))
    budget, seeds, row = record["budget"], record["seeds"], table.runs[places[0][0]][0]
    return [
        f"- Ours: {row.problem}, set {dict(row.flags)['scenario']}, {len(seeds['train'])} training seeds of "
        f"{budget['agent_steps']:,} agent-steps, {len(seeds['report'])} reporting seeds, {budget['tuning_trials']} "
        f"tuning trials; {len(places)} of {len(table.runs)} comparisons done, at commit "
        f"{str(record['git_commit'])[:16]}."
    ]
