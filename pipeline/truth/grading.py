"""Grade the answer for a document against its gold: true and false positives and negatives of each field.

A gold value and a predicted value that differ are a false positive and a false negative. A failed document has no
answer: a gold value of null then counts as wrong, and not as a true negative. It must not read a file or compute an
interval.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipeline.truth.comparators import Comparator, canonical_json, is_something
from pipeline.truth.graded_fields import Field, Leaf, ObjectField, ObjectList, ScalarList
from pipeline.truth.object_pairs import Weigh, pair_objects
from pipeline.truth.pair_weights import LeafWeights, has_leaves_only
from pipeline.truth.pairing import assignment

VALUE_CHARS = 60


@dataclass(slots=True)
class FieldCounts:
    """Counts of one field. Its accuracy is `right` of `judged`, for a property of list items `agreeing` of `paired`.

    `judged` counts comparisons: gold values, predicted values without a partner, and gold values of null.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0
    judged: int = 0
    right: int = 0
    paired: int = 0
    agreeing: int = 0
    is_leaf: bool = True
    approximate: bool = False
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class DocumentGrade:
    """The counts of one document by the path of the field; `unknown` paths were undecided by the reviewer."""

    fields: Mapping[str, FieldCounts]
    unknown: int = 0

    @property
    def totals(self) -> tuple[int, int, int]:
        """TP, FP and FN over all leaves: the rows of lists of objects would count their objects twice."""
        leaf_counts = [counts for counts in self.fields.values() if counts.is_leaf]
        return sum(c.tp for c in leaf_counts), sum(c.fp for c in leaf_counts), sum(c.fn for c in leaf_counts)

    @property
    def is_right(self) -> bool:
        """True without a false positive, a false negative, or a gold value of null for a failed document."""
        return all(not counts.fp and not counts.fn and counts.right == counts.judged for counts in self.fields.values())


def grade_document(
    fields: ObjectField,
    gold: Mapping[str, Any],
    answer: Mapping[str, Any] | None,
    *,
    unknown: Collection[str] = (),
    incomplete: Collection[str] = (),
) -> DocumentGrade:
    """Return the grade of an answer, None for a failed document.

    `unknown` are paths that are not graded, `incomplete` those of lists that gold does not name completely.
    """
    grading = _Grading(failed=answer is None, unknown=frozenset(unknown), incomplete=frozenset(incomplete))
    grading.grade(fields, gold, answer, in_list=False)
    return DocumentGrade(grading.counts, len(frozenset(unknown)))


