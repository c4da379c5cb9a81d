"""The grades of an output: the last records of gold documents, the counts of all fields, and the cost of the answers.

It keeps no line of documents without gold. It must not decide gates or print anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from pipeline.output.backend import ReadableOutput
from pipeline.output.record_keys import KINDS
from pipeline.truth.gold import SAMPLE, Gold, GoldDocument
from pipeline.truth.graded_fields import ObjectField
from pipeline.truth.grading import DocumentGrade, grade_document

DONE = "done"
FAILED = "failed"
CHANGED = "changed"
ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class LastRecord:
    """The fields of a document's last record that grading needs; `answer` is None for a failure."""

    run: int
    sha256: str | None
    answer: Mapping[str, Any] | None
    fingerprint: str
    variant: str
    model: str
    attempts: int
    reasks: int
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float | None


@dataclass(frozen=True, slots=True)
class GradedDocument:
    """A gold document and its state in an output; `grade` and `record` are None when it is absent or changed."""

    gold: GoldDocument
    state: str
    grade: DocumentGrade | None = None
    record: LastRecord | None = None

    @property
    def is_graded(self) -> bool:
        """True when the document has the bytes that were judged."""
        return self.grade is not None


@dataclass(frozen=True, slots=True)
class GradedOutput:
    """The gold documents of an output, sorted by id."""

    name: str
    documents: Sequence[GradedDocument]

    def count(self, state: str) -> int:
        """Return the number of documents in a state."""
        return sum(document.state == state for document in self.documents)

    def graded(self, *, sampled: bool = True) -> list[GradedDocument]:
        """Return the graded documents of the random sample, or those chosen because they looked hard."""
        return [
            document for document in self.documents if document.is_graded and (document.gold.why == SAMPLE) is sampled
        ]

    def parts(self, key: Callable[[LastRecord], str]) -> list[GradedOutput]:
        """Return an output for each variant or model, with the documents it answered."""
        names = sorted({key(document.record) for document in self.documents if document.record is not None})
        return [
            replace(self, name=name, documents=[d for d in self.documents if d.record and key(d.record) == name])
            for name in names
        ]


def read_last_records(backend: ReadableOutput, ids: Collection[str]) -> dict[str, LastRecord]:
    """Return the last record of each of these documents in the output."""
    records: dict[str, LastRecord] = {}
    for kind in KINDS:
        for line, key in backend.records(kind):
            if key.id not in ids:
                continue
            before = records.get(key.id)
            # within a run, a result is later than a failure of the same document
            later = before is None or key.run > before.run or (key.run == before.run and kind == "results")
            if later or (before is not None and key.run == before.run and before.answer is None):
                records[key.id] = _record(json.loads(line), is_result=kind == "results")
    return records


def grade_output(
    name: str, records: Mapping[str, LastRecord], gold: Gold, fields: ObjectField, *, part: str
) -> GradedOutput:
    """Grade an output against the gold of a set (`dev` or `holdout`)."""
    by_id: dict[str, list[GoldDocument]] = {}
    for document in gold.documents.values():
        if document.set == part:
            by_id.setdefault(document.id, []).append(document)
    return GradedOutput(
        name,
        [_graded(records.get(id), judged, fields) for id, judged in sorted(by_id.items(), key=lambda item: item[0])],
    )


def _graded(record: LastRecord | None, judged: Sequence[GoldDocument], fields: ObjectField) -> GradedDocument:
    if record is None:
        return GradedDocument(judged[-1], ABSENT)
    for document in judged:
        if document.sha256 == record.sha256:
            grade = grade_document(
                fields, document.gold, record.answer, unknown=document.unknown, incomplete=document.incomplete
            )
            return GradedDocument(document, FAILED if record.answer is None else DONE, grade, record)
    return GradedDocument(judged[-1], CHANGED)


def _record(line: Mapping[str, Any], *, is_result: bool) -> LastRecord:
    usage = line.get("usage") or {}
    model = line.get("model") or {}
    return LastRecord(
        run=line["run"],
        sha256=line.get("sha256"),
        answer=line["output"] if is_result else None,
        fingerprint=line["fingerprint"],
        variant=line["variant"],
        model=str(model.get("name") or "unknown"),
        attempts=line.get("attempts") or 0,
        reasks=line.get("reasks") or 0,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        latency_s=line.get("latency_s"),
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """The average cost of a graded document; None where no record has the value."""

    prompt_tokens: float | None
    completion_tokens: float | None
    requests: float | None
    reasks: float | None
    p50_s: float | None
    p95_s: float | None


def cost_of(documents: Iterable[GradedDocument]) -> Cost:
    """Return the cost of the documents that were sent; a record that copies another document's answer costs nothing."""
    requested = [document.record for document in documents if document.record is not None and document.record.attempts]
    seconds = sorted(record.latency_s for record in requested if record.latency_s is not None)
    return Cost(
        prompt_tokens=_mean(record.prompt_tokens for record in requested),
        completion_tokens=_mean(record.completion_tokens for record in requested),
        requests=_mean(record.attempts for record in requested),
        reasks=_mean(record.reasks for record in requested),
        p50_s=seconds[int(0.5 * len(seconds))] if seconds else None,
        p95_s=seconds[int(0.95 * len(seconds))] if seconds else None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None
