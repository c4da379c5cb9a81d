"""The number of items without quotes in two windows' answers: the end of one list equals the beginning of the next.

    before  … a b c c │        the largest end of one list that equals a beginning of the other,
    after       │ b c c d …    such that no item occurs more often in it than in the text that both windows show

A mention that the border of a window cuts is in the shared text, but only the other window gives its item. It would be
counted as one more repetition, and a row would be lost; so the texts at both ends of the shared text are compared with
what the window that sees only a part of them has given.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from pipeline.long.folding import folded
from pipeline.long.windows import Span

_MOST_CUT_CHARS = 200
"""The longest cut sentence that is searched: rows and sentences with facts are shorter."""
_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
_LINE_END = re.compile(r"(?<!-)\n")
_SENTENCE_END = re.compile(r"[\u3002\uff01\uff1f\u2026]|[.!?][\"'\u201d\u2019)\]]*(?=\s|$)")


class Listed(NamedTuple):
    """The items of one window without quotes: their keys and their values."""

    keys: Sequence[Hashable]
    values: Sequence[Any]


def shared_size(before: Listed, after: Listed, *, spans: tuple[Span, Span], text: str) -> int:
    """Return how many items at the end of one list are repeated at the beginning of the next."""
    sizes = _borders(before.keys, after.keys)
    if not sizes:
        return 0
    shared = _SharedText(before, after, spans=spans, text=text)
    counts: Counter[Hashable] = Counter()
    possible = 0
    for key, value in zip(after.keys[: sizes[0]], after.values, strict=False):
        counts[key] += 1
        if counts[key] > shared.mentions(shared.needle(value)):
            break
        possible += 1
    size = next((size for size in sizes if size <= possible), 0)
    smaller = size - 1
    return smaller if size and (smaller in sizes or not smaller) and shared.has_cut_mention(size) else size


def _borders(before: Sequence[Hashable], after: Sequence[Hashable]) -> list[int]:
    """Return all sizes, the largest first, for which the end of one list is the beginning of the other."""
    joined = [*after, None, *before[-len(after) :]] if after else []
    lengths = [0] * len(joined)
    size = 0
    for at in range(1, len(joined)):
        while size and joined[at] != joined[size]:
            size = lengths[size - 1]
        size += joined[at] == joined[size]
        lengths[at] = size
    sizes = []
    while size:
        sizes.append(size)
        size = lengths[size - 1]
    return sizes


class _SharedText:
    """The text that two windows share, and which texts of items it contains."""

    def __init__(self, before: Listed, after: Listed, *, spans: tuple[Span, Span], text: str) -> None:
        self._text = text
        self._span = Span(spans[1].start, spans[0].end)
        self._windows = {spans[0]: before, spans[1]: after}
        self._spans = spans
        self._shared = _plain(text[self._span.start : self._span.end])
        self.mentions = lru_cache(maxsize=None)(self._mentions)

    def _mentions(self, needle: str) -> int:
        """Return how often the shared text contains a text; 0 for the empty one."""
        return self._shared.count(needle) if needle else 0

    def needle(self, value: Any) -> str:
        """Return the item's longest text that the shared text contains; "" for none."""
        texts = sorted(_texts(value), key=len, reverse=True)
        return next((needle for needle in map(_plain, texts) if self.mentions(needle)), "")

    def has_cut_mention(self, size: int) -> bool:
        """Return True when one of the mentions of this many repeated items is cut, so that one window cannot have it.

        The first one by the beginning of the later window, or the last one by the end of the earlier one.
        """
        earlier, later = self._spans
        keys = self._windows[later].keys[:size]
        items = self._windows[later].values[:size]
        needles = [self.needle(item) for item in items]
        first = (keys[0], items[0])
        last = (keys[-1], items[-1])
        return self._is_cut(*first, needles, self._head, window=later, border=later.start) or self._is_cut(
            *last, needles, self._tail, window=earlier, border=earlier.end
        )

    def _is_cut(
        self, key: Hashable, item: Any, needles: Sequence[str], part: str, *, window: Span, border: int
    ) -> bool:
        """Return True for a counted mention in a cut sentence for which its window has no item."""
        needle = self.needle(item)
        if needle not in part or needles.count(needle) < self.mentions(needle):
            return False
        text = self._text[window.start : window.end]
        own = self._windows[window]
        if _is_at_line_end(self._text, border) and all(map(_count_in(part), _leaves(item))):
            # either a whole row of a table, or a sentence that the border cuts where a page ends
            return list(own.keys).count(key) < _full_mentions(text, item)
        matches = sum(any(needle in _plain(leaf) for leaf in _texts(value)) for value in own.values)
        return matches < _plain(text).count(needle)

    @cached_property
    def _head(self) -> str:
        """The rest of a sentence whose beginning only the earlier window shows; "" when no sentence is cut there."""
        start, end = self._span
        if _is_at_sentence_end(self._text, start):
            return ""
        first = self._text[start : min(end, start + _MOST_CUT_CHARS)]
        found = _SENTENCE_END.search(first)
        return _plain(first[: found.end()] if found else first)

    @cached_property
    def _tail(self) -> str:
        """The beginning of a sentence whose rest only the later window shows; "" when no sentence is cut there."""
        start, end = self._span
        if _is_at_sentence_end(self._text, end):
            return ""
        last = self._text[max(start, end - _MOST_CUT_CHARS) : end]
        ends = [found.end() for found in _SENTENCE_END.finditer(last)]
        return _plain(last[ends[-1] :] if ends else last)


def _is_at_sentence_end(text: str, at: int) -> bool:
    """Return True when a sentence ends before this place, or the text begins there."""
    bare = text[max(0, at - _MOST_CUT_CHARS) : at].rstrip()
    return not bare or any(end.end() == len(bare) for end in _SENTENCE_END.finditer(bare))


def _is_at_line_end(text: str, at: int) -> bool:
    """Return True when a line that may be a row of a table ends before this place: the next one continues no word."""
    before = text[max(0, at - _MOST_CUT_CHARS) : at]
    bare = before.rstrip()
    return any(char in "\n\f" for char in before[len(bare) :]) and bare[-1:] not in ("-", ",")


def _full_mentions(text: str, item: Any) -> int:
    """Return how many mentions of an item have all of its values within one line of one sentence.

    A page may end within a sentence, and with it the line; lines of a table have no other end.
    """
    passages = (line for sentence in _SENTENCE_END.split(text) for line in _LINE_END.split(sentence))
    return sum(min(map(_count_in(_plain(passage)), _leaves(item)), default=0) for passage in passages)


def _count_in(part: str) -> Callable[[Any], int]:
    """Return a function that counts how often a text contains a value, a number in one of its usual forms."""

    numbers = _NUMBER.findall(part)

    def count(leaf: Any) -> int:
        if isinstance(leaf, str):
            return part.count(_plain(leaf))
        forms = {f"{leaf:g}", f"{leaf:,}", f"{leaf:.2f}", f"{leaf:,.2f}", str(leaf)}
        return sum(number in forms for number in numbers)

    return count


def _leaves(value: Any) -> Iterator[str | int | float]:
    """Yield all strings and numbers in a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield value


def _plain(text: str) -> str:
    return folded(text).casefold()


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings in a value."""
    return (leaf for leaf in _leaves(value) if isinstance(leaf, str))
