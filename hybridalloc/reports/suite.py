"""The suite's verdict, tables and page: the hybrid beside the best of each other kind in every domain, and over all.

Source: Agarwal et al. (2021), see :mod:`hybridalloc.reports.aggregate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hybridalloc.files import write_text
from hybridalloc.reports import figures
from hybridalloc.reports.aggregate import Scale, improvement, interquartile_mean, normalise, profile
from hybridalloc.reports.statistics import Interval, mean_interval, mean_of
from hybridalloc.reports.style import STYLE
from hybridalloc.reports.summary import FEW_SEEDS, NONE, number, places
from hybridalloc.reports.verdict import KINDS, Standing, difference_sentence, kind_of, standings

GROUPS = {"hybrid": "hybrid", **KINDS}
LEVELS = tuple(np.linspace(-0.2, 1.2, 57))
NUMBER = 4  # characters of a unit that may follow a number


def summarise(comparisons: Mapping[str, Mapping[str, Any]], title: str) -> dict[str, Any]:
    """What the suite's table, page and MLflow run say, from the comparisons of its rows.

    Args:
        comparisons: by row, as :func:`hybridalloc.reports.report.write_report` takes them, "floor" added: the method
            whose mean is 0; "page": the row's own report.

    Returns:
        {"title", "rows": [a dict a domain], "aggregate": {kind: {"iqm", "by_row", "profile"}}}; plain data.
    """
    rows: list[dict[str, Any]] = []
    scores: dict[str, dict[str, Any]] = {kind: {} for kind in GROUPS}
    for name, comparison in comparisons.items():
        standing = next(iter(standings(comparison)), None)
        if standing is not None:
            rows.append(_row(name, comparison, standing, scores))
    aggregate = {}
    for kind, by_row in scores.items():
        whole = len(by_row) == len(rows) > 0
        iqm = interquartile_mean(by_row) if whole else None
        aggregate[kind] = {
            "iqm": None if iqm is None else [iqm.mean, iqm.low, iqm.high],
            "by_row": {name: mean_of(values) for name, values in by_row.items()},
            "profile": profile(by_row, LEVELS).tolist() if whole else None,
        }
    return {"title": title, "rows": rows, "aggregate": aggregate}


def _row(name: str, comparison: Mapping[str, Any], standing: Standing, scores: dict[str, Any]) -> dict[str, Any]:
    key = standing.metric["key"]
    values = {m["key"]: np.atleast_2d(np.asarray(m["values"][key], dtype=float)) for m in comparison["methods"] if
              key in m["values"]}  # fmt: skip
    chosen = {"hybrid": standing.key} | {rival.kind: rival.key for rival in standing.rivals}
    labels = {m["key"]: m["label"] for m in comparison["methods"]}
    scale = _scale(comparison, values, chosen, standing.metric["better"])
    normal = {kind: normalise(values[method], scale) for kind, method in chosen.items()} if scale else {}
    for kind, matrix in normal.items():
        scores[kind][name] = matrix
    better = {}
    for kind in ("rl", "game", "heuristic"):
        if kind in normal:
            found = improvement(normal["hybrid"], normal[kind])
            better[kind] = {"runs": _listed(found.runs), "worlds": _listed(found.worlds)}
    means = {kind: mean_interval(values[method]) for kind, method in chosen.items()}
    return {
        "name": name, "problem": comparison["problem"], "page": comparison.get("page", ""), "metric": standing.metric,
        "labels": {kind: labels[method] for kind, method in chosen.items()},
        "means": {kind: _listed(interval) for kind, interval in means.items()}, "improvement": better,
        "differences": [text for text in map(difference_sentence, standing.distinct) if text],
        "told": {rival.kind: rival.told for rival in standing.rivals},
        "scale": None if scale is None else scale._asdict(), "first": _first(means, standing.metric["better"]),
        "seeds": [values[standing.key].shape[0], values[standing.key].shape[1]],
        "violations": (comparison.get("counts") or {}).get("violations"),
        "allocations": (comparison.get("counts") or {}).get("allocations"),
    }  # fmt: skip


def _scale(
    comparison: Mapping[str, Any], values: Mapping[str, Any], chosen: Mapping[str, str], better: str
) -> Scale | None:
    """0 at the row's floor, 1 at its bound or else the best mean in the table; None where that cannot be."""
    floor = str(comparison.get("floor", "random"))
    kinds = {m["key"]: kind_of(m) for m in comparison["methods"]}
    sign = 1.0 if better == "higher" else -1.0
    means = {key: mean_of(matrix) for key, matrix in values.items() if np.isfinite(mean_of(matrix))}
    if floor not in means:
        return None
    bounds = {key: value for key, value in means.items() if kinds[key] == "bound"}
    among = bounds or {key: value for key, value in means.items() if kinds[key] != "bound"}
    top = max(among, key=lambda key: sign * among[key])
    return None if means[top] == means[floor] else Scale(floor, means[floor], top, means[top])


