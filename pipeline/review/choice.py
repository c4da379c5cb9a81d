"""The choice of documents for a review, with their answers.

Choices are stable: the same documents come in the same order, and a sample of 100 holds that of 50. It must keep no
record that is not chosen.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

from pipeline.output.backend import OutputBackend
from pipeline.output.compaction import last_lines
from pipeline.output.latest_pairs import LastRecord, PairTable
from pipeline.output.record_keys import RecordKey
from pipeline.report.comparison import differences
from pipeline.shards import hash_fraction

Why = Literal["sample", "disputed", "failed", "ids"]
MOST_DOCUMENTS = 50
"""Documents of one session without --sample."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document to review: its answer (None: it failed, for `reason`), and that of the other output if there is one.

    `why` is written into gold: only documents drawn at random count for the headline numbers. `evidence`: JSON Pointer
    of a quote → its place (start, end) in the text of that `text_sha256`.
    """

    id: str
    sha256: str | None
    why: Why
    answer: Mapping[str, Any] | None
    fingerprint: str | None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    other: Mapping[str, Any] | None = None
    text_sha256: str | None = None
    evidence: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def sampled(backend: OutputBackend, count: int, *, judged: Collection[tuple[str, str]]) -> list[Candidate]:
    """Return `count` documents drawn by chance from those without a judgement, failed ones too."""
    return _first_candidates(_current_lines(backend), count, why="sample", judged=judged)


def failed(backend: OutputBackend, *, judged: Collection[tuple[str, str]]) -> list[Candidate]:
    """Return documents that remain failed and have no judgement, MOST_DOCUMENTS at most, in the order of a sample."""
    return _first_candidates(_failures(backend), MOST_DOCUMENTS, why="failed", judged=judged)


def named(backend: OutputBackend, ids: Collection[str]) -> list[Candidate]:
    """Return these documents, judged before or not, in the order of a sample."""
    chosen_lines = ((line, key) for line, key in _current_lines(backend) if key.id in ids)
    return _first_candidates(chosen_lines, len(ids), why="ids", judged=())


def disputed(
    backend: OutputBackend, other: OutputBackend, *, judged: Collection[tuple[str, str]], keys: Mapping[str, str]
) -> list[Candidate]:
    """Return the documents on which two outputs differ most, MOST_DOCUMENTS at most, most differences first."""
    most_different: list[tuple[int, float, Candidate]] = []
    with closing(PairTable()) as pairs:
        pairs.read_outputs(backend, other)
        for pair in pairs.outputs():
            before = _record(pair.before)
            after = _record(pair.after)
            if before is None or after is None or (pair.id, before["sha256"]) in judged:
                continue
            if before["sha256"] != after["sha256"]:
                continue
            places = differences(before["output"], after["output"], keys=keys)
            number = sum(place.added + place.lost or int(not place.same) for place in places)
            if number:
                candidate = replace(_candidate(before, why="disputed"), other=after["output"])
                entry = (number, -hash_fraction("review", pair.id), candidate)
                is_full = len(most_different) == MOST_DOCUMENTS
                (heapq.heappushpop if is_full else heapq.heappush)(most_different, entry)
    return [candidate for _, _, candidate in sorted(most_different, key=lambda entry: entry[:2], reverse=True)]


def with_other(candidates: Iterable[Candidate], other: OutputBackend) -> list[Candidate]:
    """Return the candidates with the answers of another output for the same bytes."""
    by_id = {candidate.id: candidate for candidate in candidates}
    answers: dict[str, Mapping[str, Any]] = {}
    for line, key in last_lines(other):
        if key.id in by_id and key.sha256 == by_id[key.id].sha256:
            answers[key.id] = json.loads(line)["output"]
    return [replace(candidate, other=answers.get(id)) for id, candidate in by_id.items()]


def _first_candidates(
    lines: Iterable[tuple[bytes, RecordKey]], count: int, *, why: Why, judged: Collection[tuple[str, str]]
) -> list[Candidate]:
    """Return the first `count` documents in the order of their hash."""
    unjudged = (
        (hash_fraction("review", key.id), key.id, line)
        for line, key in lines
        if key.sha256 is None or (key.id, key.sha256) not in judged
    )
    return [_candidate(json.loads(line), why=why) for _, _, line in heapq.nsmallest(count, unjudged)]


def _current_lines(backend: OutputBackend) -> Iterator[tuple[bytes, RecordKey]]:
    """Yield the line of each document: its failure if it remains failed, else its last result."""
    with closing(backend.read()) as index:
        done = (
            (line, key)
            for line, key in last_lines(backend)
            if (latest := index.latest(key.id)) is None or not latest.failed
        )
        yield from chain(done, _failures(backend))


def _failures(backend: OutputBackend) -> Iterator[tuple[bytes, RecordKey]]:
    with closing(backend.read()) as index:
        for line, key in backend.records("errors"):
            if index.is_current_failure(key.id, key.run) and not index.mark_met(key.id):
                yield line, key


def _record(last: LastRecord | None) -> Any:
    return None if last is None or last.line is None else json.loads(last.line)


def _candidate(record: Mapping[str, Any], *, why: Why) -> Candidate:
    return Candidate(
        id=record["id"],
        sha256=record["sha256"],
        why=why,
        answer=record.get("output"),
        fingerprint=record.get("fingerprint") if record.get("output") is not None else None,
        reason=record.get("reason"),
        notes=tuple(record.get("notes") or ()),
        text_sha256=record.get("text_sha256"),
        evidence={place["path"]: (place["start"], place["end"]) for place in record.get("evidence") or ()},
    )
