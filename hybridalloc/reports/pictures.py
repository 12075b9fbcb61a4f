"""The comparison's main figures as PNG, for MLflow's artifact view and the README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"hybrid": "#1d4ed8", "rl": "#ea580c", "game": "#15803d", "heuristic": "#6b7280"}
STYLES = ("-", "--", ":", "-.")


def write_pictures(folder: str | Path, comparison: Mapping[str, Any]) -> list[Path]:
    """Write ``learning_curves.png``, ``<what is tuned for>.png`` and ``map.png`` into ``folder``; the paths written.

    Args:
        comparison: as :func:`hybridalloc.reports.report.write_report` takes it.
    """
    from matplotlib.figure import Figure  # without pyplot, whose backend belongs to the caller

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    drawings = {"learning_curves": _curves, comparison.get("aim", "welfare"): _earned, "map": _map}
    paths = []
    for name, draw in drawings.items():
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        axes = figure.subplots()
        if draw(axes, comparison):
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            figure.savefig(target / f"{name}.png", dpi=130)
            paths.append(target / f"{name}.png")
    return paths


def _curves(axes: Any, comparison: Mapping[str, Any]) -> bool:
    """What is tuned for against agent-steps: mean over training seeds, band of all of them; the top enlarged."""
    matrix = lambda curve: np.asarray(curve["values"], dtype=float)  # None, a mean of nothing, as nan
    curves = [curve for curve in comparison.get("curves", ()) if np.isfinite(matrix(curve)).any()]
    if not curves:
        return False
    methods = {m["key"]: m for m in comparison["methods"]}
    levels = comparison.get("levels", ())
    means = [matrix(curve).mean(0) for curve in curves]
    best = max((float(mean[-1]) for mean in means if np.isfinite(mean[-1])), default=0.0)
    near = axes.inset_axes((0.4, 0.12, 0.59, 0.5))
    drawn: dict[str, int] = {}
    for curve in curves:
        method, values = methods[curve["method"]], matrix(curve)
        kind, steps = method["kind"], np.asarray(curve["steps"]) / 1e6
        style = STYLES[drawn.get(kind, 0) % len(STYLES)]
        drawn[kind] = drawn.get(kind, 0) + 1
        for part in (axes, near):
            part.plot(steps, values.mean(0), style, color=COLOURS[kind], label=method["label"], lw=1.4)
            part.fill_between(steps, values.min(0), values.max(0), color=COLOURS[kind], alpha=0.12, lw=0)
    for level in levels:
        for part in (axes, near):
            part.axhline(level["value"], color="#9ca3af", lw=0.8, ls=":")
        if best - 0.04 < level["value"] < best + 0.004:
            near.annotate(level["label"], (0, level["value"]), fontsize=6, color="#6b7280", va="top")
        else:
            axes.annotate(level["label"], (0, level["value"]), fontsize=7, color="#6b7280", va="bottom")
    near.set_ylim(best - 0.04, best + 0.004)
    near.tick_params(labelsize=6)
    axes.set(xlabel="million agent-steps of training", ylabel=f"{_aim(comparison)[1]} (tuning seeds)")
    axes.set_ylim(top=best + 0.12)
    axes.legend(frameon=False, loc="upper center", ncols=3, fontsize=7)
    return True


def _aim(comparison: Mapping[str, Any]) -> tuple[str, str]:
    """Key of the metric that is tuned for, and its label with its unit."""
    key = comparison.get("aim", "welfare")
    named = {m["key"]: ", ".join(filter(None, (m["label"], m.get("unit")))) for m in comparison["metrics"]}
    return key, named.get(key, key)


def _earned(axes: Any, comparison: Mapping[str, Any]) -> bool:
    """Mean of what is tuned for on the reporting seeds with the interval of the mean."""
    from hybridalloc.reports.statistics import mean_interval

    offset = {"textcoords": "offset points"}
    key, label = _aim(comparison)
    lower = next((m["better"] == "lower" for m in comparison["metrics"] if m["key"] == key), False)
    found = [(method, mean_interval(method["values"][key])) for method in comparison["methods"]]
    last = float("inf") if lower else float("-inf")
    found.sort(key=lambda row: last if np.isnan(row[1].mean) else row[1].mean, reverse=not lower)
    rows = [method for method, _ in found]
    for k, (method, interval) in enumerate(found):
        if np.isnan(interval.mean):  # of no run: its row stays empty
            continue
        axes.barh(k, interval.mean, color=COLOURS[method["kind"]], alpha=0.85)
        axes.plot([interval.low, interval.high], [k, k], color="#111827", lw=1.5)
        end = interval.high if np.isfinite(interval.high) else interval.mean
        axes.annotate(f"{interval.mean:.4f}", (end, k), fontsize=8, va="center", xytext=(4, 0), **offset)
    axes.set_yticks(range(len(rows)), [m["label"] for m in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{label} (reporting seeds, 95 % interval)")
    return True


def _map(axes: Any, comparison: Mapping[str, Any]) -> bool:
    """Stations, devices and who is served where, in one slot."""
    snapshot = comparison.get("map")
    if not snapshot:
        return False
    stations, devices = np.asarray(snapshot["stations"]), np.asarray(snapshot["devices"])
    option, active = np.asarray(snapshot["option"]), np.asarray(snapshot["active"])
    for i in np.flatnonzero(active & (option > 0)):
        ends = np.stack([devices[i], stations[option[i] - 1]])
        axes.plot(*ends.T, color=f"C{(option[i] - 1) % 10}", lw=0.8, alpha=0.7)
    axes.scatter(*devices[~active].T, s=8, color="#d1d5db", label="idle")
    axes.scatter(*devices[active & (option == 0)].T, s=22, facecolors="none", edgecolors="#374151", label="opted out")
    axes.scatter(*devices[active & (option > 0)].T, s=16, color="#1d4ed8", label="served")
    axes.scatter(*stations.T, s=90, marker="s", c=[f"C{k % 10}" for k in range(len(stations))], edgecolors="black")
    axes.set(aspect="equal", xlabel="east, m", ylabel="north, m", title=snapshot["label"])
    axes.legend(frameon=False, fontsize=8)
    return True
