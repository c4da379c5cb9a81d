"""Grades of documents: exact counts of the specification, and laws for any gold and answers."""

from __future__ import annotations

import copy
import itertools
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.truth.graded_fields import ObjectField, ObjectList, ScalarList, every_field, graded_fields, leaves
from pipeline.truth.grading import DocumentGrade, _Grading, grade_document
from pipeline.truth.object_pairs import pair_objects
from pipeline.truth.pair_weights import LeafWeights, has_leaves_only
from pipeline.truth.pairing import MOST_EXACT, assignment

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "companies": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 80},
                    "ticker": {"type": ["string", "null"], "maxLength": 10},
                    "sentiment": {"enum": ["positive", "negative", None]},
                },
            },
        },
        "themes": {"type": "array", "items": {"type": "string", "maxLength": 50}},
        "is_global": {"type": "boolean"},
        "severity": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "summary": {"type": "string", "maxLength": 800},
        "place": {"$ref": "#/$defs/place"},
    },
    "$defs": {"place": {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"type": "string"}}}},
}
FIELDS = graded_fields(SCHEMA, {})
BY_NAME = graded_fields(SCHEMA, {"companies": {"key": "name"}})
GOLD = {"companies": [{"name": "Acme", "ticker": "ACM"}, {"name": "Beta", "ticker": None}]}
ANSWER = {"companies": [{"name": "ACME ", "ticker": "ACM"}, {"name": "Gamma", "ticker": "GAM"}]}


def _counts(grade: DocumentGrade, path: str) -> tuple[int, int, int]:
    counts = grade.fields[path]
    return counts.tp, counts.fp, counts.fn


def test_list_objects_are_paired_by_key() -> None:
    """Unpaired objects count as missing or as invented."""
    grade = grade_document(BY_NAME, GOLD, ANSWER)
    assert _counts(grade, "companies") == (1, 1, 1)
    assert _counts(grade, "companies.name") == (1, 1, 1)
    assert _counts(grade, "companies.ticker") == (1, 1, 0)
    assert grade.totals == (2, 2, 1)


def test_failed_document_misses_all_gold_values() -> None:
    """It has no answer, so nothing is invented."""
    grade = grade_document(BY_NAME, GOLD, None)
    assert _counts(grade, "companies") == (0, 0, 2)
    assert _counts(grade, "companies.name") == (0, 0, 2)
    assert _counts(grade, "companies.ticker") == (0, 0, 1)


@pytest.mark.parametrize(("incomplete", "expected"), [((), (1, 1, 1)), (("themes",), (1, 0, 1))])
def test_equal_items_need_separate_partners(incomplete: tuple[str, ...], expected: tuple[int, int, int]) -> None:
    """Items beyond an incomplete gold list do not count as invented."""
    grade = grade_document(FIELDS, {"themes": ["a", "b"]}, {"themes": ["b", "b"]}, incomplete=incomplete)
    assert _counts(grade, "themes") == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [({"severity": None}, (0, 0, 0, 1, 1)), ({"severity": 3}, (0, 1, 0, 0, 0)), (None, (0, 0, 0, 0, 0))],
)
def test_gold_that_is_null(answer: dict[str, Any] | None, expected: tuple[int, ...]) -> None:
    """A null answer is right, a value is invented, and a failed document is wrong without a count."""
    counts = grade_document(FIELDS, {"severity": None}, answer).fields["severity"]
    assert (counts.tp, counts.fp, counts.fn, counts.tn, counts.right) == expected
    assert counts.judged == 1


def test_unjudged_properties_do_not_count() -> None:
    """These are properties absent from gold, unknown ones, and free text."""
    grade = grade_document(FIELDS, {"is_global": False, "summary": "x"}, {"is_global": True, "themes": ["a"]})
    assert set(grade.fields) == {"is_global"}
    unknown = grade_document(FIELDS, {"is_global": False}, {"is_global": True}, unknown=["is_global"])
    assert (dict(unknown.fields), unknown.unknown) == ({}, 1)


def test_wrong_value_counts_as_missing_and_invented() -> None:
    """False counts as a value."""
    grade = grade_document(FIELDS, {"is_global": False}, {"is_global": True})
    assert _counts(grade, "is_global") == (0, 1, 1)
    assert grade.fields["is_global"].confusion == {("false", "true"): 1}


def test_nested_object_is_graded_by_its_gold_properties() -> None:
    """A null object means that none of its properties has a value."""
    answer = {"place": {"city": "Rome", "zip": "1"}}
    assert grade_document(FIELDS, {"place": {"city": "rome"}}, answer).totals == (1, 0, 0)
    assert grade_document(FIELDS, {"place": None}, answer).totals == (0, 2, 0)
    assert grade_document(FIELDS, {"place": {"city": "Rome"}}, {}).totals == (0, 0, 1)


