"""The main text of a web page with its title, date and site; without a main text, all visible text.

It must not follow links.
"""

from __future__ import annotations

import html
import re
from typing import Any

from pipeline.documents.decode import Decoded, finished
from pipeline.documents.encoding import to_text
from pipeline.documents.foreign import MISHAPS

_DECLARED = re.compile(rb"""(?:charset|encoding)\s{0,9}=\s{0,9}["']?\s{0,9}([A-Za-z0-9_.:-]{2,40})""")
_HEAD_BYTES = 2048

# dates are not searched in the text, where the first date may be that of another event
_DATES = {"original_date": True, "extensive_search": False, "outputformat": "%Y-%m-%d"}

_TAG = re.compile(r"(<[^<>]*>)")
_NAME = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)")
_UNSEEN = frozenset({"script", "style", "template", "noscript", "svg", "head", "title", "iframe", "object", "select"})
_INLINE = re.compile("a|abbr|b|bd[io]|cite|code|em|font|i|kbd|mark|q|s|samp|small|span|strong|su[bp]|u|var|wbr")
_SPACE = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n\s*")  # after _SPACE: a run of other white space is one space
_TITLE_START = re.compile(r"<title\b[^<>]*>", re.IGNORECASE)
_TITLE_END = re.compile(r"</title\s*>", re.IGNORECASE)


def decode_html(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a page has no fields)
    """Decode a page to its main text; metadata: title, date (YYYY-MM-DD) and site, if the page has them."""
    declared = _DECLARED.search(data[:_HEAD_BYTES])
    page, notes = to_text(data, declared=declared[1].decode("ascii") if declared else None)
    text, metadata = read_page(page)
    return finished(text, metadata, notes=notes)


def read_page(page: str) -> tuple[str, dict[str, Any]]:
    """Return the text and the metadata of a page."""
    article = _main_text(page)
    if article is not None:
        return article
    title = _plain(_title(page))
    return _plain(page), {"title": title} if title else {}


def _main_text(page: str) -> tuple[str, dict[str, Any]] | None:
    """Return the article that trafilatura finds; None when it finds none, or fails."""
    from trafilatura import bare_extraction

    try:
        article: Any = bare_extraction(page, with_metadata=True, include_comments=False, date_extraction_params=_DATES)
    except MISHAPS:
        return None
    text = getattr(article, "text", None)
    if not text or not text.strip():
        return None
    metadata = {"title": article.title, "date": article.date, "site": article.sitename}
    return text, {name: value for name, value in metadata.items() if isinstance(value, str) and value.strip()}


def _plain(page: str) -> str:
    """Return the visible text, a line for each block; in linear time, also with unclosed tags."""
    pieces: list[str] = []
    unseen = ""
    for at, piece in enumerate(_TAG.split(page)):
        if at % 2 == 0:
            if unseen == "!--":
                unseen = "" if "-->" in piece else unseen
                piece = piece.partition("-->")[2]
            pieces.append("" if unseen else piece)
            continue
        unseen = _next_unseen(piece, unseen)
        name = _NAME.match(piece)
        pieces.append("" if unseen or (name and _INLINE.fullmatch(name[1].lower())) else "\n")
    return _LINES.sub("\n", _SPACE.sub(" ", html.unescape("".join(pieces)))).strip()


def _next_unseen(tag: str, unseen: str) -> str:
    """Return the name of the hidden element that surrounds the text after this tag; empty for visible text."""
    if unseen == "!--":
        return "" if tag.endswith("-->") else unseen
    if tag.startswith("<!--") and not unseen:
        return "" if tag.endswith("-->") else "!--"
    match = _NAME.match(tag)
    name = match[1].lower() if match else ""
    if unseen:
        return "" if name == unseen and tag.startswith("</") else unseen
    return name if name in _UNSEEN and not tag.startswith("</") and not tag.endswith("/>") else ""


def _title(page: str) -> str:
    """Return the content of the first title element."""
    start = _TITLE_START.search(page)
    end = _TITLE_END.search(page, start.end()) if start else None
    return page[start.end() : end.start()] if start and end else ""
