"""The data of a document on its way: the entry of the listing, the document, one attempt, and the written outcome.

Plain frozen data; it must not do I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import PipelineError, Stage, is_retryable
from pipeline.evidence import Evidence
from pipeline.quick_init import quick_init

RECORD_VERSION = 1


class LatestRecord(NamedTuple):
    """The last line of an id in the output (results and errors together).

    `decided_by`: the digest of the settings that a failure depends on; None for a result or an older line.
    `accepted`: a person has accepted exactly this failure (`pipeline errors --accept`).
    A tuple, as one is created for every skipped document, in a quarter of the time of a dataclass.
    """

    sha256: str | None
    fingerprint: str
    version: str | None
    failed: bool
    reason: str | None
    runs: int
    run: int
    run_id: str
    decided_by: str | None = None
    accepted: bool = False


@quick_init
@dataclass(frozen=True)
class Entry:
    """One document in the listing, before it is read.

    `version` changes when the bytes may have changed (size and mtime, an ETag); None: always read.
    `size_bytes` is the size as stored. `format` names a row of the format table (text, json).
    `read` returns the bytes after decompression, or raises DocumentError; it is called in a worker thread.
    `duplicate_of` is the id that this entry repeats, if any.
    `latest` is its last line in the output; `latest_is_valid`: that line remains valid while the bytes are the same.
    `losses` counts the servers that were lost while they processed this entry. `was_refused`: a server that turned out
    to be unhealthy answered it with a 4xx, so the next 4xx may be the document's own. `earlier_failure`: the outcome of
    earlier attempts in this run that no server completed. `is_long`: it did not fit when it was read before in this
    run.
    """

    id: str
    uri: str
    version: str | None
    size_bytes: int
    format: str
    read: Callable[[], bytes] = field(compare=False, repr=False)
    duplicate_of: str | None = None
    latest: LatestRecord | None = None
    latest_is_valid: bool = False
    losses: int = 0
    was_refused: bool = False
    earlier_failure: Failure | None = field(default=None, compare=False, repr=False)
    is_long: bool = False


@quick_init
@dataclass(frozen=True)
class Document:
    """The text of an entry, its metadata, and notes on the decoding. `pages`: where each page of a PDF begins."""

    id: str
    uri: str
    sha256: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The source of an answer: the provider's name, the model, the endpoint without secrets, the model's digest."""

    provider: str
    name: str
    endpoint: str | None = None
    digest: str | None = None


@quick_init
@dataclass(frozen=True)
class ExtractionAttempt:
    """The outcome of one request.

    `error` is None, or the wire-level text (`timeout`, `http_500`, …); `reason` is its key in errors.REASONS.
    `raw_text` is the whole text of the model, also when `error` is set (a truncated answer). `latency_s` is wall time.
    Token counts are None if the server does not report them. `max_tokens` is the requested limit; `needed_tokens` is
    the size of a prompt that did not fit. `queue_s` is the time in the server's queue. `rejection`: the reason why an
    answer was rejected. `server`: the server software if the answer shows it: `ollama`, or the name of a gateway.
    `sent` is False when the server cannot have started the work; `lost` when it disappeared during the work; `unpaid`
    when the account has no budget left; `thought` when the model produced only thinking.
    """

    model: ModelMetadata
    raw_text: str | None = None
    error: str | None = None
    reason: str | None = None
    message: str = ""
    latency_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    context_length: int | None = None
    max_tokens: int | None = None
    needed_tokens: int | None = None
    queue_s: float | None = None
    load_s: float | None = None
    retry_after_s: float | None = None
    sent: bool = True
    lost: bool = False
    thought: bool = False
    unpaid: bool = False
    notes: tuple[str, ...] = ()
    rejection: str | None = None
    server: str | None = None

    @property
    def ok(self) -> bool:
        """True when there is an answer to validate."""
        return self.error is None

    @property
    def retryable(self) -> bool:
        """True when the same request may succeed later."""
        return is_retryable(self.reason)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, summed over all requests of a document; None if no server reported them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Try:
    """One request in a record's history; `error`: the wire-level text, or the reason why its answer was rejected."""

    provider: str
    endpoint: str | None
    error: str | None
    latency_s: float


