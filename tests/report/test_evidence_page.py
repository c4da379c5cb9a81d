"""The HTML page of a record: its text is the document's with the quotes marked, and it runs no code."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium, needs_chromium
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Document
from pipeline.report.evidence_page import WHOLE_CHARS, evidence_page
from pipeline.report.marks import Mark, marked_text, pieces
from pipeline.report.quote_lines import quote_lines
from pipeline.report.shown_document import GONE, ShownDocument, shown_document
from pipeline.terminal import columns_of

HOSTILE = (
    "</mark><script>alert(1)</script> <img src=x onerror=alert(2)> &amp; </textarea> \u202e\x00\x1b[31m\ufeff 漢字\r\n"
)


class Read(HTMLParser):
    """The parts of a page that matter here: the document's text, ids, links and all tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: dict[str, str] = {}
        self.links: list[str] = []
        self.text = self.all_text = ""
        self._inside = 0
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        result = dict(attrs)
        self.tags.append(tag)
        if self._inside or result.get("class") == "text":
            self._inside += tag not in ("br", "meta")
            self._open.append(result.get("id") or "")
            if result.get("id"):
                self.ids[str(result["id"])] = ""
        if tag == "a":
            self.links.append(str(result.get("href")))

    def handle_endtag(self, tag: str) -> None:
        if self._inside:
            self._inside -= 1
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.all_text += data
        if self._inside:
            self.text += data
            for element in filter(None, self._open):
                self.ids[element] += data


def record(quotes: list[tuple[int, int]], text: str, **more: Any) -> dict[str, Any]:
    """Return a result whose evidence is at these positions of a text."""
    evidence = [
        {"path": f"/evidence/{n}", "start": start, "end": end, "match": "exact", "count": 1}
        for n, (start, end) in enumerate(quotes)
    ]
    output = {"evidence": [text[start:end] for start, end in quotes]}
    plain = {"id": "a.txt", "sha256": "0" * 64, "output": output, "evidence": evidence, "text_sha256": None, "run": 1}
    return {**plain, **more}


def shown(quotes: list[tuple[int, int]], text: str, **more: Any) -> ShownDocument:
    """Return a record with its document."""
    return shown_document([record(quotes, text, **more)], Document("a.txt", "a.txt", "0" * 64, text))


def spelled_out(text: str) -> str:
    """Return a text as the page has it: control and bidi characters as escapes."""
    for char in ("\u202e", "\x00", "\x1b", "\ufeff"):
        text = text.replace(char, f"\\u{ord(char):04x}" if ord(char) > 0xFF else f"\\x{ord(char):02x}")
    return text


def test_page_has_the_documents_text_with_marks() -> None:
    """Hostile text stays text, overlapping and equal marks each have an id, and no resource is loaded."""
    text = f"One {HOSTILE}two\tthree\n\nfour five\fsix"
    page = evidence_page(shown([(4, 50), (10, 60), (4, 50), (len(text) - 3, len(text))], text), {"file": HOSTILE})
    read = Read(page)
    assert read.text == spelled_out(text)
    assert set(read.tags).isdisjoint({"script", "img", "textarea", "link", "iframe", "form"})
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert not re.search(r"<[^>]*\b(src|href)=[\"']?[^\"'#]", page)
    assert read.links == ["#e1", "#e2", "#e3", "#e4"]
    assert list(read.ids) == ["e1", "e3", "e2", "e4"]
    assert (read.ids["e1"], read.ids["e3"]) == (spelled_out(text[4:10]), spelled_out(text[4:10]))
    assert read.ids["e4"] == "six"
    assert 'data-n="page 2"' in page


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab<&\n\f漢", min_size=1, max_size=30), st.data())
def test_pieces_cover_the_text_with_their_marks(text: str, data: st.DataObject) -> None:
    """The pieces join to the text, each with the marks that cover it, and the page has the same text."""
    places = st.tuples(st.integers(0, len(text) - 1), st.integers(1, len(text)))
    spans = [(a, b) if a < b else (b - 1, a + 1) for a, b in data.draw(st.lists(places, max_size=6))]
    marks = [Mark(start, end, number) for number, (start, end) in enumerate(spans, start=1)]
    result = list(pieces(0, len(text), marks))
    assert "".join(text[part.start : part.end] for part in result) == text
    for piece in result:
        covering = {mark.number for mark in marks if mark.start <= piece.start and piece.end <= mark.end}
        assert set(piece.numbers) == covering
    assert sorted(number for part in result for number in part.starting) == [mark.number for mark in marks]
    read = Read(f"<div class=text>{''.join(marked_text(text, marks, pages=[0, len(text) // 2]))}</div>")
    assert read.text == text
    assert set(read.ids) == {f"e{mark.number}" for mark in marks}


