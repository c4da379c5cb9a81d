"""Documents that are asked the same as another one: rows on disk until their records are written.

Memory holds a count only. The tables are in the file of the index (index.py).

    by_bytes  bytes and question of what was done before this run → a document that is done, and the run of its record
    asked     digest of a question → the document that is asked it in this run
    waiting   documents that wait for the record of another one, each with what its own record needs
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import kind_of
from pipeline.output.backend import OutputBackend
from pipeline.output.index import Index
from pipeline.output.record_keys import KINDS
from pipeline.records import Failure, ModelMetadata, Result, Usage, utc_now

_TABLES = (
    "CREATE TABLE asked (question TEXT PRIMARY KEY, id TEXT) WITHOUT ROWID",
    "CREATE TABLE waiting (original TEXT, run INTEGER, id TEXT, own TEXT, PRIMARY KEY (original, run, id))"
    " WITHOUT ROWID",
)
# a snapshot: a document that changes in this run replaces its row in the index, but its earlier record remains
_BY_BYTES = (
    "CREATE TABLE by_bytes (sha256 TEXT, fingerprint INTEGER, id TEXT, run INTEGER, PRIMARY KEY (sha256, fingerprint))"
    " WITHOUT ROWID",
    "INSERT OR IGNORE INTO by_bytes SELECT sha256, fingerprint, id, run FROM done WHERE sha256 IS NOT NULL"
    " ORDER BY 1, 2",
)
_WRITTEN = "DELETE FROM waiting WHERE original = ? AND run = ? AND id = ?"
_SHARED_KINDS = ("document", "answer")
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Copied:
    """A document whose question is that of `original`; it gets the record that the original has of that run.

    `own`: what its record has of its own.
    """

    id: str
    original: str
    run: int
    own: Mapping[str, Any]


class Copies:
    """Finds and keeps the copies of one run; `claim` and `done_elsewhere` may be called from any thread."""

    def __init__(self, index: Index, *, run: int, doubtful: Mapping[str, int]) -> None:
        """`run`: the number of this run. `doubtful`: results that are to be asked again, each with its run.

        OutputError when there is no room for the tables.
        """
        self.run, self.waiting = run, 0
        self._index, self._doubtful = index, doubtful
        self._is_listed, self._listing = False, threading.Lock()
        for statement in _TABLES:
            index.rows(statement)

    def claim(self, question: str, document_id: str) -> str | None:
        """Return the document that was asked this question before in this run; None: this one is to be asked."""
        self._index.rows("INSERT OR IGNORE INTO asked VALUES (?,?)", question, document_id)
        ((first,),) = self._index.rows("SELECT id FROM asked WHERE question = ?", question)
        if first == document_id:
            return None
        known = self._index.known(first)
        failed_now = known is not None and known.failed and known.run == self.run
        return None if failed_now and not _is_shared(known.reason if known else None) else str(first)

    def done_elsewhere(self, sha256: str, fingerprint: str, document_id: str) -> tuple[str, int] | None:
        """Return a document that was done before this run with these bytes and this question, and its record's run."""
        with self._listing:
            if not self._is_listed:
                for statement in _BY_BYTES:
                    self._index.rows(statement)
                self._is_listed = True
        rows = self._index.rows("SELECT fingerprint, id, run FROM by_bytes WHERE sha256 = ?", sha256)
        for number, other, run in rows:
            is_same = self._index.fingerprint_of(number) == fingerprint and other != document_id
            if is_same and self._doubtful.get(other) != run:
                return str(other), int(run)
        return None

    def add(self, copy: Copied) -> None:
        """Keep a copy until its original's record can be read."""
        own = json.dumps(copy.own, ensure_ascii=True, default=str)
        self._index.rows("INSERT INTO waiting VALUES (?,?,?,?)", copy.original, copy.run, copy.id, own)
        self.waiting += 1

    def outcomes(self, backend: OutputBackend) -> Iterator[Result | Failure | None]:
        """Yield the record of each copy whose original has one; None now and then, when other work may be done."""
        for kind in KINDS:
            if not self.waiting:
                return
            ((since,),) = self._index.rows("SELECT min(run) FROM waiting")
            for line, key in backend.records(kind, since=since):
                yield None
                if kind == "results" or (key.run == self.run and _is_shared(key.reason)):
                    yield from self._copies_of(key.id, key.run, line)
                if not self.waiting:
                    return

    def _copies_of(self, original: str, run: int, line: bytes) -> Iterator[Result | Failure | None]:
        query = f"SELECT id, own FROM waiting WHERE original = ? AND run = ? LIMIT {_PAGE}"
        while rows := self._index.rows(query, original, run):
            record = json.loads(line)
            make = _failure if "reason" in record else _result
            for document_id, own in rows:
                self._index.rows(_WRITTEN, original, run, document_id)
                self.waiting -= 1
                yield make(record, document_id, json.loads(own))
            yield None


def _is_shared(reason: str | None) -> bool:
    """Return True when a failure for this reason is one of the question, and so of each document that is asked it."""
    return kind_of(reason or "") in _SHARED_KINDS


def _common(line: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    notes = [note for note in line["notes"] if not note.startswith(("shared:", "reused:"))]
    shared = {name: own[name] for name in ("uri", "sha256", "agent", "variant", "fingerprint", "version")}
    return {**shared, "attempts": 0, "reasks": 0, "notes": (*notes, own["note"]), "usage": Usage(0, 0)}


def _result(line: Mapping[str, Any], document_id: str, own: Mapping[str, Any]) -> Result:
    model = line["model"]
    return Result(
        id=document_id,
        output=line["output"],
        model=ModelMetadata(model["provider"], model["name"], model.get("endpoint"), model.get("digest")),
        repaired=line["repaired"],
        context_length=line["context_length"],
        document_chars=line["document_chars"],
        metadata=own["metadata"],
        latency_s=0.0,
        finished_at=utc_now(),
        **_common(line, own),
    )


def _failure(line: Mapping[str, Any], document_id: str, own: Mapping[str, Any]) -> Failure:
    same = {name: line[name] for name in ("stage", "reason", "error", "message", "raw")}
    return Failure(
        id=document_id,
        history=(),
        runs=own["runs"],
        finished_at=utc_now(),
        decided_by=line.get("decided_by"),
        **same,
        **_common(line, own),
    )
