"""What a file of results held when a run came to its end, so that the next start reads only what was written since.

It must not be believed when the file is no longer what it was: size and edges are compared, and then the file is read.
The lines are those of a part's manifest (parts.py), in the order of their ids, in which the index takes them fastest.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError
from pipeline.output.parts import ManifestError, read_manifest, write_manifest
from pipeline.output.record_keys import RecordKey
from pipeline.stores import write_atomic
from pipeline.stores.local import FOLDER_MODE

_log = logging.getLogger(__name__)

WORTH_BYTES = 8 << 20
"""Fewer bytes are read in no time without a checkpoint."""

FOLDER = ".manifests"
_EDGE_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 20


def load(path: Path, take: Callable[[Iterator[RecordKey]], None]) -> int:
    """How many bytes from the file's start `take` need not see any more, having been given their keys; 0: none.

    When a damaged checkpoint is found out only after keys were taken, 0 all the same: taking them twice does no harm.
    """
    beside = _beside(path)
    try:
        with beside.open("rb", buffering=_BUFFER_BYTES) as stream:
            first = stream.readline()
            size_bytes = _size(first)
            take(read_manifest(chain([first], stream), _header(path, size_bytes)))
    except FileNotFoundError:
        return 0
    except (OSError, ManifestError) as exc:
        _log.info("the results are read whole", extra={"file": path.name, "why": str(exc)})
        return 0
    return size_bytes


def save(path: Path, record_keys: Iterable[RecordKey], *, covered: int) -> None:
    """Writes the checkpoint of the whole file when enough has come since the `covered` bytes of the last one."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes - covered < max(WORTH_BYTES, covered // 10):
            return
        _beside(path).parent.mkdir(FOLDER_MODE, exist_ok=True)
        write_atomic(_beside(path), write_manifest(record_keys, _header(path, size_bytes)))
    except OSError as exc:
        raise OutputError(f"{_beside(path)}: cannot be written: {exc.strerror or exc}") from exc


def drop(path: Path) -> None:
    """Removes the checkpoint of a file that is about to be another one."""
    try:
        _beside(path).unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(f"{_beside(path)}: cannot be removed: {exc.strerror or exc}") from exc


def _beside(path: Path) -> Path:
    return path.parent / FOLDER / path.name


def _size(line: bytes) -> int:
    try:
        value = json.loads(line)["bytes"]
    except (ValueError, LookupError, TypeError) as exc:
        raise ManifestError("its first line says no size") from exc
    if not isinstance(value, int) or value < 1:
        raise ManifestError("its first line says no size")
    return value


def _header(path: Path, size_bytes: int) -> Mapping[str, Any]:
    """What tells this file, as far as it goes, from another: the bytes at its two edges."""
    with path.open("rb") as stream:
        start = stream.read(min(_EDGE_BYTES, size_bytes))
        stream.seek(max(0, size_bytes - _EDGE_BYTES))
        end = stream.read(min(_EDGE_BYTES, size_bytes))
    return {"part": path.name, "bytes": size_bytes, "edges": sha256(start + end).hexdigest()}
