"""Rewriting of existing records: compact keeps the last line of each id, purge removes chosen documents.

Both move the summaries of older runs into one file (folded_runs.py).

It must not add a record, nor change one except for a note that names a removed document. A kill at any time must not
lose a record to keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

from pipeline.output.accepted import NAME as ACCEPTED
from pipeline.output.accepted import from_lines, to_lines
from pipeline.output.backend import OutputBackend, ReadableOutput
from pipeline.output.copies import COPY_NOTES
from pipeline.output.folded_runs import fold, remove_documents
from pipeline.output.index import Index
from pipeline.output.lines import parse
from pipeline.output.purged_runs import RemovalTest, rewritten, without_named
from pipeline.output.record_keys import RecordKey, Records

PARQUET_NAME = "results.parquet"
EVAL_NAME = "eval.json"
_REPORTS = ("report.json", "report.html")


def compact(
    backend: OutputBackend, index: Index, *, is_removed: RemovalTest = lambda *_: False, history: bool = True
) -> int:
    """Keep the last line of each id in results, and the remaining errors, except the records to remove.

    `history`: also keep the last answer of each id to the previous prompt, which `diff --by fingerprint` compares.
    Return the number of removed lines that were the only answer of their id with that fingerprint. `index` covers the
    whole output. The results are rewritten last: after a kill, they show the next run which documents are done.
    """
    backend.sync()
    with closing(_CurrentFailures(index)) as failures:
        backend.rewrite("errors", lambda lines: _kept_lines(failures.choose(lines), is_removed))
    with closing(_LastLines(backend, history=history)) as last:
        backend.rewrite("results", lambda lines: _kept_lines(last.choose(lines), is_removed))
    fold(backend)
    return last.superseded


def _kept_lines(lines: Records, is_removed: RemovalTest) -> Records:
    for line, key in lines:
        if not _is_removed(line, key, is_removed):
            yield _without_names(line, is_removed), key


def _without_names(line: bytes, is_removed: RemovalTest) -> bytes:
    """Return the line without the id of a removed document that a note (`shared:ID`, `reused:ID`) names."""
    if b'"shared:' not in line and b'"reused:' not in line:
        return line
    record = parse(line) or {}
    at = str(record.get("finished_at", ""))
    note_parts = [note.partition(":") for note in record["notes"]]
    notes = [
        kind if kind in COPY_NOTES and is_removed(original, at) else kind + mark + original
        for kind, mark, original in note_parts
    ]
    if notes == record["notes"]:
        return line
    return json.dumps({**record, "notes": notes}, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"


def last_lines(backend: ReadableOutput) -> Records:
    """Yield the last line of each id in results, in the order of the lines."""
    with closing(_LastLines(backend, history=False)) as last:
        yield from last.choose(backend.records("results"))


class _LastLines:
    """The choice of the last line of each id in results, and with `history` of its last line with another fingerprint.

    Lines are identified by their content, not by their position: a run may append to any file between two readings.
    `superseded`: the number of the other lines whose fingerprint no kept line of their id has.
    """

    def __init__(self, backend: ReadableOutput, *, history: bool) -> None:
        self.superseded = 0
        last = Index()
        self._indexes = [last]
        last.add("results", _hashed(backend), where=backend.where, owns=lambda _: True)
        if history:
            earlier = Index()
            self._indexes.append(earlier)
            differing = (key for key in _hashed(backend) if _differs(last, key))
            earlier.add("results", differing, where=backend.where, owns=lambda _: True)

    def choose(self, lines: Records) -> Records:
        """Yield the lines to keep, in order, each once in all calls."""
        for line, key in lines:
            latest = [(index, place) for index in self._indexes if (place := index.latest(key.id)) is not None]
            if any(place.version == _hash(line) and not index.mark_met(key.id) for index, place in latest):
                yield line, key
            else:
                self.superseded += all(place.fingerprint != key.fingerprint for _, place in latest)

    def close(self) -> None:
        """Release the disk space."""
        for index in self._indexes:
            index.close()


def _differs(last: Index, key: RecordKey) -> bool:
    latest = last.latest(key.id)
    return latest is not None and latest.fingerprint != key.fingerprint


def _hashed(backend: ReadableOutput) -> Iterator[RecordKey]:
    """Yield the keys of results, with the hash of the line in place of the version."""
    for line, key in backend.records("results"):
        yield key._replace(version=_hash(line))


def _hash(line: bytes) -> str:
    """Return a short text that differs between lines of one id; it is valid in this process only."""
    return format(hash(line), "x")


class _CurrentFailures:
    """The choice of the first line of each remaining error; `index` covers the whole output."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._met = Index()

    def choose(self, lines: Records) -> Records:
        """Yield the lines to keep, in order, each once in all calls."""
        for line, key in lines:
            if self._index.is_current_failure(key.id, key.run) and not self._met.mark_met(key.id):
                yield line, key

    def close(self) -> None:
        """Release the disk space."""
        self._met.close()


def count(backend: ReadableOutput, index: Index, *, is_removed: RemovalTest) -> tuple[int, int]:
    """Return the numbers of results and errors that `purge` would remove."""
    results = sum(_is_removed(line, key, is_removed) for line, key in last_lines(backend))
    with closing(_CurrentFailures(index)) as current_failures:
        failures = sum(
            _is_removed(line, key, is_removed) for line, key in current_failures.choose(backend.records("errors"))
        )
    return results, failures


def purge(backend: OutputBackend, index: Index, *, is_removed: RemovalTest) -> None:
    """Remove documents from all files and compact the rest; delete the reports, which have to be rebuilt."""
    remove_documents(backend, is_removed)
    evaluation = parse(backend.content(EVAL_NAME) or b"")
    if evaluation is not None:
        backend.replace(EVAL_NAME, rewritten(without_named(evaluation, is_removed, at=str(evaluation.get("at", "")))))
    accepted = list(from_lines(backend.content(ACCEPTED), where=backend.where))
    if accepted:
        backend.replace(
            ACCEPTED, to_lines(failure for failure in accepted if not is_removed(failure.id, failure.accepted_at))
        )
    for name in (PARQUET_NAME, *_REPORTS):
        backend.remove(name)
    compact(backend, index, is_removed=is_removed)


def _is_removed(line: bytes, key: RecordKey, is_removed: RemovalTest) -> bool:
    record = parse(line)
    return is_removed(key.id, str((record or {}).get("finished_at", "")))
