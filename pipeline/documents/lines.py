"""A file that holds a document on each line, cut into its lines.

Nothing here holds more than one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pipeline.documents.containers import Container, Piece, too_large

_DRAIN_BYTES = 1 << 16


def split_lines(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Each line that is not blank, numbered physically, without its LF or CRLF.

    Of a line that is longer than the limit no more than that is ever held.
    """
    limit = container.limit_bytes
    number, most = 0, limit + 2  # the longest line that is allowed, with its CRLF
    while line := stream.readline(most):
        number += 1
        if len(line) == most and not line.endswith(b"\n"):
            yield _too_long(number, most + _drain(stream), limit)
            continue
        line = line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n")
        if len(line) > limit:
            yield _too_long(number, len(line), limit)
        elif line and not line.isspace():
            yield Piece(number, len(line), line)


def _too_long(number: int, size_bytes: int, limit_bytes: int) -> Piece:
    return Piece(number, size_bytes, problem=too_large(size_bytes, limit_bytes))


def _drain(stream: BinaryIO) -> int:
    """The number of bytes passed over up to the LF that ends the line."""
    passed = 0
    while chunk := stream.readline(_DRAIN_BYTES):
        passed += len(chunk)
        if chunk.endswith(b"\n"):
            return passed - 1
    return passed
