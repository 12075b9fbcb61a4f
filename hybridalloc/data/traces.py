"""Tables of numbers and names from CSV files, with every row that cannot be read listed by line and column."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridalloc.data.registry import DataError, open_text

SHOWN = 20  # bad entries that an error lists


class Column(NamedTuple):
    """What a column holds: ``kind`` int, float or str; ``low`` <= value; ``default`` where the column or an entry is
    absent, None where it must be there."""

    kind: type
    low: float = -np.inf
    unit: str = ""
    default: Any = None


class BadEntry(NamedTuple):
    """An entry that cannot be read: its line in the file (the header is line 1), its column, and what is wrong."""

    line: int
    column: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


class Table(NamedTuple):
    """Columns by name, (rows,) each, the line of each row, and what could not be read."""

    columns: dict[str, NDArray[Any]]
    line: NDArray[np.int64]
    bad: tuple[BadEntry, ...]

    def checked(self, path: Path) -> Table:
        """This table, or a DataError that lists every entry that could not be read."""
        if self.bad:
            more = f"\n  and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
            lines = "".join(f"\n  {entry}" for entry in self.bad[:SHOWN])
            raise DataError(
                f"{path}: {len(self.bad)} entries cannot be used; mend them or remove their rows:{lines}{more}"
            )
        return self


def read_table(path: Path, columns: Mapping[str, Column]) -> Table:
    """Read the named columns of a CSV file with a header; other columns are passed over.

    Raises:
        DataError: no file, no text, or a column is missing; lists the columns that there are.
    """
    try:
        with open_text(path) as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name, column in columns.items() if name not in header and column.default is None]
            if missing:
                raise DataError(
                    f"{path}, line 1: column {missing[0]} is missing; the columns are {', '.join(header) or 'none'}"
                )
            at = {name: header.index(name) if name in header else -1 for name in columns}
            rows, lines = [], []
            for row in reader:
                if any(entry.strip() for entry in row):
                    rows.append(row)
                    lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    bad: list[BadEntry] = []
    found: dict[str, NDArray[Any]] = {}
    for name, column in columns.items():
        values = [_entry(row, at[name], column) for row in rows]
        bad += [BadEntry(lines[k], name, v) for k, (ok, v) in enumerate(values) if not ok]
        kept = [v if ok else (column.kind() if column.default is None else column.default) for ok, v in values]
        found[name] = np.array(kept, dtype=object if column.kind is str else column.kind)
    return Table(found, np.array(lines, np.int64), tuple(sorted(bad)))


def _entry(row: list[str], at: int, column: Column) -> tuple[bool, Any]:
    """Whether an entry can be used, and its value, or what is wrong with it."""
    text = row[at].strip() if 0 <= at < len(row) else ""
    if not text:
        return (True, column.default) if column.default is not None else (False, "it is empty")
    if column.kind is str:
        return True, text
    try:
        value = float(text)
    except ValueError:
        return False, f"{text[:40]!r} is not a number"
    unit = f" {column.unit}" if column.unit else ""
    if not np.isfinite(value):
        return False, f"{text[:40]} is not finite"
    if column.kind is int and value != int(value):
        return False, f"{text[:40]} is not a whole number"
    if value < column.low:
        return False, f"{text[:40]} is below {column.low:g}{unit}"
    return True, column.kind(value)
