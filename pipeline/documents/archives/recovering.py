"""Reading of a gzip file of many members, such as a web archive, with resumption after a damaged member.

It must not skip a damaged member silently: each one raises an error once.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from typing import Any, BinaryIO

from pipeline.documents.archives.compression import COMPRESSIONS, Compression

_MAGIC = b"\x1f\x8b\x08"
_PACKED_BYTES = 1 << 16


class DamagedPartError(OSError):
    """A member of the file is damaged; reading can continue after it. `begun`: a part of its content was read."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


def recovering(compression: Compression, *, starts: bytes) -> Compression:
    """Return gzip with resumption at the next member that begins with `starts`; other compressions unchanged."""
    if compression is not COMPRESSIONS[".gz"]:
        return compression
    return replace(compression, open=lambda stream: io.BufferedReader(_Members(stream, starts), 1 << 18))


class _Members(io.RawIOBase):
    """The content of the members, one after the other."""

    def __init__(self, stream: BinaryIO, starts: bytes) -> None:
        self._stream = stream
        self._starts = starts
        self._packed = b""
        self._inflate: Any = None
        self._ready = b""
        self._is_lost = False
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._ready:
            if self._inflate is None and not self._begin():
                return 0
            self._unpack(len(buffer))
        part = self._ready[: len(buffer)]
        self._ready = self._ready[len(part) :]
        buffer[: len(part)] = part
        return len(part)

    def _read_more(self) -> bool:
        chunk = self._stream.read(_PACKED_BYTES)
        self._packed += chunk
        return bool(chunk)

    def _begin(self) -> bool:
        """Begin the next member; return False at the end. After damage, skip to a member that begins with `starts`."""
        while self._is_lost:
            at = self._packed.find(_MAGIC)
            if at < 0:
                self._packed = self._packed[-2:]
                if not self._read_more():
                    return False
                continue
            self._packed = self._packed[at:]
            if self._is_member():
                self._is_lost = False
            else:
                self._packed = self._packed[1:]
        while len(self._packed) < len(_MAGIC) and self._read_more():
            self._packed = self._packed.lstrip(b"\0")
        if not self._packed:
            return False
        if not self._packed.startswith(_MAGIC):
            self._given = 0
            self._lose("no gzip member begins where one should")
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._given = 0
        return True

    def _is_member(self) -> bool:
        """Return True when a member begins here and its content begins with `starts`."""
        while len(self._packed) < 1024 and self._read_more():
            pass
        try:
            start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(self._packed, len(self._starts))
        except zlib.error:
            return False
        return start == self._starts

    def _unpack(self, size: int) -> None:
        if not self._packed and not self._read_more():
            raise EOFError("the compressed file ends in the middle")
        try:
            self._ready = self._inflate.decompress(self._packed, size)
        except zlib.error as cause:
            self._packed = self._packed[1:]
            self._lose(str(cause))
        self._given += len(self._ready)
        if self._inflate.eof:
            self._packed = self._inflate.unused_data
            self._inflate = None
        else:
            self._packed = self._inflate.unconsumed_tail

    def _lose(self, message: str) -> None:
        self._inflate = None
        self._is_lost = True
        raise DamagedPartError(f"a gzip member is damaged: {message}", begun=self._given > 0)
