"""The files of records in the folder of an output: their names, and the reading of a whole file.

It must not change a file of records.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import ConfigError, OutputError
from pipeline.output.index import Index
from pipeline.output.lines import MAX_LINE_BYTES, Damage, last_object, parse, read_lines
from pipeline.output.record_keys import Kind, RecordKey, Records, key_of, key_reader
from pipeline.output.shared_files import names_in, unreadable_file
from pipeline.shards import SUFFIX, Shard, shard_of_suffix
from pipeline.stores import sync_folder
from pipeline.stores.local import FOLDER_MODE

RECORD_FILE = re.compile(rf"(results|errors)({SUFFIX})?\.jsonl")
"""The name of a file of records: its kind, and the suffix of its shard."""
FEW_SIBLINGS = 16
"""A set may have thousands of shards, and the cost of a shard's start must not grow with their number."""
_NEAR_BYTES = 1 << 20
"""A search for the first line of a run stops at this distance: reading it takes a few milliseconds."""


def read_records(path: Path, kind: Kind, *, start: int = 0, end: int | None = None) -> Records:
    """Yield the valid lines of a file of this kind that begin in `start` to `end`, ending in LF, with their keys."""
    take = key_reader(kind, str(path))
    damage = Damage(size=start)

    def pair(line: bytes, recent: bool) -> tuple[bytes, RecordKey] | None:
        key = take(line, recent)
        return None if key is None else (line if line.endswith(b"\n") else line + b"\n", key)

    for record in read_lines(path, pair, damage):
        yield record
        if end is not None and damage.size >= end:
            return


def records_by_run(path: Path, kind: Kind, *, since: int, near_bytes: int = _NEAR_BYTES) -> Records:
    """Yield the valid lines of a file with their keys, those of run `since` and later ones first.

    `near_bytes`: up to this many bytes before them may be read as well.
    """
    start = _start_of_run(path, since, near_bytes=near_bytes) if since else 0
    yield from read_records(path, kind, start=start)
    if start:
        yield from read_records(path, kind, end=start)


def _start_of_run(path: Path, run: int, *, near_bytes: int) -> int:
    """Return the start of a line near the first one of this run, in a file ordered by run; 0 when the order is unclear.

    Files of one writer are ordered. A compacted file may not be: lines of the run can be before this position.
    """
    try:
        with path.open("rb") as stream:
            low = 0
            high = stream.seek(0, os.SEEK_END)
            while high - low > near_bytes:
                middle = (low + high) // 2
                stream.seek(middle)
                stream.readline(MAX_LINE_BYTES)
                record = parse(stream.readline(MAX_LINE_BYTES)) or {}
                if not isinstance(record.get("run"), int):
                    return 0
                low, high = (low, middle) if record["run"] >= run else (middle, high)
            if low:
                stream.seek(low)
                stream.readline(MAX_LINE_BYTES)
                low = stream.tell()
            return low
    except OSError as exc:
        raise unreadable_file(path, exc) from exc


def note_siblings(paths: Iterable[Path], index: Index) -> None:
    """Index run and agent of other shards of the same count, by the last lines of the first FEW_SIBLINGS with any.

    All records of an output are of one agent, so a few files suffice, and the index of runs has the numbers of ended
    runs. The number of an active or killed run matters to its own shard only.
    """
    noted = 0
    for path in paths:
        line = last_object(path)
        if line is not None:
            key = key_of(line, str(path))
            index.add_run(key.run, key.agent)
            noted += 1
        if noted == FEW_SIBLINGS:
            return


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


def record_paths(folder: Path, kind: str = "") -> list[Path]:
    """Return the files of results and errors of all shards, or only those of one kind."""
    return [folder / name for name in names_in(folder) if RECORD_FILE.fullmatch(name) and name.startswith(kind)]


def shard_of_file(path: Path) -> Shard:
    """Return the shard of a file of records; WHOLE for files of runs without shards."""
    match = RECORD_FILE.fullmatch(path.name)
    return shard_of_suffix(match[2] if match else None)
