"""The keywords of JSON Schema that hold a regular expression, with an engine that does not backtrack.

jsonschema uses `re.search`, which a pattern such as `^(a+)+$` and sixty characters of an answer keep busy forever.
The meaning is the same; patterns that need backtracking are refused when the agent is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from pipeline.answers.violations import shortened
from pipeline.errors import ConfigError
from pipeline.linear_regex import UnsupportedPatternError, linear_regex


def matches(pattern: str, text: str) -> bool:
    """Return True when the pattern matches somewhere in the text; TooExpensiveError after some seconds of work."""
    return linear_regex(pattern).search(text)


def check_patterns(node: Mapping[str, Any], *, at: str, names_matter: bool) -> None:
    """Raise ConfigError when a pattern of this schema cannot be matched in linear time.

    `names_matter`: `unevaluatedProperties` is used somewhere; it matches names with Python's own engine.
    """
    if isinstance(node.get("pattern"), str):
        _check(node["pattern"], at=f"{at}.pattern")
    patterns = node.get("patternProperties")
    for pattern in patterns if isinstance(patterns, Mapping) else ():
        _check(pattern, at=f"{at}.patternProperties")
        if names_matter and not linear_regex(pattern).is_plain:
            need = "need a simpler pattern, or additionalProperties in place of unevaluatedProperties"
            raise ConfigError(f"{at}.patternProperties: got {shortened(pattern)} beside unevaluatedProperties; {need}")


def _check(pattern: str, *, at: str) -> None:
    try:
        linear_regex(pattern)
    except UnsupportedPatternError as cause:
        need = "need one without back references, atomic groups and very large repeats"
        raise ConfigError(f"{at}: got {shortened(pattern)}: {cause}; {need}") from cause
    except re.error as cause:
        raise ConfigError(f"{at}: got {shortened(pattern)}, which is not a regular expression: {cause.msg}") from cause


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:  # noqa: ARG001
    if validator.is_type(instance, "string") and not matches(pattern, instance):
        yield ValidationError("the string does not match the pattern")


def _pattern_properties(
    validator: Any,
    patterns: Mapping[str, Any],
    instance: Any,
    schema: Any,  # noqa: ARG001
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        for name, item in instance.items():
            if matches(pattern, name):
                yield from validator.descend(item, subschema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, additional: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    extras = additional_names(instance, schema)
    if validator.is_type(additional, "object"):
        for name in extras:
            yield from validator.descend(instance[name], additional, path=name)
    elif not additional and extras:
        yield ValidationError("the object has properties that the schema does not accept")


def additional_names(names: Iterable[str], schema: Mapping[str, Any]) -> list[str]:
    """Return the names that neither `properties` nor `patternProperties` of the schema covers."""
    properties = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    return [
        name for name in names if name not in properties and not any(matches(pattern, name) for pattern in patterns)
    ]


_KEYWORDS = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}

Validator: type[Draft202012Validator] = extend(Draft202012Validator, _KEYWORDS)  # type: ignore[no-untyped-call]
"""Draft 2020-12 with patterns in linear time."""
