"""A seed's table again: our setting, our figure, the seed's figure, and whether the order is kept.

Runs lie as a suite's do, a comparison a row in a folder of its own; the same command goes on with what was stopped.
All rows of a folder have one budget, which its record says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hybridalloc.errors import CheckpointError, PlaceError, nearest
from hybridalloc.experiments.again import again, under
from hybridalloc.experiments.asked import as_asked
from hybridalloc.experiments.jobs import whole_json
from hybridalloc.experiments.runlog import strict
from hybridalloc.experiments.seeds import TABLES
from hybridalloc.experiments.seeds import page as pages
from hybridalloc.experiments.seeds.table import Table
from hybridalloc.experiments.settings import problem_of
from hybridalloc.experiments.suite import (
    DONE_FILE,
    LOCK,
    Suite,
    budget_of,
    check_suite,
    done,
    engine_of,
    run_row,
    settings_of,
)
from hybridalloc.files import write_text
from hybridalloc.places import check_folder, locked
from hybridalloc.text import quoted

RECORD = "reproduce.json"
AGAIN = "again"  # folder of a run without training, in its row's


def table_of(name: str) -> Table:
    """A table by its name; an UnknownNameError lists the nearest."""
    if name not in TABLES:
        raise nearest("table", name, TABLES)
    return TABLES[name]


def reproduce(name: str, suite: Suite, say: Callable[[str], None] = lambda text: None) -> str:
    """Run what is left of a table's comparisons and write its page.

    Args:
        suite: its ``out`` (default runs/reproduce-<name>, or of the table whose runs it reads), ``budget``, ``only``
            (rows; what they begin from is run too), workers, engine, store; its size says the budget that ``budget``
            changes.

    Returns:
        the page, Markdown; it is written to <out>/<name>.md too.

    Raises:
        UnknownNameError, ValueError: no such table, size or row, or a number out of its range.
        PlaceError: the folder cannot be written, or is being worked in.
        CheckpointError: its runs have another budget, or are another table's; says what differs.
    """
    table = table_of(name)
    check_suite(suite, table.names)
    if suite.methods:
        raise ValueError(f"methods = {quoted(suite.methods)}; the rows of a table have their own: leave methods out")
    home = table.home or name
    wanted = set(suite.only or table.names)
    wanted |= {one.of for key, one in table.again.items() if key in wanted}
    with ExitStack() as stack:
        stack.enter_context(engine_of(suite))
        folder = check_folder("--out", suite.out or f"runs/reproduce-{home}").resolve()
        if not stack.enter_context(locked(folder / LOCK)):
            raise PlaceError(f"--out {folder} is being worked on by another process; wait for it, or give another")
        record = as_asked(
            folder / RECORD, {"table": home, "budget": budget_of(suite)}, "a table's runs", f"reproduce-{home}"
        )
        for number, key in enumerate(table.names, start=1):
            if key not in wanted:
                continue
            place = folder / key
            if done(place) is None:
                say(f"{key}: row {number} of {len(table.names)}")
                if key in table.runs:
                    row, methods = table.runs[key]
                    run_row(place, row, suite, methods, f"reproduce-{home}")
                else:
                    _again(folder, table, key, suite)
            write_text(folder / f"{name}.md", _page(name, folder, record))
    told = _page(name, folder, record)
    write_text(folder / f"{name}.md", told)
    return told


def page(name: str, folder: Path) -> str:
    """The table from what is done in a folder, without running anything."""
    record = whole_json(folder / RECORD)
    return _page(name, folder, record if isinstance(record, dict) else {})


def _page(name: str, folder: Path, record: Mapping[str, Any]) -> str:
    flags = {"agent_steps": "--agent-steps", "train_seeds": "--train-seeds", "report_seeds": "--report-seeds"}
    flags["tuning"] = "--tuning"
    budget = record.get("budget", {})
    words = [f"{flags[part]} {value}" for part, value in budget.items() if part in flags]
    command = " ".join(["hybridalloc reproduce", name, *words]) if words else ""
    return pages.page(name, table_of(name), folder, command)


def _again(folder: Path, table: Table, key: str, suite: Suite) -> None:
    """Evaluate what another run of the table trained, and mark it as done."""
    asked = table.again[key]
    source = done(folder / asked.of)
    if source is None:
        raise CheckpointError(f"{folder / asked.of} is not done, and {key} begins where it ended; run it first")
    problem = under(problem_of(settings_of(asked.row, suite)), asked.shift)
    seeds = budget_of(suite)["report_seeds"]
    found = again(source, problem, asked.methods, min(seeds, asked.most_seeds or seeds), suite.workers)
    place = folder / key
    write_text(place / AGAIN / "results.json", json.dumps(strict(found), allow_nan=False))
    write_text(place / DONE_FILE, json.dumps({"folder": AGAIN}) + "\n")
