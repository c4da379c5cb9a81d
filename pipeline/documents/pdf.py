"""The text layer of a PDF. A scanned PDF has none; there is no OCR.

Pages may share one huge stream: the helper process that decodes it has a CPU limit.
"""

from __future__ import annotations

import io
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipeline.documents.decode import Decoded, finished
from pipeline.documents.foreign import MISHAPS
from pipeline.errors import DocumentError

if TYPE_CHECKING:
    from pypdf import PdfReader

MAX_CHARS = 1 << 26


def decode_pdf(data: bytes, text_field: str) -> Decoded:  # noqa: ARG001
    """Decode the text of all pages; metadata: number of pages, and title, author and date if the file has them."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError("document_unreadable", "the PDF is encrypted and needs a password")
        text = _pages(reader)
        metadata = _metadata(reader)
    except DependencyError as cause:
        message = "the PDF is encrypted in a way that needs the library cryptography: pip install 'pypdf[crypto]'"
        raise DocumentError("document_unreadable", message) from cause
    except PyPdfError as cause:
        raise _broken(cause) from cause
    except MISHAPS as cause:
        raise _broken(cause) from cause
    if not text.strip():
        message = f"the PDF has no text layer on its {metadata['pages']} pages: it needs OCR"
        raise DocumentError("document_empty", message)
    return finished(text, metadata, notes=())


def _broken(cause: Exception) -> DocumentError:
    return DocumentError("document_unreadable", f"the PDF cannot be read: {type(cause).__name__}")


def _pages(reader: PdfReader) -> str:
    """Return the text of the pages, separated by blank lines."""
    chars = 0
    pages = []
    for page in reader.pages:
        text = page.extract_text().replace("\0", "")
        chars += len(text)
        pages.append(text.strip())
        if chars > MAX_CHARS:
            raise DocumentError("document_too_large", f"the PDF holds more than {MAX_CHARS} characters")
    return "\n\n".join(page for page in pages if page)


def _metadata(reader: PdfReader) -> dict[str, Any]:
    metadata: dict[str, Any] = {"pages": len(reader.pages)}
    try:
        about = reader.metadata
        title, author, date = (about.title, about.author, about.creation_date) if about else (None, None, None)
    except MISHAPS:  # an invalid date must not fail the document
        return metadata
    texts = {"title": title, "author": author, "date": date.isoformat() if isinstance(date, datetime) else None}
    return metadata | {name: str(value) for name, value in texts.items() if value and str(value).strip()}
