"""The text of a workbook: each sheet as a table, with its text boxes, its charts' titles and its comments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.documents.office.cells import CellComments, Formats, Persons, SharedTexts, Sheet, Workbook
from pipeline.documents.office.drawings import Drawings
from pipeline.documents.office.flow import Flow
from pipeline.documents.office.package import Package
from pipeline.documents.office.sheet_reader import SheetReader
from pipeline.documents.office.text_reader import Rules, TextReader
from pipeline.documents.office.word import comment

_SHEETS = frozenset({"worksheet", "chartsheet", "dialogsheet"})


def sheet_lines(package: Package, main: str, notes: Counter[str]) -> list[str]:
    """Return the lines of a workbook; `notes` receives the notes of its record, `sheets` their number."""
    workbook = Workbook()
    package.read(main, workbook)
    texts = SharedTexts()
    formats = Formats()
    persons = Persons()
    for kind, reader in (("sharedStrings", texts), ("styles", formats), ("person", persons)):
        for part in package.related(main, kind):
            package.read(part, reader)
    lines: list[str] = []
    chars = 0
    for sheet in workbook.sheets:
        relation = package.relations(main).get(sheet.relation)
        if relation is None or relation.part is None or relation.kind not in _SHEETS or relation.part not in package:
            notes["sheets_skipped"] += 1
            continue
        sheet_reader = SheetReader(texts.texts, formats.codes, notes, from_1904=workbook.from_1904)
        sheet_reader.chars = chars
        package.read(relation.part, sheet_reader)
        rows = [
            *sheet_reader.lines(),
            *sheet_reader.printed,
            *_lines_beside_cells(package, relation.part, persons, notes),
        ]
        chars = sheet_reader.chars
        notes["hidden_sheets"] += sheet.hidden
        lines += [_heading(sheet), *rows] if rows else []
    notes["sheets"] = len(workbook.sheets)
    return lines


def _heading(sheet: Sheet) -> str:
    return f"Sheet: {' '.join(sheet.name.split())}{' (hidden)' if sheet.hidden else ''}"


def _lines_beside_cells(package: Package, sheet: str, persons: Persons, notes: Counter[str]) -> Iterator[str]:
    """Yield the lines of the drawings of a sheet and of its comments."""
    for part in package.related(sheet, "drawing"):
        flow = Flow()
        package.read(part, TextReader(flow, Rules(), Drawings(package, part, notes, data=False)))
        yield from flow.take_lines()
    comments = CellComments(persons.names)
    for kind in ("threadedComment", "comments"):
        for part in package.related(sheet, kind):
            package.read(part, comments)
    notes["comments_added"] += len(comments.found)
    for cell, author, text in comments.found:
        yield f"{cell}: {comment(author, [text])}"
