"""A checkpoint of a results file at the end of a run, so that the next start reads only the lines written since.

A checkpoint is ignored when its file has changed: size and both edges are compared, and on a difference the whole
file is read. It has the format of a part's manifest (parts.py), sorted by id: the index inserts this order fastest.
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
"""Fewer new bytes are read in well under a second, so that a checkpoint would save no time."""

FOLDER = ".manifests"
_EDGE_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 20


def load(path: Path, take: Callable[[Iterator[RecordKey]], None]) -> int:
    """Pass the keys of the checkpoint to `take`; return the number of bytes from the file's start that they cover.

    0 means that there is no valid checkpoint. `take` may have received some keys even then, which is harmless: a key
    may be added twice.
    """
    checkpoint = _checkpoint_path(path)
    try:
        with checkpoint.open("rb", buffering=_BUFFER_BYTES) as stream:
            first = stream.readline()
            size_bytes = _size(first)
            take(read_manifest(chain([first], stream), _header(path, size_bytes)))
    except FileNotFoundError:
        return 0
    except (OSError, ManifestError) as exc:
        _log.info("Checkpoint not usable; reading the whole results file", extra={"file": path.name, "why": str(exc)})
        return 0
    return size_bytes


def save(path: Path, record_keys: Iterable[RecordKey], *, covered: int) -> None:
    """Write a checkpoint of the whole file if enough bytes follow the `covered` ones of the last checkpoint."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes - covered < max(WORTH_BYTES, covered // 10):
            return
        _checkpoint_path(path).parent.mkdir(FOLDER_MODE, exist_ok=True)
        write_atomic(_checkpoint_path(path), write_manifest(record_keys, _header(path, size_bytes)))
    except OSError as exc:
        raise OutputError(f"{_checkpoint_path(path)}: cannot be written: {exc.strerror or exc}") from exc


def drop(path: Path) -> None:
    """Remove the checkpoint of a file that is about to be replaced."""
    try:
        _checkpoint_path(path).unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(f"{_checkpoint_path(path)}: cannot be removed: {exc.strerror or exc}") from exc


def _checkpoint_path(path: Path) -> Path:
    return path.parent / FOLDER / path.name


def _size(line: bytes) -> int:
    try:
        value = json.loads(line)["bytes"]
    except (ValueError, LookupError, TypeError) as exc:
        raise ManifestError("its first line has no size") from exc
    if not isinstance(value, int) or value < 1:
        raise ManifestError("its first line has no size")
    return value


def _header(path: Path, size_bytes: int) -> Mapping[str, Any]:
    """Return the header that identifies the first `size_bytes` of a file: the size and a hash of both edges."""
    with path.open("rb") as stream:
        start = stream.read(min(_EDGE_BYTES, size_bytes))
        stream.seek(max(0, size_bytes - _EDGE_BYTES))
        end = stream.read(min(_EDGE_BYTES, size_bytes))
    return {"part": path.name, "bytes": size_bytes, "edges": sha256(start + end).hexdigest()}
