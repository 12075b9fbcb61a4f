"""A custom problem from three tables: jobs, servers and, if not every job reaches every server, links.

    jobs     name, work [units]; deadline_s, delay_cost, priority, opt_out_cost, power_limit_w (all optional)
    servers  name, capacity [units/s]; wait_s, full_power_w (optional)
    links    job, server; cost (private cost), work (units there, instead of the job's own) (optional)

A table is the path of a CSV file, a pandas frame, or a mapping of columns. An empty cell takes the default. Errors
name the file, the line (of a frame: the row), the column, the value and the remedy.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from games.errors import InvalidStateError
from hybridalloc.problems.custom import MISSED, NO_DEADLINE, NO_LIMIT, UNSERVED, default_delay_cost


@dataclass(frozen=True)
class Column:
    """A column's rule: required, least value (``above`` where that itself is not permitted)."""

    required: bool = False
    text: bool = False
    low: float = -math.inf
    above: float = -math.inf
    unit: str = ""


JOBS = {
    "name": Column(True, text=True), "work": Column(True, above=0, unit="units"),
    "deadline_s": Column(above=0, unit="s"), "delay_cost": Column(above=0, unit="1/s"), "priority": Column(),
    "opt_out_cost": Column(), "power_limit_w": Column(above=0, unit="W"),
}  # fmt: skip
SERVERS = {
    "name": Column(True, text=True), "capacity": Column(True, above=0, unit="units/s"),
    "wait_s": Column(low=0, unit="s"),
    "full_power_w": Column(low=0, unit="W"),
}  # fmt: skip
LINKS = {
    "job": Column(True, text=True), "server": Column(True, text=True), "cost": Column(),
    "work": Column(above=0, unit="units"),
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Checked rows, and where each stands: ``where(k, "work")`` is "jobs.csv, line 4, column 'work'"."""

    source: str
    rows: list[dict[str, Any]]
    places: list[str]

    def where(self, row: int, column: str) -> str:
        return f"{self.source}, {self.places[row]}, column {column!r}"


def read_tables(jobs: Any, servers: Any, links: Any = None) -> tuple[dict[str, Any], list[str]]:
    """The arrays of a :class:`CustomState` and the servers' names.

    Raises:
        InvalidStateError: a missing file or column, text in a number, a value out of range, a name that is used twice
            or not known, a server that no job reaches.
    """
    for label, given in (("jobs", jobs), ("servers", servers)):
        if given is None:
            raise InvalidStateError(f"{label} is missing; custom from tables needs jobs= and servers=")
    job, server = _read("jobs", jobs, JOBS), _read("servers", servers, SERVERS)
    for table in (job, server):
        if not table.rows:
            raise InvalidStateError(f"{table.source} has no rows; write one a {'job' if table is job else 'server'}")
    n, k = len(job.rows), len(server.rows)
    at_job, at_server = _index(job), _index(server)
    work = np.repeat(_numbers(job, "work", 0.0)[:, None], k, axis=1)
    private, allowed = np.zeros((n, 1 + k)), np.ones((n, 1 + k), bool)
    if links is not None:
        link = _read("links", links, LINKS)
        allowed[:, 1:] = False
        seen: dict[tuple[int, int], str] = {}
        for row, entry in enumerate(link.rows):
            i = _find(link, row, "job", at_job, job.source)
            r = _find(link, row, "server", at_server, server.source)
            if (i, r) in seen:
                raise InvalidStateError(
                    f"{link.where(row, 'server')}: {entry['job']!r} and {entry['server']!r} are linked already in "
                    f"{seen[i, r]}; delete one of the two"
                )
            seen[i, r] = link.places[row]
            allowed[i, 1 + r] = True
            private[i, 1 + r] = entry.get("cost") or 0.0
            work[i, r] = entry.get("work") or work[i, r]
        for r in range(k):
            if not allowed[:, 1 + r].any():
                raise InvalidStateError(
                    f"{server.where(r, 'name')}: no job reaches server {server.rows[r]['name']!r}; add a row for it to "
                    f"{link.source}, or delete the server"
                )
    deadline = _numbers(job, "deadline_s", NO_DEADLINE)
    timed = deadline < NO_DEADLINE
    draw = np.repeat(_numbers(server, "full_power_w", 0.0)[None], n, axis=0)
    return {
        "work": work, "capacity": _numbers(server, "capacity", 1.0), "deadline_s": deadline, "private_cost": private,
        "allowed": allowed, "delay_cost": _numbers(job, "delay_cost", default_delay_cost(deadline)),
        "opt_out_cost": _numbers(job, "opt_out_cost", np.where(timed, MISSED, UNSERVED)),
        "priority": _numbers(job, "priority", 0.0), "wait_s": _numbers(server, "wait_s", 0.0), "full_power_w": draw,
        "power_limit_w": _numbers(job, "power_limit_w", NO_LIMIT), "names": tuple(row["name"] for row in job.rows),
    }, [row["name"] for row in server.rows]  # fmt: skip


def _read(label: str, given: Any, columns: Mapping[str, Column]) -> Table:
    if isinstance(given, str | Path):
        source, header, cells, places = _from_csv(label, Path(given))
    else:
        source, header, cells, places = _from_columns(label, given)
    for name in header:
        if name not in columns:
            close = difflib.get_close_matches(name, [c for c in columns if c not in header], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known columns: {', '.join(columns)}"
            raise InvalidStateError(f"{source}, line 1, column {name!r}: unknown; {hint}")
    for name, rule in columns.items():
        if rule.required and name not in header:
            there = ", ".join(header) or "none"
            raise InvalidStateError(f"{source}, line 1, column {name!r}: missing; the columns there are: {there}")
    table = Table(source, [], places)
    for k, row in enumerate(cells):
        table.rows.append({name: _cell(table, k, name, columns[name], value) for name, value in row.items()})
    return table


def _from_csv(label: str, path: Path) -> tuple[str, list[str], list[dict[str, Any]], list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            if not any(header):
                raise InvalidStateError(f"{path}, line 1: a line of column names is needed")
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                raise InvalidStateError(f"{path}, line 1, column {twice!r}: appears twice; delete or rename one")
            cells, places = [], []
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise InvalidStateError(
                        f"{path}, line {reader.line_num}: {len(row)} cells under {len(header)} columns; quote a cell "
                        "that holds a comma"
                    )
                cells.append(dict(zip(header, row, strict=True)))
                places.append(f"line {reader.line_num}")
    except OSError as error:
        raise InvalidStateError(
            f"{label}: {path} cannot be read ({error.strerror}); give the path of a CSV file"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidStateError(f"{path} is not a CSV file in UTF-8 ({error}); save it as one") from None
    return str(path), header, cells, places


def _from_columns(label: str, given: Any) -> tuple[str, list[str], list[dict[str, Any]], list[str]]:
    """A pandas frame (or whatever has ``to_dict("list")``), or a mapping of columns of one length."""
    columns = given if isinstance(given, Mapping) else None
    if columns is None and hasattr(given, "to_dict"):
        columns = given.to_dict("list")
    if columns is None:
        raise InvalidStateError(
            f"{label} is a {type(given).__name__}; give the path of a CSV file, a pandas frame or a mapping of columns"
        )
    table = {str(name): list(values) for name, values in columns.items()}
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidStateError(f"{label}: columns differ in length: {lengths}")
    count = next(iter(lengths.values()), 0)
    rows = [{name: values[k] for name, values in table.items()} for k in range(count)]
    return label, list(table), rows, [f"row {k}" for k in range(count)]


def _cell(table: Table, row: int, column: str, rule: Column, value: Any) -> Any:
    """A cell's text or number; None where it is empty."""
    empty = value is None or (isinstance(value, str) and not value.strip())
    empty = empty or (not rule.text and isinstance(value, float) and math.isnan(value))
    if empty:
        if rule.required:
            raise InvalidStateError(f"{table.where(row, column)}: empty; this column needs a value in every row")
        return None
    if rule.text:
        return str(value).strip()
    wanted = "a number"
    if math.isfinite(rule.above):
        wanted += f" > {rule.above:g}"
    elif math.isfinite(rule.low):
        wanted += f" >= {rule.low:g}"
    wanted += f" {rule.unit}" if rule.unit else ""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidStateError(f"{table.where(row, column)}: {value!r} is not a number; write {wanted}") from None
    if not math.isfinite(number) or number < rule.low or number <= rule.above:
        raise InvalidStateError(f"{table.where(row, column)}: {value} is out of range; write {wanted}")
    return number


def _numbers(table: Table, column: str, default: Any) -> Any:
    """(rows,) a column as numbers, empty cells by the default (one number, or one a row)."""
    fill = np.broadcast_to(np.asarray(default, float), (len(table.rows),))
    given = [row.get(column) for row in table.rows]
    return np.array([fill[k] if value is None else value for k, value in enumerate(given)])


def _index(table: Table) -> dict[str, int]:
    found: dict[str, int] = {}
    for k, row in enumerate(table.rows):
        if row["name"] in found:
            raise InvalidStateError(
                f"{table.where(k, 'name')}: {row['name']!r} is used already in {table.places[found[row['name']]]}; "
                "names are unique: rename one"
            )
        found[row["name"]] = k
    return found


def _find(link: Table, row: int, column: str, known: Mapping[str, int], where: str) -> int:
    name = link.rows[row][column]
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InvalidStateError(f"{link.where(row, column)}: {name!r} is not in {where}{hint}")
