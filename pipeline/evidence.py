"""Evidence: the places of an answer's quotes in the document, in the form of a record.

It must not read a document.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TypedDict


class _Place(TypedDict):
    path: str
    start: int
    end: int
    match: str
    count: int


class Evidence(_Place, total=False):
    """The place of one quote: text[start:end] in code points. `path`: a JSON Pointer into the answer.

    `match`: exact, folded or edges; `count`: how often the quote occurs in the text that the model saw. `page`: from 1,
    for a document with pages. `window`: from 1, for a document that was merged from windows.
    """

    page: int
    window: int


def json_pointer(steps: Iterable[str | int]) -> str:
    """Return the JSON Pointer (RFC 6901) of a place in an answer."""
    return "".join(
        [f"/{step}" if type(step) is int else f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps]
    )


def page_starts(text: str, pages: Sequence[int]) -> Sequence[int]:
    """Return where each page of a text begins: `pages` as the reader of the file gives it, else by form feeds."""
    if pages or "\f" not in text:
        return pages
    starts = [0]
    while (at := text.find("\f", starts[-1])) >= 0:
        starts.append(at + 1)
    return starts


def page_of(place: int, starts: Sequence[int]) -> int:
    """Return the number, from 1, of the page with this place."""
    return max(bisect_right(starts, place), 1)
