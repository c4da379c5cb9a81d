"""What the documents of a file come to, for tests of files that hold many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.errors import DocumentError
from pipeline.records import Document


def documents_of(path: Path, counts: ListingCounts | None = None, **config: Any) -> list[Document | str]:
    """Return each document, or `ID: REASON` for one that fails."""
    found: list[Document | str] = []
    settings = InputConfig(uri=(InputSource(str(path)),), **config)
    for entry in load_entries(settings, output=None, counts=counts or ListingCounts()):
        try:
            found.append(decode(entry, entry.read(), text_field="text"))
        except DocumentError as error:
            found.append(f"{entry.id}: {error.reason}")
    return found
