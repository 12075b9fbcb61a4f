"""The one error for input that no solver can make sense of, and the reading of numbers that raises it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class InvalidStateError(ValueError):
    """An input is outside its permitted range.

    The message names the field, the index, the value and what is permitted:
    ``"task_bits[3] = -2.0; bits must be finite and >= 0"``.
    """


class InvalidGameError(InvalidStateError):
    """A game's arrays are inconsistent or outside their permitted range."""


def floats(name: str, value: Any) -> NDArray[np.float64]:
    """``value`` as an array of floats, or an InvalidGameError that names the entry that is no number."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        entries = np.asarray(value, dtype=object)
    except ValueError:
        raise InvalidGameError(f"{name} has rows of different shapes; a regular array of numbers is needed") from None
    for index, entry in np.ndenumerate(entries):
        try:
            float(entry)
        except (TypeError, ValueError, OverflowError):
            at = f"[{', '.join(map(str, index))}]" if index else ""
            if isinstance(entry, list | tuple | np.ndarray):
                break
            raise InvalidGameError(f"{name}{at} = {repr(entry)[:60]}; a number is needed") from None
    raise InvalidGameError(f"{name} has rows of different lengths; a regular array of numbers is needed")


def shaped(name: str, value: Any, shape: tuple[int, ...], low: float = -np.inf) -> NDArray[np.float64]:
    """``value`` as finite floats >= ``low`` of that shape, or an InvalidGameError that names what is not."""
    array = floats(name, value)
    if array.shape != shape:
        raise InvalidGameError(f"{name} has shape {array.shape}; {shape} is needed")
    good = np.isfinite(array) & (array >= low)
    if not good.all():
        at = tuple(int(v) for v in np.argwhere(~good)[0])
        rule = "it is finite" + (f" and >= {low:g}" if np.isfinite(low) else "")
        where = f"[{', '.join(map(str, at))}]" if at else ""
        raise InvalidGameError(f"{name}{where} = {array[at]}; {rule}")
    return array
