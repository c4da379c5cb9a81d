"""Parquet columns of answers follow the schema; values that do not fit are null and reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.output.columns import ListOf, Struct, column_type, in_column
from pipeline.output.parquet import parquet

PARTY = {"type": "object", "properties": {"name": {"type": "string"}, "share": {"type": "number"}}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {
        "party": PARTY,
        "node": {"type": "object", "properties": {"n": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}},
    },
    "properties": {
        "supplier": {"type": ["string", "null"]},
        "currency": {"enum": ["EUR", None]},
        "amount": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "paid": {"type": "boolean"},
        "parties": {"type": "array", "items": {"$ref": "#/$defs/party"}},
        "node": {"$ref": "#/$defs/node"},
        "free": {"type": "object"},
        "mixed": {"type": ["string", "integer"]},
    },
}


def test_column_type_follows_the_schema() -> None:
    """There are types for scalars, lists and objects; mixed and recursive schemas become JSON text."""
    result = column_type(SCHEMA)
    assert result == Struct(
        {
            "supplier": "text",
            "currency": "text",
            "amount": "integer",
            "paid": "boolean",
            "parties": ListOf(Struct({"name": "text", "share": "number"})),
            "node": Struct({"n": "integer", "next": "json"}),
            "free": "json",
            "mixed": "json",
        }
    )


@pytest.mark.parametrize("schema", [None, True, {}, {"$ref": "#"}, {"type": "object"}, {"$ref": "#/nowhere"}])
def test_untyped_schema_becomes_json_text(schema: Any) -> None:
    """A schema with a dangling reference does too."""
    assert column_type(schema) == "json"


@pytest.mark.parametrize(
    ("value", "misfits"),
    [
        ({"amount": 1 << 63}, ["amount"]),
        ({"amount": True}, ["amount"]),
        ({"supplier": 3, "old": "x"}, ["old", "supplier"]),
        ({"parties": [{"name": "a"}, {"name": 1}]}, ["parties.name"]),
        ("text", ["output"]),
        ({"paid": False, "free": {"a": [1]}, "mixed": 3}, []),
    ],
)
def test_misfit_value_is_null_and_named_by_its_path(value: Any, misfits: list[str]) -> None:
    """The rest of the answer is kept."""
    named: list[str] = []
    in_column(value, column_type(SCHEMA), named)
    assert named == misfits


def test_duckdb_and_pandas_read_nested_columns(tmp_path: Path) -> None:
    """`output.supplier` can be queried as a column, and numbers are numbers."""
    duckdb = pytest.importorskip("duckdb")
    output = {"supplier": "Acme", "amount": 3, "parties": [{"name": "A", "share": 1}], "free": {"a": 1}}
    record = {"id": "a", "output": output, "finished_at": "2026-11-28T10:00:00.000Z"}
    path = tmp_path / "r.parquet"
    path.write_bytes(b"".join(parquet([json.dumps(record).encode()], answer_schema=SCHEMA)))
    query = f"SELECT output.supplier, output.amount + 1, output.parties[1].share, output.free, misfits FROM '{path}'"
    assert duckdb.sql(query).fetchall() == [("Acme", 4, 1.0, '{"a": 1}', [])]
