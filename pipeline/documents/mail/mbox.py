"""A mailbox (mbox): messages one after the other, each below a line that begins with `From `.

It must not hold more than one message. Format: RFC 4155; lines that were quoted as `>From ` are not unquoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.documents.containers import Container, Piece, too_large

_ENVELOPE = re.compile(rb"From [^\r\n]{0,300}\d{2}:\d{2}[^\r\n]{0,100}\d{4}")
"""The line above a message: an address and a date; a sentence of a text may begin with `From `, too."""
_HEADER = re.compile(rb"[!-9;-~]{1,100}:|>?From ")
_LINE_BYTES = 1 << 16
_LOOKED_AT_BYTES = 1 << 12


def is_mailbox(stream: BinaryIO) -> bool:
    """Return True for a file that begins as a mailbox does."""
    return _ENVELOPE.match(stream.read(_LOOKED_AT_BYTES).lstrip(b"\r\n")) is not None


def split_mailbox(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield each message without its `From ` line, numbered from 1."""
    message = _Message(container.limit_bytes)
    number = 0
    line = stream.readline(_LINE_BYTES)
    blank = True
    at_line_start = True
    while line:
        following = stream.readline(_LINE_BYTES)
        if at_line_start and blank and _begins(line, following):
            if number or message.size:
                yield message.piece(max(number, 1))
            number = max(number, 1) + 1 if number or message.size else 1
            message = _Message(container.limit_bytes)
        else:
            message.add(line)
        blank = at_line_start and not line.strip(b"\r\n")
        at_line_start = line.endswith(b"\n")
        line = following
    if number or message.size:
        yield message.piece(max(number, 1))


def _begins(line: bytes, following: bytes) -> bool:
    """Return True for the line above a message: it has a date, or a header follows it."""
    return line.startswith(b"From ") and bool(_ENVELOPE.match(line) or _HEADER.match(following))


class _Message:
    """The lines of one message, up to the size limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._lines: list[bytes] = []
        self._limit_bytes = limit_bytes
        self.size = 0

    def add(self, line: bytes) -> None:
        """Add a line; beyond the limit it is only counted."""
        if not self.size and not line.strip():
            return
        self.size += len(line)
        if self.size <= self._limit_bytes:
            self._lines.append(line)
        else:
            self._lines.clear()

    def piece(self, number: int) -> Piece:
        """Return the message, or its problem."""
        if self.size > self._limit_bytes:
            return Piece(number, self.size, problem=too_large(self.size, self._limit_bytes))
        return Piece(number, self.size, b"".join(self._lines))
