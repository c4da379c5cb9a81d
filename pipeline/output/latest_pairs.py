"""Pairs of the latest records of each document, from two outputs or two agent versions, in one sqlite3 file on disk.

It must hold only one pair in memory, and must not compare the contents.
"""

from __future__ import annotations

import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import OutputError
from pipeline.output.backend import ReadableOutput
from pipeline.output.record_keys import KINDS
from pipeline.stores.local import temporary_folder

BEFORE = 0
AFTER = 1
_TABLE = (
    # the file does not outlive the process, so no write has to be durable
    "PRAGMA journal_mode=OFF",
    "PRAGMA synchronous=OFF",
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA cache_size=-65536",
    "CREATE TABLE last (id TEXT, side INTEGER, run INTEGER, done INTEGER, line BLOB, UNIQUE (id, side))",
    "BEGIN",
)
# within a run, a result is later than a failure of the same document, and of two lines the last one counts
_LATER_WINS = """INSERT INTO last VALUES (?,?,?,?,?) ON CONFLICT (id, side) DO UPDATE SET
    (run, done, line) = (excluded.run, excluded.done, excluded.line)
    WHERE (excluded.run, excluded.done) >= (run, done)"""


class LastRecord(NamedTuple):
    """A document's last record on one side; `line` is the result, None for a failure or without a counterpart."""

    is_failed: bool
    line: bytes | None


class Pair(NamedTuple):
    """A document's last record on each side; None where a side has no record."""

    id: str
    before: LastRecord | None
    after: LastRecord | None


class PairTable:
    """The pairs of one comparison; `close` releases the disk space."""

    def __init__(self) -> None:
        """Create an empty table; OutputError when there is no disk space for it (TMPDIR)."""
        try:
            # the file is unlinked while it is open, so that not even kill -9 leaves it behind
            with tempfile.TemporaryDirectory(prefix="pipeline-pairs-") as folder:
                self._db = sqlite3.connect(Path(folder) / "pairs.sqlite3", isolation_level=None)
                for statement in _TABLE:
                    self._db.execute(statement)
        except (sqlite3.Error, OSError) as exc:
            raise _no_room(exc) from exc

    def close(self) -> None:
        """Close the database, which deletes it."""
        self._db.close()

    def read_outputs(self, before: ReadableOutput, after: ReadableOutput) -> tuple[int, int]:
        """Read two outputs; return the number of records of each. Lines without a counterpart are not kept."""
        of_after = self._add((id, AFTER, run, done, line) for id, _, run, done, line in _lines(after))
        has = "SELECT 1 FROM last WHERE id = ? AND side = ?"
        of_before = self._add(
            (id, BEFORE, run, done, line if self._exists(has, id, AFTER) else None)
            for id, _, run, done, line in _lines(before)
        )
        return of_before, of_after

    def read_fingerprints(self, backend: ReadableOutput, *, same_as: Mapping[str, str]) -> int:
        """Read the last record of each document and fingerprint; return the number of records.

        `same_as`: former fingerprint → present one.
        """
        numbers: dict[str, int] = {}
        return self._add(
            (id, numbers.setdefault(same_as.get(fingerprint, fingerprint), len(numbers)), run, done, line)
            for id, fingerprint, run, done, line in _lines(backend)
        )

    def outputs(self) -> Iterator[Pair]:
        """Yield a pair for each document of either output, sorted by id."""
        for id, rows in self._documents():
            sides = {side: last for side, _, last in rows}
            yield Pair(id, sides.get(BEFORE), sides.get(AFTER))

    def fingerprints(self) -> Iterator[Pair]:
        """Yield for each document the records of its last two fingerprints; `before` is None when there is only one."""
        for id, rows in self._documents():
            *earlier, (_, _, after) = sorted(rows, key=itemgetter(1))
            yield Pair(id, earlier[-1][2] if earlier else None, after)

    def _add(self, rows: Iterator[tuple[str, int, int, bool, bytes | None]]) -> int:
        """Insert the rows; return their number."""
        count = 0
        try:
            for id, side, run, done, line in rows:
                packed = zlib.compress(line, 1) if done and line is not None else None
                self._db.execute(_LATER_WINS, (id, side, run, done, packed))
                count += 1
        except (sqlite3.Error, OverflowError) as exc:
            raise _no_room(exc) from exc
        return count

    def _exists(self, query: str, *values: object) -> bool:
        return self._db.execute(query, values).fetchone() is not None

    def _documents(self) -> Iterator[tuple[str, list[tuple[int, tuple[int, int], LastRecord]]]]:
        """Yield each id with its sides: the side's number, its age for sorting (run, done), and the record."""
        rows = self._db.execute("SELECT id, side, run, done, line FROM last ORDER BY id, side")
        for id, group in groupby(rows, key=itemgetter(0)):
            yield id, [(side, (run, done), _last_record(done, line)) for _, side, run, done, line in group]


def _last_record(done: int, line: bytes | None) -> LastRecord:
    return LastRecord(not done, None if line is None else zlib.decompress(line))


def _lines(backend: ReadableOutput) -> Iterator[tuple[str, str, int, bool, bytes]]:
    for kind in KINDS:
        for line, key in backend.records(kind):
            yield key.id, key.fingerprint, key.run, key.reason is None, line


def _no_room(exc: Exception) -> OutputError:
    return OutputError(f"the comparison, in {temporary_folder()}: {exc}; it needs disk space for the results (TMPDIR)")
