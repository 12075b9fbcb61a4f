"""Data on its way out: text to a terminal or a message without control characters, numbers to strict JSON."""

from __future__ import annotations

import math
from typing import Any

MOST = 60


def printable(text: Any, most: int | None = MOST, keep: str = "") -> str:
    r"""``text`` with what does not print written as its escape (``\x1b``), cut to ``most`` characters.

    Args:
        keep: characters that stay as they are, such as "\n" in a table.
    """
    text = str(text)
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def quoted(value: Any, most: int = MOST) -> str:
    """A value as Python writes it, text in quotes, cut to ``most`` characters."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else value[: most - 1] + "…")
    return printable(repr(value), most)


def strict(value: Any) -> Any:
    """Mappings, lists and plain values as strict JSON holds them: a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {name: strict(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
