"""Zstandard streams in bounded memory, with detection of truncated files.

It must not read ahead by more than a chunk.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from typing import Any, BinaryIO, cast

import zstandard

ZstdError = zstandard.ZstdError

MAX_RATIO = 5000
RATIO_FREE_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 17
_RLE = 1


def open_zstd(stream: BinaryIO) -> BinaryIO:
    """Open the unpacked stream; reading raises EOFError when truncated, OSError for a bomb, else ZstdError."""
    return io.BufferedReader(_Unpacked(stream), _CHUNK_BYTES)


class _Unpacked(io.RawIOBase):
    """The unpacked stream, with a ratio limit that also covers skipped data in an archive."""

    def __init__(self, stream: BinaryIO) -> None:
        self._packed = _Packed(stream)
        source = cast(BinaryIO, self._packed)
        self._reader = zstandard.ZstdDecompressor().stream_reader(source, _CHUNK_BYTES, read_across_frames=True)
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._reader.readinto(buffer)
        self._count += size
        if size == 0 and not self._packed.is_between_frames:
            raise EOFError("the compressed file ends in the middle")
        if self._count > RATIO_FREE_BYTES + MAX_RATIO * self._packed.count:
            raise OSError(f"it unpacks to more than {MAX_RATIO} times its size")
        return size


class _Packed(io.RawIOBase):
    """The packed stream, counted and tracked from frame to frame: the library accepts a truncated stream as complete.

    `is_between_frames` is True between two frames. The format: RFC 8878, section 3.1, tried with zstandard 0.25.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0
        self.is_between_frames = True
        self._follow = self._frames()
        self._need = next(self._follow)
        self._have = b""

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(_CHUNK_BYTES if size < 0 else size)
        self.count += len(data)
        at = 0
        while at < len(data):
            at += self._take(data, at)
        return data

    def _take(self, data: bytes, at: int) -> int:
        """Consume bytes of a header, or (with a negative need) of a body to skip; return their number."""
        self.is_between_frames = False
        if self._need < 0:
            used = min(-self._need, len(data) - at)
            self._need += used
            is_done = self._need == 0
        else:
            used = min(self._need - len(self._have), len(data) - at)
            self._have += data[at : at + used]
            is_done = len(self._have) == self._need
        if is_done:
            self._need = self._follow.send(self._have)
            self._have = b""
        return used

    def _frames(self) -> Generator[int, bytes, None]:
        """Yield the size of the next piece: positive for bytes to send back, negative for bytes to skip."""
        while True:
            self.is_between_frames = True
            magic = yield 4
            if magic[1:] == b"\x2a\x4d\x18":  # a skippable frame
                if size := int.from_bytes((yield 4), "little"):
                    yield -size
                continue
            descriptor = (yield 1)[0]
            yield -_rest_of_header(descriptor)
            last = 0
            while not last:
                header = int.from_bytes((yield 3), "little")
                last = header & 1
                kind = header >> 1 & 3
                size = header >> 3
                if size := 1 if kind == _RLE else size:
                    yield -size
            if descriptor & 4:
                yield -4


def _rest_of_header(descriptor: int) -> int:
    """Return the size of a frame header after its descriptor: window, dictionary, content size."""
    single = descriptor >> 5 & 1
    content = (single, 2, 4, 8)[descriptor >> 6]
    return (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content