def _first(means: Mapping[str, Interval], better: str) -> bool:
    """Whether no rival's mean is better than the hybrid's; a bound is no rival."""
    sign = 1.0 if better == "higher" else -1.0
    rivals = [sign * interval.mean for kind, interval in means.items() if kind not in ("hybrid", "bound")]
    return not rivals or sign * means["hybrid"].mean >= max(rivals)


def _listed(interval: Interval) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in (interval.mean, interval.low, interval.high)]


def verdict(told: Mapping[str, Any]) -> str:
    """One sentence: in how many domains the hybrid is first, and how far it is told apart from RL alone."""
    rows = told["rows"]
    if not rows:
        return "No row is done yet."
    first = [row["name"] for row in rows if row["first"]]
    surely = [row["name"] for row in rows if row["told"].get("rl") == "better"]
    text = f"The hybrid has the best mean in {len(first)} of {len(rows)} domains"
    text += f" ({', '.join(first)})" if first else ""
    few = min(row["seeds"][0] for row in rows)
    if few < FEW_SEEDS:
        return f"{text}; {few} training seed{'s' * (few > 1)} {'are' if few > 1 else 'is'} too few to tell more."
    return f"{text}; it is told apart from RL alone in {len(surely)}" + (f" ({', '.join(surely)})." if surely else ".")


def cells(row: Mapping[str, Any], html: bool = False) -> list[str]:
    """A domain's means by kind with their intervals, a dash where a kind is not there."""
    there = [v[0] for v in row["means"].values() if v[0] is not None]
    decimals = places(there) if there else 0
    told = []
    for kind in GROUPS:
        mean, low, high = row["means"].get(kind, (None, None, None))
        if mean is None:
            told.append(NONE)
            continue
        span = "" if low is None else f"[{number(low, decimals)}, {number(high, decimals)}]"
        label = row["labels"][kind]
        told.append(
            f'{number(mean, decimals)}<span class="range">{span}</span><span class="range">{escape(label)}</span>'
            if html
            else f"{number(mean, decimals)} {span}".strip()
        )
    return told


def heading(row: Mapping[str, Any]) -> str:
    """Such as "mec: tasks in time, %, higher is better"."""
    metric = row["metric"]
    return f"{row['name']}: {', '.join(filter(None, (metric['label'], metric.get('unit'), metric['better'])))}"


def chances(row: Mapping[str, Any], kind: str = "rl") -> str:
    """The probability of improvement over a kind: of a run, where there are enough of them, and in one world."""
    found = row["improvement"].get(kind)
    if not found:
        return NONE
    runs, worlds = found["runs"], found["worlds"]
    told = number(runs[0], 2) if row["seeds"][0] >= FEW_SEEDS else NONE
    return f"{told} (in one world {number(worlds[0], 2)})"


def markdown(told: Mapping[str, Any]) -> str:
    """The suite's table in Markdown."""
    lines = [verdict(told), "", "| domain | " + " | ".join(GROUPS.values()) + " | hybrid above RL alone |"]
    lines += ["|---" * (len(GROUPS) + 2) + "|"]
    for row in told["rows"]:
        lines.append(f"| {heading(row)} | {' | '.join(cells(row))} | {chances(row)} |")
    scores = [_score(told, kind) for kind in GROUPS]
    lines += [f"| all: interquartile mean of normalised scores | {' | '.join(scores)} | |", ""]
    lines += [f"- {row['name']}: {text}" for row in told["rows"] for text in row["differences"]]
    return "\n".join(lines) + "\n"


def text(told: Mapping[str, Any]) -> str:
    """The suite's table for a terminal: a block a domain."""
    lines = [verdict(told)]
    for row in told["rows"]:
        lines += ["", heading(row)]
        for kind, cell in zip(GROUPS, cells(row), strict=True):
            if cell != NONE:
                lines.append(f"  {GROUPS[kind]:15s} {cell}  {row['labels'][kind]}")
        lines += [f"  {sentence}" for sentence in row["differences"]]
        lines.append(f"  a run of the hybrid above one of RL alone: {chances(row)}")
    lines += ["", "interquartile mean of normalised scores (0 random, 1 bound or best known), 95 % interval"]
    lines += [f"  {label:15s} {_score(told, kind)}" for kind, label in GROUPS.items() if _score(told, kind) != NONE]
    return "\n".join(lines)


def _score(told: Mapping[str, Any], kind: str) -> str:
    iqm = told["aggregate"][kind]["iqm"]
    return NONE if iqm is None else f"{number(iqm[0], 3)} [{number(iqm[1], 3)}, {number(iqm[2], 3)}]"


