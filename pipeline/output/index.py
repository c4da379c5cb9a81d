"""What is done, seen and failed: one sqlite3 file on disk, built from the records' own lines.

It must not be the truth: the lines are, and the index can always be rebuilt from them.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, OutputError
from pipeline.output.accepted import AcceptedFailure
from pipeline.output.record_keys import Kind, RecordKey
from pipeline.records import Known

_PAGE = 500
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COLUMNS = "id, run, sha256, fingerprint, variant, version, reason, runs, run_id, decided_by"
_TABLE = """CREATE TABLE {} (id TEXT PRIMARY KEY, run INTEGER, sha256 TEXT, fingerprint INTEGER, variant INTEGER,
    version TEXT, reason TEXT, runs INTEGER, run_id INTEGER, decided_by TEXT) WITHOUT ROWID"""
_LATER_WINS = """INSERT INTO {} VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET (run, sha256, fingerprint,
    variant, version, reason, runs, run_id, decided_by) = (excluded.run, excluded.sha256, excluded.fingerprint,
    excluded.variant, excluded.version, excluded.reason, excluded.runs, excluded.run_id, excluded.decided_by)
    WHERE excluded.run >= run"""
_SCHEMA = (
    # nothing here outlives the process, so nothing has to be safe against its end
    "PRAGMA journal_mode=OFF",
    "PRAGMA synchronous=OFF",
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA cache_size=-65536",  # while the records are read, in no order; see `slim`
    _TABLE.format("results"),
    _TABLE.format("errors"),
    "CREATE TABLE met (id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE accepted (id TEXT PRIMARY KEY, sha256 TEXT, fingerprint INTEGER, reason TEXT) WITHOUT ROWID",
    # of one run number the result is the last line: it is in no run that a document fails and is done
    """CREATE VIEW standing AS SELECT e.*, r.id IS NOT NULL AND r.sha256 IS NOT e.sha256 AS stale,
       a.id IS NOT NULL AS accepted FROM errors e LEFT JOIN results r ON r.id = e.id LEFT JOIN accepted a
       ON a.id = e.id AND a.sha256 IS e.sha256 AND a.fingerprint = e.fingerprint AND a.reason = e.reason
       WHERE r.run IS NULL OR r.run < e.run""",
    """CREATE VIEW done AS SELECT r.* FROM results r LEFT JOIN errors e ON e.id = r.id
       WHERE e.run IS NULL OR e.run <= r.run""",
    "BEGIN",
)
_ONE = f"""SELECT 0, {_COLUMNS}, 0 FROM done WHERE id = ?
    UNION ALL SELECT 1, {_COLUMNS}, accepted FROM standing WHERE id = ?"""
_Row = tuple[str, int, str | None, int, int, str | None, str | None, int, int, str | None]


class Index:
    """The last line of every id. May be asked from any thread; one connection, one lock.

    `highest_run`: of all lines and runs. `agents`: whose records were met. `error_lines`: of own ids, in what was read
    or noted.
    """

    def __init__(self) -> None:
        """An empty index; OutputError when there is no room for it (TMPDIR)."""
        self.highest_run = 0
        self.error_lines = 0
        self.agents: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []
        self._same_as: dict[int, str] = {}
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

    def add(self, kind: Kind, record_keys: Iterable[RecordKey], *, where: str, owns: Callable[[str], bool]) -> None:
        """Notes the lines of one file or part, in their order; of ids that are not owned, only run and agent.

        ConfigError, naming `where`, for a text or a number that no run has written.
        """
        try:
            with self._lock, closing(self._db.cursor()) as cursor:
                cursor.executemany(_LATER_WINS.format(kind), self._rows(record_keys, kind == "errors", owns))
        except sqlite3.Error as exc:
            raise _no_room(exc) from exc
        except (UnicodeError, OverflowError) as exc:
            raise ConfigError(f"{where}: a line has a text or a number that no run has written: {exc}") from exc

    def met(self, run: int, agent: str | None = None) -> None:
        """Notes a run number, and whose it was, of what is not read line by line."""
        self.highest_run = max(self.highest_run, run)
        if agent is not None:
            self.agents.add(agent)

    def other_fingerprints(self, current: Iterable[str]) -> set[str]:
        """Return the fingerprints of records that were asked none of the current questions."""
        same = {*current, *(self._texts[number] for number in self._same_as)}
        return {text for text in self._texts if _SHA256.fullmatch(text)} - same

    def equate(self, former: Iterable[str], fingerprint: str) -> None:
        """Report records that carry one of the former fingerprints under this one: they were asked the same."""
        for text in former:
            if text in self._numbers:
                self._same_as[self._numbers[text]] = fingerprint

    def equated(self) -> dict[str, str]:
        """Return the present fingerprint of each former one that records carry."""
        return {self._texts[number]: present for number, present in self._same_as.items()}

    def slim(self) -> None:
        """Gives memory back: a run asks in the order of the listing, so that few pages are wanted at a time."""
        self._ask("PRAGMA cache_size=-4096")
        self._ask("PRAGMA shrink_memory")

    def close(self) -> None:
        """Gives the disk space back."""
        with self._lock:
            self._db.close()

    def known(self, document_id: str) -> Known | None:
        """What the last line of an id says; None when it has none."""
        rows = self._ask(_ONE, document_id, document_id)
        return self._to_known(rows[0]) if rows else None

    def record(self, head: RecordKey) -> None:
        """Notes an outcome of this run, whose line has been written."""
        self.error_lines += head.reason is not None
        self.agents.add(head.agent)
        self._ask(_LATER_WINS.format("errors" if head.reason is not None else "results"), *self._to_row(head))

    def mended(self, archive_id: str) -> None:
        """Forgets that an earlier run could not read a file of many documents to its end: each of those has a line."""
        self._ask("DELETE FROM errors WHERE id = ? AND run <= ?", archive_id, self.highest_run)

    def seen(self, document_id: str) -> bool:
        """True when this run has met the id before; it has met it from now on."""
        try:
            with self._lock:
                return self._db.execute("INSERT OR IGNORE INTO met VALUES (?)", (document_id,)).rowcount == 0
        except sqlite3.Error as exc:
            raise _no_room(exc) from exc

    def was_seen(self, document_id: str) -> bool:
        """True when `seen` was asked of the id before."""
        return bool(self._ask("SELECT 1 FROM met WHERE id = ?", document_id))

    def stands(self, document_id: str, run: int) -> bool:
        """True when the failure that this run has written is the id's last line."""
        return bool(self._ask("SELECT 1 FROM standing WHERE id = ? AND run = ?", document_id, run))

    def is_accepted(self, document_id: str) -> bool:
        """True when the id remains failed, and a person has accepted this failure."""
        return bool(self._ask("SELECT 1 FROM standing WHERE id = ? AND accepted", document_id))

    def has_stale_result(self, document_id: str) -> bool:
        """True when the id stands as failed and has a result of other bytes."""
        return bool(self._ask("SELECT 1 FROM standing WHERE id = ? AND stale", document_id))

    def accept(self, failures: Iterable[AcceptedFailure]) -> None:
        """Note the failures that a person has accepted; each holds for exactly that failure of that document."""
        for each in failures:
            values = (each.id, each.sha256, self._number(each.fingerprint), each.reason)
            self._ask("INSERT OR REPLACE INTO accepted VALUES (?,?,?,?)", *values)

    def failed(self, reasons: Collection[str] | None = None, *, only_met: bool = False) -> Iterator[tuple[str, Known]]:
        """The ids that stand as failed, in order, with their last lines; only those with these reasons, if given.

        `only_met`: only documents that this run has met in its input.
        """
        after = ""
        met = "AND id IN met" if only_met else ""
        query = f"SELECT 1, {_COLUMNS}, accepted FROM standing WHERE id > ? {met} ORDER BY id LIMIT {_PAGE}"
        while rows := self._ask(query, after):
            after = rows[-1][1]
            for row in rows:
                if reasons is None or row[7] in reasons:
                    yield row[1], self._to_known(row)

    def failed_count(self) -> int:
        """How many documents stand as failed."""
        return int(self._ask("SELECT count(*) FROM standing")[0][0])

    def knows_question(self, fingerprint: str) -> bool:
        """True when a line of this fingerprint was met, also one that a later line has replaced."""
        return fingerprint in self._numbers or fingerprint in self._same_as.values()

    def met_done_count(self) -> int:
        """How many of the documents that this run has met are done."""
        return int(self._ask("SELECT count(*) FROM done WHERE id IN met")[0][0])

    def counts(self) -> dict[str, Any]:
        """Documents of the whole output: done, failed, stale, accepted; failed by reason; both by variant.

        `questions`: done ones by variant and fingerprint.
        """
        reasons = self._ask(
            "SELECT reason, count(*), sum(stale), sum(accepted) FROM standing GROUP BY reason ORDER BY 2 DESC, 1"
        )
        variants: dict[str, dict[str, int]] = {}
        for state, view in (("done", "done"), ("failed", "standing")):
            for number, documents in self._ask(f"SELECT variant, count(*) FROM {view} GROUP BY variant"):
                variants.setdefault(self._texts[number], {"done": 0, "failed": 0})[state] = documents
        return {
            "done": sum(variant["done"] for variant in variants.values()),
            "failed": sum(documents for _, documents, _, _ in reasons),
            "stale": sum(stale for _, _, stale, _ in reasons),
            "accepted": sum(accepted for _, _, _, accepted in reasons),
            "reasons": {reason: documents for reason, documents, _, _ in reasons},
            "variants": variants,
            "questions": self._questions(),
        }

    def _questions(self) -> dict[str, dict[str, int]]:
        questions: dict[str, dict[str, int]] = {}
        query = "SELECT variant, fingerprint, count(*) FROM done GROUP BY variant, fingerprint"
        for variant, fingerprint, documents in self._ask(query):
            row, name = questions.setdefault(self._texts[variant], {}), self._fingerprint(fingerprint)
            row[name] = row.get(name, 0) + documents
        return questions

    def results(self, agent: str) -> Iterator[RecordKey]:
        """The last lines of all results, in order of their ids; they do not say whose they are."""
        after, texts = "", self._texts
        query = f"SELECT {_COLUMNS} FROM results WHERE id > ? ORDER BY id LIMIT {_PAGE}"
        while rows := self._ask(query, after):
            after = rows[-1][0]
            for id, run, sha256, fingerprint, variant, version, reason, runs, run_id, _ in rows:
                # fmt: off
                yield RecordKey(id, run, sha256, agent, texts[variant], texts[fingerprint], version, reason, runs,
                           texts[run_id])
                # fmt: on

    def done(self) -> Iterator[tuple[str, str]]:
        """The documents that are done, in order of their ids, each with the fingerprint of what it was asked."""
        after = ""
        query = f"SELECT id, fingerprint FROM done WHERE id > ? ORDER BY id LIMIT {_PAGE}"
        while rows := self._ask(query, after):
            after = rows[-1][0]
            for document_id, number in rows:
                yield document_id, self._fingerprint(number)

    def _rows(self, record_keys: Iterable[RecordKey], is_errors: bool, owns: Callable[[str], bool]) -> Iterator[_Row]:
        number, agents = self._number, self.agents
        # unpacked, not read by name: this loop runs once for every line of the output
        for id, run, sha256, agent, variant, fingerprint, version, reason, runs, run_id, decided_by in record_keys:
            agents.add(agent)
            if run > self.highest_run:
                self.highest_run = run
            if owns(id):
                self.error_lines += is_errors
                # fmt: off
                yield (id, run, sha256, number(fingerprint), number(variant), version, reason, runs, number(run_id),
                       decided_by)
                # fmt: on

    def _to_row(self, head: RecordKey) -> _Row:
        number = self._number
        # fmt: off
        return (head.id, head.run, head.sha256, number(head.fingerprint), number(head.variant),
                head.version, head.reason, head.runs, number(head.run_id), head.decided_by)
        # fmt: on

    def _to_known(self, row: tuple[Any, ...]) -> Known:
        failed, _, run, sha256, fingerprint, _, version, reason, runs, run_id, decided_by, accepted = row
        texts = self._texts
        # fmt: off
        return Known(sha256, self._fingerprint(fingerprint), version, bool(failed), reason, runs, run, texts[run_id],
                     decided_by, bool(accepted))
        # fmt: on

    def _fingerprint(self, number: int) -> str:
        return self._same_as.get(number) or self._texts[number]

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


def _no_room(exc: Exception) -> OutputError:
    return OutputError(
        f"the index of what is done, in {tempfile.gettempdir()}: {exc};"
        " it needs about 250 bytes of room a document (TMPDIR)"
    )
