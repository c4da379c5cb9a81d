"""A local folder: files are listed, opened and written here.

Nothing here knows what a document, a record or a setting is.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import OutputError, TryLaterError

SORTED_ENTRIES = 4096
"""A folder with more entries is listed in the order of the filesystem, so that work starts at once."""

RACY_S = 2.0
"""A file written so lately may change again within the grain of its mtime."""

HIDDEN = (".", "_")
"""What a name begins with that no pattern takes unless it says so."""

_BUFFER_BYTES = 1 << 18
_by_name = attrgetter("name")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a listing: where it is, its path below the root with `/`, its size, and its version.

    `path` may hold surrogates for bytes that are not UTF-8. `version` is None when it cannot be trusted.
    """

    path: str
    relative: str
    size_bytes: int
    version: str | None


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder in the walk; `real` is free of links, `linked` when a link led here."""

    path: str
    relative: str
    real: str
    linked: bool = False

    def child(self, name: str) -> _Folder:
        return _Folder(f"{self.path}/{name}", self.join(name), f"{self.real.rstrip('/')}/{name}", self.linked)

    def join(self, name: str) -> str:
        return f"{self.relative}/{name}" if self.relative else name


@dataclass(frozen=True, slots=True)
class _Rules:
    root: _Folder
    identity: tuple[int, int] | None
    enter: Callable[[str], bool]
    skip: str | None
    ignored: Callable[[str], None]
    clock: Callable[[], float]
    sort_up_to: int


def walk(
    root: Path,
    *,
    enter: Callable[[str], bool] = lambda _: True,
    skip: Path | None = None,
    ignored: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.time,
    sort_up_to: int = SORTED_ENTRIES,
) -> Iterator[StoredFile]:
    """The regular files below the root, depth first, by name, without holding the tree in memory.

    `enter` says by its relative path whether a folder is gone into; `skip` is a folder that never is.
    A link to a file counts when its target lies inside the root. A link to a folder is gone into only when
    its target lies inside and under a hidden name: what is not hidden is listed in its own place already.
    `ignored` is told "symlink" or "special" for each link and each fifo, socket or device passed over.
    A folder that cannot be listed raises TryLaterError.
    """
    path = os.fspath(root)
    top = _Folder(path, "", os.path.realpath(path))
    skipped = None if skip is None else os.path.realpath(skip)
    rules = _Rules(top, _identity(path), enter, skipped, ignored, clock, sort_up_to)
    stack = [(top, _scan(top, rules))]
    while stack:
        folder, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        try:
            found = _look(entry, folder, rules)
        except FileNotFoundError:
            continue
        except OSError as cause:
            raise _broke_off(entry.path, cause) from cause
        if isinstance(found, StoredFile):
            yield found
        elif found is not None:
            stack.append((found, _scan(found, rules)))


def _scan(folder: _Folder, rules: _Rules) -> Iterator[os.DirEntry[str]]:
    """The entries of one folder, by name unless there are too many to wait for."""
    try:
        with os.scandir(folder.path) as scan:
            first = list(islice(scan, rules.sort_up_to))
            more = next(scan, None)
            if more is not None:
                yield from chain(first, (more,), scan)
                return
    except OSError as cause:
        if isinstance(cause, FileNotFoundError) and rules.identity == _identity(rules.root.path) is not None:
            return  # removed meanwhile; were the whole tree gone (an unmounted disk), its root would be another
        raise _broke_off(folder.path, cause) from cause
    yield from sorted(first, key=_by_name)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _look(entry: os.DirEntry[str], folder: _Folder, rules: _Rules) -> StoredFile | _Folder | None:
    """The file, the folder to go into, or None for what is passed over."""
    if entry.is_symlink():
        return _look_behind(entry, folder, rules)
    if entry.is_file(follow_symlinks=False):
        found = entry.stat(follow_symlinks=False)
        return _stored(entry.path, folder.join(entry.name), status=found, now=rules.clock())
    if not entry.is_dir(follow_symlinks=False):
        rules.ignored("special")
        return None
    below = folder.child(entry.name)
    return below if below.real != rules.skip and rules.enter(below.relative) else None


def _look_behind(entry: os.DirEntry[str], folder: _Folder, rules: _Rules) -> StoredFile | _Folder | None:
    """What a link leads to, if that may be read."""
    try:
        found = _behind(entry, folder, rules)
    except OSError:  # it leads to itself, or where we may not look
        found = None
    if found is None:
        rules.ignored("symlink")
    return found


def _behind(entry: os.DirEntry[str], folder: _Folder, rules: _Rules) -> StoredFile | _Folder | None:
    real = os.path.realpath(entry.path)
    relative = folder.join(entry.name)
    if not _inside(real, rules.root.real) or (rules.skip and _inside(real, rules.skip)):
        return None
    if entry.is_file():
        return _stored(entry.path, relative, status=entry.stat(), now=rules.clock())
    away = entry.is_dir() and not folder.linked and _hidden(os.path.relpath(real, rules.root.real))
    return _Folder(entry.path, relative, real, linked=True) if away and rules.enter(relative) else None


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _hidden(relative: str) -> bool:
    return relative != "." and any(part.startswith(HIDDEN) for part in relative.split("/"))


def _broke_off(path: str, cause: OSError) -> TryLaterError:
    return TryLaterError(f"the listing broke off at {printable(path)}: {cause.strerror or cause}")


def find_file(path: Path, *, clock: Callable[[], float] = time.time) -> StoredFile | None:
    """The regular file at this path, under its own name, or None; OSError when that cannot be found out."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return _stored(os.fspath(path), path.name, status=status, now=clock())


def _stored(path: str, relative: str, *, status: os.stat_result, now: float) -> StoredFile:
    trusted = status.st_mtime < now - RACY_S
    version = f"{status.st_size}-{status.st_mtime_ns}" if trusted else None
    return StoredFile(path, relative, status.st_size, version)


def open_file(file: StoredFile) -> BinaryIO:
    """The open file; OSError when it is gone, may not be read, or is no regular file any more."""
    opened = open(file.path, "rb", buffering=_BUFFER_BYTES, opener=_open_at_once)  # noqa: SIM115
    if stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        return opened
    opened.close()
    raise OSError(errno.EINVAL, "not a regular file")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a fifo would block for ever


def printable(path: str) -> str:
    """The path as valid Unicode: bytes that are not UTF-8 become `\\xNN`."""
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Nothing; the file then holds all of the data, or, on any error, what it held before.

    A reader sees the old file or the new one; after a power cut too. OutputError names the path.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            _write_durably(beside, (data,) if isinstance(data, bytes) else data)
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
        sync_folder(path.parent)
    except OSError as cause:
        raise OutputError(f"cannot write {printable(str(path))}: {cause.strerror or cause}") from cause


def is_half_written(name: str) -> bool:
    """True for the name of what `write_atomic` leaves beside its file when it is killed."""
    return re.fullmatch(r"\..+\.[0-9a-f]{12}\.tmp", name) is not None


def _write_durably(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("xb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Nothing; the names in the folder are durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as cause:
        if cause.errno != errno.EINVAL:  # some network filesystems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
