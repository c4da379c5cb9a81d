"""Decoding of bytes to text: by their BOM, as UTF-8, as the declared encoding, else by a guess, with notes.

    BOM ─▶ escape sequences ─▶ UTF-16 without a BOM ─▶ UTF-8 ─▶ nearly UTF-8 ─▶ declared ─▶ guessed

Binary data is refused. It must not do I/O, and no message may quote the text.
"""

from __future__ import annotations

import codecs
import re
from typing import NoReturn

from pipeline.documents.encodings.charset_labels import codec_of
from pipeline.documents.encodings.guessing import guess_legacy, guess_wide
from pipeline.documents.encodings.iso2022jp import MARK, decode_iso2022_jp
from pipeline.errors import DocumentError

__all__ = ["BOMS", "guess", "marked", "read_as", "refuse_binary", "to_text"]

MAX_CONTROL_SHARE = 0.05
MAX_REPLACED_SHARE = 0.1
"""Share of the characters beyond ASCII that may be invalid in the declared encoding before another one is guessed."""

BOMS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FIRST_OF_BOMS = tuple({bom[:1] for bom, _ in BOMS})
_CONTROLS = bytes(code for code in range(32) if code not in b"\b\t\n\v\f\r\x1b\x1e") + b"\x7f"

_KOREAN_MARK = b"\x1b$)C"
_HZ = re.compile(rb"~\{(?:[\x21-\x77][\x21-\x7e]){2,}~\}")
_SEVEN_BIT = ("iso2022", "hz", "utf-7")
_BAD = "\ufffd"

Text = tuple[str, tuple[str, ...]]


def to_text(data: bytes, *, declared: str | None = None, mail: bool = False) -> Text:
    """Return the text and notes: `encoding:X` if it is not UTF-8, `encoding_guessed:X`, `invalid_bytes:N`.

    DocumentError for binary data. `mail`: UTF-7 may be declared.
    """
    if data.startswith(_FIRST_OF_BOMS):
        for bom, encoding in BOMS:
            if data.startswith(bom) and encoding != "utf-8":
                return _by_bom(data[len(bom) :], encoding), ()
        data = data.removeprefix(codecs.BOM_UTF8)
    codec = codec_of(declared, mail=mail)
    if codec and codec.startswith(("utf-16", "utf-32")) and (wide := _declared_wide(data, codec)) is not None:
        return wide
    if b"\0" in data:
        return _guessed_wide(data) or _without_nul(data, declared=declared, mail=mail)
    return _narrow(data, codec)


def guess(data: bytes, *, first: int = 0) -> str:
    """Return the most likely encoding of bytes that are not UTF-8, which is UTF-8 when only a few are invalid."""
    return "utf-8" if _nearly_utf8(data) is not None else guess_legacy(data, first=first)


def read_as(data: bytes, encoding: str) -> Text:
    """Return the text of bytes whose encoding is known, and notes."""
    text = decode_iso2022_jp(data) if encoding == "iso2022_jp" else data.decode(encoding, "replace")
    text = text.removeprefix("\ufeff")
    lost_bytes = _lost_bytes(data, text, encoding)
    return text, (f"encoding:{encoding}", *([f"invalid_bytes:{lost_bytes}"] if lost_bytes else []))


def _narrow(data: bytes, codec: str | None) -> Text:
    """Return the text of bytes without NUL."""
    if codec and codec.startswith(_SEVEN_BIT):
        return read_as(data, codec)
    seven_bit = _seven_bit(data) if codec is None else None
    if seven_bit is not None:
        return read_as(data, seven_bit)[0], (f"encoding_guessed:{seven_bit}",)
    refuse_binary(data)
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError as cause:
        first = cause.start
    nearly = _nearly_utf8(data)
    if nearly is not None:
        return nearly
    if codec and not codec.startswith("utf"):
        text, notes = read_as(data, codec)
        beyond = len(text) - sum(map(str.isascii, text))
        if text.count(_BAD) <= MAX_REPLACED_SHARE * beyond:
            return text, notes
    encoding = guess_legacy(data, first=first)
    text, notes = read_as(data, encoding)
    return text, (f"encoding_guessed:{encoding}", *notes[1:])


