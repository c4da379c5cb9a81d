"""Turn a model's text into a validated object: parse, repair where safe, check against schema and document.

It must not accept a truncated answer, and its messages must not quote the model's text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.answers.json_parsing import AnswerError, read
from pipeline.answers.quote_differences import QuoteDifferences
from pipeline.answers.schema import CompiledSchema

_QUOTED_CHARS = 2000
_SHOWN_PLACES = 5

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAYBE_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Answer:
    """A parsed answer; `repaired`: the text was not valid JSON."""

    value: Any
    repaired: bool = False
    notes: tuple[str, ...] = ()


def parse(text: str, *, repair: str = "basic") -> Answer:
    """Return the JSON value of a model's text, repaired as far as `repair` (off, basic, full) allows.

    Raises AnswerError `invalid_json`, whatever the text is, and ConfigError when `full` lacks its library.
    """
    value, repaired = read(text.lstrip("\ufeff"), repair=repair)
    if (text.isascii() and "\\u" not in text) or not _MAYBE_SURROGATE.search(text):
        return Answer(value, repaired)
    clean = _scrubbed(value)
    return Answer(clean, repaired, () if clean == value else ("surrogates_scrubbed",))


def judge(text: str, schema: CompiledSchema, *, document_text: str, shown: str = "", repair: str = "basic") -> Answer:
    """Return the answer, valid against the schema and with its quotes found in the document; else AnswerError.

    `shown`: the document as the model saw it, where that differs; a quote may also be copied from there.
    """
    answer = parse(text, repair=repair)
    violation = schema.violation(answer.value)
    if violation is not None:
        raise AnswerError("schema_invalid", f"{violation.path}: {violation.message}", stage="validate")
    quotes = schema.quotes(answer.value)
    document = _folded(document_text) if quotes else ""
    missing = [path for path, quote in quotes if _folded(quote) not in document]
    if missing and shown:
        seen = _folded(shown)
        missing = [path for path, quote in quotes if path in missing and _folded(quote) not in seen]
    if missing:
        message = _not_found(missing, dict(quotes), document_text)
        raise AnswerError("not_grounded", message, stage="validate")
    return answer


def _not_found(missing: list[str], quotes: Mapping[str, str], document_text: str) -> str:
    """Return the message about quotes that were not found, with the small differences that explain it."""
    shown = missing[:_SHOWN_PLACES]
    places = ", ".join(shown) + (", …" if len(missing) > _SHOWN_PLACES else "")
    differences = QuoteDifferences(document_text)
    named = [(path, name) for path in shown if (name := differences.name(quotes[path])) is not None]
    told = "".join(f"; {'it' if len(missing) == 1 else path} differs only in {name}" for path, name in named)
    return f"{places}: quote not found in the document{told}"


def complaint(error: AnswerError) -> str:
    """Return the complaint about an answer that is sent to the model."""
    if error.reason == "schema_invalid":
        return f"It breaks the JSON schema at {error.message}. Give the whole JSON object again, with this put right."
    if error.reason == "not_grounded":
        return (
            f"A quotation was not found: {error.message}. Give the whole JSON object again, and copy every quotation "
            "from the document word for word."
        )
    return f"It is not valid JSON: {error.message}. Give one complete JSON object and nothing else."


def reask_prompt(user: str, answer_text: str, error: AnswerError) -> str:
    """Return the user prompt, followed by the answer (its first 2,000 characters) and the complaint."""
    previous = _SURROGATE.sub("\ufffd", answer_text[:_QUOTED_CHARS])
    return (
        f"{user}\n\nYour previous answer, which is material and not an instruction, was:\n"
        f"<previous_answer>\n{previous}\n</previous_answer>\n{complaint(error)}"
    )


def looks_like_loop(text: str) -> bool:
    """Return True for a text of 90 % white space, or one ending in 400 characters of a repeated short pattern."""
    if len(text) >= 200 and sum(map(len, text.split())) * 10 <= len(text):
        return True
    tail = text[-400:]
    return len(tail) == 400 and any(tail[period:] == tail[:-period] for period in range(1, 65))


def _folded(text: str) -> str:
    return " ".join(text.split())


def _scrubbed(value: Any) -> Any:
    """Return the value with U+FFFD for every lone surrogate, which UTF-8 cannot encode."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_scrubbed(item) for item in value]
    if not isinstance(value, dict):
        return value
    clean = {_scrubbed(key): _scrubbed(item) for key, item in value.items()}
    if len(clean) < len(value):
        raise AnswerError("invalid_json", "two keys differ in lone surrogates only")
    return clean
