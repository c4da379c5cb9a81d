"""Evaluation of graded outputs: metrics with intervals, differences between outputs, agreement of reviewers.

It must not read a file or decide gates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from pipeline.truth.gold import Gold, GoldDocument
from pipeline.truth.graded_fields import (
    OFF,
    Field,
    Leaf,
    ObjectField,
    ObjectList,
    ScalarList,
    every_field,
    leaves,
    paths_in_lists,
)
from pipeline.truth.graded_output import DONE, Cost, GradedDocument, GradedOutput, cost_of
from pipeline.truth.grading import FieldCounts, grade_document
from pipeline.truth.intervals import Change, Estimate, Triple, change, estimates, share_of, verdict_of

OVERALL = "overall"
TOO_FEW = "too_few"
CONFUSED_VALUES = 8


@dataclass(frozen=True, slots=True)
class FieldResult:
    """The grade of one field; `accuracy` is None inside a list, `agreement` (of paired objects) outside of one."""

    compare: str
    counts: FieldCounts
    metrics: Mapping[str, Estimate]
    accuracy: Estimate | None
    agreement: float | None


@dataclass(frozen=True, slots=True)
class OutputResult:
    """The grade of one output. `hard` is the grade of documents chosen because they looked hard; None without any."""

    name: str
    fingerprints: Sequence[str]
    documents: Sequence[GradedDocument]
    valid: Estimate
    documents_right: Estimate
    totals: Triple
    overall: Mapping[str, Estimate]
    macro_f1: float | None
    fields: Mapping[str, FieldResult]
    not_graded: Sequence[str]
    cost: Cost
    hard: OutputResult | None = None


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """The paired difference of a metric between the reference and another output."""

    output: str
    field: str
    metric: str
    change: Change
    verdict: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """Number of values judged by two reviewers, and of those on which they agree."""

    people: int
    values: int
    agreeing: int


def output_result(output: GradedOutput, fields: ObjectField, *, sampled: bool = True) -> OutputResult:
    """Return the metrics of an output over its sampled documents, or over those that looked hard."""
    graded = output.graded(sampled=sampled)
    paths = {field.path: field for field in every_field(fields) if _is_counted(field)}
    in_lists = frozenset(paths_in_lists(fields))
    results = {path: _field_result(field, graded, in_list=path in in_lists) for path, field in paths.items()}
    judged = {path: result for path, result in results.items() if result.counts.judged}
    scores = [
        result.metrics["f1"].value
        for result in judged.values()
        if result.counts.is_leaf and result.metrics["f1"].value is not None
    ]
    totals = [_totals(document) for document in graded]
    done = [document for document in graded if document.state == DONE]
    right = sum(document.grade is not None and document.grade.is_right for document in done)
    hard = output_result(output, fields, sampled=False) if sampled and output.graded(sampled=False) else None
    return OutputResult(
        name=output.name,
        fingerprints=sorted({document.record.fingerprint for document in graded if document.record is not None}),
        documents=graded,
        valid=share_of(len(done), len(graded)),
        documents_right=share_of(right, len(graded)),
        totals=_added(totals),
        overall=estimates(totals),
        macro_f1=fmean(scores) if scores else None,
        fields=judged,
        not_graded=[leaf.path for leaf in leaves(fields) if leaf.comparator is None],
        cost=cost_of(graded),
        hard=hard,
    )


def difference(
    reference: OutputResult, output: OutputResult, *, field: str, metric: str, min_documents: int
) -> OutputDifference:
    """Return the paired difference of a metric over the documents that are graded in both outputs."""
    before = {document.gold.id: document for document in reference.documents}
    pairs = [
        (triple_of(before[document.gold.id], field), triple_of(document, field))
        for document in output.documents
        if document.gold.id in before
    ]
    change_of_metric = change(pairs, metric)
    return OutputDifference(
        output.name, field, metric, change_of_metric, verdict_of(change_of_metric, min_documents=min_documents)
    )


def triple_of(document: GradedDocument, field: str) -> Triple:
    """Return TP, FP and FN of a field, or of all leaves for `overall`."""
    if field == OVERALL:
        return _totals(document)
    counts = document.grade.fields.get(field) if document.grade is not None else None
    return (counts.tp, counts.fp, counts.fn) if counts is not None else (0, 0, 0)


def people_agreement(gold: Gold, fields: ObjectField) -> Agreement | None:
    """Return the agreement of reviewers on the same documents; None without such documents."""
    values = 0
    agreeing = 0
    people: set[str] = set()
    for first, second in combinations(sorted(gold.by_person), 2):
        first_judgements = gold.by_person[first]
        second_judgements = gold.by_person[second]
        for key in sorted(first_judgements.keys() & second_judgements.keys()):
            counts = _agreement(first_judgements[key], second_judgements[key], fields)
            values += sum(count.judged for count in counts)
            agreeing += sum(count.right for count in counts)
            people |= {first, second}
    return Agreement(len(people), values, agreeing) if values else None


def _agreement(first: GoldDocument, second: GoldDocument, fields: ObjectField) -> list[FieldCounts]:
    common = {name: value for name, value in first.gold.items() if name in second.gold}
    grade = grade_document(fields, common, second.gold, unknown=first.unknown | second.unknown)
    return [counts for counts in grade.fields.values() if counts.is_leaf]


def _field_result(field: Field, graded: Sequence[GradedDocument], *, in_list: bool) -> FieldResult:
    grades = [document.grade.fields for document in graded if document.grade is not None]
    field_counts = [counts[field.path] for counts in grades if field.path in counts]
    counts = _summed(field_counts)
    is_list = isinstance(field, (ScalarList, ObjectList))
    return FieldResult(
        compare=compare_of(field),
        counts=counts,
        metrics=estimates(
            [(document_counts.tp, document_counts.fp, document_counts.fn) for document_counts in field_counts]
        ),
        accuracy=None if in_list or is_list else share_of(counts.right, counts.judged),
        agreement=counts.agreeing / counts.paired if counts.paired else None,
    )


def compare_of(field: Field) -> str:
    """Return the name of a field's comparison; `pairs` for a list of objects."""
    if isinstance(field, ObjectList):
        return "pairs"
    leaf = field.item if isinstance(field, ScalarList) else field
    return leaf.comparator.compare if isinstance(leaf, Leaf) and leaf.comparator is not None else OFF


