"""Going on with a comparison that was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridalloc.errors import CheckpointError
from hybridalloc.experiments import tracking
from hybridalloc.experiments.methods import rows_of
from hybridalloc.experiments.runlog import COMPARISON_FILE, TrackingError, plain
from hybridalloc.experiments.settings import SAME, Settings, check_alone, check_methods
from hybridalloc.problems import restore_problem
from hybridalloc.problems.contract import AnyProblem, Simulates
from hybridalloc.text import printable, quoted
from hybridalloc.training.learners import DEFAULTS

HOW = "`hybridalloc compare` makes one"


def newest(path: Path) -> Path:
    """A comparison's folder: ``path``, or the newest in it; a TrackingError where there is none."""
    if (path / COMPARISON_FILE).is_file():
        return path
    found = [inner.parent for inner in path.glob(f"*/{COMPARISON_FILE}")]
    if not found:
        raise TrackingError(f"{path} holds no comparison ({COMPARISON_FILE} is in none of its folders); {HOW}")
    created = {folder: tracking.read_comparison(folder).get("created") for folder in found}
    return max(found, key=lambda folder: (t if isinstance(t := created[folder], float) else 0.0, folder.name))


def stopped(path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a stopped comparison (of the newest one in ``path``), and its record."""
    folder = (newest(path) if path.is_dir() else path).resolve()
    record = tracking.read_comparison(folder)
    kept = record.get("settings")
    if not isinstance(kept, dict) or any(name not in kept for name in SAME):
        raise CheckpointError(f"{folder} does not say what was asked for, so it cannot go on; start afresh")
    return folder, record


def go_on(folder: Path, record: dict[str, Any], asked: Settings, trust_code: bool) -> tuple[AnyProblem, Settings]:
    """Problem and settings of a stopped comparison.

    Raises:
        CheckpointError: what is asked for differs from what it was asked for, by name.
    """
    kept, default, defaults = record["settings"], Settings(), record.get("defaults", 1)
    if type(defaults) is not int or not 1 <= defaults <= DEFAULTS:
        raise CheckpointError(
            f"{folder} was begun with defaults {quoted(defaults)} of the learners; this version knows 1 to {DEFAULTS}"
        )
    pairs = dict(settings_pairs(kept["settings"], folder))
    # given as it was, it is the user's word
    again = bool(asked.settings) and plain(dict(asked.settings)) == pairs
    again |= ":" in asked.problem and asked.problem == kept["problem"]
    for name in SAME:
        value = getattr(asked, name)
        ours, theirs = (plain(dict(value)), pairs) if name == "settings" else (plain(value), kept[name])
        if value != getattr(default, name) and ours != theirs:
            raise _other(folder, name, theirs, ours)
    try:
        problem = restore_problem(record["scenario"], trust_code or again)
    except CheckpointError:
        raise
    except Exception as error:  # a forged one may say anything
        reason = printable(f"{type(error).__name__}: {error}", 300)
        raise CheckpointError(f"{folder} names no problem that this version can make ({reason})") from None
    if isinstance(problem, Simulates):
        problem.simulator()  # refused here, not after minutes
    settings = replace(
        asked, **{name: kept[name] for name in SAME if name not in ("methods", "settings")},
        methods=tuple(map(str, kept["methods"])), settings=tuple(pairs.items()),
    )  # fmt: skip
    check_alone(settings)
    check_methods(problem, settings.methods)
    if asked.learners != default.learners and not asked.methods:
        rows = rows_of(problem.card, asked.learners)
        if rows != settings.methods:
            raise _other(folder, "methods", kept["methods"], list(rows))
    return problem, settings


def settings_pairs(found: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """A record's settings of a problem, by name."""
    if not isinstance(found, list) or not all(isinstance(p, list) and len(p) == 2 for p in found):
        raise CheckpointError(f"{folder}: settings = {quoted(found)}; pairs of name and value are required")
    return ((str(name), value) for name, value in found)


def _other(folder: Path, name: str, theirs: Any, ours: Any) -> CheckpointError:
    return CheckpointError(
        f"{folder} is of another comparison: {name} is {quoted(theirs)} there and {quoted(ours)} is asked for; leave "
        "that flag out, or start afresh without --resume"
    )
