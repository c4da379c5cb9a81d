"""Guess the encoding of bytes that are not UTF-8 and have no declared encoding.

The detector (chardet) knows letters and words of about fifty languages; `scripts/bench_encodings.py` measures it here.
It must not do I/O, and no message may quote the text.
"""

from __future__ import annotations

import codecs
import functools
import re

USUAL = "cp1252"

_CANDIDATES = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "kz1048"),
    *("iso8859-1", "iso8859-2", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-9", "iso8859-13"),
    *("iso8859-15", "koi8-r", "koi8-u", "tis-620"),
    *("cp437", "cp737", "cp775", "cp850", "cp852", "cp855", "cp857", "cp862", "cp866"),
    *("mac-roman", "mac-latin2", "mac-cyrillic", "mac-greek", "mac-turkish"),
    *("cp932", "euc_jis_2004", "gb18030", "big5hkscs", "cp949", "euc_kr", "johab", "iso2022_kr"),
)
"""Encodings of archives: those of Windows, the web, DOS and the Macintosh, and of East Asia. Each further one makes
guesses about short texts worse."""

WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")

_WIDER = {"iso8859-1": "cp1252", "tis-620": "cp874", "euc_kr": "cp949"}
_LIKELIER = {"euc_jis_2004": "euc_jp", "cp437": "cp850"}
"""Encoding of the detector → the encoding to use instead when both give the same text."""

_LOW_CONFIDENCE = 0.15
"""Below this the detector does not know the language (Albanian), or the text is too short."""
_WESTERN_ODDITY = re.compile(
    "[a-zß-öø-ÿ][À-ÖØ-ÞŠŒŽŸ]"  # a capital within a word
    "|[A-Za-zÀ-ÖØ-öø-ÿ][\x80-\x9f†‡ˆ‰‹¡-©«-¶¸¹»-¿×÷˜™›][a-zß-öø-ÿ]"  # a sign within a word
    "|[À-ÖØ-öø-ÿŠŒŽŸšœž]{3}"
)
_ASCII = frozenset(range(128))
_FEW_LETTERS = 4
_SAMPLE_BYTES = 1 << 16


def guess_legacy(data: bytes, *, first: int = 0) -> str:
    """Return Python's name of the most likely encoding of bytes that are not UTF-8; `first`: the first invalid byte."""
    start = data.rfind(b"\n", 0, first) + 1
    start = start if first - start < _SAMPLE_BYTES // 2 else first
    sample = data[start : start + _SAMPLE_BYTES]
    name, confidence = _detected(sample, _CANDIDATES)
    if confidence < _LOW_CONFIDENCE and _is_plausibly_western(sample):
        return USUAL
    name = _WIDER.get(name, name)
    likelier = _LIKELIER.get(name)
    if likelier and sample.decode(likelier, "replace") == sample.decode(name, "replace"):
        return likelier
    return codecs.lookup(name).name


def guess_wide(data: bytes, encodings: tuple[str, ...] = WIDE) -> str | None:
    """Return the UTF-16 or UTF-32 encoding of the bytes; None when they have another one."""
    sample = data[: _SAMPLE_BYTES - _SAMPLE_BYTES % 4]
    name, confidence = _detected(sample, encodings, otherwise="")
    return codecs.lookup(name).name if name and confidence >= _LOW_CONFIDENCE else None


@functools.lru_cache(maxsize=8)
def _detected(data: bytes, encodings: tuple[str, ...], *, otherwise: str = USUAL) -> tuple[str, float]:
    from chardet import detect  # its models take 40 ms to load

    no_match = USUAL if USUAL in encodings else encodings[0]
    detected = detect(data, include_encodings=encodings, compat_names=False, no_match_encoding=no_match)
    name = detected["encoding"]
    return (name, detected["confidence"]) if name in encodings else (otherwise, 0.0)


def _is_plausibly_western(data: bytes) -> bool:
    """Return True for bytes that look like a text in cp1252 with few different letters beyond ASCII."""
    if len(set(data) - _ASCII) > _FEW_LETTERS:
        return False
    try:
        text = data.decode(USUAL)
    except UnicodeDecodeError:
        return False
    return _WESTERN_ODDITY.search(text) is None
