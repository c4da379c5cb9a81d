"""Documents: from an input's URI to entries, and from an entry's bytes to its text.

    load_entries(config) ──▶ Entry ──▶ entry.read() ──▶ bytes ──▶ decode() ──▶ Document
       reader thread                    worker thread              worker thread

Nothing here knows a model or an output. A further format is a row of FORMATS, a further compression a row of
`compression.COMPRESSIONS`, a further store a row of `listing.SCHEMES`.
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
"""By suffix, in lower case, without a compression's."""

_BY_NAME = {form.name: form for form in FORMATS.values()}
_DEFAULT_LIMITS = InputLimits()


def format_of(name: str) -> Format | None:
    """The row for a file's name without its compression's suffix; None when it is of no known format."""
    return FORMATS.get(suffix_of(name))


def load_entries(
    config: InputConfig,
    *,
    output: Path | str | None,
    counts: ListingCounts,
    clock: Callable[[], float] = time.time,
    patience: Patience | None = None,
) -> Iterator[Entry]:
    """The entries of all inputs, one after the other, found while they are pulled; `output` is left out:
    a folder, or the address of an object store's prefix.

    Before anything is listed, ConfigError for an input that is not there. MissingExtraError when the first files
    need an extra that is missing; while pulling, when later ones do. TryLaterError when the listing breaks off.
    A file that cannot be read is an entry whose `read` says so. `patience`: wait for the trouble of a store, a file
    system or this machine, in the listing and in each `read` (which may then raise TryLaterError).
    """
    plan = ListingPlan(config, output, counts, clock, patience)
    origins = [open_origin(source, plan) for source in config.uri]
    if any(is_missing(extra) for extra in LIBRARIES):
        for origin in origins:
            check_extras(origin, lookup=format_of)
    return (entry for origin in origins for entry in origin_entries(origin, plan, lookup=format_of))


def decode(entry: Entry, data: bytes, *, text_field: str, limits: InputLimits = _DEFAULT_LIMITS) -> Document:
    """The document in these bytes of the entry; DocumentError when there is none.

    Notes: `encoding:cp1252`, `surrogates_scrubbed`, and what was done when it was read with its container.
    """
    form = _BY_NAME[entry.format]
    if form.heavy:
        found = POOL.decode(form.name, data, text_field=text_field, limits=limits)
    else:
        found = form.decode(data, text_field)
    digest = hashlib.sha256(data).hexdigest()
    earlier = entry.read.notes if isinstance(entry.read, Held) else ()
    return Document(entry.id, entry.uri, digest, found.text, found.metadata, (*earlier, *found.notes))
