"""Decoding of a document's bytes to its text, its metadata, and notes on the decoding.

It must not do I/O, and no message may quote the document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pipeline.documents.encoding import to_text
from pipeline.errors import DocumentError

MAX_NESTED_CHARS = 4096
MAX_NESTED_DEPTH = 16
MAX_NAMES = 20
MAX_NAME_CHARS = 40

_VISIBLE = re.compile(
    "[^\\s\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff]"
)
"""A character that is neither white space nor of no width."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The text, metadata and notes of a document, without its id."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def decode_text(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a text has no fields)
    """Decode plain text."""
    text, notes = to_text(data)
    return finished(text, {}, notes=notes)


def decode_json(data: bytes, text_field: str) -> Decoded:
    """Decode a JSON object: its text field as text, its other fields as metadata.

    Scalars are kept; arrays and objects are dropped when their JSON is larger than 4 kB.
    """
    return _decode_fields(data, text_field, names="keys")


def decode_row(data: bytes, text_field: str) -> Decoded:
    """Decode a row of a table, given as a JSON object of its cells, like `decode_json`."""
    return _decode_fields(data, text_field, names="columns")


def _decode_fields(data: bytes, text_field: str, *, names: str) -> Decoded:
    value, notes = read_json(data)
    if not isinstance(value, dict):
        _unreadable(f"the JSON is {_kind(value)}, need an object")
    if text_field not in value:
        _unreadable(missing_field(text_field, list(value), names=names))
    text = value.pop(text_field)
    if not isinstance(text, str):
        _unreadable(f"field {text_field!r} is {_kind(text)}, need a string (`input.text_field` names the field)")
    return finished(text, {name: item for name, item in value.items() if _is_small(item)}, notes=notes)


def missing_field(text_field: str, present: Sequence[str], *, names: str) -> str:
    """Return the message about a document without its text field; `names`: what its fields are called."""
    named = [name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}…" for name in present[:MAX_NAMES]]
    listed = ", ".join(named) + (f" and {len(present) - MAX_NAMES} more" if len(present) > MAX_NAMES else "")
    there = f"this document has the {names} {listed}" if present else f"this document has no {names}"
    return f"field {text_field!r} is missing: set `input.text_field` to the field that holds the text; {there}"


def finished(text: str, metadata: dict[str, Any], *, notes: tuple[str, ...]) -> Decoded:
    """Return the document without lone surrogates, which no server accepts; DocumentError when it is empty."""
    if not _VISIBLE.search(text):
        raise DocumentError("document_empty", "the document holds no text")
    clean_text = scrub(text)
    clean_metadata = _scrub_all(metadata)
    if (clean_text, clean_metadata) != (text, metadata):
        notes = (*notes, "surrogates_scrubbed")
    return Decoded(clean_text, clean_metadata, notes)


def read_json(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """Return the value of strict JSON (no NaN, no number out of range; the last of equal keys), and notes."""
    text, notes = to_text(data)
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite), notes
    except json.JSONDecodeError as cause:
        where = f"line {cause.lineno} column {cause.colno}"
        raise DocumentError("document_unreadable", f"not JSON: {cause.msg} ({where})") from cause
    except ValueError as cause:
        raise DocumentError("document_unreadable", "not strict JSON: a number out of range") from cause
    except RecursionError as cause:
        raise DocumentError("document_unreadable", "JSON nested too deep") from cause


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("out of range")
    return number


def _is_small(value: Any) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    return _is_flat(value, MAX_NESTED_DEPTH) and len(json.dumps(value)) <= MAX_NESTED_CHARS


def _is_flat(value: Any, depth: int) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_flat(item, depth - 1) for item in items)


def scrub(text: str) -> str:
    """Return the text with U+FFFD for each lone surrogate."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _scrub_all(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(name): _scrub_all(item) for name, item in value.items()}
    return [_scrub_all(item) for item in value] if isinstance(value, list) else value


def _kind(value: object) -> str:
    """Return the JSON name of a value's type."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")


def _unreadable(message: str) -> NoReturn:
    raise DocumentError("document_unreadable", message)