def test_page_of_a_long_text_shows_only_the_context_of_marks() -> None:
    """It shows 2,000 characters around each mark, all on request, and the beginning if there are no marks."""
    text = "word " * (WHOLE_CHARS // 5 + 1)
    excerpt = shown([(1_000_000, 1_000_004), (1_000_500, 1_000_510)], text)
    page = evidence_page(excerpt, {})
    assert len(Read(page).text) == 4510
    assert "characters 0 to 998,000 are left out" in page
    assert Read(evidence_page(excerpt, {}, whole_texts=True)).text == text
    assert len(Read(evidence_page(shown([], text), {})).text) == 2000


@pytest.mark.parametrize(
    ("document", "trouble", "text"),
    [
        (None, GONE, ""),
        (
            Document("a.txt", "a.txt", "1" * 64, "other"),
            "This document has changed since (sha256 000000000000…): its places are not shown.",
            "other",
        ),
        (
            Document("a.txt", "a.txt", "0" * 64, "re-read"),
            "The file is the same, but reads differently now (another version of PDFium or trafilatura, or other "
            "input settings): its places are not shown.",
            "re-read",
        ),
    ],
)
def test_quotes_are_not_marked_in_another_text(document: Document | None, trouble: str, text: str) -> None:
    """The page then lists quotes and positions, and says why they are not marked."""
    result = shown_document([record([(0, 3)], "One two", text_sha256="f" * 64)], document)
    assert result.trouble == trouble
    read = Read(evidence_page(result, {}))
    assert trouble in read.all_text
    assert read.text == text
    assert (read.ids, read.links) == ({}, [])
    assert "0 to 3" in read.all_text
    assert '"One"' in read.all_text


def test_page_of_a_failed_document_has_no_marks() -> None:
    """It has the reason and the kept part of the answer.

    An earlier result is shown with a note about the later failure.
    """
    failure = {
        "id": "a.txt",
        "sha256": "0" * 64,
        "reason": "not_grounded",
        "stage": "validate",
        "message": "$.a",
        "run": 2,
        "raw": HOSTILE,
    }
    document = Document("a.txt", "a.txt", "0" * 64, "One two")
    read = Read(evidence_page(shown_document([failure], document), {}))
    assert read.text == "One two"
    assert "failed: not_grounded (validate)" in read.all_text
    assert spelled_out(HOSTILE).strip() in read.all_text
    assert "script" not in read.tags
    both = shown_document([failure, record([(0, 3)], "One two")], document)
    page = evidence_page(both, {})
    assert "a later run failed: not_grounded" in page
    assert "The latest attempt failed: not_grounded (run 2). This is the earlier result (run 1)." in page
    assert [quote.text for quote in both.marked] == ["One"]


def test_page_of_an_older_record_has_no_positions() -> None:
    """Page and terminal say that an earlier version wrote the record."""
    old = shown_document([{"id": "a", "sha256": None, "output": {"a": "x"}}], Document("a", "a", "0" * 64, "x"))
    assert "an earlier version wrote this record" in evidence_page(old, {})
    assert "earlier version" in next(quote_lines(old, colour=False, width=80))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_terminal_quotes_fit_the_width(width: int) -> None:
    """Wide characters count twice, combining ones stay with their letter, and escapes have no effect."""
    text = "漢字" * 90 + f" e\u0301te\u0301 {HOSTILE} " + "long" * 40 + "\n\nend of it"
    lines = list(quote_lines(shown([(20, 60), (181, 190), (300, 310)], text), colour=False, width=width))
    assert all(sum(map(columns_of, line)) <= width for line in lines)
    assert not any(line.lstrip()[:1] == "\u0301" for line in lines)
    assert not set("\x1b\x00\u202e\r\n") & set("".join(lines))
    flat = "".join(line.strip() for line in lines).replace(" ", "")
    assert f"[[{text[20:60]}]]" in flat
    coloured = "\n".join(quote_lines(shown([(20, 60)], text), colour=True, width=width))
    assert re.sub(r"\x1b\[\d+m", "", coloured).split("\n")[:3] == lines[:3] or len(lines) != 3
    assert "\x1b[1m" in coloured


@needs_chromium
def test_page_in_a_browser_has_no_errors(tmp_path: Path) -> None:
    """At 360 and 1400 pixels, light and dark: no sideways scrolling, no request, and links lead to their marks."""
    text = f"One {HOSTILE} two " + "x" * 400 + "\n\n" + "filler words " * 2000 + "the last words"
    path = tmp_path / "page.html"
    path.write_text(
        evidence_page(shown([(4, 50), (len(text) - 10, len(text))], text), {"file": "a" * 300}), encoding="utf-8"
    )
    with chromium(tmp_path / "profile") as page:
        for number, (width, dark) in enumerate([(360, False), (1400, True)]):
            page.open(f"{path.as_uri()}?{number}#e2", width=width, dark=dark)
            assert page.value("document.documentElement.scrollWidth <= innerWidth")
            assert page.value(
                "(b => b.top >= 0 && b.bottom <= innerHeight)(document.querySelector('#e2').getBoundingClientRect())"
            )
            assert page.value("document.querySelectorAll('script, img').length") == 0
            colours = page.value("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
            assert len(set(colours)) == 2
        assert page.complaints == []
        assert all(url.startswith(path.as_uri()) for url in page.requests)
