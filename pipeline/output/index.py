"""The index of an output: the done, met and failed documents in one sqlite3 file on disk, built from the records.

It is a cache that every start rebuilds: the lines of the records are the truth. index_tables.py explains its tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from pipeline.errors import ConfigError
from pipeline.output import index_tables as tables
from pipeline.output.accepted import AcceptedFailure
from pipeline.output.index_database import IdFilter, IndexDatabase
from pipeline.output.record_keys import KINDS, Kind, RecordKey, until_stopped
from pipeline.records import LatestRecord

_PAGE = 500
"""Rows fetched at a time: other threads may query between two pages, and few rows are held in memory."""

_WORTH_IDS = 4
"""Fewer ids are read faster one by one."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_Row = tuple[str, int, str | None, int, int, str | None, str | None, int, int, str | None, int | None]


class Index:
    """The last line of every id. Safe for use from any thread.

    `database`: its tables, and those of the modules that share the file. `highest_run`: the highest run number in all
    lines and summaries. `agents`: the agents of all records. `error_lines`: the number of error lines of owned ids.
    """

    def __init__(self) -> None:
        """Create an empty index; OutputError when there is no disk space for it (TMPDIR)."""
        self.highest_run = 0
        self.error_lines = 0
        self._has_errors = False
        self.is_stopped: Callable[[], bool] = lambda: False
        self.agents: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []
        self._same_as: dict[int, str] = {}
        self._recorded = IdFilter()
        self._met = IdFilter()
        self._looked_up: dict[str, LatestRecord] = {}
        self.database = IndexDatabase(tables.SCHEMA)
        self.rows = self.database.rows
        self.database.delay_inserts("met", "INSERT OR IGNORE INTO met", "(?)")
        for table in KINDS:
            self.database.delay_inserts(table, f"INSERT INTO {table}", tables.ROW, tables.LATER_WINS)

    def add(self, kind: Kind, record_keys: Iterable[RecordKey], *, where: str, owns: Callable[[str], bool]) -> None:
        """Add the lines of one file or part, in order; of ids that are not owned, only the run and the agent.

        Raise ConfigError that names `where` for a value that no run writes, TryLaterError once `is_stopped` is true.
        """
        rows = self._rows(until_stopped(record_keys, self.is_stopped), kind == "errors", owns)
        try:
            self.database.insert_all(f"INSERT INTO {kind} VALUES {tables.ROW} {tables.LATER_WINS}", rows)
        except (UnicodeError, OverflowError) as exc:
            raise ConfigError(f"{where}: a line has a text or a number that no run has written: {exc}") from exc

    def add_run(self, run: int, agent: str | None = None) -> None:
        """Add the run number, and the agent, of records that are not read line by line."""
        self.highest_run = max(self.highest_run, run)
        if agent is not None:
            self.agents.add(agent)

    def other_fingerprints(self, current: Iterable[str]) -> set[str]:
        """Return the fingerprints of records that are not equal to any of the current ones."""
        current_texts = {*current, *(self._texts[number] for number in self._same_as)}
        return {text for text in self._texts if _SHA256.fullmatch(text)} - current_texts

    def equate(self, former: Iterable[str], fingerprint: str) -> None:
        """Treat records with a former fingerprint as records with this one: their requests were the same."""
        for text in former:
            if text in self._numbers:
                self._same_as[self._numbers[text]] = fingerprint

    def former_fingerprints(self) -> dict[str, str]:
        """Return the current fingerprint of each former one that records have."""
        return {self._texts[number]: present for number, present in self._same_as.items()}

    def release_memory(self) -> None:
        """Release memory after the build: a run queries in listing order, which needs few pages at a time (4 MiB)."""
        for statement in ("COMMIT", "BEGIN"):  # detect a full disk before the first request
            self.rows(statement)
        self.rows("PRAGMA cache_size=-4096")
        self.rows("PRAGMA shrink_memory")

    def close(self) -> None:
        """Close the database, which releases the disk space."""
        self.database.close()

    def latest(self, document_id: str) -> LatestRecord | None:
        """Return the last line of an id; None without any."""
        if not self._recorded.may_hold(document_id):
            return None
        looked_up = self._looked_up.pop(document_id, None)
        if looked_up is not None:
            return looked_up
        if self._has_errors:
            rows = self.database.rows_of(KINDS, tables.LATEST, document_id, document_id)
            return self._to_latest(rows[0]) if rows else None
        # without error lines the views return the rows of the table, but take five times as long
        for row in self.database.rows_of(KINDS, tables.RESULT, document_id):
            return self._to_result(row)
        return None

    def look_up(self, document_ids: Iterable[str]) -> None:
        """Read the last lines of documents that `latest` will soon be called for; at most tables.TOGETHER of them."""
        may_hold = self._recorded.may_hold
        ids = [document_id for document_id in document_ids if may_hold(document_id)]
        if len(ids) < _WORTH_IDS:
            return
        ids += ids[:1] * (tables.TOGETHER - len(ids))
        if self._has_errors:
            rows = self.database.rows_of(KINDS, tables.LATEST_OF, *ids, *ids)
            self._looked_up = {row[1]: self._to_latest(row) for row in rows}
        else:
            rows = self.database.rows_of(KINDS, tables.RESULTS_OF, *ids)
            self._looked_up = {row[0]: self._to_result(row) for row in rows}

    def record(self, key: RecordKey) -> None:
        """Add an outcome of this run whose line has been written."""
        self.error_lines += key.reason is not None
        self._has_errors = self._has_errors or key.reason is not None
        self.agents.add(key.agent)
        self._recorded.add(key.id)
        self._looked_up.pop(key.id, None)
        self.database.insert_later("errors" if key.reason is not None else "results", *self._to_row(key))

    def clear_archive_failure(self, archive_id: str) -> None:
        """Remove the failure of an archive that was now read completely; each of its documents has its own line."""
        self.rows("DELETE FROM errors WHERE id = ? AND run <= ?", archive_id, self.highest_run)

    def mark_met(self, document_id: str) -> bool:
        """Mark the id as met in the input of this run; return True when it was met before. For the reader's thread."""
        is_met = self._met.add(document_id) and self.was_met(document_id)
        if not is_met:
            self.database.insert_later("met", document_id)
        return is_met

    def was_met(self, document_id: str) -> bool:
        """Return True when `mark_met` was called for the id."""
        return bool(self.rows("SELECT 1 FROM met WHERE id = ?", document_id))

    def is_current_failure(self, document_id: str, run: int) -> bool:
        """Return True when the failure written by this run is the id's last line."""
        return bool(self.rows("SELECT 1 FROM failed WHERE id = ? AND run = ?", document_id, run))

    def is_accepted(self, document_id: str) -> bool:
        """Return True when the id is failed, and a person has accepted this failure."""
        return bool(self.rows("SELECT 1 FROM failed WHERE id = ? AND accepted", document_id))

    def has_stale_result(self, document_id: str) -> bool:
        """Return True when the id is failed and has an earlier result for different bytes."""
        return bool(self.rows("SELECT 1 FROM failed WHERE id = ? AND stale", document_id))

    def accept(self, failures: Iterable[AcceptedFailure]) -> None:
        """Add the failures that a person has accepted; each applies to exactly that failure of that document."""
        for failure in failures:
            values = (failure.id, failure.sha256, self._number(failure.fingerprint), failure.reason)
            self.rows("INSERT OR REPLACE INTO accepted VALUES (?,?,?,?)", *values)

    def failed(
        self, reasons: Collection[str] | None = None, *, only_met: bool = False
    ) -> Iterator[tuple[str, LatestRecord]]:
        """Yield the failed ids, sorted, with their last lines; only those with these reasons, if given.

        `only_met`: only documents that this run has met in its input.
        """
        after = ""
        met = "AND id IN met" if only_met else ""
        query = f"SELECT 1, {tables.COLUMNS}, accepted FROM failed WHERE id > ? {met} ORDER BY id LIMIT {_PAGE}"
        while rows := self.rows(query, after):
            after = rows[-1][1]
            for row in rows:
                if reasons is None or row[7] in reasons:
                    yield row[1], self._to_latest(row)

    def failed_count(self) -> int:
        """Return the number of failed documents."""
        return int(self.rows("SELECT count(*) FROM failed")[0][0])

    def knows_question(self, fingerprint: str) -> bool:
        """Return True when any line has this fingerprint, including replaced lines."""
        return fingerprint in self._numbers or fingerprint in self._same_as.values()

    def met_done_count(self) -> int:
        """Return the number of done documents among those that this run has met."""
        return int(self.rows("SELECT count(*) FROM done WHERE id IN met")[0][0])

    def counts(self) -> dict[str, Any]:
        """Count the documents of the whole output: done, failed, stale, accepted; by reason, variant and question."""
        reasons = self.rows(
            "SELECT reason, count(*), sum(stale), sum(accepted) FROM failed GROUP BY reason ORDER BY 2 DESC, 1"
        )
        variants: dict[str, dict[str, int]] = {}
        for state, view in (("done", "done"), ("failed", "failed")):
            for number, documents in self.rows(f"SELECT variant, count(*) FROM {view} GROUP BY variant"):
                variants.setdefault(self._texts[number], {"done": 0, "failed": 0})[state] = documents
        return {
            "done": sum(variant["done"] for variant in variants.values()),
            "failed": sum(documents for _, documents, _, _ in reasons),
            "stale": sum(stale for _, _, stale, _ in reasons),
            "accepted": sum(accepted for _, _, _, accepted in reasons),
            "reasons": {reason: documents for reason, documents, _, _ in reasons},
            "variants": variants,
            "questions": self.questions(),
        }

    def questions(self) -> dict[str, dict[str, int]]:
        """Return the number of done documents by variant and fingerprint."""
        questions: dict[str, dict[str, int]] = {}
        query = "SELECT variant, fingerprint, count(*) FROM done GROUP BY variant, fingerprint"
        for variant, fingerprint, documents in self.rows(query):
            row = questions.setdefault(self._texts[variant], {})
            name = self.fingerprint_of(fingerprint)
            row[name] = row.get(name, 0) + documents
        return questions

    def results(self, agent: str) -> Iterator[RecordKey]:
        """Yield the last lines of all results, sorted by id, with `agent`, which the index does not store."""
        after = ""
        texts = self._texts
        query = f"SELECT {tables.COLUMNS}, question FROM results WHERE id > ? ORDER BY id LIMIT {_PAGE}"
        while rows := self.rows(query, after):
            after = rows[-1][0]
            for id, run, sha256, fingerprint, variant, version, reason, runs, run_id, decided_by, question in rows:
                # fmt: off
                yield RecordKey(id, run, sha256, agent, texts[variant], texts[fingerprint], version, reason, runs,
                                texts[run_id], decided_by, question)
                # fmt: on

    def done(self) -> Iterator[tuple[str, str]]:
        """Yield the done documents, sorted by id, each with its fingerprint."""
        after = ""
        query = f"SELECT id, fingerprint FROM done WHERE id > ? ORDER BY id LIMIT {_PAGE}"
        while rows := self.rows(query, after):
            after = rows[-1][0]
            for document_id, number in rows:
                yield document_id, self.fingerprint_of(number)

    def _rows(self, record_keys: Iterable[RecordKey], is_errors: bool, owns: Callable[[str], bool]) -> Iterator[_Row]:
        number = self._number
        agents = self.agents
        recorded = self._recorded.add
        # unpacking is faster than attributes, and this loop runs once for every line of the output
        for key in record_keys:
            id, run, sha256, agent, variant, fingerprint, version, reason, runs, run_id, decided_by, question = key
            agents.add(agent)
            if run > self.highest_run:
                self.highest_run = run
            if owns(id):
                recorded(id)
                self.error_lines += is_errors
                self._has_errors = self._has_errors or is_errors
                # fmt: off
                yield (id, run, sha256, number(fingerprint), number(variant), version, reason, runs, number(run_id),
                       decided_by, question)
                # fmt: on

    def _to_row(self, key: RecordKey) -> _Row:
        number = self._number
        # fmt: off
        return (key.id, key.run, key.sha256, number(key.fingerprint), number(key.variant),
                key.version, key.reason, key.runs, number(key.run_id), key.decided_by, key.question)
        # fmt: on

    def _to_result(self, row: tuple[Any, ...]) -> LatestRecord:
        _, run, sha256, fingerprint, version, run_id = row
        return LatestRecord(sha256, self.fingerprint_of(fingerprint), version, False, None, 0, run, self._texts[run_id])

    def _to_latest(self, row: tuple[Any, ...]) -> LatestRecord:
        failed, _, run, sha256, fingerprint, _, version, reason, runs, run_id, decided_by, accepted = row
        texts = self._texts
        # fmt: off
        return LatestRecord(sha256, self.fingerprint_of(fingerprint), version, bool(failed), reason, runs, run,
                            texts[run_id], decided_by, bool(accepted))
        # fmt: on

    def fingerprint_of(self, number: int) -> str:
        """Return the current fingerprint of a number in the tables."""
        return self._same_as.get(number) or self._texts[number]

    def _number(self, text: str) -> int:
        """Return the number of a shared text in the tables."""
        number = self._numbers.get(text)
        if number is None:
            self._texts.append(text)
            number = self._numbers[text] = len(self._texts) - 1
        return number
