"""Grades of documents: exact counts of the specification, and laws that hold for all gold and answers."""

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


def test_a_paired_list() -> None:
    """An object of the same key is paired; the others count as missing and as invented."""
    grade = grade_document(BY_NAME, GOLD, ANSWER)
    assert _counts(grade, "companies") == (1, 1, 1)
    assert _counts(grade, "companies.name") == (1, 1, 1)
    assert _counts(grade, "companies.ticker") == (1, 1, 0)
    assert grade.totals == (2, 2, 1)


def test_a_failed_document() -> None:
    """A failed document has said nothing: all that gold names is missing."""
    grade = grade_document(BY_NAME, GOLD, None)
    assert _counts(grade, "companies") == (0, 0, 2)
    assert _counts(grade, "companies.name") == (0, 0, 2)
    assert _counts(grade, "companies.ticker") == (0, 0, 1)


@pytest.mark.parametrize(("incomplete", "expected"), [((), (1, 1, 1)), (("themes",), (1, 0, 1))])
def test_a_multiset(incomplete: tuple[str, ...], expected: tuple[int, int, int]) -> None:
    """A second equal item needs a second partner; what an incomplete list lacks is not invented."""
    grade = grade_document(FIELDS, {"themes": ["a", "b"]}, {"themes": ["b", "b"]}, incomplete=incomplete)
    assert _counts(grade, "themes") == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [({"severity": None}, (0, 0, 0, 1, 1)), ({"severity": 3}, (0, 1, 0, 0, 0)), (None, (0, 0, 0, 0, 0))],
)
def test_a_judged_nothing(answer: dict[str, Any] | None, expected: tuple[int, ...]) -> None:
    """Nothing is right for nothing, a value is invented, and a failed document is wrong without any count."""
    counts = grade_document(FIELDS, {"severity": None}, answer).fields["severity"]
    assert (counts.tp, counts.fp, counts.fn, counts.tn, counts.right) == expected
    assert counts.judged == 1


def test_what_is_not_judged_counts_nowhere() -> None:
    """A property that gold does not name, an unknown one, and free text change no count."""
    grade = grade_document(FIELDS, {"is_global": False, "summary": "x"}, {"is_global": True, "themes": ["a"]})
    assert set(grade.fields) == {"is_global"}
    unknown = grade_document(FIELDS, {"is_global": False}, {"is_global": True}, unknown=["is_global"])
    assert (dict(unknown.fields), unknown.unknown) == ({}, 1)


def test_a_wrong_value_is_missing_and_invented() -> None:
    """A value that differs counts twice, and false is something."""
    grade = grade_document(FIELDS, {"is_global": False}, {"is_global": True})
    assert _counts(grade, "is_global") == (0, 1, 1)
    assert grade.fields["is_global"].confusion == {("false", "true"): 1}


def test_a_nested_object() -> None:
    """Only the properties that gold names are judged; a null object says nothing of all of them."""
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
def test_parts_of_all_of(schema: dict[str, Any], expected: list[str]) -> None:
    """All properties of an `allOf` are fields, at any depth; one that contains itself ends as one value."""
    defs = {"node": NODE, "base": BASE, "derived": DERIVED, "other": OTHER}
    fields = graded_fields({"type": "object", "$defs": defs, **schema}, {})
    assert [field.path for field in every_field(fields) if field.path] == expected


def test_the_default_rules() -> None:
    """Free text is off, and a recursive schema is one value where it repeats itself."""
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
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    """A path or rule that cannot be meant is refused with the nearest one."""
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
def test_an_answer_is_right_by_itself(output: dict[str, Any], fields: ObjectField) -> None:
    """An output that is its own gold has an F1 of 1 or none; objects that say nothing, or no key, have no partner."""
    output = copy.deepcopy(output)
    output["companies"] = [company for company in output["companies"] if company["name"]]
    assert grade_document(fields, output, output).totals[1:] == (0, 0)


