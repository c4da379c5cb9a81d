"""Documents with the same request as another one: rows on disk until their records are written.

Memory holds a count only. The tables are in the file of the index (index.py) and are deleted with it:

    answered  the requests answered before this run, each with the document and the run of its record
    asked     the requests of this run, each with the document that is sent
    waiting   the documents that wait for the record of another one, each with the fields of its own record

The table `answered` finds a candidate by 60 bits of the question's digest; its line is compared by the whole digest
before it is copied. It is a snapshot: a document that changes replaces its row in the index, but its earlier record
remains in the output.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal

from pipeline.errors import kind_of
from pipeline.output.backend import ReadableOutput
from pipeline.output.index import Index
from pipeline.output.index_database import IdFilter
from pipeline.output.record_keys import KINDS, question_number
from pipeline.records import Entry, Failure, ModelMetadata, Result, Usage, utc_now

_TABLES = (
    "CREATE TABLE asked (question BLOB PRIMARY KEY, id TEXT) WITHOUT ROWID",
    "CREATE TABLE waiting (original TEXT, run INTEGER, id TEXT, own TEXT, PRIMARY KEY (original, run, id))"
    " WITHOUT ROWID",
)
_ANSWERED = (
    "CREATE TABLE answered (question INTEGER, fingerprint INTEGER, id TEXT, run INTEGER,"
    " PRIMARY KEY (question, fingerprint)) WITHOUT ROWID",
    "INSERT OR IGNORE INTO answered SELECT question, fingerprint, id, run FROM results WHERE question IS NOT NULL"
    " ORDER BY 1, 2",
)
COPY_NOTES = ("shared", "reused")
"""The kinds of note that name the original of a copy, as `kind:ID`."""
_SHARED_KINDS = ("document", "answer")
_PAGE = 200
_FILTER_BYTES = 1 << 17
"""A million bits: with 100,000 originals about one line in ten needs a query, with a thousand hardly any."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A document with the same request as `original`; it gets a copy of the original's record of that run.

    `own_fields`: the fields of its record that are not copied.
    """

    id: str
    original: str
    run: int
    own_fields: Mapping[str, Any]


class Copies:
    """The copies of one run; `claim` and `answered_before` may be called from any thread.

    `waiting`: how many wait for a record. `is_last_pass`: the waiting documents whose originals have no record are
    sent.
    """

    def __init__(self, index: Index, *, run: int, doubtful: Mapping[str, int]) -> None:
        """`run`: the number of this run. `doubtful`: results that are to be requested again, each with its run.

        OutputError when there is no disk space for the tables.
        """
        self.run = run
        self.waiting = 0
        self._index = index
        self._doubtful = doubtful
        self.is_last_pass = False
        self._has_snapshot = False
        self._is_first = False
        self._snapshot = threading.Lock()
        self._claims = threading.Lock()
        self._asked = IdFilter()
        for statement in _TABLES:
            index.rows(statement)
        index.database.delay_inserts("asked", "INSERT INTO asked", "(?,?)")

    def claim(self, question: str, fingerprint: str, document_id: str) -> str | None:
        """Return the document that is sent with this request in this run; None: send `document_id` itself."""
        key = sha256(f"{fingerprint}/{question}".encode()).digest()
        with self._claims:
            if not self._asked.add(key):
                self._index.database.insert_later("asked", key, document_id)
                return None
            rows = self._index.rows("SELECT id FROM asked WHERE question = ?", key)
            if rows and rows[0][0] != document_id and self._will_answer(rows[0][0]):
                return str(rows[0][0])
            self._index.rows("INSERT OR REPLACE INTO asked VALUES (?,?)", key, document_id)
            return None

    def _will_answer(self, original: str) -> bool:
        """Return True while the original has a record of this run that can be copied, or may still get one."""
        entry = self._index.latest(original)
        if entry is None or entry.run != self.run:
            return not self.is_last_pass
        return not entry.failed or _is_shared(entry.reason)

    def answered_before(self, question: str, fingerprints: Collection[str], document_id: str) -> tuple[str, int] | None:
        """Return another document with this request in an earlier run, and the run of its result."""
        if self.is_last_pass:
            return None
        with self._snapshot:
            if not self._has_snapshot:
                for statement in _ANSWERED:
                    self._index.rows(statement)
                self._is_first = not self._index.rows("SELECT 1 FROM answered LIMIT 1")
                self._has_snapshot = True
        if self._is_first:
            return None
        query = "SELECT fingerprint, id, run FROM answered WHERE question = ?"
        for number, original, run in self._index.rows(query, question_number(question)):
            is_same = self._index.fingerprint_of(number) in fingerprints and original != document_id
            if is_same and self._doubtful.get(original) != run:
                return str(original), int(run)
        return None

    def add(self, copy: Copied) -> None:
        """Keep a copy until its original's record can be read."""
        own_fields = json.dumps(copy.own_fields, ensure_ascii=True, default=str)
        self._index.rows("INSERT INTO waiting VALUES (?,?,?,?)", copy.original, copy.run, copy.id, own_fields)
        self.waiting += 1

    def outcomes(self, backend: ReadableOutput) -> Iterator[Result | Failure | None]:
        """Yield the record of each copy whose original has one, and None after each line as a chance to pause."""
        for kind in KINDS:
            if not self.waiting:
                return
            ((first_run,),) = self._index.rows("SELECT min(run) FROM waiting")
            may_be_waited_for = self._filter()
            for line, key in backend.records(kind, since=first_run):
                yield None
                if may_be_waited_for(key.id, key.run) and (kind == "results" or _is_shared(key.reason)):
                    yield from self._copies_of(key.id, key.run, line)
                    if not self.waiting:
                        return

    def _filter(self) -> Callable[[str, int], bool]:
        """Return a quick test for originals: False is certain, True is not (a Bloom filter with one hash).

        It saves a query for almost every line of an archive, and its size does not grow with the number of copies.
        """
        bits = bytearray(_FILTER_BYTES)
        last_key = ("", 0)
        query = "SELECT DISTINCT original, run FROM waiting WHERE (original, run) > (?, ?) ORDER BY 1, 2 LIMIT ?"
        while rows := self._index.rows(query, *last_key, _PAGE):
            last_key = rows[-1]
            for row in rows:
                place = hash(row) % (8 * _FILTER_BYTES)
                bits[place >> 3] |= 1 << (place & 7)

        def is_set(document_id: str, run: int) -> bool:
            place = hash((document_id, run)) % (8 * _FILTER_BYTES)
            return bool(bits[place >> 3] & (1 << (place & 7)))

        return is_set

    def _copies_of(self, original: str, run: int, line: bytes) -> Iterator[Result | Failure | None]:
        """Yield the records of the copies of one line, in the order of their ids."""
        last_key = ""
        query = f"SELECT id, own FROM waiting WHERE original = ? AND run = ? AND id > ? ORDER BY id LIMIT {_PAGE}"
        while rows := self._index.rows(query, original, run, last_key):
            last_key = rows[-1][0]
            record = json.loads(line)
            for document_id, own_text in rows:
                own_fields = json.loads(own_text)
                if "reason" in record:
                    self._forget(document_id, original, run)
                    yield _failure(record, document_id, own_fields)
                elif record.get("question_sha256") == own_fields["question_sha256"]:
                    self._forget(document_id, original, run)
                    yield _result(record, document_id, own_fields)
            yield None

    def _forget(self, document_id: str, original: str, run: int) -> None:
        self._index.rows("DELETE FROM waiting WHERE original = ? AND run = ? AND id = ?", original, run, document_id)
        self.waiting -= 1

    def begin_last_pass(self) -> None:
        """Let the waiting documents be sent themselves: from now on, no document waits for an unfinished original."""
        self.is_last_pass = True
        self._index.rows("CREATE INDEX waiting_ids ON waiting (id)")

    def wants(self, document_id: str) -> bool:
        """Return True for a document that waits for the record of another one; may be called from any thread."""
        return bool(self._index.rows("SELECT 1 FROM waiting WHERE id = ?", document_id))

    def judge(self, entry: Entry) -> tuple[Literal["do"], Entry]:
        """Return the entry of a waiting document with its last record; may be called from any thread."""
        return "do", replace(entry, latest=self._index.latest(entry.id))

    def release(self, document_id: str) -> bool:
        """Stop the waiting of a document; return False when it did not wait."""
        rows = self._index.rows("SELECT original, run FROM waiting WHERE id = ?", document_id)
        for original, run in rows:
            self._forget(document_id, original, run)
        return bool(rows)


