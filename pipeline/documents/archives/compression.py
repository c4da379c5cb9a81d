"""Compressed files as streams of their content.

It must not read more than requested: the caller applies limits.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Protocol

from pipeline.documents.archives.zstd import ZstdError, open_zstd

_BUFFER_BYTES = 1 << 18
_PACKED_BYTES = 1 << 16
_MAX_WINDOW_BYTES = 128 << 20
"""Memory for the window of an xz or lzma stream; `xz -9`, the most that its tool uses by itself, needs 65 MiB."""


class Unpacker(Protocol):
    """The interface of `bz2.BZ2Decompressor` and `lzma.LZMADecompressor`: one stream of packed data."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Inflater:
    """zlib's decompressor with the interface of the other two."""

    def __init__(self, window_bits: int) -> None:
        self._inflate = zlib.decompressobj(window_bits)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max(max_length, 0))


def lzma_unpacker(format: int = lzma.FORMAT_AUTO) -> Unpacker:
    """Return a decompressor of xz or lzma data whose memory is bounded."""
    return lzma.LZMADecompressor(format, memlimit=_MAX_WINDOW_BYTES)


@dataclass(frozen=True, slots=True)
class Compression:
    """A compression: its suffix, the function that opens a stream, and the exceptions for a damaged file."""

    suffix: str
    open: Callable[[BinaryIO], BinaryIO]
    damage: tuple[type[Exception], ...]

    def __reduce__(self) -> tuple[Callable[[str], Compression], tuple[str]]:
        """Pickle the compression by its suffix, for an entry that goes to another process."""
        return compression_of, (self.suffix,)


class _Unpacked(io.RawIOBase):
    """The content of all packed streams of a file, one after the other.

    Bytes after the last packed stream are skipped, as the compression tools do. `trailing_bytes` is their number,
    without NUL bytes, which are padding.
    """

    def __init__(self, stream: BinaryIO, name: str, make: Callable[[], Unpacker], magic: bytes) -> None:
        self._stream = stream
        self._name = name
        self._make = make
        self._magic = magic
        self._unpacker = make()
        self._packed = b""
        self._begun = False
        self._ended = False
        self.trailing_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while True:
            if self._ended or (self._unpacker.eof and not self._next_stream()):
                return 0
            if not self._packed and self._unpacker.needs_input:
                self._packed = self._stream.read(_PACKED_BYTES)
                if not self._packed:
                    if not self._begun:
                        return 0
                    raise EOFError("the compressed file ends in the middle")
                if not self._begun and not self._packed.startswith(self._magic):
                    raise OSError(f"it is not a {self._name} file, or a damaged one")
                self._begun = True
            packed = self._packed
            self._packed = b""
            if data := self._unpacker.decompress(packed, len(buffer)):
                buffer[: len(data)] = data
                return len(data)

    def _next_stream(self) -> bool:
        """Begin the next packed stream; return False after the last one."""
        packed = self._unpacker.unused_data + self._packed
        self._packed = b""
        while not packed.strip(b"\0") and (next_packed := self._stream.read(_PACKED_BYTES)):
            packed = next_packed
        packed = packed.lstrip(b"\0")
        if len(packed) < len(self._magic):
            packed += self._stream.read(len(self._magic))
        if packed.startswith(self._magic):
            self._unpacker = self._make()
            self._packed = packed
            return True
        while packed:
            self.trailing_bytes += len(packed) - packed.count(0)
            packed = self._stream.read(_PACKED_BYTES)
        self._ended = True
        return False


def trailing_bytes(stream: BinaryIO) -> int:
    """Return the number of bytes after the packed data, once the stream has been read to its end."""
    return getattr(getattr(stream, "raw", None), "trailing_bytes", 0)


def _open(stream: BinaryIO, *, name: str, make: Callable[[], Unpacker], magic: bytes) -> BinaryIO:
    return io.BufferedReader(_Unpacked(stream, name, make, magic), _BUFFER_BYTES)


_gzip = partial(_open, name="gzip", make=partial(Inflater, 16 + zlib.MAX_WBITS), magic=b"\x1f\x8b")
_bzip2 = partial(_open, name="bzip2", make=bz2.BZ2Decompressor, magic=b"BZh")
_xz = partial(_open, name="xz", make=lzma_unpacker, magic=b"\xfd7zXZ\0")

PLAIN = Compression("", lambda stream: stream, (OSError,))

COMPRESSIONS: Mapping[str, Compression] = {
    ".gz": Compression(".gz", _gzip, (OSError, EOFError, zlib.error)),
    ".zst": Compression(".zst", open_zstd, (OSError, EOFError, ZstdError)),
    ".bz2": Compression(".bz2", _bzip2, (OSError, EOFError, ValueError)),
    ".xz": Compression(".xz", _xz, (OSError, EOFError, lzma.LZMAError)),
}
"""Compressions by lower-case suffix."""

_SHORT = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
"""The compressions of the short suffixes of tar archives."""


def compression_of(suffix: str) -> Compression:
    """Return the compression with this suffix (PLAIN for none)."""
    return COMPRESSIONS[suffix] if suffix else PLAIN


def may_be_compressed(suffix: str) -> bool:
    """Return True for the suffix of a compression, or a short one of a compressed tar archive."""
    return suffix in COMPRESSIONS or suffix in _SHORT


def split_compression(name: str) -> tuple[str, Compression]:
    """Return the name without the suffix of a compression, and the compression (PLAIN for none)."""
    dot = max(name.rfind("."), 0)
    suffix = name[dot:].lower()
    if suffix in _SHORT:
        return name[:dot] + ".tar", COMPRESSIONS[_SHORT[suffix]]
    if suffix in COMPRESSIONS:
        return name[:dot], COMPRESSIONS[suffix]
    return name, PLAIN


class NotedBytes(bytes):
    """The bytes of a document with notes on their decompression, and their encoding if the configuration names it."""

    notes: tuple[str, ...] = ()
    encoding: str | None = None

    @classmethod
    def of(cls, data: bytes, *notes: str) -> NotedBytes:
        """Return the bytes with these notes."""
        noted = cls(data)
        noted.notes = notes
        return noted


def read_limited(stream: BinaryIO, limit_bytes: int) -> bytes | None:
    """Read the whole stream; None when it is larger than the limit, beyond which at most one byte is unpacked."""
    chunks: list[bytes] = []
    remaining = limit_bytes + 1
    while remaining > 0 and (chunk := stream.read(min(remaining, _BUFFER_BYTES))):
        chunks.append(chunk)
        remaining -= len(chunk)
    if remaining <= 0:
        return None
    data = b"".join(chunks)
    junk = trailing_bytes(stream)
    return NotedBytes.of(data, f"trailing_bytes:{junk}") if junk else data
