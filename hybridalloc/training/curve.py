"""The figures of a training run as they come: a line of JSON an update and check, in a file that outlives the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hybridalloc.text import strict


class Curve:
    """Writes a run's figures to ``path``; one that goes on keeps what was written before it.

    Args:
        resume: go on with the file that is there; without, it is begun afresh.
    """

    def __init__(self, path: Path, resume: bool = False) -> None:
        self.path = path
        self._before = path.read_text(encoding="utf-8").splitlines() if resume and path.exists() else []
        self._begun = False

    def note(self, agent_steps: int, figures: Mapping[str, float]) -> None:
        """Add a line; the first drops what a run that was stopped wrote after the checkpoint that is gone on from."""
        line = json.dumps(strict({"agent_steps": agent_steps} | dict(figures)))
        if self._begun:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            return
        kept = [old for old in self._before if _steps(old) < agent_steps]
        self.path.write_text("".join(f"{text}\n" for text in (*kept, line)), encoding="utf-8")
        self._begun = True


def _steps(line: str) -> float:
    """Agent-steps of a line; a line that was cut off counts as written at the end."""
    try:
        return float(json.loads(line)["agent_steps"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
