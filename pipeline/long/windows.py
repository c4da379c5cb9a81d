"""The division of a long text: windows of about one size that end at good boundaries and overlap; pure functions.

    spans = cut(text, budget_bytes=16_000, overlap_bytes=800)
    text[spans[0].start : spans[0].end]

The unit of sizes is the byte of UTF-8, as the tokens of every script follow it; places are code points. Windows cover
the text without a gap. Their starts and their ends grow, and none is larger than the budget.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

MOST_WINDOWS = 10_000
LEAST_WINDOW_CHARS = 400
"""A window is not divided into halves of fewer characters: so short a window does not fail for its length."""
LEAST_BUDGET_BYTES = 64
"""Below this a single cluster of characters may not fit."""

_STRIDE = 1024
"""Characters between two known byte offsets."""
_LOOK_BACK = 64
"""Characters before a place in which a blank line or a sentence end that leads to it may begin."""
_LEAST_SHARE = 0.75
_MOST_SHARE = 1.1
"""A window ends between these shares of the size that makes all of them even."""

_FORM_FEED = re.compile("\f")
_HEADING = re.compile(r"^#{1,6}[ \t]", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_LINE_END = re.compile(r"[\n\u2028\u2029]|\r(?!\n)")
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_CLOSING = "[\"'\u2019\u201d\u00bb\u300d\u300f\uff02)\\]]*"
_SENTENCE_END = re.compile(rf"[.!?\u2026]{_CLOSING}(?:\s+|(?=[{_CJK}]))|[\u3002\uff01\uff1f]{_CLOSING}\s*")
_WHITE_SPACE = re.compile(r"\s+")
_JOINER = "\u200d"


class Span(NamedTuple):
    """text[start:end]."""

    start: int
    end: int


class TooManyWindowsError(ValueError):
    """A text would be cut into more than MOST_WINDOWS windows."""


def cut(
    text: str,
    budget_bytes: int,
    overlap_bytes: int,
    *,
    laid: Iterable[Span] = (),
    page_starts: Sequence[int] = (),
) -> list[Span]:
    """Return the windows of a text, sorted; one that fits into the budget is one window, an empty text none.

    `laid`: windows that were answered before; only the gaps between them are cut, each with an overlap at both ends.
    `page_starts`: the beginnings of pages, which rank like a form feed. Raise ValueError for a budget below
    LEAST_BUDGET_BYTES, an overlap of more than a quarter of it, or a laid span that is not in the text, and
    TooManyWindowsError.
    """
    if budget_bytes < LEAST_BUDGET_BYTES or not 0 <= overlap_bytes <= budget_bytes // 4:
        need = f"at least {LEAST_BUDGET_BYTES} bytes for a window, and at most a quarter of that for the overlap"
        raise ValueError(f"got {budget_bytes} and {overlap_bytes}, need {need}")
    outermost = _outermost(laid)
    if outermost and (
        outermost[0].start < 0 or outermost[-1].end > len(text) or any(span.start >= span.end for span in outermost)
    ):
        raise ValueError(
            f"got the windows {outermost[0]} to {outermost[-1]}, need some of a text of {len(text)} characters"
        )
    cutter = _Cutter(text, budget_bytes, overlap_bytes, page_starts)
    gaps = _gaps(outermost, len(text))
    if not outermost:
        return [window for gap in gaps for window in cutter.windows(gap)]
    return _outermost(chain(outermost, *(cutter.windows(cutter.widened(gap)) for gap in gaps)))


def divide(text: str, span: Span, overlap_bytes: int, *, page_starts: Sequence[int] = ()) -> tuple[Span, Span] | None:
    """Return two halves of a window that share an overlap; None when one would be shorter than LEAST_WINDOW_CHARS.

    They meet at the best boundary in the middle half of the window. The overlap is at most half of the first half:
    otherwise the second half could be the whole window again, and the division would never end.
    """
    boundaries = _Boundaries(text, page_starts)
    start, end = span
    quarter = (end - start) // 4
    middle = boundaries.nearest(start + quarter, end - quarter, (start + end) // 2)
    shared = len(text[start:middle].encode("utf-8", "surrogatepass")[-overlap_bytes:].decode("utf-8", "ignore"))
    shared = min(shared, (middle - start) // 2)
    second = boundaries.first(middle - shared, middle - shared // 2) if overlap_bytes else middle
    if min(middle - start, end - second) < LEAST_WINDOW_CHARS:
        return None
    return Span(start, middle), Span(second, end)


def covers(spans: Iterable[Span], chars: int) -> bool:
    """Return True when the spans cover a text of this many characters."""
    furthest = 0
    for start, end in sorted(spans):
        if start > furthest:
            return False
        furthest = max(furthest, end)
    return furthest == chars


def _outermost(spans: Iterable[Span]) -> list[Span]:
    """Return the spans that are not within another one, sorted."""
    outermost: list[Span] = []
    for span in sorted(spans, key=lambda candidate: (candidate.start, -candidate.end)):
        if not outermost or span.end > outermost[-1].end:
            outermost.append(Span(*span))
    return outermost


def _gaps(spans: Sequence[Span], chars: int) -> list[Span]:
    """Return the gaps that sorted spans leave in a text of this many characters."""
    starts = (*(span.start for span in spans), chars)
    ends = (0, *(span.end for span in spans))
    return [Span(end, start) for end, start in zip(ends, starts, strict=True) if end < start]


class _Sizes:
    """The number of UTF-8 bytes before each character of a text, known at every 1024th and counted from there."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._is_ascii = text.isascii()
        pieces = () if self._is_ascii else (text[at : at + _STRIDE] for at in range(0, len(text), _STRIDE))
        self._cumulative = [0, *accumulate(_size(piece) for piece in pieces)]

    def bytes_before(self, char: int) -> int:
        """Return the bytes of text[:char]."""
        if self._is_ascii:
            return char
        block = char // _STRIDE
        return self._cumulative[block] + _size(self._text[block * _STRIDE : char])

    def char_at(self, offset: int) -> int:
        """Return the last character that begins at or before this byte; len(text) for a byte after the text."""
        if self._is_ascii:
            return min(offset, len(self._text))
        block = bisect_right(self._cumulative, offset) - 1
        data = self._text[block * _STRIDE : (block + 1) * _STRIDE].encode("utf-8", "surrogatepass")
        return block * _STRIDE + _characters(data[: offset - self._cumulative[block]])


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _characters(data: bytes) -> int:
    """Return the number of complete characters in these bytes; the last one may be cut off."""
    for dropped_bytes in range(min(len(data), 4)):
        try:
            return len(data[: len(data) - dropped_bytes].decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            continue
    return 0


class _Boundaries:
    """The places of a text where one window may end and the next begin, the best kind of them first."""

    def __init__(self, text: str, page_starts: Sequence[int]) -> None:
        self._text = text
        self._page_starts = sorted(page_starts)

    def last(self, low: int, high: int) -> int:
        """Return the last place of the best kind from `low` to `high`; `high` where a cluster fills all of it."""
        places = self._places(low, high)
        return max(places) if places else self.last_safe(high, low)

    def first(self, low: int, high: int) -> int:
        """Return the first place of the best kind from `low` to `high`; `high` where a cluster fills all of it."""
        places = self._places(low, high)
        return min(places) if places else next((at for at in range(low, high) if self._is_safe(at)), high)

    def nearest(self, low: int, high: int, target: int) -> int:
        """Return the place of the best kind from `low` to `high` that is nearest to `target`."""
        places = self._places(low, high)
        return min(places, key=lambda place: abs(place - target)) if places else self.last_safe(target, low)

    def last_safe(self, place: int, low: int) -> int:
        """Return the last place from `low` to `place` that divides no cluster; `place` if each one does."""
        return next((at for at in range(place, low - 1, -1) if self._is_safe(at)), place)

    def _places(self, low: int, high: int) -> list[int]:
        """Return the places of the best kind that occurs from `low` to `high` and divides no cluster."""
        for places in self._kinds(low, high):
            if safe := [place for place in places if place >= low and self._is_safe(place)]:
                return safe
        return []

    def _kinds(self, low: int, high: int) -> Iterator[Iterable[int]]:
        """Yield the places of each kind, the best one first; some may lie before `low`."""
        start = max(low - _LOOK_BACK, 0)
        text = self._text
        pages = self._page_starts[bisect_left(self._page_starts, low) : bisect_right(self._page_starts, high)]
        yield (*pages, *_ends(_FORM_FEED, text, start, high))
        yield (match.start() for match in _HEADING.finditer(text, low, high))
        for pattern in (_BLANK_LINES, _LINE_END, _SENTENCE_END, _WHITE_SPACE):
            yield _ends(pattern, text, start, high)

    def _is_safe(self, place: int) -> bool:
        """Return True when the characters before and after a place are of two clusters."""
        if not 0 < place < len(self._text):
            return True
        before = self._text[place - 1]
        next_char = self._text[place]
        if next_char < "\u0300":
            return before != _JOINER and (before, next_char) != ("\r", "\n")
        return before != _JOINER and next_char != _JOINER and not unicodedata.category(next_char).startswith("M")


def _ends(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[int]:
    return (match.end() for match in pattern.finditer(text, start, end))


class _Cutter:
    """The cutting of one text, part by part, with the number of windows so far."""

    def __init__(self, text: str, budget_bytes: int, overlap_bytes: int, page_starts: Sequence[int]) -> None:
        self._sizes = _Sizes(text)
        self._boundaries = _Boundaries(text, page_starts)
        self._chars = len(text)
        self._budget = budget_bytes
        self._overlap = overlap_bytes
        self._count = 0

    def windows(self, part: Span) -> Iterator[Span]:
        """Yield the windows of a part of the text."""
        start = part.start
        end = part.start
        part_end = self._sizes.bytes_before(part.end)
        while end < part.end:
            self._count += 1
            if self._count > MOST_WINDOWS:
                raise TooManyWindowsError(f"more than {MOST_WINDOWS:,} windows of {self._budget:,} bytes")
            end = self._end(start, end, part.end, part_end)
            yield Span(start, end)
            start = self.overlapping(start, end)

    def widened(self, gap: Span) -> Span:
        """Return a gap with an overlap at both ends."""
        end = self._sizes.char_at(self._sizes.bytes_before(gap.end) + self._overlap)
        return Span(self.overlapping(-1, gap.start), self._boundaries.last(gap.end, min(end, self._chars)))

    def overlapping(self, start: int, end: int) -> int:
        """Return the start of the window after one from `start` to `end`."""
        before = self._sizes.bytes_before(end)
        low = max(self._sizes.char_at(max(before - self._overlap, 0)), start + 1)
        high = max(self._sizes.char_at(max(before - self._overlap // 2, 0)), low)
        return self._boundaries.first(low, high)

    def _end(self, start: int, last_end: int, part_end: int, part_end_bytes: int) -> int:
        """Return the end of the window that begins at `start`; it is after the end of the previous one."""
        first = self._sizes.bytes_before(start)
        remaining_bytes = part_end_bytes - first
        count = -(-remaining_bytes // self._budget)
        if count == 1:
            return part_end
        aim = remaining_bytes / count
        high = self._sizes.char_at(first + min(int(_MOST_SHARE * aim), self._budget))
        low = self._sizes.char_at(first + int(_LEAST_SHARE * aim))
        return self._boundaries.last(max(low, last_end + 1), high)
