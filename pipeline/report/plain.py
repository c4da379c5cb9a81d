"""Frozen dataclasses to and from JSON values: a key for each field, under the field's name.

It must not refuse a value: files of earlier and later versions are read too. Unknown keys are ignored, a missing key
takes the default of its field. A class with its own `to_json` and `from_json` is converted by these.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from typing import Any, TypeVar

T = TypeVar("T")
Convert = Callable[[Any], Any]
LEFT_OUT = {"left_out": True}
"""The metadata of a field that is not written while it is None."""


def is_left_out(field: Any) -> bool:
    """Return True for a dataclass field that is not written while it is None."""
    return "left_out" in field.metadata


def to_json(value: Any) -> Any:
    """Return a value as JSON: dataclasses and mappings as objects, tuples as arrays."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return fields_to_json(value)
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, (tuple, list)) else value


def fields_to_json(value: Any) -> dict[str, Any]:
    """Return a dataclass as a JSON object."""
    pairs = ((field, getattr(value, field.name)) for field in fields(value))
    return {field.name: to_json(item) for field, item in pairs if item is not None or not is_left_out(field)}


def from_json(cls: type[T], value: Any) -> T:
    """Return the dataclass that a JSON object describes; for any other value, one with its defaults."""
    data = value if isinstance(value, Mapping) else {}
    values = {}
    for name, convert in _converters(typing.cast(Hashable, cls)):
        if name in data:
            values[name] = data[name] if convert is None else convert(data[name])
    return cls(**values)


@cache
def _converters(cls: Any) -> list[tuple[str, Convert | None]]:
    """Return the name of each field and the function that converts its JSON value; None: no conversion."""
    hints = typing.get_type_hints(cls)
    return [(field.name, _converter(hints[field.name])) for field in fields(cls)]


def _converter(kind: Any) -> Convert | None:
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (_converter(argument) for argument in arguments if argument is not type(None))
        return inner and (lambda value: None if value is None else inner(value))
    if origin is tuple:
        return _tuple_of(_converter(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping_of(_converter(arguments[1]))
    if hasattr(kind, "from_json"):
        return typing.cast(Convert, kind.from_json)
    return partial(from_json, typing.cast(Any, kind)) if is_dataclass(kind) else None


def _tuple_of(inner: Convert | None) -> Convert:
    return tuple if inner is None else lambda value: tuple(map(inner, value))


def _mapping_of(inner: Convert | None) -> Convert:
    return dict if inner is None else lambda value: {name: inner(item) for name, item in value.items()}
