"""The names of the metadata that each kind of document fills, and names that mean the same value.

Add a row for each new format: prompts accept the names of this table, and the documentation and `try` show them. It
must not read a document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAIL = ("subject", "from", "to", "date")

FILLED: Mapping[str, tuple[str, ...]] = {
    "text": (),
    "html": ("title", "date", "site"),
    "pdf": ("title", "author", "date", "pages"),
    "mail": MAIL,
    "msg": ("subject", "from", "date"),
    "docx": ("title", "author", "date"),
    "pptx": ("title", "author", "date", "slides"),
    "xlsx": ("title", "author", "date", "sheets"),
    "xml": (
        *("title", "author", "published_at", "updated_at", "url", "source", "tags", "language", "guid"),
        *("dateline", "slug", "urgency", "doi", "pmid", "pmcid"),
    ),
    "warc": ("title", "date", "site", "url", "archived_at", "content_type"),
    "edgar": (
        *("company", "cik", "industry", "filed_by", "form_type", "filing_date", "period", "accession_number"),
        *("type", "sequence", "filename", "description"),
    ),
}
"""Format → the names that its documents fill, as far as a document has them. A format that is missing here (JSON, JSON
Lines, CSV) fills one for each field or column beside the text."""

ALIASES = (("from", "sender", "author"),)
"""Names of the same value: a placeholder without a value takes the value of the next name that has one."""

USUAL = (
    *("title", "published_at", "source", "url", "author", "site", "language"),
    *("section", "tags", "date", "subject", "sender"),
)
"""Usual names of fields in JSON and of columns."""

METADATA = tuple(dict.fromkeys((*USUAL, *(name for names in FILLED.values() for name in names))))
"""The metadata that a prompt may name without a declaration in `variables`."""


def aliases_of(name: str) -> tuple[str, ...]:
    """Return the name and those that mean the same value, the name itself first."""
    group = next((names for names in ALIASES if name in names), ())
    return (name, *(synonym for synonym in group if synonym != name))


def value_of(metadata: Mapping[str, Any], name: str) -> object:
    """Return the value of a placeholder of this name; None when the document has none."""
    values = (metadata.get(alias) for alias in aliases_of(name))
    return next((value for value in values if is_filled(value)), metadata.get(name))


def is_filled(value: object) -> bool:
    """Return True for a value that is visible in a prompt."""
    return value is not None and bool(str(value).strip())
