"""Documents: the entries of an input's URI, and the text of an entry's bytes.

    load_entries(config) ──▶ Entry ──▶ entry.read() ──▶ bytes ──▶ decode() ──▶ Document
       reader thread                    worker thread              worker thread

It must not know models or outputs. To add a format, add a row to FORMATS; for a compression, to
`compression.COMPRESSIONS`; for a store, to `listing.SCHEMES`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.limits import InputLimits
from pipeline.documents.containers import Format, Held, fallback_id, held_bytes, held_sha256
from pipeline.documents.decode import decode_json, decode_text
from pipeline.documents.entries import suffix_of
from pipeline.documents.extras import LIBRARIES, is_missing
from pipeline.documents.helper_pool import POOL
from pipeline.documents.html import decode_html
from pipeline.documents.lines import split_lines
from pipeline.documents.listing import ListingCounts, ListingPlan, check_extras, open_origin, origin_entries
from pipeline.documents.mail import decode_mail
from pipeline.documents.pdf import decode_pdf
from pipeline.documents.special_tokens import break_special_tokens
from pipeline.documents.tables import split_records
from pipeline.records import Document, Entry
from pipeline.stores import Patience

if TYPE_CHECKING:
    from pipeline.config import InputConfig

__all__ = [
    "FORMATS",
    "ListingCounts",
    "break_special_tokens",
    "decode",
    "fallback_id",
    "format_of",
    "held_bytes",
    "held_sha256",
    "load_entries",
]

_TEXT = Format("text", decode_text)

_JSON_LINES = Format("json", decode_json, split=split_lines)

FORMATS: Mapping[str, Format] = {
    ".txt": _TEXT,
    ".md": _TEXT,
    ".html": Format("html", decode_html, extra="html", heavy=True),
    ".json": Format("json", decode_json),
    ".jsonl": _JSON_LINES,
    ".ndjson": _JSON_LINES,
    ".csv": Format("csv", decode_json, split=split_records),
    ".pdf": Format("pdf", decode_pdf, extra="pdf", heavy=True),
    ".eml": Format("mail", decode_mail, heavy=True),
}
"""Formats by lower-case suffix, without the suffix of a compression."""

_BY_NAME = {form.name: form for form in FORMATS.values()}
_DEFAULT_LIMITS = InputLimits()


def format_of(name: str) -> Format | None:
    """Return the format for a file name without the suffix of a compression; None for an unknown format."""
    return FORMATS.get(suffix_of(name))


def load_entries(
    config: InputConfig,
    *,
    output: Path | str | None,
    counts: ListingCounts,
    clock: Callable[[], float] = time.time,
    patience: Patience | None = None,
) -> Iterator[Entry]:
    """Yield the entries of all inputs in turn, listed lazily; `output` (a folder, or a prefix) is left out.

    ConfigError before the listing for a missing input. MissingExtraError when a file needs an extra that is not
    installed: at once for one of the first files, else when it is listed. TryLaterError when the listing is
    interrupted. An unreadable file becomes an entry whose `read` fails. With `patience`, the listing and each `read`
    (which may then raise TryLaterError) wait for the end of an outage.
    """
    plan = ListingPlan(config, output, counts, clock, patience)
    origins = [open_origin(source, plan) for source in config.uri]
    if any(is_missing(extra) for extra in LIBRARIES):
        for origin in origins:
            check_extras(origin, lookup=format_of)
    return (entry for origin in origins for entry in origin_entries(origin, plan, lookup=format_of))


def decode(entry: Entry, data: bytes, *, text_field: str, limits: InputLimits = _DEFAULT_LIMITS) -> Document:
    """Decode the bytes of an entry; DocumentError when they are not a valid document.

    Notes: `encoding:cp1252`, `surrogates_scrubbed`, and those of the container that it was read from.
    """
    form = _BY_NAME[entry.format]
    if form.heavy:
        decoded = POOL.decode(form.name, data, text_field=text_field, limits=limits)
    else:
        decoded = form.decode(data, text_field)
    digest = hashlib.sha256(data).hexdigest()
    earlier = entry.read.notes if isinstance(entry.read, Held) else ()
    return Document(entry.id, entry.uri, digest, decoded.text, decoded.metadata, (*earlier, *decoded.notes))
