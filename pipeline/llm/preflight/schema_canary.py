"""Find out whether a server enforces the agent's schema: "enforced", "not enforced", or "not verified" with a reason.

The canary is the agent's schema with one more property in front, whose only value no model would write on its own. It
is sent with a prompt that asks for prose. A server that drops the grammar of this schema, or every grammar, answers in
prose. The answer for the agent's schema itself must fit the schema, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.answers import after_thoughts, breaks_schema, is_one_object
from pipeline.llm.endings import WHITE_SPACE_ADVICE
from pipeline.records import ExtractionAttempt

NAME = "canary"
VALUE = "kJ7-sulphur"
BEGINNING = f'{{"{NAME}":"{VALUE}"'
CANARY_PROMPTS = {"system": "", "user": "Tell me in one short sentence of plain prose what a harbour is."}

ENFORCED = "enforced"
NOT_ENFORCED = "not enforced"
NOT_ENFORCED_WARNING = (
    "the server does not hold the model to the schema (constrained decoding is off): validation alone decides"
)
_OTHER_SHAPES = frozenset(
    ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "enum", "const", "maxProperties", "propertyNames")
)
_FIRST_KEY = re.compile(r'\{\s*("(?:[^"\\]|\\.)*")')
_FLOOD_CHARS = 24
_CUT_REASONS = frozenset({"output_truncated", "generation_loop"})


def canary_schema(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the agent's schema with the canary in front; None when its root is not a plain object schema."""
    if _OTHER_SHAPES & schema.keys() or NAME in schema.get("properties", {}):
        return None
    first = {NAME: {"type": "string", "enum": [VALUE]}}
    with_canary = {
        "properties": {**first, **schema.get("properties", {})},
        "required": [NAME, *schema.get("required", [])],
    }
    return {**schema, **with_canary}


def enforcement(
    schema_attempt: ExtractionAttempt, canary: ExtractionAttempt | None, *, schema: Mapping[str, Any], unenforced: bool
) -> str:
    """Return the statement about the agent's schema from the attempts with it (`schema_attempt`) and with the canary.

    `canary`: None when the schema can contain none. `unenforced`: the server is known not to enforce some keyword.
    """
    if _shows_no_grammar(schema_attempt, schema, unenforced=unenforced):
        return NOT_ENFORCED
    if canary is None:
        return "not verified (the schema's root is more than an object's properties)"
    return _of_canary(canary, schema)


def is_flooded(attempt: ExtractionAttempt) -> bool:
    """Return whether an answer was cut in white space, or is mostly white space."""
    text = attempt.raw_text or ""
    if "trailing_whitespace" in attempt.notes:
        return True
    if attempt.reason not in _CUT_REASONS or len(text) < _FLOOD_CHARS:
        return False
    return not text[-_FLOOD_CHARS:].strip() or sum(map(len, text.split())) * 5 < len(text) * 2


FLOOD_WARNING = f"the model fills its answers with white space: {WHITE_SPACE_ADVICE.partition(': ')[2]}"


def _shows_no_grammar(schema_attempt: ExtractionAttempt, schema: Mapping[str, Any], *, unenforced: bool) -> bool:
    """Return whether the answer shows that no grammar of this schema was used."""
    body = (after_thoughts(schema_attempt.raw_text or "") or "").strip()
    if not body:
        return False
    if not body.startswith("{"):
        return True
    if schema_attempt.ok:
        return not unenforced and breaks_schema(body, schema)
    return _key_of(body) is not None and _is_closed(schema) and _key_of(body) not in schema.get("properties", {})


def _of_canary(attempt: ExtractionAttempt, schema: Mapping[str, Any]) -> str:
    text = attempt.raw_text or ""
    body = after_thoughts(text)
    if attempt.thought or body is None or (text.strip() and not body.strip()):
        return f"not verified (the model spent the {attempt.max_tokens} tokens of the test on thoughts)"
    if not body.strip():
        return f"not verified (the test was not answered: {attempt.message or 'no content'})"
    dense = "".join(body.split())
    if dense.startswith(BEGINNING) or BEGINNING.startswith(dense):
        return ENFORCED
    if attempt.ok and is_one_object(body):
        return ENFORCED if json.loads(body).get(NAME) == VALUE else NOT_ENFORCED
    key = _key_of(body)
    if key is not None and key != NAME and key in schema.get("properties", {}):
        return "not verified (the answer does not begin with the property of the test)"
    return NOT_ENFORCED


def _is_closed(schema: Mapping[str, Any]) -> bool:
    return schema.get("additionalProperties") is False and "patternProperties" not in schema


def _key_of(body: str) -> str | None:
    """Return the first key of an object, or of the beginning of one."""
    first = _FIRST_KEY.match(body.lstrip())
    try:
        return str(json.loads(first[1])) if first else None
    except ValueError:
        return None
