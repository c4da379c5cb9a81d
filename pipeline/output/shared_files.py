"""Folders and files of an output that other processes create, replace and delete while they are read.

A change by another run during a read is not an error: a file that was deleted is treated as missing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.errors import OutputError
from pipeline.stores import sync_folder
from pipeline.stores.local import FOLDER_MODE

TRIES = 10
"""Attempts to read a folder or file that changes during the read; a file changes at most a few times per run."""

T = TypeVar("T")


class FileGoneError(OutputError):
    """A file was deleted or replaced while it was read; list the folder again for the current files."""


def unreadable_file(path: Path, cause: OSError) -> OutputError:
    """Return the error for an unreadable file: FileGoneError when another run has removed or replaced it."""
    kind = FileGoneError if is_gone(cause) else OutputError
    return kind(f"{path}: cannot be read: {cause.strerror or cause}")


def is_gone(cause: OSError) -> bool:
    """Return True when a file no longer exists; NFS reports ESTALE for an open file that another client replaced."""
    return isinstance(cause, FileNotFoundError) or cause.errno == errno.ESTALE


def names_in(folder: Path) -> list[str]:
    """Return the sorted names in a folder, [] when it does not exist. OutputError when it cannot be listed."""
    for tries_left in reversed(range(TRIES)):
        try:
            return sorted(path.name for path in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            if exc.errno != errno.ESTALE or not tries_left:
                raise OutputError(f"{folder}: cannot be listed: {exc.strerror or exc}") from exc
    raise AssertionError("unreachable")


def read_if_there(path: Path) -> bytes | None:
    """Return the content of a file; None for a folder or a missing file."""
    for tries_left in reversed(range(TRIES)):
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return None
        except OSError as exc:
            if exc.errno != errno.ESTALE or not tries_left:
                raise OutputError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    raise AssertionError("unreachable")


def until_unchanged(read: Callable[[], T]) -> T:
    """Return the result of `read`; call it again when a file that it listed was deleted before it was read."""
    for _ in range(TRIES - 1):
        try:
            return read()
        except FileGoneError:
            continue
    return read()


def make_parent(path: Path) -> None:
    """Create the folder of an output file if it does not exist."""
    if path.parent.is_dir():
        return
    try:
        path.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        sync_folder(path.parent.parent)
    except OSError as exc:
        raise OutputError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
