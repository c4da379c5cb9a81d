"""Files of JSON lines: a line is appended whole or not at all, and what a crash left broken is mended.

It must not know what a record means: any JSON object is a good line here.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pipeline.errors import ConfigError, OutputError
from pipeline.output.shared_files import unreadable
from pipeline.stores import sync_folder, write_atomic
from pipeline.stores.local import FILE_MODE

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
T = TypeVar("T")

MAX_LINE_BYTES = 64 << 20
"""The longest record: a document's metadata and an answer are smaller by far, and a line is held in memory whole."""

RECENT_BYTES = 32 << 20
"""More than a run writes in the second before a record is durable, by far: older bytes a power cut cannot break."""


@dataclass(slots=True)
class Damage:
    """What one reading found broken: byte ranges to remove, and whether the last good line lacks its LF."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    lines: int = 0
    unfinished: bool = False
    size: int = 0

    def add(self, start: int, end: int) -> None:
        """Notes one broken line; neighbours become one range."""
        self.lines += 1
        if self.ranges and self.ranges[-1][1] == start:
            start = self.ranges.pop()[0]
        self.ranges.append((start, end))


def parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, or None when there is none (cut, NULs, garbage, nested without end)."""
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_lines(path: Path, take: Callable[[bytes, bool], T | None], damage: Damage) -> Iterator[T]:
    """What `take(line, recent)` makes of each line in order; lines of which it makes None are noted in `damage`.

    `recent`: the line lies where a crash can have left something broken, the last RECENT_BYTES. `damage` is whole
    when the last line was given; what it says was read before is passed over. One line is in memory at a
    time. OutputError when the file cannot be read, FileGoneError when a sibling removes it meanwhile.
    """
    try:
        with path.open("rb", buffering=_CHUNK_BYTES) as stream:
            old_bytes = os.fstat(stream.fileno()).st_size - RECENT_BYTES
            stream.seek(damage.size)
            for line, line_bytes in bounded_lines(stream, path):
                start, damage.size = damage.size, damage.size + line_bytes
                value = take(line, damage.size > old_bytes)
                if value is None:
                    damage.add(start, damage.size)
                    continue
                damage.unfinished = not line.endswith(b"\n")
                yield value
    except OSError as exc:
        raise unreadable(path, exc) from exc


def bounded_lines(stream: BinaryIO, where: Path | str) -> Iterator[tuple[bytes, int]]:
    """Each line with its size; of garbage that is too long for a line the beginning.

    ConfigError for a line that is too long and begins as a record does: it may not be removed.
    """
    while line := stream.readline(MAX_LINE_BYTES + 1):
        size = len(line)
        if size > MAX_LINE_BYTES:
            if line.startswith(b"{"):
                raise _too_long(where, stream.tell() - size)
            line = line[:_CHUNK_BYTES]
            while (more := stream.readline(_CHUNK_BYTES)) and (size := size + len(more)) and not more.endswith(b"\n"):
                pass
        yield line, size


def _too_long(where: Path | str, start: int) -> ConfigError:
    most = MAX_LINE_BYTES >> 20
    told = f"the line at byte {start} has more than {most} MiB, which no run writes: move it out of the file"
    return ConfigError(f"{where}: {told}")


def check_length(line: bytes, where: Path | str) -> None:
    """Raise OutputError for a record that is too long to be written."""
    if len(line) > MAX_LINE_BYTES:
        need = f"at most {MAX_LINE_BYTES}: lower input.max_document_bytes, or the model's max_tokens"
        raise OutputError(f"{where}: a record has {len(line)} bytes, need {need}")


def last_object(path: Path) -> dict[str, Any] | None:
    """The object of the last good line, read from the end; None when the file holds none.

    OutputError when the file cannot be read, FileGoneError when a sibling removes it meanwhile.
    """
    try:
        with path.open("rb") as stream:
            found, whole = _last_object(stream, size := os.fstat(stream.fileno()).st_size)
    except OSError as exc:
        raise unreadable(path, exc) from exc
    if not whole:
        raise _too_long(path, max(0, size - MAX_LINE_BYTES))
    return found


