"""One's own cluster from two CSV files, checked entry by entry: nothing is dropped in silence.

Nodes, a row each: ``name``, ``cpu_milli``, ``memory_mib``, ``gpu`` (0 to 8), and where there are kinds ``model``. Jobs,
a row each: ``cpu_milli``, ``memory_mib``, ``num_gpu``, ``gpu_milli`` (1000 for whole GPUs; 1 to 999 for a part of one),
and optionally ``name``, ``creation_time`` and ``deletion_time`` (s). The public trace of openb is written so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hybridalloc.data.traces import BadEntry, Column, Table, read_table
from hybridalloc.problems.cluster.workload import SLOTS, WHOLE, Workload, gathered, stays_of

NODES = {
    "name": Column(str), "cpu_milli": Column(int, 0, "milli"), "memory_mib": Column(int, 0, "MiB"),
    "gpu": Column(int, 0), "model": Column(str, default="one"),
}  # fmt: skip
JOBS = {
    "name": Column(str, default="-"), "cpu_milli": Column(int, 0, "milli"), "memory_mib": Column(int, 0, "MiB"),
    "num_gpu": Column(int, 0), "gpu_milli": Column(int, 0, "milli"), "creation_time": Column(float, 0, "s", -1.0),
    "deletion_time": Column(float, 0, "s", -1.0),
}  # fmt: skip


class Own(NamedTuple):
    """Nodes (cpu, memory, gpus, model) with the models' names, and kinds of jobs (cpu, memory, gpus, milli, how many):
    plain numbers, so that a description holds them. ``stays``: (kind, creation, deletion in s, -1 for never) of each
    job, where they come and end by their times."""

    nodes: tuple[tuple[int, ...], ...]
    models: tuple[str, ...]
    jobs: tuple[tuple[int, ...], ...]
    stays: tuple[tuple[float, ...], ...] = ()


def read_own(nodes: str | Path, jobs: str | Path, timed: bool = False) -> Own:
    """The cluster of two files; ``timed``: jobs come and end by their times, and each needs its creation_time.

    Raises:
        DataError: a file or column is missing, or entries cannot be used: every one with its line and column.
    """
    node, job = _nodes(Path(nodes)), _jobs(Path(jobs), timed)
    models, model = np.unique(node.columns["model"].astype(str), return_inverse=True)
    have = np.stack([node.columns[key] for key in ("cpu_milli", "memory_mib", "gpu")] + [model.ravel()], 1)
    asked = np.stack([job.columns[key] for key in ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")], 1)
    kinds, of, count = np.unique(asked, axis=0, return_inverse=True, return_counts=True)
    rows = np.column_stack([kinds, count])
    plain = lambda table: tuple(tuple(map(int, row)) for row in table)
    begins, ends = (job.columns[key].tolist() for key in ("creation_time", "deletion_time"))
    stays = tuple(zip(of.ravel().tolist(), begins, ends, strict=True)) if timed else ()
    return Own(plain(have), tuple(models.tolist()), plain(rows), stays)


def _nodes(path: Path) -> Table:
    table = read_table(path, NODES)
    seen: dict[str, int] = {}
    bad = list(table.bad)
    for line, name, gpus in zip(table.line, table.columns["name"], table.columns["gpu"], strict=True):
        if name in seen and name:
            bad.append(BadEntry(int(line), "name", f"{name!r} is the node of line {seen[name]} too; names are unique"))
        seen.setdefault(name, int(line))
        if gpus > SLOTS:
            bad.append(BadEntry(int(line), "gpu", f"{gpus} GPUs; a node has up to {SLOTS}"))
    return table._replace(bad=_sorted(bad)).checked(path)


def _jobs(path: Path, timed: bool) -> Table:
    table = read_table(path, JOBS)
    c, bad = table.columns, list(table.bad)
    broken = {entry.line for entry in bad}
    rows = zip(table.line, c["num_gpu"], c["gpu_milli"], c["creation_time"], c["deletion_time"], strict=True)
    for line, gpus, milli, begins, ends in rows:
        if line in broken:
            continue
        if milli > WHOLE or (gpus == 1 and milli == 0) or (gpus > 1 and milli != WHOLE) or (gpus == 0 and milli > 0):
            rule = f"a job takes 1 to {WHOLE} of one GPU, {WHOLE} of each of several, 0 of none"
            bad.append(BadEntry(int(line), "gpu_milli", f"{milli} of each of {gpus} GPUs; {rule}"))
        if timed and begins < 0:
            bad.append(BadEntry(int(line), "creation_time", "it is empty; jobs that come by their times need one each"))
        if 0 <= ends < begins:
            bad.append(BadEntry(int(line), "deletion_time", f"{ends:g} s is before its creation_time, {begins:g} s"))
    return table._replace(bad=_sorted(bad)).checked(path)


def _sorted(bad: Iterable[BadEntry]) -> tuple[BadEntry, ...]:
    return tuple(sorted(bad))


def workload_of(own: Own) -> Workload:
    """The workload of a cluster of one's own."""
    nodes, jobs = np.array(own.nodes, np.int64).reshape(-1, 4), np.array(own.jobs, np.int64).reshape(-1, 5)
    columns = dict(zip(("cpu", "memory", "gpus", "model"), nodes.T, strict=True))
    work = gathered("trace", columns, own.models, np.repeat(jobs[:, :4], jobs[:, 4], 0))
    if own.stays:
        kind, begins, ends = np.array(own.stays, np.float64).T
        pods = np.stack(work.pods, 1)
        known = np.array([int(np.flatnonzero((pods == row).all(1))[0]) for row in jobs[:, :4]])
        work.stays = stays_of(known[kind.astype(np.int64)], begins, ends)
    return work


