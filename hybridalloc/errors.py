"""Errors a user sees. Each names what was given, where, and what to do.

Those of input that no solver can make sense of are the games' own; they are looked up when somebody asks for them, as
the package of games compiles, and a command's error is said at once.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hybridalloc.text import printable, quoted

if TYPE_CHECKING:
    from games.errors import InvalidGameError, InvalidStateError

__all__ = [
    "CheckpointError",
    "ContractError",
    "InvalidGameError",
    "InvalidStateError",
    "PlaceError",
    "UnknownNameError",
    "WorkError",
    "nearest",
]


def __getattr__(name: str) -> Any:
    if name not in ("InvalidGameError", "InvalidStateError"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("games.errors"), name)


class CheckpointError(ValueError):
    """A file cannot be used; the message says why and the file is left as it was."""


class ContractError(ValueError):
    """A problem of one's own misses a member of the contract; the message names it and says what it must give."""


class PlaceError(ValueError):
    """A file or folder that is to be written cannot be; said before anything is computed."""


class WorkError(RuntimeError):
    """Work that could not be ended: why, what is kept of it, and how to go on."""


class UnknownNameError(ValueError):
    """A method, problem, scenario, field or flag that does not exist; the message lists the nearest."""


def nearest(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for an unknown ``name``, with the nearest known ones first."""
    names = sorted(known)
    small = {known.lower(): known for known in names}
    close = [small[one] for one in difflib.get_close_matches(str(name)[:200].lower(), small, n=3, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(map(quoted, close))}?" if close else "."
    return UnknownNameError(f"unknown {kind} {quoted(name)}{hint} Known: {', '.join(map(printable, names))}")
