"""Keywords of a schema that a kind of server accepts but does not enforce.

One table, from experiments with vLLM 0.32.0 (xgrammar) and llama.cpp b10488, Ollama's engine. It is a warning to the
author of a schema only: the pipeline validates every answer in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Test = Callable[[Mapping[str, Any]], bool]

_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA = frozenset({"const", "enum", "default", "examples", "required", "dependentRequired", "type"})
_LLAMA_FORMATS = frozenset({"date", "time", "date-time", "uuid"})


def _is_loose(part: Mapping[str, Any]) -> bool:
    pattern = part["pattern"]
    return not (isinstance(pattern, str) and pattern.startswith("^") and pattern.endswith("$"))


def _has_numbers(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    return "number" in (kind if isinstance(kind, list) else [kind])


def _is_remote(part: Mapping[str, Any]) -> bool:
    return not str(part["$ref"]).startswith("#")


def _always_allowed(part: Mapping[str, Any]) -> bool:  # noqa: ARG001 - a row of the table
    return True


_IN_NEITHER_ENGINE: Mapping[str, Test] = dict.fromkeys(
    ("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "multipleOf"), _always_allowed
)
_VLLM: Mapping[str, Test] = {
    **_IN_NEITHER_ENGINE,
    "allOf": lambda part: isinstance(part["allOf"], list) and len(part["allOf"]) > 1,
    "$ref": _is_remote,
    "patternProperties": lambda part: "properties" in part,
}
_LLAMA: Mapping[str, Test] = {
    **_IN_NEITHER_ENGINE,
    **dict.fromkeys(("uniqueItems", "contains", "propertyNames", "patternProperties"), _always_allowed),
    **dict.fromkeys(("minProperties", "maxProperties", "minLength"), _always_allowed),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _has_numbers),
    "pattern": _is_loose,
    "format": lambda part: part["format"] not in _LLAMA_FORMATS,
}
TABLES: Mapping[str, Mapping[str, Test]] = {"vllm": _VLLM, "ollama": _LLAMA, "openai": _IN_NEITHER_ENGINE}
"""The tables by a provider's `type`; another server of the OpenAI protocol has what neither engine enforces."""


def unenforced_keywords(schema: Mapping[str, Any], dialect: str) -> list[str]:
    """Return `place: keyword` for each keyword that this dialect's servers do not enforce, in the schema's order."""
    table = TABLES[dialect]
    return [
        f"{place}: {keyword}"
        for place, part in _places(schema, "$")
        for keyword in part
        if keyword in table and table[keyword](part)
    ]


def _places(part: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each schema inside a schema with its place: `$.name` for a property, `[]` for the items of an array."""
    if isinstance(part, list):
        for inner in part:
            yield from _places(inner, place)
    if not isinstance(part, Mapping):
        return
    yield place, part
    for keyword, inner in part.items():
        if keyword in _NAMED and isinstance(inner, Mapping):
            for name, inner_part in inner.items():
                yield from _places(
                    inner_part, f"{place}.{name}" if keyword == "properties" else f"{place}.{keyword}.{name}"
                )
        elif keyword not in _DATA:
            yield from _places(inner, f"{place}[]" if keyword in ("items", "prefixItems") else place)
