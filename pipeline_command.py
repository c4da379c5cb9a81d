"""The start of the installed command: it makes sure that the package `pipeline` is the one beside this file.

A file pipeline.py on PYTHONPATH would be imported in its place. It must import nothing of the package before that.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path


def main() -> int:
    """Run the command line; another module of the same name is named in one line and searched last."""
    try:
        _search_last_for_others(Path(__file__).resolve().parent)
        from pipeline.cli import main as run
    except (OSError, ImportError, MemoryError) as error:
        if not _is_shortage(error):
            raise
        sys.stderr.write(f"pipeline: this machine is short of open files or memory: {error!r}; run the command again\n")
        return 3
    return run()


def _is_shortage(error: BaseException) -> bool:
    """Return whether the program could not be loaded for want of open files or memory; it cannot import `errors`."""
    numbers = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    if isinstance(error, ImportError):  # of a shared library, whose loader gives no number
        texts = (*map(os.strerror, numbers), "failed to map segment")
        return any(text in str(error) for text in texts)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in numbers)


def _search_last_for_others(home: Path) -> None:
    """Move folders with another `pipeline` to the end of the search path, also for processes started from this one.

    In an editable installation the search path lacks `home`, and the finder that knows it is asked last; a folder
    `pipeline` without __init__.py, which has no origin, also comes before it.
    """
    own = home / "pipeline" / "__init__.py"
    others = []
    for folder in list(sys.path):
        spec = PathFinder.find_spec("pipeline", [folder])
        if spec is None:
            continue
        if spec.origin is not None and Path(spec.origin).resolve() == own:
            break
        others.append(folder)
        if spec.origin is not None:
            sys.stderr.write(f"pipeline: {spec.origin} has the name of this program's package and is not used\n")
    else:
        others[:0] = [str(home)] if others else []
    sys.path[:] = [folder for folder in sys.path if folder not in others] + others
