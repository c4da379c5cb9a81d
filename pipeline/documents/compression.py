"""Compressed files as streams of what is in them.

Nothing here reads more than is asked for: the limits are the caller's.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast

from pipeline.documents.zstd import ZstdError, open_zstd

_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Compression:
    """One way to compress: its suffix, what opens a stream of it, and what a damaged one raises."""

    suffix: str
    open: Callable[[BinaryIO], BinaryIO]
    damage: tuple[type[Exception], ...]


def _open_gzip(stream: BinaryIO) -> BinaryIO:
    unpacked = cast(io.RawIOBase, gzip.GzipFile(fileobj=stream, mode="rb"))
    return io.BufferedReader(unpacked, _BUFFER_BYTES)


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
