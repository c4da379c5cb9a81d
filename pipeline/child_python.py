"""The command that starts a module of this program in a process of its own: this interpreter, these import paths."""

from __future__ import annotations

import json
import sys
from pathlib import Path

_BOOT = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "sys.exit(importlib.import_module(sys.argv.pop(1)).main())"
)


def child_command(module: str, *words: str) -> list[str]:
    """Return the command that calls `main` of a module, with `words` in sys.argv; it exits with what `main` returns."""
    paths = json.dumps([str(Path(path).absolute()) for path in sys.path])
    return [sys.executable, "-c", _BOOT, paths, module, *words]
