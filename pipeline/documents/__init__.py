"""Documents: the entries of an input's URI, and the text of an entry's bytes.

    load_entries(config) ──▶ Entry ──▶ entry.read() ──▶ bytes ──▶ decode() ──▶ Document
       reader thread                    worker thread              worker thread

It must not know models or outputs. To add a format, add a row to `formats.FORMATS`; for a compression, to
`archives/compression.py`; for a store, to `listing.SCHEMES`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.limits import InputLimits
from pipeline.documents.archives.compression import NotedBytes
from pipeline.documents.containers import BytesInContainer, fallback_id, held_bytes, held_sha256
from pipeline.documents.encodings.known_encoding import to_utf8
from pipeline.documents.extras import LIBRARIES, is_missing
from pipeline.documents.formats import BY_NAME, FORMATS, format_of
from pipeline.documents.helpers.pool import POOL
from pipeline.documents.listing import ListingCounts, ListingPlan, check_extras, open_origin, origin_entries
from pipeline.documents.naming import NamedDocuments, possible_ids
from pipeline.documents.special_tokens import break_special_tokens
from pipeline.records import Document, Entry
from pipeline.stores import OutageRetry

if TYPE_CHECKING:
    from pipeline.config import InputConfig

__all__ = [
    "FORMATS",
    "ListingCounts",
    "NamedDocuments",
    "break_special_tokens",
    "decode",
    "fallback_id",
    "format_of",
    "held_bytes",
    "held_sha256",
    "load_entries",
    "possible_ids",
]

_DEFAULT_LIMITS = InputLimits()


def load_entries(
    config: InputConfig,
    *,
    output: Path | str | None,
    counts: ListingCounts,
    clock: Callable[[], float] = time.time,
    outage_retry: OutageRetry | None = None,
) -> Iterator[Entry]:
    """Yield the entries of all inputs in turn, listed lazily; `output` (a folder, or a prefix) is left out.

    ConfigError before the listing for a missing input. MissingExtraError when each of the first documents needs
    an extra that is not installed; else such a document fails. TryLaterError when the listing is
    interrupted. An unreadable file becomes an entry whose `read` fails. With `outage_retry`, the listing and each
    `read` (which may then raise TryLaterError) wait for the end of an outage.
    """
    plan = ListingPlan(config, output, counts, clock, outage_retry)
    origins = [open_origin(source, plan) for source in config.uri]
    if any(is_missing(extra) for extra in LIBRARIES):
        check_extras(origins, lookup=FORMATS.get)
    return (entry for origin in origins for entry in origin_entries(origin, plan, lookup=FORMATS.get))


def decode(
    entry: Entry,
    data: bytes,
    *,
    text_field: str,
    limits: InputLimits = _DEFAULT_LIMITS,
    sha256: str | None = None,
) -> Document:
    """Decode the bytes of an entry; DocumentError when they are not a valid document. `sha256`: theirs, if known.

    Notes: `encoding:cp1252`, `surrogates_scrubbed`, and those of the container that it was read from.
    """
    form = BY_NAME[entry.format]
    digest = sha256 or hashlib.sha256(data).hexdigest()
    earlier = entry.read.notes if isinstance(entry.read, BytesInContainer) else ()
    earlier += data.notes if isinstance(data, NotedBytes) else ()
    if isinstance(data, NotedBytes) and data.encoding is not None:
        data, encoded = to_utf8(data, data.encoding)
        earlier += encoded
    if form.heavy:
        decoded = POOL.decode(form.name, data, text_field=text_field, limits=limits)
    else:
        decoded = form.decode(data, text_field)
    notes = (*earlier, *decoded.notes)
    return Document(entry.id, entry.uri, digest, decoded.text, decoded.metadata, notes, decoded.pages)
