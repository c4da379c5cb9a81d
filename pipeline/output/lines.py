"""Files of JSON lines: reading, and repair after a crash. line_file.py appends to them.

It must not know the meaning of a record: any JSON object is a valid line here.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pipeline.errors import ConfigError, OutputError
from pipeline.output.shared_files import unreadable_file
from pipeline.stores import write_atomic

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_LAST_BYTES = 1 << 13
"""Most last lines are shorter; a longer one needs a second read."""
T = TypeVar("T")

MAX_LINE_BYTES = 64 << 20
"""Maximum size of a record, far above that of metadata and an answer: a line is held in memory as a whole."""

RECENT_BYTES = 32 << 20
"""Far more than a run writes in the second before a record is durable; a power cut cannot damage older bytes."""


@dataclass(slots=True)
class Damage:
    """The damage found while reading: byte ranges to remove, and whether the last good line lacks its LF."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    lines: int = 0
    unfinished: bool = False
    size: int = 0

    def add(self, start: int, end: int) -> None:
        """Add one broken line; adjacent ranges are merged."""
        self.lines += 1
        if self.ranges and self.ranges[-1][1] == start:
            start = self.ranges.pop()[0]
        self.ranges.append((start, end))


def parse(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line; None for an invalid line (truncated, NULs, garbage, nested too deeply)."""
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_lines(path: Path, take: Callable[[bytes, bool], T | None], damage: Damage) -> Iterator[T]:
    """Yield `take(line, recent)` for each line in order; lines for which it returns None are added to `damage`.

    `recent`: the line is in the last RECENT_BYTES, where a crash can have left damage. `damage` is complete after the
    last line; reading starts at `damage.size`. One line is in memory at a time. OutputError when the file cannot be
    read, FileGoneError when another shard removes it meanwhile.
    """
    try:
        with path.open("rb", buffering=_CHUNK_BYTES) as stream:
            old_bytes = os.fstat(stream.fileno()).st_size - RECENT_BYTES
            stream.seek(damage.size)
            for line, line_bytes in bounded_lines(stream, path):
                start = damage.size
                damage.size = damage.size + line_bytes
                value = take(line, damage.size > old_bytes)
                if value is None:
                    damage.add(start, damage.size)
                    continue
                damage.unfinished = not line.endswith(b"\n")
                yield value
    except OSError as exc:
        raise unreadable_file(path, exc) from exc


def bounded_lines(stream: BinaryIO, where: Path | str) -> Iterator[tuple[bytes, int]]:
    """Yield each line with its size; of an invalid line longer than MAX_LINE_BYTES only the beginning.

    ConfigError for a line that is too long and begins like a record: it must not be removed.
    """
    while line := stream.readline(MAX_LINE_BYTES + 1):
        size = len(line)
        if size > MAX_LINE_BYTES:
            if line.startswith(b"{"):
                raise _too_long(where, stream.tell() - size)
            line = line[:_CHUNK_BYTES]
            while (
                (next_chunk := stream.readline(_CHUNK_BYTES))
                and (size := size + len(next_chunk))
                and not next_chunk.endswith(b"\n")
            ):
                pass
        yield line, size


def _too_long(where: Path | str, start: int) -> ConfigError:
    limit_mb = MAX_LINE_BYTES >> 20
    message = f"the line at byte {start} has more than {limit_mb} MiB, which no run writes: move it out of the file"
    return ConfigError(f"{where}: {message}")


def check_length(line: bytes, where: Path | str) -> None:
    """Raise OutputError for a record that is too long to be written."""
    if len(line) > MAX_LINE_BYTES:
        need = f"at most {MAX_LINE_BYTES}: lower input.max_document_bytes, or the model's max_tokens"
        raise OutputError(f"{where}: a record has {len(line)} bytes, need {need}")


def last_object(path: Path) -> dict[str, Any] | None:
    """Return the object of the last valid line, read from the end; None when there is no valid line.

    OutputError when the file cannot be read, FileGoneError when another shard removes it meanwhile.
    """
    try:
        with path.open("rb") as stream:
            last, is_complete = _last_object(stream, size := os.fstat(stream.fileno()).st_size)
    except OSError as exc:
        raise unreadable_file(path, exc) from exc
    if not is_complete:
        raise _too_long(path, max(0, size - MAX_LINE_BYTES))
    return last


def _last_object(stream: BinaryIO, size: int) -> tuple[dict[str, Any] | None, bool]:
    """Return the last object, and whether the search is complete."""
    window = _LAST_BYTES
    while True:
        stream.seek(max(0, size - window))
        lines = stream.read(window).split(b"\n")
        # a partial line at the start of the window is not a valid object: its braces do not match
        last = next((value for line in reversed(lines) if (value := parse(line)) is not None), None)
        if last is not None or window >= size or window >= MAX_LINE_BYTES:
            return last, last is not None or window >= size
        window = min(window * 8, MAX_LINE_BYTES)


def mend(path: Path, damage: Damage | None = None) -> int:
    """Remove broken lines and add a missing last LF; return the number of lines removed.

    `damage`: the damage found while reading the whole file; None: read it now. No other process may write to the file.
    A repair that failed half way may be repeated.
    """
    if damage is None or damage.size != _size_of(path):
        damage = Damage()
        for _ in read_lines(path, lambda line, _: parse(line), damage):
            pass
    try:
        _repair(path, damage)
    except OSError as exc:
        raise OutputError(f"{path}: cannot be repaired: {exc.strerror or exc}") from exc
    if damage.lines:
        _log.warning("removed broken lines from %s", path.name, extra={"lines": damage.lines})
    return damage.lines


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as exc:
        raise OutputError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _repair(path: Path, damage: Damage) -> None:
    if not damage.unfinished and not damage.ranges:
        return
    if damage.unfinished:
        _change(path, lambda fd: os.pwrite(fd, b"\n", damage.size))
    if len(damage.ranges) == 1 and damage.ranges[0][1] == damage.size:
        _change(path, lambda fd: os.ftruncate(fd, damage.ranges[0][0]))
    elif damage.ranges:
        write_atomic(path, _good_parts(path, damage.ranges))


def _change(path: Path, action: Callable[[int], object]) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        action(fd)
        os.fsync(fd)
    finally:
        os.close(fd)


def _good_parts(path: Path, broken: list[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of the file outside the broken ranges, in chunks."""
    with path.open("rb") as stream:
        position = 0
        for start, end in [*broken, (path.stat().st_size, 0)]:
            stream.seek(position)
            while position < start and (chunk := stream.read(min(_CHUNK_BYTES, start - position))):
                position += len(chunk)
                yield chunk
            position = end


def rewrite(path: Path, keep: Callable[[dict[str, Any]], bool]) -> int:
    """Rewrite the file atomically with the lines for which `keep` returns True; return their number."""
    count = 0

    def kept_chunks() -> Iterator[bytes]:
        nonlocal count
        with path.open("rb", buffering=_CHUNK_BYTES) as stream:
            for line, _ in bounded_lines(stream, path):
                value = parse(line)
                if value is not None and keep(value):
                    count += 1
                    yield line if line.endswith(b"\n") else line + b"\n"

    write_atomic(path, kept_chunks())
    return count
