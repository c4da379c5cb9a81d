"""Writing of a gold file: append lines under a lock, and remove documents.

Every writer holds `flock` on the file, so that two reviewers, an import and `purge` can share it. It must not check the
content of a line: gold.py does.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, OutputError
from pipeline.stores.local import FILE_MODE

_PIECE = 1 << 16


def append_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Append the lines with one write and sync them to disk; OutputError when they cannot be written.

    The file is created if it does not exist. A truncated last line is moved to GOLD.torn first.
    """
    data = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    try:
        is_new = not path.exists()
        with _locked(path, os.O_RDWR | os.O_CREAT) as descriptor:
            _mend(descriptor, path)
            _append(descriptor, data.encode("utf-8", "backslashreplace"))
        if is_new:
            _sync_folder(path.parent)
    except OSError as exc:
        raise OutputError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def remove_documents(path: Path, is_removed: Callable[[str, str], bool]) -> int:
    """Replace the file by one without the lines for which `is_removed` returns True (document id, time of judgement).

    Return the number of removed lines. ConfigError when the file cannot be read, OutputError when it cannot be written.
    """
    try:
        with _locked(path, os.O_RDONLY):
            lines = path.read_bytes().splitlines(keepends=True)
            remaining = [line for line in lines if not _names(line, is_removed)]
            if len(remaining) < len(lines):
                _replace(path, remaining)
            # a truncated line may be of any document, also of a removed one
            _torn_lines_path(path).unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(f"--gold: {path} cannot be read: {exc.strerror or exc}") from exc
    return len(lines) - len(remaining)


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    """Yield a descriptor of the file with the exclusive lock; reopen a file that was replaced in the meantime."""
    while True:
        descriptor = os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_current(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_current(descriptor: int, path: Path) -> bool:
    opened_status = os.fstat(descriptor)
    try:
        present_status = path.stat()
    except FileNotFoundError:
        return False
    return (opened_status.st_dev, opened_status.st_ino) == (present_status.st_dev, present_status.st_ino)


def _mend(descriptor: int, path: Path) -> None:
    """Move the bytes after the last LF to GOLD.torn: the line that a killed writer did not finish.

    A complete last object gets an LF instead, because some editors do not write one.
    """
    size = os.fstat(descriptor).st_size
    start = _end_of_lines(descriptor, size)
    if start == size:
        return
    last_bytes = os.pread(descriptor, size - start, start)
    if _is_whole(last_bytes):
        _append(descriptor, b"\n")
        return
    with _torn_lines_path(path).open("ab") as torn:
        torn.write(last_bytes + b"\n")
        torn.flush()
        os.fsync(torn.fileno())
    os.ftruncate(descriptor, start)


def _torn_lines_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.torn")


def _is_whole(line: bytes) -> bool:
    """Return True for a complete object (a truncated one is not JSON) and for white space."""
    try:
        return not line.strip() or isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _end_of_lines(descriptor: int, size: int) -> int:
    """Return the offset after the last LF; 0 without any."""
    end = size
    while end > 0:
        start = max(0, end - _PIECE)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _append(descriptor: int, data: bytes) -> None:
    """Write all bytes at the end and sync them; truncate the file to its former size when a write fails."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    try:
        size_written = 0
        while size_written < len(data):
            size_written += os.write(descriptor, data[size_written:])
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, lines: Sequence[bytes]) -> None:
    """Replace the file with these lines; OutputError when they cannot be written."""
    try:
        target = path.resolve()
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(target.stat().st_mode & 0o777)
        Path(file.name).replace(target)
    except OSError as exc:
        raise OutputError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def _names(line: bytes, is_removed: Callable[[str, str], bool]) -> bool:
    """Return True for a line of a document to remove; a broken line is of no known document."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(value, dict)
        and isinstance(value.get("id"), str)
        and is_removed(value["id"], str(value.get("at") or ""))
    )
