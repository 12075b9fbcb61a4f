"""Stored allocators on another problem than they were trained on: other settings, another law, another size."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridalloc.allocator import Allocator
from hybridalloc.errors import WorkError, nearest
from hybridalloc.experiments.assemble import told_metrics
from hybridalloc.experiments.executor import open_pool
from hybridalloc.experiments.methods import method_of
from hybridalloc.experiments.runlog import strict
from hybridalloc.problems import restore_problem
from hybridalloc.problems.contract import AnyProblem, Shifts
from hybridalloc.training.config import REPORT_SEEDS
from hybridalloc.training.evaluation import evaluate


def under(problem: AnyProblem, shift: str) -> AnyProblem:
    """The problem under one of its own shifted laws, by name; itself for "".

    Raises:
        UnknownNameError: it has no such law.
    """
    if not shift:
        return problem
    laws = {law.name: problem.shifted(law) for law in problem.scenarios()} if isinstance(problem, Shifts) else {}
    if shift not in laws:
        raise nearest("law of the problem", shift, laws)
    changed: AnyProblem = laws[shift]
    return changed


def again(
    folder: Path, problem: AnyProblem, methods: Sequence[str], seeds: int, workers: int | None = None
) -> dict[str, Any]:
    """Evaluate a stored comparison's allocators on a problem, under the prices, trust and beliefs that they have.

    Args:
        folder: of the comparison. methods: of it. seeds: how many reporting seeds.

    Returns:
        what a comparison's results.json holds of them: metrics, methods with values, problem, seeds, budget, commit.

    Raises:
        WorkError: the comparison kept no allocator of a method.
    """
    stored: Mapping[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    paths = {name: sorted(folder.glob(f"{name}-seed*/allocator.npz"), key=_seed) for name in methods}
    for name, found in paths.items():
        if not found:
            raise WorkError(f"{folder} holds no allocator of {name}; delete its row's folder and run it again")
    jobs = [(name, path) for name, found in paths.items() for path in found]
    values: dict[str, dict[str, list[list[float]]]] = {name: {} for name in methods}
    with open_pool(min(workers or os.cpu_count() or 1, len(jobs))) as (pool, _):
        waiting = [pool.submit(again_job, problem.describe(), name, str(path), seeds) for name, path in jobs]
        for (name, _), future in zip(jobs, waiting, strict=True):
            for key, row in future.result().items():
                values[name].setdefault(key, []).append(row)
    card = problem.card
    rows = {name: method_of(name, card) for name in methods}
    return {
        "problem": f"{card.name}, {card.size}",
        "metrics": told_metrics(card, set.intersection(*(set(found) for found in values.values()))),
        "methods": [
            {"key": name, "label": row.label, "kind": row.kind, "values": values[name]} for name, row in rows.items()
        ],
        "seeds": {"train": stored["seeds"]["train"], "report": list(REPORT_SEEDS[:seeds])},
        "budget": stored["budget"], "git_commit": stored["git_commit"], "curves": [],
    }  # fmt: skip


def _seed(path: Path) -> int:
    return int(path.parent.name.rpartition("-seed")[2])


def again_job(description: dict[str, Any], method: str, path: str, seeds: int) -> dict[str, list[float]]:
    """One stored allocator on a problem's reporting seeds: values by metric. Runs in a worker process."""
    problem, kept = restore_problem(description), Allocator.load(path)
    rule = method_of(method, problem.card).kind == "heuristic"
    seen = evaluate(
        problem, kept.prices, None if rule else kept.coordinator, kept.recommender, REPORT_SEEDS[:seeds],
        method if rule else None, belief=kept.belief,
    )  # fmt: skip
    values: dict[str, list[float]] = strict(seen.metrics | {"step_ms": [seen.step_ms] * seeds})
    return values
