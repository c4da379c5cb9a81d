"""The places of quotes in a document, and its text cut into pieces that carry the numbers of their marks.

It must not know records or pages.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from pipeline.logs import visible
from pipeline.long import find_quotes

SHOWN_CHARS = 2_000_000
"""Characters of a document that are shown; a browser becomes slow with more."""
MOST_PLACES = 1000
"""Places of one quote that are marked: "the" may occur everywhere."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A quote: its number on the page, its JSON Pointer in the answer, and its places (start, end) in the text.

    `proof`: the place that the page shows first: that of the record's evidence, if it has one.
    """

    number: int
    pointer: str
    places: Sequence[tuple[int, int]]
    proof: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the shown text, the numbers of the marks that cover it, and of those whose proof contains it."""

    text: str
    numbers: tuple[int, ...] = ()
    proves: tuple[int, ...] = ()


def marks_of(
    text: str, quotes: Iterable[tuple[str, str]], evidence: Mapping[str, tuple[int, int]] | None = None
) -> list[Mark]:
    """Return a mark for each (pointer, quote), numbered from 1; one that is not found has no places.

    `evidence`: pointer → the place that the record has for its quote.
    """
    visible_text = text[:SHOWN_CHARS]
    words = JoinedWords(visible_text)
    places: dict[str, list[tuple[int, int]]] = {}
    marks = []
    for number, (pointer, quote) in enumerate(quotes, 1):
        if quote not in places:
            places[quote] = words.places_of(quote) or _folded_places(visible_text, quote)
        marks.append(_mark(number, pointer, places=places[quote], proof=(evidence or {}).get(pointer)))
    return marks


def _mark(number: int, pointer: str, *, places: list[tuple[int, int]], proof: tuple[int, int] | None) -> Mark:
    if proof is None or not proof[0] < proof[1] <= SHOWN_CHARS:
        return Mark(number, pointer, places, places[0] if places else None)
    other_places = [place for place in places if place[1] <= proof[0] or place[0] >= proof[1]]
    return Mark(number, pointer, sorted([*other_places, proof]), proof)


class JoinedWords:
    """The words of a text with one space between them, in which a quote is found with any white space."""

    def __init__(self, text: str) -> None:
        self._words = [match.span() for match in re.finditer(r"\S+", text)]
        self._text = " ".join(text[start:end] for start, end in self._words)
        self._starts = list(accumulate((end - start + 1 for start, end in self._words), initial=0))

    def places_of(self, quote: str) -> list[tuple[int, int]]:
        """Return the places of a quote in the text, at most MOST_PLACES of them."""
        words = " ".join(quote.split())
        if not words:
            return []
        starts = islice(_occurrences(self._text, words), MOST_PLACES)
        return [(self._place(at), self._place(at + len(words) - 1) + 1) for at in starts]

    def _place(self, at: int) -> int:
        """Return the place in the text of a character of the joined words."""
        number = bisect_right(self._starts, at) - 1
        return self._words[number][0] + at - self._starts[number]


def _occurrences(text: str, words: str) -> Iterator[int]:
    at = text.find(words)
    while at >= 0:
        yield at
        at = text.find(words, at + len(words))


def _folded_places(text: str, quote: str) -> list[tuple[int, int]]:
    """Return the place of a quote that is valid although it differs from the text, as in white space."""
    return [(place.start, place.end) for place in find_quotes([quote], text) if place is not None]


def pieces_of(text: str, marks: Sequence[Mark]) -> list[Piece]:
    """Return the shown text in pieces; where marks overlap, a piece carries the numbers of all of them."""
    visible_text = text[:SHOWN_CHARS]
    proofs = {mark.number: mark.proof for mark in marks if mark.proof is not None}
    borders: dict[int, tuple[set[int], set[int]]] = {}
    for mark in marks:
        for start, end in mark.places:
            borders.setdefault(start, (set(), set()))[0].add(mark.number)
            borders.setdefault(end, (set(), set()))[1].add(mark.number)
    pieces: list[Piece] = []
    inside: dict[int, int] = {}
    at = 0
    for border in sorted({*borders, len(visible_text)}):
        if border > at:
            numbers = tuple(sorted(inside))
            proves = tuple(number for number in numbers if proofs[number][0] <= at < proofs[number][1])
            pieces.append(Piece(_visible_text(visible_text[at:border]), numbers, proves))
            at = border
        starts, ends = borders.get(border, ((), ()))
        _step(inside, starts=starts, ends=ends)
    return pieces


def _step(inside: dict[int, int], *, starts: Iterable[int], ends: Iterable[int]) -> None:
    """Change the number of open marks; the places of one quote may touch, but never overlap."""
    for number in ends:
        inside[number] -= 1
        if not inside[number]:
            del inside[number]
    for number in starts:
        inside[number] = inside.get(number, 0) + 1


def _visible_text(text: str) -> str:
    """Return the text with its lines and tabs, and every other control, escape and bidi character escaped."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in lines)
