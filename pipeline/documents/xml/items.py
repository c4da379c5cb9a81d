"""A file of many items: a feed (RSS, RDF, Atom), a NewsML-G2 message or a set of articles, split into its items.

    bytes ─▶ markup scanner ─▶ tags ─▶ items      each becomes a file of its own: declaration, root element, title, item

Only the beginnings and ends of items are detected, so an item that is not well-formed affects no other. This module
must not hold more than one item, or search comments and CDATA sections for tags.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast

from pipeline.documents.containers import Container, Format, Piece, too_large
from pipeline.documents.encodings.charset_labels import codec_of
from pipeline.documents.encodings.decoding import marked
from pipeline.documents.encodings.guessing import guess_wide
from pipeline.documents.encodings.known_encoding import utf8_stream
from pipeline.documents.markup_scanner import Scanner, Tag
from pipeline.documents.tables.json_fields import raise_unreadable
from pipeline.documents.xml.file import declared_encoding, decode_xml

ITEMS: Mapping[str, str] = {
    "rss": "item",
    "RDF": "item",
    "feed": "entry",
    "newsMessage": "newsItem",
    "pmc-articleset": "article",
}
"""The items of each root element, by local names."""

_OTHERS = frozenset({"packageItem", "conceptItem", "knowledgeItem", "catalogItem", "planningItem"})
"""Items of a NewsML-G2 message that hold no news; they are counted."""

MAX_KEY_CHARS = 500
"""The longest identifier of an item that becomes a part of its id."""

_HEAD_BYTES = 1 << 16
_MAX_HEAD_BYTES = 1 << 16
_SHOWN = frozenset({"title", "language"})
"""Elements of a feed that belong to each of its items."""
_KEYS = frozenset({"guid", "id"})
_KEY_ATTRIBUTE = re.compile(rb"""\s(?:rdf:about|guid)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_IS_KEY = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?")
_ROOT = re.compile(r"<([^\W\d][\w:.\-]*)[\s/>]")
_BEFORE_ROOT = re.compile(r"(?:\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^<>\[]*(?:\[.*?\]\s*)?>)*", re.DOTALL)


def look_at_xml(stream: BinaryIO, container: Container) -> Format | None:  # noqa: ARG001 (no setting matters)
    """Return the format of a file of many items; None for one document."""
    data = stream.read(_HEAD_BYTES)
    text = data.decode(_wide_encoding(data) or "utf-8", "replace").lstrip("\ufeff")
    match = _ROOT.match(text, cast(re.Match[str], _BEFORE_ROOT.match(text)).end())
    return FEED if match and match[1].rpartition(":")[2] in ITEMS else None


def split_items(stream: BinaryIO, container: Container) -> Iterator[Piece]:
    """Yield each item with the head of its feed, numbered from 1; its identifier is its key.

    DocumentError when the file ends before its root element does.
    """
    start = cast(io.BufferedReader, stream).peek()
    codec = _encoding_to_recode(start)
    scanner = Scanner(utf8_stream(stream, codec) if codec else stream)
    items = _Items(scanner, container, is_recoded=bool(codec or container.encoding))
    yield from items.pieces()
    if items.number == 0:
        container.ignore("(feed without items)")


def _wide_encoding(data: bytes) -> str | None:
    encoding = marked(data) or (guess_wide(data[:1024]) if b"\0" in data[:64] else None)
    return encoding if encoding and encoding.startswith("utf-") and not encoding.startswith("utf-8") else None


def _encoding_to_recode(start: bytes) -> str | None:
    """Return the encoding of a file that must be decoded to find its tags; None when `<` is always one byte."""
    codec = _wide_encoding(start) or codec_of(declared_encoding(start))
    return codec if codec and codec.startswith(("utf-16", "utf-32", "iso2022", "hz")) else None


@dataclass(slots=True)
class _Item:
    """The item that is being read. `depth`: how many elements are open in it; `key_parts`: its key's text so far."""

    parts: list[bytes]
    size: int = 0
    depth: int = 0
    key: str = ""
    key_parts: list[bytes] | None = None


