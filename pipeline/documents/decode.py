"""What a document's bytes mean: its text, its metadata, and notes on what was done to get them.

Nothing here does I/O, and no message quotes what a document says.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from pipeline.errors import DocumentError

MAX_CONTROL_SHARE = 0.05
MAX_NESTED_CHARS = 4096
MAX_NESTED_DEPTH = 16

_BOMS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = bytes(code for code in range(32) if code not in b"\b\t\n\v\f\r\x1b") + b"\x7f"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A document's text, before it is known whose it is."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """A row of the table of formats: `lines` are one document a line, a `file` is one document."""

    name: str
    kind: Literal["file", "lines"]
    decode: Callable[[bytes, str], Decoded]


def decode_text(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a text has no fields)
    """The bytes as text, as they stand."""
    text, notes = to_text(data)
    return _finished(text, {}, notes=notes)


def decode_json(data: bytes, text_field: str) -> Decoded:
    """The object's text field as text, its other fields as metadata.

    Scalars are kept whole; arrays and objects are left out when their JSON is larger than 4 kB.
    """
    value, notes = read_json(data)
    if not isinstance(value, dict):
        _unreadable(f"the JSON is {_kind(value)}, need an object")
    if text_field not in value:
        _unreadable(f"field {text_field!r} is missing, need a string")
    text = value.pop(text_field)
    if not isinstance(text, str):
        _unreadable(f"field {text_field!r} is {_kind(text)}, need a string")
    return _finished(text, {name: item for name, item in value.items() if _is_small(item)}, notes=notes)


def _finished(text: str, metadata: dict[str, Any], *, notes: tuple[str, ...]) -> Decoded:
    """The document without lone surrogates, which no server takes; DocumentError when it says nothing."""
    if not text.strip():
        raise DocumentError("document_empty", "the document holds no text")
    clean_text, clean_metadata = scrub(text), _scrub_all(metadata)
    if (clean_text, clean_metadata) != (text, metadata):
        notes = (*notes, "surrogates_scrubbed")
    return Decoded(clean_text, clean_metadata, notes)


def to_text(data: bytes) -> tuple[str, tuple[str, ...]]:
    """The bytes as text by their BOM, as UTF-8, else as cp1252, which is then noted; binary is refused."""
    for bom, encoding in _BOMS:
        if data.startswith(bom) and encoding != "utf-8":
            return _by_bom(data[len(bom) :], encoding)
    data = data.removeprefix(codecs.BOM_UTF8)
    _refuse_binary(data)
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace"), ("encoding:cp1252",)


def _by_bom(data: bytes, encoding: str) -> tuple[str, tuple[str, ...]]:
    try:
        text = data.decode(encoding, "surrogatepass")
    except UnicodeDecodeError as cause:
        raise DocumentError("document_unreadable", f"not {encoding}, as its first bytes say") from cause
    _refuse_binary(text.encode("utf-8", "surrogatepass"))
    return text, ()


def _refuse_binary(data: bytes) -> None:
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if b"\0" in data or controls > len(data) * MAX_CONTROL_SHARE:
        _unreadable("binary data, need text")


def read_json(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """The value of strict JSON (no NaN, no number out of range; of equal keys the last), and notes."""
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
    """The text with U+FFFD for each lone surrogate."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _scrub_all(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(name): _scrub_all(item) for name, item in value.items()}
    return [_scrub_all(item) for item in value] if isinstance(value, list) else value


def _kind(value: object) -> str:
    """The name JSON has for a value's type."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")


def _unreadable(message: str) -> NoReturn:
    raise DocumentError("document_unreadable", message)