@dataclass(frozen=True, slots=True)
class Stamp:
    """The run that wrote a record."""

    run: int
    run_id: str
    shard: str | None = None


@quick_init
@dataclass(frozen=True)
class Result:
    """A line of results. `version` is the file's version; `history`: the last requests before the answered one.

    `text_sha256` is of the document's text; it and `evidence` are None in records of versions that had neither.
    `question_sha256`: a digest of the prompt's text and metadata (run/selection/copies.py); None for a prompt with $id
    or $uri.
    `windows` (the ledger of the windows) and `merge` are None except for a document merged from windows.
    """

    id: str
    uri: str
    sha256: str
    agent: str
    variant: str
    fingerprint: str
    output: Any
    model: ModelMetadata
    attempts: int
    reasks: int
    repaired: bool
    notes: tuple[str, ...]
    usage: Usage
    context_length: int | None
    document_chars: int
    metadata: Mapping[str, Any]
    text_sha256: str | None = field(default=None, kw_only=True)
    evidence: tuple[Evidence, ...] | None = field(default=None, kw_only=True)
    windows: Mapping[str, Any] | None = field(default=None, kw_only=True)
    merge: Mapping[str, Any] | None = field(default=None, kw_only=True)
    latency_s: float
    finished_at: str
    version: str | None = None
    history: tuple[Try, ...] = ()
    question_sha256: str | None = None


@quick_init
@dataclass(frozen=True)
class Failure:
    """A line of errors. `raw`: the start of the model's text; `decided_by`: a digest of the deciding settings.

    `window`: the part of the document that failed, its number and how many were answered; None: it was sent whole.
    """

    id: str
    uri: str
    sha256: str | None
    agent: str
    variant: str
    fingerprint: str
    stage: Stage
    reason: str
    error: str
    message: str
    attempts: int
    history: tuple[Try, ...]
    raw: str | None
    usage: Usage
    notes: tuple[str, ...]
    runs: int
    finished_at: str
    version: str | None = None
    reasks: int = 0
    decided_by: str | None = None
    window: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The document was read and is unchanged since its record; `failed` when that record is a failure."""

    id: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Postponed:
    """No server could process the document: it is queued again; `failure` is its outcome if no retry succeeds.

    `losses`: the number of servers lost while they processed it. `was_refused`: one answered it with a 4xx.
    """

    entry: Entry
    failure: Failure
    losses: int = 0
    was_refused: bool = False

    def next_entry(self) -> Entry:
        """Return the entry for the next try, with its losses and requests counted."""
        losses = self.entry.losses + self.losses
        was_refused = self.entry.was_refused or self.was_refused
        return changed(self.entry, losses=losses, was_refused=was_refused, earlier_failure=self.failure)


@dataclass(frozen=True, slots=True)
class Left:
    """The document was not processed, for a reason other than its content; the next run retries it.

    `error` ends the run; None: the run is ending already.
    """

    id: str
    error: PipelineError | None = None


Outcome = Result | Failure | Unchanged | Postponed | Left


R = TypeVar("R", bound=Entry | Document | ExtractionAttempt | Result | Failure)


def utc_now(now: datetime | None = None) -> str:
    """Return the time in RFC 3339 format, in UTC with milliseconds, as in every record."""
    now = datetime.now(timezone.utc) if now is None else now.astimezone(timezone.utc)
    return now.isoformat(timespec="milliseconds")[:-6] + "Z"


def changed(record: R, **values: Any) -> R:
    """Return the record with other values; ten times as fast as dataclasses.replace."""
    if unknown := values.keys() - record.__dict__.keys():
        raise TypeError(f"{type(record).__name__} has no {', '.join(unknown)}")
    copy = object.__new__(type(record))
    copy.__dict__.update(record.__dict__ | values)
    return copy