class _Grading:
    """The counts of one document in progress; a scratch instance weighs a possible pair of objects."""

    def __init__(self, *, failed: bool, unknown: frozenset[str], incomplete: frozenset[str]) -> None:
        self.counts: dict[str, FieldCounts] = {}
        self._failed = failed
        self._unknown = unknown
        self._incomplete = incomplete

    def grade(self, field: Field, gold: Any, predicted: Any, *, in_list: bool) -> None:
        """Count one judged value and the values below it."""
        if field.path in self._unknown:
            return
        if isinstance(field, Leaf):
            self._grade_leaf(field, gold, predicted, in_list=in_list)
        elif isinstance(field, ObjectField):
            self._grade_object(field, gold, predicted, in_list=in_list)
        elif isinstance(field, ScalarList):
            self._grade_scalars(field, _items(gold), _items(predicted))
        else:
            self._grade_objects(field, _objects(gold), _objects(predicted))

    def _grade_object(self, field: ObjectField, gold: Any, predicted: Any, *, in_list: bool) -> None:
        values = predicted if isinstance(predicted, Mapping) else {}
        if isinstance(gold, Mapping):
            judged = {name: gold[name] for name in field.properties if name in gold}
        else:  # by the gold, the text does not mention the object
            judged = dict.fromkeys(field.properties)
        for name, value in judged.items():
            self.grade(field.properties[name], value, values.get(name), in_list=in_list)

    def _grade_leaf(self, leaf: Leaf, gold: Any, predicted: Any, *, in_list: bool) -> None:
        if leaf.comparator is None:
            return
        counts = self._of(leaf)
        expected = is_something(gold)
        answered = is_something(predicted)
        agree = expected and answered and leaf.comparator.agree(predicted, gold)
        is_empty = not expected and not answered
        right = agree or (is_empty and not self._failed)
        counts.tp += agree
        counts.tn += right and is_empty
        counts.fp += answered and not agree
        counts.fn += expected and not agree
        counts.judged += 1
        counts.right += right
        counts.paired += in_list
        counts.agreeing += in_list and right
        if leaf.has_few_values:
            counts.confusion[_shortened_json(gold), _shortened_json(predicted)] += 1

    def _grade_scalars(self, field: ScalarList, gold: Sequence[Any], predicted: Sequence[Any]) -> None:
        comparator = field.item.comparator
        if comparator is None:
            return
        pairs, approximate = _agreeing_items(comparator, gold, predicted)
        counts = self._of(field.item)
        counts.approximate |= approximate
        self._add_list(counts, field.path, pairs, len(gold), len(predicted))

    def _grade_objects(self, field: ObjectList, gold: Sequence[Any], predicted: Sequence[Any]) -> None:
        golds = sorted(gold, key=canonical_json)
        answers = sorted(predicted, key=canonical_json)
        pairs, approximate = pair_objects(field, golds, answers, weigh=self._pair_weigher(field.item))
        counts = self._of(field)
        counts.approximate |= approximate
        self._add_list(counts, field.path, len(pairs), len(golds), len(answers))
        for gold_place, answer_place in pairs:
            self.grade(field.item, golds[gold_place], answers[answer_place], in_list=True)
        paired_golds = {gold_place for gold_place, _ in pairs}
        paired_answers = {answer_place for _, answer_place in pairs}
        for place, value in enumerate(golds):
            if place not in paired_golds:
                self._count_alone(field.item, value, "fn", names=None)
        if field.path in self._incomplete:
            return
        judged = {name for value in golds for name in value} or None
        for place, value in enumerate(answers):
            if place not in paired_answers:
                self._count_alone(field.item, value, "fp", names=judged)

    def _add_list(self, counts: FieldCounts, path: str, pairs: int, golds: int, answers: int) -> None:
        extra = 0 if path in self._incomplete else answers - pairs
        is_empty = not golds and not answers
        counts.tp += pairs
        counts.fn += golds - pairs
        counts.fp += extra
        counts.tn += is_empty and not self._failed
        counts.judged += golds + extra + is_empty
        counts.right += pairs + (is_empty and not self._failed)

    def _count_alone(self, field: Field, value: Any, kind: str, *, names: Collection[str] | None) -> None:
        """Count the values of an object without a partner as `fp` or `fn`; only those of the properties `names`."""
        if field.path in self._unknown:
            return
        if isinstance(field, ObjectField):
            values = value if isinstance(value, Mapping) else {}
            for name, inner in values.items():
                if name in field.properties and (names is None or name in names):
                    self._count_alone(field.properties[name], inner, kind, names=None)
            return
        if isinstance(field, Leaf):
            items = [value] if is_something(value) and field.comparator is not None else []
        elif isinstance(field, ScalarList):
            items = _items(value) if field.item.comparator is not None else []
        else:
            items = _objects(value)
            for item in items:
                self._count_alone(field.item, item, kind, names=None)
        if items:
            counts = self._of(field)
            setattr(counts, kind, getattr(counts, kind) + len(items))
            counts.judged += len(items)

    def _pair_weigher(self, item: ObjectField) -> Weigh:
        """Return the function that weighs a possible pair of objects."""
        return LeafWeights(item, self._unknown) if has_leaves_only(item) else partial(self._weigh, item)

    def _weigh(self, item: ObjectField, gold: Any, predicted: Any) -> tuple[int, int]:
        """Return the numbers of leaves of a pair that agree on a value and on null."""
        scratch = _Grading(failed=False, unknown=self._unknown, incomplete=self._incomplete)
        scratch.grade(item, gold, predicted, in_list=True)
        leaf_counts = [counts for counts in scratch.counts.values() if counts.is_leaf]
        return sum(counts.tp for counts in leaf_counts), sum(counts.tn for counts in leaf_counts)

    def _of(self, field: Field) -> FieldCounts:
        counts = self.counts.get(field.path)
        if counts is None:
            counts = FieldCounts(is_leaf=not isinstance(field, ObjectList))
            self.counts[field.path] = counts
        return counts


def _agreeing_items(comparator: Comparator, gold: Sequence[Any], predicted: Sequence[Any]) -> tuple[int, bool]:
    """Return how many items of two multisets agree one to one, and whether that is approximate."""
    forms = [[comparator.normal_form(value) for value in values] for values in (gold, predicted)]
    if None not in forms[0] and None not in forms[1]:
        return (Counter(forms[0]) & Counter(forms[1])).total(), False
    golds = sorted(gold, key=canonical_json)
    answers = sorted(predicted, key=canonical_json)
    agreeing = {
        (left, right): 1
        for left, value in enumerate(golds)
        for right, item in enumerate(answers)
        if comparator.agree(item, value)
    }
    pairs, approximate = assignment(agreeing)
    return len(pairs), approximate


def _items(value: Any) -> list[Any]:
    return [item for item in value if is_something(item)] if isinstance(value, list) else []


def _objects(value: Any) -> list[Any]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _shortened_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_CHARS else text[: VALUE_CHARS - 1] + "…"
