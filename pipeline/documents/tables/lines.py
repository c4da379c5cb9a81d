"""A file with one document per line, split into lines; UTF-16 and UTF-32 are converted to UTF-8.

JSON objects may also be spread over several lines, follow each other in a line, follow a record separator
(RFC 7464) or be the elements of one array. It must not hold more than one document.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

from pipeline.documents.containers import Container, Piece, too_large
from pipeline.documents.divided import Divider, Part, Place, window
from pipeline.documents.encodings.decoding import marked
from pipeline.documents.tables.json_array import split_array
from pipeline.errors import DocumentError

_DRAIN_BYTES = 1 << 16
_SEPARATOR = b"\x1e"
_LOOKED_AT = 100
"""Number of first lines without an object after which a file is not JSON Lines."""

# a string is passed over whole; one that does not end in its line has no second quote
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*("?)|[{}\[\]]', re.DOTALL)
_TWO_OBJECTS = re.compile(rb"\}[\s\x1e]*\{")
"""In JSON this occurs only in a string, or between two objects without a comma."""


class _Lines(Protocol):
    def readline(self, size: int, /) -> bytes: ...


class _Wide:
    """A stream of the lines of a UTF-16 or UTF-32 text in UTF-8, each up to `size` characters."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def readline(self, size: int, /) -> bytes:
        return self._text.readline(size).encode("utf-8", "surrogatepass")


