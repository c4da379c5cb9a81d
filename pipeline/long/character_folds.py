"""Tables of characters for folding: the replacement of each character, and the characters that form clusters.

The tables of all characters are made once for each process, when the first text that is not ASCII is folded (50 ms).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain

_SINGLE_MARKS = "\u2018\u2019\u201a\u201b\u2032\u2035\u2039\u203a\u02b9\u02bb\u02bc\u00b4\u05f3\uff07\uff40`"
_DOUBLE_MARKS = (
    "\u00ab\u00bb\u201c\u201d\u201e\u201f\u2033\u2036\u02ba\u05f4\u2e42\u300c\u300d\u300e\u300f\u301d\u301e\u301f"
    "\ufe41\ufe42\ufe43\ufe44\uff02\uff62\uff63"
)
_DASHES = (
    "\u2212\u2010\u2011\u2012\u2013\u2014\u2015\u058a\u05be\u1400\u1806\u2e17\u2e1a\u2e3a\u2e3b\u2e40\ufe58\ufe63\uff0d"
)
WHITE_SPACE = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
REMOVED = "\u00ad\u200b\u2060\ufeff"
"""Characters of no width that are invisible: soft hyphen, zero-width space, word joiner, byte order mark."""

MARKS: Mapping[int, str] = {
    **{ord(char): "'" for char in _SINGLE_MARKS},
    **{ord(char): '"' for char in _DOUBLE_MARKS},
    **{ord(char): "-" for char in _DASHES},
    **{ord(char): " " for char in WHITE_SPACE},
}
"""Each quotation mark, dash and white space → the character that represents its kind."""

_ALTERABLE = (
    *(range(0xA0, 0x3400), range(0xA000, 0xAC00), range(0xD7A4, 0xD800)),
    *(range(0xF900, 0x17000), range(0x1AFF0, 0x20000), range(0x2F800, 0x2FA20)),
)
"""All code points except large blocks of ideographs and syllables, which never combine and which NFKC keeps."""


@dataclass(frozen=True, slots=True)
class CharacterFolds:
    """Effects of NFKC on characters.

    `single`: characters that become one other character. `several`: those that become more than one.
    `combining`: those that may combine with the character before them.
    """

    single: Mapping[int, str]
    several: frozenset[str]
    combining: frozenset[str]


@cache
def character_folds() -> CharacterFolds:
    """Return the tables for texts of all characters.

    A cluster is a character with the characters that may combine with it. NFKC of a text is the NFKC of its clusters,
    one after the other, so each cluster can be normalized alone.
    """
    seconds = _second_characters()
    single: dict[int, str] = {}
    several: set[str] = set()
    combining: set[str] = set()
    for code in chain(*_ALTERABLE):
        char = chr(code)
        if char in REMOVED or code in MARKS:
            continue
        first = unicodedata.normalize("NFKD", char)[0]
        if unicodedata.combining(first) or first in seconds:
            combining.add(char)
            continue
        folded = unicodedata.normalize("NFKC", char)
        if folded == char or folded[0] == " ":  # a free-standing accent: its space would join the one before it
            continue
        if len(folded) == 1:
            single[code] = folded.translate(MARKS)
        else:
            several.add(char)
    return CharacterFolds({**MARKS, **single}, frozenset(several), frozenset(combining))


def _second_characters() -> frozenset[str]:
    """Return the characters that compose with the one before them, though some of them are not combining marks."""
    characters = set()
    for code in chain(*_ALTERABLE):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            characters.add(chr(int(parts[1], 16)))
    hangul = map(chr, (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)))
    return frozenset(characters.union(hangul))
