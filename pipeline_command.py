"""The start of the installed command: it makes sure that the package `pipeline` is the one beside this file.

A file pipeline.py on PYTHONPATH would be imported in its place. It must import nothing of the package before that.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path


def main() -> int:
    """Run the command line; another module of the same name is named in one line and searched last."""
    _search_last_for_others(Path(__file__).resolve().parent)
    from pipeline.cli import main as run

    return run()


def _search_last_for_others(home: Path) -> None:
    """Move folders with another `pipeline` to the end of the search path, also for processes started from this one."""
    own = home / "pipeline" / "__init__.py"
    for folder in list(sys.path):
        spec = PathFinder.find_spec("pipeline", [folder])
        if spec is None or spec.origin is None:
            continue
        if Path(spec.origin).resolve() == own:
            return
        sys.stderr.write(f"pipeline: {spec.origin} has the name of this program's package and is not used\n")
        sys.path.remove(folder)
        sys.path.append(folder)
