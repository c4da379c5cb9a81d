"""A file with one document per line, split into lines; UTF-16 and UTF-32 are converted to UTF-8.

It must not hold more than one line.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

from pipeline.documents.containers import Container, Piece, too_large
from pipeline.documents.encoding import marked

_DRAIN_BYTES = 1 << 16


class _Lines(Protocol):
    def readline(self, size: int, /) -> bytes: ...


class _Wide:
    """The lines of a text in UTF-16 or UTF-32, as UTF-8, each up to `size` characters."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def readline(self, size: int, /) -> bytes:
        return self._text.readline(size).encode("utf-8", "surrogatepass")


def split_lines(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield each line that is not blank, without its LF or CRLF; numbers count blank lines too.

    At most `limit_bytes` of a line are held in memory.
    """
    encoding = marked(cast(io.BufferedReader, stream).peek())
    if encoding not in ("utf-16", "utf-32"):
        yield from _pieces(stream, container.limit_bytes)
        return
    text = io.TextIOWrapper(stream, encoding, "replace", newline="\n")
    try:
        yield from _pieces(_Wide(text), container.limit_bytes)
    finally:
        text.detach()


def _pieces(stream: _Lines, limit: int) -> Iterator[Piece]:
    number, most = 0, limit + 2  # the longest line that is allowed, with its CRLF
    while line := stream.readline(most):
        number += 1
        if len(line) >= most and not line.endswith(b"\n"):
            yield _too_long(number, len(line) + _drain(stream), limit)
            continue
        line = line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n")
        if len(line) > limit:
            yield _too_long(number, len(line), limit)
        elif line and not line.isspace():
            yield Piece(number, len(line), line)


def _too_long(number: int, size_bytes: int, limit_bytes: int) -> Piece:
    return Piece(number, size_bytes, problem=too_large(size_bytes, limit_bytes))


def _drain(stream: _Lines) -> int:
    """Skip to the LF that ends the line; return the number of bytes before it."""
    passed = 0
    while chunk := stream.readline(_DRAIN_BYTES):
        passed += len(chunk)
        if chunk.endswith(b"\n"):
            return passed - 1
    return passed
