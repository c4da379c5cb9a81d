"""Zstandard streams that are read in bounded memory, and that know a cut file from a whole one.

Nothing here reads ahead of what is asked for by more than a chunk.
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
    """What is in the stream; reading raises EOFError when it was cut, OSError when it is a bomb, else ZstdError."""
    return io.BufferedReader(_Unpacked(stream), _CHUNK_BYTES)


class _Unpacked(io.RawIOBase):
    """The unpacked stream. No document is that large, but what is passed over in an archive has no limit but this."""

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
        if size == 0 and not self._packed.whole:
            raise EOFError("the compressed file ends in the middle")
        if self._count > RATIO_FREE_BYTES + MAX_RATIO * self._packed.count:
            raise OSError(f"it unpacks to more than {MAX_RATIO} times its size")
        return size


class _Packed(io.RawIOBase):
    """The packed stream, counted, and followed from frame to frame: the library takes a cut one for whole.

    `whole` is True between two frames. The format: RFC 8878, section 3.1, tried with zstandard 0.25.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count, self.whole = 0, True
        self._follow = self._frames()
        self._need, self._have = next(self._follow), b""

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(_CHUNK_BYTES if size < 0 else size)
        self.count += len(data)
        at = 0
        while at < len(data):
            at += self._take(data, at)
        return data

    def _take(self, data: bytes, at: int) -> int:
        """The number of bytes used: of a header to be read, or (with a negative need) of a body to be passed over."""
        self.whole = False
        if self._need < 0:
            used = min(-self._need, len(data) - at)
            self._need += used
            done = self._need == 0
        else:
            used = min(self._need - len(self._have), len(data) - at)
            self._have += data[at : at + used]
            done = len(self._have) == self._need
        if done:
            self._need, self._have = self._follow.send(self._have), b""
        return used

    def _frames(self) -> Generator[int, bytes, None]:
        """How many bytes come next: a positive number is to be sent back, a negative one passed over."""
        while True:
            self.whole = True
            magic = yield 4
            if magic[1:] == b"\x2a\x4d\x18":  # a frame of something else
                if size := int.from_bytes((yield 4), "little"):
                    yield -size
                continue
            descriptor = (yield 1)[0]
            yield -_rest_of_header(descriptor)
            last = 0
            while not last:
                header = int.from_bytes((yield 3), "little")
                last, kind, size = header & 1, header >> 1 & 3, header >> 3
                if size := 1 if kind == _RLE else size:
                    yield -size
            if descriptor & 4:
                yield -4


def _rest_of_header(descriptor: int) -> int:
    """The bytes of a frame's header after its descriptor: window, dictionary, size of the content."""
    single = descriptor >> 5 & 1
    content = (single, 2, 4, 8)[descriptor >> 6]
    return (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content
