"""Building blocks of an HTML page: escaped text, sections and tables.

It must not know what a report is; callers must not pass markup to `text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from pipeline.logs import visible

Row = Sequence[Any]
_SHORT = 12
"""Cells up to this many characters stay on one line."""
_NARROW = 3
"""Columns that fit on a phone; there a row with more columns is shown as a block."""


def text(value: Any) -> str:
    """Return a value as HTML text: escaped, control and bidi characters spelled out, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    return escape(visible(str(value)))


def section(title: str, body: str) -> str:
    """Return a section with its heading; "" without a body."""
    return f"<section><h2>{text(title)}</h2>\n{body}</section>" if body else ""


def table(title: str, head: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a section with a table whose first column holds the row names; "" without rows."""
    body = "".join(f"<tr>{_name(head[0], row[0])}{_cells(head[1:], row[1:])}</tr>\n" for row in rows)
    if not body:
        return ""
    tops = "".join(f"<th scope=col>{text(name)}</th>" for name in head)
    kind = " class=stack" if len(head) > _NARROW else ""
    return section(
        title, f"<div class=wide><table{kind}><thead><tr>{tops}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _name(head: str, value: Any) -> str:
    return f'<th scope=row data-head="{text(head)}">{text(value)}</th>'


def _cells(head: Sequence[str], row: Row) -> str:
    return "".join(_cell(name, value) for name, value in zip(head, row, strict=True))


def _cell(name: str, value: Any) -> str:
    attribute = " class=n" if len(str(value)) <= _SHORT else ""
    return f'<td data-head="{text(name)}"{attribute}>{text(value)}</td>'
