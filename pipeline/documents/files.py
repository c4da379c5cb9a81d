"""A file of a listing or a member of an archive, and the reading of files that are one document each.

It must not read more than a document may have.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from functools import partial
from pickle import PicklingError
from typing import BinaryIO, NamedTuple, cast

from pipeline.documents.archives.compression import PLAIN, Compression, read_limited
from pipeline.documents.containers import PeekedBytes, describe, too_large
from pipeline.errors import DocumentError
from pipeline.stores import (
    OwnTroubleError,
    StaleVersionError,
    StoredFile,
    is_trouble,
    open_file,
    open_newest,
    read_whole,
)

SMALL_BYTES = 1 << 16
"""A file of which all is read when only its beginning is looked at."""
KEPT_BYTES = 1 << 14
"""Most documents are smaller; all that wait for a worker are kept in memory."""
Damage = tuple[type[Exception], ...]


class ListedFile(NamedTuple):
    """A file of a listing, or a member of an archive.

    `relative` is its path below the root, valid Unicode, to which patterns and formats apply. `newest` opens the
    current file of that name. `damage`: the exceptions of opening and reading it. `passing`: it must be read before
    the next one is requested. `whole` reads all of it, if it has at most that many bytes (else None). `stored`: the
    file of a local folder, with which another process finds it.
    A tuple, as one is created for every file of a listing, in a quarter of the time of a dataclass.
    """

    relative: str
    id: str
    uri: str
    version: str | None
    size_bytes: int
    open: Callable[[], BinaryIO]
    newest: Callable[[], BinaryIO] | None = None
    damage: Damage = (OSError,)
    member: bool = False
    passing: bool = False
    whole: Callable[[int], bytes | None] | None = None
    stored: StoredFile | None = None

    def __reduce__(self) -> tuple[Callable[..., ListedFile], tuple[object, ...]]:
        """Pickle a file of a local folder by its path, for another process; PicklingError for any other file."""
        stored = self.stored
        if stored is None:
            raise PicklingError("only files of local folders are read by another process")
        identity = stored.identity or (0, 0)
        place = (stored.path, stored.relative, stored.size_bytes, stored.version, stored.root, stored.linked)
        return _sent_file, (self.relative, self.id, self.uri, *place, *identity)


class SmallFile:
    """A file whose beginning is looked at: all of a small one is read at once, in a third of the time of `open`.

    Its bytes are kept for its document, so that it is not opened twice.
    """

    def __init__(self, file: ListedFile) -> None:
        self._file = file
        self._data: bytes | None = None

    def open(self) -> BinaryIO:
        """Return a stream of the file."""
        file = self._file
        if file.whole is not None and file.size_bytes <= SMALL_BYTES:
            self._data = file.whole(SMALL_BYTES)
        if self._data is None:
            return file.open()
        return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", io.BytesIO(self._data))))

    def peeked(self, limit_bytes: int) -> PeekedBytes | None:
        """Return the bytes that were read; None where they are too many to keep, or more than a document may have."""
        if self._data is None or len(self._data) > min(KEPT_BYTES, limit_bytes):
            return None
        return PeekedBytes(self._data)


def _sent_file(
    relative: str,
    id: str,
    uri: str,
    path: str,
    below: str,
    size_bytes: int,
    version: str | None,
    root: str | None,
    linked: bool,
    *identity: int,
) -> ListedFile:
    """Return a file that another process has listed. Its reads do not wait for outages; that process repeats them."""
    file_identity = (identity[0], identity[1])
    stored = StoredFile(path, below, size_bytes, version, root, file_identity if any(file_identity) else None, linked)
    return ListedFile(
        relative,
        id,
        uri,
        version,
        size_bytes,
        partial(open_file, stored),
        partial(open_newest, stored),
        whole=partial(read_whole, stored),
        stored=stored,
    )


def read_file(file: ListedFile, *, compression: Compression, limit_bytes: int) -> bytes:
    """Return the file's bytes after decompression; DocumentError when they are unreadable or too many."""
    if not compression.suffix and file.size_bytes > limit_bytes:
        raise too_large(file.size_bytes, limit_bytes)
    try:
        data = _read_once(file, compression, limit_bytes)
    except (*file.damage, *compression.damage) as cause:
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            raise MemoryError from cause  # retried when no other document is in flight
        transient_errors = (PermissionError, OwnTroubleError, StaleVersionError)
        is_transient = isinstance(cause, transient_errors) or is_trouble(cause)
        raise DocumentError(
            "document_unreadable", f"cannot be read: {describe(cause)}", is_transient=is_transient
        ) from cause
    if data is None:
        raise too_large(None, limit_bytes)
    return data


def _read_once(file: ListedFile, compression: Compression, limit_bytes: int) -> bytes | None:
    """Return the bytes of the listed version, or of the current one if that no longer exists; None for too many."""
    try:
        if file.whole is not None and compression is PLAIN:
            return file.whole(limit_bytes)
        with file.open() as raw, compression.open(raw) as stream:
            return read_limited(stream, limit_bytes)
    except StaleVersionError:
        if file.newest is None:
            raise
    with file.newest() as raw, compression.open(raw) as stream:
        return read_limited(stream, limit_bytes)
