"""The places of quotes in a document, and its text cut into pieces that carry the numbers of their marks.

It must not know records or pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.logs import visible
from pipeline.long import find_quotes

SHOWN_CHARS = 2_000_000
"""Characters of a document that are shown; a browser becomes slow with more."""
MOST_PLACES = 1000
"""Places of one quote that are marked: "the" may stand everywhere."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A quote: its number on the page, its JSON Pointer in the answer, and its places (start, end) in the text."""

    number: int
    pointer: str
    places: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the shown text, and the numbers of the marks that cover it."""

    text: str
    numbers: tuple[int, ...] = ()


def marks_of(text: str, quotes: Iterable[tuple[str, str]]) -> list[Mark]:
    """Return a mark for each (pointer, quote), numbered from 1; one that is not found has no places."""
    shown = text[:SHOWN_CHARS]
    places: dict[str, list[tuple[int, int]]] = {}
    marks = []
    for number, (pointer, quote) in enumerate(quotes, 1):
        if quote not in places:
            places[quote] = places_of(shown, quote) or _folded_places(shown, quote)
        marks.append(Mark(number, pointer, places[quote]))
    return marks


def places_of(text: str, quote: str) -> list[tuple[int, int]]:
    """Return the places of a quote, whatever the white space between its words is."""
    words = quote.split()
    if not words:
        return []
    found = re.finditer(r"\s+".join(map(re.escape, words)), text)
    return [match.span() for _, match in zip(range(MOST_PLACES), found, strict=False)]


def _folded_places(text: str, quote: str) -> list[tuple[int, int]]:
    """Return the place of a quote that differs from the text in what a validated quote may differ in."""
    return [(place.start, place.end) for place in find_quotes([quote], text) if place is not None]


def pieces_of(text: str, marks: Iterable[Mark]) -> list[Piece]:
    """Return the shown text in pieces; where marks overlap, a piece carries the numbers of all of them."""
    shown = text[:SHOWN_CHARS]
    borders: dict[int, tuple[set[int], set[int]]] = {}
    for mark in marks:
        for start, end in mark.places:
            borders.setdefault(start, (set(), set()))[0].add(mark.number)
            borders.setdefault(end, (set(), set()))[1].add(mark.number)
    pieces: list[Piece] = []
    inside: dict[int, int] = {}
    at = 0
    for border in sorted({*borders, len(shown)}):
        if border > at:
            pieces.append(Piece(_visible(shown[at:border]), tuple(sorted(inside))))
            at = border
        starts, ends = borders.get(border, ((), ()))
        _step(inside, starts=starts, ends=ends)
    return pieces


def _step(inside: dict[int, int], *, starts: Iterable[int], ends: Iterable[int]) -> None:
    """Count the marks that are open: places of one quote may touch, but never overlap."""
    for number in ends:
        inside[number] -= 1
        if not inside[number]:
            del inside[number]
    for number in starts:
        inside[number] = inside.get(number, 0) + 1


def _visible(text: str) -> str:
    """Return the text with its lines and tabs, and every other control, escape and bidi character escaped."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in lines)
