"""The fields of an agent's schema whose values are profiled, as a tree that is walked once for each answer.

A list is a field of its own (its items are counted), and so are the properties of its items. References within the
schema are followed to a bounded depth; a field without a type is profiled by its values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_FIELDS = 40
MAX_DEPTH = 6


@dataclass(frozen=True, slots=True)
class FieldNode:
    """A property. `path`: dotted, through lists. `listed`: the schema lists its few values."""

    name: str
    path: str
    listed: bool
    children: tuple[FieldNode, ...]

    def listed_paths(self) -> Iterator[str]:
        """Yield the paths of the fields from this one down whose values the schema lists."""
        if self.listed:
            yield self.path
        for child in self.children:
            yield from child.listed_paths()


def fields_of(schema: Mapping[str, Any] | None) -> tuple[FieldNode, ...]:
    """Return the properties of the answer, at most MAX_FIELDS in all, top level first."""
    budget = [MAX_FIELDS]
    return _children(schema or {}, schema or {}, path="", depth=0, budget=budget)


def _children(
    schema: Any, root: Mapping[str, Any], *, path: str, depth: int, budget: list[int]
) -> tuple[FieldNode, ...]:
    if depth >= MAX_DEPTH:
        return ()
    properties: dict[str, list[Any]] = {}
    for branch in _branches(schema, root, depth=0):
        own = branch.get("properties")
        for name, sub in own.items() if isinstance(own, Mapping) else ():
            properties.setdefault(name, []).append(sub)
    names = list(properties)[: budget[0]]
    budget[0] -= len(names)
    return tuple(
        _node(name, {"anyOf": properties[name]}, root, path=path, depth=depth, budget=budget) for name in names
    )


def _node(
    name: str, schema: Mapping[str, Any], root: Mapping[str, Any], *, path: str, depth: int, budget: list[int]
) -> FieldNode:
    own_path = f"{path}.{name}" if path else name
    items = list(_items(schema, root))
    children = _children({"anyOf": items}, root, path=own_path, depth=depth + 1, budget=budget)
    listed = any("enum" in branch or "const" in branch for branch in items)
    return FieldNode(name, own_path, listed, children)


def _items(schema: Any, root: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas of a value that is not a list, or of the items of a list."""
    for branch in _branches(schema, root, depth=0):
        yield branch
        if "items" in branch and depth < MAX_DEPTH:
            yield from _items(branch["items"], root, depth + 1)


def _branches(schema: Any, root: Mapping[str, Any], *, depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and the schemas that it refers to or combines."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return
    yield schema
    target = schema.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        yield from _branches(_resolved(target, root), root, depth=depth + 1)
    for keyword in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(keyword)
        for part in parts if isinstance(parts, list) else ():
            yield from _branches(part, root, depth=depth + 1)


def _resolved(target: str, root: Mapping[str, Any]) -> Any:
    node: Any = root
    for part in target.lstrip("#").strip("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        node = node.get(name) if isinstance(node, Mapping) and part else node
    return node
