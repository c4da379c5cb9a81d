"""The documents of a review as one static page, to read and to mail: no script, no form, no network.

It must not write unescaped text: everything on it comes from documents and models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from pipeline.report.markup import text
from pipeline.review.choice import Candidate
from pipeline.review.form import Form
from pipeline.review.marks import SHOWN_CHARS, Mark, pieces_of
from pipeline.review.session import ReviewSession
from pipeline.terminal import plural


def static_page(session: ReviewSession) -> str:
    """Return the HTML file."""
    number = len(session.candidates)
    return _page(
        title=f"{plural(number, 'document')} of {session.options.output}",
        first=f"This page holds the text of {plural(number, 'document')} of {session.options.output}.",
        documents="\n".join(_document(session, at, candidate) for at, candidate in enumerate(session.candidates)),
    )


def page_without_documents(output: str, *, sentence: str) -> str:
    """Return the HTML file when no document is left: a page from an earlier day must not stay."""
    return _page(title=f"0 documents of {output}", first=sentence, documents="")


def _page(*, title: str, first: str, documents: str) -> str:
    template = Template((files("pipeline.review") / "page" / "static.html").read_text(encoding="utf-8"))
    return template.substitute(title=text(title), holds=text(first), documents=documents)


def _document(session: ReviewSession, at: int, candidate: Candidate) -> str:
    full_text = session.text(candidate)
    marks = session.marks(candidate, full_text)
    answer = session.shown_answer(candidate)
    if answer is None:
        reason = f"failed: {candidate.reason}" if candidate.reason else "the answer is not shown"
        record = f"<p>{text(reason)}</p>"
    else:
        numbers = {mark.pointer: mark for mark in marks}
        record = f"<dl>{''.join(_properties(session.form, answer, '', numbers, at))}</dl>"
    cut_note = (
        f"<p>The first {SHOWN_CHARS:,} of {len(full_text):,} characters.</p>" if len(full_text) > SHOWN_CHARS else ""
    )
    body = f"<div class=text>{cut_note}{''.join(_pieces(full_text, marks, at))}</div><div class=record>{record}</div>"
    return f"<article><h2>{text(candidate.id)}</h2><div class=both>{body}</div></article>"


def _pieces(full_text: str, marks: list[Mark], at: int) -> Iterator[str]:
    """Yield the text with its marks; the field's link leads to the beginning of a mark's proof."""
    linked: set[int] = set()
    for piece in pieces_of(full_text, marks):
        escaped = escape(piece.text)  # its control characters are spelled out already
        if not piece.numbers:
            yield escaped
            continue
        new = [number for number in piece.proves if number not in linked]
        linked.update(new)
        anchors = "".join(f"<a id=d{at}m{number}></a>" for number in new)
        yield f"{anchors}<mark>{escaped}<sup>{','.join(map(str, piece.numbers))}</sup></mark>"


def _properties(form: Form, value: Any, pointer: str, numbers: dict[str, Mark], at: int) -> Iterator[str]:
    for name, inner in form["properties"].items():
        step = name.replace("~", "~0").replace("/", "~1")
        value_html = _value(inner, value.get(name), f"{pointer}/{step}", numbers, at)
        yield f"<dt>{text(name)}</dt><dd>{value_html}</dd>"


def _value(form: Form, value: Any, pointer: str, numbers: dict[str, Mark], at: int) -> str:
    if value is None or value in ("", []):
        return "<span class=nothing>nothing</span>"
    if form["kind"] == "object" and isinstance(value, dict):
        return f"<dl>{''.join(_properties(form, value, pointer, numbers, at))}</dl>"
    if form["kind"] == "list" and isinstance(value, list):
        items = (_value(form["item"], item, f"{pointer}/{place}", numbers, at) for place, item in enumerate(value))
        return f"<ol>{''.join(f'<li>{item}</li>' for item in items)}</ol>"
    value_html = text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    if (mark := numbers.get(pointer)) is None:
        return value_html
    if not mark.places:
        return f"{value_html} <strong>not found in the text</strong>"
    return f'<a href="#d{at}m{mark.number}">{value_html}<sup>{mark.number}</sup></a>'
