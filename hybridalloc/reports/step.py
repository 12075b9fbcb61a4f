"""An allocation of a custom problem for the terminal, and as JSON with names beside the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridalloc.allocation import Allocation
from hybridalloc.problems.custom.problem import Custom
from hybridalloc.problems.custom.remedies import LARGE, remedies, ways_shown
from hybridalloc.problems.custom.state import NO_DEADLINE, CustomPrices, CustomState
from hybridalloc.text import printable, strict

TRIED = 6  # agents at most for whom what would admit them is worked out; fewer, but one, where it takes long


def as_json(
    problem: Custom, state: CustomState, allocation: Allocation, prices: CustomPrices | None = None
) -> dict[str, Any]:
    """``allocation.to_dict()`` with names, times, prices by resource and what would admit who was left out: for the
    first by priority, for the rest ``would_be_served`` is None."""
    ways = remedies(problem, state, allocation, prices, _tried(problem, allocation), ways_shown(problem, allocation))
    return allocation.to_dict() | strict({
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
    """Who gets what, what each resource is worth, who was left out and what would admit them, the certificate."""
    seconds = problem.times(state, allocation)
    rows = []
    percent = lambda parts, i: " + ".join(f"{100 * s[i]:.1f}" for s in parts.values() if s[i] > 0) or "-"
    for i, o in enumerate(allocation.option):
        deadline = f"{state.deadline_s[i]:.4g}" if state.deadline_s[i] < NO_DEADLINE else "-"
        took = f"{seconds[i]:.4g}" if np.isfinite(seconds[i]) else "-"
        verdict = "yes" if allocation.served[i] else ("NO" if state.active[i] else "idle")
        where = printable(problem.option_name(int(o)))
        kept = [percent(allocation.floors, i)] if allocation.seated else []
        share = percent(allocation.shares, i)
        rows.append([printable(state.label(i)), where, share, *kept, took, deadline, verdict])
    reserved = ["reserved %"] if allocation.seated else []
    parts = [table(["job", "goes to", "share %", *reserved, "takes s", "deadline s", "in time"], rows)]
    rows = []
    for r, (name, price) in enumerate(_prices(problem, allocation).items()):
        family = allocation.shares[problem.families_of[r]]
        here = [i for i, o in enumerate(allocation.option) if o and r in problem.options[o - 1]]
        used = 100 * sum(float(family[i]) for i in here)
        rows.append([printable(name), str(len(here)), f"{used:.1f}", f"{state.capacity[r]:.4g}", f"{price:.4g}"])
    parts.append(table(["resource", "jobs", "used %", "units/s", "price"], rows))
    parts.append("price: what one more resource like it would save, in cost, at the margin")
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
