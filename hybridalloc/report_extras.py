"""Two more figures of the report: performance profiles, and the frontier of welfare against fairness.

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

from hybridalloc import figures

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def profile_figure(
    scores: Mapping[str, NDArray[np.float64]],
    labels: Mapping[str, str],
    styles: Mapping[str, figures.Look],
    *,
    wide: bool,
) -> str:
    """One falling line a method: share of runs above each score."""
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
    parts.append(figures._text((left + width - right) / 2, height - 6, "welfare of a run", "axis middle"))
    return figures._svg(width, height, "Share of runs above each welfare, by method", parts)


def frontier_figure(rows: Sequence[tuple[str, float, float, bool, figures.Look, str]], names: tuple[str, str]) -> str:
    """Dots by welfare (across) and fairness (up) with the methods' letters; those on the frontier are joined."""
    width, height = 440, 320
    left, right, top, bottom = 58, 20, 16, 44
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
    for label, a, b, _, look, mark_of in rows:
        dot = f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="5.5" style="fill:{look.colour}">'
        parts.append(f"{dot}<title>{escape(label)}</title></circle>")
        parts.append(figures._text(x(a) + 8, y(b) + 4, mark_of, "bar-label halo"))
    parts.append(figures._text((left + width - right) / 2, height - 8, names[0], "axis middle"))
    parts.append(figures._text(4, 10, names[1], "axis"))
    return figures._svg(width, height, f"{names[0]} against {names[1]}, by method", parts)


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
