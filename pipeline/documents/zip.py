"""The members of a zip archive: its directory is read as a stream, each member at its offset.

The standard library's reader holds the whole directory in memory; this one holds one entry. Format: PKWARE APPNOTE 6.3.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, NoReturn, cast

from pipeline.documents.compression import Compression
from pipeline.documents.members import Archive, Member
from pipeline.errors import DocumentError

_TAIL = struct.Struct("<4s4H2LH")
_TAIL64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 1 << 16
_STORED = 0
_DEFLATED = 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800
_CHUNK_BYTES = 1 << 18
_FULL = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Place:
    """The offset of a member, and its fields in the directory."""

    offset: int
    header_bytes: int
    packed_bytes: int
    size_bytes: int
    crc: int
    method: int


def zip_members(
    opened: Callable[[], BinaryIO],
    compression: Compression,  # noqa: ARG001 (a zip has its own)
    ignored: Callable[[str], None],
) -> Iterator[Member]:
    """Yield each file in the order of the directory, readable at any time; links and devices go to `ignored`."""
    with opened() as stream:
        start, end, shift, count = _directory(stream)
        stream.seek(start)
        packed_bytes = 0
        while stream.tell() < end:
            count -= 1
            name, mode, flags, place, stamp = _entry(stream, shift)
            packed_bytes += _LOCAL.size + place.packed_bytes
            if packed_bytes > start:
                _broken("its members overlap: together they are larger than the archive")
            kind = stat.S_IFMT(mode)
            if name.endswith("/") or kind == stat.S_IFDIR:
                continue
            if kind not in (0, stat.S_IFREG):
                ignored("symlink" if kind == stat.S_IFLNK else "special")
                continue
            version = f"{place.size_bytes}-{place.crc:08x}-{stamp}"
            problem = _problem(flags, place.method)
            yield Member(name, place.size_bytes, partial(_open, opened, place), version, problem=problem)
        if count % 65536:
            _broken("its directory does not hold as many entries as it says")


def _directory(stream: BinaryIO) -> tuple[int, int, int, int]:
    """Return start and end of the directory, the shift of all offsets by preceding data, and the entry count."""
    size = stream.seek(0, io.SEEK_END)
    at = max(0, size - _TAIL.size - _MAX_COMMENT)
    stream.seek(at)
    tail = stream.read(_TAIL.size + _MAX_COMMENT)
    position = _last_record(tail)
    end = at + position
    _, disk, _, _, count, bytes_, offset, _ = _TAIL.unpack_from(tail, position)
    if disk not in (0, 0xFFFF):
        _broken("it is one of several parts")
    if count == 0xFFFF or _FULL in (bytes_, offset):
        end, count, bytes_, offset = _directory64(stream, end) or (end, count, bytes_, offset)
    start = end - bytes_
    if start < 0 or offset > start:
        _broken("its directory is not where it says")
    return start, end, start - offset, count


def _last_record(tail: bytes) -> int:
    """Return the position of the end record: its comment, which may look like a record, ends with the file."""
    position = tail.rfind(b"PK\5\6", 0, len(tail) - _TAIL.size + 4)
    while position >= 0 and position + _TAIL.size + int.from_bytes(
        tail[position + 20 : position + 22], "little"
    ) != len(tail):
        position = tail.rfind(b"PK\5\6", 0, position + 3)
    if position < 0:
        _broken("it has no directory at its end")
    return position


def _directory64(stream: BinaryIO, end: int) -> tuple[int, int, int, int] | None:
    """Return end, entry count, size and offset of a zip64 directory; None when there is no such record."""
    stream.seek(max(0, end - _LOCATOR64.size))
    locator = stream.read(_LOCATOR64.size)
    if len(locator) < _LOCATOR64.size or not locator.startswith(b"PK\6\7"):
        return None
    at = end - _LOCATOR64.size - _TAIL64.size  # directly before the locator, also in a shifted archive
    stream.seek(max(0, at))
    record = stream.read(_TAIL64.size)
    if len(record) < _TAIL64.size or not record.startswith(b"PK\6\6"):
        _broken("its large directory is not where it says")
    *_, count, bytes_, offset = _TAIL64.unpack(record)
    return at, count, bytes_, offset


def _entry(stream: BinaryIO, shift: int) -> tuple[str, int, int, _Place, str]:
    """Return name, mode, flags, place and time of the next entry of the directory."""
    fixed = _read(stream, _ENTRY.size)
    values = _ENTRY.unpack(fixed)
    if values[0] != b"PK\1\2":
        _broken("its directory is damaged")
    made_by, flags, method, time, date, crc = values[2], *values[5:10]
    packed, size, name_len, extra_len, comment_len = values[10:15]
    mode = values[17] >> 16
    offset = values[18]
    raw = _read(stream, name_len)
    extra = _read(stream, extra_len)
    stream.seek(comment_len, io.SEEK_CUR)
    size, packed, offset = _large(extra, size, packed, offset)
    place = _Place(offset + shift, _LOCAL.size + name_len + extra_len, packed, size, crc, method)
    return _name(raw, flags), mode if made_by == 3 else 0, flags, place, f"{date:04x}{time:04x}"


def _large(extra: bytes, *values: int) -> tuple[int, int, int]:
    """Return size, packed size and offset; each of the maximum value is replaced from the zip64 field."""
    at = 0
    wide = b""
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    given = iter(struct.unpack(f"<{len(wide) // 8}Q", wide[: len(wide) // 8 * 8]))
    size, packed, offset = (next(given, value) if value == _FULL else value for value in values)
    return size, packed, offset


def _name(raw: bytes, flags: int) -> str:
    """Decode the name: as UTF-8 if it is valid or flagged as such, else as code page 437."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace") if flags & _UTF8 else raw.decode("cp437")


