"""Rewriting of existing records: compact keeps the last line of each id, purge removes chosen documents.

It must not add a record, nor change one except for a note that names a removed document, and a kill at any time must
not lose a record that is to be kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

from pipeline.output.accepted import NAME as ACCEPTED
from pipeline.output.accepted import from_lines, to_lines
from pipeline.output.backend import OutputBackend
from pipeline.output.copies import COPY_NOTES
from pipeline.output.index import Index
from pipeline.output.lines import parse
from pipeline.output.record_keys import RecordKey
from pipeline.output.runs import RUNS

PARQUET_NAME = "results.parquet"
EVAL_NAME = "eval.json"
_REPORTS = ("report.json", "report.html")

Gone = Callable[[str, str], bool]
"""Returns True for the id and the time (RFC 3339) of a record to remove."""


def compact(backend: OutputBackend, index: Index, *, gone: Gone = lambda *_: False) -> None:
    """Keep the last line of each id in results, and the remaining errors, except the records to remove.

    `index` covers the whole output. The results are rewritten last: after a kill, they tell the next run what is done.
    """
    backend.sync()
    failures = _current_failures(backend, index)
    backend.rewrite("errors", _kept(failures, gone))
    results = last_lines(backend)
    backend.rewrite("results", _kept(results, gone))


def _kept(lines: Iterable[tuple[bytes, RecordKey]], gone: Gone) -> Iterator[tuple[bytes, RecordKey]]:
    for line, key in lines:
        if not _goes(line, key, gone):
            yield _without_names(line, gone), key


def _without_names(line: bytes, gone: Gone) -> bytes:
    """Return the line without the id of a removed document that a note (`shared:ID`, `reused:ID`) names."""
    if b'"shared:' not in line and b'"reused:' not in line:
        return line
    record = parse(line) or {}
    at = str(record.get("finished_at", ""))
    notes = [note.partition(":") for note in record["notes"]]
    kept = [kind if kind in COPY_NOTES and gone(rest, at) else kind + mark + rest for kind, mark, rest in notes]
    if kept == record["notes"]:
        return line
    return json.dumps({**record, "notes": kept}, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"


def last_lines(backend: OutputBackend) -> Iterator[tuple[bytes, RecordKey]]:
    """Yield the last line of each id in results, in the order of the lines."""
    with closing(Index()) as places:
        numbered = (key._replace(version=str(number)) for number, (_, key) in enumerate(backend.records("results")))
        places.add("results", numbered, where=backend.where, owns=lambda _: True)
        for number, (line, key) in enumerate(backend.records("results")):
            last = places.known(key.id)
            if last is not None and last.version == str(number):
                yield line, key


def _current_failures(backend: OutputBackend, index: Index) -> Iterator[tuple[bytes, RecordKey]]:
    with closing(Index()) as written:
        for line, key in backend.records("errors"):
            if index.is_current_failure(key.id, key.run) and not written.seen(key.id):
                yield line, key


def count(backend: OutputBackend, index: Index, *, gone: Gone) -> tuple[int, int]:
    """Return the numbers of results and errors that `purge` would remove."""
    results = sum(_goes(line, key, gone) for line, key in last_lines(backend))
    failures = sum(_goes(line, key, gone) for line, key in _current_failures(backend, index))
    return results, failures


def purge(backend: OutputBackend, index: Index, *, gone: Gone) -> None:
    """Remove documents from all files and compact the rest; the reports are deleted and have to be rebuilt."""
    for name, data in list(backend.files(RUNS)):
        summary = parse(data)
        cleaned = None if summary is None else _without(summary, gone, at=str(summary.get("finished_at", "")))
        if cleaned is not None and cleaned != summary:
            backend.replace(name, json.dumps(cleaned, ensure_ascii=False, indent=1).encode("utf-8") + b"\n")
    graded = parse(backend.content(EVAL_NAME) or b"")
    if graded is not None:
        cleaned = _without(graded, gone, at=str(graded.get("at", "")))
        backend.replace(EVAL_NAME, json.dumps(cleaned, ensure_ascii=False, indent=1).encode("utf-8") + b"\n")
    accepted = list(from_lines(backend.content(ACCEPTED), where=backend.where))
    if accepted:
        backend.replace(
            ACCEPTED, to_lines(failure for failure in accepted if not gone(failure.id, failure.accepted_at))
        )
    for name in (PARQUET_NAME, *_REPORTS):
        backend.remove(name)
    compact(backend, index, gone=gone)


def _goes(line: bytes, key: RecordKey, gone: Gone) -> bool:
    record = parse(line)
    return gone(key.id, str((record or {}).get("finished_at", "")))


def _without(value: Any, gone: Gone, *, at: str) -> Any:
    """Return the value without list items that name a document to remove."""
    if isinstance(value, dict):
        return {key: _without(item, gone, at=at) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, gone, at=at) for item in value if not _names(item, gone, at)]
    return value


def _names(value: Any, gone: Gone, at: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str) and gone(value["id"], at)
