"""Schemas: which are refused at the start, the messages about violations, and which strings are quotes."""

from __future__ import annotations

import datetime
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.answers.schema import compile_schema
from pipeline.errors import ConfigError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "items", "x"]) | st.text(max_size=8), inner)
    ),
    max_leaves=8,
)
QUOTE = {"type": "string", "x-quote": True}


def of(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an object schema with these properties."""
    return {"type": "object", "properties": properties, **more}


def violation_of(schema: dict[str, Any], value: Any) -> tuple[str, str]:
    """Return place and message of the violation."""
    violation = compile_schema(schema, where="test").violation(value)
    assert violation is not None
    return violation.path, violation.message


def closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """Return an object schema with exactly these properties."""
    return of(properties, required=required, additionalProperties=False)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ([], "mapping"),
        ({"type": "array"}, '"array"'),
        ({"type": ["object", "null"]}, '["object", "null"]'),
        ({}, "null"),
        (of({"a": {"type": "text"}}), "$.properties.a.type"),
        (of({"a": {"minimum": "0"}}), "$.properties.a.minimum"),
        (of({"a": {"pattern": "("}}), "$.properties.a.pattern"),
        (of({}, patternProperties={"(": {}}), "$.patternProperties"),
        (of({"a": {"$ref": "https://example.com/s.json"}}), "$.properties.a.$ref"),
        (of({"a": {"$ref": "other.json#/a"}}), "$.properties.a.$ref"),
        (of({"a": {"items": {"$ref": "#/$defs/b"}}}), "$.properties.a.items.$ref"),
        (of({"a": {"$dynamicRef": "#b"}}), "$.properties.a.$dynamicRef"),
        (of({"a": {"$ref": "#/my/b"}}, my={"b": {"type": "text"}}), "$.properties.a.$ref"),
        (of({"a": {"$id": "https://example.com/a"}}), "$.properties.a.$id"),
        (of({"a": {"type": "array", "x-quote": True}}), "$.properties.a.x-quote"),
        (of({"a": {"type": "string", "x-quote": "yes"}}), "$.properties.a.x-quote"),
        (closed({"evidence": {}}, ["evidnce"]), '$.required: "evidnce" is none of the properties'),
        (closed({"evidence": {}}, ["evidnce"]), "the nearest is evidence"),
        (of({"a": {"items": closed({}, ["b"])}}), "$.properties.a.items.required"),
        (of({}, **{"$ref": "#"}), "refers to itself"),
        (of({"a": {"const": datetime.date(2024, 1, 1)}}), "date"),
        ({"type": "object", "properties": {False: {}}}, "key"),
        (of({"a": {"const": float("nan")}}), "not JSON"),
    ],
)
def test_unusable_schema_is_refused(schema: Any, place: str) -> None:
    """Each error is a ConfigError with the file and the place in it."""
    with pytest.raises(ConfigError) as caught:
        compile_schema(schema, where="agents/x.yaml: schema")
    assert str(caught.value).startswith("agents/x.yaml: schema: ")
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (of({"a": {"pattern": r"(x)\1"}}), "$.properties.a.pattern"),
        (of({"a": {"pattern": "(?:a{999}){999}"}}), "$.properties.a.pattern"),
        (of({}, patternProperties={r"(x)\1": {}}), "$.patternProperties"),
        (of({}, patternProperties={"^(x+)+$": {}}, unevaluatedProperties=False), "additionalProperties in place of"),
        (of({"a": {"$ref": "#/default/b"}}, default={"b": {"pattern": r"(x)\1"}}), "$.properties.a.$ref.pattern"),
    ],
)
def test_pattern_that_needs_backtracking_is_refused(schema: Any, place: str) -> None:
    """A pattern without a linear engine is an error of the agent, with its place."""
    with pytest.raises(ConfigError) as caught:
        compile_schema(schema, where="test")
    assert place in str(caught.value)


@pytest.mark.parametrize("depth", ["properties", "anyOf", "patternProperties", "additionalProperties", "uniqueItems"])
def test_pattern_matching_takes_linear_time(depth: str) -> None:
    """An answer of 100,000 characters is matched against nested repeats."""
    evil, text = {"type": "string", "pattern": "^(a+)+$"}, "a" * 100_000 + "!"
    value: Any = {"a": text}
    schema = {
        "properties": of({"a": evil}),
        "anyOf": of({"a": {"anyOf": [evil, {"type": "null"}]}}),
        "patternProperties": of({}, patternProperties={"^(a+)+$": {"type": "null"}}, additionalProperties=False),
        "additionalProperties": of({}, additionalProperties={"not": {"pattern": "(a|aa)+$"}}),
        "uniqueItems": of({"a": {**evil, "uniqueItems": True}}),
    }[depth]
    started = time.process_time()
    compiled = compile_schema(schema, where="test")
    violation = compiled.violation({text: 1} if depth == "patternProperties" else value)
    assert (violation is None) is (depth == "additionalProperties")
    assert time.process_time() - started < 10


_NAMES = st.sampled_from(["a", "ab", "x-a", "x-", "b\n", "", "B"])
_PATTERNS = st.sampled_from(["^x-", "^a", "b$", "(a|b)+$", "(?i:b)", "^(?!a)", "."])
_PARTS = st.sampled_from([{}, True, False, {"type": "integer"}, {"type": "string", "pattern": "(a+)+$"}])


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(_NAMES, _PARTS, max_size=2),
            "patternProperties": st.dictionaries(_PATTERNS, _PARTS, max_size=2),
            "additionalProperties": _PARTS,
            "propertyNames": st.fixed_dictionaries({"pattern": _PATTERNS}),
        },
    ),
    st.dictionaries(_NAMES, st.sampled_from([1, "a", "aab", "b\n", None]), max_size=4),
)
def test_patterns_agree_with_jsonschema(schema: dict[str, Any], value: dict[str, Any]) -> None:
    """With patterns in every place, the verdict per keyword equals the library's."""
    whole = {"type": "object", **schema}
    expected = {
        (error.validator, tuple(error.absolute_path)) for error in Draft202012Validator(whole).iter_errors(value)
    }
    compiled = compile_schema(whole, where="test")
    assert {
        (error.validator, tuple(error.absolute_path)) for error in compiled.validator.iter_errors(value)
    } == expected
    assert (compiled.violation(value) is None) is (not expected)


def test_required_property_may_be_undescribed() -> None:
    """It needs additional properties or a matching pattern."""
    assert compile_schema(of({}, required=["b"]), where="test").violation({"b": 1}) is None
    by_pattern = {**closed({}, ["b"]), "patternProperties": {"^b$": {}}}
    assert compile_schema(by_pattern, where="test").violation({"b": 1}) is None


def test_property_may_be_named_like_a_keyword() -> None:
    """Names and data in a schema are not taken for keywords."""
    schema = of({"$ref": {"type": "string"}, "x-quote": {"type": "string"}, "a": {"const": {"$ref": "http://x"}}})
    compiled = compile_schema(schema, where="test")
    assert compiled.for_server == schema


def test_x_quote_is_removed_for_servers() -> None:
    """The order of keys is kept, because models write in that order."""
    schema = of({"z": QUOTE, "a": {"type": "array", "items": {"$ref": "#/$defs/q"}}}, **{"$defs": {"q": QUOTE}})
    compiled = compile_schema(schema, where="test")
    plain = {"type": "string"}
    assert compiled.for_server == of(
        {"z": plain, "a": {"type": "array", "items": {"$ref": "#/$defs/q"}}}, **{"$defs": {"q": plain}}
    )
    assert list(compiled.for_server["properties"]) == ["z", "a"]
    assert compiled.schema == schema


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        (
            {"type": "integer", "minimum": 0, "maximum": 9},
            "x",
            "an integer >= 0 and <= 9, got a string of 1 character",
        ),
        ({"type": "integer", "minimum": 0}, -1, "an integer >= 0, got a smaller one"),
        ({"type": "number", "exclusiveMaximum": 1}, 1, "a number < 1, got one that is not smaller"),
        ({"type": "integer"}, 1.5, "an integer, got a number"),
        ({"type": ["string", "null"]}, True, "a string or null, got a boolean"),
        ({"enum": ["up", "down"]}, "sideways", 'one of ["up", "down"], got a string of 8 characters'),
        ({"const": "x"}, None, '"x", got null'),
        ({"type": "string", "maxLength": 3}, "long", "a string of at most 3 characters, got a string of 4 characters"),
        ({"type": "string", "pattern": "^[A-Z]+$"}, "a", 'a string that matches "^[A-Z]+$", got one that does not'),
        ({"type": "array", "maxItems": 1}, [1, 2], "an array of at most 1 item, got an array of 2 items"),
        ({"prefixItems": [{}], "items": False}, [1, 2], "at most 1 item, got an array of 2 items"),
        ({"uniqueItems": True}, [1, 1], "items that all differ, got some twice"),
        ({"required": ["p", "q"]}, {}, 'the required properties "p", "q"'),
        ({"required": ["p"]}, {"q": 1}, 'the required property "p"'),
        (of({"p": {}}, additionalProperties=False), {"q": 1}, 'no properties but "p", got 1 unexpected property'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 5, "a string or null, got an integer"),
        (
            {"oneOf": [{"type": "integer"}, {"minimum": 1}]},
            5,
            "exactly one of: an integer or a value >= 1, got an integer",
        ),
        ({"not": {"type": "string"}}, "x", "a value that `not` allows, got one it forbids"),
    ],
)
def test_violation_message_has_expectation_and_type(rule: Any, value: Any, message: str) -> None:
    """It has the schema's own words and the type of the value."""
    assert violation_of(of({"list": {"type": "array", "items": rule}}), {"list": [value]}) == (
        "$.list[0]",
        f"expected {message}",
    )


