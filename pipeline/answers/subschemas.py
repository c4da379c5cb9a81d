"""Walk a JSON Schema as plain data: its subschemas with their places, and copies without some keywords.

It must not import a validator: it is used where imports must be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

QUOTE = "x-quote"
# keywords whose values are data, and keywords whose keys are names and not keywords
_DATA = frozenset({"const", "enum", "default", "examples", "dependentRequired"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def places(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every mapping that is a schema, with its path; data (values of `enum`, `x-…`) is skipped."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from places(item, f"{path}[{number}]")
    if not isinstance(node, dict):
        return
    yield path, node
    for keyword, inner in node.items():
        if keyword in _NAMED and isinstance(inner, dict):
            for name, sub in inner.items():
                yield from places(sub, f"{path}.{keyword}.{name}")
        elif keyword not in _DATA and not keyword.startswith("x-"):
            yield from places(inner, f"{path}.{keyword}")


def without_keywords(node: Any, drop: Callable[[str], bool], *, is_name_map: bool = False) -> Any:
    """Return a copy without the keywords to drop; properties of such a name stay."""
    if isinstance(node, list):
        return [without_keywords(item, drop) for item in node]
    if not isinstance(node, dict):
        return node
    if is_name_map:
        return {name: without_keywords(inner, drop) for name, inner in node.items()}
    return {
        keyword: inner if keyword in _DATA else without_keywords(inner, drop, is_name_map=keyword in _NAMED)
        for keyword, inner in node.items()
        if not drop(keyword)
    }


def decides_no_record(keyword: str) -> bool:
    """Return True for an `x-` keyword that decides no record (a form's titles, units); `x-quote` does."""
    return keyword.startswith("x-") and keyword != QUOTE