def _is_counted(field: Field) -> bool:
    return not isinstance(field, ObjectField) and compare_of(field) != OFF


def _summed(field_counts: Iterable[FieldCounts]) -> FieldCounts:
    total = FieldCounts()
    for counts in field_counts:
        for name in ("tp", "fp", "fn", "tn", "judged", "right", "paired", "agreeing"):
            setattr(total, name, getattr(total, name) + getattr(counts, name))
        total.is_leaf = counts.is_leaf
        total.approximate |= counts.approximate
        total.confusion += counts.confusion
    total.confusion = _with_most_frequent(total.confusion)
    return total


def _with_most_frequent(confusion: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Return the table with its most frequent values; all others are merged into one."""
    totals: Counter[str] = Counter()
    for (gold, predicted), number in confusion.items():
        totals[gold] += number
        totals[predicted] += number
    frequent = {value for value, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:CONFUSED_VALUES]}
    table: Counter[tuple[str, str]] = Counter()
    for (gold, predicted), number in sorted(confusion.items()):
        table[gold if gold in frequent else "(other)", predicted if predicted in frequent else "(other)"] += number
    return table


def _totals(document: GradedDocument) -> Triple:
    return document.grade.totals if document.grade is not None else (0, 0, 0)


def _added(totals: Sequence[Triple]) -> Triple:
    return sum(t[0] for t in totals), sum(t[1] for t in totals), sum(t[2] for t in totals)
