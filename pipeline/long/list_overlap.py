"""The number of items without quotes in two windows' answers: the end of one list equals the beginning of the next.

    before  … a b c c │        the largest end of one list that equals a beginning of the other,
    after       │ b c c d …    such that no item occurs more often in it than in the text that both windows show

A mention that the border of a window cuts is in the shared text, but only the other window gives its item. It would be
counted as one more repetition, and a row would be lost; so the texts at both ends of the shared text are compared with
what the window that sees only a part of them has given. Nor is a sentence that names the payer of a row the row; where
both windows have given as many rows as their texts have lines with all values of the row, such lines are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from pipeline.long.item_mentions import SENTENCE_END, Mentions, counter, leaves, plain, texts
from pipeline.long.windows import Span

_MOST_CUT_CHARS = 200
"""The longest cut sentence that is searched: rows and sentences with facts are shorter."""


class ListItems(NamedTuple):
    """The items of one window without quotes: their keys and their values."""

    keys: Sequence[Hashable]
    values: Sequence[Any]


def shared_size(before: ListItems, after: ListItems, *, spans: tuple[Span, Span], text: str) -> int:
    """Return how many items at the end of one list are repeated at the beginning of the next."""
    sizes = _overlap_sizes(before.keys, after.keys)
    if not sizes:
        return 0
    shared = _SharedText(before, after, spans=spans, text=text)
    counts: Counter[Hashable] = Counter()
    possible = 0
    for key, value in zip(after.keys[: sizes[0]], after.values, strict=False):
        counts[key] += 1
        if counts[key] > shared.most_repetitions(key, value):
            break
        possible += 1
    size = next((size for size in sizes if size <= possible), 0)
    smaller = size - 1
    return smaller if size and (smaller in sizes or not smaller) and shared.has_cut_mention(size) else size


def _overlap_sizes(before: Sequence[Hashable], after: Sequence[Hashable]) -> list[int]:
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

    def __init__(self, before: ListItems, after: ListItems, *, spans: tuple[Span, Span], text: str) -> None:
        self._text = text
        self._span = Span(spans[1].start, spans[0].end)
        self._windows = {spans[0]: before, spans[1]: after}
        self._spans = spans
        self._shared = Mentions(text[self._span.start : self._span.end])
        self._texts = {span: Mentions(text[span.start : span.end]) for span in spans}
        self.mentions = lru_cache(maxsize=None)(self._shared.of_text)
        self._most: dict[Hashable, int] = {}

    def most_repetitions(self, key: Hashable, item: Any) -> int:
        """Return how often the shared text may state an item: its complete mentions where these prove to be the rows.

        Else the mentions of its longest text there.
        """
        if key not in self._most:
            all_mentions = self.mentions(self.needle(item))
            complete = self._shared.complete(item)
            self._most[key] = complete if complete < all_mentions and self._are_rows(key, item) else all_mentions
        return self._most[key]

    def _are_rows(self, key: Hashable, item: Any) -> bool:
        """Return True when both windows have given an item as often as their texts mention it completely."""
        return all(
            list(listed.keys).count(key) == self._texts[span].complete(item) for span, listed in self._windows.items()
        )

    def needle(self, value: Any) -> str:
        """Return the item's longest text that the shared text contains; "" for none."""
        own_texts = sorted(texts(value), key=len, reverse=True)
        return next((needle for needle in map(plain, own_texts) if self.mentions(needle)), "")

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
        mentions = self._texts[window]
        own = self._windows[window]
        if _is_at_line_end(self._text, border) and all(map(counter(part), leaves(item))):
            # either a whole row of a table, or a sentence that the border cuts where a page ends
            return list(own.keys).count(key) < mentions.complete(item)
        matches = sum(any(needle in plain(leaf) for leaf in texts(value)) for value in own.values)
        return matches < mentions.of_text(needle)

    @cached_property
    def _head(self) -> str:
        """The rest of a sentence whose beginning only the earlier window shows; "" when no sentence is cut there."""
        start, end = self._span
        if _is_at_sentence_end(self._text, start):
            return ""
        first = self._text[start : min(end, start + _MOST_CUT_CHARS)]
        match = SENTENCE_END.search(first)
        return plain(first[: match.end()] if match else first)

    @cached_property
    def _tail(self) -> str:
        """The beginning of a sentence whose rest only the later window shows; "" when no sentence is cut there."""
        start, end = self._span
        if _is_at_sentence_end(self._text, end):
            return ""
        last = self._text[max(start, end - _MOST_CUT_CHARS) : end]
        ends = [match.end() for match in SENTENCE_END.finditer(last)]
        return plain(last[ends[-1] :] if ends else last)


def _is_at_sentence_end(text: str, at: int) -> bool:
    """Return True when a sentence ends before this place, or the text begins there."""
    bare = text[max(0, at - _MOST_CUT_CHARS) : at].rstrip()
    return not bare or any(end.end() == len(bare) for end in SENTENCE_END.finditer(bare))


def _is_at_line_end(text: str, at: int) -> bool:
    """Return True when a line that may be a row of a table ends before this place: the next one continues no word."""
    before = text[max(0, at - _MOST_CUT_CHARS) : at]
    bare = before.rstrip()
    return any(char in "\n\f" for char in before[len(bare) :]) and bare[-1:] not in ("-", ",")
