"""The few-shot examples of an agent: texts with answers that a run would accept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.constraints import nearest_hint
from pipeline.config.resolved_agent import Example
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.answers.schema import CompiledSchema

_KEYS = ("document", "output")


def read_examples(examples: Sequence[Mapping[str, Any]], schema: CompiledSchema, *, path: Path) -> tuple[Example, ...]:
    """Return the examples; ConfigError for an output that breaks the schema or whose quote is not in its text."""
    return tuple(_read(example, schema, at=f"{path}: examples[{number}]") for number, example in enumerate(examples))


def _read(example: Mapping[str, Any], schema: CompiledSchema, *, at: str) -> Example:
    from pipeline.answers.json_parsing import AnswerError  # slow to import, and most agents have no examples
    from pipeline.answers.validation import judge

    for key in example:
        if key not in _KEYS:
            raise ConfigError(f"{at}: unknown key {key!r}{nearest_hint(key, _KEYS)}; accepted: {', '.join(_KEYS)}")
    document = example.get("document")
    output = example.get("output")
    if not isinstance(document, str) or not document.strip():
        raise ConfigError(f"{at}.document: got {_kind(document)}, need a text")
    if not isinstance(output, Mapping):
        raise ConfigError(f"{at}.output: got {_kind(output)}, need an object that the schema allows")
    try:
        text = json.dumps(output, ensure_ascii=False, allow_nan=False)
        judge(text, schema, document_text=document, repair="off")
    except AnswerError as cause:
        raise ConfigError(f"{at}.output: {cause}") from cause
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"{at}.output: is not JSON: {cause}") from cause
    return Example(document, text)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