def _last_object(stream: BinaryIO, size: int) -> tuple[dict[str, Any] | None, bool]:
    """The last object, and whether no earlier part of the file could hold it."""
    window = _CHUNK_BYTES
    while True:
        stream.seek(max(0, size - window))
        lines = stream.read(window).split(b"\n")
        # the piece of a line that the window starts with is no object: its braces do not close
        found = next((value for line in reversed(lines) if (value := parse(line)) is not None), None)
        if found is not None or window >= size or window >= MAX_LINE_BYTES:
            return found, found is not None or window >= size
        window *= 8


def mend(path: Path, damage: Damage | None = None) -> int:
    """How many broken lines were removed; a last line that only lacks its LF gets it and does not count.

    `damage`: what reading the whole file has found; None reads it now. Nobody else may write to the file.
    """
    if damage is None:
        damage = Damage()
        for _ in read_lines(path, lambda line, _: parse(line), damage):
            pass
    try:
        _repair(path, damage)
    except OSError as exc:
        raise OutputError(f"{path}: cannot be mended: {exc.strerror or exc}") from exc
    if damage.lines:
        _log.warning("broken lines were removed from %s", path.name, extra={"lines": damage.lines})
    return damage.lines


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
    """The bytes of the file outside the broken ranges, in chunks."""
    with path.open("rb") as stream:
        position = 0
        for start, end in [*broken, (path.stat().st_size, 0)]:
            stream.seek(position)
            while position < start and (chunk := stream.read(min(_CHUNK_BYTES, start - position))):
                position += len(chunk)
                yield chunk
            position = end


def rewrite(path: Path, keep: Callable[[dict[str, Any]], bool]) -> int:
    """How many lines remain: the file is written anew, atomically, with the lines `keep` says yes to."""
    kept = 0

    def chosen() -> Iterator[bytes]:
        nonlocal kept
        with path.open("rb", buffering=_CHUNK_BYTES) as stream:
            for line, _ in bounded_lines(stream, path):
                value = parse(line)
                if value is not None and keep(value):
                    kept += 1
                    yield line if line.endswith(b"\n") else line + b"\n"

    write_atomic(path, chosen())
    return kept


class LineFile:
    """A file that is only appended to, a line at a time, by one thread.

    Nothing waits in this process: when `append` returns, the line is the kernel's, and `sync` makes it durable.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Opens or makes the file; OutputError when that cannot be done. It must have been mended before."""
        self.path = path
        self.unsynced_since: float | None = None
        self._clock = clock
        self._torn = False
        try:
            is_new = not path.exists()
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, FILE_MODE)
            self._size = os.fstat(self._fd).st_size
            if is_new:
                sync_folder(path.parent)
        except OSError as exc:
            raise OutputError(f"{path}: cannot be opened for writing: {exc.strerror or exc}") from exc

    def append(self, line: bytes) -> None:
        """Writes the whole line, which ends in LF; OutputError when that fails, and then nothing of it remains."""
        check_length(line, self.path)
        if self._torn:
            raise OutputError(f"{self.path}: ends in a piece of a line since an earlier write failed")
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as exc:
            self._cut_back()
            reason = exc.strerror or exc
            raise OutputError(f"{self.path}: a line of {len(line)} bytes was not written: {reason}") from exc
        self._size += len(line)
        if self.unsynced_since is None:
            self.unsynced_since = self._clock()

    def _cut_back(self) -> None:
        """Removes a piece of a line; where even that fails, nothing may follow the piece."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._torn = True

    def sync(self) -> None:
        """Makes everything appended so far durable; OutputError when the disk says no."""
        if self.unsynced_since is None:
            return
        try:
            os.fsync(self._fd)
        except OSError as exc:
            raise OutputError(f"{self.path}: could not be made durable: {exc.strerror or exc}") from exc
        self.unsynced_since = None

    def close(self) -> None:
        """Syncs and closes; a second call does nothing."""
        if self._fd < 0:
            return
        try:
            self.sync()
        finally:
            os.close(self._fd)
            self._fd = -1
