"""What MLflow shows by name: settings under readable names, and each method's final metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hybridalloc.experiments.runlog import RunRecord

LONGEST = 500  # characters of a value that a table of runs can still show


def readable(description: Mapping[str, Any]) -> dict[str, str]:
    """A problem's description in one level: each setting under the shortest end of its path that no other has.

    {"name": "mec", "scenario": {"name": "H", "bits": [1, 2]}} gives {"scenario.name": "H", "bits": "[1, 2]"}: the
    problem's own name stands elsewhere.
    """
    paths = [(path, value) for path, value in _leaves(description) if path != ("name",)]
    ends: dict[tuple[str, ...], int] = {}
    for path, _ in [*paths, (("name",), None)]:
        for k in range(len(path)):
            ends[path[k:]] = ends.get(path[k:], 0) + 1
    named = {}
    for path, value in paths:
        short = next((path[k:] for k in range(len(path) - 1, -1, -1) if ends[path[k:]] == 1), path)
        named[".".join(short)] = value
    return {permitted(name): text(value) for name, value in named.items()}


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow's flat params: {"net": {"width": 64}} to {"net.width": "64"}."""
    return {permitted(".".join(filter(None, (prefix, *path)))): text(leaf) for path, leaf in _leaves(value)}


def finals(records: Iterable[RunRecord]) -> dict[str, float]:
    """Each metric's mean over the seeds of a method that have ended, by "<metric>/<method>"."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record.status == "FINISHED":
            for key, value in record.summary.items():
                if "/" not in key and np.isfinite(value):
                    found.setdefault(permitted(f"{key}/{record.method}"), []).append(value)
    return {key: float(np.mean(values)) for key, values in sorted(found.items())}


def text(value: Any) -> str:
    """A value of a parameter; a long one says how long it was."""
    told = value if isinstance(value, str) else json.dumps(value)
    return told if len(told) <= LONGEST else f"{told[: LONGEST - 40]} ... ({len(told):,} characters)"


def permitted(name: str) -> str:
    """A name as MLflow permits it."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, (*path, str(name)))
    elif path:
        yield path, value
