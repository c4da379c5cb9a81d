"""Messages about a value that violates its schema: the place, the expected value, and the type found.

They must not quote the value: it may contain the document's text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.texts import shorten
from pipeline.linear_regex import linear_regex

MESSAGE_CHARS = 300
_KINDS = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "null": "null",
}
_LIMITS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}",
    "minLength": "of at least {} characters",
    "maxLength": "of at most {} characters",
    "pattern": "that matches {}",
    "minItems": "of at least {} items",
    "maxItems": "of at most {} items",
    "minProperties": "of at least {} properties",
    "maxProperties": "of at most {} properties",
}
_OUTSIDE = {
    "minimum": "a smaller one",
    "exclusiveMinimum": "one that is not larger",
    "maximum": "a larger one",
    "exclusiveMaximum": "one that is not smaller",
    "multipleOf": "one in between",
    "pattern": "one that does not",
}
_PLAIN = {
    "uniqueItems": "items that all differ, got some twice",
    "not": "a value that `not` allows, got one it forbids",
    "contains": "another number of the items that `contains` asks for",
    "dependentRequired": "the properties that the others require",
    "unevaluatedProperties": "only properties that the schema names, got others too",
    "unevaluatedItems": "only items that the schema names, got more",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """The place of a violation (`$.companies[0].impact_score`) and the expected value.

    `unexpected`: names that the schema does not accept. In a model's answer they may come from the document, so that
    no message has them.
    """

    path: str
    message: str
    unexpected: tuple[str, ...] = ()


def describe(keyword: str | None, schema: Any, *, value: Any) -> str:
    """Return the expectation of a schema's `keyword`, in at most MESSAGE_CHARS characters.

    `keyword` is None where the schema is `false`, which accepts no value.
    """
    if keyword is None or not isinstance(schema, Mapping):
        message = "no value at this place"
    elif keyword == "required":
        message = _missing_property(schema, value)
    elif keyword == "additionalProperties":
        message = _unexpected(schema, value)
    elif keyword == "items":
        count = len(schema.get("prefixItems", []))
        message = f"{_with_singular(f'at most {count} items', count)}, got {_kind(value)}"
    elif keyword in ("anyOf", "oneOf"):
        message = f"{'' if keyword == 'anyOf' else 'exactly one of: '}{_branches(schema[keyword])}, got {_kind(value)}"
    elif keyword in _PLAIN:
        message = _PLAIN[keyword]
    else:
        message = f"{_expected(schema)}, got {_OUTSIDE.get(keyword) or _kind(value)}"
    return shorten(f"expected {message}", MESSAGE_CHARS)


def path_of(steps: Iterable[str | int], *, names: Collection[str]) -> str:
    """Return the place in JSON path notation; names that are not in `names` come from the model and become `*`."""
    return "$" + "".join(_path_step(step, names) for step in steps)


def _path_step(step: str | int, names: Collection[str]) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return _dotted(step) if step in names else ".*"


def shortened(value: Any) -> str:
    """Return a value of a schema (never of a document) as JSON, shortened to 120 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:119] + "…"


def _expected(schema: Any) -> str:
    """Return the values that a schema accepts, in words: `an integer >= 0 and <= 100`."""
    if not isinstance(schema, Mapping):
        return "any value"
    if "const" in schema:
        return shortened(schema["const"])
    if "enum" in schema:
        return f"one of {shortened(schema['enum'])}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    kinds_text = " or ".join(_KINDS[kind] for kind in kinds) or "a value"
    limits = [_limit(text, schema[keyword]) for keyword, text in _LIMITS.items() if keyword in schema]
    return f"{kinds_text} {' and '.join(limits)}".strip()


def _limit(text: str, value: Any) -> str:
    """Return the text of a limit with its value: `of at least 1 item`, `>= 0`."""
    return _with_singular(text, value).format(shortened(value))


def _with_singular(text: str, count: Any) -> str:
    """Return a text whose last word counts something, in the singular for 1."""
    if count != 1:
        return text
    return text.removesuffix("ies") + "y" if text.endswith("properties") else text.removesuffix("s")


def _branches(branches: Sequence[Any]) -> str:
    return " or ".join(map(_expected, branches[:5]))


def _kind(value: Any) -> str:
    """Return the type and size of a value: `a string of 12 characters`."""
    if value is None:
        return _KINDS["null"]
    if isinstance(value, bool):
        return _KINDS["boolean"]
    if isinstance(value, str):
        return _with_singular(f"a string of {len(value)} characters", len(value))
    if isinstance(value, (int, float)):
        return _KINDS["integer" if isinstance(value, int) else "number"]
    if isinstance(value, list):
        return _with_singular(f"an array of {len(value)} items", len(value))
    return _with_singular(f"an object of {len(value)} properties", len(value))


def _missing_property(schema: Mapping[str, Any], value: Any) -> str:
    missing = [name for name in schema["required"] if name not in value]
    return f"the required {'property' if len(missing) == 1 else 'properties'} {', '.join(map(shortened, missing))}"


def _unexpected(schema: Mapping[str, Any], value: Any) -> str:
    properties = schema.get("properties", {})
    extra = len(unexpected_names(schema, value))
    word = "property" if extra == 1 else "properties"
    return f"no properties but {', '.join(map(shortened, properties)) or 'none'}, got {extra} unexpected {word}"


def unexpected_names(schema: Mapping[str, Any], value: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the properties of a value that `additionalProperties: false` refuses."""
    properties = schema.get("properties", {})
    patterns = [linear_regex(pattern) for pattern in schema.get("patternProperties", {})]
    return tuple(
        name for name in value if name not in properties and not any(compiled.search(name) for compiled in patterns)
    )


def _dotted(name: str) -> str:
    return f".{name}" if name.isidentifier() else f"[{json.dumps(name)}]"
