"""The columns for the answers of a JSON Schema, and an answer's values for them.

    string, integer, number, boolean (with or without null)   a column of that type
    array of one type, object with properties                  a list, a struct
    anything else, recursion included                          JSON text

It must not import a library of tables: parquet.py converts the types.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Scalar = Literal["text", "integer", "number", "boolean", "json"]

MAX_DEPTH = 12
_INT64 = 1 << 63
_KINDS: Mapping[str, Scalar] = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}
_PYTHON: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of items of one type."""

    item: ColumnType


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with these properties."""

    fields: Mapping[str, ColumnType]


ColumnType = Scalar | ListOf | Struct


def column_type(schema: Any) -> ColumnType:
    """Return the type of the column for values of a schema; a part that refers to itself is JSON text."""
    return _type(schema, schema, frozenset(), 0)


def _type(schema: Any, root: Any, above: frozenset[str], depth: int) -> ColumnType:
    """Return the type of a part of a schema; `above`: the references on the way to it."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return "json"
    target = schema.get("$ref")
    if target is not None:
        if not isinstance(target, str) or target in above:
            return "json"
        return _type(_resolved(target, root), root, above | {target}, depth + 1)
    branches = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(branches, list):
        subschemas = [branch for branch in branches if branch != {"type": "null"}]
        return _type(subschemas[0], root, above, depth + 1) if len(subschemas) == 1 else "json"
    kind = _kind(schema)
    if kind in _KINDS:
        return _KINDS[kind]
    if kind == "array" and "prefixItems" not in schema:
        return ListOf(_type(schema.get("items"), root, above, depth + 1))
    properties = schema.get("properties")
    if kind == "object" and isinstance(properties, Mapping) and properties:
        return Struct({name: _type(sub, root, above, depth + 1) for name, sub in properties.items()})
    return "json"


def _kind(schema: Mapping[str, Any]) -> str:
    """Return the single type of all values other than null; "" when there are several or it is unknown."""
    declared = schema.get("type")
    kinds = {name for name in ([declared] if isinstance(declared, str) else declared or []) if name != "null"}
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if not kinds and values and all(value is None or isinstance(value, str) for value in values):
        return "string"
    return kinds.pop() if len(kinds) == 1 else ""


def _resolved(target: Any, root: Mapping[str, Any]) -> Any:
    node: Any = root if isinstance(target, str) and target.startswith("#/") else None
    for part in str(target).removeprefix("#/").split("/"):
        node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return node


def in_column(value: Any, kind: ColumnType, misfits: list[str], path: str = "") -> Any:
    """Return the value for its column; None for a value that does not fit, whose path is added to the misfits."""
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value, ensure_ascii=False)
    if isinstance(kind, ListOf) and isinstance(value, list):
        return [in_column(item, kind.item, misfits, path) for item in value]
    if isinstance(kind, Struct) and isinstance(value, dict):
        misfits += [_child_path(path, name) for name in value if name not in kind.fields]
        return {
            name: in_column(value.get(name), field_type, misfits, _child_path(path, name))
            for name, field_type in kind.fields.items()
        }
    if isinstance(kind, str) and _fits(value, kind):
        return value
    misfits.append(path or "output")
    return None


def _fits(value: Any, kind: str) -> bool:
    """Return True for a value that the column stores unchanged."""
    if not isinstance(value, _PYTHON[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    return not isinstance(value, int) or -_INT64 <= value < _INT64


def _child_path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
