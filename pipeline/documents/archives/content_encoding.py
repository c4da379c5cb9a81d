"""The content of an HTTP response without its compression, with a size limit.

It must not fail for a body that is not compressed in spite of its header: crawlers store such bodies.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping

from pipeline.documents.archives.zstd import ZstdError, open_zstd
from pipeline.documents.foreign import MISHAPS

_DAMAGE: tuple[type[Exception], ...] = (*MISHAPS, ZstdError)

Unpacked = tuple[bytes, bool]
"""The content, and whether it is complete."""


def unpacked(data: bytes, encoding: str, limit_bytes: int) -> Unpacked | None:
    """Return the content, at most one byte over the limit; None for an unknown encoding."""
    unpack = _UNPACKERS.get(encoding.strip().lower())
    if unpack is None:
        return None
    try:
        return unpack(data, limit_bytes + 1)
    except _DAMAGE:
        return data[: limit_bytes + 1], True


def _plain(data: bytes, size: int) -> Unpacked:
    return data[:size], True


def _inflated(data: bytes, size: int, *, window_bits: int = 32 + zlib.MAX_WBITS) -> Unpacked:
    """Undo gzip and zlib, by their headers."""
    inflate = zlib.decompressobj(window_bits)
    content = inflate.decompress(data, size)
    return content, inflate.eof or len(content) >= size


def _deflated(data: bytes, size: int) -> Unpacked:
    """Undo `deflate`, which some servers send without the header of zlib."""
    try:
        return _inflated(data, size)
    except zlib.error:
        return _inflated(data, size, window_bits=-zlib.MAX_WBITS)


def _brotli(data: bytes, size: int) -> Unpacked:
    import brotli

    unpacker = brotli.Decompressor()
    try:
        content: bytes = unpacker.process(data, output_buffer_limit=size)
        while (
            len(content) < size
            and not unpacker.is_finished()
            and (next_content := unpacker.process(b"", output_buffer_limit=size))
        ):
            content += next_content
    except brotli.error as cause:
        raise ValueError("no brotli") from cause
    return content[:size], unpacker.is_finished() or len(content) >= size


def _zstd(data: bytes, size: int) -> Unpacked:
    with open_zstd(io.BytesIO(data)) as stream:
        content = stream.read(size)
    return content, True


_UNPACKERS: Mapping[str, Callable[[bytes, int], Unpacked]] = {
    "": _plain,
    "identity": _plain,
    "none": _plain,
    "utf-8": _plain,
    "gzip": _inflated,
    "x-gzip": _inflated,
    "deflate": _deflated,
    "br": _brotli,
    "zstd": _zstd,
}
"""The function that decodes each content encoding; some servers send a charset as one."""
