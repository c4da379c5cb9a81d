"""Compressed files as streams of what is in them.

Nothing here reads more than is asked for: the limits are the caller's.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline.documents.zstd import ZstdError, open_zstd

_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Compression:
    """One way to compress: its suffix, what opens a stream of it, and what a damaged one raises."""

    suffix: str
    open: Callable[[BinaryIO], BinaryIO]
    damage: tuple[type[Exception], ...]


def _open_gzip(stream: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Gunzipped(stream), _BUFFER_BYTES)


class _Gunzipped(io.RawIOBase):
    """The unpacked stream, a piece at a time: what stands before a damage is given before it is told."""

    def __init__(self, stream: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=stream, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


PLAIN = Compression("", lambda stream: stream, (OSError,))

COMPRESSIONS: Mapping[str, Compression] = {
    ".gz": Compression(".gz", _open_gzip, (OSError, EOFError, zlib.error)),
    ".zst": Compression(".zst", open_zstd, (OSError, EOFError, ZstdError)),
}
"""By suffix, in lower case."""


def split_compression(name: str) -> tuple[str, Compression]:
    """The name without its compression's suffix, and the compression (PLAIN for none)."""
    if name.lower().endswith(".tgz"):
        return name[:-4] + ".tar", COMPRESSIONS[".gz"]
    for suffix, compression in COMPRESSIONS.items():
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], compression
    return name, PLAIN


def read_limited(stream: BinaryIO, limit_bytes: int) -> bytes | None:
    """All of the stream, or None when it holds more than the limit; no more than that is ever unpacked."""
    chunks: list[bytes] = []
    left = limit_bytes + 1
    while left > 0 and (chunk := stream.read(min(left, _BUFFER_BYTES))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks) if left > 0 else None
