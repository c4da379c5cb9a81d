"""The cells of a sheet as rows of text, without the columns and rows that are empty.

It must not hold more than the texts of the filled cells.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline.documents.office.cells import cell_text
from pipeline.documents.office.flow import MAX_CHARS
from pipeline.documents.office.number_format import shown_number
from pipeline.documents.office.text_reader import integer_or
from pipeline.documents.office.xml_events import is_on
from pipeline.errors import DocumentError

MAX_COLUMNS = 16_384

_REFERENCE = re.compile("([A-Z]{1,3})[0-9]")
_PRINTED = re.compile(r'&(?:"[^"]*"|[0-9]{1,3}|K[0-9A-F]{6}|[A-Za-z])')
"""A code in the header of a printed page: its fonts, page numbers, the places left, centre and right."""
_HEADERS = frozenset({"x:oddHeader", "x:evenHeader", "x:firstHeader"})
_FOOTERS = frozenset({"x:oddFooter", "x:evenFooter", "x:firstFooter"})


class SheetReader:
    """Reader of a sheet: its rows, the headers and footers of its pages, and the relations of its drawings."""

    def __init__(self, texts: Sequence[str], codes: Sequence[str], notes: Counter[str], *, from_1904: bool) -> None:
        self.printed: list[str] = []
        self.chars = 0
        self._texts = texts
        self._codes = codes
        self._notes = notes
        self._from_1904 = from_1904
        self._rows: list[tuple[array[int], str]] = []
        self._columns = bytearray(MAX_COLUMNS)
        self._places: array[int] = array("H")
        self._row: list[str] = []
        self._column = -1
        self._type = "n"
        self._code = "General"
        self._value: list[str] = []
        self._formula: list[str] = []
        self._into: list[str] | None = None
        self._in_sounds = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """Begin an element."""
        self._into = None
        if name == "x:c":
            self._begin_cell(attributes)
        elif name in ("x:v", "x:t") and not self._in_sounds:
            self._into = self._value
        elif name == "x:f":
            self._into = self._formula
        elif name == "x:rPh":
            self._in_sounds = True
        elif name == "x:row":
            self._column = -1
            self._notes["hidden_rows"] += is_on(attributes.get("hidden", "0"))
        elif name == "x:col" and is_on(attributes.get("hidden", "0")):
            first = integer_or(attributes.get("min"), 1)
            last = integer_or(attributes.get("max"), 1)
            self._notes["hidden_columns"] += max(0, min(last, MAX_COLUMNS) - first + 1)
        elif name in _HEADERS | _FOOTERS:
            self._value.clear()
            self._into = self._value

    def end(self, name: str) -> None:
        """End an element."""
        self._into = None
        if name == "x:c":
            self._end_cell()
        elif name == "x:row":
            self._end_row()
        elif name == "x:rPh":
            self._in_sounds = False
        elif name in _HEADERS | _FOOTERS:
            text = " ".join(_PRINTED.sub(" ", "".join(self._value).replace("&&", "＆")).replace("＆", "&").split())
            if text and text not in self.printed:
                self.printed.append(text)

    def text(self, data: str) -> None:
        """Add characters to a value or to a formula."""
        if self._into is not None:
            self._into.append(data)

    def _begin_cell(self, attributes: Mapping[str, str]) -> None:
        self._column += 1
        match = _REFERENCE.match(attributes.get("r", ""))
        if match:
            self._column = _column_of(match[1])
        self._type = attributes.get("t", "n")
        style = integer_or(attributes.get("s"), 0)
        self._code = self._codes[style] if 0 <= style < len(self._codes) else "General"
        self._value.clear()
        self._formula.clear()

    def _end_cell(self) -> None:
        value = "".join(self._value)
        text = self._shown(value)
        if not text and self._formula and not value:
            self._notes["formulas_without_value"] += 1
            text = cell_text("=" + "".join(self._formula))
        if not text:
            return
        if self._places and self._column <= self._places[-1]:
            self._column = self._places[-1] + 1
            self._notes["cells_out_of_order"] += 1
        if not 0 <= self._column < MAX_COLUMNS:
            raise DocumentError("document_unreadable", "the office file is broken: a cell is beyond the last column")
        self._columns[self._column] = 1
        self._places.append(self._column)
        self._row.append(text)
        self.chars += len(text) + 1
        if self.chars > MAX_CHARS:
            raise DocumentError("document_too_large", f"the office file holds more than {MAX_CHARS} characters")

    def _shown(self, value: str) -> str:
        """Return the text of a cell by its type."""
        if self._type == "s":
            number = integer_or(value, -1)
            return self._texts[number] if 0 <= number < len(self._texts) else ""
        if self._type == "b":
            return {"1": "TRUE", "0": "FALSE"}.get(value.strip(), value)
        if self._type != "n":
            return cell_text(value)
        try:
            number_ = float(value)
        except ValueError:
            return cell_text(value)
        try:
            return shown_number(number_, self._code, from_1904=self._from_1904)
        except (ArithmeticError, ValueError):
            return cell_text(value)

    def _end_row(self) -> None:
        if self._row:
            self._rows.append((self._places, "\t".join(self._row)))
            self._places = array("H")
            self._row = []

    def lines(self) -> list[str]:
        """Return and drop the rows, with tabs between the columns that have a text in any row."""
        self._end_row()
        rank = array("H", bytes(2 * MAX_COLUMNS))
        used = 0
        for column in range(MAX_COLUMNS):
            rank[column] = used
            used += self._columns[column]
        lines: list[str] = []
        for places, row in self._rows:
            self.chars += rank[places[-1]] - len(places) + 1
            if self.chars > MAX_CHARS:
                raise DocumentError("document_too_large", f"the office file holds more than {MAX_CHARS} characters")
            lines.append(_line(places, row, rank))
        self._rows.clear()
        return lines


def _line(places: array[int], row: str, rank: array[int]) -> str:
    """Return the cells of a row, each in its column."""
    if rank[places[-1]] == len(places) - 1:
        return row
    cells = [""] * (rank[places[-1]] + 1)
    for place, text in zip(places, row.split("\t"), strict=True):
        cells[rank[place]] = text
    return "\t".join(cells)


def _column_of(letters: str) -> int:
    column = 0
    for letter in letters:
        column = column * 26 + ord(letter) - 64
    return column - 1
