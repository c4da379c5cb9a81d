"""A JSON Schema read for its structure: references, `allOf` and "X or null" followed to the schema of the value.

It must not import a validator: forms, tables and grades need the structure only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

NULL = {"type": "null"}


class SchemaReader:
    """Reader of one schema that follows references and reads `anyOf: [X, null]` as X."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def resolved(self, schema: Any, before: Iterable[str] = ()) -> tuple[Mapping[str, Any], frozenset[str]]:
        """Return the schema behind references, `allOf`, and `anyOf` or `oneOf` with null; and the references.

        Those followed `before` are not followed again.
        """
        node: Mapping[str, Any] = schema if isinstance(schema, dict) else {}
        followed = set(before)
        while True:
            branches = [branch for branch in node.get("anyOf", node.get("oneOf", [])) if branch != NULL]
            if isinstance(node.get("$ref"), str) and node["$ref"] not in followed:
                followed.add(node["$ref"])
                node = {**_without_keys(node, "$ref"), **self.target(node["$ref"])}
            elif len(branches) == 1 and isinstance(branches[0], dict):
                node = {**_without_keys(node, "anyOf", "oneOf"), **branches[0]}
            elif node.get("allOf"):
                node = self._merged(node, followed)
            else:
                return node, frozenset(followed)

    def values(
        self, schema: Any, path: str = "", *, inside: frozenset[frozenset[str]] = frozenset()
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the dotted path and the resolved schema of each value below, also through lists and references.

        A list and its items have the same path. `inside`: the references of each value around this one; when it has
        the same again, its schema is empty and it is not entered.
        """
        node, followed = self.resolved(schema)
        node = {} if followed in inside else node
        yield path, node
        if not node:
            return
        inside |= {followed} if followed else set()
        for name, inner in (node.get("properties") or {}).items():
            yield from self.values(inner, f"{path}.{name}" if path else name, inside=inside)
        for branch in (node.get("items"), *node.get("anyOf", ()), *node.get("oneOf", ())):
            yield from self.values(branch, path, inside=inside)

    def target(self, reference: str) -> Mapping[str, Any]:
        """Return the target schema of a reference; empty when it is missing."""
        target: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            target = target.get(name, {}) if isinstance(target, dict) and name else target
        return target if isinstance(target, dict) else {}

    def _merged(self, node: Mapping[str, Any], followed: set[str]) -> Mapping[str, Any]:
        merged = _without_keys(node, "allOf")
        for part in node["allOf"]:
            sub, reached = self.resolved(part, followed)
            followed |= reached
            properties = {**merged.get("properties", {}), **sub.get("properties", {})}
            merged = {**_without_keys(sub, "$ref"), **merged}
            if properties:
                merged["properties"] = properties
        return merged


def type_of(node: Mapping[str, Any]) -> str | None:
    """Return the only type except null of a resolved schema; None without a type or with several."""
    kinds = node.get("type")
    kinds = [kinds] if isinstance(kinds, str) else [kind for kind in kinds or () if kind != "null"]
    if len(kinds) == 1:
        return str(kinds[0])
    return "object" if not kinds and "properties" in node else None


def _without_keys(node: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in names}
