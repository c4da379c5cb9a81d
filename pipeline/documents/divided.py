"""Large files of many documents, divided into parts that are read on their own, with the ids of the whole file.

A plan (run/chunks/planning.py) reads such a file once, to find places at which it can be divided. This module must not
hold more of the file than one document.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

if TYPE_CHECKING:
    from pipeline.documents.containers import Container, Piece

_BUFFER_BYTES = 1 << 18


class Place(NamedTuple):
    """The beginning of a document: its offset, and its number in the file from 1. The last place is the file's end."""

    offset: int
    number: int


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes `start` to `end` of a file; its documents have `count` consecutive numbers from `number` on."""

    start: int
    end: int
    number: int
    count: int

    @property
    def size_bytes(self) -> int:
        """The number of bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Divider:
    """The functions that divide files of a format.

    `places` yields the places where the file may be cut, in order, and its end; nothing if it must be read as a whole.
    `split` yields the documents of a part; the stream is that of the whole file. `by_bytes`: it reads no byte after
    the part; else the offsets only give the size of a part.
    """

    places: Callable[[BinaryIO, Container], Iterator[Place]]
    split: Callable[[BinaryIO, Container, Part], Iterator[Piece]]
    by_bytes: bool = True


def parts_of(places: Iterator[Place], is_due: Callable[[Place, Place], bool]) -> list[Part]:
    """Return the parts between the places for which `is_due(start of the part, place)`; [] for a file without any."""
    parts: list[Part] = []
    start = Place(0, 1)
    last = start
    for place in places:
        last = place
        if place.number > start.number and is_due(start, place):
            parts.append(_part(start, place))
            start = place
    if last.offset > start.offset:
        parts.append(_part(start, last))
    return parts


def _part(start: Place, end: Place) -> Part:
    return Part(start.offset, end.offset, start.number, end.number - start.number)


class _Window(io.RawIOBase):
    """The bytes of a part, from a stream that is at its start."""

    def __init__(self, stream: BinaryIO, size_bytes: int) -> None:
        self._stream = stream
        self._left = size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._stream.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def window(stream: BinaryIO, part: Part) -> BinaryIO:
    """Return a buffered stream of the part's bytes."""
    stream.seek(part.start)
    return cast("BinaryIO", io.BufferedReader(_Window(stream, part.size_bytes), _BUFFER_BYTES))
