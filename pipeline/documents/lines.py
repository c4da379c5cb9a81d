"""The entries of a file that holds a document on each line.

Read as a stream, in the reader's thread; nothing here holds more than one line, or waits for a second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

from pipeline.documents.compression import Compression
from pipeline.documents.decode import read_json, scrub
from pipeline.errors import DocumentError
from pipeline.records import Entry

_DRAIN_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Container:
    """A file that holds documents: its own id and uri, how it is opened and unpacked, and what is asked of it."""

    id: str
    uri: str
    format: str
    open: Callable[[], BinaryIO]
    compression: Compression
    size_bytes: int
    limit_bytes: int
    id_field: str | None = None
    id_prefix: str = ""


@dataclass(frozen=True, slots=True)
class HeldLine:
    """A line that was read with its container: calling it gives the bytes; `position` is its positional id."""

    data: bytes
    position: str

    def __call__(self) -> bytes:
        return self.data


def fail(reason: str, message: str) -> NoReturn:
    """Nothing: the `read` of an entry that is known to be no document, with its arguments bound."""
    raise DocumentError(reason, message)


def line_entries(container: Container) -> Iterator[Entry]:
    """An entry for each line that is not blank; a damaged file ends in a failed entry under its own id."""
    try:
        with container.open() as raw, container.compression.open(raw) as stream:
            for number, line, size_bytes in read_lines(stream, container.limit_bytes):
                yield _line_entry(container, number, line=line, size_bytes=size_bytes)
    except container.compression.damage as cause:
        yield _damaged(container, cause)


def read_lines(stream: BinaryIO, limit_bytes: int) -> Iterator[tuple[int, bytes | None, int]]:
    """Number from 1, bytes without LF or CRLF, and size, of each line that is not blank.

    The bytes are None for a line longer than the limit, of which no more than that is ever held.
    """
    number, most = 0, limit_bytes + 2  # the longest line that is allowed, with its CRLF
    while line := stream.readline(most):
        number += 1
        if len(line) == most and not line.endswith(b"\n"):
            yield number, None, most + _drain(stream)
            continue
        line = line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n")
        if len(line) > limit_bytes:
            yield number, None, len(line)
        elif line and not line.isspace():
            yield number, line, len(line)


def _drain(stream: BinaryIO) -> int:
    """The number of bytes passed over up to the LF that ends the line."""
    passed = 0
    while chunk := stream.readline(_DRAIN_BYTES):
        passed += len(chunk)
        if chunk.endswith(b"\n"):
            return passed - 1
    return passed


def _line_entry(container: Container, number: int, *, line: bytes | None, size_bytes: int) -> Entry:
    position, uri = f"{container.id}#{number}", f"{container.uri}#{number}"
    if line is None:
        message = f"the line has {size_bytes} bytes, more than input.max_document_bytes ({container.limit_bytes})"
        read: Callable[[], bytes] = partial(fail, "document_too_large", message)
        return Entry(position, uri, None, size_bytes, container.format, read)
    own = _own_id(line, container.id_field) if container.id_field else None
    id = position if own is None else container.id_prefix + own
    return Entry(id, uri, None, size_bytes, container.format, HeldLine(line, position))


def _own_id(line: bytes, id_field: str) -> str | None:
    """The id the line gives itself: a string that is not empty, or an integer; else None."""
    try:
        value, _ = read_json(line)
    except DocumentError:
        return None
    found = value.get(id_field) if isinstance(value, dict) else None
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        return None
    return scrub(str(found)) or None


def _damaged(container: Container, cause: Exception) -> Entry:
    message = f"cannot be read to its end: {describe(cause)}"
    read = partial(fail, "document_unreadable", message)
    return Entry(container.id, container.uri, None, container.size_bytes, container.format, read)


def describe(cause: Exception) -> str:
    """What went wrong with a file, in a few words."""
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__


def fallback_id(entry: Entry) -> str:
    """The id for an entry whose own is taken: its positional id if it has another one, else its whole URI."""
    position = entry.read.position if isinstance(entry.read, HeldLine) else entry.id
    return position if position != entry.id else f"file://{Path(entry.uri).absolute()}"
