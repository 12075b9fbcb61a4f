"""Jobs that hold what they ask for, from tables: each resource is a column on both sides.

    jobs     name, demand:gpu, demand:memory_gb, ... [units]; count, apart, team, priority, moving_cost (optional)
    servers  name, held:gpu, held:memory_gb, ... [units]
    links    job, server; cost (optional): the servers that a job may take, and what that costs it
    quota    team, quota:gpu, ...: what a team may have in all; an empty cell is no limit

Tables are read, and what is wrong with them is told, as in :mod:`hybridalloc.problems.custom.tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from games.errors import InvalidStateError
from hybridalloc.problems.custom.held.problem import Held, make_held
from hybridalloc.problems.custom.tables import (
    Column,
    Table,
    find_row,
    from_columns,
    from_csv,
    index_of,
    numbers_of,
    read_previous,
    read_table,
)  # fmt: skip
from hybridalloc.problems.state import echo

JOBS = {
    "name": Column(True, text=True), "count": Column(low=1, unit="servers"), "apart": Column(text=True),
    "team": Column(text=True), "priority": Column(), "moving_cost": Column(low=0),
}  # fmt: skip
SERVERS = {"name": Column(True, text=True)}
LINKS = {"job": Column(True, text=True), "server": Column(True, text=True), "cost": Column()}
QUOTA = {"team": Column(True, text=True)}
HELD, DEMAND, LIMIT = "held:", "demand:", "quota:"


def names_held(servers: Any) -> bool:
    """Whether a table of servers has a column of what is held; a pipe, that can be read but once, is not looked at."""
    if isinstance(servers, str | Path) and not Path(servers).is_file():
        return False
    return any(name.startswith(HELD) for name in _header("servers", servers))


def held_from_tables(
    jobs: Any, servers: Any, links: Any = None, quota: Any = None, previous: Any = None,
    moving_cost: float | None = None,
) -> Held:  # fmt: skip
    """The problem of the tables.

    Args:
        previous: where each job was, by name: a file that ``step --out`` wrote, or a mapping of job to its (first)
            server. moving_cost: what leaving that costs, of jobs without one in the table; default 0.

    Raises:
        InvalidStateError: names the file, the line, the column, the value and the remedy.
    """
    if jobs is None:
        raise InvalidStateError("jobs is missing; custom from tables needs jobs= and servers=")
    server = _table("servers", servers, SERVERS, HELD)
    resources = _names(server[1], HELD)
    job = _table("jobs", jobs, JOBS, DEMAND)
    for name in _names(job[1], DEMAND):
        if name not in resources:
            raise InvalidStateError(
                f"{job[0].source}, line 1, column {echo(DEMAND + name, 40)}: no server has it; {server[0].source} has "
                f"columns for {', '.join(resources)}"
            )
    if not _names(job[1], DEMAND):
        such = DEMAND + resources[0]
        raise InvalidStateError(f"{job[0].source}, line 1: what jobs take is missing; add columns such as {such}")
    rows, hosts, columns = job[0], server[0], job[1]
    at_job, at_host = index_of(rows), index_of(hosts)
    arrays: dict[str, Any] = {"priority": numbers_of(rows, "priority", 0.0), "count": _counts(rows)}
    for name in ("apart", "team"):
        if name in columns:
            arrays[name] = [row.get(name) or "" for row in rows.rows]
    n, k = len(rows.rows), len(hosts.rows)
    if links is not None:
        link = read_table("links", links, LINKS)
        arrays |= {"allowed": np.zeros((n, k), bool), "cost": np.zeros((n, k))}
        seen: dict[tuple[int, int], str] = {}
        for row, entry in enumerate(link.rows):
            i, r = find_row(link, row, "job", at_job, rows.source), find_row(link, row, "server", at_host, hosts.source)
            if (i, r) in seen:
                raise InvalidStateError(
                    f"{link.where(row, 'server')}: linked already in {seen[i, r]}; delete one of them"
                )
            seen[i, r] = link.places[row]
            arrays["allowed"][i, r], arrays["cost"][i, r] = True, entry.get("cost") or 0.0
    if previous is not None:
        was = read_previous(previous)
        arrays["previous"] = np.array([1 + at_host.get(was.get(row["name"], ""), -1) for row in rows.rows], np.int64)
        arrays["moving_cost"] = numbers_of(rows, "moving_cost", moving_cost or 0.0)
    return make_held(
        {name: numbers_of(rows, DEMAND + name, 0.0) for name in _names(columns, DEMAND)},
        {name: numbers_of(hosts, HELD + name, 0.0) for name in resources},
        servers=[row["name"] for row in hosts.rows], names=[row["name"] for row in rows.rows],
        quota=None if quota is None else _quota(quota), **arrays,
    )  # fmt: skip


def _quota(given: Any) -> Mapping[str, Mapping[str, float]]:
    table, columns = _table("quota", given, QUOTA, LIMIT)
    out: dict[str, dict[str, float]] = {}
    for k, row in enumerate(table.rows):
        if row["team"] in out:
            raise InvalidStateError(f"{table.where(k, 'team')}: {echo(row['team'])} is there already; one row a team")
        out[row["team"]] = {n: row[LIMIT + n] for n in _names(columns, LIMIT) if row[LIMIT + n] is not None}
    return out


def _counts(table: Table) -> Any:
    count = numbers_of(table, "count", 1.0)
    for k in np.flatnonzero(count != np.floor(count))[:1]:
        raise InvalidStateError(f"{table.where(int(k), 'count')}: {count[k]:g} is no whole number of servers")
    return count.astype(np.int64)


def _header(label: str, given: Any) -> list[str]:
    return (from_csv(label, Path(given)) if isinstance(given, str | Path) else from_columns(label, given))[1]


def _table(label: str, given: Any, known: Mapping[str, Column], prefix: str) -> tuple[Table, list[str]]:
    """The rows, and the names of the columns."""
    header = _header(label, given)
    held = {name: Column(low=0, unit="units") for name in header if name.startswith(prefix)}
    table = read_table(label, given, dict(known) | held)
    if label != "jobs" and not table.rows:
        raise InvalidStateError(f"{table.source} has no rows; write one a {'team' if label == 'quota' else 'server'}")
    return table, header


def _names(header: list[str], prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in header if name.startswith(prefix)]
