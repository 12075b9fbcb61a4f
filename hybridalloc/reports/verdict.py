"""What a comparison says at once: the hybrid beside the best of each other kind, with the differences' intervals.

The best of a kind is the one with the best mean of what is tuned for on the reporting seeds, which favours the rivals:
the hybrid is the table's first, whatever it scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from hybridalloc.reports import figures
from hybridalloc.reports.statistics import PairedDifference, mean_of, paired_difference
from hybridalloc.reports.summary import FEW_SEEDS, Comparison, number, places

KINDS = {
    "rl": "RL alone", "game": "game alone", "heuristic": "best heuristic", "published": "best published",
    "bound": "bound",
}  # fmt: skip


@dataclass(frozen=True)
class Rival:
    """The best of a kind beside the hybrid; ``difference`` is hybrid less it, paired by seeds, None where they share
    none. ``told``: what the difference says, "" where nothing may be said."""

    kind: str
    key: str
    label: str
    mean: float
    difference: PairedDifference | None
    told: str


@dataclass(frozen=True)
class Standing:
    """One headline metric: the hybrid's mean and its rivals. What others have published is a heuristic too, and may be
    the best of both."""

    metric: Mapping[str, Any]
    key: str
    label: str
    mean: float
    rivals: tuple[Rival, ...]
    training_seeds: int

    @property
    def distinct(self) -> tuple[Rival, ...]:
        """The rivals, each method once."""
        return tuple({rival.key: rival for rival in reversed(self.rivals)}.values())[::-1]


def kind_of(method: Mapping[str, Any]) -> str:
    """The method's kind, "bound" for what knows that nobody is told."""
    return "bound" if method.get("bound") else str(method["kind"])


def kinds_of(method: Mapping[str, Any]) -> tuple[str, ...]:
    """All that it may stand for: what others have published is a heuristic too."""
    kind = kind_of(method)
    return (kind, "published") if method.get("published") and kind != "bound" else (kind,)


def standings(comparison: Comparison) -> list[Standing]:
    """A standing for each headline metric that the hybrid has; [] where the table has no hybrid."""
    known = {metric["key"]: metric for metric in comparison["metrics"]}
    aim = comparison.get("aim", "welfare")
    ours = next((m for m in comparison["methods"] if kind_of(m) == "hybrid"), None)
    if ours is None or aim not in known:
        return []
    best = _best(comparison, known[aim])
    found = []
    for key in dict.fromkeys(comparison.get("headline") or [aim]):
        if key not in known or not _there(ours, key):
            continue
        mine = np.atleast_2d(np.asarray(ours["values"][key], dtype=float))
        rivals = [
            _rival(kind, method, mine, known[key])
            for kind, method in best.items()
            if _there(method, key)
        ]  # fmt: skip
        found.append(Standing(known[key], ours["key"], ours["label"], mean_of(mine), tuple(rivals), mine.shape[0]))
    return found


