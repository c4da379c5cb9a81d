"""The text of a web page with its title, date and site: the main text of an article, else all visible text.

It must not follow links.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.foreign import MISHAPS
from pipeline.documents.helpers.cpu_share import OverShareError, cpu_share
from pipeline.documents.html.visible import visible_text, visible_texts

MIN_KEPT = 0.5
"""A page is an article if its main text has more than this share of the text outside of menus, sidebars and footers."""

MAIN_TEXT_SHARE = 0.5
"""Share of a document's CPU limit for the search of its main text; the visible text takes a tenth of that time."""

_CHARSET = rb"""charset\s{0,9}=\s{0,9}["']?\s{0,9}([A-Za-z0-9_.:-]{2,40})"""
_DECLARED = re.compile(_CHARSET.replace(b"charset", b"(?:charset|encoding)", 1))
_META = re.compile(rb"<meta\s[^<>]{0,500}?" + _CHARSET, re.IGNORECASE)
_HEAD_BYTES = 2048
_META_BYTES = 1 << 20

# dates are not searched in the text, where the first date may be that of another event
_DATES = {"original_date": True, "extensive_search": False, "outputformat": "%Y-%m-%d"}

_TITLE_START = re.compile(r"<title\b[^<>]*>", re.IGNORECASE)
_TITLE_END = re.compile(r"</title\s*>", re.IGNORECASE)


def decode_html(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a page has no fields)
    """Decode a page to its text; metadata: title, date (YYYY-MM-DD) and site, if the page has them."""
    page, notes = to_text(data, declared=declared_charset(data))
    text, metadata = read_page(page)
    return decoded_document(text, metadata, notes=notes)


def declared_charset(data: bytes) -> str | None:
    """Return the declared charset; UTF-16 and UTF-32 are ignored, as ASCII bytes cannot declare them."""
    match = _DECLARED.search(data[:_HEAD_BYTES]) or _META.search(data[:_META_BYTES])
    label = match[1].decode("ascii") if match else None
    return None if label and label.lower().startswith(("utf-16", "utf-32")) else label


def read_page(page: str) -> tuple[str, dict[str, Any]]:
    """Return the text and the metadata of a page."""
    page_text, inner = visible_texts(page)
    article = _main_text(page)
    if article is None:
        title = visible_text(_title(page))
        return page_text, {"title": title} if title else {}
    text, metadata = article
    return (page_text if _size(text) <= MIN_KEPT * _size(inner) else text), metadata


def _size(text: str) -> int:
    """Return the number of characters without white space."""
    return sum(map(len, text.split()))


def _main_text(page: str) -> tuple[str, dict[str, Any]] | None:
    """Return the article that trafilatura finds; None when it finds none, fails, or takes too much (3 s for 1 MB)."""
    from trafilatura import bare_extraction

    try:
        with cpu_share(MAIN_TEXT_SHARE):
            article: Any = bare_extraction(
                page, with_metadata=True, include_comments=False, date_extraction_params=_DATES
            )
    except (OverShareError, MemoryError):
        return None
    except MISHAPS:
        return None
    text = getattr(article, "text", None)
    if not text or not text.strip():
        return None
    metadata = {"title": article.title, "date": article.date, "site": article.sitename}
    return text, {name: value for name, value in metadata.items() if isinstance(value, str) and value.strip()}


def _title(page: str) -> str:
    """Return the content of the first title element."""
    start = _TITLE_START.search(page)
    end = _TITLE_END.search(page, start.end()) if start else None
    return page[start.end() : end.start()] if start and end else ""
