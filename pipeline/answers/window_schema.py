"""The schema of a window's answer: the agent's, relaxed where a part of a document cannot contain the answer.

Through objects, but not into the items of arrays or the values of maps, which stay strict: strings, numbers and
enumerations may be null, an array needs no items, and `x-window-items` takes the place of `maxItems`. The values
that `any`, `all` and `sum` merge keep their schema in each part. An object that is merged as a whole may be null, and
stays strict inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.answers.merge_keywords import MERGE, WINDOW_ITEMS
from pipeline.answers.resolved_schema import NULL
from pipeline.answers.schema_nodes import SchemaNodes

_DECIDED = frozenset({"any", "all", "sum"})
_COMBINED = frozenset({"$ref", "$dynamicRef", "allOf", "oneOf", "not", "if"})
_PARTS = ("allOf", "anyOf", "oneOf")
_Change = Callable[[Mapping[str, Any]], dict[str, Any]]


def window_schema(schema: Mapping[str, Any], *, accepts_null: Callable[[Any], bool]) -> dict[str, Any]:
    """Return the schema of a window's answer. `accepts_null`: whether a part of the schema accepts null."""
    return _Loosener(schema, accepts_null).root()


class _Loosener:
    """Builder of the relaxed schema. A relaxed definition gets another name, as items may use the strict one."""

    def __init__(self, schema: Mapping[str, Any], accepts_null: Callable[[Any], bool]) -> None:
        self._schema = schema
        self._accepts_null = accepts_null
        self._nodes = SchemaNodes(schema)
        self._names: dict[tuple[str, _Change], str] = {}
        self._definitions: dict[str, Any] = {}

    def root(self) -> dict[str, Any]:
        """Return the whole schema, with the loosened definitions beside the others."""
        loosened = self._in_all_parts(self._schema, self._object)
        if self._definitions:
            loosened["$defs"] = {**self._schema.get("$defs", {}), **self._definitions}
        return loosened

    def _in_all_parts(self, schema: Mapping[str, Any], change: _Change) -> dict[str, Any]:
        """Return a schema with the change applied to it, its `allOf` and branches, and the schemas it refers to."""
        changed = change(schema)
        for keyword in _PARTS:
            if isinstance(schema.get(keyword), list):
                changed[keyword] = [
                    self._in_all_parts(part, change) if isinstance(part, Mapping) else part for part in schema[keyword]
                ]
        if isinstance(schema.get("$ref"), str):
            changed["$ref"] = self._reference(schema["$ref"], change)
        return changed

    def _reference(self, reference: str, change: _Change) -> str:
        if (reference, change) not in self._names:
            name = f"{reference.rpartition('/')[2].lstrip('#') or 'root'}_of_window"
            while name in self._schema.get("$defs", {}) or name in self._definitions:
                name += "_"
            self._names[reference, change] = name
            self._definitions[name] = {}
            self._definitions[name] = self._in_all_parts(self._nodes.target(reference), change)
        return f"#/$defs/{self._names[reference, change]}"

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return dict(schema)
        return {**schema, "properties": {name: self._property(sub) for name, sub in properties.items()}}

    def _property(self, schema: Any) -> Any:
        node = self._nodes.node(schema, "")
        if not isinstance(schema, Mapping) or node.value(MERGE) in _DECIDED:
            return schema
        if node.kind == "array":
            most_items = node.value(WINDOW_ITEMS)
            loosened = self._in_all_parts(schema, _without_least)
            return loosened | ({"maxItems": most_items} if most_items is not None else {})
        if node.kind == "object" and node.value(MERGE, "fields") == "fields":
            return self._in_all_parts(schema, self._object)
        return schema if node.kind == "boolean" or self._accepts_null(schema) else _or_null(schema)


def _without_least(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {keyword: value for keyword, value in schema.items() if keyword != "minItems"}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with null among the values that it accepts."""
    if schema.keys() & _COMBINED:
        return {"anyOf": [dict(schema), NULL]}
    loosened = dict(schema)
    if "anyOf" in loosened:
        loosened["anyOf"] = [*loosened["anyOf"], NULL]
    if "const" in loosened:
        loosened["enum"] = [loosened.pop("const")]
    if "enum" in loosened and None not in loosened["enum"]:
        loosened["enum"] = [*loosened["enum"], None]
    if "type" in loosened:
        kinds = loosened["type"] if isinstance(loosened["type"], list) else [loosened["type"]]
        loosened["type"] = kinds if "null" in kinds else [*kinds, "null"]
    return loosened