NODE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "child": {"allOf": [{"$ref": "#/$defs/node"}]}},
}
BASE = {"allOf": [True, {"properties": {"id": {"type": "string"}}}]}
DERIVED = {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"place": {"$ref": "#/$defs/other"}}}]}
OTHER = {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"city": {"type": "string"}}}]}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"properties": {"node": {"allOf": [{"$ref": "#/$defs/node"}]}}}, ["node", "node.name", "node.child"]),
        ({"properties": {"a": {"type": "string"}}, "allOf": [True]}, ["a"]),
        ({"allOf": [{"$ref": "#/$defs/derived"}]}, ["id", "place", "place.id", "place.city"]),
        ({"allOf": [{"$ref": "#/$defs/base"}, {"$ref": "#/$defs/other"}]}, ["id", "city"]),
    ],
)
def test_all_of_properties_are_fields(schema: dict[str, Any], expected: list[str]) -> None:
    """This holds at any depth; a recursive one ends as a single value."""
    defs = {"node": NODE, "base": BASE, "derived": DERIVED, "other": OTHER}
    fields = graded_fields({"type": "object", "$defs": defs, **schema}, {})
    assert [field.path for field in every_field(fields) if field.path] == expected


def test_default_rules_skip_free_text() -> None:
    """A recursive schema is one value where it repeats itself."""
    assert [leaf.path for leaf in leaves(FIELDS) if leaf.comparator is None] == ["summary"]
    tree = {"$ref": "#/$defs/node"}
    node = {"type": "object", "properties": {"label": {"type": "string"}, "left": tree, "right": tree}}
    fields = graded_fields({**node, "$defs": {"node": node}}, {})
    assert "left.left" in {leaf.path for leaf in leaves(fields)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"companies.tickr": {"compare": "text"}}, "the schema has no such field.*companies.ticker"),
        ({"summary": {"compare": "token"}}, "eval.fields.summary.compare: got 'token'.*tokens"),
        ({"companies": {"key": "nam"}}, "eval.fields.companies.key: got 'nam'.*name"),
        ({"severity": {"abs": -1}}, "eval.fields.severity.abs: got -1"),
        ({"severity": {"at_least": 2}}, "from 0 to 1"),
        ({"companies": {"compare": "text"}}, "need a rule for each of its properties"),
        ({"themes": {"key": "x"}}, "only a list of objects has a key"),
        ({"themes": {"comparee": "x"}}, "'comparee'.*compare"),
    ],
)
def test_invalid_grading_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    """The message suggests the nearest path or rule."""
    with pytest.raises(ConfigError, match=message):
        graded_fields(SCHEMA, settings)


NAMES = st.sampled_from(["Acme", "acme.", "Beta", "Gamma", "", None])
COMPANY = st.fixed_dictionaries(
    {"name": NAMES, "ticker": st.sampled_from(["A", "B", None]), "sentiment": st.sampled_from(["positive", None])}
)
COMPLETE = st.fixed_dictionaries(
    {
        "companies": st.lists(COMPANY, max_size=5),
        "themes": st.lists(st.sampled_from(["a", "A", "b", ""]), max_size=4),
        "is_global": st.booleans(),
        "severity": st.sampled_from([None, 0, 1]),
    }
)
PARTLY = st.dictionaries(st.sampled_from(["name", "ticker", "sentiment"]), st.sampled_from(["Acme", "A", None]))
BOTH = [FIELDS, BY_NAME]


@settings(deadline=None, max_examples=60)
@given(COMPLETE, st.sampled_from(BOTH))
def test_answer_equal_to_gold_has_no_errors(output: dict[str, Any], fields: ObjectField) -> None:
    """Objects without a key have no partner and are left out here."""
    output = copy.deepcopy(output)
    output["companies"] = [company for company in output["companies"] if company["name"]]
    assert grade_document(fields, output, output).totals[1:] == (0, 0)


@settings(deadline=None, max_examples=60)
@given(COMPLETE, COMPLETE, st.sampled_from(BOTH))
def test_swapping_gold_and_answer_swaps_missing_and_invented(
    gold: dict[str, Any], answer: dict[str, Any], fields: ObjectField
) -> None:
    """This holds for each field of a complete gold."""
    there = grade_document(fields, gold, answer).fields
    back = grade_document(fields, answer, gold).fields
    assert {path: (c.tp, c.fp, c.fn) for path, c in there.items() if c.tp or c.fp or c.fn} == {
        path: (c.tp, c.fn, c.fp) for path, c in back.items() if c.tp or c.fp or c.fn
    }


@settings(deadline=None, max_examples=60)
@given(COMPLETE, COMPLETE, st.randoms())
def test_item_order_does_not_affect_the_grade(gold: dict[str, Any], answer: dict[str, Any], rng: Any) -> None:
    """The order in which a model wrote a list is ignored."""
    shuffled = copy.deepcopy(answer)
    for name in ("companies", "themes"):
        rng.shuffle(shuffled[name])
    assert grade_document(FIELDS, gold, answer) == grade_document(FIELDS, gold, shuffled)


