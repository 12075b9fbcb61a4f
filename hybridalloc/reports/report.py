"""One self-contained HTML page about a comparison: no network, light and dark, desk and phone.

Every figure stands beside a table with its numbers, and each caption says what was averaged over what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hybridalloc.files import write_text
from hybridalloc.reports import extras as report_extras
from hybridalloc.reports import figures
from hybridalloc.reports.one_world import over_time, service_map
from hybridalloc.reports.parts import section, table
from hybridalloc.reports.statistics import LEVEL, mean_of
from hybridalloc.reports.style import STYLE
from hybridalloc.reports.summary import (
    FEW_SEEDS,
    PARTIAL,
    Cell,
    Comparison,
    difference_text,
    markdown_table,
    number,
    places,
    summarise,
    text_table,
    trained_text,
)
from hybridalloc.reports.verdict import verdict_section

__all__ = ["markdown_table", "text_table", "write_report"]


def write_report(path: str | Path, comparison: Comparison) -> Path:
    """Write the page.

    Args:
        path: the file; folders are made.
        comparison: a plain dict,

            {"title", "problem", "scenario": {..}, "budget": {..}, "git_commit", "data_digest",
             "seeds": {"train": [..], "report": [..]},
             "metrics": [{"key", "label", "unit", "better": "higher" | "lower"}],
             "methods": [{"key", "label", "kind": "hybrid" | "rl" | "game" | "heuristic",
                          "values": {metric key: (T, V) scores}}],
             "curves": [{"method", "steps": (S,), "values": (T, S)}],
             "levels": [{"label", "value"}],
             "differences": [{"label", "metric", "mean", "low", "high", "conservative": [low, high],
                              "pairs": with both scores, "of": pairs in all}],
             "over_time": {"counts": (S, O) agents by option in each slot, "options": (O,) names, "label"},
             "headline": [metric keys of the verdict],
             "map": {"stations": (K, 2), "devices": (N, 2), "option": (N,), "active": (N,), "label"}}

            "aim" and "fairness" are keys of metrics: what is tuned for (default "welfare") and what is drawn against it
            (default "jain"). "agent" is the word for one, and the map's "site" that for a station. title, problem,
            metrics and methods are required; what else is missing, the page leaves out.
            ``conservative``, ``pairs``, ``of`` and ``training_seeds`` may be missing or None. A method that is none but
            knows what nobody is told has "bound": True, a heuristic as others have published it "published": True. A
            score that is None or not finite is absent, and a metric of which a method has no score shows as a dash.
            "note" (a string) and "notes" (strings,
            of the problem) stand under the title.

    Returns:
        The path.

    Raises:
        ValueError: a required part is missing or of the wrong shape; the message names it.
    """
    cells = summarise(comparison)
    styles = figures.looks(comparison["methods"])
    body = [
        _header(comparison),
        verdict_section(comparison),
        _differences(comparison),
        _curves(comparison, styles),
        _metrics(comparison, cells, styles),
        _profiles(comparison, styles),
        _frontier(comparison, styles),
        over_time(comparison),
        service_map(comparison),
        _settings(comparison),
        _method_notes(comparison),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(comparison['title'])}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(part for part in body if part)}\n</body></html>\n"
    )
    return write_text(path, page)


def _header(comparison: Comparison) -> str:
    notes = [*(comparison.get("notes") or ()), *([comparison["note"]] if comparison.get("note") else ())]
    note = "".join(f'<p class="lead">{escape(str(one))}</p>' for one in notes)
    counted = [f"{len(some)} {_words(name)} seeds" for name, some in (comparison.get("seeds") or {}).items()]
    lead = "; ".join([str(comparison["problem"]), *([", ".join(counted)] if counted else [])])
    return f'<header><h1>{escape(comparison["title"])}</h1><p class="lead">{escape(lead)}</p>{note}</header>'


def _settings(comparison: Comparison) -> str:
    seeds = comparison.get("seeds") or {}
    entries = [("problem", str(comparison["problem"]))]
    entries += [(f"{name} seeds", _seeds(values)) for name, values in seeds.items()]
    entries += [(f"budget: {_words(name)}", _value(value)) for name, value in (comparison.get("budget") or {}).items()]
    entries += [
        ("scenario" if name == "name" else _words(name), _value(value))
        for name, value in (comparison.get("scenario") or {}).items()
    ]
    entries += [
        (label, str(comparison[key])[:16])
        for key, label in (("git_commit", "git commit"), ("data_digest", "data digest"))
        if comparison.get(key)
    ]
    settings = {_words(name) for name in comparison.get("scenario") or {} if name != "name"}
    lines = lambda some: "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in some)
    items = lines(entry for entry in entries if entry[0] not in settings)
    rest = lines(entry for entry in entries if entry[0] in settings)
    more = f"<details><summary>settings of the problem</summary><dl>{rest}</dl></details>" if rest else ""
    return section("What was run", f"<dl>{items}</dl>{more}")


def _differences(comparison: Comparison) -> str:
    entries = comparison.get("differences") or []
    if not entries:
        return ""
    metrics = {metric["key"]: metric for metric in comparison["metrics"]}
    careful = any(entry.get("conservative") for entry in entries)
    heads = ["difference", "mean", "95 % interval"]
    blocks = []
    for key in dict.fromkeys(entry["metric"] for entry in entries):
        metric = metrics.get(key, {})
        chosen = [entry for entry in entries if entry["metric"] == key]
        rows = []
        for entry in chosen:
            text = difference_text(entry)
            better = {"above 0": "higher", "below 0": "lower"}.get(text.verdict)
            tone = "" if better is None else " good" if metric.get("better") == better else " bad"
            extra = f'<span class="range">t: {text.conservative}</span>' if text.conservative else ""
            told = f"{text.verdict}, {text.pairs}" if text.pairs else text.verdict
            row = [f'{text.mean}<span class="range{tone}">{told}</span>', text.interval + extra]
            rows.append((escape(entry["label"]), row))
        title = _metric_title(metric) if metric else key
        ends = lambda e: (np.nan if e[name] is None else float(e[name]) for name in ("mean", "low", "high"))
        drawn = [(e["label"], *ends(e), e.get("conservative")) for e in chosen if e["mean"] is not None]
        forest = figures.forest(drawn, f"Paired differences in {title}")
        blocks.append(
            f'<div class="two"><figure><h3>{escape(title)}</h3>{forest}</figure>'
            f'<div class="scroll">{table(heads, rows)}</div></div>'
        )
    caption = (
        "Dot: mean difference over common training and evaluation seeds. Line: 95 % interval from resampling "
        "both kinds of seed. A difference is told apart from 0 only where its interval leaves 0 out."
    )
    if careful:
        caption += (
            " With few training seeds that line is too short. The thin line, and t in the table, is the "
            "t-interval, which counts how few they are; the words under the mean go by it."
        )
    return section("Paired differences", f'{"".join(blocks)}<p class="note">{caption}</p>')


def _curves(comparison: Comparison, styles: Mapping[str, figures.Look]) -> str:
    matrix = lambda curve: np.atleast_2d(np.asarray(curve["values"], dtype=float))
    curves = [curve for curve in comparison.get("curves") or [] if np.isfinite(matrix(curve)).any()]
    if not curves:
        return ""
    labels = {method["key"]: method["label"] for method in comparison["methods"]}
    aim = _aim(comparison)
    y_label = ", ".join(filter(None, (aim["label"], aim.get("unit"))))
    levels = sorted(comparison.get("levels") or [], key=lambda level: -float(level["value"]))
    legend = [
        f"<li>{figures.swatch(styles[curve['method']])}{escape(labels[curve['method']])}</li>" for curve in curves
    ]
    legend_levels = [f"<li><b>{figures.letter(k)}</b> {escape(level['label'])}</li>" for k, level in enumerate(levels)]
    draw = partial(figures.learning_curves, curves, levels, labels, styles, y_label)
    drawings = "".join(
        f'<div class="{kind}">{draw(wide=wide, floor=floor)}</div>'
        for floor in (None, _near_the_top(curves, comparison))
        for kind, wide in (("desk", True), ("phone", False))
        if floor is None or floor > -np.inf
    )
    final = [matrix(curve) for curve in curves]
    decimals = places([float(np.nanmax(np.abs(values))) for values in final])
    rows = []
    for curve, values in zip(curves, final, strict=True):
        middle = values.shape[1] // 2
        row = [f"{int(values.shape[0])}"]
        row += [number(float(values[:, k].mean()), decimals) for k in (0, middle, -1)]
        low, high = (number(float(end), decimals) for end in (values[:, -1].min(), values[:, -1].max()))
        row.append(f"{low} to {high}")
        row.append(f"{int(curve['steps'][-1]):,}")
        rows.append((escape(labels[curve["method"]]), row))
    for level in levels:
        value = number(float(level["value"]), decimals)
        rows.append((f"{escape(level['label'])} (level)", ["–", value, value, value, "–", "0"]))
    heads = ["method", "seeds", "start", "half-way", "end", "end, by seed", "agent-steps"]
    caption = (
        f"{escape(y_label[:1].upper() + y_label[1:])} during training: line, the mean over training seeds; band, from "
        "the lowest to the highest seed (not an interval). Dotted lines, by letter: methods that do not train. Below, "
        "where there is room for it, the top of the same figure enlarged."
    )
    return section(
        "Learning curves",
        f'<ul class="legend">{"".join(legend)}</ul><ul class="legend">{"".join(legend_levels)}</ul>'
        f"<figure>{drawings}<figcaption>{caption}</figcaption></figure>"
        f'<div class="scroll">{table(heads, rows)}</div>',
    )


def _near_the_top(curves: Sequence[Mapping[str, Any]], comparison: Comparison) -> float:
    """From where on the learning curves are worth enlarging: -inf where all lies close together anyway."""
    ends = [mean_of(np.asarray(curve["values"], dtype=float)[..., -1]) for curve in curves]
    kinds = {method["key"]: method["kind"] for method in comparison["methods"]}
    starts = [
        float(np.nanmin(np.asarray(curve["values"], dtype=float)))
        for curve in curves
        if kinds.get(curve["method"]) == "hybrid"
    ]
    everything = [float(np.nanmin(np.asarray(curve["values"], dtype=float))) for curve in curves]
    everything += [float(level["value"]) for level in comparison.get("levels") or []]
    ends = [end for end in ends if np.isfinite(end)]
    if not ends:
        return -np.inf
    top, low = max(ends), min(ends + starts)
    floor = low - 0.3 * (top - low)
    return floor if np.isfinite(floor) and top - min(everything) > 3 * (top - floor) > 0 else -np.inf


def _metrics(comparison: Comparison, cells: Mapping[tuple[str, str], Cell], styles: Mapping[str, figures.Look]) -> str:
    metrics, methods = comparison["metrics"], comparison["methods"]
    heads = ["method", *(f"{metric['label']}\n{_unit(metric)}" for metric in metrics)]
    rows = []
    partial = False
    for method in methods:
        row = []
        for metric in metrics:
            cell = cells[method["key"], metric["key"]]
            partial |= bool(cell.mark)
            row.append(
                f'<span class="{"best" if cell.best else ""}">{cell.mean}{cell.mark}</span>'
                f'<span class="range">{cell.range}</span>'
            )
        rows.append((escape(method["label"]), row))
    panels = []
    for metric in metrics:
        bars = []
        for method in methods:
            cell = cells[method["key"], metric["key"]]
            if cell.interval is not None:
                bars.append((method["label"], cell.interval, cell.decimals, styles[method["key"]]))
        bars.sort(key=lambda bar: bar[1].mean, reverse=metric["better"] == "higher")
        title = _metric_title(metric)
        if not bars:
            drawing = "<p>No method has a number.</p>"
        elif len({number(interval.mean, decimals) for _, interval, decimals, _ in bars}) == 1:
            drawing = f"<p>{number(bars[0][1].mean, bars[0][2])} for each of {len(bars)} methods.</p>"
        else:
            drawing = figures.metric_bars(bars, title)
        panels.append(f"<figure><h3>{escape(title)}</h3>{drawing}</figure>")
    caption = (
        "Mean over training and evaluation seeds with its 95 % interval. Bold: the best mean, which need not "
        "be told apart from the next; the paired differences say that."
    )
    if partial:
        caption += f" † {PARTIAL}."
    return section(
        "Metrics",
        f'<div class="scroll">{table(heads, rows, "main")}</div><p class="note">{caption}</p>'
        f'<div class="panels" style="margin-top:24px">{"".join(panels)}</div>'
        '<p class="note">Bars start at 0, the best first; whiskers are the 95 % intervals of the table. '
        "Methods without a number are left out.</p>",
    )


def _profiles(comparison: Comparison, styles: Mapping[str, figures.Look]) -> str:
    aim = _aim(comparison)
    sign = 1.0 if aim["better"] == "higher" else -1.0
    scores = report_extras.scores_of(comparison, aim["key"])
    if not scores or max(map(len, scores.values())) < 2:
        return ""
    labels = {method["key"]: method["label"] for method in comparison["methods"]}
    quantiles = report_extras.quantile_rows(scores)
    best = max(sign * row[2] for row in quantiles.values())
    top = {key: max(sign * row[0], sign * row[-1]) for key, row in quantiles.items()}
    shown = {key: scores[key] for key in quantiles if top[key] >= best - 0.3 * abs(best)}
    legend = "".join(f"<li>{figures.swatch(styles[key])}{escape(labels[key])}</li>" for key in shown)
    drawings = "".join(
        f'<div class="{kind}">{report_extras.profile_figure(shown, labels, styles, aim["label"], wide=wide)}</div>'
        for kind, wide in (("desk", True), ("phone", False))
    )
    decimals = places([max(map(abs, row)) for row in quantiles.values()])
    rows = [
        (escape(labels[key]), [str(len(scores[key])), *(number(value, decimals) for value in row)])
        for key, row in quantiles.items()
    ]
    heads = ["method", "runs", *(f"{level:.0%}" for level in report_extras.LEVELS)]
    caption = (
        f"Share of runs (each training seed on each evaluation seed) whose {escape(aim['label'])} is above a level. A "
        f"line that lies to the {'right' if sign > 0 else 'left'} of another everywhere is better in every quantile; "
        f"the table has the {escape(aim['label'])} at five of them"
        + (", and the methods that lie far off." if len(shown) < len(scores) else ".")
    )
    return section(
        "Performance profiles",
        f'<ul class="legend">{legend}</ul><figure>{drawings}<figcaption>{caption}</figcaption></figure>'
        f'<div class="scroll">{table(heads, rows)}</div>',
    )


def _frontier(comparison: Comparison, styles: Mapping[str, figures.Look]) -> str:
    aim, other = _aim(comparison), comparison.get("fairness", "jain")
    if other is None or other == aim["key"]:
        return ""
    sign = 1.0 if aim["better"] == "higher" else -1.0
    earned, fairness = (report_extras.scores_of(comparison, key) for key in (aim["key"], other))
    keys = [method["key"] for method in comparison["methods"] if method["key"] in earned and method["key"] in fairness]
    if len(keys) < 2:
        return ""
    labels = {method["key"]: method["label"] for method in comparison["methods"]}
    titles = {metric["key"]: metric["label"] for metric in comparison["metrics"]}
    points = [(float(earned[key].mean()), float(fairness[key].mean())) for key in keys]
    best = report_extras.frontier([(sign * a, b) for a, b in points])
    marks = [(labels[k], *point, on, styles[k]) for k, point, on in zip(keys, points, best, strict=True)]
    rows = [
        (f"<b>{figures.letter(n)}</b> {escape(label)}", [f"{a:.4f}", f"{b:.4f}", "yes" if on else ""])
        for n, (label, a, b, on, _) in enumerate(marks)
    ]
    names = titles[aim["key"]], titles[other]
    better = "more is better on both" if sign > 0 else f"less {names[0]} and more {names[1]} is better"
    caption = (
        f"Means over all runs, by letter; {escape(better)}. The dotted line joins the frontier: no other method "
        "is better on one and at least as good on the other. Methods a tenth or more below the "
        f"best {escape(names[0])} are in the table alone; intervals are in the table of metrics."
    )
    top = max(sign * a for a, _ in points)
    near = [
        (*mark, figures.letter(n)) for n, mark in enumerate(marks) if sign * mark[1] >= top - 0.1 * abs(top) or mark[3]
    ]
    drawing = report_extras.frontier_figure(near, names)
    listed = table(["method", *names, "on the frontier"], rows)
    return section(
        escape(f"{names[0][:1].upper()}{names[0][1:]} against fairness"),
        f'<div class="two"><figure>{drawing}<figcaption>{caption}</figcaption></figure>'
        f'<div class="scroll">{listed}</div></div>',
    )


def _method_notes(comparison: Comparison) -> str:
    trained = max((np.atleast_2d(np.asarray(c["values"])).shape[0] for c in comparison.get("curves") or []), default=0)
    seeds = comparison.get("seeds") or {}
    train = len(seeds.get("train") or []) or trained
    text = (
        f"Intervals cover {LEVEL:.0%} in the limit of many seeds, by resampling training and evaluation "
        "seeds (crossed bootstrap); a method without training is resampled over evaluation seeds alone."
    )
    if trained := trained_text(comparison):
        text += f" {escape(trained)}"
    if 0 < train < FEW_SEEDS:
        text += (
            f" Here are {train} training seeds: read the intervals of trained methods as a sketch. "
            "<code>hybridalloc compare --full</code> uses more."
        )
    return section("How the numbers were made", f"<p>{text}</p>")


def _aim(comparison: Comparison) -> Mapping[str, Any]:
    """The metric that is tuned for."""
    key = comparison.get("aim", "welfare")
    known = {metric["key"]: metric for metric in comparison["metrics"]}
    return known.get(key, {"key": key, "label": key, "unit": "", "better": "higher"})


def _unit(metric: Mapping[str, Any]) -> str:
    return f"{metric.get('unit') or ''}\u00a0{'↑' if metric['better'] == 'higher' else '↓'}".strip()


def _metric_title(metric: Mapping[str, Any]) -> str:
    unit = f" ({metric['unit']})" if metric.get("unit") else ""
    return f"{metric['label']}{unit} {'↑' if metric['better'] == 'higher' else '↓'}"


def _seeds(values: Any) -> str:
    seeds = [int(value) for value in values]
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]} ({len(seeds)})"
    return ", ".join(map(str, seeds)) or "none"


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1e3 else f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
