"""What a folder of runs was asked for: as now, or an error that says what differs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridalloc.errors import CheckpointError
from hybridalloc.experiments import tracking
from hybridalloc.experiments.jobs import whole_json
from hybridalloc.files import write_text


def as_asked(path: Path, asked: Mapping[str, Any], what: str, tag: str) -> dict[str, Any]:
    """The record in ``path``, written where there is none yet.

    Args:
        asked: what is asked for now, by name. what: the folder holds, such as "a suite". tag: of a new record's id.

    Raises:
        CheckpointError: the folder's runs were asked for otherwise: which part, as it was, as it is asked for now, and
            what to do.
    """
    kept = whole_json(path) if path.is_file() else None
    if isinstance(kept, dict):
        for name, value in asked.items():
            was = kept.get(name)
            if was == value:
                continue
            if isinstance(was, dict) and isinstance(value, Mapping):
                parts = [part for part in {**was, **value} if was.get(part) != value.get(part)]
                name, was, value = (
                    f"{name} ({', '.join(parts)})", ", ".join(str(was.get(part)) for part in parts),
                    ", ".join(str(value.get(part)) for part in parts),
                )  # fmt: skip
            raise CheckpointError(
                f"{path.parent} holds {what} whose {name} is {was}, and {value} is asked for; give another --out, or "
                "ask as before"
            )
        return kept
    record = dict(asked) | {"id": tracking.new_comparison_id(tag), "created": time.time()}
    write_text(path, json.dumps(record, indent=1) + "\n")
    return record
