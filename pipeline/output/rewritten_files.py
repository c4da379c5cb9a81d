"""Replacement of the files of records in a folder: one file per chunk of a plan, and one for all other records.

The file of a chunk stays separate, so that the next run of the chunk reads only its own records. The caller must hold
the lock of the whole output.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

from pipeline.errors import OutputError
from pipeline.output import checkpoint
from pipeline.output.record_files import read_records, record_paths, shard_of_file
from pipeline.output.record_keys import Kind, Records
from pipeline.output.shared_files import unreadable_file
from pipeline.shards import by_chunk
from pipeline.stores import write_atomic


def rewrite_records(folder: Path, kind: Kind, choose: Callable[[Records], Records]) -> None:
    """Replace the files of a kind with the lines that `choose` returns (OutputBackend.rewrite).

    A new file is written before the old files of its lines are removed.
    """
    groups = by_chunk(record_paths(folder, kind), shard_of_file)
    for shard, paths in groups.items():
        for path in paths:
            checkpoint.drop(path)
        target = folder / f"{kind}{shard.suffix}.jsonl"
        lines = chain.from_iterable(read_records(path, kind) for path in paths)
        write_atomic(target, (line for line, _ in choose(lines)))
        # beside the files of chunks, an empty results.jsonl would look like an empty output
        is_needed = shard.is_chunk or len(groups) == 1 or _is_filled(target)
        for path in paths:
            if path != target or not is_needed:
                _remove(path)


def _is_filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError as cause:
        raise unreadable_file(path, cause) from cause


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as cause:
        raise OutputError(f"{path}: cannot be removed: {cause.strerror or cause}") from cause
