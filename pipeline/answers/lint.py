"""Lint an agent's schema: unknown keywords, and schemas that accept useless results.

JSON Schema ignores unknown keywords, so a typing error silently disables a rule. It must not validate answers.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.answers.merge_keywords import MERGE_KEYWORDS
from pipeline.answers.subschemas import QUOTE, places
from pipeline.config.constraints import nearest_hint
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.answers.schema import CompiledSchema

KEYWORDS = frozenset((
    *("$schema", "$id", "$ref", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "$comment", "$defs"),
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "prefixItems", "items", "contains"),
    *("properties", "patternProperties", "additionalProperties", "propertyNames", "unevaluatedItems"),
    *("unevaluatedProperties", "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum"),
    *("exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains"),
    *("minContains", "maxProperties", "minProperties", "required", "dependentRequired", "format", "contentEncoding"),
    *("contentMediaType", "contentSchema", "title", "description", "default", "deprecated", "readOnly", "writeOnly"),
    *("examples", "definitions", QUOTE, *MERGE_KEYWORDS),
))  # fmt: skip
"""The keywords of draft 2020-12, `definitions` of earlier drafts, and our own."""

_OWN_KEYWORDS = (QUOTE, *MERGE_KEYWORDS)
_NEAR = 0.8
"""Similarity (0 to 1) from which an `x-` keyword counts as a misspelt keyword of this program, not of another tool."""
_MOST_SHOWN = 2


def check_known_keywords(schema: Mapping[str, Any], *, where: str) -> None:
    """Raise ConfigError for the first keyword that JSON Schema would ignore, naming the nearest known one."""
    for place, node in places(schema, "$"):
        for keyword in node:
            near = difflib.get_close_matches(keyword, _OWN_KEYWORDS, n=1, cutoff=_NEAR)
            if keyword in KEYWORDS or (keyword.startswith("x-") and not near):
                continue
            hint = f"; the nearest is {near[0]}" if near else nearest_hint(keyword, sorted(KEYWORDS))
            need = "need one of JSON Schema draft 2020-12, or x-… for a note of your own"
            raise ConfigError(f"{where}: at {place}.{keyword}: got an unknown keyword, {need}{hint}")


def accepts_anything(compiled: CompiledSchema) -> str | None:
    """Return a warning when an empty object is valid: an echoed schema would then be a result."""
    if compiled.violation({}) is not None:
        return None
    is_closed = compiled.schema.get("additionalProperties") is False
    further = "" if is_closed else ', and so are the echoed schema and {"response": …}'
    return f"the schema requires nothing: {{}} is a valid answer{further}; list the fields in `required`" + (
        "" if is_closed else " and set `additionalProperties: false`"
    )


def unbounded(compiled: CompiledSchema) -> str | None:
    """Return a warning that names the strings and arrays without a limit, which a model in a loop fills."""
    unlimited = list(_unbounded(compiled.schema))
    if not unlimited:
        return None
    more_text = f" and {len(unlimited) - _MOST_SHOWN} more" if len(unlimited) > _MOST_SHOWN else ""
    examples = ", ".join(unlimited[:_MOST_SHOWN])
    return f"no limit at {examples}{more_text}: a model in a loop fills the answer; set `maxLength` or `maxItems`"


def warnings_of(compiled: CompiledSchema) -> list[str]:
    """Return all warnings about a schema."""
    return [warning for warning in (accepts_anything(compiled), unbounded(compiled)) if warning is not None]


def _unbounded(schema: Mapping[str, Any]) -> Iterator[str]:
    for place, node in places(schema, "$"):
        kinds = node.get("type", ())
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        if "string" in kinds and not {"maxLength", "enum", "const", "pattern", "format"} & node.keys():
            yield place
        if "array" in kinds and not {"maxItems", "enum", "const"} & node.keys():
            yield place
