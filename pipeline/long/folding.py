"""A text without the differences that are irrelevant in a quote; each character keeps its original position.

Folding: NFKC, white space as one space, characters of no width left out, quotation marks as `'` or `"`, dashes as `-`.
Case is kept. A hyphen at a line end is read in the three ways of `LineEnd`. Time is linear in the text.

    text      inter-⏎national  “fine”      the folded and the original bounds of each piece whose length changes are
    folded    international "fine"         kept; between two such pieces the distance of the two is constant
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from enum import Enum
from functools import lru_cache

from pipeline.long.character_folds import MARKS, REMOVED, character_folds

_SPACE = rf"[\s{REMOVED}]"
_LINE_BREAK = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_ASCII_CHANGES = re.compile(r"(?P<cluster>(?!))|-\s+|\s\s+")
_WITHOUT_REMOVED = dict.fromkeys(map(ord, REMOVED))
_HYPHENS = "-\u2010\u2011\u00ad"


class LineEnd(Enum):
    """The treatment of a hyphen between letters at a line end (`inter-⏎national`, `long-⏎term`)."""

    REMOVED = "international"
    KEPT = "long-term"
    SPACED = "long- term"


class FoldedText:
    """The folded form of a text. `hyphens`: its number of hyphens at line ends."""

    def __init__(self, text: str, line_end: LineEnd) -> None:
        self.hyphens = 0
        self._folded_starts: list[int] = []
        self._folded_ends: list[int] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._line_end = line_end
        self.text = self._fold(text)

    def _fold(self, text: str) -> str:
        is_ascii = text.isascii()
        # most differences replace one character by another: they keep all places, and are mapped for the whole text
        mapped = text.translate(MARKS if is_ascii else character_folds().single)
        pieces: list[str] = []
        size = covered = 0
        for match in (_ASCII_CHANGES if is_ascii else _changes(text)).finditer(text):
            start, end = match.span()
            if match["cluster"]:
                start, piece = _cluster(mapped, start, end, covered=covered)
            else:
                start, piece = self._space(text, start, end)
            if piece is None:
                continue
            pieces += [mapped[covered:start], piece]
            size += start - covered
            self._folded_starts.append(size)
            size += len(piece)
            self._folded_ends.append(size)
            self._starts.append(start)
            self._ends.append(end)
            covered = end
        pieces.append(mapped[covered:])
        return "".join(pieces)

    def _space(self, text: str, start: int, end: int) -> tuple[int, str | None]:
        """Return where a run of white space begins, and its folded form; None when its length does not change.

        The run may begin with a hyphen, which is part of it only when it is removed.
        """
        first = text[start]
        if first in _HYPHENS and _is_line_end(text, start, end):
            self.hyphens += 1
            if self._line_end is LineEnd.REMOVED or (self._line_end is LineEnd.KEPT and first in REMOVED):
                return start, ""
            if self._line_end is LineEnd.KEPT:
                return start + 1, ""
        if first in _HYPHENS and first not in REMOVED:
            start += 1
        run = text[start:end]
        if len(run) == 1 and run not in REMOVED:
            return start, None
        return start, " " if any(map(str.isspace, run)) else ""

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the place in the text of folded[start:end], not empty; None when it divides a cluster."""
        first = bisect_right(self._folded_starts, start) - 1
        last = bisect_right(self._folded_starts, end - 1) - 1
        if first >= 0 and start < self._folded_ends[first]:
            if start != self._folded_starts[first]:
                return None
            begin = self._starts[first]
        else:
            begin = start + self._shift(first)
        if last >= 0 and end - 1 < self._folded_ends[last]:
            return (begin, self._ends[last]) if end == self._folded_ends[last] else None
        return begin, end + self._shift(last)

    def _shift(self, piece: int) -> int:
        """Return the offset of the characters after a piece from their folded places."""
        return self._ends[piece] - self._folded_ends[piece] if piece >= 0 else 0


def folded(text: str, line_end: LineEnd = LineEnd.REMOVED) -> str:
    """Return the folded form of a quote, without white space around it."""
    return FoldedText(text, line_end).text.strip()


def _changes(text: str) -> re.Pattern[str]:
    """Return the pattern of all pieces of this text whose length may change.

    It has the characters of this text only: few of them make a pattern that is ten times as fast as that of all.
    """
    folds = character_folds()
    characters = frozenset(text)
    return _pattern(folds.several & characters, folds.combining & characters)


@lru_cache(maxsize=64)
def _pattern(several_chars: frozenset[str], combining_chars: frozenset[str]) -> re.Pattern[str]:
    several, combining = (re.escape("".join(sorted(chars))) for chars in (several_chars, combining_chars))
    marks = f"(?:[{REMOVED}]*[{combining}])" if combining else "(?!)"
    cluster = (f"[{several}]{marks}*|" if several else "") + f"{marks}+"
    return re.compile(rf"(?P<cluster>{cluster})|[{_HYPHENS}]{_SPACE}+|{_SPACE}{{2,}}|[{REMOVED}]")


def _cluster(mapped: str, start: int, end: int, *, covered: int) -> tuple[int, str | None]:
    """Return where a cluster begins, and its normal form. The match may lack its base, the character before it."""
    if start > covered and mapped[start] not in character_folds().several:
        start -= 1
    cluster = mapped[start:end].translate(_WITHOUT_REMOVED)
    normal = unicodedata.normalize("NFKC", cluster).translate(MARKS)
    return start, cluster if normal[0] == " " != cluster[0] else normal


def _is_line_end(text: str, start: int, end: int) -> bool:
    """Return True for a hyphen and white space with a line break, between two letters."""
    if start == 0 or end == len(text) or not _LINE_BREAK.search(text, start, end):
        return False
    next_char = text[end]
    is_letter = next_char.isalpha() and (next_char.isascii() or next_char not in character_folds().combining)
    return is_letter and unicodedata.category(text[start - 1])[0] in "LM"
