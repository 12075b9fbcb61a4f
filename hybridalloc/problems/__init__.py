"""The problems by name; adding a domain adds one file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hybridalloc.errors import nearest
from hybridalloc.problems import mec

PROBLEMS: dict[str, Callable[..., Any]] = {"mec": mec.make}
RESTORE: dict[str, Callable[[dict[str, Any]], Any]] = {"mec": mec.Mec.restore}


def make_problem(name: str, **settings: Any) -> Any:
    """A problem by name with its settings, such as ``make_problem("mec", agents=50, servers=9)``.

    Raises:
        UnknownNameError: no such problem, scenario or setting; the nearest are listed.
    """
    if name not in PROBLEMS:
        raise nearest("problem", name, PROBLEMS)
    return PROBLEMS[name](**settings)


def restore_problem(description: dict[str, Any]) -> Any:
    """The problem that ``problem.describe()`` described."""
    if description.get("name") not in RESTORE:
        raise nearest("problem", str(description.get("name")), RESTORE)
    return RESTORE[description["name"]](description)
