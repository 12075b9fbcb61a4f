"""Figures of the report as inline SVG, drawn by hand.

Colours are CSS variables of the page (`hybridalloc.reports.style`), so one drawing serves light and dark;
text stays text. Each function takes plain numbers and returns one ``<svg>`` element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hybridalloc.reports.statistics import Interval
from hybridalloc.reports.summary import number

WORDS = ("site", "agent")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
SHADES = {"hybrid": 4, "rl": 4, "game": 5, "heuristic": 5}  # colours a kind has in the style sheet


@dataclass(frozen=True)
class Look:
    """How a method is drawn everywhere in a report."""

    colour: str
    dash: str


def looks(methods: Sequence[Mapping[str, Any]]) -> dict[str, Look]:
    """A colour for each method by its kind, in order of appearance; dashes once a kind's colours repeat."""
    seen: dict[str, int] = {}
    result = {}
    for method in methods:
        kind = method["kind"] if method["kind"] in SHADES else "heuristic"
        k = seen.get(kind, 0)
        seen[kind] = k + 1
        dash = DASHES[(k if kind in ("hybrid", "rl") else k // SHADES[kind]) % len(DASHES)]
        result[method["key"]] = Look(f"var(--{kind}-{k % SHADES[kind]})", dash)
    return result


def learning_curves(
    curves: Sequence[Mapping[str, Any]],
    levels: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
    styles: Mapping[str, Look],
    y_label: str,
    *,
    wide: bool,
    floor: float | None = None,
    x_label: str = "agent-steps of training",
) -> str:
    """Mean over training seeds with a band from the lowest to the highest, and levels as dotted lines.

    Args:
        curves: {"method", "steps" (S,), "values" (T, S)}.
        levels: {"label", "value"}: methods without training; a letter ties each line to the legend.
        labels, styles: by method key.
        wide: 1080 units across instead of 360 (a phone).
        floor: draw only what is above this height.
    """
    width, height = (1080, 400) if wide else (360, 320)
    left, right, top, bottom = 58, 22, 30, 46
    drawn = [
        (c, np.asarray(c["steps"], dtype=float), np.atleast_2d(np.asarray(c["values"], dtype=float))) for c in curves
    ]
    heights = [values[np.isfinite(values)] for _, _, values in drawn]
    everything = np.concatenate([*heights, [float(level["value"]) for level in levels]])
    x_top = max(float(steps.max()) for _, steps, _ in drawn)
    x_ticks = [tick for tick in ticks(0.0, x_top or 1.0, 6 if wide else 5) if tick <= (x_top or 1.0)]
    y_low, y_high = float(everything.min() if floor is None else floor), float(everything.max())
    levels = [level for level in levels if float(level["value"]) >= y_low]
    margin = 0.04 * (y_high - y_low) or 0.5
    y_low, y_high = y_low - margin, y_high + margin
    y_ticks = [tick for tick in ticks(y_low, y_high, 7) if y_low <= tick <= y_high]

    def x(value: float) -> float:
        return left + (width - left - right) * value / (x_top or 1.0)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * (value - y_low) / (y_high - y_low)

    parts = [_text(4, 14, y_label, "axis")]
    for tick in y_ticks:
        parts.append(_line(left, y(tick), width - right, y(tick), "grid"))
        parts.append(_text(left - 6, y(tick) + 4, tick_text(tick, y_ticks), "tick end"))
    for tick in x_ticks:
        parts.append(_line(x(tick), height - bottom, x(tick), height - bottom + 4, "rule"))
        parts.append(_text(x(tick), height - bottom + 17, tick_text(tick, x_ticks), "tick middle"))
    parts.append(_line(left, height - bottom, width - right, height - bottom, "rule"))
    parts.append(_text((left + width - right) / 2, height - 8, x_label, "axis middle"))
    places_ = spread([y(float(level["value"])) for level in levels], 12.0)
    for k, (level, place) in enumerate(zip(levels, places_, strict=True)):
        at = y(float(level["value"]))
        parts.append(_line(left, at, width - right, at, "level"))
        parts.append(_text(width - right + 5, place + 4, letter(k), "tick", title=str(level["label"])))
    if floor is not None:
        name, size = f"top-{width}", f'width="{width}" height="{height - bottom}"'
        parts.append(f'<clipPath id="{name}"><rect x="0" y="0" {size}/></clipPath><g clip-path="url(#{name})">')
    for curve, steps, values in drawn:
        look = styles[curve["method"]]
        ok = np.isfinite(values).all(axis=0)
        steps, values = steps[ok], values[:, ok]
        if not steps.size:
            continue
        if values.shape[0] > 1:
            edge = [(x(s), y(v)) for s, v in zip(steps, values.max(axis=0), strict=True)]
            edge += [(x(s), y(v)) for s, v in zip(steps[::-1], values.min(axis=0)[::-1], strict=True)]
            parts.append(f'<polygon points="{_points(edge)}" fill="{look.colour}" class="band"/>')
        middle = [(x(s), y(v)) for s, v in zip(steps, values.mean(axis=0), strict=True)]
        parts.append(
            f'<polyline points="{_points(middle)}" stroke="{look.colour}" stroke-dasharray="{look.dash}" '
            f'class="curve"><title>{escape(labels[curve["method"]])}</title></polyline>'
        )
    if floor is not None:
        parts.append("</g>")
    return _svg(width, height, "Learning curves" + (", the top enlarged" if floor is not None else ""), parts)


def metric_bars(rows: Sequence[tuple[str, Interval, int, Look]], title: str, *, width: int = 340) -> str:
    """One bar a method from 0 to its mean, with its 95 % interval as a whisker and the number beside it.

    Args:
        rows: (label, interval, decimals, look), drawn from top to bottom.
        title: the metric, for readers of the page by ear.
    """
    row, top = 34, 4
    values = [0.0]
    for _, interval, _, _ in rows:
        values += [v for v in (interval.mean, interval.low, interval.high) if np.isfinite(v)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return 2 + (width - 8) * (value - low) / span

    parts = []
    for k, (label, interval, decimals, look) in enumerate(rows):
        y = top + k * row
        parts.append(_text(2, y + 12, label, "bar-label"))
        parts.append(_line(2, y + 22, width - 6, y + 22, "track"))
        a, b = sorted((x(0.0), x(interval.mean)))
        size = f'width="{max(b - a, 1):.1f}" height="10"'
        parts.append(f'<rect x="{a:.1f}" y="{y + 17}" {size} fill="{look.colour}" class="bar"/>')
        if interval.low < interval.high:
            parts.append(_line(x(interval.low), y + 22, x(interval.high), y + 22, "whisker"))
            for end in (interval.low, interval.high):
                parts.append(_line(x(end), y + 18, x(end), y + 26, "whisker"))
        parts.append(_text(width - 6, y + 12, number(interval.mean, decimals), "bar-value end"))
    height = top + len(rows) * row + 2
    if low < 0:
        parts.append(_line(x(0.0), top, x(0.0), height - 2, "rule"))
    return _svg(width, height, f"{title}: bar of each method with its interval", parts)


def forest(
    rows: Sequence[tuple[str, float, float, float, Sequence[float] | None]], title: str, *, width: int = 340
) -> str:
    """Differences about 0: (label, mean, low, high, wider interval or None) from top to bottom."""
    row, top, bottom = 36, 4, 22
    values = [0.0]
    for _, mean, below, above, wider in rows:
        values += [v for v in (mean, below, above, *(wider or ())) if np.isfinite(v)]
    marks = ticks(min(values), max(values), 4)
    low, high = min(values + marks), max(values + marks)
    span = (high - low) or 1.0
    height = top + len(rows) * row + bottom

    def x(value: float) -> float:
        return 16 + (width - 32) * (value - low) / span

    parts = []
    for mark in marks:
        parts.append(_line(x(mark), top, x(mark), height - bottom + 3, "rule" if mark == 0 else "grid"))
        parts.append(_text(x(mark), height - 6, tick_text(mark, marks), "tick middle"))
    for k, (label, mean, below, above, wider) in enumerate(rows):
        y = top + k * row
        parts.append(_text(2, y + 12, label, "bar-label halo", fit=width - 4))
        if wider:
            parts.append(_line(x(wider[0]), y + 23, x(wider[1]), y + 23, "whisker thin"))
        if np.isfinite(below):
            parts.append(_line(x(below), y + 23, x(above), y + 23, "whisker wide"))
        parts.append(f'<circle cx="{x(mean):.1f}" cy="{y + 23}" r="4.5" class="dot"/>')
    return _svg(width, height, title, parts)


def service_map(
    stations: ArrayLike, devices: ArrayLike, option: ArrayLike, active: ArrayLike, *, words: tuple[str, str] = WORDS,
    width: int = 420,
) -> str:  # fmt: skip
    """Sites (K, 2) and agents (N, 2) in metres, each served agent tied to its site.

    Args:
        stations, devices: metres east and north.
        option: (N,) ints: 0 opts out, k is site k.
        active: (N,) bools: whether the agent has something to decide in this slot.
        words: for a site and an agent.
    """
    k_xy, n_xy = np.asarray(stations, dtype=float), np.asarray(devices, dtype=float)
    chosen, live = np.asarray(option, dtype=int), np.asarray(active, dtype=bool)
    if n_xy.shape != (chosen.size, 2) or live.shape != chosen.shape or k_xy.ndim != 2:
        raise ValueError(
            f"map: stations {k_xy.shape}, devices {n_xy.shape}, option {chosen.shape}, active {live.shape}; "
            "(K, 2), (N, 2), (N,) and (N,) are required"
        )
    if chosen.size and not (chosen.min() >= 0 and chosen.max() <= len(k_xy)):
        raise ValueError(f"map: options lie in {chosen.min()} to {chosen.max()}; 0 to {len(k_xy)} is required")
    site, agent = words
    points = np.concatenate([k_xy, n_xy])
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.maximum(high - low, 1.0)
    scale = (width - 36) / span.max()
    inside = span * scale
    height = int(inside[1] + 36 + 26)

    def at(xy: np.ndarray) -> tuple[float, float]:
        px = 18 + (xy[0] - low[0]) * scale + (width - 36 - inside[0]) / 2
        return float(px), float(18 + (high[1] - xy[1]) * scale)

    parts = []
    for xy, o, on in zip(n_xy, chosen, live, strict=True):
        if on and o > 0:
            (ax, ay), (bx, by) = at(xy), at(k_xy[o - 1])
            parts.append(_line(ax, ay, bx, by, "tie", colour=station_colour(o - 1)))
    for k, (xy, o, on) in enumerate(zip(n_xy, chosen, live, strict=True)):
        px, py = at(xy)
        name = "idle" if not on else "opted out" if o == 0 else f"served by {o}"
        kind, fill = ("idle", "") if not on else ("out", "") if o == 0 else ("served", station_colour(o - 1))
        style = f' style="fill:{fill}"' if fill else ""
        radius = 2.2 if not on else 4
        parts.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius}" class="device {kind}"{style}>'
            f"<title>{escape(agent)} {k}: {name}</title></circle>"
        )
    for k, xy in enumerate(k_xy):
        px, py = at(xy)
        parts.append(
            f'<rect x="{px - 8:.1f}" y="{py - 8:.1f}" width="16" height="16" rx="3" class="station" '
            f'style="fill:{station_colour(k)}"><title>{escape(site)} {k + 1}</title></rect>'
        )
        parts.append(_text(px, py + 4, str(k + 1), "station-number middle"))
    bar = ticks(0.0, float(span.max()) / 3, 2)[-1]
    parts.append(_line(18, height - 12, 18 + bar * scale, height - 12, "rule heavy"))
    parts.append(_text(18 + bar * scale + 6, height - 8, f"{bar:g} m", "tick"))
    return _svg(width, height, f"Map of {site}s and {agent}s", parts)


def station_colour(k: int) -> str:
    return f"var(--place-{k % 9})"


def letter(k: int) -> str:
    return chr(ord("A") + k % 26)


def swatch(look: Look) -> str:
    """A sample of a method's line for a legend."""
    return (
        '<svg width="30" height="10" viewBox="0 0 30 10" class="swatch" aria-hidden="true">'
        f'<line x1="1" y1="5" x2="29" y2="5" stroke="{look.colour}" stroke-dasharray="{look.dash}" '
        'class="curve"/></svg>'
    )


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from at or below `low` to at or above `high`."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return [float(round(k * step, 12)) for k in np.arange(first, last + 1)]


def tick_text(value: float, all_ticks: Sequence[float]) -> str:
    """A tick's label: as many decimals as the step needs; thousands and millions as k and M."""
    step = abs(all_ticks[1] - all_ticks[0]) if len(all_ticks) > 1 else abs(value) or 1.0
    for size, mark in ((1e6, "M"), (1e3, "k")):
        if max(abs(tick) for tick in all_ticks) >= size * (1 if size == 1e6 else 2):
            return f"{value / size:g}{mark if value else ''}".replace("-", "−")
    decimals = max(0, -int(np.floor(np.log10(step) + 1e-9)))
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1
    return f"{value:.{decimals}f}".replace("-", "−")


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions as close to `wanted` as keeps them `gap` apart (for labels of lines that lie close)."""
    order = np.argsort(wanted, kind="stable")
    blocks: list[list[Any]] = []  # [sum of (wanted - rank * gap), count, members]: isotonic regression
    for k in order:
        blocks.append([float(wanted[k]), 1, [int(k)]])
        while len(blocks) > 1:
            a, b = blocks[-2], blocks[-1]
            if a[0] / a[1] + gap * (a[1] + b[1]) / 2 <= b[0] / b[1]:
                break
            blocks[-2:] = [[a[0] + b[0], a[1] + b[1], a[2] + b[2]]]
    result = [0.0] * len(wanted)
    for total, count, members in blocks:
        for rank, k in enumerate(members):
            result[k] = total / count + gap * (rank - (count - 1) / 2)
    return result


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}" '
        f'style="max-width:{width}px" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, colour: str = "") -> str:
    style = f' style="stroke:{colour}"' if colour else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"{style}/>'


def _text(x: float, y: float, text: str, kind: str, title: str = "", fit: float = np.inf) -> str:
    more = f"<title>{escape(title)}</title>" if title else ""
    narrow = f' textLength="{fit:g}" lengthAdjust="spacingAndGlyphs"' if 6.2 * len(text) > fit else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{narrow}>{escape(text)}{more}</text>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
