"""Sections of the report about one world: what everyone was given slot by slot, and who is served where."""

from __future__ import annotations

from html import escape

import numpy as np

from hybridalloc.reports import extras as report_extras
from hybridalloc.reports import figures
from hybridalloc.reports.parts import agent_of, section, table
from hybridalloc.reports.summary import Comparison, number


def over_time(comparison: Comparison) -> str:
    """Slot by slot, how many agents each option has; comparison["over_time"] = {"counts", "options", "label"}."""
    given = comparison.get("over_time")
    if not given:
        return ""
    counts, names = np.asarray(given["counts"], dtype=int), [str(name) for name in given["options"]]
    agent = agent_of(comparison)
    drawing = report_extras.over_time_figure(counts, names, agent)
    rows = []
    for k, name in enumerate(names):
        column = counts[:, k]
        patch = f'<span class="patch" style="background:{report_extras.option_colour(k, names)}"></span>'
        rows.append(
            (f"{patch}{escape(name)}", [number(float(column.mean()), 1), f"{int(column.min())} to {int(column.max())}"])
        )
    caption = (
        f"{escape(str(given['label']))}: one column a slot, {escape(agent)}s by what they were given, from the "
        "bottom in the table's order. One network, not an average."
    )
    return section(
        "Allocation over time",
        f'<div class="two"><figure>{drawing}<figcaption>{caption}</figcaption></figure>'
        f'<div class="scroll">{table(["given", f"{agent}s, mean", "range"], rows)}</div></div>',
    )


def service_map(comparison: Comparison) -> str:
    snapshot = comparison.get("map")
    if not snapshot:
        return ""
    site, agent = words = str(snapshot.get("site") or figures.WORDS[0]), agent_of(comparison)
    places = (snapshot[part] for part in ("stations", "devices", "option", "active"))
    drawing = figures.service_map(*places, words=words)
    option, active = np.asarray(snapshot["option"], dtype=int), np.asarray(snapshot["active"], dtype=bool)
    rows = []
    for k, (east, north) in enumerate(np.asarray(snapshot["stations"], dtype=float)):
        served = int((active & (option == k + 1)).sum())
        rows.append((f"{escape(site)} {k + 1}", [number(east, 0), number(north, 0), str(served)]))
    opting_out = f" ({escape(str(snapshot['opting_out']))})" if snapshot.get("opting_out") else ""
    rows.append((f"opted out{opting_out}", ["", "", str(int((active & (option == 0)).sum()))]))
    rows.append(("idle in this slot", ["", "", str(int((~active).sum()))]))
    caption = (
        f"{escape(str(snapshot.get('label', 'One slot')))}. Squares: {escape(site)}s. Filled dots: served "
        f"{escape(agent)}s, in their {escape(site)}'s colour. Rings: {escape(agent)}s that opted out. Small grey dots: "
        "idle. One slot, not an average."
    )
    listed = table(["", "east (m)", "north (m)", f"{agent}s"], rows)
    return section(
        "Who is served where",
        f'<div class="two"><figure>{drawing}<figcaption>{caption}</figcaption></figure>'
        f'<div class="scroll">{listed}</div></div>',
    )