@settings(deadline=None, max_examples=60)
@given(COMPLETE, COMPLETE, st.sampled_from(BOTH))
def test_gold_and_answer_change_places(gold: dict[str, Any], answer: dict[str, Any], fields: ObjectField) -> None:
    """Swapping a complete gold and an answer swaps missing and invented values of each field."""
    there = grade_document(fields, gold, answer).fields
    back = grade_document(fields, answer, gold).fields
    assert {path: (c.tp, c.fp, c.fn) for path, c in there.items() if c.tp or c.fp or c.fn} == {
        path: (c.tp, c.fn, c.fp) for path, c in back.items() if c.tp or c.fp or c.fn
    }


@settings(deadline=None, max_examples=60)
@given(COMPLETE, COMPLETE, st.randoms())
def test_the_order_of_items_changes_nothing(gold: dict[str, Any], answer: dict[str, Any], rng: Any) -> None:
    """The order in which a model wrote a list is no part of the grade."""
    shuffled = copy.deepcopy(answer)
    for name in ("companies", "themes"):
        rng.shuffle(shuffled[name])
    assert grade_document(FIELDS, gold, answer) == grade_document(FIELDS, gold, shuffled)


@settings(deadline=None, max_examples=60)
@given(COMPLETE, COMPLETE)
def test_a_failure_never_raises_a_grade(gold: dict[str, Any], answer: dict[str, Any]) -> None:
    """A document that turns failed has no more true positives, right values, or rightness than before."""
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
def test_the_assignment_is_the_heaviest(weights: dict[tuple[int, int], int]) -> None:
    """The assignment has the weight that trying all of them finds."""
    pairs, approximate = assignment(weights)
    best = max(
        sum(weights.get((left, right), 0) for left, right in enumerate(order))
        for order in itertools.permutations(range(6))
    )
    assert not approximate
    assert len({left for left, _ in pairs}) == len({right for _, right in pairs}) == len(pairs)
    assert sum(weights[pair] for pair in pairs) == best


@settings(deadline=None, max_examples=40)
@given(st.lists(PARTLY, max_size=5), st.lists(PARTLY, max_size=5))
def test_partly_judged_objects_are_paired_best(golds: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    """No other pairing of partly judged objects has more agreeing leaves."""
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


def test_a_list_of_thousands_is_approximated() -> None:
    """Beyond the exact method's size the pairs are greedy and marked; equal objects are paired first."""
    size = MOST_EXACT + 50
    gold = {"companies": [{"ticker": "A", "sentiment": "positive"}] * size}
    answer = {"companies": [{"ticker": "A", "sentiment": "negative"}] * size}
    counts = grade_document(FIELDS, gold, answer).fields["companies"]
    assert (counts.tp, counts.approximate) == (size, True)
    equal = grade_document(FIELDS, gold, gold).fields["companies"]
    assert (equal.tp, equal.approximate) == (size, False)


def test_a_list_of_scalars_is_a_leaf() -> None:
    """Lists of single values count in the totals; lists of objects do not, their properties do."""
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
def test_quick_weights_are_those_of_grading(gold: Any, predicted: Any, unknown: set[str]) -> None:
    """The values of a pair that agree are counted as the grade of that pair counts them."""
    schema = {"properties": {"rows": {"type": "array", "items": {"type": "object", **NESTED_ROW}}}}
    field = graded_fields(schema, {}).properties["rows"]
    assert isinstance(field, ObjectList)
    grading = _Grading(failed=False, unknown=frozenset(unknown), incomplete=frozenset())
    assert has_leaves_only(field.item)
    assert LeafWeights(field.item, unknown)(gold, predicted) == grading._weigh(field.item, gold, predicted)


def test_hundreds_of_objects_without_a_key_are_graded_in_a_second() -> None:
    """Every pair is possible, as they share values of few kinds; it took 16 s."""
    schema = {"properties": {"rows": {"type": "array", "items": {"type": "object", **ROW}}}}
    gold = {"rows": [{"a": f"v{n}", "n": n % 7, "k": "xy"[n % 2]} for n in range(600)]}
    answer = {"rows": [{"a": f"w{n}", "n": n % 7, "k": "xy"[n % 2]} for n in range(600)]}
    before = time.process_time()
    grade = grade_document(graded_fields(schema, {}), gold, answer)
    assert time.process_time() - before < 8
    assert grade.fields["rows"].approximate
    assert grade.fields["rows"].tp == 600
