"""The names in one folder; after an error of its file system the folder is read again and resumed at the same name.

It must not hold the names of a large folder; it keeps the number and a hash of the yielded names.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

Attempt = Callable[[Callable[[], Any]], Any]
"""A function that returns the result of an action, and may repeat it after an OSError."""

READ_TOGETHER = 256
"""Names read together, so that a large folder costs little more than its names."""


def at_once(action: Callable[[], Any]) -> Any:
    """Return the result of the action, or raise its first error."""
    return action()


def folder_names(open_folder: Callable[[], int], *, sort_up_to: int, attempt: Attempt) -> Iterator[str]:
    """Yield the names in a folder, sorted unless there are more than `sort_up_to`; OSError when it cannot be read.

    `open_folder` returns a descriptor, which is closed here. OSError (ESTALE) when a large folder has other names, or
    another order of them, after a failure.
    """
    first = attempt(lambda: list(islice(_names(open_folder), sort_up_to + 1)))
    if len(first) <= sort_up_to:
        yield from sorted(first)
        return
    unsorted = _Unsorted(open_folder)
    while names := attempt(unsorted.next):
        yield from names


def _names(open_folder: Callable[[], int]) -> Iterator[str]:
    descriptor = open_folder()
    try:
        with os.scandir(descriptor) as scan:
            for entry in scan:
                yield entry.name
    finally:
        os.close(descriptor)


class _Unsorted:
    """The names of a large folder in the order of the file system."""

    def __init__(self, open_folder: Callable[[], int]) -> None:
        self._open_folder = open_folder
        self._names: Iterator[str] | None = None
        self._count = 0
        self._digest = hashlib.sha256()

    def next(self) -> list[str]:
        """Return the next names, none at the end; after an OSError it may be called again."""
        try:
            if self._names is None:
                self._names = self._resumed()
            names = list(islice(self._names, READ_TOGETHER))
        except OSError:
            self._names = None
            raise
        self._count += len(names)
        _add(self._digest, names)
        return names

    def _resumed(self) -> Iterator[str]:
        """List the folder again; return the names after the yielded ones, which must not have changed."""
        names = _names(self._open_folder)
        digest = hashlib.sha256()
        earlier_names = islice(names, self._count)
        while batch := list(islice(earlier_names, READ_TOGETHER)):
            _add(digest, batch)
        if digest.digest() != self._digest.digest():
            raise ChangedFolderError(errno.ESTALE, "the folder changed while it was listed again")
        return names


class ChangedFolderError(OSError):
    """The listing cannot be resumed, because the folder has changed."""


def _add(digest: Any, names: list[str]) -> None:
    digest.update(os.fsencode("\0".join([*names, ""])))
