"""A web page's main text, with its title, date and site; where there is none, all the words on it.

Nothing here follows a link or looks at an address.
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

# no date is searched in the text: the first one there is as likely that of another event
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
    """The page's main text; metadata: title, date (YYYY-MM-DD), site, as far as the page says."""
    declared = _DECLARED.search(data[:_HEAD_BYTES])
    page, notes = to_text(data, declared=declared[1].decode("ascii") if declared else None)
    text, metadata = read_page(page)
    return finished(text, metadata, notes=notes)


def read_page(page: str) -> tuple[str, dict[str, Any]]:
    """The text and the metadata of a page."""
    found = _main_text(page)
    if found is not None:
        return found
    title = _plain(_title(page))
    return _plain(page), {"title": title} if title else {}


def _main_text(page: str) -> tuple[str, dict[str, Any]] | None:
    """What trafilatura takes for the article; None when it finds nothing, or stumbles."""
    from trafilatura import bare_extraction

    try:
        found: Any = bare_extraction(page, with_metadata=True, include_comments=False, date_extraction_params=_DATES)
    except MISHAPS:
        return None
    text = getattr(found, "text", None)
    if not text or not text.strip():
        return None
    metadata = {"title": found.title, "date": found.date, "site": found.sitename}
    return text, {name: value for name, value in metadata.items() if isinstance(value, str) and value.strip()}


def _plain(page: str) -> str:
    """The words that a reader would see, a line for each block; in linear time, whatever is left open."""
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
    """The element whose content is not shown, after this tag; nothing when it is."""
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
    """The content of the first title element."""
    start = _TITLE_START.search(page)
    end = _TITLE_END.search(page, start.end()) if start else None
    return page[start.end() : end.start()] if start and end else ""
