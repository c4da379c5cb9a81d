"""The text of a document in WordprocessingML: headers, body, notes, footers and comments, in this order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.html.visible import visible_text
from pipeline.documents.office.drawings import Drawings
from pipeline.documents.office.flow import Flow
from pipeline.documents.office.numbering import Definitions
from pipeline.documents.office.package import Package
from pipeline.documents.office.text_reader import Rules, TextReader
from pipeline.documents.office.word_rules import WordRules, note_mark
from pipeline.documents.office.xml_events import is_on

_CHUNK_BYTES = 1 << 24
_PAGES = (".html", ".htm", ".xhtml")


def word_lines(package: Package, main: str, notes: Counter[str]) -> list[str]:
    """Return the lines of a document; `notes` receives the notes of its record."""
    return _Word(package, main, notes).lines()


class _Word:
    """One document: its package, the name of its main part, and the rules that its parts share."""

    def __init__(self, package: Package, main: str, notes: Counter[str]) -> None:
        self._package = package
        self._main = main
        self._notes = notes
        self._definitions = Definitions()
        self._flow = Flow()
        self._rules = WordRules(self._flow, notes, self._definitions.label)

    def lines(self) -> list[str]:
        """Return the lines of all parts, each part once."""
        for kind in ("styles", "numbering"):
            for part in self._package.related(self._main, kind):
                self._package.read(part, self._definitions)
        body = self._read(self._main, Rules(start={"w:altChunk": self._chunk}))
        headers, footers = (list(self._beside(kind)) for kind in ("header", "footer"))
        return [
            *headers,
            *body,
            *self._page_notes("footnote"),
            *self._page_notes("endnote"),
            *footers,
            *self._comments(),
        ]

    def _read(self, part: str, extra_rules: Rules | None = None) -> list[str]:
        """Return the lines of one part."""
        own = self._rules.rules()
        extra_rules = extra_rules or Rules()
        rules = Rules(start={**own.start, **extra_rules.start}, end={**own.end, **extra_rules.end})
        reader = TextReader(self._flow, rules, Drawings(self._package, part, self._notes))
        self._rules.reader = reader
        self._package.read(part, reader)
        return self._flow.take_lines()

    def _chunk(self, attributes: Mapping[str, str]) -> None:
        """Read an embedded page that is a part of the document; other embedded files are counted."""
        relation = self._package.relations(self._main).get(attributes.get("r:id", ""))
        part = relation.part if relation else None
        if part is None or part not in self._package or not part.lower().endswith((*_PAGES, ".txt")):
            self._notes["attachments_skipped"] += 1
            return
        text, chunk_notes = to_text(self._package.data(part, _CHUNK_BYTES))
        for note in chunk_notes:
            self._notes[note] = 1
        text = visible_text(text) if part.lower().endswith(_PAGES) else text
        self._flow.add_box(line.strip() for line in text.splitlines() if line.strip())

    def _beside(self, kind: str) -> Iterator[str]:
        """Yield the lines of the headers or footers that pages show; those of equal parts once."""
        excluded = set() if self._rules.has_title_page else {"first"}
        excluded |= set() if self._has_even_pages() else {"even"}
        relations = self._package.relations(self._main)
        parts = dict.fromkeys(
            relation.part
            for element, type_, id in self._rules.sections
            if element == kind and type_ not in excluded and (relation := relations.get(id)) is not None
        )
        read_texts: set[tuple[str, ...]] = set()
        for part in parts:
            lines = self._read(part) if part is not None and part in self._package else []
            if tuple(lines) not in read_texts:
                read_texts.add(tuple(lines))
                yield from lines

    def _has_even_pages(self) -> bool:
        switches: list[bool] = []
        reader = _Switch("w:evenAndOddHeaders", switches)
        for part in self._package.related(self._main, "settings"):
            self._package.read(part, reader)
        return any(switches)

    def _page_notes(self, kind: str) -> Iterator[str]:
        """Yield the notes to which the text refers, in the order of their marks."""
        boxes = self._boxes(f"{kind}s", f"w:{kind}", lambda attributes: attributes.get("w:id", ""))
        texts = dict(boxes)
        for number, id in enumerate(self._rules.references[kind], 1):
            if texts.get(id):
                first, *further_lines = texts[id]
                yield f"{note_mark(kind, number)} {first}"
                yield from further_lines

    def _comments(self) -> Iterator[str]:
        for author, lines in self._boxes("comments", "w:comment", lambda attributes: attributes.get("w:author", "")):
            if lines:
                self._notes["comments_added"] += 1
                yield comment(author, lines)

    def _boxes(self, kind: str, element: str, key: Callable[[Mapping[str, str]], str]) -> list[tuple[str, list[str]]]:
        """Return the key and the lines of each element with this name in the parts of this kind."""
        boxes: list[tuple[str, list[str]]] = []
        keys: list[str] = []

        def begin(attributes: Mapping[str, str]) -> None:
            keys.append(key(attributes))
            self._flow.begin_box()

        def end() -> None:
            boxes.append((keys.pop(), self._flow.take_box()))

        for part in self._package.related(self._main, kind):
            self._read(part, Rules(start={element: begin}, end={element: end}))
        return boxes


class _Switch:
    """Reader that detects whether an element switches something on."""

    def __init__(self, name: str, switches: list[bool]) -> None:
        self._name = name
        self._found = switches

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == self._name:
            self._found.append(is_on(attributes.get("w:val")))

    def end(self, name: str) -> None:
        pass

    def text(self, data: str) -> None:
        pass


def comment(author: str, lines: list[str]) -> str:
    """Return the line of a comment."""
    by = f" by {author}" if author.strip() else ""
    return f"Comment{by}: {' '.join(' '.join(lines).split())}"
