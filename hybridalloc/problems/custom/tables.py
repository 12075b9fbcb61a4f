"""A custom problem from three tables: jobs, servers and, if not every job reaches every server, links.

    jobs     name, work [units]; deadline_s, delay_cost, priority, opt_out_cost, power_limit_w, moving_cost (optional)
    servers  name, capacity [units/s], 0 where it is down; wait_s, full_power_w (optional)
    links    job, server; cost (private cost), work (units there, instead of the job's own) (optional)

A table is the path of a CSV file, a pandas frame, or a mapping of columns. An empty cell takes the default. Other
columns are left alone, and a warning names them; one that is nearly the name of a column that is not there is refused.
A table of jobs without rows is a step without jobs; one of servers without rows is refused, as an export that failed
looks the same. Errors name the file, the line (of a frame: the row), the column, the value and the remedy.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from games.errors import InvalidStateError
from hybridalloc.problems.custom.state import MISSED, NO_DEADLINE, NO_LIMIT, OUT, UNSERVED, default_delay_cost
from hybridalloc.problems.state import as_name, echo, read_array, read_json

LARGEST = 100_000_000  # bytes of a file
NAMED = 8  # columns or names in a note
MOST_PAIRS = 50_000_000  # jobs x servers: 400 MB for each array of pairs
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
MOVING = 0.3  # default cost of leaving where a job was, in deadlines of delay: see benchmarks/moves.py
TYPO = 0.7  # likeness above which a column's name is taken for a misspelt one
MISSING = {"na", "n/a", "<na>", "nan", "nat", "none", "null"}  # what programs write where a name is missing


class TableNote(UserWarning):
    """Something in a table that was left alone."""


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
    "opt_out_cost": Column(), "power_limit_w": Column(above=0, unit="W"), "moving_cost": Column(low=0),
}  # fmt: skip
SERVERS = {
    "name": Column(True, text=True), "capacity": Column(True, low=0, unit="units/s"),
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
    job, server = read_table("jobs", jobs, JOBS), read_table("servers", servers, SERVERS)
    if not server.rows:
        raise InvalidStateError(f"{server.source} has no rows; write one a server")
    n, k = len(job.rows), len(server.rows)
    if n * k > MOST_PAIRS:
        raise InvalidStateError(
            f"{job.source} has {n:,} jobs and {server.source} {k:,} servers; at most {MOST_PAIRS:,} pairs of them are "
            "taken: allocate in parts"
        )
    at_job, at_server = index_of(job), index_of(server)
    work = np.repeat(numbers_of(job, "work", 0.0)[:, None], k, axis=1)
    private, allowed = np.zeros((n, 1 + k)), np.ones((n, 1 + k), bool)
    if links is not None:
        link = read_table("links", links, LINKS)
        allowed[:, 1:] = False
        seen: dict[tuple[int, int], str] = {}
        for row, entry in enumerate(link.rows):
            i = find_row(link, row, "job", at_job, job.source)
            r = find_row(link, row, "server", at_server, server.source)
            if (i, r) in seen:
                raise InvalidStateError(
                    f"{link.where(row, 'server')}: {echo(entry['job'], 40)} and {echo(entry['server'], 40)} are linked "
                    f"already in {seen[i, r]}; delete one of the two"
                )
            seen[i, r] = link.places[row]
            allowed[i, 1 + r] = True
            private[i, 1 + r] = entry.get("cost") or 0.0
            work[i, r] = entry.get("work") or work[i, r]
        for r in range(k if n else 0):
            if not allowed[:, 1 + r].any():
                raise InvalidStateError(
                    f"{server.where(r, 'name')}: no job reaches server {echo(server.rows[r]['name'], 40)}; add a row "
                    f"for it to {link.source}, or delete the server"
                )
    deadline = numbers_of(job, "deadline_s", NO_DEADLINE)
    timed = deadline < NO_DEADLINE
    draw = np.repeat(numbers_of(server, "full_power_w", 0.0)[None], n, axis=0)
    return {
        "work": work, "capacity": numbers_of(server, "capacity", 1.0), "deadline_s": deadline, "private_cost": private,
        "allowed": allowed, "delay_cost": numbers_of(job, "delay_cost", default_delay_cost(deadline)),
        "opt_out_cost": numbers_of(job, "opt_out_cost", np.where(timed, MISSED, UNSERVED)),
        "priority": numbers_of(job, "priority", 0.0), "moving_cost": numbers_of(job, "moving_cost", math.nan),
        "wait_s": numbers_of(server, "wait_s", 0.0), "full_power_w": draw,
        "power_limit_w": numbers_of(job, "power_limit_w", NO_LIMIT), "names": tuple(row["name"] for row in job.rows),
    }, [row["name"] for row in server.rows]  # fmt: skip


def placed(arrays: dict[str, Any], servers: list[str], previous: Any, moving_cost: Any) -> dict[str, Any]:
    """The arrays of :func:`read_tables` with where each job was and what leaving that costs.

    Args:
        servers: their names. previous: a file that ``step`` wrote or a mapping of job to server by their names; None.
            Who or what is not there any more is left out. moving_cost: of jobs without one in the table; default
            ``MOVING`` where previous places are given, else 0.
    """
    names = arrays["names"]
    cost = np.full(len(names), MOVING if previous is not None else 0.0)
    if moving_cost is not None:
        given = read_array("moving_cost", moving_cost, "N")
        if given.shape not in ((), (len(names),)):
            raise InvalidStateError(
                f"moving_cost has shape {given.shape}; it is one number, or one for each of {len(names)} jobs"
            )
        cost = np.broadcast_to(given, cost.shape)
    told = arrays["moving_cost"]
    was = np.full(len(names), -1)
    if previous is not None:
        at = {name: 1 + r for r, name in enumerate(servers)} | {OUT: 0}
        before = read_previous(previous)
        was = np.array([at.get(before.get(name, ""), -1) for name in names], np.int64)
        if before and len(names) and not any(name in before for name in names):
            warnings.warn(
                f"previous: none of its {len(before)} jobs is among these {len(names)}, so that all are new; jobs are "
                "known by their names",
                TableNote, stacklevel=3,
            )  # fmt: skip
    return arrays | {"moving_cost": np.where(np.isnan(told), cost, told), "previous": was}


def read_previous(given: Any) -> dict[str, str]:
    """Where each job was: its option's name, as ``step --json`` and ``step --out`` write it, by the job's name.

    Raises:
        InvalidStateError: no such file, or not one that ``step`` wrote; says what is expected.
    """
    if isinstance(given, Mapping):
        return {str(as_name(job)): str(as_name(place)) for job, place in given.items()}
    if not isinstance(given, str | Path):
        raise InvalidStateError(
            f"previous is a {type(given).__name__}; give the path of what `step --out` wrote, or a mapping of jobs to "
            "servers"
        )
    path = Path(given)
    wanted = "what `step --json` or `step --out FILE` wrote (.json or .csv)"
    remedy = f"give {wanted}, and leave it out where there is none yet"
    if path.suffix.lower() == ".csv":
        source, header, cells, places = from_csv("previous", path, remedy)
        for name in ("job", "goes_to"):
            if name not in header:
                raise InvalidStateError(f"{source}, line 1, column {name!r}: missing; --previous reads {wanted}")
        table = Table(source, [dict(zip(header, row, strict=True)) for row in cells], places)
        return {row["job"].strip(): row["goes_to"].strip() for row in table.rows}
    told = read_json(_bytes("previous", path, remedy).decode("utf-8-sig", "replace"), _short(path))
    jobs = told.get("jobs") if isinstance(told, Mapping) else None
    if not isinstance(jobs, list) or not all(isinstance(row, Mapping) and {"name", "option"} <= {*row} for row in jobs):
        raise InvalidStateError(f"{_short(path)} has no list 'jobs' of name and option; --previous reads {wanted}")
    return {str(row["name"]): str(row["option"]) for row in jobs}


def read_table(label: str, given: Any, columns: Mapping[str, Column]) -> Table:
    """A table of known columns, from a CSV file, a frame or a mapping; an InvalidStateError names what does not fit."""
    if isinstance(given, str | Path):
        source, header, cells, places = from_csv(label, Path(given))
    else:
        source, header, cells, places = from_columns(label, given)
    for name in header:
        if header.count(name) > 1:
            raise InvalidStateError(f"{source}, line 1, column {echo(name, 40)}: appears twice; delete or rename one")
        close = difflib.get_close_matches(name[:60], [c for c in columns if c not in header], n=1, cutoff=TYPO)
        if name not in columns and close:
            raise InvalidStateError(
                f"{source}, line 1, column {echo(name, 40)}: unknown; did you mean {close[0]!r}? Rename or delete it"
            )
    for name, rule in columns.items():
        if rule.required and name not in header:
            there = echo(", ".join(header) or "none", 100)[1:-1]
            raise InvalidStateError(f"{source}, line 1, column {name!r}: missing; the columns there are: {there}")
    if extra := [name for name in header if name not in columns]:
        named = ", ".join(echo(name, 40) for name in extra[:NAMED]) + (" ..." if len(extra) > NAMED else "")
        warnings.warn(
            f"{source}: column{'s' * (len(extra) > 1)} {named} ignored; known columns: {', '.join(columns)}",
            TableNote, stacklevel=2,
        )  # fmt: skip
    table = Table(source, [], places)
    for k, row in enumerate(cells):
        told = zip(header, row, strict=True)
        table.rows.append(
            {name: _cell(table, k, name, columns[name], value) for name, value in told if name in columns}
        )
    return table


Parts = tuple[str, list[str], Iterable[Any], list[str]]  # source, header, rows of cells, where each row stands


def _bytes(label: str, path: Path, remedy: str) -> bytes:
    """A file, if it is none too large."""
    source = _short(path)
    try:
        with path.open("rb") as stream:  # a pipe will do
            raw = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a name that a file can have"
        raise InvalidStateError(f"{label}: {source} cannot be read ({reason}); {remedy}") from None
    if len(raw) > LARGEST:
        raise InvalidStateError(f"{source} has more than {LARGEST // 10**6} MB; at most as many are read: split it")
    return raw


def from_csv(label: str, path: Path, remedy: str = "give the path of a CSV file") -> Parts:
    """A file's name, header, cells and where each row stands; an InvalidStateError for what is no CSV in UTF-8."""
    source, raw = _short(path), _bytes(label, path, remedy)
    for mark, coding in ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):
        if raw.startswith(mark):
            raise InvalidStateError(f"{source} is text in {coding}; save it as CSV in UTF-8")
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise InvalidStateError(f"{source}, line {line}: a NUL byte; this is no text file: save it as CSV in UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        wrong = raw[error.start : error.start + 1]
        raise InvalidStateError(
            f"{source}, line {line}: {wrong!r} is not text in UTF-8; save it as CSV in UTF-8"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    cells, places = [], []
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header):
            raise InvalidStateError(f"{source}, line 1: a line of column names is needed")
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise InvalidStateError(
                    f"{source}, line {reader.line_num}: {len(row)} cells under {len(header)} columns; quote a cell "
                    "that holds a comma"
                )
            cells.append(row)
            places.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise InvalidStateError(
            f"{source}, line {reader.line_num}: not CSV ({error}); look for a quote that is not closed"
        ) from None
    return source, header, cells, places


def from_columns(label: str, given: Any) -> Parts:
    """A pandas frame (or whatever has columns by name), or a mapping of columns of one length."""
    header, columns = [], []
    if isinstance(given, Mapping):
        header, columns = list(given), list(given.values())
    elif hasattr(given, "to_dict") and hasattr(given, "columns") and hasattr(given, "items"):
        for name, values in given.items():  # a name that is there twice comes twice
            header.append(name)
            columns.append(values)
    else:
        raise InvalidStateError(
            f"{label} is a {type(given).__name__}; give the path of a CSV file, a pandas frame or a mapping of columns"
        )
    names = [str(name).strip() for name in header]
    listed = []
    for name, values in zip(names, columns, strict=True):
        try:
            if isinstance(values, str | bytes | Mapping):
                raise TypeError
            listed.append(list(values))
        except TypeError:
            raise InvalidStateError(
                f"{label}, column {echo(name, 40)}: {echo(values)} is not a list; give one of cells"
            ) from None
        if len(listed[-1]) != len(listed[0]):
            raise InvalidStateError(
                f"{label}: columns differ in length: {echo(names[0], 40)} has {len(listed[0])}, {echo(name, 40)} "
                f"{len(listed[-1])}"
            )
    count = len(listed[0]) if listed else 0
    return label, names, zip(*listed, strict=True), [f"row {k}" for k in range(count)]


def _cell(table: Table, row: int, column: str, rule: Column, value: Any) -> Any:
    """A cell's text or number; None where it is empty."""
    empty = not value.strip() if isinstance(value, str) else _missing(value)
    if empty and rule.required:
        raise InvalidStateError(f"{table.where(row, column)}: empty; this column needs a value in every row")
    if empty:
        return None
    if rule.text:
        name = as_name(value)
        if not name or name.lower() in MISSING:
            told = "how programs write a missing value; write another name" if name else "not a name; write text"
            raise InvalidStateError(f"{table.where(row, column)}: {echo(value)} is {told}")
        return name
    wanted = "a number"
    if math.isfinite(rule.above):
        wanted += f" > {rule.above:g}"
    elif math.isfinite(rule.low):
        wanted += f" >= {rule.low:g}"
    wanted += f" {rule.unit}" if rule.unit else ""
    number = _number(value)
    if number is None:
        digits = isinstance(value, str) and any(map(str.isdigit, value))
        hint = " as in 1234.5, without separators" if digits else ""
        raise InvalidStateError(f"{table.where(row, column)}: {echo(value)} is not a number; write {wanted}{hint}")
    if not math.isfinite(number) or number < rule.low or number <= rule.above:
        shown = echo(value.strip())[1:-1] if isinstance(value, str) else echo(value)
        raise InvalidStateError(f"{table.where(row, column)}: {shown} is out of range; write {wanted}")
    return number


def _missing(value: Any) -> bool:
    """None, NaN, and pandas' NA and NaT."""
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _number(value: Any) -> float | None:
    """A cell as a number, infinite where it is too large for one; None where it is none."""
    if isinstance(value, str):
        return float(value) if NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool | np.bool_ | np.ndarray) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _short(path: Path, most: int = 100) -> str:
    """A path as a message shows it: its end where it is long, and nothing that a terminal obeys."""
    text = str(path)
    text = text if len(text) <= most else "..." + text[3 - most :]
    return text if text.isprintable() else repr(text)[1:-1]


