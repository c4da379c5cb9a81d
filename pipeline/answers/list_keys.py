"""The lists of a schema whose items have a key (`x-key`), by the dotted paths that comparisons use.

It must not import a validator: the summary of each run has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.answers.merge_keywords import KEY
from pipeline.answers.resolved_schema import SchemaReader


def list_keys(schema: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the key of each list that has one: `{"companies": ["name"]}`."""
    return dict(_keys(schema, "", reader=SchemaReader(schema), inside=frozenset()))


def _keys(
    schema: Any, path: str, *, reader: SchemaReader, inside: frozenset[frozenset[str]]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the keys below a schema; `inside`: the references of each value around it, which are not entered again."""
    if not isinstance(schema, Mapping):
        return
    node, followed = reader.resolved(schema)
    if followed in inside:
        return
    inside |= {followed} if followed else set()
    if key := node.get(KEY):
        yield path, [key] if isinstance(key, str) else list(key)
    for name, inner in (node.get("properties") or {}).items():
        yield from _keys(inner, f"{path}.{name}" if path else name, reader=reader, inside=inside)
    for branch in (node.get("items"), *node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _keys(branch, path, reader=reader, inside=inside)
