"""Detect the format of a file by its beginning, for suffixes with several formats.

A member of a tar can be read only once, so its beginning is kept for the second reading.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO

from pipeline.documents.containers import Container, Format, describe
from pipeline.errors import DocumentError, TryLaterError
from pipeline.stores import is_trouble


def detected_format(form: Format, container: Container) -> Format:
    """Return the format detected by the beginning of the file; the given one for a file that cannot be read."""
    assert form.look is not None
    damage: tuple[type[Exception], ...] = (DocumentError, *container.damage)
    try:
        with container.open() as raw, container.compression.open(raw) as stream:
            return form.look(stream, container) or form
    except damage as cause:
        if is_trouble(cause):
            raise TryLaterError(f"the listing was interrupted: {container.uri}: {describe(cause)}") from cause
        return form


def opened_twice(open: Callable[[], BinaryIO]) -> Callable[[], BinaryIO]:
    """Return a function that opens a one-time stream twice; both streams begin at its beginning."""
    source = open()
    beginning = bytearray()
    opened = 0

    def reopen() -> BinaryIO:
        nonlocal opened
        opened += 1
        return io.BufferedReader(_Replayed(source, beginning, keeps=opened == 1))

    return reopen


class _Replayed(io.RawIOBase):
    """A reader of the kept beginning of a stream, then of the stream; closing it leaves the stream open."""

    def __init__(self, source: BinaryIO, beginning: bytearray, *, keeps: bool) -> None:
        self._source = source
        self._beginning = beginning
        self._keeps = keeps
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = bytes(self._beginning[self._position : self._position + len(buffer)])
        self._position += len(data)
        if not data:
            data = self._source.read(len(buffer))
            if self._keeps:
                self._beginning += data
                self._position += len(data)
            else:
                self._beginning.clear()
        buffer[: len(data)] = data
        return len(data)
