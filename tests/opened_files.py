"""Count the files that this process opens, as a measure of cost that does not depend on the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_watched: list[tuple[str, list[str]]] = []
_is_installed = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not _watched or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = os.fsdecode(arguments[0])
    for folder, paths in list(_watched):
        if path.startswith(folder):
            paths.append(path)


@contextmanager
def files_opened(folder: Path) -> Iterator[list[str]]:
    """Collect the path of each file below a folder that any thread opens in the block, once for each opening."""
    global _is_installed
    if not _is_installed:
        _is_installed = True
        sys.addaudithook(_hook)
    watched = (f"{folder}{os.sep}", [])
    _watched.append(watched)
    try:
        yield watched[1]
    finally:
        _watched.remove(watched)
