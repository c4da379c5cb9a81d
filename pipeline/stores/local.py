"""Listing and writing of files in a local folder.

It must not know documents, records or settings.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from pipeline.errors import OutputError, TryLaterError
from pipeline.stores.beneath import Identity, StoredFile, identity_of, is_inside, open_beneath
from pipeline.stores.folder_names import Attempt, at_once, folder_names

SORTED_ENTRIES = 4096
"""A folder with more entries is listed in filesystem order, so that work starts without waiting for the sort."""

RACY_S = 2.0
"""A file changed less than this ago may change again within the resolution of its mtime (2 s on FAT)."""

UPCOMING = 64
"""Names that are announced together; it divides READ_TOGETHER, so that none of them waits for the next ones."""

HIDDEN = (".", "_")
"""Prefixes of names that a pattern matches only when it names them itself."""

FILE_MODE = 0o640
FOLDER_MODE = 0o750
"""Modes of new output files and folders: records contain text of documents. A stricter umask applies."""

_SCANNED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder in the walk, or an entry of one; `real` is free of links, `linked` when a link led here."""

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
    identity: Identity | None
    enter: Callable[[str], bool]
    skip: str | None
    ignored: Callable[[str], None]
    clock: Callable[[], float]
    sort_up_to: int
    attempt: Attempt
    upcoming: Callable[[list[str]], object]


def walk(
    root: Path,
    *,
    enter: Callable[[str], bool] = lambda _: True,
    skip: Path | None = None,
    count_ignored: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.time,
    sort_up_to: int = SORTED_ENTRIES,
    attempt: Attempt = at_once,
    upcoming: Callable[[list[str]], object] = lambda _: None,
) -> Iterator[StoredFile]:
    """Yield the regular files below the root, depth first, sorted by name, without holding the tree in memory.

    `enter(relative path)` decides whether a folder is entered; the folder `skip` never is.
    A link to a file counts when its target is inside the root. A link to a folder is entered only when its
    target is inside the root and hidden: a visible target is listed at its own place already.
    `count_ignored` is called with "symlink" or "special" for each skipped link and each fifo, socket or device.
    A folder that cannot be listed raises TryLaterError. `attempt` may repeat each step that fails. `upcoming` is called
    with the relative paths of the next UPCOMING names of a folder, before the first of them is inspected.
    """
    path = os.fspath(root)
    top = _Folder(path, "", os.path.realpath(path))
    skipped = None if skip is None else os.path.realpath(skip)
    rules = _Rules(top, _identity(path), enter, skipped, count_ignored, clock, sort_up_to, attempt, upcoming)
    stack = [(top, _scan(top, rules))]
    while stack:
        folder, names = stack[-1]
        name = next(names, None)
        if name is None:
            stack.pop()
            continue
        try:
            entry = attempt(partial(_classify, name, folder, rules))
        except OSError as cause:
            if _was_removed(cause, rules):
                continue
            raise _interrupted(f"{folder.path}/{name}", cause) from cause
        if isinstance(entry, StoredFile):
            yield entry
        elif entry is not None:
            stack.append((entry, _scan(entry, rules)))


def _scan(folder: _Folder, rules: _Rules) -> Iterator[str]:
    """Yield the names in one folder, sorted unless there are more than `sort_up_to`."""
    try:
        names = folder_names(
            lambda: _open_folder(folder, rules.root), sort_up_to=rules.sort_up_to, attempt=rules.attempt
        )
        while next_names := list(islice(names, UPCOMING)):
            rules.upcoming([folder.join(name) for name in next_names])
            yield from next_names
    except OSError as cause:
        if cause.errno == errno.ELOOP:
            rules.ignored("symlink")
        elif not _was_removed(cause, rules):
            raise _interrupted(folder.path, cause) from cause


def _was_removed(cause: OSError, rules: _Rules) -> bool:
    """Return True when only this entry was removed; after an unmount of the whole tree the root's identity differs."""
    return isinstance(cause, FileNotFoundError) and rules.identity == _identity(rules.root.path) is not None


def _open_folder(folder: _Folder, root: _Folder) -> int:
    """Open the folder without following a link below the root; return its descriptor."""
    if folder is root:
        return os.open(root.path, _SCANNED)
    return open_beneath(root.real, os.path.relpath(folder.real, root.real), _SCANNED)


def _identity(path: str) -> Identity | None:
    try:
        return identity_of(os.stat(path))  # noqa: PTH116
    except OSError:
        return None


