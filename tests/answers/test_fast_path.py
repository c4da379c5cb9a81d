"""The quick check accepts only values that the validator accepts, and decides the usual answers of agents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.agents import load_agent
from pipeline.answers.fast_path import quick_check

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, 1.0, 1.5, -2.0, 1e300]),
    st.sampled_from(["", "a", "bb", "ccc", "ä", "\U0001f600\U0001f600"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)
KINDS = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"])
BOUNDS = st.integers(0, 3)
KEYWORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.one_of(KINDS, st.lists(KINDS, min_size=1, max_size=3, unique=True)),
    "enum": st.lists(SCALARS, min_size=1, max_size=3),
    "const": SCALARS,
    "required": st.lists(NAMES, max_size=2, unique=True),
    "pattern": st.sampled_from(["^a", "b", "c$"]),
    "$ref": st.just("#/$defs/a"),
    "title": st.just("a title"),
    "multipleOf": st.just(2),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), BOUNDS),
    **dict.fromkeys(("minimum", "maximum"), st.sampled_from([-1, 0, 1.0, 2])),
}


def parts(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas whose keywords come from the table, with `inner` schemas below them."""
    below = {
        "properties": st.dictionaries(NAMES, inner, max_size=2),
        "additionalProperties": st.one_of(st.booleans(), inner),
        "items": inner,
        "anyOf": st.lists(inner, min_size=1, max_size=2),
    }
    return st.fixed_dictionaries({}, optional={**KEYWORDS, **below}).flatmap(
        lambda properties: (
            st.sets(st.sampled_from(sorted(properties)), max_size=4).map(
                lambda required: {k: properties[k] for k in required}
            )
            if properties
            else st.just({})
        )
    )


SCHEMAS = st.recursive(st.one_of(st.just(True), st.just({})), parts, max_leaves=6)


def check_accepted_values(schema: Any, named: Any, value: Any) -> None:
    """Check that a value that the quick check accepts is valid."""
    schema = {**(schema if isinstance(schema, dict) else {}), "$defs": {"a": named}}
    check = quick_check(schema)
    try:
        is_accepted = check is not None and check(value)
    except RecursionError:
        is_accepted = False
    assert not is_accepted or Draft202012Validator(schema).is_valid(value)


@settings(max_examples=150, deadline=None)
@given(schema=SCHEMAS, named=SCHEMAS, value=VALUES)
def test_quick_check_accepts_only_valid_values(schema: Any, named: Any, value: Any) -> None:
    """For any schema and value, a positive quick check means a valid value."""
    check_accepted_values(schema, named, value)


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(schema=SCHEMAS, named=SCHEMAS, value=VALUES)
def test_quick_check_accepts_only_valid_values_of_many_schemas(schema: Any, named: Any, value: Any) -> None:
    """The same property with more examples."""
    check_accepted_values(schema, named, value)


ANSWER = {"name": "Acme", "score": 3, "mood": "good", "notes": ["a"], "more": None, "next": {"name": "Beta"}}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^[A-Z]"},
        "score": {"type": "integer", "minimum": 0, "maximum": 5},
        "mood": {"enum": ["good", "bad"]},
        "notes": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "more": {"anyOf": [{"type": "number"}, {"const": None}]},
        "next": {"$ref": "#/$defs/company"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"company": {"type": "object", "properties": {"next": {"$ref": "#/$defs/company"}}}},
}


def test_quick_check_accepts_an_ordinary_answer() -> None:
    """The validator is not needed."""
    check = quick_check(SCHEMA)
    assert check is not None
    assert check(ANSWER)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "acme"},
        {"name": "A much too long name"},
        {"score": 6},
        {"score": True},
        {"mood": "so so"},
        {"notes": []},
        {"notes": [1]},
        {"more": "x"},
        {"next": {"next": 1}},
        {"other": 1},
    ],
    ids=str,
)
def test_quick_check_leaves_wrong_fields_to_the_validator(change: dict[str, Any]) -> None:
    """The validator then explains the violation."""
    check = quick_check(SCHEMA)
    assert check is not None
    assert not check({**ANSWER, **change})


@pytest.mark.parametrize(
    "schema",
    [
        {"multipleOf": 2},
        {"not": {}},
        {"enum": [1]},
        {"$id": "x"},
        {"$ref": "#/properties/a"},
        {"properties": {"a": False}},
    ],
    ids=str,
)
def test_quick_check_leaves_unknown_schemas_to_the_validator(schema: dict[str, Any]) -> None:
    """An unknown keyword disables the quick check for the whole schema."""
    assert quick_check(schema) is None


@pytest.mark.parametrize("name", ["extractor", "event_classifier"])
def test_built_in_agents_have_a_quick_check(name: str) -> None:
    """Their schemas use only known keywords."""
    assert load_agent(name).compiled.surely_keeps is not None
