"""Settings of a problem as plain data and back: what ``describe`` gives is all that ``restore`` needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from hybridalloc.text import printable, quoted

LARGEST = 1e15


def described(settings: Any) -> Any:
    """Settings as JSON holds them: dataclasses and named tuples as objects, tuples as lists."""
    if is_dataclass(settings):
        return {f.name: described(getattr(settings, f.name)) for f in fields(settings)}
    if isinstance(settings, tuple) and hasattr(settings, "_asdict"):
        return {name: described(value) for name, value in settings._asdict().items()}
    if isinstance(settings, list | tuple):
        return [described(value) for value in settings]
    return settings


def restored(like: Any, given: Any, at: str = "") -> Any:
    """Settings of the kind of ``like``, an example such as the defaults, from what :func:`described` gave.

    Raises:
        ValueError: a setting is missing, unknown, or not of the kind of the example's; says which.
    """
    if is_dataclass(like):
        known = {f.name: getattr(like, f.name) for f in fields(like)}
        for f in fields(like):
            value = given.get(f.name) if isinstance(given, Mapping) else None
            if str(f.type).endswith("...]") and known[f.name] and isinstance(value, list | tuple):
                known[f.name] = known[f.name][:1] * len(value)  # tuple[float, ...]: as many as are given
        kind: Any = type(like)
        return kind(**_parts(known, given, at))
    if isinstance(like, tuple) and hasattr(like, "_asdict"):
        return type(like)(**_parts(like._asdict(), given, at))
    return alike({"": like}, {"": given}, at.rstrip("."))[""]


def _parts(known: Mapping[str, Any], given: Any, at: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{at.rstrip('.') or 'a description'} = {quoted(given)}; it must be an object")
    check_names(known, given, at)
    return {name: restored(value, given[name], f"{at}{name}.") for name, value in known.items()}


def check_names(known: Mapping[str, Any], given: Mapping[str, Any], at: str = "") -> None:
    """A ValueError where one of them has a name that the other lacks."""
    for name in (*known, *given):
        if name not in known or name not in given:
            raise ValueError(f"{at}{printable(name)} is {'unknown' if name in given else 'missing'} in a description")


def alike(known: Mapping[str, Any], given: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """``given`` with lists as tuples, if it has the names of ``known`` and each value is of the kind of the known one.

    Raises:
        ValueError: names the setting, its value and what it must be like.
    """
    check_names(known, given, at)
    out = {}
    for name, like in known.items():
        value = given[name]
        spans = isinstance(like, tuple)
        fits = isinstance(value, list | tuple) and len(value) == len(like) if spans else True
        if not fits or not all(map(_of_kind, value, like) if spans else [_of_kind(value, like)]):
            raise ValueError(f"{at}{name} = {quoted(value)}; it must be like {quoted(like)}, and finite")
        out[name] = tuple(value) if spans else value
    return out


def _of_kind(value: Any, like: Any) -> bool:
    if type(value) in (int, float):
        wanted: tuple[type, ...] = (int, float) if type(like) is float else (int,)
        fits = type(value) in wanted and (type(like) is not bool or value in (0, 1)) and -LARGEST < value < LARGEST
        return fits or (like is None and abs(value) < LARGEST)
    return type(value) is type(like)