class _Items:
    """The items of one file, as its tags come."""

    def __init__(self, scanner: Scanner, container: Container, *, is_recoded: bool) -> None:
        self._scanner = scanner
        self._container = container
        self._limit = container.limit_bytes
        self._is_recoded = is_recoded
        self.number = 0
        self._head: list[bytes] = []
        self._head_size = 0
        self._root = b""
        self._prefix = b""
        self._name = b""
        self._ended = False
        self._missing = set(_SHOWN)
        self._shown = b""
        self._item: _Item | None = None

    def pieces(self) -> Iterator[Piece]:
        """Yield the items; DocumentError for a file without a root element, or one that ends within it."""
        for part in self._scanner.parts():
            if isinstance(part, Tag) and self._root:
                yield from self._pass(part)
            elif isinstance(part, Tag) and not part.closes:
                self._begin(part)
            else:
                self._keep(part.data if isinstance(part, Tag) else part)
        if self._item is not None or not self._ended:
            raise_unreadable("the file ends within an item" if self._item else "the file ends within its root element")

    def _begin(self, tag: Tag) -> None:
        """Process the tag of the root element."""
        prefix, colon, local = tag.name.rpartition(b":")
        self._root = tag.name
        self._prefix = prefix + colon
        name = ITEMS.get(local.decode("ascii", "replace"))
        if name is None:
            raise_unreadable("the tag of its root element is damaged")
        self._name = name.encode()
        self._add_head(tag.data)
        self._ended = tag.data.endswith(b"/>")

    def _pass(self, tag: Tag) -> Iterator[Piece]:
        """Process a tag below the root element; yield the item that it ends."""
        local = tag.name.rpartition(b":")[2]
        is_item = local == self._name and tag.name in (local, self._prefix + local)
        if self._item is None:
            if is_item and not tag.closes:
                self._start(tag)
            elif tag.closes and tag.name == self._root:
                self._ended = True
            else:
                self._outside(tag, local)
        elif is_item and not tag.closes:  # items do not contain items: this one has no end tag
            yield self._finished()
            self._start(tag)
        elif is_item or (tag.closes and tag.name in (self._root, b"channel")):
            self._keep(tag.data if is_item else b"")
            yield self._finished()
            self._ended = tag.name == self._root
        else:
            self._inside(tag, local)
            return
        if is_item and not tag.closes and tag.data.endswith(b"/>"):
            yield self._finished()

    def _outside(self, tag: Tag, local: bytes) -> None:
        """Process a tag outside of items; keep the title and the language of the feed."""
        name = local.decode("ascii", "replace")
        if name in _OTHERS and not tag.closes:
            self._container.ignore(f"({name})")
        if self._shown:
            self._add_head(tag.data)
            if tag.closes and tag.name == self._shown:
                self._shown = b""
        elif name in self._missing and tag.name in (local, self._prefix + local) and not tag.closes:
            self._missing.discard(name)
            if not tag.data.endswith(b"/>"):
                self._shown = tag.name
                self._add_head(tag.data)

    def _inside(self, tag: Tag, local: bytes) -> None:
        item = self._item
        assert item is not None
        if item.key_parts is not None and tag.closes and local.decode("ascii", "replace") in _KEYS:
            item.key = item.key or _key(b"".join(item.key_parts))
            item.key_parts = None
        self._keep(tag.data)
        if not tag.closes and local.decode("ascii", "replace") in _KEYS and (local == b"guid" or item.depth == 0):
            item.key_parts = []
        if tag.closes:
            item.depth -= 1
        elif not tag.data.endswith(b"/>"):
            item.depth += 1

    def _start(self, tag: Tag) -> None:
        self.number += 1
        self._missing.clear()  # elements after the first item are ignored: other items must not depend on them
        self._shown = b""
        match = _KEY_ATTRIBUTE.search(tag.data)
        self._item = _Item([], key=_key(match[1] or match[2] or b"") if match else "")
        self._keep(tag.data)

    def _keep(self, data: bytes) -> None:
        """Add bytes to the item, or to the head while there is no root element; skip other text."""
        item = self._item
        if item is None:
            if not self._root or self._shown:
                self._add_head(data)
            return
        item.size += len(data)
        if item.size <= self._limit:
            item.parts.append(data)
        else:
            item.parts.clear()
        if item.key_parts is not None and sum(map(len, item.key_parts)) < 4 * MAX_KEY_CHARS:
            item.key_parts.append(data)

    def _add_head(self, data: bytes) -> None:
        if self._is_recoded and data.startswith(b"<?xml"):  # the encoding that it names is no longer that of the text
            return
        self._head_size += len(data)
        if self._head_size <= _MAX_HEAD_BYTES:
            self._head.append(data)
        elif not self._root:
            raise_unreadable(f"the part before its root element has more than {_MAX_HEAD_BYTES} bytes")

    def _finished(self) -> Piece:
        item = self._item
        assert item is not None
        self._item = None
        if item.size > self._limit:
            return Piece(self.number, item.size, problem=too_large(item.size, self._limit), key=item.key)
        end = (
            b""
            if item.parts[-1].startswith(b"</") or len(item.parts) == 1
            else b"</" + self._prefix + self._name + b">"
        )
        data = b"".join((*self._head, *item.parts, end, b"</", self._root, b">"))
        return Piece(self.number, item.size, data, key=item.key)


def _key(data: bytes) -> str:
    """Return an identifier as a part of an id; empty when it cannot be one."""
    text = data.decode("utf-8", "replace").strip()
    if text.startswith("<![CDATA["):
        text = text[9:].removesuffix("]]>").strip()
    text = html.unescape(text)
    is_key = len(text) <= MAX_KEY_CHARS and "\ufffd" not in text and _IS_KEY.fullmatch(text)
    return text if is_key else ""


FEED = Format("xml", decode_xml, split=split_items, heavy=True)