def test_false_schema_accepts_no_value() -> None:
    """The message must not need a keyword."""
    assert violation_of(of({"a": False}), {"a": 1})[1] == "expected no value at this place"


def test_violation_names_its_place() -> None:
    """Known names are written out and quoted if necessary; names from the model become a star."""
    number = {"type": "number"}
    assert violation_of(
        of({"companies": {"items": of({"impact_score": number})}}), {"companies": [{"impact_score": ""}]}
    )[0] == ("$.companies[0].impact_score")
    assert violation_of(of({"odd name": number}), {"odd name": ""})[0] == '$["odd name"]'
    assert violation_of(of({}, additionalProperties=number), {"a secret": ""})[0] == "$.*"


@settings(deadline=None)
@given(VALUES, VALUES)
def test_violation_message_repeats_no_value(one: Any, other: Any) -> None:
    """Neither values nor names from the model are in place or message, and both are short."""
    rule = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}]}
    schema = of({"a": rule, "b": {"enum": [1]}}, additionalProperties=False, required=["b"])
    compiled = compile_schema(schema, where="test")
    marked = {"a": [one, "MARK", {"MARK": other}], "MARK": "MARK", "items": "MARK"}
    violation = compiled.violation(marked)
    assert violation is not None
    assert "MARK" not in violation.path + violation.message
    assert len(violation.message) <= 300


