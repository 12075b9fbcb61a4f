"""A comparison from what its runs gave: values, curves, differences, and pictures of one world."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coordinator import Coordinator
from hybridalloc.allocator import Allocator
from hybridalloc.experiments.jobs import belief_file
from hybridalloc.experiments.methods import RIVALS, Method, learning_belief, method_of
from hybridalloc.experiments.runlog import strict
from hybridalloc.problems.beliefs import load_belief
from hybridalloc.problems.contract import AnyProblem, Card, Drawn, Prices
from hybridalloc.problems.metrics import Jain, Metric
from hybridalloc.reports import figures
from hybridalloc.reports.statistics import mean_of, paired_difference
from hybridalloc.training.config import REPORT_SEEDS, TUNE_SEEDS, TrainConfig
from hybridalloc.training.evaluation import evaluate

SHOWN_SLOTS, DRAWN_SLOT = 40, 19  # of one world, in the report
SHOWN_HEURISTICS = 2  # beside the learning curves
COMMON = (
    Metric("oscillating", "agents that go back and forth", "%", "lower"),
    Metric("lazy", "agents whose choice does not respond", "%", "lower"),
    Metric("step_ms", "decision time, batched", "ms", "lower"),
)  # of every problem, beside its own
Values = dict[str, dict[str, list[list[float]]]]  # by method and metric, a row a training seed
Curves = dict[str, list[list[dict[str, float]]]]


def assemble(
    name: str, rows: Sequence[str], problem: AnyProblem, record: dict[str, Any], values: Values, curves: Curves
) -> dict[str, Any]:
    """The comparison as :func:`hybridalloc.reports.report.write_report` takes it, without what is drawn of one world.

    Args:
        name: of the problem, as it was asked for. rows: methods of the table. record: of the comparison.
    """
    card = problem.card
    method = {row: method_of(row, card) for row in rows}
    told = set.intersection(*(set(values[row]) for row in [row for row in rows if method[row].runs] or rows))
    metrics = told_metrics(card, told)
    methods = [
        {"key": row, "label": m.label, "kind": m.kind, "values": values[row]}
        | ({"bound": True} if m.bound else {})
        | ({"published": True} if m.published else {})
        for row, m in method.items()
    ]
    best = _best_heuristic(method, values, card)
    check = f"check_{card.aim.key}"
    drawn = [
        {
            "method": row,
            "steps": [point["agent_steps"] for point in curves[row][0]],
            "values": [[point.get(check) for point in seed] for seed in curves[row]],  # None: of nothing
        }
        for row, m in method.items()
        if m.learner
    ]
    differences = []
    for key in (key for key in card.headline if key in told):
        for row in (row for row, m in method.items() if m.kind == "hybrid" and m.learner):
            alone = row.replace("hybrid-", "rl-")
            for other in dict.fromkeys((alone, *best, *(r for r in RIVALS if r not in (row, alone)))):
                if other in values:
                    d = paired_difference(values[row][key], values[other][key])
                    differences.append(strict({
                        "label": f"{method[row].label} - {method_of(other, card).label}", "metric": key, "mean": d.mean,
                        "low": d.low, "high": d.high, "conservative": d.conservative, "pairs": d.pairs,
                        "of": d.training_seeds * d.evaluation_seeds, "training_seeds": d.training_seeds,
                    }))  # fmt: skip
    return {
        "title": f"{name}{', ' * bool(card.variant)}{card.variant}: hybrid against its parents",
        "problem": f"{name}, {card.size}", "notes": list(card.notes), "scenario": _readable(record["scenario"]),
        "budget": record["budget"], "git_commit": record["git_commit"], "data_digest": record["data_digest"],
        "seeds": record["seeds"], "metrics": metrics, "methods": methods, "curves": drawn, "levels": [],
        "differences": differences, "aim": card.aim.key, "agent": card.agent_word,
        "headline": [key for key in card.headline if key in told],
        "fairness": next((m.key for m in card.metrics if isinstance(m.fold, Jain) and m.key in told), None),
    }  # fmt: skip


def _best_heuristic(method: Mapping[str, Method], values: Values, card: Card) -> list[str]:
    """The heuristic with the best mean of what is tuned for, [] where there is none; no bound."""
    rows = [row for row, m in method.items() if m.kind == "heuristic" and not m.bound and card.aim.key in values[row]]
    means = {row: card.aim.sign * mean_of(values[row][card.aim.key]) for row in rows}
    there = [row for row in rows if not np.isnan(means[row])]
    return [max(there, key=lambda row: means[row])] if there else []


def told_metrics(card: Card, told: Container[str]) -> list[dict[str, str]]:
    """The metrics of a card that were measured, and those of every problem, as a report reads them."""
    return [
        {"key": m.key, "label": m.label, "unit": m.unit, "better": m.better}
        for m in (*card.metrics, *COMMON)
        if m.key in told
    ]


def _readable(description: dict[str, Any]) -> dict[str, Any]:
    """A problem's description in one flat line a setting, for the report's head: its groups of plain settings, or where
    it has none what is short enough to read."""
    groups = {key: value for key, value in description.items() if isinstance(value, dict) and _plain(value)}
    if not groups:
        return {key: value for key, value in description.items() if isinstance(value, str | int | float)}
    flat: dict[str, Any] = {}
    for key, group in groups.items():
        if all(isinstance(value, bool) for value in group.values()):
            on = [name.replace("_", " ") for name, value in group.items() if value]
            flat[f"{key} on"] = ", ".join(on) or "none"
            continue
        for name, value in group.items():
            many = isinstance(value, list)
            flat[name] = (" to " if len(value) == 2 else ", ").join(f"{v:g}" for v in value) if many else value
    return flat


def _plain(group: dict[str, Any]) -> bool:
    number = lambda value: isinstance(value, int | float)
    short = lambda value: isinstance(value, list) and len(value) <= 3 and all(map(number, value))
    return all(value is None or isinstance(value, str) or number(value) or short(value) for value in group.values())


def levels(problem: AnyProblem, prices: dict[str, Prices], folder: Path) -> list[dict[str, Any]]:
    """What earns without learning a prior, on the seeds and slots of the learning curves: games, the best heuristics.

    Args:
        prices: by belief ("" for the reports), of each row of a learner alone, and the card's reference prices.
    """
    card, config = problem.card, TrainConfig()
    learned = learning_belief(card)
    games = [(f"game, {card.beliefs[learned].label}", learned, None)] if learned else []
    games += [("game, tuned", "", None), *((f"game, {name}", name, None) for name in list(card.reference_prices)[:1])]
    heuristics = [(label, "", name) for name, label in card.baselines.items() if name not in card.bounds]
    rows: dict[bool, list[dict[str, Any]]] = {False: [], True: []}  # by whether it is a heuristic
    for label, key, baseline in games + heuristics:
        if key not in prices:
            continue
        belief = load_belief(problem, belief_file(folder, key, 0)).copy(False) if key and key == learned else None
        means = evaluate(
            problem, prices[key], Coordinator("game"), None, TUNE_SEEDS[: config.check_seeds], baseline,
            slots=config.check_slots, belief=belief,
        ).means()  # fmt: skip
        if card.aim.key in means:
            rows[baseline is not None].append({"label": label, "value": means[card.aim.key]})
    best = sorted(rows[True], key=lambda row: -card.aim.sign * row["value"])
    return rows[False] + best[:SHOWN_HEURISTICS]


def snapshots(problem: AnyProblem, folder: Path, methods: Sequence[str]) -> dict[str, Any]:
    """The first method in the first reporting world: agents by option in each slot, where they have options, and, where
    a problem draws itself, who is served where in the twentieth."""
    card = problem.card
    methods = [m for m in methods if method_of(m, card).runs]
    if not methods:
        return {"map": None, "over_time": None}
    best = next((m for m in methods if method_of(m, card).kind != "heuristic"), methods[0])
    allocator = Allocator.load(folder / f"{best}-seed0" / "allocator.npz", problem=problem)
    state, rows, shown = problem.reset(REPORT_SEEDS[0]), [], None
    label = f"{method_of(best, card).label}, network {REPORT_SEEDS[0]}"
    for slot in range(SHOWN_SLOTS):
        allocation = allocator.step(state)
        active = problem.world_at(state).active[0]
        if card.decides != "levels":
            chosen = np.bincount(allocation.option[active], minlength=allocation.log_prior.shape[1])
            rows.append([*chosen[1:].tolist(), int(chosen[0]), int((~active).sum())])
        if slot == DRAWN_SLOT and isinstance(problem, Drawn):
            picture = problem.picture(state, allocation)
            if picture:
                parts = (picture[part] for part in ("stations", "devices", "option", "active"))
                figures.service_map(*parts)  # what cannot be drawn is refused here, where it costs the picture alone
                opting_out = card.options[0] if card.options else ""
                shown = picture | {"label": f"{label}, slot {slot}", "opting_out": opting_out}
        state, _ = problem.advance(state, allocation, seed=slot)
    if not rows:
        return {"map": shown, "over_time": None}
    options = list(card.options[1:]) or [f"option {o}" for o in range(1, len(rows[0]) - 1)]
    over_time = {"counts": rows, "options": [*options, "opted out", "idle"], "label": label}
    return {"map": shown, "over_time": over_time}
