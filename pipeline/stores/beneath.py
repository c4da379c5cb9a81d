"""Opening of files below a folder so that no link leads out of it, with a check against the listing.

A path is checked when it is listed and opened later; a link created in between could lead anywhere. So the root and
each component below it are opened separately, relative to the previous one, and are refused when they are links. A link
that the listing allowed is resolved again and its target is opened in the same way.

It must not list files or apply patterns: `local.py` decides which files and links count.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO, NamedTuple

_BUFFER_BYTES = 1 << 18
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)  # macOS has no O_PATH
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a fifo would block forever

Identity = tuple[int, int]
"""Device and inode."""


class StaleVersionError(OSError):
    """The file or object does not have the requested version."""


class StoredFile(NamedTuple):
    """A file of a listing: its path, its path below the root with `/`, its size, and its version.

    `path` may hold surrogates for bytes that are not UTF-8. `version` is None when it cannot be trusted. `root` is the
    listed folder, free of links; None for an object of a store. `linked`: links lead from the root to the file.
    A tuple, as one is created for every file of a listing, in a quarter of the time of a dataclass.
    """

    path: str
    relative: str
    size_bytes: int
    version: str | None
    root: str | None = None
    identity: Identity | None = None
    linked: bool = False


def open_file(file: StoredFile) -> BinaryIO:
    """Open the listed file for reading.

    Raise StaleVersionError when another file has its name; OSError when it does not exist, is not regular, may not
    be read, or is reached through a link that the listing did not have.
    """
    stream = open_newest(file)
    if file.identity is None or identity_of(os.fstat(stream.fileno())) == file.identity:
        return stream
    stream.close()
    raise StaleVersionError(errno.ESTALE, "is no longer the file that was listed")


def open_newest(file: StoredFile) -> BinaryIO:
    """Open the file that now has the listed file's name; OSError as for `open_file`."""
    stream = os.fdopen(_descriptor(file), "rb", buffering=_BUFFER_BYTES)
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise OSError(errno.EINVAL, "not a regular file")


def read_whole(file: StoredFile, limit_bytes: int) -> bytes | None:
    """Return all bytes of the listed file, without a buffer for them; None when they are more than the limit.

    Errors as for `open_file`.
    """
    descriptor = _descriptor(file)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if file.identity is not None and identity_of(status) != file.identity:
            raise StaleVersionError(errno.ESTALE, "is no longer the file that was listed")
        if status.st_size > limit_bytes:
            return None
        data = os.read(descriptor, status.st_size + 1)
        if len(data) == status.st_size:  # one byte more was requested, so this is the end
            return data
        data += _rest(descriptor, limit_bytes + 1 - len(data))
        return data if len(data) <= limit_bytes else None
    finally:
        os.close(descriptor)


def _rest(descriptor: int, limit_bytes: int) -> bytes:
    """Return the remaining bytes of a file whose size has changed, at most `limit_bytes`."""
    parts: list[bytes] = []
    while limit_bytes > 0 and (part := os.read(descriptor, min(limit_bytes, _BUFFER_BYTES))):
        parts.append(part)
        limit_bytes -= len(part)
    return b"".join(parts)


def _descriptor(file: StoredFile) -> int:
    if file.root is None:
        return os.open(file.path, _FILE)
    if not file.linked:
        return open_beneath(file.root, file.relative, _FILE)
    real = os.path.realpath(file.path)
    if not is_inside(real, file.root):
        raise OSError(errno.ELOOP, "a link leads out of the input")
    return open_beneath(file.root, os.path.relpath(real, file.root), _FILE)


def open_beneath(root: str, relative: str, flags: int) -> int:
    """Open a path below the root and return its descriptor; OSError (ELOOP) when a component of it is a link.

    `root` is free of links. A root that has become a link counts as removed, like an unmounted folder (ESTALE).
    """
    *folders, name = relative.split("/")
    try:
        above = os.open(root, _FOLDER | os.O_NOFOLLOW)
    except OSError as cause:
        if os.path.islink(root):  # noqa: PTH114
            raise OSError(errno.ESTALE, "the folder has become a link since it was listed") from cause
        raise
    try:
        for folder in folders:
            below = _open_no_link(folder, _FOLDER, above)
            os.close(above)
            above = below
        return _open_no_link(name, flags, above)
    finally:
        os.close(above)


def _open_no_link(name: str, flags: int, folder: int) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as cause:
        # systems differ in their error for a link: ELOOP, ENOTDIR, EMLINK
        if cause.errno != errno.ENOENT and _is_link(name, folder):
            raise OSError(errno.ELOOP, "is a link, which the listing did not find") from cause
        raise


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def identity_of(status: os.stat_result) -> Identity:
    """Return the device and the inode of a file."""
    return status.st_dev, status.st_ino


def is_inside(path: str, folder: str) -> bool:
    """Return whether the path is the folder or below it; both must be free of links."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
