"""The answers about windows of unfinished long documents: windows.jsonl, a third stream beside the records.

A document with some answered windows resumes where it was stopped, even after a kill. A line is removed when its
document has a result at least as new, or has changed; lines of failed documents stay. The stream is not a kind of
record: reports, comparisons and the index of documents ignore it.

    index table `windows`: the answers of unfinished documents, by id; it is in the file of the index
    (`first`, `after`: the start and the end of the window)

Only the main thread writes; `answered` may be called from any thread, after `load`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.config.redaction import SECRETS
from pipeline.errors import ConfigError, InternalError
from pipeline.output.index import Index
from pipeline.output.lines import parse
from pipeline.output.outage import Outage
from pipeline.records import ModelMetadata, Stamp
from pipeline.shards import Shard
from pipeline.window_answers import WindowAnswer, is_window_record, to_window_line, window_answer_of

if TYPE_CHECKING:
    from pipeline.output.purged_runs import RemovalTest

_TASK = "windows"
_TABLE = (
    """CREATE TABLE windows (id TEXT, sha256 TEXT, text_sha256 TEXT, question TEXT, run_id TEXT, first INTEGER,
    after INTEGER, line BLOB)""",
    "CREATE INDEX windows_of ON windows (id)",
)
_FROM_QUESTION = "FROM windows WHERE id = ? AND sha256 = ? AND text_sha256 = ? AND question = ?"

_KEY_COLUMNS = ("id", "sha256", "text_sha256", "question")

Keep = Callable[[Mapping[str, Any]], bool]
T = TypeVar("T")


class WindowFiles(Protocol):
    """The files or parts of one output's windows (window_files.py, window_parts.py).

    They raise OutputError as a backend does.
    """

    @property
    def is_full(self) -> bool:
        """True while appended lines wait to be stored."""

    def lines(self) -> Iterator[bytes]:
        """Yield the lines, including broken ones, except those of other shards of the same count."""

    def read(self) -> Iterator[bytes]:
        """Yield the valid lines without changing anything; it needs no lock."""

    def append(self, line: bytes) -> None:
        """Append one line, which ends in LF; the first one creates the file."""

    def sync_due(self, now: float) -> None:
        """Start to store lines that have waited long enough; never block."""

    def sync(self) -> None:
        """Make every line durable, then accept no more; it may be called again."""

    def keep(self, keep: Keep) -> None:
        """Remove the lines of this shard that `keep` rejects, and the files that are then empty."""

    def close(self) -> None:
        """Store open lines as far as possible."""


class WindowLines:
    """The windows of one output, locked like its records; call order: `load`, `start`, `write`, `finish`, `close`."""

    def __init__(self, files: WindowFiles, index: Index, *, shard: Shard, outage: Outage) -> None:
        """Keep the arguments; read and write nothing."""
        self._files = files
        self._index = index
        self._shard = shard
        self._outage = outage
        self._stamp: Stamp | None = None
        self._has_lines = False
        self._outdated = 0

    @classmethod
    def loaded(cls, files: WindowFiles, index: Index, shard: Shard, outage: Outage) -> WindowLines:
        """Return the windows of an output, loaded."""
        windows = cls(files, index, shard=shard, outage=outage)
        windows.load()
        return windows

    @property
    def is_full(self) -> bool:
        """True while no more answers should be written because earlier ones still wait to be stored."""
        return self._files.is_full

    def load(self) -> None:
        """Index the lines of unfinished documents; the caller must hold the lock."""
        for statement in _TABLE:
            self._index.rows(statement)
        self._outdated = self._patiently(self._load)

    def start(self, stamp: Stamp) -> None:
        """Remove the outdated lines, and set the run of the next lines; the backend must have been started."""
        self._stamp = stamp
        if self._outdated:
            self._patiently(lambda: self._files.keep(self.is_needed))

    def _load(self) -> int:
        """Return the number of outdated or broken lines."""
        self._index.rows("DELETE FROM windows")
        outdated = 0
        for line in self._files.lines():
            record = parse(line)
            if record is not None and not is_window_record(record):
                raise ConfigError(f"a line of windows is not of this program; it has the keys {sorted(record)[:20]}")
            if record is None:
                outdated += 1
                continue
            self._index.add_run(record["run"])
            self._has_lines = True
            if not self._shard.owns(record["id"]):
                continue
            if self.is_needed(record):
                self._insert(record, line)
            else:
                outdated += 1
        return outdated

    def is_needed(self, record: Mapping[str, Any]) -> bool:
        """Return True while a line may save a request: its document has no later result and has not changed."""
        entry = self._index.latest(record["id"])
        if entry is None or entry.run < record["run"]:
            return True
        return entry.sha256 is None or (entry.failed and entry.sha256 == record["sha256"])

    def places(
        self, document_id: str, *, sha256: str, text_sha256: str, question: str, run_id: str | None = None
    ) -> list[tuple[int, int]]:
        """Return the start and end of each answered window, sorted; `run_id`: only of runs with this id."""
        condition, values = ("", ()) if run_id is None else (" AND run_id = ?", (run_id,))
        query = f"SELECT DISTINCT first, after {_FROM_QUESTION}{condition} ORDER BY first, after"
        return self._index.rows(query, document_id, sha256, text_sha256, question, *values)

    def answered(self, document_id: str, *, sha256: str, text_sha256: str, question: str) -> list[WindowAnswer]:
        """Return the answers about windows of this text and request, sorted; of two about one window the last."""
        query = f"SELECT line {_FROM_QUESTION} ORDER BY rowid"
        rows = self._index.rows(query, document_id, sha256, text_sha256, question)
        records = (parse(zlib.decompress(line)) for (line,) in rows)
        answers = (window_answer_of(record) for record in records if record is not None)
        return sorted(
            {(answer.start, answer.end): answer for answer in answers}.values(),
            key=lambda answer: (answer.start, answer.end),
        )

    def write(self, answer: WindowAnswer) -> None:
        """Write the answer's line, then index it. OutputError ends the run."""
        if self._stamp is None:
            raise InternalError("`start` comes before `write`")
        line = _line(answer, self._stamp)
        self._files.append(line)
        self._has_lines = True
        self._insert({**_key(answer), "run_id": self._stamp.run_id}, line)

    def forget(self, document_id: str) -> None:
        """Remove the answers of a completed document from the index; `finish` removes its lines."""
        self._index.rows("DELETE FROM windows WHERE id = ?", document_id)

    def sync_due(self, now: float) -> None:
        """Make lines durable that have waited long enough."""
        self._outage.try_once(_TASK, lambda: self._files.sync_due(now))

    def finish(self) -> None:
        """Make all lines durable, and remove those of completed documents."""
        self._patiently(self._files.sync)
        if self._has_lines:
            self._patiently(lambda: self._files.keep(self.is_needed))

    def count(self, is_removed: RemovalTest) -> int:
        """Return the number of lines that `purge` would remove."""
        records = (record for line in self._files.lines() if (record := parse(line)) is not None)
        return sum(is_removed(record["id"], record["finished_at"]) for record in records)

    def purge(self, is_removed: RemovalTest) -> None:
        """Remove the lines of removed documents, and those that are no longer needed."""
        self._files.keep(lambda record: self.is_needed(record) and not is_removed(record["id"], record["finished_at"]))

    def close(self) -> None:
        """Store open lines as far as possible."""
        self._files.close()

    def _insert(self, record: Mapping[str, Any], line: bytes) -> None:
        values = (record[name] for name in (*_KEY_COLUMNS, "run_id", "start", "end"))
        self._index.rows("INSERT INTO windows VALUES (?,?,?,?,?,?,?,?)", *values, zlib.compress(line, 1))

    def _patiently(self, step: Callable[[], T]) -> T:
        return self._outage.attempt(_TASK, step)


def _key(answer: WindowAnswer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in (*_KEY_COLUMNS, "start", "end")}


def _line(answer: WindowAnswer, stamp: Stamp) -> bytes:
    """Return the line of an answer, with secrets masked in the metadata from servers."""
    if not SECRETS.are_none:
        redact = SECRETS.redact_values
        model = answer.model and ModelMetadata(*(redact(getattr(answer.model, n)) for n in ModelMetadata.__slots__))
        answer = replace(answer, model=model, notes=redact(answer.notes))
    try:
        return to_window_line(answer, stamp)
    except ValueError as exc:
        raise InternalError(f"{answer.id!r}: the answer about a window is not JSON in UTF-8: {exc}") from exc
