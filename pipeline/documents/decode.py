"""Decoding of a document's bytes to its text, its metadata, and notes on the decoding.

It must not do I/O, and no message may quote the document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.tables.json_fields import kind, raise_unreadable, text_at, without
from pipeline.documents.tables.json_text import read_json
from pipeline.errors import DocumentError

MAX_NESTED_CHARS = 4096
MAX_NESTED_DEPTH = 16
MAX_NAMES = 20
MAX_NAME_CHARS = 40

_VISIBLE = re.compile(
    "[^\\s\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff]"
)
"""A character that is neither white space nor of no width."""
_SUBMISSION = b"<SEC-DOCUMENT>"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The text, metadata and notes of a document, without its id; `pages`: where each page begins in the text."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pages: tuple[int, ...] = ()


def decode_text(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a text has no fields)
    """Decode plain text; DocumentError for a file of many documents that was not recognized by its name."""
    if data.startswith(_SUBMISSION):
        message = "a full submission to EDGAR: name it ACCESSION_NUMBER.txt or full-submission.txt"
        raise DocumentError("unsupported_format", message)
    text, notes = to_text(data)
    return decoded_document(text, {}, notes=notes)


def decode_json(data: bytes, text_field: str) -> Decoded:
    """Decode a JSON object: its text field as text, its other fields as metadata.

    The text field is a name or a dotted path, and may hold a list of paragraphs. Scalars are kept as metadata; arrays
    and objects are dropped when their JSON is larger than 4 kB.
    """
    return _decode_fields(data, text_field, names="keys")


def decode_row(data: bytes, text_field: str) -> Decoded:
    """Decode a row of a table, given as a JSON object of its cells, like `decode_json`."""
    return _decode_fields(data, text_field, names="columns")


def _decode_fields(data: bytes, text_field: str, *, names: str) -> Decoded:
    value, notes = read_json(data)
    if not isinstance(value, dict):
        raise_unreadable(f"the JSON is {kind(value)}, need an object")
    text = text_at(value, text_field)
    if text is None:
        raise_unreadable(missing_field(text_field, list(value), names=names))
    metadata = without(value, text_field)
    return decoded_document(text, {name: item for name, item in metadata.items() if _is_small(item)}, notes=notes)


def missing_field(text_field: str, names_present: Sequence[str], *, names: str) -> str:
    """Return the message about a document without its text field; `names`: what its fields are called."""
    shown_names = [
        name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}…" for name in names_present[:MAX_NAMES]
    ]
    listed = ", ".join(shown_names) + (
        f" and {len(names_present) - MAX_NAMES} more" if len(names_present) > MAX_NAMES else ""
    )
    actual = f"this document has the {names} {listed}" if names_present else f"this document has no {names}"
    return f"field {text_field!r} is missing: set `input.text_field` to the field that holds the text; {actual}"


def decoded_document(
    text: str, metadata: dict[str, Any], *, notes: tuple[str, ...], pages: tuple[int, ...] = ()
) -> Decoded:
    """Return the document without lone surrogates, which no server accepts; DocumentError when it is empty."""
    if not _VISIBLE.search(text):
        raise DocumentError("document_empty", "the document holds no text")
    clean_text = scrub(text)
    clean_metadata = _scrub_all(metadata)
    if (clean_text, clean_metadata) != (text, metadata):
        notes = (*notes, "surrogates_scrubbed")
    return Decoded(clean_text, clean_metadata, notes, pages)


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
    try:
        text.encode()  # ten times as fast as a search with the pattern
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def _scrub_all(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(name): _scrub_all(item) for name, item in value.items()}
    return [_scrub_all(item) for item in value] if isinstance(value, list) else value
