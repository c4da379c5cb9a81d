"""report.json matches the schema that its readers rely on."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from jsonschema import Draft202012Validator

from pipeline.report import RunSummary, plain
from pipeline.report.contents import Report
from pipeline.report.history import HistoryRow
from pipeline.report.remaining import NONE_REMAIN, RemainingFailures
from pipeline.report.run_summary import Counts

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "config" / "schemas" / "report.schema.json").read_text(encoding="utf-8")
)


def closed(schema: Any) -> Any:
    """Return the schema without permission for unknown keys, so that a new key must be documented."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    return {**inner, "additionalProperties": False} if isinstance(schema.get("properties"), dict) else inner


def complaints(report: Any) -> list[str]:
    """Return the violations of the closed schema in a report."""
    errors = Draft202012Validator(closed(SCHEMA)).iter_errors(report)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors]


def test_report_schema_is_valid() -> None:
    """It is valid under the draft that it names."""
    Draft202012Validator.check_schema(SCHEMA)


def test_closed_schema_detects_violations() -> None:
    """Unknown keys, missing keys and wrong types are found at any depth, or the tests below would prove little."""
    assert len(complaints({"v": 2, "new": 1})) > 5
    assert any("failed" in complaint for complaint in complaints({"run": {"counts": {"found": "1"}}}))


def test_report_of_a_run_matches_the_schema(place: Place) -> None:
    """The run has results, retried failures, skipped and ignored documents, and two variants."""
    place.configure({"runner.max_error_rate": 1}, agent={"variants": {"a": {"weight": 1}, "b": {"weight": 1}}})
    place.documents({f"d{number}.txt": "x" for number in range(12)})
    place.run()
    assert complaints(place.report()) == []
    place.documents({"bad.txt": "[[fault:http_400]]", "worse.txt": "[[fault:http_500*9]]", "x.doc": "x"})
    place.run()
    report = place.report()
    assert complaints(report) == []
    assert len(report["run"]["stats"]["reasons"]) == 2
    assert len(report["output"]["variants"]) == 2


@pytest.mark.parametrize("code", [0, 130])
def test_report_without_requests_matches_the_schema(place: Place, code: int) -> None:
    """No document was sent, or the run was stopped before one was."""
    place.configure({"input.min_documents": 0})
    if code:
        place.server.down()
        place.documents(2)
        child = place.start("run")
        assert child.process.stderr is not None
        next(line for line in child.process.stderr if "waiting up to" in line)
        assert child.end(2).code == code
    else:
        place.run()
    assert complaints(place.report()) == []


def test_report_of_shards_matches_the_schema(place: Place) -> None:
    """The report is merged from two of three shards."""
    place.documents(9)
    for index in (0, 2):
        place.run("--shard", f"{index}/3", "--set", "input.min_documents=0")
    report = place.report()
    assert complaints(report) == []
    assert (len(report["shards"]), report["missing_shards"]) == (2, [1])


def disagreements(kind: Any, schema: Mapping[str, Any], path: str = "$") -> Iterator[str]:
    """Return the differences between the type of a value and its schema: names, kinds, required keys."""
    if "$ref" in schema:
        node: Any = SCHEMA
        for name in schema["$ref"].removeprefix("#/").split("/"):
            node = node[name]
        schema = node
    options = schema.get("anyOf", [schema])
    names = {name for option in options for name in _names(option)}
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        (kind,) = (member for member in typing.get_args(kind) if member is not types.NoneType)
        names.discard("null")
    (inner,) = (option for option in options if _names(option) != ["null"])
    if kind is RemainingFailures:  # it has values that are derived from its fields
        written = set(NONE_REMAIN.to_json())
        if written != set(inner["properties"]):
            yield f"{path}: {written} is not {set(inner['properties'])}"
    elif is_dataclass(kind):
        yield from _class_disagreements(kind, inner, path)
    elif typing.get_origin(kind) is tuple:
        if names != {"array"}:
            yield f"{path}: is a tuple, not {names}"
        if "items" in inner:
            yield from disagreements(typing.get_args(kind)[0], inner["items"], f"{path}[]")
    elif typing.get_origin(kind) is not None:
        if names != {"object"}:
            yield f"{path}: is a mapping, not {names}"
        if "additionalProperties" in inner:
            yield from disagreements(typing.get_args(kind)[1], inner["additionalProperties"], f"{path}.*")
    elif kind in SIMPLE and not names <= SIMPLE[kind]:
        yield f"{path}: is {kind.__name__}, not {names}"


SIMPLE: dict[Any, set[str]] = {int: {"integer"}, float: {"number", "integer"}, str: {"string"}, bool: {"boolean"}}


def _names(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that a schema admits."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    kind = schema.get("type", [])
    return (
        [kind]
        if isinstance(kind, str)
        else [*kind, *({int: "integer", str: "string"}[type(value)] for value in values)]
    )


def _class_disagreements(kind: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    own = {field.name: field for field in fields(kind) if not (kind is RunSummary and field.name == "profile")}
    for name in sorted(own.keys() ^ schema["properties"].keys()):
        yield f"{path}.{name}: is only in {'the class' if name in own else 'the schema'}"
    for name in schema.get("required", ()):
        if name not in own or plain.is_left_out(own[name]):
            yield f"{path}.{name}: is required, and not always written"
    for name in own.keys() & schema["properties"].keys():
        yield from disagreements(hints[name], schema["properties"][name], f"{path}.{name}")


def test_schema_matches_the_report_classes() -> None:
    """A field that is added, renamed or of another type is found before a reader of report.json meets it."""
    assert list(disagreements(Report, SCHEMA)) == []


def test_class_comparison_detects_differences() -> None:
    """They are found at any depth, or the test above would prove little."""
    inner = SCHEMA["properties"]["history"]["items"]
    assert list(disagreements(HistoryRow, {**inner, "properties": {**inner["properties"], "run": {"type": "string"}}}))
    assert list(disagreements(HistoryRow, {**inner, "required": ["missing"]}))
    assert list(disagreements(Counts, inner))
