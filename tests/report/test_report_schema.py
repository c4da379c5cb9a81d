"""report.json keeps the schema that its readers build on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from jsonschema import Draft202012Validator

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "config" / "schemas" / "report.schema.json").read_text(encoding="utf-8")
)


def closed(schema: Any) -> Any:
    """The schema that also refuses what it does not name: a new key must be documented."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    return {**inner, "additionalProperties": False} if isinstance(schema.get("properties"), dict) else inner


def complaints(report: Any) -> list[str]:
    """What the closed schema has against a report."""
    errors = Draft202012Validator(closed(SCHEMA)).iter_errors(report)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors]


def test_the_schema_is_a_schema() -> None:
    """Of the draft that it names."""
    Draft202012Validator.check_schema(SCHEMA)


def test_the_closed_schema_refuses() -> None:
    """An unknown key, a missing one and a wrong type are seen at any depth, or the tests below show nothing."""
    assert len(complaints({"v": 2, "new": 1})) > 5
    assert any("failed" in said for said in complaints({"run": {"counts": {"found": "1"}}}))


def test_the_report_of_a_run_keeps_it(place: Place) -> None:
    """Results, failures with retries, skipped and ignored documents, two variants."""
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
def test_the_report_of_nothing_keeps_it(place: Place, code: int) -> None:
    """No document was asked, or the run was stopped before one was."""
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


def test_the_report_of_shards_keeps_it(place: Place) -> None:
    """Merged from two of three shards."""
    place.documents(9)
    for index in (0, 2):
        place.run("--shard", f"{index}/3", "--set", "input.min_documents=0")
    report = place.report()
    assert complaints(report) == []
    assert (len(report["shards"]), report["missing_shards"]) == (2, [1])
