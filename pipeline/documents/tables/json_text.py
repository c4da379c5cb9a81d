"""Parse JSON: strict, or with trailing commas and non-finite numbers, each of which is noted.

It must not repair anything else: a truncated or garbled text is not a document.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pipeline.documents.encodings.decoding import to_text
from pipeline.errors import DocumentError

RECORD_SEPARATOR = "\x1e"
"""Precedes each text of a JSON text sequence (RFC 7464)."""

# a string is skipped whole, also one that never ends: from each quote the text is passed once
_TRAILING_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"?|,(?=\s*[}\]])', re.DOTALL)


def read_json(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """Return the value of a JSON text (the last of equal keys), and notes.

    NaN, infinities and numbers out of range become null, noted as `numbers_not_finite:N`; trailing commas are dropped,
    noted as `trailing_commas`. A record separator before the text and a comma after it are ignored.
    """
    text, notes = to_text(data)
    text = text.lstrip(RECORD_SEPARATOR)
    try:
        value, further_notes = _parsed(text)
    except json.JSONDecodeError as strict:
        value, further_notes = _without_commas(text, strict)
    return value, (*notes, *further_notes)


def _without_commas(text: str, strict: json.JSONDecodeError) -> tuple[Any, tuple[str, ...]]:
    tidy = drop_trailing_commas(text.rstrip())
    tidy = tidy[:-1] + " " if tidy.endswith(",") else tidy
    try:
        if tidy == text.rstrip():
            raise strict
        value, further_notes = _parsed(tidy)
    except json.JSONDecodeError as cause:
        position = f"line {cause.lineno} column {cause.colno}"
        raise DocumentError("document_unreadable", f"not JSON: {cause.msg} ({position})") from cause
    has_other_commas = tidy.rstrip() != text.rstrip().removesuffix(",").rstrip()
    return value, (*(("trailing_commas",) if has_other_commas else ()), *further_notes)


def drop_trailing_commas(text: str) -> str:
    """Return the text with a space for each comma before a closing bracket; every other character stays in place."""
    return _TRAILING_COMMA.sub(lambda match: " " if match[0] == "," else match[0], text)


def _parsed(text: str) -> tuple[Any, tuple[str, ...]]:
    non_finite_count = 0

    def constant(_: str) -> None:
        nonlocal non_finite_count
        non_finite_count += 1

    def finite(digits: str) -> float | None:
        number = float(digits)
        if math.isfinite(number):
            return number
        constant(digits)
        return None

    try:
        value = json.loads(text, parse_constant=constant, parse_float=finite)
    except json.JSONDecodeError:
        raise
    except ValueError as cause:
        raise DocumentError("document_unreadable", "not JSON: a number has too many digits") from cause
    except RecursionError as cause:
        raise DocumentError("document_unreadable", "JSON nested too deep") from cause
    return value, (f"numbers_not_finite:{non_finite_count}",) if non_finite_count else ()
