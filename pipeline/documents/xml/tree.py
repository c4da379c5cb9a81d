"""An XML document as a tree of elements: namespaces become fixed prefixes, and deep nesting becomes flat.

    strict parser ──▶ TreeBuilder ──▶ Element      a document that is not well-formed: lenient parser ──▶ TreeBuilder

It must not parse, and must keep all text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MAX_DEPTH = 256
"""The deepest nesting, as in libxml2; deeper elements are read as text of the deepest element."""

_PREFIXES: Mapping[str, str] = {
    "http://purl.org/rss/1.0/modules/content/": "content",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://purl.org/dc/terms/": "dcterms",
    "http://search.yahoo.com/mrss/": "media",
    "http://search.yahoo.com/mrss": "media",
    "http://www.itunes.com/dtds/podcast-1.0.dtd": "itunes",
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf",
    "http://www.w3.org/1998/math/mathml": "mml",
    "http://www.w3.org/2005/atom": "",
    "http://purl.org/atom/ns#": "",
    "http://purl.org/rss/1.0/": "",
    "http://backend.userland.com/rss2": "",
    "http://my.netscape.com/rdf/simple/0.9/": "",
    "http://www.w3.org/1999/xhtml": "",
    "http://iptc.org/std/nar/2006-10-01/": "",
    "http://iptc.org/std/nitf/2006-10-18/": "",
    "http://jats.nlm.nih.gov": "",
}
"""The prefix of each known namespace, in lower case; vocabularies of documents have none."""

_OWN = frozenset({"atom", "rss", "nitf", "html", "xhtml", "newsml"})
"""Prefixes of such vocabularies in documents that do not declare them."""
_NO_ATTRIBUTES: Mapping[str, str] = {}
"""One mapping for all elements without attributes, of which a document may have hundreds of thousands."""


@dataclass(slots=True)
class Element:
    """An element: its name with a fixed prefix, its attributes by local name, its texts and elements in order."""

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def elements(self) -> Iterator[Element]:
        """Yield the elements directly below this one."""
        return (child for child in self.children if isinstance(child, Element))

    def every(self, *names: str) -> Iterator[Element]:
        """Yield the outermost elements below this one with one of the names, in order."""
        for child in self.elements():
            if child.name in names:
                yield child
            else:
                yield from child.every(*names)

    def first(self, *path: str) -> Element | None:
        """Return the first element with the last name of the path, within the first one with the name before it."""
        element: Element | None = self
        for name in path:
            element = next(element.every(name), None) if element is not None else None
        return element

    def texts(self) -> Iterator[str]:
        """Yield all texts in this element and below it, in order."""
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child.texts()

    def holds_text(self) -> bool:
        """Return whether this element directly contains text."""
        return any(isinstance(child, str) and not child.isspace() for child in self.children)


class TreeBuilder:
    """Builder of the tree from the events of a parser."""

    def __init__(self) -> None:
        self.top = Element("")
        self._open = [self.top]
        self._names: list[str] = []
        self._count: Counter[str] = Counter()
        self._prefixes: dict[str, str] = {}

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """Begin an element."""
        for key, uri in attributes.items():
            if key.startswith("xmlns:"):
                self._prefixes[key[6:]] = _PREFIXES.get(uri.strip().lower(), key[6:])
        self._names.append(name)
        self._count[name] += 1
        if len(self._names) > MAX_DEPTH:
            self.data("\n")
            return
        own = {_local(key): value for key, value in attributes.items()} if attributes else _NO_ATTRIBUTES
        element = Element(self._fixed(name), own)
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, name: str) -> None:
        """End the innermost element with this name and the open elements within it; do nothing without one."""
        while self._count[name]:
            last = self._names.pop()
            self._count[last] -= 1
            if len(self._names) < len(self._open) - 1:
                self._open.pop()
            else:
                self.data("\n")
            if last == name:
                return

    def data(self, text: str) -> None:
        """Add a text."""
        self._open[-1].children.append(text)

    @property
    def is_open(self) -> bool:
        """Return whether the root element has not ended."""
        return bool(self._names)

    def _fixed(self, name: str) -> str:
        prefix, colon, local = name.rpartition(":")
        if not colon:
            return name
        prefix = self._prefixes.get(prefix, prefix)
        return local if not prefix or prefix in _OWN else f"{prefix}:{local}"


def _local(name: str) -> str:
    return name.rpartition(":")[2]
