"""Jobs that hold what they ask for: where each goes and what it lacks, for the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from hybridalloc.allocation import Allocation
from hybridalloc.problems.custom.held.problem import Held
from hybridalloc.problems.custom.held.state import HeldState
from hybridalloc.reports.step import table
from hybridalloc.text import printable

TOLD = 20  # jobs left out, of which the reason is told


def servers_of(problem: Held, state: HeldState, allocation: Allocation, job: int) -> list[str]:
    """The servers a job stands on, its first first."""
    return [problem.hosts[r] for r in state.stands_on(job, int(allocation.option[job]))]


def as_json(problem: Held, state: HeldState, allocation: Allocation) -> dict[str, Any]:
    """``allocation.to_dict()`` with names: each job's first server as ``option``, all of them, and for who has none
    the reason."""
    jobs = []
    for i, o in enumerate(allocation.option.tolist()):
        on = servers_of(problem, state, allocation, i)
        row = {"name": state.label(i), "option": on[0] if on else "opt out", "servers": on, "served": bool(o)}
        jobs.append(row if o else row | {"why": allocation.why(i).reason})
    return allocation.to_dict() | {"jobs": jobs}


def as_csv(problem: Held, state: HeldState, allocation: Allocation) -> str:
    """A row a job: job, goes_to (its first server), servers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["job", "goes_to", "servers"])
    for i in range(state.agents):
        on = servers_of(problem, state, allocation, i)
        writer.writerow([state.label(i), on[0] if on else "opt out", " ".join(on)])
    return out.getvalue()


def as_text(problem: Held, state: HeldState, allocation: Allocation) -> str:
    """How many have a place, who goes where, what is held of each server, what those left out lack, the certificate."""
    option = np.asarray(allocation.option)
    placed = [", ".join(map(printable, servers_of(problem, state, allocation, i))) for i in range(state.agents)]
    parts = [f"{int((option > 0).sum())} of {int(state.active.sum())} have a place\n"]
    parts.append(table(["job", "goes to"], [[printable(state.label(i)), on or "-"] for i, on in enumerate(placed)]))
    used = np.zeros(state.capacity.shape)
    for i, o in enumerate(option.tolist()):
        for r in state.stands_on(i, o):
            used[r] += state.demand[i]
    held = [
        [printable(name), *(f"{used[r, d]:g} of {state.capacity[r, d]:g}" for d in range(len(problem.resources)))]
        for r, name in enumerate(problem.hosts)
    ]
    parts.append(table(["server", *map(printable, problem.resources)], held))
    out = np.flatnonzero(state.active & (option == 0)).tolist()
    parts += [f"{printable(state.label(i))} waits: {allocation.why(i).reason}" for i in out[:TOLD]]
    if len(out) > TOLD:
        parts.append(f"and {len(out) - TOLD} more wait; --json tells of each")
    c = allocation.certificate
    broken = "; ".join(printable(line, 300) for line in c.violations)
    told = "feasible" if c.feasible else f"NOT feasible: {broken}"
    parts.append(f"\n{told}; regret {c.regret:.3g}; by {c.source}, {printable(c.status, 300)}")
    return "\n".join(parts)