def write_suite(folder: Path, told: Mapping[str, Any]) -> Path:
    """Write ``table.md`` and ``report.html`` into the suite's folder; the report's path."""
    write_text(folder / "table.md", markdown(told))
    body = [f"<header><h1>{escape(told['title'])}</h1><p class='lead'>{escape(verdict(told))}</p></header>"]
    body += [_scores(told), _domains(told), _how(told)]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(told['title'])}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(filter(None, body))}\n</body></html>\n"
    )
    return write_text(folder / "report.html", page)


def _looks() -> dict[str, figures.Look]:
    return figures.looks([{"key": k, "kind": "heuristic" if k == "bound" else k} for k in GROUPS])


def _scores(told: Mapping[str, Any]) -> str:
    """Over all domains: interquartile means as bars, and performance profiles."""
    styles = _looks()
    bars = [
        (GROUPS[kind], Interval(*scores["iqm"]), 3, styles[kind])
        for kind, scores in told["aggregate"].items()
        if scores["iqm"] is not None
    ]
    if not bars:
        return ""
    bars.sort(key=lambda bar: -bar[1].mean)
    profiles = {k: scores["profile"] for k, scores in told["aggregate"].items() if scores["profile"] is not None}
    curves = [{"method": kind, "steps": LEVELS, "values": [values]} for kind, values in profiles.items()]
    legend = "".join(f"<li>{figures.swatch(styles[kind])}{escape(GROUPS[kind])}</li>" for kind in profiles)
    drawn = _profiles(curves, styles)
    caption = (
        "Normalised scores: 0 is the mean of the random rule (of no control in voltage), 1 that of the bound where "
        "there is one, or else of the best in the table. Left: interquartile mean of all runs on all evaluation seeds, "
        "with its 95 % interval by a bootstrap stratified by domain. Right: the share of runs above each score; a line "
        "that lies to the right is better."
    )
    means = figures.metric_bars(bars, "Normalised scores")
    return (
        f'<section><h2>Over all domains</h2><div class="two"><figure>{means}</figure><figure>'
        f'<ul class="legend">{legend}</ul>{drawn}</figure></div><p class="note">{caption}</p></section>'
    )


def _profiles(curves: Sequence[Mapping[str, Any]], styles: Mapping[str, figures.Look]) -> str:
    width, height, left, bottom = 440, 260, 44, 40
    x = lambda v: left + (width - left - 12) * (v - LEVELS[0]) / (LEVELS[-1] - LEVELS[0])
    y = lambda v: 12 + (height - bottom - 12) * (1 - v)
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(figures._line(left, y(share), width - 12, y(share), "grid"))
        parts.append(figures._text(left - 6, y(share) + 4, f"{share:.0%}", "tick end"))
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(figures._text(x(mark), height - bottom + 16, f"{mark:g}", "tick middle"))
    for curve in curves:
        look = styles[curve["method"]]
        points = figures._points([(x(s), y(v)) for s, v in zip(curve["steps"], curve["values"][0], strict=True)])
        parts.append(f'<polyline points="{points}" stroke="{look.colour}" class="curve"/>')
    parts.append(figures._text((left + width) / 2, height - 6, "normalised score of a run", "axis middle"))
    return figures._svg(width, height, "Share of runs above each normalised score, by method", parts)


def _domains(told: Mapping[str, Any]) -> str:
    rows = []
    for row in told["rows"]:
        name = escape(heading(row))
        link = f'<a href="{escape(row["page"], quote=True)}">{name}</a>' if row["page"] else name
        seeds = f'<span class="range">{row["seeds"][0]} training x {row["seeds"][1]} evaluation seeds</span>'
        rest = "".join(f"<td>{cell}</td>" for cell in (*cells(row, html=True), chances(row)))
        rows.append(f'<tr><th scope="row">{link}{seeds}</th>{rest}</tr>')
    heads = "".join(f'<th scope="col">{escape(h)}</th>' for h in ("domain", *GROUPS.values(), "above RL alone"))
    told_all = "".join(
        f"<li>{escape(row['name'])}: {escape(sentence)}</li>" for row in told["rows"] for sentence in row["differences"]
    )
    return (
        f'<section><h2>Each domain</h2><div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}'
        f'</tbody></table></div><ul class="told">{told_all}</ul></section>'
    )


def _how(told: Mapping[str, Any]) -> str:
    allocations = sum(row["allocations"] or 0 for row in told["rows"])
    violations = sum(row["violations"] or 0 for row in told["rows"])
    scales = "; ".join(
        f"{row['name']}: 0 {row['scale']['floor_of']}, 1 {row['scale']['top_of']}"
        for row in told["rows"]
        if row["scale"]
    )
    return (
        "<section><h2>How the numbers were made</h2><p>Means over training and evaluation seeds with 95 % intervals. "
        "Of each kind but the hybrid stands the best by its mean on these very seeds. "
        f"Ends of the scores: {escape(scales)}. A difference is told on {FEW_SEEDS} training seeds or more. Executed "
        f"allocations: {allocations:,}; violations of a limit by the certificate's count: {violations:,}. Every score "
        "is a line of results.csv.</p></section>"
    )
