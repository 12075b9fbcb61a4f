"""Parts that every section of the report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hybridalloc.reports import figures


def section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """Heads are text; the cells of a row, the first apart, are HTML."""
    top = "".join(f'<th scope="col">{escape(head).replace(chr(10), "<br>")}</th>' for head in heads)
    lines = [
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for first, cells in rows
    ]
    return f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def agent_of(comparison: Mapping[str, Any]) -> str:
    """The problem's word for an agent."""
    return str(comparison.get("agent") or figures.WORDS[1])
