"""Settings of a problem as they come from a command or a file: each is held against the default that it replaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np

from hybridalloc.text import quoted


def check_settings(
    given: Mapping[str, Any], defaults: Mapping[str, Any], above: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The settings, each of its default's kind: flag, whole number >= 1, number >= 0, text, or so many numbers.

    Args:
        defaults: by name; one that is missing there is not checked. Two numbers are a range, 0 < low <= high.
        above: names whose number must be > this, or whole number >= this, instead.

    Raises:
        ValueError: names the setting, its value and what is required.
    """
    return {name: _checked(name, value, defaults.get(name), (above or {}).get(name)) for name, value in given.items()}


def _checked(name: str, value: Any, like: Any, above: float | None) -> Any:
    def refuse(what: str) -> ValueError:
        return ValueError(f"{name} = {quoted(value)}; {what}")

    if like is None:
        return value
    if isinstance(like, bool):
        if not isinstance(value, bool | np.bool_):
            raise refuse("true or false is required")
    elif isinstance(like, int):
        least = 1 if above is None else above
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise refuse("a whole number is required")
        if not int(value) >= least:
            raise refuse(f"it must be >= {least:g}")
    elif isinstance(like, float):
        if not _finite(value):
            raise refuse("a finite number is required")
        if above is not None and value <= above:
            raise refuse(f"it must be > {above:g}")
        if value < 0:
            raise refuse("it must be >= 0")
    elif isinstance(like, tuple):
        if not isinstance(value, list | tuple) or len(value) != len(like) or not all(map(_finite, value)):
            raise refuse(f"{len(like)} finite numbers are required")
        if len(like) == 2 and not 0 < value[0] <= value[1]:
            raise refuse("0 < low <= high is required")
        return tuple(value)
    elif not isinstance(value, type(like)):
        raise refuse(f"{'text' if isinstance(like, str) else 'a ' + type(like).__name__} is required")
    return value


def _finite(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False
