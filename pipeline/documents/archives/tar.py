"""The members of a tar archive, read as one stream.

It must only read forward, and must not hold more than MAX_HEADER_BYTES for a header.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, BinaryIO, cast

from pipeline.documents.archives.compression import PLAIN, Compression
from pipeline.documents.archives.members import Archive, Member
from pipeline.errors import DocumentError

MAX_HEADER_BYTES = 4 << 20
"""Limit of the headers of one member: extended headers, long names and sparse maps."""

MAX_LINK_BYTES = 64 << 30
"""Most bytes that are read again for the hard links of one archive."""

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


class _Links:
    """The hard links of an archive: each is read by opening the archive again, up to its target."""

    def __init__(self, open_stream: Callable[[], BinaryIO], compression: Compression) -> None:
        self._opened = open_stream
        self._compression = compression
        self._largest = 0
        self._members = 0
        self._cost_bytes = 0

    def count(self, info: tarfile.TarInfo) -> None:
        """Record a member that may be a target."""
        self._members += 1
        self._largest = max(self._largest, info.size)

    def member(self, info: tarfile.TarInfo) -> Member:
        """Return the target of a hard link as a member; its size is unknown before it is read."""
        passed = tarfile.BLOCKSIZE * self._members if self._compression is PLAIN else info.offset
        self._cost_bytes += passed + self._largest
        problem = None
        if self._cost_bytes > MAX_LINK_BYTES:
            message = f"the hard links of this archive take more than {MAX_LINK_BYTES} bytes of reading"
            problem = DocumentError("document_too_expensive", message)
        return Member(info.name, 0, partial(self._open, info.linkname, info.offset), problem=problem)

    def _open(self, target: str, end: int) -> BinaryIO:
        """Open the last member of this name before an offset."""
        place = None
        with self._opened() as raw, self._compression.open(raw) as stream, _reading(stream, self._compression) as tar:
            while (info := _next_member(tar, cast(_Forward, tar.fileobj))) is not None and info.offset < end:
                if info.isreg() and info.name == target and info.sparse is None:
                    place = (info.offset_data, info.size)
        if place is None:
            raise tarfile.ReadError("it is a hard link to a member that is not in the archive")
        with ExitStack() as until_made:
            raw = until_made.enter_context(self._opened())
            stream = until_made.enter_context(self._compression.open(raw))
            _Forward(stream, seekable=self._compression is PLAIN and stream.seekable()).seek(place[0])
            return io.BufferedReader(_Part(stream, place[1], until_made.pop_all()))


class _Part(io.RawIOBase):
    """The next bytes of a stream; closing it closes the stream."""

    def __init__(self, stream: BinaryIO, size: int, links: ExitStack) -> None:
        self._stream = stream
        self._left = size
        self._links = links

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._stream.read(min(len(buffer), self._left))
        if not data and self._left:
            raise tarfile.ReadError("it ends in the middle")
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._links.close()
        super().close()


def tar_members(
    open_stream: Callable[[], BinaryIO], compression: Compression, count_ignored: Callable[[str], None]
) -> Iterator[Member]:
    """Yield each regular file and hard link in archive order; count other links and devices as ignored."""
    links = _Links(open_stream, compression)
    with open_stream() as raw, compression.open(raw) as stream, _reading(stream, compression) as tar:
        while (info := _next_member(tar, cast(_Forward, tar.fileobj))) is not None:
            if info.isreg():
                links.count(info)
                yield Member(info.name, info.size, partial(_open, tar, info), passing=True)
            elif info.islnk():
                yield links.member(info)
            elif not info.isdir():
                count_ignored("symlink" if info.issym() else "special")


def _reading(stream: BinaryIO, compression: Compression) -> tarfile.TarFile:
    forward = _Forward(stream, seekable=compression is PLAIN and stream.seekable())
    return tarfile.TarFile(fileobj=cast(BinaryIO, forward), encoding="utf-8", errors="surrogateescape")


def _next_member(tar: tarfile.TarFile, forward: _Forward) -> tarfile.TarInfo | None:
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
