"""The quotes of a record on a terminal: each with its place, and with the text around it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from pipeline.logs import visible
from pipeline.report.shown_document import ShownDocument, ShownQuote
from pipeline.terminal import BOLD, columns_wrapped, cut, in_colour

AROUND_CHARS = 60
_QUOTE_CHARS = 600
_INDENT = 4
_SPACE = re.compile(r"\s+")


def quote_lines(document: ShownDocument, *, colour: bool, width: int) -> Iterator[str]:
    """Yield the lines of all quotes; the quote itself is in [[ ]]."""
    if "output" not in document.record:
        return
    if document.record.get("evidence") is None:
        yield "  quotes: an earlier version of the pipeline wrote this record, without their places"
        return
    yield f"  quotes: {len(document.quotes) or 'none'}"
    text = document.text if document.marked else None
    for quote in document.quotes:
        yield from _wrapped(_place(quote), width=width, indent=2)
        before, middle, after = _context(quote, text)
        line = f"{before}[[{middle}]]{after}"
        start = len(before)
        end = len(line) - len(after)
        yield from _wrapped(line, width=width, indent=_INDENT, bold=(start, end) if colour else (0, 0))


def _place(quote: ShownQuote) -> str:
    page = f", page {quote.page}" if quote.page is not None else ""
    times = f", one of {quote.count:,} occurrences" if quote.count > 1 else ""
    window = f", window {quote.window}" if quote.window is not None else ""
    place = f"characters {quote.start:,} to {quote.end:,}{page}{window}"
    return f"{quote.number}. {visible(quote.path)}: {place}, {quote.match}{times}"


def _context(quote: ShownQuote, text: str | None) -> tuple[str, str, str]:
    """Return the text before the quote, the quote, and the text after it, each on one line."""
    if text is None:
        return "", _line(quote.text), ""
    start = max(0, quote.start - AROUND_CHARS)
    end = min(len(text), quote.end + AROUND_CHARS)
    while start < quote.start and unicodedata.combining(text[start]):
        start += 1
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    before = ("…" if start else "") + _line(text[start : quote.start])
    after = _line(text[quote.end : end]) + ("…" if end < len(text) else "")
    return before, _line(text[quote.start : quote.end]), after


def _line(text: str) -> str:
    return cut(visible(_SPACE.sub(" ", text)), _QUOTE_CHARS)


def _wrapped(text: str, *, width: int, indent: int, bold: tuple[int, int] = (0, 0)) -> Iterator[str]:
    for start, end in columns_wrapped(text, width - indent):
        first = max(start, bold[0])
        last = min(end, bold[1])
        if first < last:
            yield " " * indent + text[start:first] + in_colour(text[first:last], BOLD, colour=True) + text[last:end]
        else:
            yield " " * indent + text[start:end]
