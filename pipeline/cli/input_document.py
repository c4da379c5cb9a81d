"""The present document of a record, read from the input.

It must not call a model or write anything.
"""

from __future__ import annotations

from pipeline.config import AppConfig
from pipeline.config.limits import limits_of
from pipeline.documents import ListingCounts, decode, fallback_id, load_entries
from pipeline.errors import DocumentError
from pipeline.output import left_out
from pipeline.records import Document, Entry


def read_document(app: AppConfig, document_id: str) -> tuple[Document | None, str]:
    """Return the present document of the input, or None with the reason when it cannot be read."""
    entry = _entry(app, document_id)
    if entry is None:
        return None, ""
    try:
        return decode(entry, entry.read(), text_field=app.input.text_field, limits=limits_of(app.input.limits)), ""
    except DocumentError as error:
        return None, f"This document cannot be read now ({error.reason}): {error}"


def _entry(app: AppConfig, document_id: str) -> Entry | None:
    """Return the entry that a run would process for this document, and end the listing."""
    second = None
    for entry in load_entries(app.input, output=left_out(app), counts=ListingCounts()):
        if entry.id == document_id:
            return entry
        if second is None and fallback_id(entry) == document_id:  # its id is that of another document
            second = entry
    return second
