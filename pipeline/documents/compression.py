"""Compressed files as streams of their content.

It must not read more than requested: the caller applies limits.
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
    """A compression: its suffix, the function that opens a stream, and the exceptions for a damaged file."""

    suffix: str
    open: Callable[[BinaryIO], BinaryIO]
    damage: tuple[type[Exception], ...]


def _open_gzip(stream: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Gunzipped(stream), _BUFFER_BYTES)


class _Gunzipped(io.RawIOBase):
    """An unpacked stream that returns all bytes before a damage before it raises."""

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
"""Compressions by lower-case suffix."""


def split_compression(name: str) -> tuple[str, Compression]:
    """Return the name without the suffix of a compression, and the compression (PLAIN for none)."""
    if name.lower().endswith(".tgz"):
        return name[:-4] + ".tar", COMPRESSIONS[".gz"]
    for suffix, compression in COMPRESSIONS.items():
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], compression
    return name, PLAIN


def read_limited(stream: BinaryIO, limit_bytes: int) -> bytes | None:
    """Read the whole stream; None when it is larger than the limit, beyond which at most one byte is unpacked."""
    chunks: list[bytes] = []
    left = limit_bytes + 1
    while left > 0 and (chunk := stream.read(min(left, _BUFFER_BYTES))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks) if left > 0 else None
