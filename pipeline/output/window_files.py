"""The windows of an output in a local folder: `windows.jsonl`, or `windows-00003-of-00016.jsonl` of a shard.

The rules are those of the files of records (local.py): every run reads the files of all shard counts, a shard never
touches a file of another shard of its own count, and changes one of another count only under the gate. The first line
creates the file; a run without windows creates none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError
from pipeline.output.line_file import LineFile
from pipeline.output.lines import Damage, bounded_lines, mend, parse, read_lines, rewrite
from pipeline.output.lock import Lock
from pipeline.output.shared_files import names_in, unreadable_file
from pipeline.output.window_lines import Keep
from pipeline.shards import SUFFIX, Shard, shard_of_suffix

WINDOW_FILE = re.compile(rf"windows({SUFFIX})?\.jsonl")
SYNC_AFTER_S = 0.4
"""As for records (local.py): durable within a second."""

Change = Callable[[Path], object]


class LocalWindows:
    """WindowFiles (window_lines.py) of a folder. `under_gate(change, path)` changes files of another shard count."""

    def __init__(
        self,
        folder: Path,
        lock: Lock | None,
        *,
        shard: Shard,
        clock: Callable[[], float],
        under_gate: Callable[[Change, Path], None],
    ) -> None:
        self._folder = folder
        self._shard = shard
        self._path = folder / f"windows{shard.suffix}.jsonl"
        self._clock = clock
        self._check_lock = lock.check if lock is not None else lambda: None
        self._under_gate = under_gate
        self._file: LineFile | None = None

    @property
    def is_full(self) -> bool:
        """True during an outage, while lines are kept in memory."""
        return self._file is not None and self._file.is_failing

    def lines(self) -> Iterator[bytes]:
        """Yield the lines file by file, and repair each file that no other run is writing."""
        for path in self._files():
            damage = Damage()
            yield from read_lines(path, _valid, damage)
            if damage.lines or damage.unfinished:
                self._change(partial(mend, damage=damage), mend, path)

    def read(self) -> Iterator[bytes]:
        """Yield the lines file by file, beside a run that may be writing them."""
        for path in self._files():
            yield from read_lines(path, _valid, Damage())

    def append(self, line: bytes) -> None:
        """Pass the line to the kernel."""
        if self._file is None:
            self._file = LineFile(self._path, clock=self._clock, check_lock=self._check_lock)
        self._file.append(line)

    def sync_due(self, now: float) -> None:
        """Sync when the oldest unsynced line is SYNC_AFTER_S old, or the last sync failed."""
        file = self._file
        if file is None or file.unsynced_since is None:
            return
        if file.is_failing or now - file.unsynced_since >= SYNC_AFTER_S:
            file.sync()

    def sync(self) -> None:
        """Sync, then close the file."""
        if self._file is not None:
            self._file.sync()
            self.close()

    def keep(self, keep: Keep) -> None:
        """Rewrite each file that has lines to remove."""

        def keep_or_foreign(record: Mapping[str, Any]) -> bool:
            return not self._shard.owns(record["id"]) or keep(record)

        for path in self._files():
            self._change(lambda own: _reduce(own, keep), lambda other: _reduce(other, keep_or_foreign), path)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _files(self) -> list[Path]:
        """Return the files of this shard, and those of runs with another number of shards."""
        matches = [(name, match) for name in names_in(self._folder) if (match := WINDOW_FILE.fullmatch(name))]
        return [
            self._folder / name
            for name, match in matches
            if name == self._path.name or not self._shard.count or shard_of_suffix(match[1]).count != self._shard.count
        ]

    def _change(self, own: Change, other: Change, path: Path) -> None:
        """Change a file by `own` if no other run can write to it, else by `other` under the gate."""
        if self._shard.count == 0 or path == self._path:
            own(path)
        else:
            self._under_gate(other, path)


def _valid(line: bytes, recent: bool) -> bytes | None:  # noqa: ARG001
    if parse(line) is None:
        return None
    return line if line.endswith(b"\n") else line + b"\n"


def _counts(path: Path, keep: Keep) -> Counter[bool]:
    """Return how many lines are kept (True) and removed (False)."""
    try:
        with path.open("rb") as stream:
            records = (parse(line) for line, _ in bounded_lines(stream, path))
            return Counter(record is not None and keep(record) for record in records)
    except OSError as exc:
        raise unreadable_file(path, exc) from exc


def _reduce(path: Path, keep: Keep) -> None:
    """Remove the lines that are not to be kept; remove a file without any line."""
    counts = _counts(path, keep)
    try:
        if not counts[True]:
            path.unlink(missing_ok=True)
        elif counts[False]:
            rewrite(path, keep)
    except OSError as exc:
        raise OutputError(f"{path}: cannot be changed: {exc.strerror or exc}") from exc
