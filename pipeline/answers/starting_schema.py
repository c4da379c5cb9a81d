"""A JSON Schema to start an agent from, drafted from example records or from the schema of a Python class.

The properties of the examples become rules. The limits are wide: they stop a model in a loop, but not a longer text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NO_FREE_TEXT = {"enum", "const", "format"}
_ROOM = 3
_LEAST_MAX_LENGTH = 100
_ITEMS = 20
"""The limits above the examples: a factor for text lengths, the least limit of a text, and the items of a list."""


def schema_of_records(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a schema that all of the records fit; fields are required when every record has them."""
    return {"$schema": _DRAFT, **_schema(list(records))}


def _schema(values: Sequence[Any]) -> dict[str, Any]:
    given_values = [value for value in values if value is not None]
    types = list(dict.fromkeys(_type(value) for value in given_values)) or ["string"]
    if set(types) == {"integer", "number"}:
        types = ["number"]
    if len(given_values) < len(values):
        types.append("null")
    schema: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
    texts = [value for value in given_values if isinstance(value, str)]
    if texts or not given_values:
        schema["maxLength"] = _round(max([_LEAST_MAX_LENGTH, *(_ROOM * len(text) for text in texts)]))
    lists = [value for value in given_values if isinstance(value, list)]
    if lists:
        items = [item for value in lists for item in value]
        schema |= {"items": _schema(items), "maxItems": max(_ITEMS, *(_ROOM * len(value) for value in lists))}
    objects = [value for value in given_values if isinstance(value, Mapping)]
    return {**schema, **_object(objects)} if objects else schema


def _object(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for item in objects for name in item)
    return {
        "properties": {name: _schema([item[name] for item in objects if name in item]) for name in names},
        "required": [name for name in names if all(name in item for item in objects)],
        "additionalProperties": False,
    }


def _type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds: Iterable[tuple[type, str]] = ((str, "string"), (int, "integer"), (float, "number"), (list, "array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")


def _round(length: int) -> int:
    """Return the length rounded up to a hundred."""
    return -(-length // 100) * 100


def schema_of_class(schema: Any) -> Any:
    """Return the schema of a class without titles and defaults, and with objects that take no other fields."""
    if isinstance(schema, list):
        return [schema_of_class(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    clean: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs") and isinstance(value, Mapping):
            clean[key] = {name: schema_of_class(item) for name, item in value.items()}
        elif key not in ("title", "default"):
            clean[key] = schema_of_class(value)
    if "properties" in clean:
        clean.setdefault("additionalProperties", False)
    return clean


def text_fields(schema: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the parts of a drafted schema that describe free texts, by the dotted path of the field, also in lists."""
    parts_by_path: dict[str, list[dict[str, Any]]] = {}
    _add_texts(parts_by_path, schema, schema, path="", inside=())
    return parts_by_path


def _add_texts(
    parts_by_path: dict[str, list[dict[str, Any]]],
    node: Any,
    root: Mapping[str, Any],
    *,
    path: str,
    inside: tuple[str, ...],
) -> None:
    """Add the texts of a part at `path`; `inside`: the references that led to it, as a class may refer to itself."""
    if not isinstance(node, dict):
        return
    kinds = node.get("type")
    if path and "string" in (kinds if isinstance(kinds, list) else [kinds]) and not node.keys() & _NO_FREE_TEXT:
        nodes = parts_by_path.setdefault(path, [])
        if not any(node is part for part in nodes):
            nodes.append(node)
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/") and reference not in inside:
        target = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"))
        _add_texts(parts_by_path, target, root, path=path, inside=(*inside, reference))
    for part in (node.get("items"), *node.get("anyOf", ())):
        _add_texts(parts_by_path, part, root, path=path, inside=inside)
    for name, part in node.get("properties", {}).items():
        _add_texts(parts_by_path, part, root, path=f"{path}.{name}" if path else name, inside=inside)
