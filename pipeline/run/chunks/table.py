"""The files of a plan in progress, in a temporary table on disk: planned ones and new ones.

It must not hold the files of an input in memory, or decide anything.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.documents.planned import PlannedFile, planned_file
from pipeline.errors import OutputError

_SCHEMA = (
    "PRAGMA journal_mode=OFF",
    "PRAGMA synchronous=OFF",
    """CREATE TABLE planned (source INTEGER, path BLOB, number INTEGER, chunk INTEGER, line BLOB, met INTEGER,
       PRIMARY KEY (source, path, number)) WITHOUT ROWID""",
    """CREATE TABLE new (leader INTEGER, place INTEGER, bytes INTEGER, line BLOB,
       PRIMARY KEY (leader, place)) WITHOUT ROWID""",
    "CREATE TABLE changed (chunk INTEGER, place INTEGER, line BLOB, PRIMARY KEY (chunk, place)) WITHOUT ROWID",
    "CREATE TABLE ids (id BLOB PRIMARY KEY, leader INTEGER, chunk INTEGER) WITHOUT ROWID",
    "BEGIN",
)
_PAGE = 1000


class ChunkTable:
    """Rows of earlier plannings (`planned`), and rows to write, of `new_rows` files and of `changed_rows` ones."""

    def __init__(self) -> None:
        """Open the table; its file is unlinked at once, so that not even kill -9 leaves it behind."""
        try:
            with tempfile.TemporaryDirectory(prefix="pipeline-plan-") as folder:
                self._db = sqlite3.connect(Path(folder) / "plan.sqlite3", isolation_level=None)
                for statement in _SCHEMA:
                    self._db.execute(statement)
            self._place = 0
        except (sqlite3.Error, OSError) as cause:
            raise _no_room(cause) from cause

    def close(self) -> None:
        """Release the disk space."""
        self._db.close()

    def remember(self, chunk: int, rows: Iterable[tuple[PlannedFile, str]]) -> None:
        """Add the rows of a chunk that was planned before, later ones last, each with the id of its file."""
        for row, id in rows:
            source, path, number = _key(row)
            values = (source, path, number, chunk, row.to_line())
            self._do("INSERT OR REPLACE INTO planned VALUES (?,?,?,?,?,0)", *values)
            self._do("INSERT OR IGNORE INTO ids VALUES (?,NULL,?)", _bytes(id), chunk)

    def planned(self, file: PlannedFile) -> list[tuple[int, PlannedFile]]:
        """Return the chunks and rows of a file of an earlier planning, in order, and mark them as met."""
        key = _key(file)[:2]
        rows = self._do(
            "SELECT chunk, line FROM planned WHERE source = ? AND path = ? ORDER BY number",
            *key,
        )
        if rows:
            self._do("UPDATE planned SET met = 1 WHERE source = ? AND path = ?", *key)
        return [(chunk, planned_file(line)) for chunk, line in rows]

    def not_met(self) -> Iterator[tuple[int, PlannedFile]]:
        """Yield the chunks and rows of earlier plannings whose files have not been met."""
        cursor = self._db.execute("SELECT chunk, line FROM planned WHERE NOT met")
        while page := cursor.fetchmany(_PAGE):
            yield from ((chunk, planned_file(line)) for chunk, line in page)

    def add(self, row: PlannedFile, *, id: str) -> None:
        """Add a new file. It follows an earlier file with the same id, so that one chunk detects the repeated id."""
        self._place += 1
        earlier = self._do("SELECT leader, chunk FROM ids WHERE id = ?", _bytes(id))
        leader, chunk = earlier[0] if earlier else (self._place, None)
        if chunk is not None:
            self.change(chunk, row)
            return
        if not earlier:
            self._do("INSERT INTO ids VALUES (?,?,NULL)", _bytes(id), leader)
        self._do(
            "INSERT INTO new VALUES (?,?,?,?)",
            leader,
            self._place,
            row.weight_bytes,
            row.to_line(),
        )

    def change(self, chunk: int, row: PlannedFile) -> None:
        """Add a row that belongs to an earlier chunk."""
        self._place += 1
        self._do("INSERT INTO changed VALUES (?,?,?)", chunk, self._place, row.to_line())

    def new_rows(self) -> Iterator[tuple[bool, PlannedFile]]:
        """Yield the new rows, in order; the flag is True for a row that follows another of the same id."""
        cursor = self._db.execute("SELECT leader, place, line FROM new ORDER BY leader, place")
        while page := cursor.fetchmany(_PAGE):
            yield from ((leader != place, planned_file(line)) for leader, place, line in page)

    def new_bytes(self) -> int:
        """Return the bytes of the new rows."""
        return int(self._do("SELECT coalesce(sum(bytes), 0) FROM new")[0][0])

    def changed_rows(self) -> Iterator[tuple[int, bytes]]:
        """Yield the rows of earlier chunks, chunk by chunk, as lines."""
        cursor = self._db.execute("SELECT chunk, line FROM changed ORDER BY chunk, place")
        while page := cursor.fetchmany(_PAGE):
            yield from page

    def _do(self, query: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as cause:
            raise _no_room(cause) from cause


def _key(file: PlannedFile) -> tuple[int, bytes, int]:
    source, path, number = file.key
    return source, _bytes(path), number


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _no_room(cause: Exception) -> OutputError:
    need = "it needs about 400 bytes of disk space for each file of the input (TMPDIR)"
    return OutputError(f"cannot use the plan's table of files in {tempfile.gettempdir()}: {cause}; {need}")
