"""Fields of JSON objects by their names or dotted paths: the text of a document, its metadata, its id.

A field whose name contains the dots takes precedence over the path. It must not quote values in messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from pipeline.errors import DocumentError

_PARAGRAPHS = "\n\n"


def field_at(value: Any, path: str) -> Iterator[Any]:
    """Yield the values at a path: one, none, or, where it leads through lists, one for each element that has it."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield from field_at(item, path)
    elif isinstance(value, dict):
        if path in value:
            yield value[path]
            return
        for name, deeper_path in _splits(path):
            if name in value:
                yield from field_at(value[name], deeper_path)
                return


def _splits(path: str) -> Iterator[tuple[str, str]]:
    """Yield each first part of the path with its rest, the longest first: names may hold dots themselves."""
    at = path.rfind(".")
    while at > 0:
        yield path[:at], path[at + 1 :]
        at = path.rfind(".", 0, at)


def text_at(value: Mapping[str, Any], path: str) -> str | None:
    """Return the text at a path, a list of paragraphs joined by blank lines; None when it has no value.

    DocumentError for anything that is neither a text nor a list of texts.
    """
    values = list(field_at(value, path))
    return _PARAGRAPHS.join(_texts(values, path)) if values else None


def _texts(values: Iterable[Any], path: str) -> Iterator[str]:
    for value in values:
        if isinstance(value, list):
            for item in value:
                if not isinstance(item, str):
                    raise_unreadable(f"field {path!r} is a list with {kind(item)} in it, need strings")
                yield item
        elif isinstance(value, str):
            yield value
        else:
            raise_unreadable(
                f"field {path!r} is {kind(value)}, need a string or a list of them (`input.text_field` names the field)"
            )


def without(value: Any, path: str) -> Any:
    """Return the value without the values at a path, and without objects and lists that become empty."""
    if isinstance(value, list):
        return [
            remainder
            for item in value
            if (remainder := without(item, path) if isinstance(item, dict) else item) not in ({}, [])
        ]
    if not isinstance(value, dict):
        return value
    if path in value:
        return {name: item for name, item in value.items() if name != path}
    for name, deeper in _splits(path):
        if name in value:
            remainder = without(value[name], deeper)
            return {
                key: remainder if key == name else item
                for key, item in value.items()
                if key != name or remainder not in ({}, [])
            }
    return value


def kind(value: object) -> str:
    """Return the JSON name of a value's type."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")


def raise_unreadable(message: str) -> NoReturn:
    """Raise DocumentError for a document that cannot be read."""
    raise DocumentError("document_unreadable", message)