def test_integer_may_have_a_decimal_point() -> None:
    """1.0 is an integer by the draft; `format` is not asserted."""
    compiled = compile_schema(of({"a": {"type": "integer"}, "day": {"format": "date"}}), where="test")
    assert compiled.violation({"a": 1.0, "day": "soon"}) is None


def test_schema_without_a_type_means_an_object() -> None:
    """A schema that has only properties accepts no other type."""
    assert violation_of({"properties": {}}, 5)[1] == "expected an object, got an integer"


@pytest.mark.parametrize("exponent", [400, 5000])
def test_huge_number_does_not_raise(exponent: int) -> None:
    """Numbers beyond a float's range pass or are a violation."""
    assert violation_of(of({"a": {"type": "integer", "multipleOf": 0.3, "maximum": 5}}), {"a": 10**exponent})[
        0
    ].startswith("$")


def test_deep_nesting_is_a_violation() -> None:
    """A value too deep for the validator is an invalid answer, not an exception."""
    value: dict[str, Any] = {}
    for _ in range(5000):
        value = {"a": value}
    path, message = violation_of(of({"a": {"$ref": "#"}}), value)
    assert path == "$"
    assert "nested too deeply" in message


@pytest.mark.parametrize(
    ("rule", "value", "places"),
    [
        (QUOTE, "q", ["$.a"]),
        ({"type": ["string", "null"], "x-quote": True}, None, []),
        ({"type": "string", "x-quote": False}, "q", []),
        ({"items": QUOTE}, ["q", "q"], ["$.a[0]", "$.a[1]"]),
        ({"prefixItems": [{}, QUOTE], "items": {}}, ["n", "q", "n"], ["$.a[1]"]),
        ({"$ref": "#/$defs/q"}, "q", ["$.a"]),
        ({"anyOf": [QUOTE, {"type": "null"}]}, "q", ["$.a"]),
        ({"anyOf": [{"$ref": "#/$defs/q"}, {"type": "null"}]}, None, []),
        ({"anyOf": [{**QUOTE, "maxLength": 0}, {"type": "string"}]}, "n", []),
        ({"oneOf": [QUOTE, {"type": "integer"}]}, "q", ["$.a"]),
        ({"allOf": [QUOTE, QUOTE]}, "q", ["$.a"]),
        ({"additionalProperties": QUOTE}, {"n": "q"}, ["$.a.*"]),
        ({"patternProperties": {"^q": QUOTE}}, {"q1": "q", "n": "n"}, ["$.a.*"]),
        ({"if": {"type": "string"}, "then": QUOTE, "else": {}}, "q", ["$.a"]),
        ({"if": {"type": "integer"}, "then": {}, "else": QUOTE}, "q", ["$.a"]),
        ({"dependentSchemas": {"n": of({"m": QUOTE})}}, {"n": 1, "m": "q"}, ["$.a.m"]),
        ({"anyOf": [of({"t": {"const": 1}, "m": QUOTE}), of({"t": {"const": 2}})]}, {"t": 2, "m": "n"}, []),
    ],
)
def test_quotes_are_listed_once(rule: dict[str, Any], value: Any, places: list[str]) -> None:
    """Exactly the strings that an applicable schema marks as quotes are listed."""
    compiled = compile_schema(of({"a": rule}, **{"$defs": {"q": QUOTE}}), where="test")
    assert compiled.violation({"a": value}) is None
    quotes = compiled.quotes({"a": value})
    assert [place for place, _ in quotes] == places
    assert {text for _, text in quotes} <= {"q"}


def test_quotes_are_listed_in_a_recursive_schema() -> None:
    """A tree is walked to its leaves."""
    tree = of({"said": QUOTE, "below": {"type": "array", "items": {"$ref": "#"}}})
    quotes = compile_schema(tree, where="test").quotes({"said": "x", "below": [{"below": [{"said": "y"}]}]})
    assert quotes == [("$.said", "x"), ("$.below[0].below[0].said", "y")]


def test_compiled_schema_is_thread_safe() -> None:
    """Eight threads with good and bad values get the results of a single one."""
    compiled = compile_schema(of({"a": {"$ref": "#/$defs/n"}}, **{"$defs": {"n": {"type": "integer"}}}), where="test")
    wrong: list[Any] = []

    def work() -> None:
        for number in range(200):
            good, bad = compiled.violation({"a": number}), compiled.violation({"a": "x"})
            if good is not None or bad is None or bad.path != "$.a":
                wrong.append((good, bad))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