def _nearly_utf8(data: bytes) -> Text | None:
    """Return the text of bytes that are mostly UTF-8, with U+FFFD for invalid ones; None when most are invalid."""
    text = data.decode("utf-8", "replace")
    valid = text.replace(_BAD, "")
    real = data.count(b"\xef\xbf\xbd")
    invalid_count = len(text) - len(valid) - real
    valid_count = len(valid) - sum(map(str.isascii, valid)) + real
    if invalid_count >= valid_count:
        return None
    return text, (f"invalid_bytes:{len(data) - len(valid.encode()) - 3 * real}",)


def _lost_bytes(data: bytes, text: str, encoding: str) -> int:
    """Return how many bytes were replaced by U+FFFD; each replacement counts as at least one."""
    if _BAD not in text or encoding.startswith(_SEVEN_BIT):
        return text.count(_BAD)
    valid = text.replace(_BAD, "")
    try:
        return max(len(data) - len(valid.encode(encoding)), 1)
    except UnicodeEncodeError:
        return text.count(_BAD)


def _seven_bit(data: bytes) -> str | None:
    """Return the encoding whose escape sequences are in the bytes; None for plain text."""
    if b"\x1b" in data and data.isascii():
        if _KOREAN_MARK in data:
            return "iso2022_kr"
        return "iso2022_jp" if MARK.search(data) else None
    if b"~{" not in data or not data.isascii():
        return None
    try:
        return "hz" if _HZ.search(data) and data.decode("hz") else None
    except UnicodeDecodeError:
        return None


def _guessed_wide(data: bytes) -> Text | None:
    """Return the text of bytes in UTF-16 or UTF-32 without a BOM; None when they are in neither."""
    encoding = guess_wide(data)
    if encoding is None:
        return None
    extra_bytes = len(data) % (4 if encoding.startswith("utf-32") else 2)
    try:
        text = _as_wide(data[: len(data) - extra_bytes], encoding)
    except (UnicodeDecodeError, DocumentError):
        return None
    return text, (f"encoding_guessed:{encoding}", *([f"invalid_bytes:{extra_bytes}"] if extra_bytes else []))


def _without_nul(data: bytes, *, declared: str | None, mail: bool) -> Text:
    """Return the text without its NUL bytes, of which a damaged text may have a few."""
    cleaned = data.replace(b"\0", b"")
    lost_bytes = len(data) - len(cleaned)
    if lost_bytes > max(1, len(data) * MAX_CONTROL_SHARE) or not cleaned:
        _refuse()
    refuse_binary(cleaned)
    text, notes = to_text(cleaned, declared=declared, mail=mail)
    return text, (*notes, f"invalid_bytes:{lost_bytes}")


def _declared_wide(data: bytes, codec: str) -> Text | None:
    """Return the text of bytes that are in the declared UTF-16 or UTF-32; None when they are not."""
    if codec in ("utf-16", "utf-32"):
        codec = guess_wide(data, (f"{codec}-le", f"{codec}-be")) or f"{codec}-le"
    if b"\0" not in data and _is_utf8(data):
        return None
    try:
        return _as_wide(data, codec), (f"encoding:{codec}",)
    except (UnicodeDecodeError, DocumentError):
        return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def marked(data: bytes) -> str | None:
    """Return the encoding of the BOM, in the variant that removes the BOM; None without a BOM."""
    name = next((encoding for bom, encoding in BOMS if data.startswith(bom)), None)
    return "utf-8-sig" if name == "utf-8" else name and name[:6]


def _by_bom(data: bytes, encoding: str) -> str:
    try:
        return _as_wide(data, encoding)
    except UnicodeDecodeError as cause:
        raise DocumentError("document_unreadable", f"not {encoding}, as its first bytes say") from cause


def _as_wide(data: bytes, encoding: str) -> str:
    text = data.decode(encoding, "surrogatepass")
    refuse_binary(text.encode("utf-8", "surrogatepass"))
    return text


def refuse_binary(data: bytes) -> None:
    """Raise DocumentError when the bytes are not text in any encoding without NUL bytes."""
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if b"\0" in data or controls > len(data) * MAX_CONTROL_SHARE:
        _refuse()


def _refuse() -> NoReturn:
    raise DocumentError("document_unreadable", "binary data, need text")
