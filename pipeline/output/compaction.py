"""Rewriting of existing records: compact keeps the last line of each id, purge removes chosen documents.

Both move the summaries of older runs into one file (folded_runs.py).

It must not add a record, nor change one except for a note that names a removed document, and a kill at any time must
not lose a record that is to be kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from pipeline.output.accepted import NAME as ACCEPTED
from pipeline.output.accepted import from_lines, to_lines
from pipeline.output.backend import OutputBackend, ReadableOutput
from pipeline.output.copies import COPY_NOTES
from pipeline.output.folded_runs import fold, remove_documents
from pipeline.output.index import Index
from pipeline.output.lines import parse
from pipeline.output.purged_runs import Gone, rewritten, without_named
from pipeline.output.record_keys import RecordKey

PARQUET_NAME = "results.parquet"
EVAL_NAME = "eval.json"
_REPORTS = ("report.json", "report.html")


@dataclass(slots=True)
class Lost:
    """How many lines go that are the last answer of an id to a question."""

    lines: int = 0


def compact(backend: OutputBackend, index: Index, *, gone: Gone = lambda *_: False, history: bool = True) -> int:
    """Keep the last line of each id in results, and the remaining errors, except the records to remove.

    `history`: keep also the last answer of each id to the question before, which `diff --by fingerprint` compares.
    Return how many lines were the answers to a question that an id has no answer to any more.
    `index` covers the whole output. The results are rewritten last: after a kill, they tell the next run what is done.
    """
    backend.sync()
    failures = _current_failures(backend, index)
    backend.rewrite("errors", _kept(failures, gone))
    lost = Lost()
    results = _lines_with_history(backend, lost) if history else last_lines(backend, lost)
    backend.rewrite("results", _kept(results, gone))
    fold(backend)
    return lost.lines


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


def last_lines(backend: ReadableOutput, lost: Lost | None = None) -> Iterator[tuple[bytes, RecordKey]]:
    """Yield the last line of each id in results, in the order of the lines; `lost` counts those of other questions."""
    with closing(Index()) as places:
        places.add("results", _numbered(backend), where=backend.where, owns=lambda _: True)
        for number, (line, key) in enumerate(backend.records("results")):
            last = places.known(key.id)
            if last is not None and last.version == str(number):
                yield line, key
            elif lost is not None:
                lost.lines += last is None or last.fingerprint != key.fingerprint


def _lines_with_history(backend: ReadableOutput, lost: Lost) -> Iterator[tuple[bytes, RecordKey]]:
    """Yield the last line of each id, and its last line with another fingerprint, in the order of the lines."""
    with closing(Index()) as last, closing(Index()) as earlier:
        last.add("results", _numbered(backend), where=backend.where, owns=lambda _: True)
        others = (key for key in _numbered(backend) if _differs(last, key))
        earlier.add("results", others, where=backend.where, owns=lambda _: True)
        for number, (line, key) in enumerate(backend.records("results")):
            places = [place for index in (last, earlier) if (place := index.known(key.id)) is not None]
            if any(place.version == str(number) for place in places):
                yield line, key
            else:
                lost.lines += all(place.fingerprint != key.fingerprint for place in places)


def _differs(last: Index, key: RecordKey) -> bool:
    known = last.known(key.id)
    return known is not None and known.fingerprint != key.fingerprint


def _numbered(backend: ReadableOutput) -> Iterator[RecordKey]:
    """Yield the keys of results, with the number of the line in place of the version."""
    for number, (_, key) in enumerate(backend.records("results")):
        yield key._replace(version=str(number))


def _current_failures(backend: ReadableOutput, index: Index) -> Iterator[tuple[bytes, RecordKey]]:
    with closing(Index()) as written:
        for line, key in backend.records("errors"):
            if index.is_current_failure(key.id, key.run) and not written.seen(key.id):
                yield line, key


def count(backend: ReadableOutput, index: Index, *, gone: Gone) -> tuple[int, int]:
    """Return the numbers of results and errors that `purge` would remove."""
    results = sum(_goes(line, key, gone) for line, key in last_lines(backend))
    failures = sum(_goes(line, key, gone) for line, key in _current_failures(backend, index))
    return results, failures


def purge(backend: OutputBackend, index: Index, *, gone: Gone) -> None:
    """Remove documents from all files and compact the rest; the reports are deleted and have to be rebuilt."""
    remove_documents(backend, gone)
    graded = parse(backend.content(EVAL_NAME) or b"")
    if graded is not None:
        backend.replace(EVAL_NAME, rewritten(without_named(graded, gone, at=str(graded.get("at", "")))))
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