def _classify(name: str, folder: _Folder, rules: _Rules) -> StoredFile | _Folder | None:
    """Return the file, the folder to enter, or None for an entry to skip."""
    path = f"{folder.path}/{name}"
    status = os.stat(path, follow_symlinks=False)  # noqa: PTH116
    if stat.S_ISREG(status.st_mode):
        return _stored(path, folder.join(name), status=status, rules=rules, linked=folder.linked)
    below = folder.child(name)
    if stat.S_ISLNK(status.st_mode):
        return _link_target(below, rules)
    if not stat.S_ISDIR(status.st_mode):
        rules.ignored("special")
        return None
    return below if below.real != rules.skip and rules.enter(below.relative) else None


def _link_target(link: _Folder, rules: _Rules) -> StoredFile | _Folder | None:
    """Return the target of a link, if it may be read."""
    try:
        target = _target_of(link, rules)
    except OSError:  # a cyclic link, or an unreadable target
        target = None
    if target is None:
        rules.ignored("symlink")
    return target


def _target_of(link: _Folder, rules: _Rules) -> StoredFile | _Folder | None:
    real = os.path.realpath(link.path)
    if not is_inside(real, rules.root.real) or (rules.skip and is_inside(real, rules.skip)):
        return None
    target = replace(link, real=real, linked=True)
    status = os.stat(link.path)  # noqa: PTH116
    if stat.S_ISREG(status.st_mode):
        return _stored(target.path, target.relative, status=status, rules=rules, linked=True)
    away = stat.S_ISDIR(status.st_mode) and not link.linked and _is_hidden(os.path.relpath(real, rules.root.real))
    return target if away and rules.enter(link.relative) else None


def _is_hidden(relative: str) -> bool:
    return relative != "." and any(part.startswith(HIDDEN) for part in relative.split("/"))


def _interrupted(path: str, cause: OSError) -> TryLaterError:
    return TryLaterError(f"the listing was interrupted at {printable(path)}: {cause.strerror or cause}")


def find_file(path: Path, *, clock: Callable[[], float] = time.time) -> StoredFile | None:
    """Return the regular file at this path, or None; OSError when that cannot be determined."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    root = os.path.dirname(os.path.realpath(path))  # noqa: PTH120
    version = version_of(status, clock())
    identity = identity_of(status)
    return StoredFile(os.fspath(path), path.name, status.st_size, version, root, identity, linked=True)


def _stored(path: str, relative: str, *, status: os.stat_result, rules: _Rules, linked: bool) -> StoredFile:
    version = version_of(status, rules.clock())
    return StoredFile(path, relative, status.st_size, version, rules.root.real, identity_of(status), linked)


def version_of(status: os.stat_result, now: float) -> str | None:
    """Return size and mtime as a version; None when the file may change again within the mtime's resolution."""
    return f"{status.st_size}-{status.st_mtime_ns}" if status.st_mtime < now - RACY_S else None


def printable(path: str) -> str:
    """Return the path as valid Unicode: bytes that are not UTF-8 become `\\xNN`."""
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a whole file atomically: on any error it keeps its previous content.

    A reader sees the old content or the new, also after a power cut. OutputError names the path.
    """
    try:
        try:
            _write_beside(path, data)
        except FileNotFoundError:
            # a starting run has removed the temporary file as a leftover; it does that once, so a second try succeeds
            if not isinstance(data, bytes):
                raise
            _write_beside(path, data)
        sync_folder(path.parent)
    except OSError as cause:
        raise OutputError(f"cannot write {printable(str(path))}: {cause.strerror or cause}") from cause


def _write_beside(path: Path, data: bytes | Iterable[bytes]) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        _write_durably(beside, (data,) if isinstance(data, bytes) else data)
        beside.replace(path)
    except BaseException:  # an interrupt too must not leave the temporary file
        with suppress(OSError):
            beside.unlink()
        raise


def is_half_written(name: str) -> bool:
    """Return whether this is the name of a temporary file of a killed `write_atomic`."""
    return re.fullmatch(r"\..+\.[0-9a-f]{12}\.tmp", name) is not None


def _write_durably(path: Path, chunks: Iterable[bytes]) -> None:
    with open(path, "xb", opener=_opener) as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def temporary_folder() -> str:
    """Return the folder of temporary files for a message, even when no file can be created or opened."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return os.environ.get("TMPDIR", "/tmp")


def sync_folder(folder: Path) -> None:
    """Make the names in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as cause:
        if cause.errno != errno.EINVAL:  # some network filesystems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
