"""The files of records in the folder of an output: their names, and the reading of a whole file of one kind.

It must not change a file of records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ConfigError, OutputError
from pipeline.output.index import Index
from pipeline.output.lines import Damage, last_object, read_lines
from pipeline.output.record_keys import Kind, RecordKey, key_of, key_reader
from pipeline.stores import sync_folder
from pipeline.stores.local import FOLDER_MODE

RECORD_FILE = re.compile(r"(results|errors)(?:-\d{5}-of-(\d{5}))?\.jsonl")
"""The name of a file of records: its kind, and the count of shards."""


def read_records(path: Path, kind: Kind) -> Iterator[tuple[bytes, RecordKey]]:
    """Yield the valid lines of a file with their keys, each line with its LF."""
    take = key_reader(kind, str(path))

    def pair(line: bytes, recent: bool) -> tuple[bytes, RecordKey] | None:
        key = take(line, recent)
        return None if key is None else (line if line.endswith(b"\n") else line + b"\n", key)

    return read_lines(path, pair, Damage())


def note_sibling(path: Path, index: Index) -> None:
    """Index run and agent of another shard of the same count: it appends in order, so its last line is enough."""
    line = last_object(path)
    if line is not None:
        key = key_of(line, str(path))
        index.met(key.run, key.agent)


def make_folder(folder: Path) -> None:
    """Create the folder of an output; ConfigError when a file is in its place."""
    blocker = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if blocker.exists() and not blocker.is_dir():
        raise ConfigError(f"output.uri: {blocker} is a file, need a folder")
    try:
        is_new = not folder.exists()
        folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        if is_new:
            sync_folder(folder.parent)
    except OSError as exc:
        raise OutputError(f"{folder}: the output folder cannot be created: {exc.strerror or exc}") from exc
