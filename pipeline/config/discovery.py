"""The config file when no flag names one: in the current directory, else above it, as git finds its root.

It must not read settings; it only resolves relative paths in them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

USUAL = (Path("config/default.yaml"), Path("pipeline.yaml"))
"""Places of a config file in the folder of a project, the first one first."""
_PATHS = frozenset(("agents_dir", "input.uri", "output.uri", "eval.gold", "eval.baseline", "eval.input", "eval.output"))
_PROVIDER_PATHS = frozenset(("ca_file", "client_cert", "client_key", "api_key_file"))
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A config file, and the folder from which its relative paths count, seen from the current directory."""

    path: Path
    root: Path = Path()


def find_config(environ: Mapping[str, str], *, folder: Path | None = None) -> ConfigFile | None:
    """Return the file to read when no flag names one: PIPELINE_CONFIG, else the nearest one in or above the folder.

    `folder` None: the current directory. A file above that belongs to another user, or lies on another file system,
    is not used: whoever can write to a shared folder would decide where documents are sent.
    """
    if environ.get("PIPELINE_CONFIG"):
        return ConfigFile(Path(environ["PIPELINE_CONFIG"]))
    folder_here = Path.cwd() if folder is None else folder.resolve()
    up = Path()
    for above in (folder_here, *folder_here.parents):
        for usual in USUAL:
            if (above / usual).is_file() and (above == folder_here or _is_trusted(above / usual, folder_here)):
                return ConfigFile(up / usual, up)
        up = up / ".."
    return None


def _is_trusted(path: Path, folder_here: Path) -> bool:
    status = path.stat()
    if status.st_dev != folder_here.stat().st_dev:
        return False
    if status.st_uid in (os.geteuid(), 0):
        return True
    _log.warning("a config file above this folder belongs to another user and is ignored", extra={"config": str(path)})
    return False


def placed(key: str, value: Any, root: Path) -> Any:
    """Return the value of a setting with its relative paths seen from the current directory instead of from `root`."""
    section, _, name = key.rpartition(".")
    if root == Path() or not (key in _PATHS or (name in _PROVIDER_PATHS and section)):
        return value
    if isinstance(value, list):
        return [_path(item, root) for item in value]
    return _path(value, root)


def _path(value: Any, root: Path) -> Any:
    if isinstance(value, Mapping) and "uri" in value:
        return {**value, "uri": _path(value["uri"], root)}
    if not isinstance(value, str) or not value or Path(value).is_absolute() or _SCHEME.match(value):
        return value
    return str(root / value)
