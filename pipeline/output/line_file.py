"""An append-only file of lines that survives an outage of its file system.

It must not truncate a durable byte: another run may have appended it, and then this run has to stop.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import OutputError
from pipeline.output.lines import MAX_LINE_BYTES, check_length
from pipeline.stores import is_trouble, sync_folder
from pipeline.stores.local import FILE_MODE


class LineFile:
    """An append-only file of lines, for one thread.

    `append` passes a line to the kernel, and `sync` makes it durable. When one of them fails in an outage (EIO, ESTALE,
    EDQUOT, ...), the lines since the last `sync` stay in memory. The next `sync` reopens the file and writes them
    again: after a failed fsync the kernel may have dropped them, yet a second fsync would succeed.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        check_lock: Callable[[], None] = lambda: None,
    ) -> None:
        """Open or create the file; OutputError when that fails. An existing file must have been repaired.

        `check_lock` raises when this run no longer holds the output; it is called before the file is opened again.
        """
        self.path = path
        self.unsynced_since: float | None = None
        self.is_failing = False
        """True in an outage: the lines since the last `sync` may exist in memory only."""
        self._clock = clock
        self._check_lock = check_lock
        self._torn = False
        self._unsynced: list[bytes] = []
        try:
            is_new = not path.exists()
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, FILE_MODE)
            self._size = os.fstat(self._fd).st_size
            if is_new:
                sync_folder(path.parent)
        except OSError as exc:
            raise OutputError(f"{path}: cannot be opened for writing: {exc.strerror or exc}") from exc
        self._durable = self._size

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return self._size

    @property
    def unwritten(self) -> int:
        """The number of lines that may exist in memory only."""
        return len(self._unsynced) if self.is_failing else 0

    def append(self, line: bytes) -> None:
        """Write the whole line, which ends in LF; OutputError when that fails, and then no part of it remains.

        In an outage the line is kept for the next `sync`, which raises the error.
        """
        check_length(line, self.path)
        if self._torn:
            raise OutputError(f"{self.path}: ends in a partial line since an earlier write failed")
        if not self.is_failing:
            try:
                self._write(line)
            except OSError as exc:
                self._cut_back()
                if not is_trouble(exc):
                    reason = exc.strerror or exc
                    raise OutputError(f"{self.path}: a line of {len(line)} bytes was not written: {reason}") from exc
                self.is_failing = True
        self._unsynced.append(line)
        if self.unsynced_since is None:
            self.unsynced_since = self._clock()

    def append_all(self, lines: Sequence[bytes]) -> bool:
        """Write several lines in one call; return False when nothing of them is written, as one may not be written."""
        if self._torn or self.is_failing or any(len(line) > MAX_LINE_BYTES for line in lines):
            return False
        try:
            self._write(b"".join(lines))
        except OSError:
            self._cut_back()
            return False
        self._unsynced += lines
        if self.unsynced_since is None:
            self.unsynced_since = self._clock()
        return True

    def sync(self) -> None:
        """Make all appended lines durable; OutputError when that fails. In an outage it may be called again."""
        if self.unsynced_since is None or self._fd < 0:
            return
        try:
            if self.is_failing:
                self._resume()
            os.fsync(self._fd)
        except OSError as exc:
            self.is_failing = is_trouble(exc)
            raise OutputError(f"{self.path}: could not be made durable: {exc.strerror or exc}") from exc
        self.is_failing = self._torn = False
        self.unsynced_since = None
        self._unsynced.clear()
        self._durable = self._size

    def close(self) -> None:
        """Sync and close; a second call does nothing."""
        if self._fd < 0:
            return
        try:
            if not self.is_failing:
                self.sync()
        finally:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _write(self, line: bytes) -> None:
        remaining = memoryview(line)
        while remaining:
            remaining = remaining[os.write(self._fd, remaining) :]
        self._size += len(line)

    def _cut_back(self) -> None:
        """Remove a partial line; if even that fails, refuse further lines."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as exc:
            self._torn = not is_trouble(exc)

    def _resume(self) -> None:
        """Reopen the file, as a handle of a network file system may be stale, and repeat the unsynced lines.

        The lines overwrite their former copies: truncating the file first could lose lines that it still has.
        """
        self._check_lock()
        try:
            fd = os.open(self.path, os.O_WRONLY)
        except FileNotFoundError as exc:
            raise OSError(errno.ENODEV, "the file is not there; is the file system mounted?") from exc
        try:
            size = os.fstat(fd).st_size
            if size < self._durable:
                message = f"has {size} bytes after an outage, of {self._durable} that were durable"
                raise OutputError(f"{self.path}: {message}")
            end = self._durable
            for line in self._unsynced:
                _write_at(fd, line, end)
                end += len(line)
            os.ftruncate(fd, end)
            os.fsync(fd)
        finally:
            os.close(fd)
        appending = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        with suppress(OSError):
            os.close(self._fd)
        self._fd = appending
        self._size = end


def _write_at(fd: int, line: bytes, offset: int) -> None:
    remaining = memoryview(line)
    while remaining:
        written = os.pwrite(fd, remaining, offset)
        remaining = remaining[written:]
        offset += written