@settings(deadline=None, max_examples=60)
@given(COMPLETE, COMPLETE)
def test_failure_never_improves_a_grade(gold: dict[str, Any], answer: dict[str, Any]) -> None:
    """A failed document has no more true positives or right values than the same document done."""
    done = grade_document(FIELDS, gold, answer)
    failed = grade_document(FIELDS, gold, None)
    for path, counts in failed.fields.items():
        before = done.fields[path]
        assert counts.tp == 0
        assert counts.right <= before.right
        assert counts.fn >= before.fn
    assert not failed.is_right


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.integers(1, 9)))
def test_assignment_has_the_maximum_weight(weights: dict[tuple[int, int], int]) -> None:
    """It equals the best of all possible assignments."""
    pairs, approximate = assignment(weights)
    best = max(
        sum(weights.get((row, column), 0) for row, column in enumerate(order))
        for order in itertools.permutations(range(6))
    )
    assert not approximate
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert sum(weights[pair] for pair in pairs) == best


@settings(deadline=None, max_examples=40)
@given(st.lists(PARTLY, max_size=5), st.lists(PARTLY, max_size=5))
def test_pairing_of_partly_judged_objects_is_optimal(
    golds: list[dict[str, Any]], answers: list[dict[str, Any]]
) -> None:
    """No other pairing has more agreeing leaves."""
    listed = FIELDS.properties["companies"]
    assert isinstance(listed, ObjectList)
    weight = {
        (left, right): sum(
            gold[name] is not None and gold[name] == answer.get(name) for name in gold.keys() & answer.keys()
        )
        for left, gold in enumerate(golds)
        for right, answer in enumerate(answers)
    }
    pairs, _ = pair_objects(
        ObjectList("companies", listed.item, None),
        golds,
        answers,
        weigh=lambda gold, answer: (weight[_place(golds, gold), _place(answers, answer)], 0),
    )
    if any(name not in item for item in [*golds, *answers] for name in ("name",)):
        best = max(
            sum(weight.get((left, right), 0) for left, right in enumerate(order) if left < len(golds))
            for order in itertools.permutations(range(5))
        )
        assert sum(weight[pair] for pair in pairs) == best


def _place(items: list[dict[str, Any]], item: Any) -> int:
    return next(place for place, other in enumerate(items) if other is item)


def test_long_lists_are_paired_greedily() -> None:
    """Beyond the limit of the exact method the counts are marked approximate; equal objects are paired first."""
    size = MOST_EXACT + 50
    gold = {"companies": [{"ticker": "A", "sentiment": "positive"}] * size}
    answer = {"companies": [{"ticker": "A", "sentiment": "negative"}] * size}
    counts = grade_document(FIELDS, gold, answer).fields["companies"]
    assert (counts.tp, counts.approximate) == (size, True)
    equal = grade_document(FIELDS, gold, gold).fields["companies"]
    assert (equal.tp, equal.approximate) == (size, False)


def test_scalar_list_is_a_leaf() -> None:
    """It counts in the totals, while for lists of objects their properties count."""
    assert isinstance(FIELDS.properties["themes"], ScalarList)
    assert grade_document(FIELDS, {"themes": ["a"]}, {"themes": ["a"]}).totals == (1, 0, 0)


ROW = {"properties": {"a": {"type": "string"}, "n": {"type": "number"}, "k": {"enum": ["x", "y"]}}}
NESTED_ROW = {"properties": {**ROW["properties"], "in": {"properties": {"b": {"type": "boolean"}}}}}
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "a": st.sampled_from(["Acme", "ACME.", "Beta", "", None]),
        "n": st.sampled_from([1, 1.0, 2.5, None]),
        "k": st.sampled_from(["x", "y", None]),
        "in": st.sampled_from([None, {}, {"b": True}, {"b": None}]),
    },
)


@given(gold=ROWS, predicted=ROWS, unknown=st.sets(st.sampled_from(["rows.a", "rows.in.b"])))
@settings(max_examples=100)
def test_quick_weights_equal_full_grading(gold: Any, predicted: Any, unknown: set[str]) -> None:
    """The quick count of a pair's agreeing values equals the grade of that pair."""
    schema = {"properties": {"rows": {"type": "array", "items": {"type": "object", **NESTED_ROW}}}}
    field = graded_fields(schema, {}).properties["rows"]
    assert isinstance(field, ObjectList)
    grading = _Grading(failed=False, unknown=frozenset(unknown), incomplete=frozenset())
    assert has_leaves_only(field.item)
    assert LeafWeights(field.item, unknown)(gold, predicted) == grading._weigh(field.item, gold, predicted)


def test_grading_of_hundreds_of_keyless_objects_is_bounded() -> None:
    """Every pair is possible, because they share few distinct values; a naive method took 16 s."""
    schema = {"properties": {"rows": {"type": "array", "items": {"type": "object", **ROW}}}}
    gold = {"rows": [{"a": f"v{n}", "n": n % 7, "k": "xy"[n % 2]} for n in range(600)]}
    answer = {"rows": [{"a": f"w{n}", "n": n % 7, "k": "xy"[n % 2]} for n in range(600)]}
    before = time.process_time()
    grade = grade_document(graded_fields(schema, {}), gold, answer)
    assert time.process_time() - before < 8
    assert grade.fields["rows"].approximate
    assert grade.fields["rows"].tp == 600
