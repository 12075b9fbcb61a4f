"""What commands say on standard output, and words of theirs that are read: names with values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class OutputError(Exception):
    """Standard output takes no more, and why."""


@contextmanager
def output() -> Iterator[None]:
    """A block that writes to standard output; an OutputError where that takes no more."""
    try:
        yield
    except BrokenPipeError:  # as after ``| head``
        raise OutputError("its reader has left") from None
    except OSError as error:
        raise OutputError(place_of(error)) from None


def write(text: Any) -> None:
    """Print text of our own."""
    with output():
        print(text)


def say(text: str) -> None:
    """Print text that holds what a file or a user named: what would steer the terminal is written out."""
    from hybridalloc.text import printable

    write(printable(text, None, keep="\n"))


def to_json(value: Any) -> str:
    from hybridalloc.experiments.runlog import plain

    return json.dumps(plain(value))


def print_json(value: Any) -> int:
    write(to_json(value))
    return 0


def place_of(error: BaseException) -> str:
    """What a place refused, without Python's number of it."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def pairs(words: tuple[str, ...], flag: str = "--settings") -> dict[str, Any]:
    """``name=value`` words; a value is JSON where it reads as such, or a number as people write them (``.5``, ``3.``),
    or a truth as Python does (``False``), otherwise text."""
    out: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"{flag} {word!r}: write name=value, such as agents=20")
        try:
            out[name] = json.loads(value)
        except json.JSONDecodeError:
            out[name] = float(value) if PLAIN.fullmatch(value) else {"True": True, "False": False}.get(value, value)
    return out
