"""The text and the metadata of an office file, whatever its suffix says about its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from pipeline.documents.conversions import how_to_convert
from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.foreign import MISHAPS
from pipeline.documents.office.package import Package
from pipeline.documents.office.sheets import sheet_lines
from pipeline.documents.office.slides import slide_lines
from pipeline.documents.office.word import word_lines
from pipeline.errors import DocumentError

_KINDS: Mapping[str, Callable[[Package, str, Counter[str]], list[str]]] = {
    "w:document": word_lines,
    "p:presentation": slide_lines,
    "x:workbook": sheet_lines,
}
_COUNTS = ("slides", "sheets")
_FLAGS = frozenset({"tracked_changes", "hidden_text", "speaker_notes_added"})
"""Notes without a number."""
_PROPERTIES = {"dc:title": "title", "dc:creator": "author", "dcterms:created": "date"}
_ATTACHED = ("oleObject", "package")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_KINDS = {"WordDocument": ".doc", "Workbook": ".xls", "PowerPoint Document": ".ppt"}
"""The suffix of an old format by the name of a stream that its files have."""


def decode_office(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (an office file has no fields)
    """Decode a document, a presentation or a workbook; metadata: title, author, date, and number of slides or sheets.

    Notes: `comments_added:2`, `tracked_changes`, `hidden_text`, `speaker_notes_added`, `hidden_slides:1`,
    `hidden_sheets:1`, `hidden_rows:4`, `hidden_columns:2`, `formulas_without_value:3`, `symbols_unknown:1`,
    `drawings_skipped:1`, `attachments_skipped:2`.
    """
    if data.startswith(_OLE):
        raise _of_ole(data)
    notes: Counter[str] = Counter()
    try:
        package = Package(data)
        main = _main_part(package)
        read = _KINDS[_root(package, main)]
        lines = read(package, main, notes)
        metadata = _metadata(package)
    except MISHAPS as cause:
        raise DocumentError("document_unreadable", f"the office file is broken: {type(cause).__name__}") from cause
    metadata |= {name: notes.pop(name) for name in _COUNTS if name in notes}
    images = package.count_related("image")
    notes["attachments_skipped"] += sum(map(package.count_related, _ATTACHED))
    if not lines and images:
        message = f"the office file holds no text, only images ({images}): convert it to PDF and add text by OCR"
        raise DocumentError("document_empty", message)
    shown_notes = [
        name if name in _FLAGS or ":" in name else f"{name}:{count}" for name, count in sorted(notes.items()) if count
    ]
    return decoded_document("\n".join(lines), metadata, notes=tuple(shown_notes))


def _of_ole(data: bytes) -> DocumentError:
    """Return the problem of an OLE file, by the names of the streams in its directory."""
    if _name_in_ole("EncryptedPackage") in data:
        return DocumentError("unsupported_format", "an encrypted office file is not read: save it without a password")
    suffix = next((suffix for name, suffix in _OLE_KINDS.items() if _name_in_ole(name) in data), "")
    return DocumentError("unsupported_format", how_to_convert(suffix) or "this is an OLE file, and no office file")


def _name_in_ole(name: str) -> bytes:
    return name.encode("utf-16-le")


def _main_part(package: Package) -> str:
    """Return the name of the main part; DocumentError when there is none that can be read."""
    main = next(package.related("", "officeDocument"), None)
    if main is None:
        if "mimetype" in package:
            raise DocumentError("unsupported_format", str(how_to_convert(".odt")))
        raise DocumentError("document_unreadable", "no office file: the archive has no main part of one")
    if main.lower().endswith(".bin"):
        raise DocumentError("unsupported_format", str(how_to_convert(".xlsb")))
    return main


def _root(package: Package, main: str) -> str:
    """Return the name of the first element of the main part; DocumentError when no kind begins with it."""
    root = _Root()
    with suppress(_FoundError):
        package.read(main, root)
    if root.name not in _KINDS:
        raise DocumentError("unsupported_format", "an office file that is not a document, presentation or workbook")
    return root.name


class _FoundError(Exception):
    """The first element is found; the rest of the part is not read for it."""


class _Root:
    name = ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:  # noqa: ARG002 (a reader)
        self.name = name
        raise _FoundError

    def end(self, name: str) -> None:
        pass

    def text(self, data: str) -> None:
        pass


def _metadata(package: Package) -> dict[str, Any]:
    properties = _Properties()
    for part in package.related("", "core-properties"):
        with suppress(DocumentError):  # invalid metadata must not fail the document
            package.read(part, properties)
    values = {name: " ".join(text.split()) for name, text in properties.values.items()}
    with suppress(ValueError):
        values["date"] = datetime.fromisoformat(values.get("date", "").replace("Z", "+00:00")).isoformat()
    return {name: text for name, text in values.items() if text}


class _Properties:
    """Reader of the properties of a file that are metadata."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._name = ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:  # noqa: ARG002 (a reader)
        self._name = _PROPERTIES.get(name, "")

    def end(self, name: str) -> None:  # noqa: ARG002 (a reader)
        self._name = ""

    def text(self, data: str) -> None:
        if self._name:
            self.values[self._name] = self.values.get(self._name, "") + data
