"""The text layer of a PDF, with its form fields and free-text annotations. A scanned PDF has none; there is no OCR.

The library, PDFium, is C++: a document may crash the helper process that decodes it, which then fails alone.
"""

from __future__ import annotations

import re
from contextlib import closing, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipeline.documents.decode import Decoded, decoded_document
from pipeline.documents.foreign import MISHAPS
from pipeline.documents.pdf.annotations import annotation_texts, field_texts
from pipeline.documents.pdf.text_quality import implausible_share
from pipeline.errors import DocumentError

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

MAX_CHARS = 1 << 26
NOTED_SHARE = 0.1
"""Share of implausible characters from which a text is noted as `low_text_quality`; ordinary texts stay below 0.02."""
FAILED_SHARE = 0.3

_OCR = "add a text layer by OCR, for example with `ocrmypdf in.pdf out.pdf`"
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(Z|[+-]\d\d)?'?(\d\d)?")
_BETWEEN_PAGES = "\n\n"
_HYPHEN_AT_LINE_END = "\ufffe"  # PDFium's sign for it


def decode_pdf(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001 (a PDF has no fields)
    """Decode the text of all pages; metadata: number of pages, and title, author and date if the file has them.

    Notes: `pages_without_text:2`, `form_fields_added`, `annotations_added`, `low_text_quality`.
    """
    from pypdfium2 import PdfDocument, PdfiumError
    from pypdfium2.raw import FPDF_ERR_PASSWORD

    try:
        with closing(PdfDocument(data)) as document:
            document.init_forms()
            pages, notes = _pages(document)
            metadata = _metadata(document)
    except PdfiumError as cause:
        if getattr(cause, "err_code", None) == FPDF_ERR_PASSWORD:
            raise DocumentError("document_unreadable", "the PDF is encrypted and needs a password") from cause
        raise _broken(cause) from cause
    except MISHAPS as cause:
        raise _broken(cause) from cause
    text = _BETWEEN_PAGES.join(page for page in pages if page)
    if not text:
        raise DocumentError("document_empty", f"the PDF has no text layer on its {len(pages)} pages: {_OCR}")
    share = implausible_share(text)
    if share >= FAILED_SHARE:
        message = f"the fonts of the PDF do not say which characters they show: {_OCR} (--force-ocr)"
        raise DocumentError("document_unreadable", message)
    empty_pages = pages.count("")
    notes += [f"pages_without_text:{empty_pages}"] if empty_pages else []
    notes += ["low_text_quality"] if share >= NOTED_SHARE else []
    return decoded_document(text, metadata, notes=tuple(dict.fromkeys(notes)), pages=_starts(pages))


def _broken(cause: Exception) -> DocumentError:
    return DocumentError("document_unreadable", f"the PDF cannot be read: {type(cause).__name__}")


def _pages(document: PdfDocument) -> tuple[list[str], list[str]]:
    """Return the text of each page and notes."""
    pages: list[str] = []
    notes: list[str] = []
    chars = 0
    for number in range(len(document)):
        with closing(document[number]) as page:
            text = _page_text(page)
            for note, lines in (
                ("form_fields_added", field_texts(document, page)),
                ("annotations_added", annotation_texts(page)),
            ):
                notes += [note] if lines else []
                text = "\n".join([text, *lines]) if lines else text
        pages.append(text.strip())
        chars += len(text)
        if chars > MAX_CHARS:
            raise DocumentError("document_too_large", f"the PDF holds more than {MAX_CHARS} characters")
    return pages, notes


def _starts(pages: list[str]) -> tuple[int, ...]:
    """Return the place of each page in the text; a page without text has the place of the next page with text."""
    starts: list[int] = []
    start = 0
    for page in pages:
        starts.append(start)
        start += len(page) + len(_BETWEEN_PAGES) if page else 0
    return tuple(starts)


def _page_text(page: PdfPage) -> str:
    with closing(page.get_textpage()) as content:
        text: str = content.get_text_range()
    return text.replace("\r\n", "\n").replace(_HYPHEN_AT_LINE_END, "-\n").replace("\0", "")


def _metadata(document: PdfDocument) -> dict[str, Any]:
    metadata: dict[str, Any] = {"pages": len(document)}
    values = {"title": "", "author": "", "date": ""}
    with suppress(*MISHAPS):  # invalid metadata must not fail the document
        values["title"] = document.get_metadata_value("Title")
        values["author"] = document.get_metadata_value("Author")
        values["date"] = _iso_date(document.get_metadata_value("CreationDate"))
    return metadata | {name: value for name, value in values.items() if value.strip()}


def _iso_date(text: str) -> str:
    """Return a date of a PDF in RFC 3339; empty if it is invalid."""
    match = _DATE.match(text)
    if match is None:
        return ""
    year, month, day, hour, minute, second, offset, offset_minutes = match.groups()
    zone = {None: "", "Z": "+00:00"}.get(offset, f"{offset}:{offset_minutes or '00'}")
    digits = f"{year}-{month or '01'}-{day or '01'}T{hour or '00'}:{minute or '00'}:{second or '00'}{zone}"
    return datetime.fromisoformat(digits).isoformat()
