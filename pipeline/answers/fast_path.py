"""A fast check that accepts most valid values of a schema, so that the full validator checks only the others.

It must never accept an invalid value; False means undecided. It supports the keywords of most schemas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.answers.merge_keywords import MERGE_KEYWORDS
from pipeline.answers.subschemas import QUOTE
from pipeline.linear_regex import UnsupportedPatternError, linear_regex

Check = Callable[[Any], bool]
"""A function that returns True when a value from json.loads is certainly valid against a part of a schema."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),  # 1.0 is an integer too: left to the validator
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_ANNOTATIONS = frozenset((
    *("title", "description", "default", "examples", "$comment", "$schema", "$defs", "format", "deprecated"),
    *(QUOTE, *MERGE_KEYWORDS),
))  # fmt: skip
_REF = re.compile(r"#/\$defs/([A-Za-z0-9_-]+)")


class _UnsupportedKeywordError(Exception):
    """The schema uses a keyword that only the validator supports."""


def quick_check(schema: Mapping[str, Any]) -> Check | None:
    """Return the check of a valid schema of draft 2020-12; None when it uses an unsupported keyword."""
    try:
        return _CheckBuilder(schema).check(schema)
    except _UnsupportedKeywordError:
        return None


class _CheckBuilder:
    """Builder of the checks of one schema; the target of a `$ref` is built once and may refer to itself."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._referenced: dict[str, Check] = {}

    def check(self, part: Any) -> Check:
        """Return the check of a part; _UnsupportedKeywordError when it is not supported."""
        if part is True:
            return lambda value: True  # noqa: ARG005
        if not isinstance(part, Mapping) or not part.keys() <= _BUILDERS.keys() | _ANNOTATIONS:
            raise _UnsupportedKeywordError
        if (fused := _fused(self, part)) is not None:
            return fused
        builders = dict.fromkeys(make for keyword, make in _BUILDERS.items() if keyword in part)
        checks = [make(self, part) for make in builders]
        if len(checks) == 1:
            return checks[0]
        if len(checks) == 2:
            first, second = checks
            return lambda value: first(value) and second(value)
        return lambda value: all([check(value) for check in checks])  # noqa: C419 - half the time of a generator

    def referenced(self, reference: str) -> Check:
        """Return the check of the target of a reference within the schema."""
        match = _REF.fullmatch(reference)
        if match is None or match[1] not in self._root.get("$defs", {}):
            raise _UnsupportedKeywordError
        name = match[1]
        if name not in self._referenced:
            self._referenced[name] = lambda value: self._referenced[name](value)
            self._referenced[name] = self.check(self._root["$defs"][name])
        return lambda value: self._referenced[name](value)


def _fused(builder: _CheckBuilder, part: Mapping[str, Any]) -> Check | None:
    """Return one function for the most common parts: texts, numbers and arrays with bounds, and enums of texts.

    It returns what separate checks return, in a third of the time.
    """
    keywords = part.keys() - _ANNOTATIONS
    kind = part.get("type")
    if keywords <= {"type", "maxLength", "minLength"} and kind in ("string", ["string", "null"]):
        accepts_null = kind != "string"
        min_length = part.get("minLength", 0)
        max_length = part.get("maxLength", float("inf"))
        return lambda value: (
            min_length <= len(value) <= max_length if type(value) is str else accepts_null and value is None
        )
    if keywords <= {"type", "minimum", "maximum"} and kind in ("integer", "number"):
        kinds = _TYPES[kind]
        minimum = part.get("minimum", float("-inf"))
        maximum = part.get("maximum", float("inf"))
        return lambda value: type(value) in kinds and minimum <= value <= maximum
    if keywords == {"type", "enum"} and kind == "string" and all(type(choice) is str for choice in part["enum"]):
        values = frozenset(part["enum"])
        return lambda value: type(value) is str and value in values
    if keywords <= {"type", "items", "minItems", "maxItems"} and kind == "array" and "items" in part:
        inner = builder.check(part["items"])
        min_items = part.get("minItems", 0)
        max_items = part.get("maxItems", float("inf"))
        return lambda value: type(value) is list and min_items <= len(value) <= max_items and all(map(inner, value))
    return None


def _type(_: _CheckBuilder, part: Mapping[str, Any]) -> Check:
    names = part["type"] if isinstance(part["type"], list) else [part["type"]]
    kinds = frozenset(kind for name in names for kind in _TYPES[name])
    return lambda value: type(value) in kinds


def _enum(_: _CheckBuilder, part: Mapping[str, Any]) -> Check:
    choices = part["enum"] if "enum" in part else [part["const"]]
    if {"enum", "const"} <= part.keys() or not all(choice is None or type(choice) is str for choice in choices):
        raise _UnsupportedKeywordError  # 1, 1.0 and True are equal in Python, not in JSON Schema
    values = frozenset(choices)
    return lambda value: (value is None or type(value) is str) and value in values


def _object(builder: _CheckBuilder, part: Mapping[str, Any]) -> Check:
    checks = {name: builder.check(inner) for name, inner in part.get("properties", {}).items()}
    additional = part.get("additionalProperties", True)
    additional_check = None if additional is False else builder.check(additional)

    def check(value: Any) -> bool:
        if type(value) is dict:
            for name, item in value.items():
                inner = checks.get(name, additional_check)
                if inner is None or not inner(item):
                    return False
        return True

    return check


def _required(_: _CheckBuilder, part: Mapping[str, Any]) -> Check:
    names = frozenset(part["required"])
    return lambda value: type(value) is not dict or names <= value.keys()


def _items(builder: _CheckBuilder, part: Mapping[str, Any]) -> Check:
    inner = builder.check(part["items"])
    return lambda value: type(value) is not list or all(map(inner, value))


def _any_of(builder: _CheckBuilder, part: Mapping[str, Any]) -> Check:
    choices = [builder.check(inner) for inner in part["anyOf"]]
    return lambda value: any(choice(value) for choice in choices)


def _size(
    kind: type[str | list[Any]], minimum_keyword: str, maximum_keyword: str
) -> Callable[[_CheckBuilder, Mapping[str, Any]], Check]:
    """Return the builder for two keywords that bound the length of one type of value."""

    def make(_: _CheckBuilder, part: Mapping[str, Any]) -> Check:
        min_length = part.get(minimum_keyword, 0)
        max_length = part.get(maximum_keyword, float("inf"))
        return lambda value: type(value) is not kind or min_length <= len(value) <= max_length

    return make


def _range(_: _CheckBuilder, part: Mapping[str, Any]) -> Check:
    minimum = part.get("minimum", float("-inf"))
    maximum = part.get("maximum", float("inf"))
    return lambda value: type(value) not in (int, float) or minimum <= value <= maximum


def _pattern(_: _CheckBuilder, part: Mapping[str, Any]) -> Check:
    try:
        search = linear_regex(part["pattern"]).search
    except (re.error, UnsupportedPatternError) as cause:
        raise _UnsupportedKeywordError from cause
    return lambda value: type(value) is not str or search(value)


_STRING = _size(str, "minLength", "maxLength")
_ARRAY = _size(list, "minItems", "maxItems")
_BUILDERS: Mapping[str, Callable[[_CheckBuilder, Mapping[str, Any]], Check]] = {
    "type": _type,
    "enum": _enum,
    "const": _enum,
    "properties": _object,
    "additionalProperties": _object,
    "required": _required,
    "items": _items,
    "anyOf": _any_of,
    "$ref": lambda builder, part: builder.referenced(part["$ref"]),
    "minLength": _STRING,
    "maxLength": _STRING,
    "minItems": _ARRAY,
    "maxItems": _ARRAY,
    "minimum": _range,
    "maximum": _range,
    "pattern": _pattern,
}
"""Keyword → function that builds its check; one that serves two keywords is built once."""