def _problem(flags: int, method: int) -> DocumentError | None:
    if flags & _ENCRYPTED:
        return DocumentError("document_unreadable", "it is encrypted, and needs a password")
    if method not in (_STORED, _DEFLATED):
        return DocumentError("document_unreadable", f"it is packed by method {method} of zip, need 0 or 8")
    return None


def _open(opened: Callable[[], BinaryIO], place: _Place) -> BinaryIO:
    with ExitStack() as until_made:
        stream = until_made.enter_context(opened())
        unpacked = io.BufferedReader(_Unpacked(stream, place), _CHUNK_BYTES)
        until_made.pop_all()
        return unpacked


class _Unpacked(io.RawIOBase):
    """A member's bytes, with its checksum verified at the end; OSError, EOFError or zlib.error when damaged."""

    def __init__(self, stream: BinaryIO, place: _Place) -> None:
        self._stream = stream
        self._place = place
        # unbuffered: a buffer would fetch more than requested, from an object store by the megabyte
        self._raw = cast(BinaryIO, getattr(stream, "raw", stream))
        self._left = place.packed_bytes
        self._crc = 0
        self._size = 0
        self._packed = b""
        self._unpack = zlib.decompressobj(-15) if place.method == _DEFLATED else None
        self._begin()

    def _begin(self) -> None:
        """Read the local header together with the first bytes: one request for a small member."""
        place = self._place
        self._raw.seek(place.offset)
        data = _read(self._raw, place.header_bytes + min(self._left, _CHUNK_BYTES), at_least=_LOCAL.size)
        values = _LOCAL.unpack_from(data)
        if values[0] != b"PK\3\4":
            raise OSError("there is no member where the directory says")
        self._raw.seek(place.offset)
        body = _LOCAL.size + values[9] + values[10]
        self._packed = data[body : body + self._left]
        self._left -= len(self._packed)
        self._raw.seek(place.offset + body + len(self._packed))

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        data = self._next(len(buffer))
        self._crc = zlib.crc32(data, self._crc)
        self._size = self._size + len(data)
        if not data and (self._crc != self._place.crc or self._size != self._place.size_bytes):
            raise OSError("its checksum or its size is not what the directory says")
        buffer[: len(data)] = data
        return len(data)

    def _next(self, most: int) -> bytes:
        """Return up to `most` bytes; empty at the end."""
        while True:
            if not self._packed and self._left:
                self._packed = _read(self._raw, min(self._left, _CHUNK_BYTES), at_least=1)
                self._left -= len(self._packed)
            if data := self._take(most):
                return data
            if self._unpack is not None and self._unpack.eof:
                return b""
            if not self._packed and not self._left:
                if self._unpack is not None:
                    raise EOFError("its packed bytes end in the middle")
                return b""

    def _take(self, most: int) -> bytes:
        if self._unpack is None:
            data = self._packed[:most]
            self._packed = self._packed[most:]
            return data
        data = self._unpack.decompress(self._packed, most)
        self._packed = self._unpack.unconsumed_tail
        return data


def _read(stream: BinaryIO, size: int, *, at_least: int | None = None) -> bytes:
    """Read up to `size` bytes; EOFError for fewer than `at_least` (default: `size`)."""
    pieces: list[bytes] = []
    left = size
    while left > 0 and (piece := stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if size - left < (size if at_least is None else at_least):
        raise EOFError("it ends in the middle")
    return b"".join(pieces)


def _broken(why: str) -> NoReturn:
    raise DocumentError("document_unreadable", f"the archive is broken: {why}")


ZIP = Archive(zip_members, (OSError, EOFError, zlib.error, ValueError, struct.error), compressed=False)
