"""What an address names, and modules that scripts may import under a shorter name than the house has for them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

SHORT = {
    "hybridalloc.compare": "hybridalloc.experiments.compare",
    "hybridalloc.mirror": "hybridalloc.experiments.mirror",
    "hybridalloc.models": "hybridalloc.serving.models",
    "hybridalloc.problems.admission": "hybridalloc.problems.custom.remedies",
    "hybridalloc.problems.tables": "hybridalloc.problems.custom.tables",
    "hybridalloc.problems.transitions": "hybridalloc.problems.custom.transitions",
    "hybridalloc.step_report": "hybridalloc.reports.step",
    "hybridalloc.stored": "hybridalloc.experiments.stored",
    "hybridalloc.tuning": "hybridalloc.training.tuning",
}


def named(address: str) -> Any:
    """What an address, "module:Name", names; whatever someone's module raises is raised."""
    module, _, name = address.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class _Short(MetaPathFinder, Loader):
    """Finds a short name's module, which stays what it is: one module under two names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:  # fmt: skip
        return ModuleSpec(name, self) if name in SHORT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self._module = importlib.import_module(SHORT[spec.name])
        self._spec = self._module.__spec__
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the short name's there


def answer_to_short_names() -> None:
    """Let ``import hybridalloc.compare`` and the like work; asked again, it does nothing."""
    if not any(isinstance(finder, _Short) for finder in sys.meta_path):
        sys.meta_path.append(_Short())
