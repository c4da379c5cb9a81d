"""The members of a tar archive, read as one stream.

It must only read forward, and must not hold more than MAX_HEADER_BYTES for a header.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, cast

from pipeline.documents.compression import PLAIN, Compression
from pipeline.documents.members import Archive, Member

MAX_HEADER_BYTES = 4 << 20
"""Limit of the headers of one member: extended headers, long names and sparse maps."""

_SKIP_BYTES = 1 << 18
_END = bytes(tarfile.BLOCKSIZE)


class _Forward:
    """A stream that is only read forward. `last`: the bytes of the last read."""

    def __init__(self, stream: BinaryIO, *, seekable: bool) -> None:
        self._stream = stream
        self._seekable = seekable
        self._at = 0
        self.last = b""
        self.header_left: int | None = MAX_HEADER_BYTES

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        """Skip forward to a position."""
        if position < self._at:
            raise tarfile.ReadError("a header leads backwards")
        if self._seekable:
            self._at = self._stream.seek(position)
        while self._at < position:
            passed = self._stream.read(min(position - self._at, _SKIP_BYTES))
            if not passed:
                break
            self._at += len(passed)
        return self._at

    def read(self, size: int) -> bytes:
        if self.header_left is not None:
            self.header_left -= size
            if self.header_left < 0:
                raise tarfile.ReadError(f"a header is larger than {MAX_HEADER_BYTES} bytes")
        self.last = self._stream.read(size)
        self._at += len(self.last)
        return self.last


def tar_members(
    opened: Callable[[], BinaryIO], compression: Compression, ignored: Callable[[str], None]
) -> Iterator[Member]:
    """Yield each regular file in archive order; links and devices are reported to `ignored`."""
    with opened() as raw, compression.open(raw) as stream:
        forward = _Forward(stream, seekable=compression is PLAIN and stream.seekable())
        with tarfile.TarFile(fileobj=cast(BinaryIO, forward), encoding="utf-8", errors="surrogateescape") as tar:
            while (info := _next(tar, forward)) is not None:
                if info.isreg():
                    yield Member(info.name, info.size, partial(_open, tar, info), passing=True)
                elif not info.isdir():
                    ignored("symlink" if info.issym() or info.islnk() else "special")


def _next(tar: tarfile.TarFile, forward: _Forward) -> tarfile.TarInfo | None:
    """Return the next member, or None at the end mark; ReadError when the archive ends without one.

    The library mistakes a damaged header for the end, and keeps all members in memory.
    """
    forward.header_left = MAX_HEADER_BYTES
    info = tar.next()
    forward.header_left = None
    cast(Any, tar).members.clear()
    if info is None and forward.last != _END:
        raise tarfile.ReadError("a damaged header" if forward.last else "it ends without an end mark")
    return info


def _open(tar: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    return cast(BinaryIO, tar.extractfile(info))


# besides its own errors, the library raises these for hostile headers
TAR = Archive(tar_members, (tarfile.TarError, ValueError, OverflowError, LookupError), compressed=True)
