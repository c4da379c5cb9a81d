"""The places of quotes in a document's text; an exact passage, never a similar one.

    places = find_quotes(["landed in Rotterdam", …], document.text)
    for place in places:                      # in the order of the quotes; None: not in the text
        document.text[place.start : place.end]

A place is given in Unicode code points from 0, with the end excluded. Three ways to find a quote are tried in order:

    exact     text[start:end] is the quote
    folded    both are equal after folding (folding.py); the place covers whole clusters
    edges     as folded, but for punctuation at either end and the case of the first letter: models write a capital and
              a full stop when they quote the middle of a sentence. Three words and 12 letters must remain

Equal quotes take their occurrences in order; with more quotes than occurrences the others take the first. Every search
is linear in the text, which is folded only when a quote has no exact place in it.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.long.character_folds import REMOVED, WHITE_SPACE
from pipeline.long.folding import FoldedText, LineEnd, folded

MatchKind = Literal["exact", "folded", "edges"]
Span = tuple[int, int]

GAP = "\ud800"
"""Separates two parts of a text that are searched together; half a character, which occurs in no quote."""
_LEAST_WORDS = 3
_LEAST_LETTERS = 12
_UNSEEN = f"{WHITE_SPACE} {REMOVED}"
_MOST_DIVIDED = 1000
"""Occurrences that divide a cluster before a quote is given up; real texts have hardly any."""


@dataclass(frozen=True, slots=True)
class QuotePlace:
    """text[start:end] is the quote, as `match` says; `count`: its number of occurrences in the searched text."""

    start: int
    end: int
    match: MatchKind
    count: int


def find_quotes(
    quotes: Sequence[str], text: str, *, spans: Sequence[Span] | None = None, prompt_text: str = ""
) -> list[QuotePlace | None]:
    """Return the place of each quote in the text; None for one that does not occur, or that is blank.

    `spans`: the parts of the text that the model saw, in order; no quote reaches from one into the next. None: all.
    `prompt_text`: these parts in the form of the prompt (`joined`, with a space in each special token), where it
    differs from the text; the model may have copied a quote from it.
    """
    parts = _Parts(text, [(0, len(text))] if spans is None else spans, prompt_text)
    occurrences_of = {quote: parts.find(quote, number) for quote, number in Counter(quotes).items()}
    used: Counter[str] = Counter()
    places: list[QuotePlace | None] = []
    for quote in quotes:
        occurrences = occurrences_of[quote]
        number = used[quote]
        used[quote] += 1
        places.append(occurrences[number if number < len(occurrences) else 0] if occurrences else None)
    return places


def find_window_quotes(
    quotes: Sequence[str], text: str, *, spans: Sequence[Span], shown: str = ""
) -> list[QuotePlace | None]:
    """Return the place of each quote of a window, as find_quotes() does; `spans`: the window, then the lead, if any.

    The window is searched first, and counts are of the window only. A quote that is not in its text is then searched in
    `shown`, the form of the text in the prompt, and in the lead.
    """
    places = find_quotes(quotes, text, spans=spans[:1])
    if None not in places or (len(spans) == 1 and not shown):
        return places
    fallback_places = find_quotes(quotes, text, spans=spans, prompt_text=shown)
    return [place or fallback for place, fallback in zip(places, fallback_places, strict=True)]


def is_blank(quote: str) -> bool:
    """Return True for a quote without visible characters: it has no place and proves nothing."""
    return not quote.strip(_UNSEEN)


def joined(text: str, spans: Sequence[Span]) -> str:
    """Return the parts of a text with GAP between them."""
    return text if list(spans) == [(0, len(text))] else GAP.join(text[start:end] for start, end in spans)


class _Parts:
    """The searched parts of a text. Folded forms are built on demand and cached."""

    def __init__(self, text: str, spans: Sequence[Span], shown: str) -> None:
        self._spans = spans
        self._text_search = _SearchedText(joined(text, spans))
        self._prompt_search = _SearchedText(shown) if shown else None
        self._inserted: list[int] | None = None

    def find(self, quote: str, number: int) -> list[QuotePlace]:
        """Return the first `number` places of a quote, each with the count of all; empty when there is none."""
        if is_blank(quote):
            return []
        if places := self._text_search.mentions(quote, number):
            return list(map(self._in_text, places))
        if self._prompt_search is not None and (places := self._prompt_search.folded(quote, number)):
            return [self._in_text(self._unbroken(place)) for place in places]
        if places := self._text_search.edges(quote, number):
            return list(map(self._in_text, places))
        if self._prompt_search is not None:
            return [self._in_text(self._unbroken(place)) for place in self._prompt_search.edges(quote, number)]
        return []

    def _in_text(self, place: QuotePlace) -> QuotePlace:
        """Convert a place in the joined parts to one in the whole text."""
        before = 0
        for start, end in self._spans:
            if place.start < before + end - start:
                shift = start - before
                return replace(place, start=place.start + shift, end=place.end + shift)
            before += end - start + len(GAP)
        raise AssertionError("a place lies in one of the parts")

    def _unbroken(self, place: QuotePlace) -> QuotePlace:
        """Convert a place in the shown text to one in the joined parts."""
        if self._inserted is None:
            assert self._prompt_search is not None
            self._inserted = _inserted_spaces(self._text_search.text, self._prompt_search.text)
        start, end = (at - bisect_left(self._inserted, at) for at in (place.start, place.end))
        return replace(place, start=start, end=end)


class _SearchedText:
    """One text with its folded forms."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._folded: dict[LineEnd, FoldedText] = {}

    def mentions(self, quote: str, number: int) -> list[QuotePlace]:
        """Return the exact places of the quote, and folded ones where there are too few exact ones.

        A mention that a line end breaks may be between two unbroken ones.
        """
        exact = self.exact(quote, number)
        if len(exact) == number:
            return exact
        folded_places = self.folded(quote, number)
        if len(folded_places) <= len(exact):
            return exact
        starts = {place.start for place in exact}
        return [replace(place, match="exact") if place.start in starts else place for place in folded_places]

    def exact(self, quote: str, number: int) -> list[QuotePlace]:
        """Return the exact places of the quote."""
        starts: list[int] = []
        at = self.text.find(quote)
        while at >= 0 and len(starts) < number:
            starts.append(at)
            at = self.text.find(quote, at + len(quote))
        count = len(starts) + (self.text.count(quote, at) if at >= 0 else 0)
        return [QuotePlace(start, start + len(quote), "exact", count) for start in starts]

    def folded(self, quote: str, number: int) -> list[QuotePlace]:
        """Return the places of passages with the same folded form as the quote."""
        for line_end in LineEnd:
            if places := self._of_folded(folded(quote, line_end), line_end, "folded", number):
                return places
        return []

    def edges(self, quote: str, number: int) -> list[QuotePlace]:
        """Return the places of the quote without punctuation around it and with its first letter in either case."""
        for line_end in LineEnd:
            core = _core(folded(quote, line_end))
            if not core:
                return []
            for needle in dict.fromkeys((core, core[0].swapcase() + core[1:])):
                if places := self._of_folded(needle, line_end, "edges", number, is_word=needle is not core):
                    return places
        return []

    def _of_folded(
        self, needle: str, line_end: LineEnd, match: MatchKind, number: int, *, is_word: bool = False
    ) -> list[QuotePlace]:
        """Return the places of a folded quote; `is_word`: it begins with the beginning of a word."""
        if not needle:
            return []
        source = self._fold(line_end)
        spans: list[Span] = []
        divided = 0
        at = source.text.find(needle)
        while at >= 0 and len(spans) < number and divided < _MOST_DIVIDED:
            inside = is_word and at > 0 and source.text[at - 1].isalnum()
            span = None if inside else source.span(at, at + len(needle))
            if span is None:
                divided += 1
            else:
                spans.append(span)
            at = source.text.find(needle, at + (1 if span is None else len(needle)))
        count = len(spans) + (source.text.count(needle, at) if at >= 0 else 0)
        return [QuotePlace(start, end, match, count) for start, end in spans]

    def _fold(self, line_end: LineEnd) -> FoldedText:
        """Return a folded form; the three are one for a text without hyphens at line ends."""
        plain = self._folded.get(LineEnd.REMOVED)
        if plain is not None and plain.hyphens == 0:
            return plain
        if line_end not in self._folded:
            self._folded[line_end] = FoldedText(self.text, line_end)
        return self._folded[line_end]


def _core(quote: str) -> str:
    """Return a folded quote without punctuation at its ends; "" when too little of it remains."""
    start = 0
    end = len(quote)
    while start < end and _is_edge(quote[start]):
        start += 1
    while end > start and _is_edge(quote[end - 1]):
        end -= 1
    core = quote[start:end]
    is_enough = len(core.split()) >= _LEAST_WORDS and sum(map(str.isalpha, core)) >= _LEAST_LETTERS
    return core if is_enough else ""


def _is_edge(char: str) -> bool:
    return char.isspace() or unicodedata.category(char).startswith("P")


def _inserted_spaces(text: str, shown_text: str) -> list[int]:
    """Return the places of the spaces in `shown_text` that are not in the text.

    Each stands within a special token, where the text has no white space: the text never has a space there.
    """
    inserted: list[int] = []
    at = shown_text.find(" ")
    while at >= 0:
        if text[at - len(inserted) : at - len(inserted) + 1] != " ":
            inserted.append(at)
        at = shown_text.find(" ", at + 1)
    return inserted
