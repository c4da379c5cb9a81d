"""A quick yes for values that surely keep a schema, so that the validator need look at the others only.

It never says no: False means that the validator is to be asked. It knows the keywords that most schemas are made of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.linear_regex import UnsupportedPatternError, linear_regex

Check = Callable[[Any], bool]
"""True when a value as json.loads gives it surely keeps (this part of) a schema."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),  # 1.0 is one as well: the validator may say so
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_SAYS_NOTHING = frozenset(
    ("title", "description", "default", "examples", "$comment", "$schema", "$defs", "format", "x-quote", "deprecated")
)
_REF = re.compile(r"#/\$defs/([A-Za-z0-9_-]+)")


class _UnknownError(Exception):
    """The schema has something that is left to the validator."""


def quick_check(schema: Mapping[str, Any]) -> Check | None:
    """The check of a schema that is a valid one of draft 2020-12; None when it has what is left to the validator."""
    try:
        return _Maker(schema).check(schema)
    except _UnknownError:
        return None


class _Maker:
    """Makes the checks of one schema; what `$ref` names is made once, and may refer to itself."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._named: dict[str, Check] = {}

    def check(self, part: Any) -> Check:
        """The check of a part; _UnknownError when there is none."""
        if part is True:
            return lambda value: True  # noqa: ARG005
        if not isinstance(part, Mapping) or not part.keys() <= _MAKERS.keys() | _SAYS_NOTHING:
            raise _UnknownError
        makers = dict.fromkeys(make for keyword, make in _MAKERS.items() if keyword in part)
        checks = [make(self, part) for make in makers]
        if len(checks) == 1:
            return checks[0]
        if len(checks) == 2:
            first, second = checks
            return lambda value: first(value) and second(value)
        return lambda value: all([each(value) for each in checks])  # noqa: C419 - half the time of a generator

    def named(self, reference: str) -> Check:
        """The check of what a reference within the schema names."""
        match = _REF.fullmatch(reference)
        if match is None or match[1] not in self._root.get("$defs", {}):
            raise _UnknownError
        name = match[1]
        if name not in self._named:
            self._named[name] = lambda value: self._named[name](value)
            self._named[name] = self.check(self._root["$defs"][name])
        return lambda value: self._named[name](value)


def _type(_: _Maker, part: Mapping[str, Any]) -> Check:
    names = part["type"] if isinstance(part["type"], list) else [part["type"]]
    kinds = frozenset(kind for name in names for kind in _TYPES[name])
    return lambda value: type(value) in kinds


def _enum(_: _Maker, part: Mapping[str, Any]) -> Check:
    allowed = part["enum"] if "enum" in part else [part["const"]]
    if {"enum", "const"} <= part.keys() or not all(each is None or type(each) is str for each in allowed):
        raise _UnknownError  # 1, 1.0 and True are one value here and three there
    values = frozenset(allowed)
    return lambda value: (value is None or type(value) is str) and value in values


def _object(maker: _Maker, part: Mapping[str, Any]) -> Check:
    known = {name: maker.check(inner) for name, inner in part.get("properties", {}).items()}
    others = part.get("additionalProperties", True)
    other = None if others is False else maker.check(others)

    def check(value: Any) -> bool:
        if type(value) is dict:
            for name, item in value.items():
                inner = known.get(name, other)
                if inner is None or not inner(item):
                    return False
        return True

    return check


def _required(_: _Maker, part: Mapping[str, Any]) -> Check:
    names = frozenset(part["required"])
    return lambda value: type(value) is not dict or names <= value.keys()


def _items(maker: _Maker, part: Mapping[str, Any]) -> Check:
    inner = maker.check(part["items"])
    return lambda value: type(value) is not list or all(map(inner, value))


def _any_of(maker: _Maker, part: Mapping[str, Any]) -> Check:
    choices = [maker.check(inner) for inner in part["anyOf"]]
    return lambda value: any(choice(value) for choice in choices)


def _size(kind: type[str | list[Any]], least: str, most: str) -> Callable[[_Maker, Mapping[str, Any]], Check]:
    """The maker for two keywords that bound the length of one kind of value."""

    def make(_: _Maker, part: Mapping[str, Any]) -> Check:
        low, high = part.get(least, 0), part.get(most, float("inf"))
        return lambda value: type(value) is not kind or low <= len(value) <= high

    return make


def _range(_: _Maker, part: Mapping[str, Any]) -> Check:
    low, high = part.get("minimum", float("-inf")), part.get("maximum", float("inf"))
    return lambda value: type(value) not in (int, float) or low <= value <= high


def _pattern(_: _Maker, part: Mapping[str, Any]) -> Check:
    try:
        search = linear_regex(part["pattern"]).search
    except (re.error, UnsupportedPatternError) as cause:
        raise _UnknownError from cause
    return lambda value: type(value) is not str or search(value)


_STRING, _ARRAY = _size(str, "minLength", "maxLength"), _size(list, "minItems", "maxItems")
_MAKERS: Mapping[str, Callable[[_Maker, Mapping[str, Any]], Check]] = {
    "type": _type,
    "enum": _enum,
    "const": _enum,
    "properties": _object,
    "additionalProperties": _object,
    "required": _required,
    "items": _items,
    "anyOf": _any_of,
    "$ref": lambda maker, part: maker.named(part["$ref"]),
    "minLength": _STRING,
    "maxLength": _STRING,
    "minItems": _ARRAY,
    "maxItems": _ARRAY,
    "minimum": _range,
    "maximum": _range,
    "pattern": _pattern,
}
"""Keyword → what makes its check; one that serves two keywords is made once."""