def split_lines(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield each document, numbered by its first line from 1: blank lines count, and are skipped.

    A document is a line, without its LF or CRLF, or an object over several lines. Further objects of a line have the
    numbers N.2, N.3 and so on. At most `limit_bytes` of a document are held in memory.
    """
    start = cast(io.BufferedReader, stream).peek()
    encoding = marked(start)
    if encoding not in ("utf-16", "utf-32"):
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            yield from split_array(stream, container)
        else:
            yield from _checked(_pieces(stream, container.limit_bytes))
        return
    text = io.TextIOWrapper(stream, encoding, "replace", newline="\n")
    try:
        yield from _checked(_pieces(_Wide(text), container.limit_bytes))
    finally:
        text.detach()


def _checked(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the pieces; DocumentError when the file has several lines and the first ones contain no object."""
    first: list[Piece] = []
    for piece in pieces:
        first.append(piece)
        if piece.problem is not None or _begins(piece.data) or len(first) == _LOOKED_AT:
            break
    if len(first) > 1 and not any(piece.problem is not None or _begins(piece.data) for piece in first):
        message = f"no JSON Lines: none of its first {len(first)} lines is an object"
        raise DocumentError("document_unreadable", message)
    yield from first
    yield from pieces


def split_part(stream: BinaryIO, container: Container, part: Part) -> Iterator[Piece]:
    """Yield the documents of a part of the file, numbered as by `split_lines`."""
    return _pieces(window(stream, part), container.limit_bytes, lines_before=part.number - 1)


def places(stream: BinaryIO, container: Container) -> Iterator[Place]:
    """Yield each place where a document certainly begins: a line that starts with `{` and is within the size limit.

    Yield no place for a file whose first line is not such a line: an array, UTF-16, or other text.
    """
    start = cast(io.BufferedReader, stream).peek()
    if marked(start) not in (None, "utf-8-sig") or not start.removeprefix(codecs.BOM_UTF8).startswith(b"{"):
        return
    max_bytes = container.limit_bytes + 2
    offset = 0
    number = 1
    while line := stream.readline(max_bytes):
        if len(line) >= max_bytes and not line.endswith(b"\n"):
            offset += _drain(stream) + 1
        elif line.startswith(b"{"):
            yield Place(offset, number)
        offset += len(line)
        number += 1
    yield Place(stream.seek(0, io.SEEK_END), number)


def _pieces(stream: _Lines, limit: int, *, lines_before: int = 0) -> Iterator[Piece]:
    number = lines_before
    max_bytes = limit + 2  # the longest line that is allowed, with its CRLF
    objects = _Objects(limit)
    while line := stream.readline(max_bytes):
        number += 1
        if len(line) >= max_bytes and not line.endswith(b"\n"):
            yield from objects.too_long(number, len(line) + _drain(stream))
            continue
        line = line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n")
        if len(line) > limit:
            yield from objects.too_long(number, len(line))
        elif line and not line.isspace():
            yield from objects.pieces(number, line)
    yield from objects.rest()


class _Objects:
    """The objects of the lines, one line after the other; at most one object is open and continues in the next line."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: list[bytes] = []
        self._size = 0
        self._depth = 0
        self._number = 0
        self._part = 0
        self._broken = False

    def pieces(self, number: int, line: bytes) -> Iterator[Piece]:
        """Yield the documents that end in this line."""
        if self._lines:
            # objects inside of another one are indented, so an object that begins a line is a document of its own
            if line.startswith((b"{", _SEPARATOR)):
                yield from self.rest()
        elif not _begins(line) or _is_one_object(line):
            yield Piece(number, len(line), line)
            return
        while line.strip(b" \t\r,"):
            self._begin(number)
            end = None if self._broken else self._end(line)
            if end is None:
                self._keep(line)
                return
            remainder = line[end:]
            # other text belongs to the document before it, which then is not valid JSON
            end = end if _begins(remainder.lstrip(b" \t\r,")) or not remainder.strip(b" \t\r,") else len(line)
            self._keep(line[:end])
            yield from self.rest()
            line = line[end:].lstrip(b" \t\r,")

    def too_long(self, number: int, size: int) -> Iterator[Piece]:
        """Yield the problem of a line that is too long to be held, or make it a part of the open object."""
        if self._lines:
            self._size += size + 1
        else:
            yield _too_long(number, size, self._limit)

    def rest(self) -> Iterator[Piece]:
        """Yield the open object, if there is one."""
        if not self._lines:
            return
        data = b"\n".join(self._lines)
        size = self._size - 1
        self._lines = []
        if size > self._limit:
            yield _too_long(self._number, size, self._limit)._replace(part=self._part)
        else:
            yield Piece(self._number, size, data, part=self._part)

    def _begin(self, number: int) -> None:
        if self._lines:
            return
        self._part = self._part + 1 if self._number == number else 1
        self._number = number
        self._size = self._depth = 0
        self._broken = False

    def _end(self, line: bytes) -> int | None:
        """Return where the open object ends in this line; None when it does not, or is broken."""
        for token in _TOKEN.finditer(line):
            if token[0] in (b"{", b"["):
                self._depth += 1
            elif token[0] in (b"}", b"]"):
                self._depth -= 1
                if self._depth <= 0:
                    return token.end()
            elif not token[1]:
                self._broken = True
        return None

    def _keep(self, line: bytes) -> None:
        self._size += len(line) + 1
        if self._size <= self._limit + 1 or not self._lines:
            self._lines.append(line)


def _begins(line: bytes) -> bool:
    """Return whether an object begins with this line."""
    return line.lstrip(b"\xef\xbb\xbf\x1e \t").startswith(b"{")


def _is_one_object(line: bytes) -> bool:
    """Return True when the line certainly contains one whole object and no other."""
    return (
        line.rstrip(b" \t\r,").endswith(b"}") and line.count(b"{") == line.count(b"}") and not _TWO_OBJECTS.search(line)
    )


def _too_long(number: int, size_bytes: int, limit_bytes: int) -> Piece:
    return Piece(number, size_bytes, problem=too_large(size_bytes, limit_bytes))


def _drain(stream: _Lines) -> int:
    """Skip to the LF that ends the line; return the number of bytes before it."""
    skipped_bytes = 0
    while chunk := stream.readline(_DRAIN_BYTES):
        skipped_bytes += len(chunk)
        if chunk.endswith(b"\n"):
            return skipped_bytes - 1
    return skipped_bytes


LINES = Divider(places, split_part)
"""The functions that divide a file of lines."""
