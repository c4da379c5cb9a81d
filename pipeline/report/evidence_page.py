"""The page of `pipeline show`: a document's text with its quotes marked, beside its record. One file without a script.

It must not write unescaped text: the text, the answer and the names come from documents and models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from pipeline.evidence import json_pointer
from pipeline.logs import visible
from pipeline.report.marks import Mark, marked_text, text_html
from pipeline.report.markup import table, text
from pipeline.report.shown_document import ShownDocument
from pipeline.terminal import plural

WHOLE_CHARS = 2_000_000
"""Characters up to which a browser shows the whole text without trouble."""


def evidence_page(page_document: ShownDocument, facts: Mapping[str, str], *, whole_texts: bool = False) -> str:
    """Return the HTML file; `facts`: those of the record by label. `whole_texts`: show long texts completely."""
    template = Template((files("pipeline.report") / "evidence.html.tmpl").read_text(encoding="utf-8"))
    record = page_document.record
    tone, status = _status(page_document)
    return template.substitute(
        title=text(record["id"]),
        tone=tone,
        status=text(status),
        heading="Answer" if "output" in record else "Error",
        trouble="".join(f"<p class=trouble>{text(warning)}</p>" for warning in _warnings(page_document)),
        document="".join(_document(page_document, whole_texts=whole_texts)),
        record="".join(_record(page_document)),
        quotes=_quotes(page_document) + _conflicts(page_document),
        facts=table("Record", ("What", "Value"), facts.items()),
    )


def _status(document: ShownDocument) -> tuple[str, str]:
    """Return the tone of the page and the state of the document in a few words."""
    record = document.record
    later = document.failed_later
    if "output" not in record:
        return "bad", f"failed: {record['reason']} ({record['stage']})"
    quotes = plural(len(document.quotes), "quote")
    if record.get("evidence") is None:
        quotes = "no places, as an earlier version wrote this record"
    if later is not None:
        return "fair", f"done, {quotes}; a later run failed: {later['reason']}"
    return "good", f"done, {quotes}"


def _warnings(document: ShownDocument) -> list[str]:
    return [warning for warning in (document.notice, document.trouble) if warning]


def _document(document: ShownDocument, *, whole_texts: bool) -> Iterator[str]:
    if document.text is None:
        yield '<i class=gap data-n="no text"></i>'
        return
    marks = [Mark(quote.start, quote.end, quote.number) for quote in document.marked]
    is_whole = whole_texts or len(document.text) <= WHOLE_CHARS
    yield from marked_text(document.text, marks, pages=document.pages, lines=document.window_borders, whole=is_whole)


def _record(document: ShownDocument) -> Iterator[str]:
    record = document.record
    if "output" in record:
        numbers = {quote.path: quote.number for quote in document.quotes}
        links = frozenset(quote.number for quote in document.marked)
        yield f"<pre>{''.join(_json(record['output'], (), numbers, links))}</pre>"
        return
    yield f"<p>{text(record['message'])}</p>"
    if record.get("raw"):
        yield f"<h3>Model&#x27;s answer, at most output.raw_chars characters</h3><pre>{text_html(record['raw'])}</pre>"


def _json(value: Any, place: tuple[str | int, ...], numbers: Mapping[str, int], links: frozenset[int]) -> Iterator[str]:
    """Yield a value as indented JSON, in which each quote is a link to its mark."""
    indent = "\n" + "  " * (len(place) + 1)
    if isinstance(value, (dict, list)) and value:
        items: list[tuple[str | int, Any]] = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        yield "{" if isinstance(value, dict) else "["
        for count, (step, item) in enumerate(items):
            name = f"<b>{_quoted(str(step))}</b>: " if isinstance(value, dict) else ""
            yield ("," if count else "") + indent + name
            yield from _json(item, (*place, step), numbers, links)
        yield indent[:-2] + ("}" if isinstance(value, dict) else "]")
        return
    text = _quoted(value) if isinstance(value, str) else escape(json.dumps(value))
    number = numbers.get(json_pointer(place)) if numbers else None
    if number is None:
        yield text
    elif number in links:
        yield f'<a href="#e{number}">{text}<sup>{number}</sup></a>'
    else:
        yield f"{text}<sup>{number}</sup>"


def _quoted(value: str) -> str:
    """Return a string as JSON for HTML."""
    return escape(visible(json.dumps(value, ensure_ascii=False)))


def _quotes(document: ShownDocument) -> str:
    """Return the table of the quotes with their places as numbers."""
    has_pages = any(quote.page is not None for quote in document.quotes)
    has_windows = any(quote.window is not None for quote in document.quotes)
    where = (*(["Page"] if has_pages else []), *(["Window"] if has_windows else []))
    head = ("No.", "Field", "Characters", *where, "Match", "Occurrences")
    rows = (
        (
            str(quote.number),
            quote.path,
            f"{quote.start:,} to {quote.end:,}",
            *([quote.page] if has_pages else []),
            *([quote.window] if has_windows else []),
            quote.match,
            quote.count,
        )
        for quote in document.quotes
    )
    return table("Quotes", head, rows)


def _conflicts(document: ShownDocument) -> str:
    """Return the table of the values that differed between windows: the chosen value and the others."""
    conflicts = (document.record.get("merge") or {}).get("conflicts", ())
    rows = (
        (conflict["path"], conflict["rule"], _values_text([conflict["taken"]]), _values_text(conflict["others"]))
        for conflict in conflicts
    )
    return table("Values that differed between windows", ("Field", "Rule", "Taken", "Others"), rows)


def _values_text(values: Iterable[Mapping[str, Any]]) -> str:
    return "; ".join(f"window {value['window']}: {json.dumps(value['value'], ensure_ascii=False)}" for value in values)
