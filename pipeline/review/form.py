"""The form of a schema, and an answer's values in it, as plain data for the page.

    object, list, string                  as they are
    number, boolean, choice, json         a value is its JSON text, so that no digit is lost in a browser

It must not depend on the drawing of a field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.answers.resolved_schema import NULL, SchemaReader, type_of
from pipeline.answers.subschemas import QUOTE

Form = dict[str, Any]
"""The kind of a value, its path, and keys of the kind: properties, item, values, nullable, off, quote, label, about."""

MOST_RADIOS = 6
LONG_TEXT = 120
"""Characters from which a text is edited in a box of several lines."""
_MAX_DEPTH = 12
_ABOUT_CHARS = 300


def form_of(schema: Mapping[str, Any], *, off: frozenset[str]) -> Form:
    """Return the form of an agent's schema; `off`: paths of fields that are not graded, which are folded away."""
    return _FormBuilder(schema, off).form(schema, path="", label="", inside=frozenset())


class _FormBuilder:
    def __init__(self, schema: Mapping[str, Any], off: frozenset[str]) -> None:
        self._reader = SchemaReader(schema)
        self._off = off

    def form(self, schema: Any, *, path: str, label: str, inside: frozenset[frozenset[str]]) -> Form:
        """Return the form of one value. `inside`: the references of the values around it; their repetition is JSON."""
        node, followed = self._reader.resolved(schema)
        own = {"path": path, "label": label, "nullable": _is_nullable(schema) or _is_nullable(node)}
        own |= {"off": True} if path in self._off else {}
        own |= {"quote": True} if node.get(QUOTE) else {}
        description = node.get("description") or node.get("title")
        own |= {"about": description[:_ABOUT_CHARS]} if isinstance(description, str) else {}
        if followed in inside or len(inside) > _MAX_DEPTH:
            return {**own, "kind": "json"}
        inside |= {followed} if followed else frozenset()
        return {**own, **self._kind(node, path=path, inside=inside)}

    def _kind(self, node: Mapping[str, Any], *, path: str, inside: frozenset[frozenset[str]]) -> Form:
        values = node.get("enum", [node["const"]] if "const" in node else None)
        if isinstance(values, list):
            texts = [json_text(value) for value in values if value is not None]
            return {"kind": "choice", "values": texts, "few": len(texts) <= MOST_RADIOS}
        kind = type_of(node)
        properties = node.get("properties")
        if kind == "object" and isinstance(properties, Mapping) and properties:
            prefix = f"{path}." if path else ""
            forms = {
                name: self.form(sub, path=f"{prefix}{name}", label=name, inside=inside)
                for name, sub in properties.items()
            }
            return {"kind": "object", "properties": forms}
        if kind == "array" and isinstance(node.get("items"), Mapping) and "prefixItems" not in node:
            item = self.form(node["items"], path=path, label="", inside=inside)
            quote = {"quote": True} if item.get("quote") else {}
            return {"kind": "list", "item": item, **quote} if item["kind"] != "list" else {"kind": "json"}
        if kind == "boolean":
            return {"kind": "choice", "values": ["true", "false"], "few": True}
        if kind in ("number", "integer"):
            return {"kind": "number"}
        if kind == "string":
            return {"kind": "string", "long": node.get("maxLength", 0) > LONG_TEXT}
        return {"kind": "json"}


def shown_value(form: Form, value: Any) -> Any:
    """Return a value for its form; None for null and for values that do not fit (an older schema)."""
    if value is None:
        return None
    kind = form["kind"]
    if kind == "object":
        if not isinstance(value, Mapping):
            return None
        return {name: shown_value(inner, value.get(name)) for name, inner in form["properties"].items()}
    if kind == "list":
        return [shown_value(form["item"], item) for item in value] if isinstance(value, list) else None
    if kind == "string":
        return value if isinstance(value, str) else None
    return json_text(value)


def quotes_in(form: Form, value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Yield (JSON Pointer, text) of each quote in an answer, in the order of the form."""
    if form["kind"] == "object" and isinstance(value, Mapping):
        for name, inner in form["properties"].items():
            step = name.replace("~", "~0").replace("/", "~1")
            yield from quotes_in(inner, value.get(name), f"{pointer}/{step}")
    elif form["kind"] == "list" and isinstance(value, list):
        for number, item in enumerate(value):
            yield from quotes_in(form["item"], item, f"{pointer}/{number}")
    elif form["kind"] == "string" and form.get("quote") and isinstance(value, str) and value.strip():
        yield pointer, value


def json_text(value: Any) -> str:
    """Return the JSON text of a value."""
    return json.dumps(value, ensure_ascii=False)


def _is_nullable(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    kinds = schema.get("type")
    branches = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return (isinstance(kinds, list) and "null" in kinds) or NULL in branches or None in schema.get("enum", ())
