"""A CSV file, split into records; each becomes a JSON object of its cells, by the names in the header.

It must not hold more than one record, also if a quote is never closed.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO, cast

from pipeline.documents.budget import UnpackedBudget
from pipeline.documents.containers import Container, Piece, too_large
from pipeline.documents.divided import Divider, Part, Place, window
from pipeline.documents.encodings.decoding import MAX_CONTROL_SHARE, guess, marked, refuse_binary
from pipeline.documents.encodings.guessing import guess_wide
from pipeline.documents.tables.header import Header, read_header
from pipeline.documents.tables.rows import CountedText, Lines, Row, rows
from pipeline.errors import DocumentError

_DELIMITERS = (",", ";", "\t", "|")
_TABS_FIRST = ("\t", ",", ";", "|")
_ABOVE = "(lines above a header)"


def split_records(
    stream: BinaryIO, container: Container, *, delimiters: tuple[str, ...] = _DELIMITERS
) -> Iterator[Piece]:
    """Yield each record except the header and blank lines, numbered from 1, as canonical JSON by column names.

    The delimiter is that of the settings, of a `sep=` line, or the first of these by which the header has `text_field`.
    """
    yield from _first_records(stream, container, delimiters, encoding=_encoding_of(stream))


def split_part(
    stream: BinaryIO, container: Container, part: Part, *, delimiters: tuple[str, ...] = _DELIMITERS
) -> Iterator[Piece]:
    """Yield the records of a part of the file, numbered as by `split_records`; the header is read first."""
    encoding = _encoding_of(stream)
    if not part.start:
        yield from _first_records(window(stream, part), container, delimiters, encoding=encoding)
        return
    with _text(stream, encoding) as text:
        lines = Lines(text, container.limit_bytes)
        header = read_header(lines, container, delimiters)
        header_bytes = lines.size
    if header is None:
        return
    with _text(window(stream, part), encoding.removesuffix("-sig")) as text:
        lines = Lines(text, container.limit_bytes)
        lines.size = header_bytes
        yield from _records(lines, header, container, encoding=encoding, first=part.number)


def places(stream: BinaryIO, container: Container, *, delimiters: tuple[str, ...] = _DELIMITERS) -> Iterator[Place]:
    """Yield the places of records that can be read without the text before them; no place unless the file is UTF-8.

    Raise DocumentError like `split_records`.
    """
    start = cast(io.BufferedReader, stream).peek()
    encoding = _encoding_of(stream)
    if not encoding.startswith("utf-8"):
        return
    bom_bytes = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
    with _text(stream, encoding) as text:
        counted_lines = CountedText(text, bytes_before=bom_bytes)
        lines = Lines(counted_lines, container.limit_bytes)
        header = read_header(lines, container, delimiters)
        if header is None:
            return
        number = 1
        for _ in rows(lines, header.dialects, columns=len(header.names), limit_bytes=container.limit_bytes):
            number += 1
            if not lines.holds_lines:
                yield Place(counted_lines.bytes, number)
    yield Place(stream.seek(0, io.SEEK_END), number)


@contextmanager
def _text(stream: BinaryIO, encoding: str) -> Iterator[io.TextIOWrapper]:
    """Yield the text of the stream, and leave the stream open."""
    errors = "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    text = io.TextIOWrapper(stream, encoding, errors, newline="")
    try:
        yield text
    finally:
        text.detach()


def _first_records(
    stream: BinaryIO, container: Container, delimiters: tuple[str, ...], *, encoding: str
) -> Iterator[Piece]:
    """Yield the records of a stream that begins with the header."""
    with _text(stream, encoding) as text:
        lines = Lines(text, container.limit_bytes)
        header = read_header(lines, container, delimiters)
        if header is None:
            return
        if header.titles:
            container.ignore(_ABOVE)
        yield from _records(lines, header, container, encoding=encoding, first=1)


def _records(lines: Lines, header: Header, container: Container, *, encoding: str, first: int) -> Iterator[Piece]:
    """Yield the records that follow, numbered from `first`; `lines.size`: the size of the header."""
    budget = UnpackedBudget(lines.size, container.limits, of_table=True)
    notes = () if encoding.startswith("utf") else (f"encoding_guessed:{encoding}",)
    cells = rows(lines, header.dialects, columns=len(header.names), limit_bytes=container.limit_bytes)
    for number, row in enumerate(cells, first):
        nul_notes = (f"invalid_bytes:{lines.nul}",) if lines.nul else ()
        piece = _piece(number, row, header.names, size_bytes=lines.size, notes=(*notes, *nul_notes))
        budget.allow(lines.size)
        budget.add(len(piece.data))
        yield _limited(piece, container.limit_bytes)


def split_tabbed_records(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield the records of a table whose cells are separated by tabs."""
    return split_records(stream, container, delimiters=_TABS_FIRST)


def _encoding_of(stream: BinaryIO) -> str:
    """Return the file's encoding by its first bytes; records in another encoding are handled one by one."""
    sample = cast(io.BufferedReader, stream).peek()
    if (encoding := marked(sample)) is not None:
        return encoding
    if b"\0" in sample and (wide := guess_wide(sample)) is not None:
        return wide
    cleaned = sample.replace(b"\0", b"")
    if len(sample) - len(cleaned) <= max(1, len(sample) * MAX_CONTROL_SHARE):
        sample = cleaned  # a damaged file may have a few
    refuse_binary(sample)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError as cause:
        return guess(sample, first=cause.start)
    return "utf-8"


def _piece(number: int, row: Row, names: list[str], *, size_bytes: int, notes: tuple[str, ...]) -> Piece:
    if isinstance(row, DocumentError):
        return Piece(number, size_bytes, problem=row)
    cells, further_notes = _decoded(row)
    values = dict(zip(names, cells + [""] * (len(names) - len(cells)), strict=False))
    data = json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")
    return Piece(number, size_bytes, data, (*notes, *further_notes))


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


RECORDS = Divider(places, split_part)
TABBED_RECORDS = Divider(partial(places, delimiters=_TABS_FIRST), partial(split_part, delimiters=_TABS_FIRST))
"""The functions that divide tables."""
