"""The parts of a workbook that its cells need: the shared texts, the formats, and the list of sheets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.documents.office.number_format import BUILT_IN
from pipeline.documents.office.text_reader import integer_or
from pipeline.documents.office.xml_events import is_on

_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet of a workbook: its name, its relation, and whether it is hidden."""

    name: str
    relation: str
    hidden: bool


class Workbook:
    """Reader of the main part: the sheets in their order, and the first day of its dates."""

    def __init__(self) -> None:
        self.sheets: list[Sheet] = []
        self.from_1904 = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "x:sheet":
            hidden = attributes.get("state", "visible") != "visible"
            self.sheets.append(Sheet(attributes.get("name", ""), attributes.get("r:id", ""), hidden))
        elif name == "x:workbookPr":
            self.from_1904 = is_on(attributes.get("date1904", "0"))

    def end(self, name: str) -> None:
        pass

    def text(self, data: str) -> None:
        pass


class SharedTexts:
    """Reader of the texts that cells name by number; pronunciation guides are left out."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._pieces: list[str] = []
        self._in_text = False
        self._in_sounds = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:  # noqa: ARG002 (a reader)
        if name == "x:si":
            self._pieces.clear()
        elif name == "x:rPh":
            self._in_sounds = True
        self._in_text = name == "x:t" and not self._in_sounds

    def end(self, name: str) -> None:
        self._in_text = False
        if name == "x:rPh":
            self._in_sounds = False
        elif name == "x:si":
            self.texts.append(cell_text("".join(self._pieces)))

    def text(self, data: str) -> None:
        if self._in_text:
            self._pieces.append(data)


class Formats:
    """Reader of the formats of numbers; `codes` has that of each style of cells."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self._own: dict[int, str] = {}
        self._in_cells = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "x:numFmt":
            self._own[integer_or(attributes.get("numFmtId"), -1)] = attributes.get("formatCode", "")
        elif name == "x:cellXfs":
            self._in_cells = True
        elif name == "x:xf" and self._in_cells:
            number = integer_or(attributes.get("numFmtId"), 0)
            self.codes.append(self._own.get(number) or BUILT_IN.get(number, "General"))

    def end(self, name: str) -> None:
        if name == "x:cellXfs":
            self._in_cells = False

    def text(self, data: str) -> None:
        pass


class CellComments:
    """Reader of both kinds of cell comments; old ones are dropped if the cell has new ones."""

    def __init__(self, persons: Mapping[str, str]) -> None:
        self.found: list[tuple[str, str, str]] = []
        self._persons = persons
        self._authors: list[str] = []
        self._cell = ""
        self._author = ""
        self._pieces: list[str] = []
        self._in_text = False
        self._in_sounds = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "x:author":
            self._pieces.clear()
        elif name == "x:comment":
            self._begin(attributes.get("ref", ""), self._author_of(integer_or(attributes.get("authorId"), -1)))
        elif name == "tc:threadedComment":
            self._begin(attributes.get("ref", ""), self._persons.get(attributes.get("personId", ""), ""))
        elif name == "x:rPh":
            self._in_sounds = True
        self._in_text = name in ("x:author", "x:t", "tc:text") and not self._in_sounds

    def _begin(self, cell: str, author: str) -> None:
        self._cell = cell
        self._author = author
        self._pieces.clear()

    def _author_of(self, number: int) -> str:
        return self._authors[number] if 0 <= number < len(self._authors) else ""

    def end(self, name: str) -> None:
        self._in_text = False
        text = "".join(self._pieces).strip()
        if name == "x:rPh":
            self._in_sounds = False
        elif name == "x:author":
            self._authors.append(text)
        elif name in ("x:comment", "tc:threadedComment") and text and not self._author.startswith("tc="):
            self.found.append((self._cell, self._author, text))

    def text(self, data: str) -> None:
        if self._in_text:
            self._pieces.append(data)


class Persons:
    """Reader of the names of those who wrote comments, by their ids."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "tc:person":
            self.names[attributes.get("id", "")] = attributes.get("displayName", "")

    def end(self, name: str) -> None:
        pass

    def text(self, data: str) -> None:
        pass


def cell_text(text: str) -> str:
    """Return the text of a cell in one line: tabs separate cells, and line ends rows."""
    return " ".join(unescaped(text).split())


def unescaped(text: str) -> str:
    """Return the text with the characters that are written as `_x0041_`; those that XML cannot hold are spaces."""
    return _ESCAPED.sub(_unescape, text) if "_x" in text else text


def _unescape(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return " " if code < 32 or 0xD800 <= code < 0xE000 else chr(code)
