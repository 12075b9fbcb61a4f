"""A comparison's numbers as tables for the terminal and for Markdown.

The comparison is a plain dict, as `hybridalloc.reports.report.write_report` documents it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridalloc.reports.statistics import Interval, mean_interval

Comparison = Mapping[str, Any]
FEW_SEEDS = 5  # training seeds below which nothing is said to be above or below
NONE = "–"  # no number: the metric does not apply to the method, or is a mean of nothing
PARTIAL = "without the evaluation seeds on which the metric is a mean of nothing, such as the latency of nobody"


@dataclass(frozen=True)
class Cell:
    """One method's number on one metric, and its text; `interval` is None where it has none.

    `seeds` are the training and evaluation seeds behind it, of `given` evaluation seeds.
    """

    interval: Interval | None
    seeds: tuple[int, int]
    decimals: int
    best: bool
    given: int = 0

    @property
    def mean(self) -> str:
        return NONE if self.interval is None else number(self.interval.mean, self.decimals)

    @property
    def mark(self) -> str:
        """A dagger where the metric is a mean of nothing on some evaluation seeds, which are left out."""
        return "†" if 0 < self.seeds[1] < self.given else ""

    @property
    def range(self) -> str:
        """The interval as "[low, high]", or nothing where one observation permits none."""
        if self.interval is None or not np.isfinite(self.interval.low):
            return ""
        return f"[{number(self.interval.low, self.decimals)}, {number(self.interval.high, self.decimals)}]"


def summarise(comparison: Comparison) -> dict[tuple[str, str], Cell]:
    """Mean and 95 % interval of each method on each metric, by (method key, metric key).

    Evaluation seeds on which a metric is not finite are left out for that method (`Cell.seeds` tells).

    Raises:
        ValueError: a part of the comparison is missing, or scores are not (T, V).
    """
    check(comparison)
    cells: dict[tuple[str, str], Cell] = {}
    for metric in comparison["metrics"]:
        found: dict[str, tuple[Interval | None, tuple[int, int]]] = {}
        for method in comparison["methods"]:
            found[method["key"]] = _interval(method, metric["key"])
        given = {m["key"]: _columns(m["values"].get(metric["key"])) for m in comparison["methods"]}
        means = {key: interval.mean for key, (interval, _) in found.items() if interval is not None}
        top = max(means.values(), default=0.0) if metric["better"] == "higher" else min(means.values(), default=0.0)
        decimals = places(means.values())
        distinct = {number(mean, decimals) for mean in means.values()}
        for key, (interval, seeds) in found.items():
            best = key in means and len(distinct) > 1 and number(means[key], decimals) == number(top, decimals)
            cells[key, metric["key"]] = Cell(interval, seeds, decimals, best, given[key])
    return cells


def text_table(comparison: Comparison, width: int | None = None) -> str:
    """Methods by metrics for the terminal: mean and half the width of its 95 % interval.

    Metrics that do not fit into `width` characters (default: the terminal's) go into further blocks.
    ``*`` marks the best mean of a metric; the paired differences follow.
    """
    cells = summarise(comparison)
    metrics = comparison["metrics"]
    head = [["method"], [""]]
    for metric in metrics:
        head[0].append(metric["label"])
        head[1].append(" ".join([metric.get("unit") or "", _arrow(metric)]).strip())
    rows = []
    for method in comparison["methods"]:
        row = [method["label"]]
        for metric in metrics:
            cell = cells[method["key"], metric["key"]]
            half = ""
            if cell.range and cell.interval is not None:
                half = f" ±{number((cell.interval.high - cell.interval.low) / 2, cell.decimals)}"
            row.append(f"{cell.mean}{cell.mark}{half}{'*' if cell.best else ' '}")
        rows.append(row)
    widths = [max(len(row[k]) for row in head + rows) for k in range(len(metrics) + 1)]
    room = width or shutil.get_terminal_size((110, 24)).columns
    lines: list[str] = []
    first = 1
    while first <= len(metrics):
        last = first + 1
        while last <= len(metrics) and widths[0] + sum(w + 2 for w in widths[first : last + 1]) <= room:
            last += 1
        block = [0, *range(first, last)]
        lines += [""] * bool(lines) + [_aligned([row[k] for k in block], [widths[k] for k in block]) for row in head]
        lines.append("  ".join("-" * widths[k] for k in block))
        lines += [_aligned([row[k] for k in block], [widths[k] for k in block]) for row in rows]
        first = last
    if any(cell.mark for cell in cells.values()):
        lines.append(f"† {PARTIAL}")
    if trained := trained_text(comparison):
        lines.append(trained)
    differences = comparison.get("differences") or []
    if differences:
        lines += ["", "paired differences (same seeds): mean, 95 % interval, t-interval over few seeds"]
        longest = max(len(entry["label"]) for entry in differences)
        for entry in differences:
            text = difference_text(entry)
            parts = [entry["label"].ljust(longest), entry["metric"], text.mean, text.interval]
            told = f"{text.verdict} ({text.pairs})" if text.pairs else text.verdict
            lines.append("  " + "  ".join([*parts, *([text.conservative] if text.conservative else []), told]))
    return "\n".join(lines)


def markdown_table(comparison: Comparison) -> str:
    """Methods by metrics as a Markdown table: mean and 95 % interval, the best mean of a metric in bold."""
    cells = summarise(comparison)
    metrics = comparison["metrics"]
    titles = ["method"]
    for metric in metrics:
        unit = f" ({metric['unit']})" if metric.get("unit") else ""
        titles.append(f"{metric['label']}{unit} {_arrow(metric)}")
    lines = ["| " + " | ".join(map(_escape, titles)) + " |", "|---" + "|---:" * len(metrics) + "|"]
    for method in comparison["methods"]:
        row = [_escape(method["label"])]
        for metric in metrics:
            cell = cells[method["key"], metric["key"]]
            mean = f"{cell.mean}{cell.mark}"
            row.append(" ".join([f"**{mean}**" if cell.best else mean, cell.range]).strip())
        lines.append("| " + " | ".join(row) + " |")
    if any(cell.mark for cell in cells.values()):
        lines += ["", f"† {PARTIAL}"]
    if trained := trained_text(comparison):
        lines += ["", trained]
    differences = comparison.get("differences") or []
    if differences:
        lines += ["", "| paired difference | metric | mean | 95 % interval | 95 % t-interval | |"]
        lines += ["|---|---|---:|---:|---:|---|"]
        for entry in differences:
            text = difference_text(entry)
            parts = [_escape(entry["label"]), _escape(entry["metric"]), text.mean, text.interval]
            verdict = f"{text.verdict} ({text.pairs})" if text.pairs else text.verdict
            lines.append(f"| {' | '.join([*parts, text.conservative or NONE, verdict])} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class DifferenceText:
    """A paired difference in words; `conservative` is empty where there is no t-interval.

    `verdict` is "above 0", "below 0", "not told apart", "one observation" or "no pair", by the t-interval where
    there is one, as the other is too narrow with few training seeds; on fewer of them than FEW_SEEDS (an entry may say
    its "training_seeds") none is given. `pairs` says of how many pairs of runs both had
    a number where not all did, and is empty otherwise.
    """

    mean: str
    interval: str
    conservative: str
    verdict: str
    pairs: str = ""


def difference_text(entry: Mapping[str, Any]) -> DifferenceText:
    """The texts of one of the comparison's differences."""
    mean, low, high = (np.nan if entry[name] is None else float(entry[name]) for name in ("mean", "low", "high"))
    wider = entry.get("conservative")
    ends = [low, high] if wider is None else [float(end) for end in wider]
    decimals = places(value for value in (mean, low, high) if np.isfinite(value))

    def pair(values: list[float]) -> str:
        return f"[{', '.join(number(value, decimals, sign=True) for value in values)}]"

    if np.isnan(mean):
        verdict = "no pair"
    elif not np.isfinite(ends).all():
        verdict = "one observation"
    elif (seeds := entry.get("training_seeds")) is not None and seeds < FEW_SEEDS:
        verdict = f"{seeds} training seed{'s' * (seeds > 1)}: too few to tell"
    else:
        verdict = "above 0" if ends[0] > 0 else "below 0" if ends[1] < 0 else "not told apart"
    text = "" if wider is None else pair(ends)
    count, of = entry.get("pairs"), entry.get("of")
    pairs = f"{count} of {of} pairs" if count is not None and of is not None and count < of else ""
    return DifferenceText(number(mean, decimals, sign=True), pair([low, high]), text, verdict, pairs)


def trained_text(comparison: Comparison) -> str:
    """How much was trained where that is not the budget, as one sentence; "" where it is, or where nobody says."""
    budget = (comparison.get("budget") or {}).get("agent_steps")
    done = {int(curve["steps"][-1]) for curve in comparison.get("curves") or [] if len(curve["steps"])}
    if budget is None or not done or done == {int(budget)}:
        return ""
    span = " to ".join(f"{steps:,}" for steps in sorted({min(done), max(done)}))
    return f"Learners trained for {span} agent-steps, of a budget of {int(budget):,}: whole decisions of all agents."


def check(comparison: Comparison) -> None:
    """Refuse a comparison that lacks what every table needs, naming it."""
    for name in ("title", "problem", "metrics", "methods"):
        if not comparison.get(name):
            raise ValueError(f"comparison[{name!r}] is missing or empty; write_report's docstring lists the parts")
    for kind, names in (
        ("metrics", ("key", "label", "better")),
        ("methods", ("key", "label", "kind", "values")),
    ):
        for k, entry in enumerate(comparison[kind]):
            for name in names:
                if name not in entry:
                    raise ValueError(f"comparison[{kind!r}][{k}] has no {name!r}; required are {', '.join(names)}")
    notes = comparison.get("notes") or []
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("comparison['notes'] is no list of sentences")


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """A number with a fixed count of decimals and a real minus sign; NaN is the dash."""
    if not np.isfinite(value):
        return NONE if np.isnan(value) else ("∞" if value > 0 else "−∞")
    text = f"{value:+,.{decimals}f}" if sign else f"{value:,.{decimals}f}"
    if not any(c in "123456789" for c in text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def places(values: Any) -> int:
    """Decimals that show four digits of the largest of some numbers, four at most; none for whole numbers.

    Numbers that are not finite do not count.
    """
    numbers = [float(value) for value in values if np.isfinite(value)]
    if all(value.is_integer() for value in numbers):
        return 0
    size = max(abs(value) for value in numbers)
    return 4 if size < 1 else max(0, 3 - int(np.floor(np.log10(size))))


def _interval(method: Mapping[str, Any], metric: str) -> tuple[Interval | None, tuple[int, int]]:
    values = method["values"].get(metric)
    if values is None or np.size(values) == 0:
        return None, (0, 0)
    matrix = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if matrix.ndim != 2:
        raise ValueError(
            f"method {method['key']!r}, metric {metric!r}: values have {matrix.ndim} dimensions; "
            "(training seeds, evaluation seeds) is required"
        )
    matrix = matrix[:, np.isfinite(matrix).all(axis=0)]
    if matrix.size == 0:
        return None, (0, 0)
    return mean_interval(matrix), (matrix.shape[0], matrix.shape[1])


def _columns(values: Any) -> int:
    """Evaluation seeds of (T, V) or (V,) scores."""
    return 0 if values is None or np.size(values) == 0 else int(np.shape(values)[-1])


def _arrow(metric: Mapping[str, Any]) -> str:
    return "↑" if metric["better"] == "higher" else "↓"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _aligned(row: list[str], widths: list[int]) -> str:
    """The first column to the left, numbers to the right."""
    cells = [row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))]
    return "  ".join(cells).rstrip()
