"""An item of a feed (RSS, RDF, Atom): its title, summary and content in one text, the rest as metadata.

A summary that only repeats the content is omitted. This module must not follow links.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.foreign import MISHAPS
from pipeline.documents.html.visible import visible_text
from pipeline.documents.repeats import headed, without_repeats
from pipeline.documents.xml.text import line_of, text_of
from pipeline.documents.xml.tree import Element

MAX_VALUE_CHARS = 200
"""The longest text of another element that becomes metadata; a longer text becomes a part of the document's text."""

ITEMS = ("item", "entry")

_TITLES = ("title", "dc:title", "media:title")
_SUMMARIES = (
    "description",
    "summary",
    "dc:description",
    "itunes:subtitle",
    "itunes:summary",
    "media:description",
    "excerpt:encoded",
)
_CONTENTS = ("content:encoded", "content", "body", "fullitem", "media:text")
_NAMES = {
    "pubdate": "published_at",
    "published": "published_at",
    "issued": "published_at",
    "dc:date": "published_at",
    "created": "published_at",
    "dcterms:created": "published_at",
    "dcterms:issued": "published_at",
    "updated": "updated_at",
    "modified": "updated_at",
    "dcterms:modified": "updated_at",
    "author": "author",
    "dc:creator": "author",
    "contributor": "author",
    "itunes:author": "author",
    "category": "tags",
    "dc:subject": "tags",
    "media:keywords": "tags",
    "itunes:keywords": "tags",
    "link": "url",
    "guid": "guid",
    "id": "guid",
    "source": "source",
    "dc:publisher": "source",
    "dc:language": "language",
}
"""Elements of an item and the metadata that they fill."""
_LISTS = frozenset({"author", "tags"})
_DATES = frozenset({"published_at", "updated_at"})

_PAGE = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|br|center|code|dd|div|dl|dt|em|figcaption|figure|font|h[1-6]|hr|i|iframe|img|li|ol|p"
    r"|pre|s|small|span|strike|strong|sub|sup|table|tbody|td|th|thead|tr|u|ul|video)\b[^<>]*>|&(?:#\w{1,7}|[A-Za-z]\w{1,30});",
    re.IGNORECASE,
)
"""A tag or an entity that shows that a text is HTML."""


@dataclass(slots=True)
class _Item:
    """The contents of an item's elements, in order."""

    titles: list[str] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    attachments: int = 0

    def add(self, name: str, value: str, *, own_name: str = "") -> None:
        """Keep a value of metadata; a second value of a single-valued name is kept under the element's own name."""
        if not value:
            return
        if name in _LISTS:
            values = self.metadata.setdefault(name, [])
            values += [new_value for new_value in [value] if new_value not in values]
        elif self.metadata.setdefault(name, value) != value:
            if own_name not in ("", name) and own_name not in _LISTS:
                self.add(own_name, value)
            elif value not in self.metadata[name].split(", "):
                self.metadata[name] += f", {value}"


def decode_item(feed: Element, item: Element, notes: tuple[str, ...]) -> Decoded:
    """Decode an item; without a source of its own, its source is the title of the feed."""
    feed_item = _Item()
    if "about" in item.attributes:
        feed_item.add("guid", item.attributes["about"].strip())
    for element in item.elements():
        _read(element, feed_item)
    for element in _elements_outside(feed, item):
        if element.name == "title":
            feed_item.metadata.setdefault("source", _line(element))
        elif element.name in ("language", "dc:language"):
            feed_item.metadata.setdefault("language", line_of(element))
    metadata = _metadata(feed_item)
    if feed_item.titles:
        metadata = {"title": feed_item.titles[0], **metadata}
    text = headed(feed_item.titles, without_repeats(feed_item.summaries, feed_item.contents))
    notes += (f"attachments_skipped:{feed_item.attachments}",) if feed_item.attachments else ()
    return decoded_document(text, metadata, notes=notes)


def _elements_outside(feed: Element, item: Element) -> Iterator[Element]:
    """Yield the elements of a feed that are not within an item."""
    for element in feed.elements():
        if element is not item:
            yield element
        if element.name == "channel":
            yield from _elements_outside(element, item)


