"""Decoding of bytes to text: by their BOM, as UTF-8, as the declared encoding, else by a guess, with a note.

Binary data is refused. It must not do I/O, and no message may quote the text.
"""

from __future__ import annotations

import codecs
import re

import charset_normalizer

from pipeline.errors import DocumentError

MAX_CONTROL_SHARE = 0.05

BOMS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = bytes(code for code in range(32) if code not in b"\b\t\n\v\f\r\x1b") + b"\x7f"

_LIKELY = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "iso8859_2", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949", "tis_620"),
]
"""Encodings common in archives; a short text would fit a dozen of all existing encodings."""

_DECLARABLE = re.compile(r"cp\d+|(iso\d+|koi8|mac|euc|tis)[_-].+|(gb|big5|shift_jis|hz|johab|kz1048).*")
_SEVEN_BIT = ("iso2022", "hz")
_USUAL = "cp1252"
_SAMPLE_BYTES = 1 << 16
_CLOSE = 0.02


def to_text(data: bytes, *, declared: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Return the text and notes: by BOM, as UTF-8, as `declared`, else guessed, with a note; binary is refused."""
    for bom, encoding in BOMS:
        if data.startswith(bom) and encoding != "utf-8":
            return _by_bom(data[len(bom) :], encoding), ()
    data = data.removeprefix(codecs.BOM_UTF8)
    refuse_binary(data)
    known = _known(declared)
    if known and known.startswith(_SEVEN_BIT):
        return data.decode(known, "replace"), (f"encoding:{known}",)
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError as cause:
        encoding = known or guess(data, first=cause.start)
        return data.decode(encoding, "replace"), (f"encoding:{encoding}",)


def marked(data: bytes) -> str | None:
    """Return the encoding of the BOM, in the variant that removes the BOM; None without a BOM."""
    name = next((encoding for bom, encoding in BOMS if data.startswith(bom)), None)
    return "utf-8-sig" if name == "utf-8" else name and name[:6]


def guess(data: bytes, *, first: int = 0) -> str:
    """Return the most likely encoding of bytes that are not UTF-8, by Python's name; `first`: the first invalid byte.

    Of equally likely ones cp1252 is preferred: most old western texts fit its neighbours just as well.
    """
    start = data.rfind(b"\n", 0, first) + 1
    start = start if first - start < _SAMPLE_BYTES // 2 else first
    candidates = charset_normalizer.from_bytes(data[start : start + _SAMPLE_BYTES], cp_isolation=_LIKELY)
    best = candidates.best()
    if best is None:
        return _USUAL
    usual = next((candidate for candidate in candidates if _USUAL in candidate.could_be_from_charset), None)
    if usual and usual.chaos <= best.chaos + _CLOSE and usual.coherence >= best.coherence:
        return _USUAL
    return best.encoding


def _known(declared: str | None) -> str | None:
    """Return Python's name of a declared encoding; None without one, or when UTF-8 is declared or it is unknown."""
    try:
        name = codecs.lookup(declared or "").name
    except (LookupError, ValueError):
        return None
    if name in ("iso8859-1", "latin-1"):
        return _USUAL
    return name if _DECLARABLE.fullmatch(name) else None


def _by_bom(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding, "surrogatepass")
    except UnicodeDecodeError as cause:
        raise DocumentError("document_unreadable", f"not {encoding}, as its first bytes say") from cause
    refuse_binary(text.encode("utf-8", "surrogatepass"))
    return text


def refuse_binary(data: bytes) -> None:
    """Raise DocumentError when the bytes are not text in any encoding without NUL bytes."""
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if b"\0" in data or controls > len(data) * MAX_CONTROL_SHARE:
        raise DocumentError("document_unreadable", "binary data, need text")
