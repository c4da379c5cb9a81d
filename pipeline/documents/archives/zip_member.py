"""The content of a member of a zip archive, at its offset, by each method of packing that is in use.

It must not read beyond the member, or more than requested.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pipeline.documents.archives.compression import Inflater, Unpacker, lzma_unpacker

LOCAL = struct.Struct("<4s5H3L2H")
"""The header before a member's content."""

_CHUNK_BYTES = 1 << 18
_STORED = 0
_DEFLATED = 8
_BZIP2 = 12
_LZMA = 14
_XZ = 95
METHODS = (_STORED, _DEFLATED, _BZIP2, _LZMA, _XZ)
_LZMA_END_MARK = 0x2


@dataclass(frozen=True, slots=True)
class Place:
    """The offset of a member, and its fields in the directory."""

    offset: int
    header_bytes: int
    packed_bytes: int
    size_bytes: int
    crc: int
    method: int
    flags: int


def open_member(open_stream: Callable[[], BinaryIO], place: Place) -> BinaryIO:
    """Open the content of a member; the archive is closed with it."""
    with ExitStack() as until_made:
        stream = until_made.enter_context(open_stream())
        unpacked = io.BufferedReader(_Unpacked(stream, place), _CHUNK_BYTES)
        until_made.pop_all()
        return unpacked


class _Unpacked(io.RawIOBase):
    """A member's bytes, with its checksum verified at the end; OSError, EOFError or zlib.error when damaged."""

    def __init__(self, stream: BinaryIO, place: Place) -> None:
        self._stream = stream
        self._place = place
        # unbuffered: a buffer would fetch more than requested, from an object store by the megabyte
        self._raw = cast(BinaryIO, getattr(stream, "raw", stream))
        self._left = place.packed_bytes
        self._crc = 0
        self._size = 0
        self._packed = b""
        self._unpack: Unpacker | None = None
        self._begin()
        self._unpack = self._unpacker()

    def _begin(self) -> None:
        """Read the local header together with the first bytes: one request for a small member."""
        place = self._place
        self._raw.seek(place.offset)
        data = read_exactly(self._raw, place.header_bytes + min(self._left, _CHUNK_BYTES), at_least=LOCAL.size)
        values = LOCAL.unpack_from(data)
        if values[0] != b"PK\3\4":
            raise OSError("no member is at the position that the directory gives")
        self._raw.seek(place.offset)
        body = LOCAL.size + values[9] + values[10]
        self._packed = data[body : body + self._left]
        self._left -= len(self._packed)
        self._raw.seek(place.offset + body + len(self._packed))

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        data = self._next(len(buffer))
        self._crc = zlib.crc32(data, self._crc)
        self._size = self._size + len(data)
        if not data and (self._crc != self._place.crc or self._size != self._place.size_bytes):
            raise OSError("its checksum or its size is not what the directory says")
        buffer[: len(data)] = data
        return len(data)

    def _unpacker(self) -> Unpacker | None:
        """Return the decompressor of the member's method; None for a stored member."""
        place = self._place
        if place.method == _DEFLATED:
            return Inflater(-zlib.MAX_WBITS)
        if place.method == _BZIP2:
            return bz2.BZ2Decompressor()
        if place.method == _XZ:
            return lzma_unpacker(lzma.FORMAT_XZ)
        if place.method != _LZMA:
            return None
        # a zip has its own header before the properties, while an .lzma file has the size after them
        properties = self._packed[4:9]
        if len(self._packed) < 9 or self._packed[2:4] != b"\5\0":
            raise OSError("its lzma header is damaged")
        size = (1 << 64) - 1 if place.flags & _LZMA_END_MARK else place.size_bytes
        self._packed = properties + size.to_bytes(8, "little") + self._packed[9:]
        return lzma_unpacker(lzma.FORMAT_ALONE)

    def _next(self, size_bytes: int) -> bytes:
        """Return up to `size_bytes` bytes; empty at the end."""
        if self._unpack is None:
            self._fill()
            data = self._packed[:size_bytes]
            self._packed = self._packed[size_bytes:]
            return data
        while not self._unpack.eof:
            if self._unpack.needs_input:
                self._fill()
                if not self._packed:
                    raise EOFError("its packed bytes end in the middle")
            packed = self._packed if self._unpack.needs_input else b""
            if packed:
                self._packed = b""
            if data := self._unpack.decompress(packed, size_bytes):
                return data
        return b""

    def _fill(self) -> None:
        """Read the next packed bytes if there are none."""
        if not self._packed and self._left:
            self._packed = read_exactly(self._raw, min(self._left, _CHUNK_BYTES), at_least=1)
            self._left -= len(self._packed)


def read_exactly(stream: BinaryIO, size: int, *, at_least: int | None = None) -> bytes:
    """Read up to `size` bytes; EOFError for fewer than `at_least` (default: `size`)."""
    pieces: list[bytes] = []
    remaining = size
    while remaining > 0 and (piece := stream.read(remaining)):
        pieces.append(piece)
        remaining -= len(piece)
    if size - remaining < (size if at_least is None else at_least):
        raise EOFError("it ends in the middle")
    return b"".join(pieces)