def _best(comparison: Comparison, aim: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The best method of each kind but the hybrid, in the order of KINDS."""
    sign = 1.0 if aim["better"] == "higher" else -1.0
    best: dict[str, tuple[float, Mapping[str, Any]]] = {}
    for method in comparison["methods"]:
        if not _there(method, aim["key"]):
            continue
        score = sign * mean_of(np.asarray(method["values"][aim["key"]], dtype=float))
        for kind in kinds_of(method):
            if kind in KINDS and (kind not in best or score > best[kind][0]):
                best[kind] = score, method
    return {kind: best[kind][1] for kind in KINDS if kind in best}


def _there(method: Mapping[str, Any], key: str) -> bool:
    values = method["values"].get(key)
    return values is not None and bool(np.isfinite(np.asarray(values, dtype=float)).any())


def _rival(kind: str, method: Mapping[str, Any], mine: Any, metric: Mapping[str, Any]) -> Rival:
    theirs = np.atleast_2d(np.asarray(method["values"][metric["key"]], dtype=float))
    mean = mean_of(theirs)
    if mine.shape[1] != theirs.shape[1]:
        return Rival(kind, method["key"], method["label"], mean, None, "")
    d = paired_difference(mine, theirs)
    return Rival(kind, method["key"], method["label"], mean, d, _told(d, metric["better"]))


def _told(d: PairedDifference, better: str) -> str:
    """In words what a difference says; nothing may be said on few training seeds."""
    if np.isnan(d.mean):
        return "no pair of runs"
    if d.training_seeds < FEW_SEEDS:
        return f"{d.training_seeds} training seed{'s' * (d.training_seeds > 1)}: too few to tell"
    low, high = d.conservative or (d.low, d.high)
    if not (low > 0 or high < 0):
        return "not told apart"
    return "better" if (low > 0) == (better == "higher") else "worse"


def interval_of(d: PairedDifference) -> tuple[float, float]:
    """The t-interval, which counts how few training seeds there are, or the bootstrap's where there is but one."""
    return d.conservative or (d.low, d.high)


def sentence(standing: Standing) -> str:
    """Such as "tasks in time: hybrid, IMAPPO 94.3 %, RL alone 92.2 % (IMAPPO alone), best heuristic 79.7 % (...)"."""
    unit = f" {standing.metric['unit']}" if standing.metric.get("unit") else ""
    decimals = places([standing.mean, *(rival.mean for rival in standing.rivals)])
    parts = [f"{standing.label} {number(standing.mean, decimals)}{unit}"]
    parts += [f"{KINDS[r.kind]} {number(r.mean, decimals)}{unit} ({r.label})" for r in standing.distinct]
    return f"{standing.metric['label']}: {', '.join(parts)}"


def difference_sentence(rival: Rival) -> str:
    """Such as "less IMAPPO alone +2.1 [+1.9, +2.4]: better"; "" without a difference."""
    d = rival.difference
    if d is None or np.isnan(d.mean):
        return ""
    ends = interval_of(d)
    decimals = places([v for v in (d.mean, *ends) if np.isfinite(v)])
    span = ", ".join(number(end, decimals, sign=True) for end in ends)
    return f"hybrid less {rival.label} {number(d.mean, decimals, sign=True)} [{span}]: {rival.told}"


def verdict_lines(comparison: Comparison) -> list[str]:
    """The verdict for a terminal: a line a headline metric, then the differences."""
    lines = []
    for standing in standings(comparison):
        lines.append(sentence(standing))
        lines += [f"  {text}" for text in map(difference_sentence, standing.distinct) if text]
    return lines


def verdict_section(comparison: Comparison) -> str:
    """The verdict as a section of the report: the means, the differences drawn, and what they say; "" without one."""
    blocks = []
    for standing in standings(comparison):
        decimals = places([standing.mean, *(rival.mean for rival in standing.rivals)])
        told_unit = str(standing.metric.get("unit") or "")
        unit = f" {told_unit}" if len(told_unit) <= 4 else ""
        rows = [("hybrid", standing.label, standing.mean)]
        rows += [(KINDS[rival.kind], rival.label, rival.mean) for rival in standing.distinct]
        cards = "".join(
            f'<div><dt>{kind}</dt><dd><b class="{"" if k else "first"}">{number(mean, decimals)}{escape(unit)}</b>'
            f"<span>{escape(label)}</span></dd></div>"
            for k, (kind, label, mean) in enumerate(rows)
        )
        told = "".join(f"<li>{escape(text)}</li>" for text in map(difference_sentence, standing.distinct) if text)
        drawn = [
            (f"less {rival.label}", d.mean, d.low, d.high, d.conservative)
            for rival in standing.distinct
            if (d := rival.difference) is not None and np.isfinite(d.mean)
        ]
        arrow = "↑" if standing.metric["better"] == "higher" else "↓"
        title = " ".join([standing.metric["label"], *([f"({told_unit})"] if told_unit else []), arrow])
        figure = figures.forest(drawn, f"{title}: hybrid less the best of each kind") if drawn else ""
        blocks.append(
            f'<h3>{escape(title)}</h3><dl class="verdict">{cards}</dl>'
            f'<div class="two"><figure>{figure}</figure><ul class="told">{told}</ul></div>'
        )
    if not blocks:
        return ""
    caption = (
        "Means over all seeds. The hybrid is the table's first; of each other kind it is the best in what is tuned "
        "for, on these very seeds. Differences are paired by seeds, with their 95 % t-interval (thin line) where there "
        "is more than one training seed; bold line: the bootstrap's."
    )
    return f'<section><h2>Verdict</h2>{"".join(blocks)}<p class="note">{caption}</p></section>'
