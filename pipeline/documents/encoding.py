"""Bytes as text: by their mark, as UTF-8, as what they declare, else by a guess that is noted.

It refuses what is no text; it must not do I/O, and no message quotes what the bytes say.
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
"""What archives are written in: of all encodings there are, a short text would fit a dozen."""

_DECLARABLE = re.compile(r"cp\d+|(iso\d+|koi8|mac|euc|tis)[_-].+|(gb|big5|shift_jis|hz|johab|kz1048).*")
_SEVEN_BIT = ("iso2022", "hz")
_USUAL = "cp1252"
_SAMPLE_BYTES = 1 << 16
_CLOSE = 0.02


def to_text(data: bytes, *, declared: str | None = None) -> tuple[str, tuple[str, ...]]:
    """The text and its notes: by BOM, as UTF-8, as `declared`, else guessed, which is noted; binary is refused."""
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
    """The encoding that the mark at the beginning names, as one that takes the mark off; None without a mark."""
    found = next((encoding for bom, encoding in BOMS if data.startswith(bom)), None)
    return "utf-8-sig" if found == "utf-8" else found and found[:6]


def guess(data: bytes, *, first: int = 0) -> str:
    """The likeliest encoding of bytes that are no UTF-8, by Python's name; `first` is where that shows.

    Of two that are as likely it is cp1252: most old western texts fit its neighbours just as well.
    """
    start = data.rfind(b"\n", 0, first) + 1
    start = start if first - start < _SAMPLE_BYTES // 2 else first
    found = charset_normalizer.from_bytes(data[start : start + _SAMPLE_BYTES], cp_isolation=_LIKELY)
    best = found.best()
    if best is None:
        return _USUAL
    usual = next((each for each in found if _USUAL in each.could_be_from_charset), None)
    if usual and usual.chaos <= best.chaos + _CLOSE and usual.coherence >= best.coherence:
        return _USUAL
    return best.encoding


def _known(declared: str | None) -> str | None:
    """Python's name of a declared encoding of text; None when there is none, or the declaration is wrong already."""
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
    """Nothing; DocumentError when the bytes are no text in any encoding without NUL bytes."""
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if b"\0" in data or controls > len(data) * MAX_CONTROL_SHARE:
        raise DocumentError("document_unreadable", "binary data, need text")
