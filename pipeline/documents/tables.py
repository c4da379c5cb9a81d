"""A CSV file, split into records; each becomes a JSON object of its cells, by the names in the header.

It must not hold more than one record, also where a quote is never closed.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from typing import BinaryIO, cast

from pipeline.documents.budget import UnpackedBudget, check_columns
from pipeline.documents.containers import Container, Piece, too_large
from pipeline.documents.encoding import guess, marked, refuse_binary
from pipeline.errors import DocumentError

_DELIMITERS = (",", ";", "\t", "|")
_DRAIN_CHARS = 1 << 16
_Row = list[str] | DocumentError

# the library limits a cell to 128 kB, for the whole process; here _Lines limits the record
csv.field_size_limit(2**31 - 1)


class _TooLongError(Exception):
    """A record is longer than a document may be."""


class _Lines:
    """The file's lines, for the parser, up to the size limit of a record. `size`: the size of the record so far."""

    def __init__(self, text: io.TextIOWrapper, limit: int) -> None:
        self._text = text
        self._limit = limit
        self._waiting = ""
        self.size = 0
        self._quotes = 0

    def begin(self) -> None:
        """Start a new record with the next line."""
        self.size = 0
        self._quotes = 0

    def put_back(self, line: str) -> None:
        """Return this line again as the next one."""
        self._waiting = line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting or self._text.readline(self._limit + 2)
        self._waiting = ""
        if not line:
            raise StopIteration
        self._count(line)
        cut = len(line) == self._limit + 2 and not line.endswith(("\n", "\r"))
        if cut or self.size > self._limit + 2:
            self._pass_over(line)
            raise _TooLongError
        return line

    def _count(self, line: str) -> None:
        self.size += len(line)
        self._quotes += line.count('"')

    def _pass_over(self, line: str) -> None:
        """Skip to the end of the record, which is a line end outside of quotes."""
        while line and (self._quotes % 2 or not line.endswith(("\n", "\r"))):
            line = self._text.readline(_DRAIN_CHARS)
            self._count(line)


def split_records(
    stream: BinaryIO, container: Container, *, delimiters: tuple[str, ...] = _DELIMITERS
) -> Iterator[Piece]:
    """Yield each record except the header and blank lines, numbered from 1, as canonical JSON by column names.

    The delimiter is a comma, or, if the header has no `text_field` then, one of ; tab | that yields it.
    """
    encoding = _encoding_of(stream)
    errors = "replace" if encoding in ("utf-16", "utf-32") else "surrogateescape"
    text = io.TextIOWrapper(stream, encoding, errors, newline="")
    try:
        lines = _Lines(text, container.limit_bytes)
        rows = _rows(lines, _delimiter(lines, container.text_field, delimiters), limit_bytes=container.limit_bytes)
        header = next(rows, [])
        if isinstance(header, DocumentError):
            raise header
        check_columns(len(header), container.limits)
        names = [name.strip() for name in header]
        budget = UnpackedBudget(lines.size, container.limits)
        notes = () if encoding.startswith("utf") else (f"encoding_guessed:{encoding}",)
        for number, row in enumerate(rows, 1):
            piece = _piece(number, row, names, size_bytes=lines.size, notes=notes)
            budget.allow(lines.size)
            budget.add(len(piece.data))
            yield _limited(piece, container.limit_bytes)
    finally:
        text.detach()


def split_tabbed_records(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield the records of a table whose cells are separated by tabs."""
    return split_records(stream, container, delimiters=("\t",))


def _encoding_of(stream: BinaryIO) -> str:
    """Return the file's encoding by its first bytes; records in another encoding are handled one by one."""
    sample = cast(io.BufferedReader, stream).peek()
    if (encoding := marked(sample)) is not None:
        return encoding
    refuse_binary(sample)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError as cause:
        return guess(sample, first=cause.start)
    return "utf-8"


def _delimiter(lines: _Lines, text_field: str, delimiters: tuple[str, ...]) -> str:
    try:
        first = next(lines, "")
    except _TooLongError as cause:
        raise DocumentError("document_unreadable", "the header is longer than a document may be") from cause
    lines.put_back(first)
    named = (
        delimiter for delimiter in delimiters if text_field in [cell.strip(' "\r\n') for cell in first.split(delimiter)]
    )
    return next(named, delimiters[0])


def _rows(lines: _Lines, delimiter: str, *, limit_bytes: int) -> Iterator[_Row]:
    """Yield the cells of each record that is not blank, or its problem."""
    parser = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.begin()
        row: _Row
        try:
            row = next(parser)
        except StopIteration:
            return
        except _TooLongError:
            row = too_large(lines.size, limit_bytes)
            parser = csv.reader(lines, delimiter=delimiter)
        except csv.Error as cause:
            row = _unreadable(str(cause))
            parser = csv.reader(lines, delimiter=delimiter)
        if row:
            yield row


def _piece(number: int, row: _Row, names: list[str], *, size_bytes: int, notes: tuple[str, ...]) -> Piece:
    if isinstance(row, DocumentError):
        return Piece(number, size_bytes, problem=row)
    if any(cell.strip() for cell in row[len(names) :]):
        problem = _unreadable(f"it has {len(row)} cells, the header {len(names)}: is a quote missing?")
        return Piece(number, size_bytes, problem=problem)
    cells, more = _decoded(row)
    values = dict(zip(names, cells + [""] * (len(names) - len(cells)), strict=False))
    data = json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")
    return Piece(number, size_bytes, data, (*notes, *more))


def _limited(piece: Piece, limit_bytes: int) -> Piece:
    """Return the piece, or a problem in its place if its JSON with the column names is too large."""
    if len(piece.data) <= limit_bytes:
        return piece
    return Piece(piece.number, piece.size_bytes, problem=too_large(len(piece.data), limit_bytes))


def _decoded(row: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the cells, decoded by a guess if the record is not in the file's encoding, and a note on that."""
    if all(cell.isascii() for cell in row):
        return row, ()
    raw = [cell.encode("utf-8", "surrogateescape") for cell in row]
    try:
        b"\n".join(raw).decode("utf-8")
    except UnicodeDecodeError as cause:
        encoding = guess(b"\n".join(raw), first=cause.start)
        return [cell.decode(encoding, "replace") for cell in raw], (f"encoding_guessed:{encoding}",)
    return row, ()


def _unreadable(why: str) -> DocumentError:
    return DocumentError("document_unreadable", f"no CSV record: {why}")
