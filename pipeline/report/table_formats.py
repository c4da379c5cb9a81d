"""Rows as JSON Lines, CSV, or a table for a terminal.

It must not read an output. Strings that a spreadsheet would run as a formula get a `'` in front in CSV.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from pipeline.logs import visible
from pipeline.report.rows import NOTES, STATUS, Row
from pipeline.terminal import cut

MEASURED_ROWS = 50
"""Rows of a table that decide the widths of its columns."""
_WIDEST = 40
_NARROWEST = 6
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_QUOTED = re.compile(r"[\r\n\",]")


def json_lines(rows: Iterable[Row], fields: Sequence[str] | None) -> Iterator[str]:
    """Yield each row as a JSON object: the whole record with its `status`, or the named fields."""
    for row in rows:
        value = {"status": row.record.status, **row.record.raw} if fields is None else _object(row, fields)
        yield json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def csv_lines(rows: Iterable[Row], fields: Sequence[str], *, raw: bool) -> Iterator[str]:
    """Yield a header and a line for each row: RFC 4180 with LF; null is an empty cell, an empty string is `""`."""
    yield ",".join(_csv_cell(name, raw=True) for name in fields) + "\n"
    for row in rows:
        yield ",".join(_csv_cell(row.value(name), raw=raw) for name in fields) + "\n"


def table_lines(rows: Iterable[Row], fields: Sequence[str], *, width: int) -> Iterator[str]:
    """Yield a table that fits `width` columns; the first MEASURED_ROWS decide the width of each column.

    Columns on the right that do not fit are left out, and the last line names them.
    """
    source = iter(rows)
    measured = [[_cell(row, name) for name in fields] for row in islice(source, MEASURED_ROWS)]
    longest = [max(map(len, column)) for column in zip(fields, *measured, strict=True)]
    widths = _fitted(longest, width)
    columns = fields[: len(widths)]
    shorten = [_shortener([row[at] for row in measured], size) for at, size in enumerate(widths)]
    later = ([_cell(row, name) for name in columns] for row in source)
    for cells in chain([columns], measured, later):
        triples = zip(cells, shorten, widths, strict=False)
        yield "  ".join(f"{shortened(cell):<{size}}" for cell, shortened, size in triples).rstrip() + "\n"
    if len(columns) < len(fields):
        yield f"not shown: {', '.join(fields[len(columns) :])} (--fields chooses columns)\n"


def _object(row: Row, fields: Sequence[str]) -> dict[str, Any]:
    return {name: row.value(name) for name in fields}


def _fitted(longest: Sequence[int], width: int) -> list[int]:
    widths = [max(_NARROWEST, min(size, _WIDEST)) for size in longest]
    while len(widths) > 1 and len(widths) * (_NARROWEST + 2) - 2 > width:
        widths.pop()
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return widths


def _shortener(cells: Sequence[str], size: int) -> Callable[[str], str]:
    """Return the function that shortens the cells of a column so that most cells, if possible all, remain different.

    The cells keep their beginning and end, or more of one of them, or lose the prefix that all long ones share.
    """
    different = set(cells)
    long = [cell for cell in different if len(cell) > size]
    first, last = (min(long), max(long)) if long else ("", "")
    pairs = enumerate(zip(first, last, strict=False))
    prefix = first[: next((at for at, (one, other) in pairs if one != other), len(first))]
    ways: list[Callable[[str], str]] = [partial(cut, width=size)]
    ways += [partial(_without_middle, size=size, head=head) for head in (0, size // 4, size * 3 // 4, size - 1)]
    ways += [partial(_without_prefix, size=size, prefix=prefix)]
    best = max(ways, key=lambda way: len(set(map(way, different))))
    return best if len(set(map(best, different))) == len(different) else partial(_with_digest, size=size)


def _without_middle(cell: str, *, size: int, head: int) -> str:
    return cell if len(cell) <= size else f"{cell[:head]}…{cell[len(cell) - (size - 1 - head) :]}"


def _without_prefix(cell: str, *, size: int, prefix: str) -> str:
    return cell if len(cell) <= size else _without_middle("…" + cell.removeprefix(prefix), size=size, head=size - 1)


def _with_digest(cell: str, *, size: int) -> str:
    """Return the beginning of a long cell with four digits of its SHA-256."""
    return cell if len(cell) <= size else f"{cell[: size - 5]}…{hashlib.sha256(cell.encode()).hexdigest()[:4]}"


def _table_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return f"[{len(value)}]"
    return visible(_text(value))


def _cell(row: Row, name: str) -> str:
    """Return a cell of a table; the notes of a record are words, and no list of the answer."""
    value = row.value(name)
    return visible(", ".join(value)) if name == NOTES and isinstance(value, list) else _table_cell(value)


def _csv_cell(value: Any, *, raw: bool) -> str:
    if value is None:
        return ""
    text = _text(value)
    if isinstance(value, str) and not raw and _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    if text == "" or _QUOTED.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


STATUS_COLUMNS = ("id", STATUS)
"""The columns that every table begins with."""
