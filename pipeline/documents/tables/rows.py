"""The rows of a CSV file, read strictly; after a damaged row, reading resumes at the row's second line.

    lines ─▶ strict parser ─▶ row
                └─ error ─▶ another dialect ─▶ row
                               └─ error ─▶ one problem; the other lines of this row are read again, as rows of their own

A quote that is never closed is detected at the end of the file, or at another quote in a wrong place. The module must
not hold more than one record.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.documents.containers import too_large
from pipeline.errors import DocumentError

Row = list[str] | DocumentError

_DRAIN_CHARS = 1 << 16
_SAMPLE_LINES = 100
_SHARE_OF_RECORDS = 0.8

# the library limits a cell to 128 kB, for the whole process; here Lines limits the record
csv.field_size_limit(2**31 - 1)


class TooLongError(Exception):
    """A record is longer than a document may be."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The characters that separate and quote cells."""

    delimiter: str
    quotechar: str = '"'
    escapechar: str | None = None

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Return a parser that raises csv.Error for a quote in a wrong place."""
        return csv.reader(
            lines, delimiter=self.delimiter, quotechar=self.quotechar, escapechar=self.escapechar, strict=True
        )


class TextLines(Protocol):
    """A text that is read line by line."""

    def readline(self, size: int, /) -> str: ...


class CountedText:
    """The lines of a UTF-8 text; `bytes`: the bytes of the file read so far, including those before the text."""

    def __init__(self, text: TextLines, *, bytes_before: int) -> None:
        self._text = text
        self.bytes = bytes_before

    def readline(self, size: int, /) -> str:
        """Return the next line, or its first `size` characters."""
        line = self._text.readline(size)
        self.bytes += len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))
        return line


class Lines:
    """The file's lines, for the parser, up to the size limit of a record.

    `record`: the lines of the record so far, `size`: their characters, `nul`: the NUL characters that were dropped.
    """

    def __init__(self, text: TextLines, limit: int) -> None:
        self._text = text
        self._limit = limit
        self._waiting: deque[str] = deque()
        self.record: list[str] = []
        self.size = 0
        self.nul = 0

    @property
    def holds_lines(self) -> bool:
        """Return whether lines were put back and will be read again."""
        return bool(self._waiting)

    def begin(self) -> None:
        """Start a new record with the next line."""
        self.record = []
        self.size = 0
        self.nul = 0

    def put_back(self, lines: Sequence[str]) -> None:
        """Return these lines again as the next ones."""
        self._waiting.extendleft(reversed(lines))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else self._text.readline(self._limit + 2)
        if not line:
            raise StopIteration
        if "\0" in line:
            self.nul += line.count("\0")
            line = line.replace("\0", "") or "\n"
        self.size += len(line)
        self.record.append(line)
        cut = len(line) >= self._limit + 2 and not line.endswith(("\n", "\r"))
        if cut or self.size > self._limit + 2:
            raise TooLongError
        return line

    def pass_over(self, quotechar: str) -> None:
        """Skip to the end of a record that is too long, which is a line end outside of quotes."""
        quotes = sum(line.count(quotechar) for line in self.record)
        line = self.record[-1]
        while line and (quotes % 2 or not line.endswith(("\n", "\r"))):
            line = self._waiting.popleft() if self._waiting else self._text.readline(_DRAIN_CHARS)
            self.size += len(line)
            quotes += line.count(quotechar)


def rows(lines: Lines, dialects: Sequence[Dialect], *, columns: int, limit_bytes: int) -> Iterator[Row]:
    """Yield the cells of each record that is not blank, or its problem; `dialects`: those to try, in this order."""
    parser = dialects[0].reader(lines)
    while True:
        lines.begin()
        row: Row
        try:
            row = next(parser)
        except StopIteration:
            return
        except TooLongError:
            row = _too_long(lines, dialects[0], columns=columns, limit_bytes=limit_bytes)
            parser = dialects[0].reader(lines)
        except csv.Error:
            row = _recovered(lines, dialects, columns=columns)
            parser = dialects[0].reader(lines)
        if isinstance(row, list) and _has_too_many(row, columns):
            row = _recovered(lines, dialects, columns=columns, cells=len(row))
            parser = dialects[0].reader(lines)
        if row:
            yield row


def _has_too_many(row: list[str], columns: int) -> bool:
    return any(cell.strip() for cell in row[columns:])


def _recovered(lines: Lines, dialects: Sequence[Dialect], *, columns: int, cells: int | None = None) -> Row:
    """Return the record in another dialect, or its problem; put back the lines that do not belong to it."""
    record_lines = lines.record
    for dialect in dialects[1:]:
        remaining_lines = iter(record_lines)
        try:
            row = next(dialect.reader(remaining_lines))
        except (csv.Error, StopIteration):
            continue
        if len(row) == columns:
            lines.put_back(list(remaining_lines))
            return row
    lines.put_back(record_lines[1:])
    lines.size = len(record_lines[0])
    if cells is not None and len(record_lines) == 1:
        return damaged_record(f"it has {cells} cells, the header {columns}: is a quote missing?")
    return damaged_record("a quote is not closed, or not doubled inside of quotes (see input.csv)")


def _too_long(lines: Lines, dialect: Dialect, *, columns: int, limit_bytes: int) -> Row:
    """Return the problem of a record over the limit, or of a quote in its first line that is not closed.

    A long text has few lines with just as many cells as the header.
    """
    sample = lines.record[1 : _SAMPLE_LINES + 1]
    alike = sum(len(next(csv.reader([line], delimiter=dialect.delimiter), [])) == columns for line in sample)
    if columns > 1 and len(sample) > 1 and alike >= _SHARE_OF_RECORDS * len(sample):
        lines.put_back(lines.record[1:])
        lines.size = len(lines.record[0])
        return damaged_record("a quote is not closed")
    lines.pass_over(dialect.quotechar)
    return too_large(lines.size, limit_bytes)


def damaged_record(reason: str) -> DocumentError:
    """Return the problem of a damaged record."""
    return DocumentError("document_unreadable", f"no CSV record: {reason}")
