"""A check whether characters are plausible text: PDF fonts without a character map give arbitrary signs."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import pairwise

_SAMPLE_CHARS = 50_000
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "HALFWIDTH", "FULLWIDTH", "IDEOGRAPHIC"})
_ANY = ""


def implausible_share(text: str) -> float:
    """Return the share of implausible characters: control, private and unassigned ones, and mixed scripts.

    Scripts are mixed where a letter of a word is in another script than the letter before it.
    """
    words = text[:_SAMPLE_CHARS].split()
    size = sum(map(len, words))
    strange = sum(_is_strange(char) for word in words for char in word)
    mixed = sum(_mixed(word) for word in words if not word.isascii())
    return min(1.0, (strange + mixed) / size) if size else 0.0


def _mixed(word: str) -> int:
    scripts = [script for char in word if (script := _script(char)) != _ANY]
    return sum(left != right for left, right in pairwise(scripts))


@lru_cache(maxsize=1 << 14)
def _is_strange(char: str) -> bool:
    return char == "\ufffd" or unicodedata.category(char) in ("Cc", "Co", "Cn", "Cs")


@lru_cache(maxsize=1 << 14)
def _script(char: str) -> str:
    """Return the first word of the name of a letter or mark, which is its script; empty for what all scripts use."""
    if unicodedata.category(char)[0] not in "LM" or char in "µºªΩ":
        return _ANY
    name = unicodedata.name(char, "?").split(" ")[0].split("-")[0]
    if name in ("COMBINING", "MODIFIER"):
        return _ANY
    return "CJK" if name in _EAST_ASIAN else name
