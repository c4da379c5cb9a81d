"""XML text to a tree: by expat, and by a lenient parser when it is not well-formed.

No other file is read: a reference to an external entity is refused, and a DTD is ignored. Entities of HTML are known
without a DTD.
"""

from __future__ import annotations

import pyexpat
from typing import Any

from pipeline.documents.decode import scrub
from pipeline.documents.tables.json_fields import raise_unreadable
from pipeline.documents.xml.lenient import entities_of, parse_lenient, refuse_external, resolved
from pipeline.documents.xml.tree import Element, TreeBuilder
from pipeline.errors import DocumentError

FREE_ENTITY_CHARS = 1 << 20
"""Characters that entities may add to a document."""

REPAIRED = "xml_repaired"


def parse_xml(text: str) -> tuple[Element, tuple[str, ...]]:
    """Return the root element, and the note `xml_repaired` when the text is not well-formed.

    DocumentError when it has no element, ends within its root element, or refers to an external or a huge entity.
    """
    text = scrub(text).lstrip("\ufeff \t\r\n")
    try:
        return _root(_Strict(text).parse()), ()
    except pyexpat.ExpatError:
        builder = TreeBuilder()
        parse_lenient(text, builder)
        root = _root(builder)
        if builder.is_open:
            raise_unreadable("the file ends within its root element")
        return root, (REPAIRED,)


def _root(builder: TreeBuilder) -> Element:
    root = next(builder.top.elements(), None)
    if root is None:
        raise_unreadable("no XML: it has no element")
    return root


class _Strict:
    """A run of expat, which expands the entities that the document declares, within bounds."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._left = len(text) + FREE_ENTITY_CHARS
        self._builder = TreeBuilder()
        self._entities: dict[str, str | None] | None = None
        parser = pyexpat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.UseForeignDTD(True)  # unknown entities are reported, not errors
        parser.SetParamEntityParsing(pyexpat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._builder.end
        parser.CharacterDataHandler = self._data
        parser.SkippedEntityHandler = self._skipped
        parser.ExternalEntityRefHandler = self._external
        self._parser = parser

    def parse(self) -> TreeBuilder:
        """Return the builder with the tree; ExpatError for a text that is not well-formed."""
        try:
            self._parser.Parse(self._text.encode(), True)
        except pyexpat.ExpatError as cause:
            if cause.code == _AMPLIFIED:
                self._refuse_bomb()
            raise
        return self._builder

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count(sum(map(len, attributes.values())))
        self._builder.start(name, attributes)

    def _data(self, text: str) -> None:
        self._count(len(text))
        self._builder.data(text)

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            self._refuse_bomb()

    def _refuse_bomb(self) -> None:
        raise DocumentError("document_too_expensive", "its entities expand to too much text")

    def _skipped(self, name: str, is_parameter: bool) -> None:
        """Add the text of an entity that expat skips: an unknown one, or any one after a reference to a DTD."""
        if self._entities is None:
            self._entities = entities_of(self._text)
        if not is_parameter:
            self._data(resolved(f"&{name};", self._entities))

    def _external(self, context: str | None, *_: Any) -> int:
        if context is not None:
            refuse_external()
        return 1


_AMPLIFIED = 43
"""XML_ERROR_AMPLIFICATION_LIMIT_BREACH of expat 2.4.1 and later."""