def _read(element: Element, item: _Item) -> None:
    """Add the content of any element with text to the texts or the metadata."""
    name = element.name.lower()
    if name in _TITLES:
        text = _line(element)
        item.titles += [text] if text and text not in item.titles else []
    elif name in _SUMMARIES or name in _CONTENTS:
        if "src" in element.attributes or _is_encoded(element):
            item.attachments += 1
        text = "" if _is_encoded(element) else shown(element)
        (item.summaries if name in _SUMMARIES else item.contents).append(text)
    elif name == "enclosure" or (name == "link" and element.attributes.get("rel") == "enclosure"):
        item.attachments += 1
    elif name in _NAMES:
        _read_metadata(element, _NAMES[name], item)
    elif any(element.elements()):
        for child in element.elements():
            _read(child, item)
        own = " ".join(" ".join(child for child in element.children if isinstance(child, str)).split())
        item.contents += [own] if own else []
    else:
        _read_other(element, item)


def _read_metadata(element: Element, name: str, item: _Item) -> None:
    value = _value(element, name)
    item.add(name, value, own_name=element.name.rpartition(":")[2])
    is_address = element.name == "guid" and element.attributes.get("isPermaLink", "true") == "true"
    if is_address and value.startswith(("http://", "https://")):
        item.metadata.setdefault("permalink", value)


def _value(element: Element, name: str) -> str:
    """Return the value that an element gives for a name of metadata."""
    attributes = element.attributes
    if name == "url":
        is_own = attributes.get("rel", "alternate") == "alternate"
        return (attributes.get("href") or line_of(element)).strip() if is_own else ""
    if name == "author":
        return line_of(element.first("name")) or _line(element)
    if name == "tags":
        return (attributes.get("label") or attributes.get("term") or _line(element)).strip()
    if name == "source":
        return line_of(element.first("title")) or _line(element) or attributes.get("url", "")
    return line_of(element)


def _read_other(element: Element, item: _Item) -> None:
    """Keep the text of an element that this module does not know, under its own name."""
    text = shown(element)
    name = element.name.rpartition(":")[2]
    if len(text) > MAX_VALUE_CHARS or item.metadata.get(name, text) != text or name in _LISTS:
        item.contents.append(text)
    else:
        item.add(name, text)


def _metadata(item: _Item) -> dict[str, Any]:
    metadata = item.metadata
    permalink = metadata.pop("permalink", None)
    if permalink and "url" not in metadata:
        metadata["url"] = permalink
    if "updated_at" in metadata and "published_at" not in metadata:
        metadata["published_at"] = metadata["updated_at"]
    for name in _DATES & metadata.keys():
        metadata[name] = date_of(metadata[name])
    if "author" in metadata:
        metadata["author"] = ", ".join(metadata["author"])
    return {name: value for name, value in metadata.items() if value}


def date_of(text: str) -> str:
    """Return a date of mail (RFC 5322) as RFC 3339; any other date unchanged."""
    with suppress(*MISHAPS):
        if not text[:4].isdigit():
            return parsedate_to_datetime(text).isoformat()
    return text


def _is_encoded(element: Element) -> bool:
    """Return True for content that is neither text nor markup."""
    kind = element.attributes.get("type", "").lower()
    is_text = "/" not in kind or kind.startswith("text/") or "xml" in kind or "html" in kind
    return element.attributes.get("mode") == "base64" or not is_text


def shown(element: Element) -> str:
    """Return the visible text of an element that holds text, an escaped page, or the page itself."""
    kind = (element.attributes.get("type") or element.attributes.get("contenttype", "")).lower()
    if any(element.elements()):
        return visible_text(markup(element)) or text_of(element)
    text = "".join(child for child in element.children if isinstance(child, str))
    is_page = kind in ("html", "text/html") or (kind not in ("text", "text/plain") and _PAGE.search(text))
    return visible_text(text) if is_page else text.strip()


def _line(element: Element) -> str:
    return " ".join(shown(element).split())


def markup(element: Element) -> str:
    """Return the content of an element as HTML."""
    pieces: list[str] = []
    for child in element.children:
        if isinstance(child, str):
            pieces.append(html.escape(child, quote=False))
        else:
            name = child.name.rpartition(":")[2]
            attributes = "".join(f' {key}="{html.escape(value)}"' for key, value in child.attributes.items())
            pieces.append(f"<{name}{attributes}>{markup(child)}</{name}>")
    return "".join(pieces)
