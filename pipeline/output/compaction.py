"""Records that are there, written anew: only the last line of each id, or without what has to go.

It must not add a record or change one, and a kill at any instant must leave every record that stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from pipeline.output.accepted import NAME as ACCEPTED
from pipeline.output.accepted import from_lines, to_lines
from pipeline.output.backend import OutputBackend
from pipeline.output.index import Index
from pipeline.output.lines import parse
from pipeline.output.record_keys import RecordKey
from pipeline.output.runs import RUNS

PARQUET_NAME = "results.parquet"
_REPORTS = ("report.json", "report.html")

Gone = Callable[[str, str], bool]
"""True for the id and the time (RFC 3339) of what has to go."""


def compact(backend: OutputBackend, index: Index, *, gone: Gone = lambda *_: False) -> None:
    """Leaves the last line of each id in results, and the errors that stand, but what has to go.

    `index`: of all that is there. The results come last, as they say what is left to do after a kill.
    """
    backend.sync()
    backend.rewrite("errors", (each for each in _standing(backend, index) if not _goes(*each, gone)))
    backend.rewrite("results", (each for each in last_lines(backend) if not _goes(*each, gone)))


def last_lines(backend: OutputBackend) -> Iterator[tuple[bytes, RecordKey]]:
    """The last line of each id in results, in the order of the lines."""
    with closing(Index()) as places:
        numbered = (head._replace(version=str(number)) for number, (_, head) in enumerate(backend.records("results")))
        places.add("results", numbered, where=backend.where, owns=lambda _: True)
        for number, (line, head) in enumerate(backend.records("results")):
            last = places.known(head.id)
            if last is not None and last.version == str(number):
                yield line, head


def _standing(backend: OutputBackend, index: Index) -> Iterator[tuple[bytes, RecordKey]]:
    with closing(Index()) as written:
        for line, head in backend.records("errors"):
            if index.stands(head.id, head.run) and not written.seen(head.id):
                yield line, head


def count(backend: OutputBackend, index: Index, *, gone: Gone) -> tuple[int, int]:
    """How many results and errors would go."""
    results = sum(_goes(line, head, gone) for line, head in last_lines(backend))
    return results, sum(_goes(line, head, gone) for line, head in _standing(backend, index))


def purge(backend: OutputBackend, index: Index, *, gone: Gone) -> None:
    """Takes what has to go out of everything, and compacts what stays; the reports are gone, to be built anew."""
    for name, data in list(backend.files(RUNS)):
        summary = parse(data)
        cleaned = None if summary is None else _without(summary, gone, at=str(summary.get("finished_at", "")))
        if cleaned is not None and cleaned != summary:
            backend.replace(name, json.dumps(cleaned, ensure_ascii=False, indent=1).encode("utf-8") + b"\n")
    accepted = list(from_lines(backend.content(ACCEPTED), where=backend.where))
    if accepted:
        backend.replace(ACCEPTED, to_lines(each for each in accepted if not gone(each.id, each.accepted_at)))
    for name in (PARQUET_NAME, *_REPORTS):
        backend.remove(name)
    compact(backend, index, gone=gone)


def _goes(line: bytes, head: RecordKey, gone: Gone) -> bool:
    record = parse(line)
    return gone(head.id, str((record or {}).get("finished_at", "")))


def _without(value: Any, gone: Gone, *, at: str) -> Any:
    """The value without the examples in its lists that name a document that has to go."""
    if isinstance(value, dict):
        return {key: _without(each, gone, at=at) for key, each in value.items()}
    if isinstance(value, list):
        return [_without(each, gone, at=at) for each in value if not _names(each, gone, at)]
    return value


def _names(value: Any, gone: Gone, at: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str) and gone(value["id"], at)
