"""The members of a tar archive, read as one stream.

It goes forward only, and no header makes it hold more than MAX_HEADER_BYTES.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, cast

from pipeline.documents.compression import PLAIN, Compression
from pipeline.documents.members import Archive, Member

MAX_HEADER_BYTES = 4 << 20
"""Of one member: its extended headers, long names and maps of holes."""

_SKIP_BYTES = 1 << 18
_END = bytes(tarfile.BLOCKSIZE)


class _Forward:
    """A stream that is read in one direction. `last` is what was read last."""

    def __init__(self, stream: BinaryIO, *, seekable: bool) -> None:
        self._stream, self._seekable = stream, seekable
        self._at = 0
        self.last = b""
        self.header_left: int | None = MAX_HEADER_BYTES

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        """Passes over what lies between."""
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
    """Each file, in its place; folders are none, links and devices are told of."""
    with opened() as raw, compression.open(raw) as stream:
        forward = _Forward(stream, seekable=compression is PLAIN and stream.seekable())
        with tarfile.TarFile(fileobj=cast(BinaryIO, forward), encoding="utf-8", errors="surrogateescape") as tar:
            while (found := _next(tar, forward)) is not None:
                if found.isreg():
                    yield Member(found.name, found.size, partial(_open, tar, found), passing=True)
                elif not found.isdir():
                    ignored("symlink" if found.issym() or found.islnk() else "special")


def _next(tar: tarfile.TarFile, forward: _Forward) -> tarfile.TarInfo | None:
    """The next member, or None at the end mark; ReadError where the archive breaks off without one.

    The library takes a damaged header for the end, and remembers every member.
    """
    forward.header_left = MAX_HEADER_BYTES
    found = tar.next()
    forward.header_left = None
    cast(Any, tar).members.clear()
    if found is None and forward.last != _END:
        raise tarfile.ReadError("a damaged header" if forward.last else "it ends without an end mark")
    return found


def _open(tar: tarfile.TarFile, found: tarfile.TarInfo) -> BinaryIO:
    return cast(BinaryIO, tar.extractfile(found))


# the library's own mishaps with hostile headers, beside its errors
TAR = Archive(tar_members, (tarfile.TarError, ValueError, OverflowError, LookupError), compressed=True)
