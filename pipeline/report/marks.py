"""Marked places of a text, cut into pieces that do not overlap; the text as HTML with these marks.

It must not write unescaped text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import pairwise

from pipeline.logs import visible

_AROUND_CHARS = 2000
"""Characters that are shown before and after each mark of a very long text, and at the beginning of one without."""
_NUMBERS = 20
"""Numbers that a piece shows at most; more would hide its text."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place of a text, and the number it is shown with."""

    start: int
    end: int
    number: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text with all marks that cover it; `starting`: those that begin with it."""

    start: int
    end: int
    numbers: tuple[int, ...]
    starting: tuple[int, ...]


def pieces(start: int, end: int, marks: Sequence[Mark], *, borders: Iterable[int] = ()) -> Iterator[Piece]:
    """Yield the pieces of text[start:end] in order; `borders` divide it too. The marks lie within."""
    cuts = sorted({start, end, *borders, *(at for mark in marks for at in (mark.start, mark.end))})
    opening: dict[int, list[Mark]] = {}
    for mark in marks:
        opening.setdefault(mark.start, []).append(mark)
    active: dict[int, Mark] = {}
    for at, until in pairwise(cuts):
        active = {number: mark for number, mark in active.items() if mark.end > at}
        opened_marks = opening.get(at, ())
        active |= {mark.number: mark for mark in opened_marks}
        yield Piece(at, until, tuple(active), tuple(mark.number for mark in opened_marks))


def marked_text(
    text: str,
    marks: Sequence[Mark],
    *,
    pages: Sequence[int] = (),
    lines: Sequence[tuple[int, str]] = (),
    whole: bool = True,
) -> Iterator[str]:
    """Yield the HTML of a text with its marks and borders; unless `whole`, only the text around the marks.

    `pages`: where each page begins. `lines`: further borders, each with its place and its label.
    """
    labelled = sorted([*((at, f"page {number}") for number, at in enumerate(pages, start=1)), *lines])
    places = [at for at, _ in labelled]
    parts = [(0, len(text))] if whole else _visible_ranges(len(text), marks)
    done = 0
    for start, end in parts:
        if start > done:
            yield _gap(done, start)
        inside = [mark for mark in marks if start <= mark.start < end]
        first = bisect_left(places, start)
        borders = places[first : bisect_left(places, end)]
        for piece in pieces(start, end, inside, borders=borders):
            while first < len(places) and places[first] <= piece.start:
                yield f'<i class=page data-n="{labelled[first][1]}"></i>'
                first += 1
            yield _html(piece, text_html(text[piece.start : piece.end]))
        done = end
    if done < len(text):
        yield _gap(done, len(text))


def text_html(text: str) -> str:
    """Return text as HTML with its line and page breaks and tabs; other control and bidi characters are spelled out."""
    escaped = escape(_control().sub(lambda match: visible(match[0]), text))
    return escaped.replace("\r\n", "&#13;\n").replace("\r", "\\r")


def _html(piece: Piece, body: str) -> str:
    if not piece.numbers:
        return body
    numbers = " ".join(map(str, piece.numbers[:_NUMBERS])) + (" …" if len(piece.numbers) > _NUMBERS else "")
    first = f' id="e{piece.starting[0]}"' if piece.starting else ""
    inner = "".join(f'<span id="e{number}">' for number in piece.starting[1:])
    return f'<mark{first} data-n="{numbers}">{inner}{body}{"</span>" * len(piece.starting[1:])}</mark>'


def _gap(start: int, end: int) -> str:
    return f'<i class=gap data-n="characters {start:,} to {end:,} are left out"></i>'


def _visible_ranges(size: int, marks: Sequence[Mark]) -> list[tuple[int, int]]:
    """Return the parts of a long text that are shown: around each mark, or its beginning."""
    extents = sorted((mark.start, mark.end) for mark in marks) or [(0, 0)]
    parts: list[tuple[int, int]] = []
    for start, end in extents:
        start = max(0, start - _AROUND_CHARS)
        end = min(size, end + _AROUND_CHARS)
        if parts and start <= parts[-1][1]:
            parts[-1] = (parts[-1][0], max(end, parts[-1][1]))
        else:
            parts.append((start, end))
    return parts


@cache
def _control() -> re.Pattern[str]:
    """Return the pattern of characters that are spelled out, but for line and page breaks and tabs."""
    codes = [code for code in range(0x10000) if visible(chr(code)) != chr(code) and chr(code) not in "\t\n\f\r"]
    return re.compile("[" + "".join(re.escape(chr(code)) for code in codes) + "]")
