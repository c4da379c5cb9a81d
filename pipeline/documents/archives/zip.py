"""The members of a zip archive: its directory is read as a stream, each member at its offset.

The standard library's reader holds the whole directory in memory; this one holds one entry. Format: PKWARE APPNOTE 6.3.
"""

from __future__ import annotations

import io
import lzma
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, NoReturn

from pipeline.documents.archives.compression import Compression
from pipeline.documents.archives.members import Archive, Member
from pipeline.documents.archives.zip_member import LOCAL, METHODS, Place, open_member, read_exactly
from pipeline.errors import DocumentError

_TAIL = struct.Struct("<4s4H2LH")
_TAIL64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_MAX_COMMENT = 1 << 16
_MAX_TRAILING_BYTES = 1 << 20
_MAX_END_RECORDS = 1000
_BACKSLASHED = (0, 10, 11, 14)
"""Systems (FAT, two codes of NTFS, VFAT) on which a backslash separates the parts of a path."""
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800
_FULL = 0xFFFFFFFF


def zip_members(
    open_stream: Callable[[], BinaryIO],
    compression: Compression,  # noqa: ARG001 (a zip has its own)
    count_ignored: Callable[[str], None],
) -> Iterator[Member]:
    """Yield each file in the order of the directory, readable at any time; links and devices go to `count_ignored`."""
    with open_stream() as stream:
        start, end, shift, count, trailing = _directory(stream)
        if trailing:
            count_ignored("trailing bytes")
        stream.seek(start)
        packed_bytes = 0
        while stream.tell() < end:
            count -= 1
            name, mode, flags, place, stamp = _entry(stream, shift)
            packed_bytes += LOCAL.size + place.packed_bytes
            if packed_bytes > start:
                _broken("its members overlap: together they are larger than the archive")
            kind = stat.S_IFMT(mode)
            if name.endswith("/") or kind == stat.S_IFDIR:
                continue
            if kind not in (0, stat.S_IFREG):
                count_ignored("symlink" if kind == stat.S_IFLNK else "special")
                continue
            version = f"{place.size_bytes}-{place.crc:08x}-{stamp}"
            problem = _problem(flags, place.method)
            yield Member(name, place.size_bytes, partial(open_member, open_stream, place), version, problem=problem)
        if count % 65536:
            _broken("its directory does not hold as many entries as it says")


def _directory(stream: BinaryIO) -> tuple[int, int, int, int, bool]:
    """Return the directory: its start and end, the shift of all offsets by preceding data, and the entry count.

    The last value is True when bytes that do not belong to the archive follow it.
    """
    size = stream.seek(0, io.SEEK_END)
    for window in (_TAIL.size + _MAX_COMMENT, _MAX_TRAILING_BYTES):
        directory = _directory_in(stream, max(0, size - window), size)
        if directory is not None:
            return directory
    raise DocumentError("document_unreadable", "the archive is broken: it has no directory at its end")


def _directory_in(stream: BinaryIO, at: int, size: int) -> tuple[int, int, int, int, bool] | None:
    """Return the directory whose end record begins at this offset or after it."""
    stream.seek(at)
    tail = read_exactly(stream, size - at)
    # the comment, which may look like a record, ends with the file: a record that fits in this way is the one
    for exact in (True, False):
        for position in _end_records(tail, exact=exact):
            directory = _described(stream, tail, at, position)
            if directory is not None:
                end = position + _TAIL.size + int.from_bytes(tail[position + 20 : position + 22], "little")
                return *directory, bool(tail[end:].strip(b"\0"))
    return None


def _end_records(tail: bytes, *, exact: bool) -> Iterator[int]:
    """Yield positions of possible end records, the last one first; `exact`: those whose comment ends with the file."""
    position = tail.rfind(b"PK\5\6", 0, len(tail) - _TAIL.size + 4)
    for _ in range(_MAX_END_RECORDS):
        if position < 0:
            return
        end = position + _TAIL.size + int.from_bytes(tail[position + 20 : position + 22], "little")
        if end == len(tail) if exact else end < len(tail):
            yield position
        position = tail.rfind(b"PK\5\6", 0, position + 3)


def _described(stream: BinaryIO, tail: bytes, at: int, position: int) -> tuple[int, int, int, int] | None:
    """Return start, end, shift and entry count of the directory before an end record; None when there is none."""
    end = at + position
    _, disk, _, _, count, bytes_, offset, _ = _TAIL.unpack_from(tail, position)
    if disk not in (0, 0xFFFF):
        _broken("it is one of several parts")
    if count == 0xFFFF or _FULL in (bytes_, offset):
        end, count, bytes_, offset = _directory64(stream, end) or (end, count, bytes_, offset)
    start = end - bytes_
    if start < 0 or offset > start:
        _broken("its directory is not where it says")
    stream.seek(start)
    if bytes_ and stream.read(4) != b"PK\1\2":
        return None
    return start, end, start - offset, count


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


def _entry(stream: BinaryIO, shift: int) -> tuple[str, int, int, Place, str]:
    """Return name, mode, flags, place and time of the next entry of the directory."""
    fixed = read_exactly(stream, _ENTRY.size)
    values = _ENTRY.unpack(fixed)
    if values[0] != b"PK\1\2":
        _broken("its directory is damaged")
    made_by, flags, method, time, date, crc = values[2], *values[5:10]
    packed, size, name_len, extra_len, comment_len = values[10:15]
    mode = values[17] >> 16
    offset = values[18]
    raw = read_exactly(stream, name_len)
    extra = read_exactly(stream, extra_len)
    stream.seek(comment_len, io.SEEK_CUR)
    size, packed, offset = _large(extra, size, packed, offset)
    place = Place(offset + shift, LOCAL.size + name_len + extra_len, packed, size, crc, method, flags)
    name = _name(raw, flags)
    name = name.replace("\\", "/") if made_by in _BACKSLASHED else name
    return name, mode if made_by == 3 else 0, flags, place, f"{date:04x}{time:04x}"


def _large(extra: bytes, *values: int) -> tuple[int, int, int]:
    """Return size, packed size and offset; take a value from the zip64 field where the entry has the maximum value."""
    at = 0
    wide = b""
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    wide_values = iter(struct.unpack(f"<{len(wide) // 8}Q", wide[: len(wide) // 8 * 8]))
    size, packed, offset = (next(wide_values, value) if value == _FULL else value for value in values)
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
    if method not in METHODS:
        need = ", ".join(map(str, METHODS))
        return DocumentError("document_unreadable", f"it is packed by method {method} of zip, need one of {need}")
    return None


def _broken(reason: str) -> NoReturn:
    raise DocumentError("document_unreadable", f"the archive is broken: {reason}")


_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, struct.error)

ZIP = Archive(zip_members, _DAMAGE, compressed=False)
