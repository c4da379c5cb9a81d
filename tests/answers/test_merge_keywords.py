"""The keywords of a schema that define how the answers about the windows of a document are merged."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fast_path import SCHEMAS, VALUES

from pipeline.agents import fingerprint, former_fingerprints, load_agent, resolve
from pipeline.answers.fast_path import quick_check
from pipeline.answers.merge_keywords import MERGE_KEYWORDS, merge_keywords
from pipeline.answers.merge_warnings import merge_warnings
from pipeline.answers.schema import CompiledSchema, compile_schema
from pipeline.answers.subschemas import without_keywords
from pipeline.config import AppConfig
from pipeline.errors import ConfigError, DocumentError
from pipeline.long.merging import Part, merge

STRING = {"type": "string"}
NUMBER = {"type": "number"}
ROW = {"type": "object", "properties": {"name": STRING, "score": NUMBER}, "required": ["name"]}
ROWS = {"type": "array", "items": ROW}


def compiled(field: dict[str, Any], **more: Any) -> CompiledSchema:
    """Return a compiled schema with this field beside a number and a text."""
    properties = {"s": field, "n": NUMBER, "t": STRING}
    return compile_schema({"type": "object", "properties": properties, **more}, where="a.yaml: schema")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({**NUMBER, "x-merge": "longest"}, 's.x-merge: got "longest" on a number, need one of first, last, min, max,'),
        ({**STRING, "x-merge": "frist"}, 's.x-merge: got "frist" on a string, need one of .*; the nearest is first'),
        ({**STRING, "x-merge": ["first"]}, r's.x-merge: got \["first"\] on a string, need'),
        ({**STRING, "x-quote": True, "x-merge": "join"}, 's.x-merge: got "join" on a string'),
        ({"enum": ["a", "b"], "x-merge": "join"}, 's.x-merge: got "join" on a string'),
        ({"type": "array", "items": {"type": "array"}, "x-merge": "union"}, 'got "union" on a value of several types'),
        ({**STRING, "x-merge": "best"}, 's.x-merge: got "best" without x-by, need x-by beside it'),
        ({**STRING, "x-merge": "best", "x-by": "t"}, 's.x-by: got "t", which is not a number, need one of n'),
        ({**STRING, "x-merge": "best", "x-by": "nn"}, 's.x-by: got "nn", which is not a property .*; the nearest is n'),
        ({**STRING, "x-by": "n"}, 's.x-by: got "n" without x-merge: best'),
        (
            {**ROWS, "x-key": "nmae"},
            's.x-key: got "nmae", which is not a property of the items, .*; the nearest is name',
        ),
        (
            {**ROWS, "x-key": ["name", "scor"]},
            'of which "scor" is not a property of the items, .*; the nearest is score',
        ),
        ({**ROWS, "x-key": []}, r"s.x-key: got \[\], need the name of a property, or a list of names"),
        (
            {"type": "array", "items": STRING, "x-key": "name"},
            's.x-key: got "name" on an array, need it on an array of',
        ),
        ({**ROWS, "x-key-match": "exact"}, 's.x-key-match: got "exact" without x-key'),
        (
            {**ROWS, "x-key": "name", "x-key-match": "exat"},
            "s.x-key-match: .* need one of folded, exact; the nearest is e",
        ),
        ({**ROWS, "x-over": "drop"}, 's.x-over: got "drop", need one of fail, cut'),
        ({**STRING, "x-over": "cut"}, 's.x-over: got "cut" on a string, need it on an array, or beside x-merge: join'),
        ({**STRING, "x-empty": "none"}, 's.x-empty: got "none", need a list of values'),
        ({**ROWS, "maxItems": 3, "x-window-items": 5}, "s.x-window-items: got 5 above maxItems 3, need at most 3"),
        ({**ROWS, "x-window-items": 0}, "s.x-window-items: got 0, need a whole number"),
        ({**STRING, "x-window-items": 5}, "s.x-window-items: got 5 on a string, need it on an array"),
        ({"anyOf": [{**STRING, "x-merge": "last"}, NUMBER]}, r"s.anyOf\[0\].x-merge: got it in a part of a value"),
    ],
)
def test_invalid_merge_keyword_is_refused_at_its_place(field: dict[str, Any], message: str) -> None:
    """The message contains the value, the accepted values there, and the nearest name."""
    with pytest.raises(ConfigError) as caught:
        compiled(field)
    assert str(caught.value).startswith("a.yaml: schema: at $.properties.s.")
    assert re.search(message, str(caught.value)), caught.value


def test_merge_keyword_behind_a_reference_is_named_at_its_definition() -> None:
    """A keyword beside the reference takes precedence."""
    money = {**NUMBER, "x-merge": "longest"}
    with pytest.raises(ConfigError, match=r"at \$\.\$defs\.money\.x-merge: got"):
        compiled({"$ref": "#/$defs/money"}, **{"$defs": {"money": money}})
    fine = compiled({"$ref": "#/$defs/money", "x-merge": "max"}, **{"$defs": {"money": {**money, "x-merge": "min"}}})
    assert fine.root_rule.properties["s"].strategy == "max"


def test_agent_with_an_invalid_merge_keyword_is_refused(tmp_path: Path) -> None:
    """It is refused when it is loaded, with its file; a misspelt keyword gets the nearest name."""
    agent = "user_prompt: $document\nschema: {type: object, properties: {s: {type: string, %s}}}\n"
    (tmp_path / "bad.yaml").write_text(agent % "x-merge: longst")
    with pytest.raises(ConfigError, match=r"bad\.yaml: schema: at .*x-merge: got \"longst\".*the nearest is longest"):
        load_agent("bad", agents_dir=tmp_path)
    (tmp_path / "bad.yaml").write_text(agent % "x-merg: longest")
    with pytest.raises(ConfigError, match=r"x-merg: got an unknown keyword, .*the nearest is x-merge"):
        load_agent("bad", agents_dir=tmp_path)


def test_merge_keywords_are_removed_for_servers() -> None:
    """The quick check knows them, because an unknown keyword would make each check ten times as slow."""
    rules = {"x-key": "name", "x-key-match": "exact", "x-over": "cut", "x-window-items": 3, "x-empty": []}
    schema = compiled({**ROWS, "x-merge": "union", **rules}, required=["s"])
    assert "x-" not in str(schema.for_server)
    assert "x-" not in str(schema.window.for_server)
    assert schema.surely_keeps is not None
    assert quick_check({"type": "string", **dict.fromkeys(MERGE_KEYWORDS, 1)}) is not None
    assert merge_keywords(schema.schema) == {"$.properties.s": {"x-merge": "union", **rules}}


@pytest.mark.parametrize(
    ("field", "loosened"),
    [
        (STRING, {"type": ["string", "null"]}),
        ({"type": "integer", "minimum": 0}, {"type": ["integer", "null"], "minimum": 0}),
        ({"type": "string", "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"const": "a"}, {"enum": ["a", None]}),
        ({"type": "boolean"}, {"type": "boolean"}),
        ({**NUMBER, "x-merge": "sum"}, NUMBER),
        ({"$ref": "#/$defs/a"}, {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}),
        ({**ROWS, "minItems": 1, "maxItems": 9}, {**ROWS, "maxItems": 9}),
        ({**ROWS, "maxItems": 9, "x-window-items": 4}, {**ROWS, "maxItems": 4}),
        (ROW, {**ROW, "properties": {"name": {"type": ["string", "null"]}, "score": {"type": ["number", "null"]}}}),
        ({**ROW, "x-merge": "first"}, {**ROW, "type": ["object", "null"]}),
    ],
)
def test_window_schema_makes_fields_optional(field: dict[str, Any], loosened: dict[str, Any]) -> None:
    """It does so through objects, but not in list items nor in objects that are merged whole."""
    window = compiled(field, **{"$defs": {"a": STRING}}).window
    assert window.for_server["properties"]["s"] == loosened


def test_shared_definition_is_strict_for_items_and_loose_for_objects() -> None:
    """This holds for a recursive definition as well."""
    node = {"type": "object", "properties": {"v": STRING, "next": {"$ref": "#/$defs/node"}}, "required": ["v"]}
    properties = {"one": {"$ref": "#/$defs/node"}, "many": {"type": "array", "items": {"$ref": "#/$defs/node"}}}
    schema = compile_schema({"type": "object", "properties": properties, "$defs": {"node": node}}, where="a")
    assert schema.window.violation({"one": {"v": None, "next": {"v": None}}, "many": [{"v": "a"}]}) is None
    assert schema.window.violation({"many": [{"v": None}]}) is not None
    assert schema.violation({"one": {"v": None}}) is not None


def test_fields_without_merge_rules_cause_warnings() -> None:
    """There is one warning per field, and none for the built-in agents."""
    named = {"type": "object", "properties": {"name": {"type": ["string", "null"]}}}
    properties = {
        "total": NUMBER,
        "sum": {**NUMBER, "x-merge": "sum"},
        "companies": ROWS,
        "facts": {"type": "array", "maxItems": 6, "items": STRING},
        "people": {"type": "array", "x-key": "name", "items": named},
        "rows": {**ROWS, "x-merge": "concat"},
        "text": {**STRING, "x-merge": "join", "maxLength": 9},
    }
    schema = compile_schema({"type": "object", "properties": properties}, where="a")
    at = "overflow: split: schema.properties"
    assert merge_warnings(schema, overlap_tokens=None) == [
        f"{at}.total has no x-merge: of several values the first is taken (first, last, …)",
        f"{at}.sum: x-merge: sum counts twice what two windows share: set overlap_tokens: 0",
        f"{at}.companies has no x-key: an item that ten windows name is listed ten times",
        f"{at}.facts: maxItems 6 holds for the whole document: more than that fails it (x-over)",
        f"{at}.people.items.name of x-key may be null: such items stay apart",
        f"{at}.rows: x-merge: concat tells rows of two windows apart by their order alone: give its items an x-quote "
        "string",
        f"{at}.text: maxLength 9 holds for the whole document: more than that fails it (x-over)",
    ]
    assert len(merge_warnings(schema, overlap_tokens=0)) == 5
    for name in ("extractor", "event_classifier"):
        assert merge_warnings(load_agent(name).compiled, overlap_tokens=None) == []


@pytest.mark.parametrize("name", ["extractor", "event_classifier"])
def test_merge_rules_do_not_change_the_fingerprint(name: str) -> None:
    """Older records of the built-in agents stay current, in the former formula as well."""
    app = AppConfig()
    resolved = resolve(load_agent(name), app, variant="default")
    before = replace(resolved, schema=without_keywords(resolved.schema, lambda keyword: keyword in MERGE_KEYWORDS))
    assert before.schema != resolved.schema
    assert fingerprint(resolved, app.ollama) == fingerprint(before, app.ollama)
    assert former_fingerprints(resolved, app, contexts=()) == former_fingerprints(before, app, contexts=())


@settings(max_examples=40, deadline=None)
@given(field=SCHEMAS, values=st.lists(VALUES, max_size=4))
def test_window_schema_is_looser_and_merged_answers_match_the_schema(field: Any, values: list[Any]) -> None:
    """An answer valid for the whole is valid for a window."""
    whole = {"type": "object", "properties": {"a": field}, "$defs": {"a": {"type": "string"}}}
    try:
        schema = compile_schema(whole, where="a")
    except ConfigError:
        return
    merge_warnings(schema, overlap_tokens=None)
    answers = [{"a": value} for value in values]
    for answer in answers:
        assert schema.violation(answer) is not None or schema.window.violation(answer) is None
    valid = [answer for answer in answers if schema.window.violation(answer) is None]
    parts = [Part(at * 90, at * 90 + 100, answer) for at, answer in enumerate(valid)]
    if parts:
        with suppress(DocumentError):
            assert schema.violation(merge(schema.merge_rules, parts, text="." * 1000).value) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"s": {**STRING, "x-merge": "last"}}},
        {"allOf": [{"properties": {"s": {**STRING, "x-merge": "last"}}}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"s": {**STRING, "x-merge": "last"}}}}},
    ],
)
def test_merge_rules_are_found_wherever_fields_are_declared(schema: dict[str, Any]) -> None:
    """Fields may be beside the type, in a part of a combination, or behind a reference."""
    kind = {} if "properties" in schema else {"type": "object"}
    rules = compile_schema({**schema, **kind}, where="a").merge_rules
    parts = [Part(0, 10, {"s": "a"}), Part(10, 20, {"s": "b"})]
    assert merge(rules, parts, text="." * 20).value == {"s": "b"}
