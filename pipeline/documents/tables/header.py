"""The header of a CSV file: the first row that names the column of the text, and how its cells are written.

A line `sep=;` of a spreadsheet, and lines with a title, may precede it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pipeline.documents.budget import check_columns
from pipeline.documents.containers import Container
from pipeline.documents.decode import missing_field
from pipeline.documents.tables.rows import Dialect, Lines, TooLongError
from pipeline.errors import DocumentError

_LOOKED_AT = 20
"""Number of lines at the beginning of a file that are searched for the header."""

_NAME = re.compile(r"[^\W\d]\w*")
_SEPARATOR = re.compile(r"\"?sep=(?P<delimiter>[^\r\n])\"?[\r\n]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Header:
    """The names of the columns, with the text and id columns in the spelling of the settings; the dialects to try.

    `titles`: the number of rows above the header; `lines`: the number of lines of both.
    """

    names: list[str]
    dialects: tuple[Dialect, ...]
    titles: int
    lines: int


def read_header(lines: Lines, container: Container, delimiters: Sequence[str]) -> Header | None:
    """Read the lines up to the header; None for an empty file.

    DocumentError when no row names the column, or when two do.
    """
    first: list[str] = []
    dialects: list[Dialect] = []
    for line in _first_lines(lines):
        if not dialects:
            separator = _SEPARATOR.fullmatch(line)
            dialects = _dialects(container.csv, separator["delimiter"] if separator else None, delimiters)
            if separator:
                continue
        first.append(line)
        if (header := _header(first, dialects, container, strict=True, folds=(False,))) is not None:
            return header
    # second try: in another case, or after lines with quotes of their own
    for strict in (True, False):
        if (header := _header(first, dialects, container, strict=strict, folds=(False, True))) is not None:
            lines.put_back(first[header.lines :])
            return header
    if not "".join(first).strip():
        return None
    raise DocumentError("document_unreadable", _missing_column(first, dialects, container.text_field))


def _dialects(csv_settings: Mapping[str, Any], separator: str | None, delimiters: Sequence[str]) -> list[Dialect]:
    """Return the dialects that the header may be written in."""
    delimiter = csv_settings.get("delimiter") or separator
    quotes = [csv_settings["quotechar"]] if csv_settings.get("quotechar") else ['"', "'"]
    return [
        Dialect(candidate, quote, csv_settings.get("escapechar"))
        for quote in quotes
        for candidate in ([delimiter] if delimiter else delimiters)
    ]


def _first_lines(lines: Lines) -> Iterator[str]:
    try:
        yield from islice(lines, _LOOKED_AT)
    except TooLongError:
        if len(lines.record) == 1:
            raise DocumentError("document_unreadable", "the header is longer than a document may be") from None
        yield lines.record[-1]


def _header(
    first: Sequence[str], dialects: Sequence[Dialect], container: Container, *, strict: bool, folds: Sequence[bool]
) -> Header | None:
    """Return the first header in the lines by the first dialect that shows one; None without one."""
    field = container.text_field
    for fold in folds:
        candidates = [
            (place, dialect)
            for dialect in dialects
            if (place := _place(first, dialect, container, fold=fold, strict=strict))
        ]
        if candidates:
            (names, line, above), dialect = min(candidates, key=lambda candidate: candidate[0][1])
            escaped = () if dialect.escapechar else (replace(dialect, escapechar="\\"),)
            return Header(_named(names, field, container.id_field), (dialect, *escaped), above, line)
    return None


def _place(
    first: Sequence[str], dialect: Dialect, container: Container, *, fold: bool, strict: bool
) -> tuple[list[str], int, int] | None:
    """Return names, number of lines and rows above of the first row that names the column; None without one."""
    above = 0
    parser = csv.reader(
        first,
        delimiter=dialect.delimiter,
        quotechar=dialect.quotechar,
        escapechar=dialect.escapechar,
        strict=strict,
    )
    try:
        for row in parser:
            if _is(container.text_field, [name.strip() for name in row], fold=fold):
                check_columns(row, container.limits)  # before a million names are held for each dialect
                return [name.strip() for name in row], parser.line_num, above
            above += bool(row)
    except csv.Error:  # a quote that is still open, or in a title
        return None
    return None


def _missing_column(first: Sequence[str], dialects: Sequence[Dialect], field: str) -> str:
    """Return the message about a file without the column; it names the columns where they look like names."""
    row = max((next(csv.reader(first[:1], delimiter=dialect.delimiter), []) for dialect in dialects), key=len)
    names = [name.strip() for name in row]
    if all(_NAME.fullmatch(name) for name in names):
        return missing_field(field, names, names="columns")
    return f"no column of its first {_LOOKED_AT} lines is named {field!r}: set `input.text_field`"


def _is(field: str, names: Sequence[str], *, fold: bool) -> bool:
    return field.casefold() in map(str.casefold, names) if fold else field in names


def _named(names: list[str], *fields: str | None) -> list[str]:
    """Return the names, those that differ from a field only in case under its name; DocumentError for two of them."""
    for field in fields:
        if field is None:
            continue
        exact = [at for at, name in enumerate(names) if name == field]
        alike = exact or [at for at, name in enumerate(names) if name.casefold() == field.casefold()]
        if len(alike) > 1:
            raise DocumentError("document_unreadable", f"{len(alike)} columns are named {field!r}, need one")
        names = [field if at in alike else name for at, name in enumerate(names)]
    return names
