"""What is done, seen and failed: one sqlite3 file on disk, built from the records' own lines.

It must not be the truth: the lines are, and the index can always be rebuilt from them.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, OutputError
from pipeline.output.heads import head_of, heads_of
from pipeline.output.lines import Damage, last_object, read_lines
from pipeline.output.runs import read_runs
from pipeline.records import Known
from pipeline.shards import WHOLE, Shard

RECORD_FILE = re.compile(r"(results|errors)(?:-\d{5}-of-(\d{5}))?\.jsonl")
_PAGE = 500
_COLUMNS = "id, run, sha256, fingerprint, variant, version, reason, runs, run_id"
_TABLE = """CREATE TABLE {} (id TEXT PRIMARY KEY, run INTEGER, sha256 TEXT, fingerprint INTEGER, variant INTEGER,
    version TEXT, reason TEXT, runs INTEGER, run_id INTEGER) WITHOUT ROWID"""
_LATER_WINS = """INSERT INTO {} VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET (run, sha256, fingerprint,
    variant, version, reason, runs, run_id) = (excluded.run, excluded.sha256, excluded.fingerprint, excluded.variant,
    excluded.version, excluded.reason, excluded.runs, excluded.run_id) WHERE excluded.run >= run"""
_SCHEMA = (
    # nothing here outlives the process, so nothing has to be safe against its end
    "PRAGMA journal_mode=OFF",
    "PRAGMA synchronous=OFF",
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA cache_size=-65536",
    _TABLE.format("results"),
    _TABLE.format("errors"),
    "CREATE TABLE met (id TEXT PRIMARY KEY) WITHOUT ROWID",
    # of one run number the result is the last line: it is in no run that a document fails and is done
    """CREATE VIEW standing AS SELECT e.*, r.id IS NOT NULL AND r.sha256 IS NOT e.sha256 AS stale
       FROM errors e LEFT JOIN results r ON r.id = e.id WHERE r.run IS NULL OR r.run < e.run""",
    """CREATE VIEW done AS SELECT r.* FROM results r LEFT JOIN errors e ON e.id = r.id
       WHERE e.run IS NULL OR e.run <= r.run""",
    "BEGIN",
)
_ONE = f"SELECT 0, {_COLUMNS} FROM done WHERE id = ? UNION ALL SELECT 1, {_COLUMNS} FROM standing WHERE id = ?"
_Row = tuple[str, int, str | None, int, int, str | None, str | None, int, int]


class Index:
    """The last line of every id. May be asked from any thread; one connection, one lock.

    `highest_run`: of all lines and runs. `agents`: whose records were met. `error_lines`: of own ids, in files that
    no other shard is writing. `damage`: what was found broken, by file.
    """

    def __init__(self) -> None:
        """An empty index; OutputError when there is no room for it (TMPDIR)."""
        self.highest_run = 0
        self.error_lines = 0
        self.agents: set[str] = set()
        self.damage: dict[Path, Damage] = {}
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []
        self._lock = threading.Lock()
        try:
            # the file has no name any more once it is open, so that not even kill -9 leaves it behind
            with tempfile.TemporaryDirectory(prefix="pipeline-index-") as folder:
                self._db = sqlite3.connect(
                    Path(folder) / "index.sqlite3", isolation_level=None, check_same_thread=False
                )
                for statement in _SCHEMA:
                    self._db.execute(statement)
        except (sqlite3.Error, OSError) as exc:
            raise _no_room(exc) from exc

    @classmethod
    def build(cls, folder: Path, *, shard: Shard | None = None) -> Index:
        """The index of an output's folder. A shard keeps the ids it owns.

        ConfigError for a line that is JSON and no record of this program: such a file is someone else's.
        """
        index, shard = cls(), shard or WHOLE
        for run in read_runs(folder):
            index.highest_run = max(index.highest_run, run["run"])
        for path in record_files(folder):
            if is_sibling(path, shard):
                index._note_sibling(path)
            else:
                index._read(path, shard)
        return index

    def close(self) -> None:
        """Gives the disk space back."""
        with self._lock:
            self._db.close()

    def known(self, document_id: str) -> Known | None:
        """What the last line of an id says; None when it has none."""
        rows = self._ask(_ONE, document_id, document_id)
        return self._to_known(rows[0]) if rows else None

    def record(self, document_id: str, known: Known, *, variant: str = "default") -> None:
        """Notes an outcome of this run, whose line has been written."""
        self._ask(
            _LATER_WINS.format("errors" if known.failed else "results"), *self._to_row(document_id, known, variant)
        )

    def seen(self, document_id: str) -> bool:
        """True when this run has met the id before; it has met it from now on."""
        try:
            with self._lock:
                return self._db.execute("INSERT OR IGNORE INTO met VALUES (?)", (document_id,)).rowcount == 0
        except sqlite3.Error as exc:
            raise _no_room(exc) from exc

    def stands(self, document_id: str, run: int) -> bool:
        """True when the failure that this run has written is the id's last line."""
        return bool(self._ask("SELECT 1 FROM standing WHERE id = ? AND run = ?", document_id, run))

    def has_stale_result(self, document_id: str) -> bool:
        """True when the id stands as failed and has a result of other bytes."""
        return bool(self._ask("SELECT 1 FROM standing WHERE id = ? AND stale", document_id))

    def failed(self, reasons: Collection[str] | None = None) -> Iterator[tuple[str, Known]]:
        """The ids that stand as failed, in order, with their last lines; only those with these reasons, if given."""
        after = ""
        query = f"SELECT 1, {_COLUMNS} FROM standing WHERE id > ? ORDER BY id LIMIT {_PAGE}"
        while rows := self._ask(query, after):
            after = rows[-1][1]
            for row in rows:
                if reasons is None or row[7] in reasons:
                    yield row[1], self._to_known(row)

    def failed_count(self) -> int:
        """How many documents stand as failed."""
        return int(self._ask("SELECT count(*) FROM standing")[0][0])

    def counts(self) -> dict[str, Any]:
        """Documents of the whole output: done, failed, stale; failed by reason; done and failed by variant."""
        reasons = self._ask("SELECT reason, count(*), sum(stale) FROM standing GROUP BY reason ORDER BY 2 DESC, 1")
        variants: dict[str, dict[str, int]] = {}
        for state, view in (("done", "done"), ("failed", "standing")):
            for number, documents in self._ask(f"SELECT variant, count(*) FROM {view} GROUP BY variant"):
                variants.setdefault(self._texts[number], {"done": 0, "failed": 0})[state] = documents
        return {
            "done": sum(variant["done"] for variant in variants.values()),
            "failed": sum(documents for _, documents, _ in reasons),
            "stale": sum(stale for _, _, stale in reasons),
            "reasons": {reason: documents for reason, documents, _ in reasons},
            "variants": variants,
        }

    def done(self) -> Iterator[tuple[str, str]]:
        """The documents that are done, in order of their ids, each with the fingerprint of what it was asked."""
        after = ""
        query = f"SELECT id, fingerprint FROM done WHERE id > ? ORDER BY id LIMIT {_PAGE}"
        while rows := self._ask(query, after):
            after = rows[-1][0]
            for document_id, number in rows:
                yield document_id, self._texts[number]

    def _read(self, path: Path, shard: Shard) -> None:
        table = path.name.partition("-")[0].partition(".")[0]
        damage = self.damage.setdefault(path, Damage())
        try:
            with self._lock, closing(self._db.cursor()) as cursor:
                cursor.executemany(_LATER_WINS.format(table), self._rows(path, damage, shard))
        except sqlite3.Error as exc:
            raise _no_room(exc) from exc
        except (UnicodeError, OverflowError) as exc:
            raise ConfigError(f"{path}: a line has a text or a number that no run has written: {exc}") from exc

    def _rows(self, path: Path, damage: Damage, shard: Shard) -> Iterator[_Row]:
        is_errors = path.name.startswith("errors")
        # a duplicate is recorded by the shard of the id it repeats, under an id that another may own
        is_own = shard.count > 0 and path.stem.endswith(shard.suffix)
        number, owns, agents = self._number, (lambda _: True) if is_own else shard.owns, self.agents
        # unpacked, not read by name: this loop runs once for every line of the output
        for id, run, sha256, agent, variant, fingerprint, version, reason, runs, run_id in read_lines(
            path, heads_of(path), damage
        ):
            agents.add(agent)
            if run > self.highest_run:
                self.highest_run = run
            if owns(id):
                self.error_lines += is_errors
                yield id, run, sha256, number(fingerprint), number(variant), version, reason, runs, number(run_id)

    def _note_sibling(self, path: Path) -> None:
        """A shard of the same count owns other ids, and appends in order: its last line says enough."""
        line = last_object(path)
        if line is not None:
            head = head_of(line, path)
            self.highest_run = max(self.highest_run, head.run)
            self.agents.add(head.agent)

    def _to_row(self, document_id: str, known: Known, variant: str) -> _Row:
        number = self._number
        # fmt: off
        return (document_id, known.run, known.sha256, number(known.fingerprint), number(variant),
                known.version, known.reason, known.runs, number(known.run_id))
        # fmt: on

    def _to_known(self, row: tuple[Any, ...]) -> Known:
        failed, _, run, sha256, fingerprint, _, version, reason, runs, run_id = row
        texts = self._texts
        return Known(sha256, texts[fingerprint], version, bool(failed), reason, runs, run, texts[run_id])

    def _number(self, text: str) -> int:
        """A short stand-in for a text that many records share; there are few of these."""
        number = self._numbers.get(text)
        if number is None:
            self._texts.append(text)
            number = self._numbers[text] = len(self._texts) - 1
        return number

    def _ask(self, query: str, *values: object) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as exc:
            raise _no_room(exc) from exc


def record_files(folder: Path) -> list[Path]:
    """The files of results and errors of all shards."""
    return sorted(path for path in folder.iterdir() if RECORD_FILE.fullmatch(path.name))


def is_sibling(path: Path, shard: Shard) -> bool:
    """True for the file of another shard of the same count, which may be written to at this moment."""
    match = RECORD_FILE.fullmatch(path.name)
    if shard.count == 0 or match is None or int(match[2] or 0) != shard.count:
        return False
    return path.name != f"{match[1]}{shard.suffix}.jsonl"


def _no_room(exc: Exception) -> OutputError:
    return OutputError(
        f"the index of what is done, in {tempfile.gettempdir()}: {exc};"
        " it needs about 250 bytes of room a document (TMPDIR)"
    )
