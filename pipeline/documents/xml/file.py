"""An XML file: which vocabulary it is in, and its text. Other vocabularies give all their text in order.

To add a vocabulary, add its root element to `_READERS`; if its files hold many documents, to `items.ITEMS` as well.
It must not read anything that a file refers to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.html.visible import visible_text
from pipeline.documents.xml.feed import decode_item
from pipeline.documents.xml.jats import decode_article
from pipeline.documents.xml.news import decode_news_item, decode_nitf
from pipeline.documents.xml.parse import parse_xml
from pipeline.documents.xml.text import text_of
from pipeline.documents.xml.tree import Element

_DECLARATION = re.compile(rb"""^\s{0,99}<\?xml[^<>?]{0,200}\sencoding\s{0,9}=\s{0,9}["']([A-Za-z0-9_.:-]{2,40})["']""")

Reader = Callable[[Element, tuple[str, ...]], Decoded]


def decode_xml(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (elements are not fields)
    """Decode an XML document, or the one item that a piece of a feed holds."""
    return read_xml(*to_text(data, declared=declared_encoding(data)))


def read_xml(text: str, notes: tuple[str, ...]) -> Decoded:
    """Return the document that an XML text is."""
    root, repaired = parse_xml(text)
    if root.name.lower() == "html":
        return decoded_document(visible_text(text), {}, notes=notes)
    return _READERS.get(root.name, _read_any)(root, (*notes, *repaired))


def declared_encoding(data: bytes) -> str | None:
    """Return the encoding that the XML declaration names; None for UTF-16 and UTF-32, which it cannot name."""
    match = _DECLARATION.search(data[:400])
    label = match[1].decode("ascii") if match else None
    return None if label and label.lower().startswith(("utf-16", "utf-32", "ucs", "iso-10646")) else label


def _one_of_many(names: tuple[str, ...], reader: Callable[[Element, Element, tuple[str, ...]], Decoded]) -> Reader:
    """Return a reader of files that may hold many documents; a file without exactly one is read as any XML."""

    def read(root: Element, notes: tuple[str, ...]) -> Decoded:
        items = list(root.every(*names))
        return reader(root, items[0], notes) if len(items) == 1 else _read_any(root, notes)

    return read


def _read_any(root: Element, notes: tuple[str, ...]) -> Decoded:
    """Read all texts, a line for each element that holds one."""
    title = text_of(root.first("title"))
    return decoded_document(text_of(root), {"title": title} if title and "\n" not in title else {}, notes=notes)


_ITEM = _one_of_many(("item",), decode_item)
_READERS: Mapping[str, Reader] = {
    "rss": _ITEM,
    "rdf:RDF": _ITEM,
    "feed": _one_of_many(("entry",), decode_item),
    "entry": lambda root, notes: decode_item(Element(""), root, notes),
    "nitf": decode_nitf,
    "newsItem": decode_news_item,
    "newsMessage": _one_of_many(("newsItem",), lambda _, item, notes: decode_news_item(item, notes)),
    "article": decode_article,
    "pmc-articleset": _one_of_many(("article",), lambda _, item, notes: decode_article(item, notes)),
}
"""Reader of each vocabulary, by root element."""