def describe(own: Own) -> str:
    """What two files hold, for who wants to know before anything is run: sizes, demand, and who fits nowhere."""
    nodes, jobs = np.array(own.nodes, np.int64).reshape(-1, 4), np.array(own.jobs, np.int64).reshape(-1, 5)
    count, gpu = jobs[:, 4], jobs[:, 2] * jobs[:, 3]
    have = int(nodes[:, 2].sum())
    share = lambda x, of: f"{100 * x / of:.1f} %" if of else "nothing there"
    cores, memory = ((jobs[:, k] * count).sum() for k in (0, 1))
    lines = [
        f"nodes      {len(nodes):,}, {have:,} GPUs, {nodes[:, 0].sum() / 1000:,.0f} cores, "
        f"{nodes[:, 1].sum() / 1024:,.0f} GiB; models {', '.join(own.models) or 'none'}",
        f"jobs       {count.sum():,} of {len(jobs):,} kinds",
        f"demand     GPUs {share((gpu * count).sum() / WHOLE, have)}, cores {share(cores, nodes[:, 0].sum())}, "
        f"memory {share(memory, nodes[:, 1].sum())}",
        "by GPUs    " + ", ".join(
            f"{word} {count[mine].sum():,}" for word, mine in (
                ("none", jobs[:, 2] == 0), ("a share", (jobs[:, 2] == 1) & (jobs[:, 3] < WHOLE)),
                ("one", (jobs[:, 2] == 1) & (jobs[:, 3] == WHOLE)), ("2 to 7", (jobs[:, 2] > 1) & (jobs[:, 2] < SLOTS)),
                ("8 and more", jobs[:, 2] >= SLOTS),
            )
        ),
    ]  # fmt: skip
    return "\n".join([*lines, *fit_nowhere(own)])


def fit_nowhere(own: Own) -> tuple[str, ...]:
    """Who is larger than any empty node, a line a kind, the most numerous first; () where all fit."""
    nodes, jobs = np.array(own.nodes, np.int64).reshape(-1, 4), np.array(own.jobs, np.int64).reshape(-1, 5)
    within = np.asarray(jobs[:, None, :3] <= nodes[None, :, :3])
    kinds = jobs[~np.asarray(within.all(axis=2)).any(axis=1)]
    kinds = kinds[np.argsort(-kinds[:, 4], kind="stable")]
    lines = [
        f"fits nowhere  {row[4]:,} jobs of {row[0]} milli, {row[1]} MiB, {row[2]} GPUs: no empty node is as large; "
        "each is refused as it comes"
        for row in kinds[:SLOTS]
    ]
    rest = kinds[SLOTS:, 4]
    return (*lines, *([f"fits nowhere  {rest.sum():,} jobs of {len(rest):,} other kinds"] if len(rest) else []))
