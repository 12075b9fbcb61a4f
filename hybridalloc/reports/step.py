"""An allocation of a custom problem for the terminal, as JSON with names beside the numbers, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from games.congestion import Float, Int
from hybridalloc.allocation import Allocation
from hybridalloc.problems.custom.problem import Custom
from hybridalloc.problems.custom.remedies import LARGE, remedies, ways_shown
from hybridalloc.problems.custom.state import NO_DEADLINE, CustomPrices, CustomState
from hybridalloc.text import printable, strict

TRIED = 6  # agents at most for whom what would admit them is worked out; fewer, but one, where it takes long
LONG = 40  # rows of a table; a longer one is cut to as many, what counts first
NAMED, GROUPS = 4, 4  # names of a group in the first line, and groups


def as_json(
    problem: Custom, state: CustomState, allocation: Allocation, prices: CustomPrices | None = None
) -> dict[str, Any]:
    """``allocation.to_dict()`` with names, times, prices by resource and what would admit who was left out: for the
    first by priority, for the rest ``would_be_served`` is None."""
    ways = remedies(problem, state, allocation, prices, _tried(problem, allocation), ways_shown(problem, allocation))
    return {"summary": summary(problem, state, allocation)} | allocation.to_dict() | strict({
        "jobs": [
            {
                "name": state.label(i), "option": problem.option_name(int(o)), "served": bool(allocation.served[i]),
                "share": {f: float(s[i]) for f, s in allocation.shares.items() if s[i] > 0},
                "time_s": float(t) if np.isfinite(t) else None,
            }
            for i, (o, t) in enumerate(zip(allocation.option, problem.times(state, allocation), strict=True))
        ],
        "price_of": _prices(problem, allocation),
        "unserved": [
            {"name": state.label(i),
             "would_be_served": [way.text(problem, state) for way in ways[i]] if i in ways else None}
            for i in allocation.certificate.unserved
        ],
    })  # fmt: skip


def as_text(problem: Custom, state: CustomState, allocation: Allocation, prices: CustomPrices | None = None) -> str:
    """How many are served, who gets what, what each resource is worth, who was left out and what would admit them, the
    certificate."""
    parts = [f"{printable(summary(problem, state, allocation), None)}\n", _job_table(problem, state, allocation)]
    rows, priced = [], _prices(problem, allocation)
    for r, (name, price) in enumerate(priced.items()):
        family = allocation.shares[problem.families_of[r]]
        here = [i for i, o in enumerate(allocation.option) if o and r in problem.options[o - 1]]
        used = 100 * sum(float(family[i]) for i in here)
        rate = f"{state.capacity[r]:.4g}" if state.capacity[r] > 0 else "down"
        rows.append([printable(name), str(len(here)), f"{used:.1f}", rate, f"{price:.4g}"])
    cut = ""
    if len(rows) > LONG:
        first = np.argsort(-np.array(list(priced.values())), kind="stable")[:LONG]
        cut = f"; the {LONG} dearest of {len(rows)}"
        rows = [rows[r] for r in first]
    parts.append(table(["resource", "jobs", "used %", "units/s", "price"], rows))
    parts.append(f"price: what one more resource like it would save, in cost, at the margin{cut}")
    out = allocation.certificate.unserved
    tried = _tried(problem, allocation)
    left = remedies(problem, state, allocation, prices, tried, ways_shown(problem, allocation))
    if left:
        parts.append("\nnot served in time, by priority; each would be")
        for i, ways in left.items():
            texts = [printable(way.text(problem, state), 300) for way in ways]
            reaches = bool(state.active[i]) and (not state.allowed.size or bool(state.allowed[i, 1:].any()))
            none = "nowhere: no one change that was tried would do" if reaches else "nowhere: it reaches no server"
            name = printable(state.label(i))
            parts.append(f"  {name}: " + f"\n  {' ' * len(name)}  or ".join(texts or [none]))
        rest = [printable(state.label(i)) for i in out[len(tried) :]]
        if rest:
            parts.append(f"  and {len(rest)} more: {', '.join(rest[:TRIED])}{' ...' if len(rest) > TRIED else ''}")
    c = allocation.certificate
    bound = f"{c.epsilon_bound:.3g}" if np.isfinite(c.epsilon_bound) else "none"
    broken = [printable(violation, 300) for violation in c.violations]
    parts.append(
        f"\n{'feasible' if c.feasible else 'NOT feasible: ' + '; '.join(broken)}; regret {c.regret:.3g} "
        f"(bound {bound}); by {c.source}, {printable(c.status, 300)}"
    )
    return "\n".join(parts)


def summary(problem: Custom, state: CustomState, allocation: Allocation) -> str:
    """What counts in a line: "36 of 40 in time; left out: 3 of priority 5 (a, b, c), 1 of priority 1 (d)"."""
    timed = bool((state.deadline_s[state.active] < NO_DEADLINE).any())
    out, option = state.active & ~allocation.served, np.asarray(allocation.option)
    kept = f"{int((state.active & allocation.served).sum())} of {int(state.active.sum())}"
    parts = [f"{kept} {'in time' if timed else 'served'}"]
    for what, who in (("left out", out & (option == 0)), ("late", out & (option > 0))):
        if who.any():
            parts.append(f"{what}: {_by_priority(state, np.flatnonzero(who))}")
    ran = state.active & (state.previous > 0) & (option > 0)
    if moved := np.flatnonzero(ran & (option != state.previous)).tolist():
        parts.append(f"moved: {len(moved)} ({_named(state, moved)})")
    elif ran.any():
        parts.append("moved: nobody")
    if allocation.certificate.gap == 0:
        parts.append("no more can be served, class by class")
    elif allocation.certificate.gap > 0:
        parts.append(f"at most {allocation.certificate.gap:g} more can be served before a lower class counts")
    return "; ".join(parts)


def _by_priority(state: CustomState, who: Int) -> str:
    """Of some agents how many, and their names; by priority where not all have one."""
    if len(np.unique(state.priority[state.active])) == 1:
        return f"{len(who)} ({_named(state, who.tolist())})"
    levels = np.unique(state.priority[who])[::-1]
    groups = [(level, who[state.priority[who] == level].tolist()) for level in levels]
    said = [f"{len(them)} of priority {level:g} ({_named(state, them)})" for level, them in groups[:GROUPS]]
    if rest := sum(len(them) for _, them in groups[GROUPS:]):
        said.append(f"{rest} of lower ones")
    return ", ".join(said)


def _named(state: CustomState, who: Sequence[int]) -> str:
    return ", ".join(printable(state.label(i), 40) for i in who[:NAMED]) + (", ..." if len(who) > NAMED else "")


def _job_table(problem: Custom, state: CustomState, allocation: Allocation) -> str:
    """Where each job goes; of many jobs those that are not in time and those that moved come first."""
    seconds, agents = problem.times(state, allocation), range(state.agents)
    moved = state.active & (state.previous >= 0) & (np.asarray(allocation.option) != state.previous)
    told, cut = list(agents), ""
    if state.agents > LONG:
        news = np.where(state.active & ~allocation.served, 0, np.where(moved, 1, 2))
        told = np.argsort(news, kind="stable")[:LONG].tolist()
        cut = f"{LONG} of {state.agents} jobs, who is not in time or moved first; --out FILE.csv writes all\n"
    rows, was = [], ["was"] * bool(moved.any())
    for i in told:
        o = int(allocation.option[i])
        deadline = f"{state.deadline_s[i]:.4g}" if state.deadline_s[i] < NO_DEADLINE else "-"
        took = f"{seconds[i]:.4g}" if np.isfinite(seconds[i]) else "-"
        verdict = "yes" if allocation.served[i] else ("NO" if state.active[i] else "idle")
        kept = [_percent(allocation.floors, i)] if allocation.seated else []
        before = [printable(problem.option_name(int(state.previous[i]))) if moved[i] else ""] * len(was)
        where = [printable(problem.option_name(o)), *before, _percent(allocation.shares, i), *kept]
        rows.append([printable(state.label(i)), *where, took, deadline, verdict])
    reserved = ["reserved %"] if allocation.seated else []
    heads = ["job", "goes to", *was, "share %", *reserved, "takes s", "deadline s", "in time"]
    return table(heads, rows) + cut


def _percent(parts: dict[str, Float], i: int) -> str:
    return " + ".join(f"{100 * s[i]:.1f}" for s in parts.values() if s[i] > 0) or "-"


def as_csv(problem: Custom, state: CustomState, allocation: Allocation) -> str:
    """Every job in a row: where it goes, whether in time, its share (and what is reserved of it) of each family's
    resource, 0 to 1, how long it takes, and where it was."""
    seconds, stream = problem.times(state, allocation), io.StringIO()
    one = len(problem.families) == 1
    named = lambda what: [what if one else f"{what} of {family}" for family in problem.families]
    number = lambda x, none=np.inf: f"{x:.9g}" if x < none else ""
    write = csv.writer(stream, lineterminator="\n")
    write.writerow([
        "job", "goes_to", "was", "in_time", *named("share"), *named("reserved"), "takes_s", "deadline_s", "priority",
    ])  # fmt: skip
    for i, o in enumerate(allocation.option):
        before = problem.option_name(int(state.previous[i])) if state.previous[i] >= 0 else ""
        parts = (*allocation.shares.values(), *allocation.floors.values())
        write.writerow([
            state.label(i), problem.option_name(int(o)), before,
            "yes" if allocation.served[i] else "no", *(number(part[i]) for part in parts), number(seconds[i]),
            number(state.deadline_s[i], NO_DEADLINE), number(state.priority[i]),
        ])  # fmt: skip
    return stream.getvalue()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns by width, the first two to the left and the rest to the right."""
    widths = [max(len(row[c]) for row in (heads, *rows)) for c in range(len(heads))]
    pad = lambda c, text: text.ljust(widths[c]) if c < 2 else text.rjust(widths[c])
    line = lambda row: "  ".join(pad(c, text) for c, text in enumerate(row))
    return "\n".join([line(heads).rstrip(), *(line(row).rstrip() for row in rows), ""])


def _tried(problem: Custom, allocation: Allocation) -> tuple[int, ...]:
    """Of the unserved, the first by priority, for whom what would admit them is worked out."""
    pairs = max(len(allocation.option) * (len(problem.options) + 1), 1)
    return allocation.certificate.unserved[: min(TRIED, max(1, LARGE // pairs))]


def _prices(problem: Custom, allocation: Allocation) -> dict[str, float]:
    queue = {family: iter(values) for family, values in allocation.prices.items()}
    named = zip(problem.resources, problem.families_of, strict=True)
    return {name: float(next(queue[f], 0.0)) for name, f in named}  # a fallback has none: nothing is used
