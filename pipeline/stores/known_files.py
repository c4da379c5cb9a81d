"""The present state of files that were listed before: one `stat` for each, without a listing of the folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from pipeline.stores.beneath import StoredFile, identity_of
from pipeline.stores.local import version_of


def current_file(
    root: Path,
    real_root: str,
    file: StoredFile,
    _: bool = True,
    *,
    clock: Callable[[], float],
) -> StoredFile | None:
    """Return the present version of a file below the root; None when it no longer exists as a regular file.

    A link is accepted only where the listing had one; opening it checks its target (beneath.py).
    """
    path = f"{os.fspath(root)}/{file.relative}"
    try:
        status = os.stat(path, follow_symlinks=file.linked)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    version = version_of(status, clock())
    return StoredFile(
        path,
        file.relative,
        status.st_size,
        version,
        real_root,
        identity_of(status),
        file.linked,
    )