def _is_shared(reason: str | None) -> bool:
    """Return True when a failure for this reason depends on the request only, and so applies to each copy."""
    return kind_of(reason or "") in _SHARED_KINDS


def _common(line: Mapping[str, Any], own_fields: Mapping[str, Any]) -> dict[str, Any]:
    notes = [note for note in line["notes"] if note.partition(":")[0] not in COPY_NOTES]
    shared = {name: own_fields[name] for name in ("uri", "sha256", "agent", "variant", "fingerprint", "version")}
    if line.get("windows") is not None or "reason" in line:
        shared["fingerprint"] = own_fields["split_fingerprint"]
    return {**shared, "attempts": 0, "reasks": 0, "notes": (*notes, own_fields["note"]), "usage": Usage(0, 0)}


def _result(line: Mapping[str, Any], document_id: str, own_fields: Mapping[str, Any]) -> Result:
    model = line["model"]
    return Result(
        id=document_id,
        output=line["output"],
        model=ModelMetadata(model["provider"], model["name"], model.get("endpoint"), model.get("digest")),
        repaired=line["repaired"],
        context_length=line["context_length"],
        document_chars=line["document_chars"],
        metadata=own_fields["metadata"],
        text_sha256=line.get("text_sha256"),
        evidence=None if line.get("evidence") is None else tuple(line["evidence"]),
        windows=line.get("windows"),
        merge=line.get("merge"),
        latency_s=0.0,
        finished_at=utc_now(),
        question_sha256=own_fields["question_sha256"],
        **_common(line, own_fields),
    )


def _failure(line: Mapping[str, Any], document_id: str, own_fields: Mapping[str, Any]) -> Failure:
    copied = {name: line[name] for name in ("stage", "reason", "error", "message", "raw")}
    return Failure(
        id=document_id,
        history=(),
        runs=own_fields["runs"],
        finished_at=utc_now(),
        decided_by=line.get("decided_by"),
        window=line.get("window"),
        **copied,
        **_common(line, own_fields),
    )
