"""More figures of the report: performance profiles, the frontier against fairness, allocation over time.

Profile: the share of runs (training seed x evaluation seed) whose score is above a level, for every level. Unlike a
mean it shows the tails. Source: Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical
precipice", section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridalloc.reports import figures

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def profile_figure(
    scores: Mapping[str, NDArray[np.float64]],
    labels: Mapping[str, str],
    styles: Mapping[str, figures.Look],
    measure: str,
    *,
    wide: bool,
) -> str:
    """One falling line a method: share of runs above each score of ``measure``."""
    width, height = (760, 300) if wide else (360, 260)
    left, right, top, bottom = 44, 12, 12, 40
    pooled = np.concatenate(list(scores.values()))
    marks = figures.ticks(float(pooled.min()), float(pooled.max()), 6 if wide else 4)
    low, high = marks[0], marks[-1]
    x = lambda v: left + (width - left - right) * (v - low) / (high - low)
    y = lambda share: top + (height - top - bottom) * (1 - share)
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(figures._line(left, y(share), width - right, y(share), "grid"))
        parts.append(figures._text(left - 6, y(share) + 4, f"{share:.0%}", "tick end"))
    for mark in marks:
        parts.append(figures._text(x(mark), height - bottom + 16, figures.tick_text(mark, marks), "tick middle"))
    for key, values in scores.items():
        ordered = np.sort(values)
        points = [(x(low), y(1.0))]
        for k, value in enumerate(ordered):
            points += [(x(value), points[-1][1]), (x(value), y(1 - (k + 1) / len(ordered)))]
        look = styles[key]
        line = f'stroke="{look.colour}" stroke-dasharray="{look.dash}" class="curve"'
        parts.append(
            f'<polyline points="{figures._points(points)}" {line}><title>{escape(labels[key])}</title></polyline>'
        )
    parts.append(figures._text((left + width - right) / 2, height - 6, f"{measure} of a run", "axis middle"))
    return figures._svg(width, height, f"Share of runs above each {measure}, by method", parts)


def frontier_figure(rows: Sequence[tuple[str, float, float, bool, figures.Look, str]], names: tuple[str, str]) -> str:
    """Dots by what is tuned for (across) and fairness (up) with the methods' letters; the frontier is joined."""
    width, height = 440, 320
    left, right, top, bottom = 58, 20, 30, 44
    across = figures.ticks(min(r[1] for r in rows), max(r[1] for r in rows), 4)
    up = figures.ticks(min(r[2] for r in rows), max(r[2] for r in rows), 4)
    x = lambda v: left + (width - left - right) * (v - across[0]) / (across[-1] - across[0])
    y = lambda v: height - bottom - (height - top - bottom) * (v - up[0]) / (up[-1] - up[0])
    parts = []
    for mark in up:
        parts.append(figures._line(left, y(mark), width - right, y(mark), "grid"))
        parts.append(figures._text(left - 6, y(mark) + 4, figures.tick_text(mark, up), "tick end"))
    for mark in across:
        parts.append(figures._text(x(mark), height - bottom + 16, figures.tick_text(mark, across), "tick middle"))
    best = sorted((r[1], r[2]) for r in rows if r[3])
    points = figures._points([(x(a), y(b)) for a, b in best])
    parts.append(f'<polyline points="{points}" class="level" fill="none"/>')
    dots = [(x(a), y(b)) for _, a, b, *_ in rows]
    for (label, *_, look, _), (px, py) in zip(rows, dots, strict=True):
        dot = f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" style="fill:{look.colour}">'
        parts.append(f"{dot}<title>{escape(label)}</title></circle>")
    for (*_, mark_of), (px, py) in zip(rows, _beside(dots), strict=True):
        parts.append(figures._text(px, py + 4, mark_of, "bar-label halo middle"))
    parts.append(figures._text((left + width - right) / 2, height - 8, names[0], "axis middle"))
    parts.append(figures._text(4, 10, names[1], "axis"))
    return figures._svg(width, height, f"{names[0]} against {names[1]}, by method", parts)


def _beside(dots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A place for each dot's letter, near it and as far as can be from other dots and from letters placed before."""
    ways = [(r * np.cos(turn), r * np.sin(turn)) for r in (13.0, 20.0) for turn in np.arange(8) * np.pi / 4]
    taken: list[tuple[float, float]] = []
    for k, (px, py) in enumerate(dots):
        others = np.array([*(dot for j, dot in enumerate(dots) if j != k), *taken, (1e6, 1e6)])
        room = [min(np.hypot(*(others - (px + dx, py + dy)).T).min(), 14.0) for dx, dy in ways]
        dx, dy = ways[int(np.argmax(room))]
        taken.append((px + dx, py + dy))
    return taken


def over_time_figure(counts: NDArray[np.int_], names: Sequence[str], agent: str) -> str:
    """(slots, options) agents by option: a stacked column a slot."""
    width, height = 440, 260
    left, right, top, bottom = 40, 8, 24, 40
    slots, total = len(counts), max(int(counts.sum(axis=1).max()), 1)
    marks = [mark for mark in figures.ticks(0.0, float(total), 5) if mark <= total]
    step = (width - left - right) / slots
    y = lambda v: height - bottom - (height - top - bottom) * v / total
    parts = [figures._text(4, 12, f"{agent}s", "axis")]
    for mark in marks:
        parts.append(figures._line(left, y(mark), width - right, y(mark), "grid"))
        parts.append(figures._text(left - 6, y(mark) + 4, figures.tick_text(mark, marks), "tick end"))
    for slot, row in enumerate(counts):
        base = 0
        for k, count in enumerate(row):
            if count:
                where = f'x="{left + slot * step:.1f}" y="{y(base + count):.1f}" width="{0.92 * step:.2f}"'
                size = f'height="{y(base) - y(base + count):.1f}" style="fill:{option_colour(k, names)}"'
                parts.append(f"<rect {where} {size}><title>slot {slot}: {escape(names[k])} {count}</title></rect>")
            base += int(count)
    for slot in range(0, slots, max(1, slots // 8)):
        parts.append(figures._text(left + (slot + 0.46) * step, height - bottom + 16, str(slot), "tick middle"))
    parts.append(figures._text((left + width - right) / 2, height - 6, "slot", "axis middle"))
    return figures._svg(width, height, f"{agent[:1].upper()}{agent[1:]}s by option in each slot", parts)


def option_colour(k: int, names: Sequence[str]) -> str:
    """Servers in their colours on the map; what is not served, which the last two names say, in grey."""
    grey = {len(names) - 2: "var(--rule)", len(names) - 1: "var(--grid)"}
    return grey.get(k, figures.station_colour(k))


def quantile_rows(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, list[float]]:
    """The runs' quantiles at ``LEVELS``, by method: the profile's numbers."""
    return {key: [float(q) for q in np.quantile(values, LEVELS)] for key, values in scores.items()}


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other beats on one measure without losing on the other; more is better on both."""
    better = lambda a, b: a[0] >= b[0] and a[1] >= b[1] and a != b
    return [not any(better(other, point) for other in points) for point in points]


def scores_of(comparison: Mapping[str, Any], key: str) -> dict[str, NDArray[np.float64]]:
    """(T V,) finite scores of each method that has the metric."""
    given = {m["key"]: m["values"].get(key) for m in comparison["methods"]}
    found = {name: np.asarray([] if v is None else v, dtype=float).ravel() for name, v in given.items()}
    found = {name: values[np.isfinite(values)] for name, values in found.items()}
    return {name: values for name, values in found.items() if values.size}
