"""The text of a presentation: each slide with its notes and comments, then the texts of its masters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from pipeline.documents.office.drawings import Drawings
from pipeline.documents.office.flow import Flow
from pipeline.documents.office.package import Package
from pipeline.documents.office.text_reader import Rules, TextReader
from pipeline.documents.office.word import comment

_ON_PAGES = frozenset({"hdr", "ftr"})
_BESIDE_NOTES = frozenset({"sldNum", "dt", "sldImg"}) | _ON_PAGES
_NO_PLACEHOLDER = ""


def slide_lines(package: Package, main: str, notes: Counter[str]) -> list[str]:
    """Return the lines of a presentation; `notes` receives the notes of its record, `slides` their number."""
    order = _Order()
    package.read(main, order)
    relations = package.relations(main)
    slides = [relation.part for id in order.slides if (relation := relations.get(id)) is not None]
    authors = _Authors()
    for kind in ("commentAuthors", "authors"):
        for part in package.related(main, kind):
            package.read(part, authors)
    lines: list[str] = []
    layouts: dict[str, None] = {}
    around: dict[str, None] = {}
    for number, slide in enumerate(slides, 1):
        if slide is None or slide not in package:
            notes["slides_skipped"] += 1
            continue
        lines += _slide(package, slide, number, authors.names, notes)
        layouts |= dict.fromkeys(package.related(slide, "slideLayout"))
        for part in package.related(slide, "notesSlide"):
            around |= dict.fromkeys(_shapes(package, part, notes, is_wanted=lambda kind: kind in _ON_PAGES))
    masters = dict.fromkeys(part for layout in layouts for part in package.related(layout, "slideMaster"))
    for part in (*masters, *layouts):
        around |= dict.fromkeys(_shapes(package, part, notes, is_wanted=lambda kind: kind == _NO_PLACEHOLDER))
    notes["slides"] = len(slides)
    slide_texts = set(lines)
    return lines + [line for line in around if line not in slide_texts]


def _slide(package: Package, slide: str, number: int, authors: Mapping[str, str], notes: Counter[str]) -> list[str]:
    hidden: list[bool] = []
    shapes = _shapes(package, slide, notes, hidden=hidden)
    notes["hidden_slides"] += bool(hidden)
    lines = [f"Slide {number}{' (hidden)' if hidden else ''}", *shapes]
    for part in package.related(slide, "notesSlide"):
        spoken = _shapes(package, part, notes, is_wanted=lambda kind: kind not in _BESIDE_NOTES)
        notes["speaker_notes_added"] += bool(spoken)
        lines += ["Notes:", *spoken] if spoken else []
    for part in package.related(slide, "comments"):
        comments = _Comments(authors)
        package.read(part, comments)
        notes["comments_added"] += len(comments.lines)
        lines += comments.lines
    return lines if len(lines) > 1 else []


def _shapes(
    package: Package,
    part: str,
    notes: Counter[str],
    *,
    is_wanted: Callable[[str], bool] = lambda _: True,
    hidden: list[bool] | None = None,
) -> list[str]:
    """Return the lines of a part's shapes; `is_wanted` gets the type of a shape's placeholder, "" without one."""
    flow = Flow()
    kinds: list[str] = []

    def begin(_: Mapping[str, str]) -> None:
        kinds.append(_NO_PLACEHOLDER)
        flow.begin_box()

    def placeholder(attributes: Mapping[str, str]) -> None:
        if kinds:
            kinds[-1] = attributes.get("type", "obj")

    def end() -> None:
        lines = flow.take_box()
        if is_wanted(kinds.pop()):
            flow.add_box(lines)

    def slide(attributes: Mapping[str, str]) -> None:
        if hidden is not None and attributes.get("show", "1") in ("0", "false"):
            hidden.append(True)

    rules = Rules(start={"p:sp": begin, "p:ph": placeholder, "p:sld": slide}, end={"p:sp": end})
    package.read(part, TextReader(flow, rules, Drawings(package, part, notes)))
    return flow.take_lines()


class _Order:
    """Reader of the relations of the slides in their order."""

    def __init__(self) -> None:
        self.slides: list[str] = []

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "p:sldId":
            self.slides.append(attributes.get("r:id", ""))

    def end(self, name: str) -> None:
        pass

    def text(self, data: str) -> None:
        pass


class _Authors:
    """Reader of the names of those who wrote comments, by their ids."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name in ("p:cmAuthor", "pc:author"):
            self.names[attributes.get("id", "")] = attributes.get("name", "")

    def end(self, name: str) -> None:
        pass

    def text(self, data: str) -> None:
        pass


class _Comments:
    """Reader of comments of the old kind (`p:cm`) and of the new kind, in which replies precede the text."""

    def __init__(self, authors: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._authors = authors
        self._open: list[tuple[str, list[str]]] = []
        self._replies: list[str] = []
        self._in_text = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name in ("p:cm", "pc:cm", "pc:reply"):
            self._open.append((self._authors.get(attributes.get("authorId", ""), ""), []))
        self._in_text = name in ("p:text", "a:t")

    def end(self, name: str) -> None:
        self._in_text = False
        if not self._open:
            return
        author, pieces = self._open[-1]
        if name == "a:p":
            pieces.append(" ")
        elif name in ("p:cm", "pc:cm", "pc:reply"):
            self._open.pop()
            line = [comment(author, ["".join(pieces)])] if "".join(pieces).strip() else []
            if name == "pc:reply":
                self._replies += line
            else:
                self.lines += [*line, *self._replies]
                self._replies.clear()

    def text(self, data: str) -> None:
        if self._in_text and self._open:
            self._open[-1][1].append(data)
