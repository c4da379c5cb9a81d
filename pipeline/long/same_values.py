"""Equality of two values of answers: texts without differences of form, numbers by value.

It must not know a schema.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable
from typing import Any

_OUTER = ["Pi", "Pf", "Ps", "Pe", "Pd"]
_SENTENCE_MARKS = frozenset("\"'.,;:!?\u2026\u00b7\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f\u2022\u00a1\u00bf`")
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9 ]*[a-z0-9])?")


def value_key(value: Any, *, exact: bool = False) -> Hashable:
    """Return a key that is equal only for the same values; `exact`: a text is the same as itself only.

    True is not 1, but 1 is 1.0. An object is the same in any order of its properties.
    """
    if isinstance(value, str):
        return value if exact else folded_text(value)
    if value is None or isinstance(value, bool):
        return ("literal", value)
    if isinstance(value, (int, float)):
        return ("number", value)
    if isinstance(value, dict):
        return ("object", *sorted((name, value_key(item, exact=exact)) for name, item in value.items()))
    return ("array", *(value_key(item, exact=exact) for item in value))


def folded_text(text: str) -> str:
    """Return the text after NFKC and case folding, with single spaces and without punctuation around it.

    Without any letter, the punctuation stays: -5 is not 5.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    plain = " ".join(text.lower().split()) if text.isascii() else " ".join(text.split())
    if _PLAIN.fullmatch(plain):
        return plain
    start = 0
    end = len(plain)
    while start < end and _is_outer(plain[start]):
        start += 1
    while start < end and _is_outer(plain[end - 1]):
        end -= 1
    inner = plain[start:end]
    return inner if any(map(str.isalpha, inner)) else plain


def is_nothing(value: Any) -> bool:
    """Return True for null, a blank text, an empty list, and an object of such values only."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, dict):
        return all(map(is_nothing, value.values()))
    return value is None or value == []


def _is_outer(char: str) -> bool:
    return char.isspace() or char in _SENTENCE_MARKS or unicodedata.category(char) in _OUTER
