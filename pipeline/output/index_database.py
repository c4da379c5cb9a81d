"""The sqlite3 file of the index: one connection, one lock, and inserts that wait to share a statement.

A statement takes 4 µs, and gives up the GIL: another of many threads takes it, and this one waits for its turn. So
inserts wait until 64 of them share one statement, and whoever queries their table writes them first. An IdFilter
answers for most ids that are not in a table, without a query. This module must not know what the tables mean.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Hashable, Iterable, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError
from pipeline.stores.local import temporary_folder

_SHARED = 64
"""Rows of one statement: more hardly make a row cheaper, and sqlite before 3.32 allows 999 values, 90 rows of 11."""
_FILTER_BITS = 1 << 23
"""One megabyte: with a million ids one answer in nine needs a query, with five million every second one."""


class IdFilter:
    """A quick test whether an id was added before: False is certain, True is not (a Bloom filter with one hash)."""

    def __init__(self) -> None:
        self._bits = bytearray(_FILTER_BITS >> 3)

    def add(self, id: Hashable) -> bool:
        """Add an id; return False when it certainly was not added before. One thread at a time."""
        place = hash(id) % _FILTER_BITS
        byte = self._bits[place >> 3]
        bit = 1 << (place & 7)
        self._bits[place >> 3] = byte | bit
        return bool(byte & bit)

    def may_hold(self, id: Hashable) -> bool:
        """Return False when the id certainly was not added."""
        place = hash(id) % _FILTER_BITS
        return bool(self._bits[place >> 3] & (1 << (place & 7)))


class _Inserts:
    """Inserts into one table that wait; `row` are the placeholders of one row."""

    def __init__(self, insert: str, row: str, end: str) -> None:
        self.rows: list[Sequence[Any]] = []
        self._one = f"{insert} VALUES {row} {end}"
        self._many = f"{insert} VALUES {', '.join([row] * _SHARED)} {end}"

    def write(self, database: sqlite3.Connection) -> None:
        if len(self.rows) == _SHARED:
            database.execute(self._many, list(chain.from_iterable(self.rows)))
        else:
            database.executemany(self._one, self.rows)
        self.rows.clear()


class IndexDatabase:
    """The database; safe for use from any thread. Its errors are OutputErrors: the disk is full (TMPDIR)."""

    def __init__(self, schema: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._inserts: dict[str, _Inserts] = {}
        try:
            # the file is unlinked while it is open, so that not even kill -9 leaves it behind
            with tempfile.TemporaryDirectory(prefix="pipeline-index-") as folder:
                path = Path(folder) / "index.sqlite3"
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                for statement in schema:
                    self._db.execute(statement)
        except (sqlite3.Error, OSError) as exc:
            raise _no_room(exc) from exc

    def insert_all(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Insert many rows with one query."""
        try:
            with self._lock, closing(self._db.cursor()) as cursor:
                cursor.executemany(query, rows)
        except sqlite3.Error as exc:
            raise _no_room(exc) from exc

    def delay_inserts(self, table: str, insert: str, row: str, end: str = "") -> None:
        """Declare the statement of `insert_later` for a table: its beginning, the placeholders of a row, its end."""
        self._inserts[table] = _Inserts(insert, row, end)

    def insert_later(self, table: str, *values: Any) -> None:
        """Insert one row, at the latest before the next query of its table."""
        inserts = self._inserts[table]
        try:
            with self._lock:
                inserts.rows.append(values)
                if len(inserts.rows) >= _SHARED:
                    inserts.write(self._db)
        except sqlite3.Error as exc:
            raise _no_room(exc) from exc

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return the rows of a query of any tables."""
        return self.rows_of(self._inserts, query, *values)

    def rows_of(self, tables: Iterable[str], query: str, *values: object) -> list[Any]:
        """Return the rows of a query of these tables."""
        try:
            with self._lock:
                for table in tables:
                    if self._inserts[table].rows:
                        self._inserts[table].write(self._db)
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as exc:
            raise _no_room(exc) from exc

    def close(self) -> None:
        """Close the database, which releases the disk space."""
        with self._lock:
            self._db.close()


def _no_room(exc: Exception) -> OutputError:
    return OutputError(
        f"the index of the output, in {temporary_folder()}: {exc};"
        " it needs about 300 bytes of disk space per document, and 1 kB for one that is identical to another (TMPDIR)"
    )
