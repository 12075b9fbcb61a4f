"""Small tables for people: plain text, and HTML for Jupyter that follows the page's own colours, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

STYLE = "border-collapse:collapse;font-size:90%;font-variant-numeric:tabular-nums;color:inherit;background:transparent"
CELL = "padding:2px 10px;text-align:{align};border-bottom:1px solid rgba(128,128,128,.35);background:transparent"


def show(value: Any) -> str:
    """A cell as text: flags as yes or nothing, numbers to four figures."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def apart(a: float, b: float, digits: int = 3) -> tuple[str, str]:
    """Two numbers with ``digits`` figures, or as many more as tell them apart."""
    for figures in range(digits, 17):
        pair = f"{a:.{figures}g}", f"{b:.{figures}g}"
        if pair[0] != pair[1]:
            break
    return pair


def enough(needed: float, now: float, digits: int = 4) -> tuple[str, str]:
    """What is needed, rounded away from what there is now, and that: with ``digits`` figures, or as many more as tell
    them apart."""
    up = needed > now
    for figures in range(digits, 18):
        text = f"{needed:.{figures}g}"
        short = float(text) < needed * (1 - 1e-13) if up else float(text) > needed * (1 + 1e-13)
        if short:
            unit = 10.0 ** (int(f"{needed:e}".split("e")[1]) - figures + 1)
            text = f"{float(text) + (unit if up else -unit):.{figures}g}"
        if text != f"{now:.{figures}g}":
            break
    return text, f"{now:.{figures}g}"


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns set flush right under their names."""
    cells = [list(columns), *([show(v) for v in row] for row in rows)]
    width = [max(len(row[j]) for row in cells) for j in range(len(columns))]
    return "\n".join("  ".join(text.rjust(w) for text, w in zip(row, width, strict=True)).rstrip() for row in cells)


def html_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "", strong: int = -1) -> str:
    """The same as HTML with ``note`` above; row ``strong`` is set bold."""
    head = "".join(f'<th style="{CELL.format(align="right")}">{escape(name)}</th>' for name in columns)
    body = []
    for k, row in enumerate(rows):
        weight = ";font-weight:600" if k == strong else ""
        body.append(
            "<tr>"
            + "".join(f'<td style="{CELL.format(align="right")}{weight}">{escape(show(value))}</td>' for value in row)
            + "</tr>"
        )
    above = f'<div style="margin:4px 0">{escape(note)}</div>' if note else ""
    return f'{above}<table style="{STYLE}"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
