"""Transitions by name: the only place where a string becomes code, and who may say which.

A user's word (a command's ``--settings transition=bakery:Bakery``, ``make_problem(..., transition="bakery:Bakery")``)
names any class. A file's word (a checkpoint, a run's folder, an MLflow store) names only what is built in or installed
under an entry point, unless the user trusts the file (``trust_code=True``, ``--allow-code``)::

    [project.entry-points."hybridalloc.transitions"]
    bakery = "my_package.bakery:Bakery"

Whatever is loaded is checked to be a class with the three methods before it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from importlib.metadata import entry_points
from typing import Any

from games.errors import InvalidStateError
from hybridalloc.addresses import named
from hybridalloc.errors import CheckpointError
from hybridalloc.text import printable, quoted

GROUP = "hybridalloc.transitions"
BUILT_IN = {"farm": "hybridalloc.problems.farm:Farm"}
METHODS = ("reset", "advance", "reward")
_SHAPE = '"module:Class" or {"class": "module:Class", "settings": {...}}'


@dataclass(frozen=True)
class Unloaded:
    """A transition that a file named and nobody allowed: it stands for itself, and runs nothing."""

    address: str
    settings: Mapping[str, Any]

    def refuse(self) -> CheckpointError:
        """The error for whatever needs it to run."""
        return CheckpointError(
            f"this problem's transition {quoted(self.address)} is named by a file and is no entry point of {GROUP}, so "
            "it was not loaded (step() needs none). If you trust the file: --allow-code, or trust_code=True, or give "
            "problem= yourself"
        )


def installed() -> dict[str, str]:
    """Transitions that a file may name, by name: their addresses."""
    return {point.name: point.value for point in entry_points(group=GROUP)} | BUILT_IN


def by_user(given: Any) -> Any:
    """A user's transition: an object as it is, or the class that an address names, made with its settings.

    Raises:
        InvalidStateError: it cannot be loaded, is no class, or lacks a method.
    """
    if given is None or isinstance(given, Unloaded):
        return given
    if isinstance(given, str | Mapping):
        return _load(*_parts(given))
    missing = _missing(given)
    if isinstance(given, type):
        raise InvalidStateError(f"transition is the class {given.__name__}; give an object: {given.__name__}(...)")
    if missing:
        raise InvalidStateError(
            f"transition is a {type(given).__name__} without {', '.join(missing)}; it needs {', '.join(METHODS)}"
        )
    return given


def by_file(given: Any, trust_code: bool) -> Any:
    """A file's transition: loaded where it is installed or trusted, otherwise :class:`Unloaded`.

    Raises:
        InvalidStateError: it is not described as it should be, or what is allowed cannot be loaded.
    """
    if given is None:
        return None
    address, settings = _parts(given)
    if trust_code or address in {**installed(), **dict.fromkeys(installed().values())}:
        return _load(address, settings)
    return Unloaded(address, settings)


def describe(transition: Any) -> Any:
    """A transition as JSON can hold it: its class's address and, of a dataclass, its settings."""
    if transition is None or isinstance(transition, str | Mapping):
        return transition
    if isinstance(transition, Unloaded):
        return {"class": transition.address, "settings": dict(transition.settings)}
    address = f"{type(transition).__module__}:{type(transition).__qualname__}"
    settings = asdict(transition) if is_dataclass(transition) and not isinstance(transition, type) else {}
    return {"class": address, "settings": settings}


def _parts(given: Any) -> tuple[str, Mapping[str, Any]]:
    """Address and settings of a description."""
    if isinstance(given, str):
        return given, {}
    if not isinstance(given, Mapping) or not isinstance(given.get("class"), str) or {*given} - {"class", "settings"}:
        raise InvalidStateError(f"transition = {quoted(given)}; it must be an object with the three methods, {_SHAPE}")
    settings = given.get("settings", {})
    if not isinstance(settings, Mapping) or not all(isinstance(name, str) for name in settings):
        raise InvalidStateError(f"transition.settings = {quoted(settings)}; it must be an object with named fields")
    return given["class"], settings


def _load(address: str, settings: Mapping[str, Any]) -> Any:
    """The object that ``address`` names, made only after it has been seen to be a class with the three methods."""
    address = installed().get(address, address)
    try:
        found = named(address)
    except Exception as error:  # someone's module: whatever it raises is told
        reason = printable(
            error if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}", 200
        )
        raise InvalidStateError(
            f"transition {quoted(address)} cannot be loaded ({reason}); write it as 'module:Class', module.py in this "
            "folder or installed"
        ) from None
    if not isinstance(found, type) or _missing(found):
        what = f"lacks {', '.join(_missing(found))}" if isinstance(found, type) else f"is a {type(found).__name__}"
        raise InvalidStateError(
            f"transition {quoted(address)} {what}; it must be a class with {', '.join(METHODS)}, and was not called"
        )
    try:
        return found(**settings)
    except TypeError as error:
        raise InvalidStateError(f"transition {quoted(address)} cannot be made: {printable(error, 200)}") from None


def _missing(found: Any) -> list[str]:
    return [method for method in METHODS if not callable(getattr(found, method, None))]
