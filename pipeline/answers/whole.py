"""Find a complete answer in a reply that was cut within trailing white space, or that holds it as reasoning.

It must not repair a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline.answers.json_parsing import AnswerError, strip_fence
from pipeline.answers.thoughts import after_thoughts, is_one_object
from pipeline.answers.validation import parse

if TYPE_CHECKING:
    from pipeline.answers.schema import CompiledSchema

_PADDING = re.compile(
    r"(?:\s|<\|(?:im_end|endoftext|end_of_text|eot_id|eom_id|end|return|END_OF_TURN_TOKEN)\|>|</s>|<eos>|<end_of_turn>|<turn\|>)+"
)
"""White space and the end tokens of chat templates: Qwen, Llama 3, gpt-oss, Mistral, Gemma."""


def padded_object(text: str) -> str | None:
    """Return the object that a text begins with, if white space or end tokens, and nothing else, follow it.

    None also when nothing follows: such an answer was cut at its last character, or would have continued.
    """
    body = after_thoughts(text)
    body = body.lstrip() if body else ""
    if not body.startswith("{"):
        return None
    try:
        value, end = json.JSONDecoder().raw_decode(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not _PADDING.fullmatch(body, end):
        return None
    return body[:end]


def is_object(text: str) -> bool:
    """Return True when a text holds one complete object, by the rules for any answer."""
    try:
        return isinstance(parse(text).value, dict)
    except AnswerError:
        return False


def answer_in_reasoning(reasoning: str, schema: Mapping[str, Any] | None) -> str | None:
    """Return the answer that a server took for the model's reasoning; None when that holds none.

    It is all of the reasoning, or all that follows the last mark of thoughts, and is valid against the schema.
    """
    if schema is None or not reasoning.strip():
        return None
    text = after_thoughts(reasoning) or ""
    body = strip_fence(text.strip()).strip()
    return None if breaks_schema(body, schema) else body


def breaks_schema(text: str, schema: Mapping[str, Any]) -> bool:
    """Return True when a text is not one object that is valid against the schema."""
    return not is_one_object(text) or _compiled(json.dumps(schema)).violation(json.loads(text)) is not None


@lru_cache(maxsize=16)
def _compiled(schema: str) -> CompiledSchema:
    from pipeline.answers.schema import (
        compile_schema,
    )  # slow to import, and seldom needed here

    return compile_schema(json.loads(schema), where="schema")