def numbers_of(table: Table, column: str, default: Any) -> Any:
    """(rows,) a column as numbers, empty cells by the default (one number, or one a row)."""
    fill = np.broadcast_to(np.asarray(default, float), (len(table.rows),))
    given = [row.get(column) for row in table.rows]
    return np.array([fill[k] if value is None else value for k, value in enumerate(given)], dtype=np.float64)


def index_of(table: Table) -> dict[str, int]:
    """The row of each name; an InvalidStateError for one that is used twice."""
    found: dict[str, int] = {}
    for k, row in enumerate(table.rows):
        if row["name"] in found:
            raise InvalidStateError(
                f"{table.where(k, 'name')}: {echo(row['name'])} is used already in {table.places[found[row['name']]]}; "
                "names are unique: rename one"
            )
        found[row["name"]] = k
    return found


def find_row(link: Table, row: int, column: str, known: Mapping[str, int], where: str) -> int:
    """The row that a cell names; an InvalidStateError for a name that is not in ``where``, with the nearest."""
    name = link.rows[row][column]
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name[:60], list(known)[:1000], n=1, cutoff=0.5)
    hint = f"did you mean {echo(close[0], 40)}?" if close else "add it there, or delete this row"
    raise InvalidStateError(f"{link.where(row, column)}: {echo(name, 40)} is not in {where}; {hint}")
