"""The messages between the main process and its worker processes, as pickles on a pipe (packing.py). Plain data.

Both ends are this program, of one version and one user. No bytes of a server or a document are ever unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, NamedTuple

from pipeline.llm.extraction_request import ExtractionRequest, SentRequest
from pipeline.llm.lending import ClientSettings
from pipeline.llm.prompt_length.verification_case import PromptMeasurements
from pipeline.output.copies import Copied
from pipeline.records import Entry, ExtractionAttempt, Result, Unchanged
from pipeline.run.plan import ExtractionPlan


@dataclass(frozen=True, slots=True)
class Settings:
    """The first message. `level`: the log's level; `shares`: of identical documents only one is sent."""

    level: int
    run: int
    shares: bool


@dataclass(frozen=True, slots=True)
class PlanMessage:
    """A plan without its clients and its compiled schema, which cannot be pickled."""

    number: int
    plan: ExtractionPlan


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """The current settings of a client."""

    number: int
    settings: ClientSettings


class WorkerReady(NamedTuple):
    """The worker process has started: from now on a document may be the cause of its loss."""


class Claim(NamedTuple):
    """The question whether another document has the same request; `thread` waits for the reply."""

    thread: int
    question: str
    fingerprint: str
    document: str


class ClaimReply(NamedTuple):
    """The reply to a Claim: a document answered before this run and its run, or the one that is sent in this run."""

    thread: int
    earlier_answer: tuple[str, int] | None
    original: str | None


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A log record, redacted; `trace` is the text of its traceback."""

    name: str
    level: int
    message: str
    arguments: tuple[object, ...]
    fields: dict[str, Any]
    trace: str | None


@dataclass(frozen=True, slots=True)
class OverheadMessage:
    """A request that belongs to no document, and its prompt tokens."""

    prompt_tokens: int | None


class Task(NamedTuple):
    """A document for a worker process; `plan` and `client` are the numbers of earlier messages.

    `tokens_per_weight`: the estimate for prompts on this server, where its context is configured (verification.fits).
    """

    number: int
    plan: int
    client: int
    entry: Entry
    tokens_per_weight: float
    alone: bool


class Call(NamedTuple):
    """One request of a worker process: its attempt, and monotonic times. `digest`: of the message that was sent."""

    attempt: ExtractionAttempt
    started: float
    ended: float
    digest: bytes


class FinishedTask(NamedTuple):
    """A finished document whose outcome only has to be recorded. `call`, `prompt`: None without a request."""

    number: int
    outcome: Result | Unchanged | Copied
    call: Call | None = None
    prompt: PromptMeasurements | None = None


class ReturnedTask(NamedTuple):
    """A document that the main process must process; `call`: the request that was sent for it, if any."""

    number: int
    call: Call | None = None


@dataclass(frozen=True, slots=True)
class LocalTask:
    """A document for the main process; `sent_request`: its first request, `digest`: of the message sent."""

    entry: Entry
    plan: ExtractionPlan
    alone: bool
    sent_request: SentRequest | None = None
    digest: bytes = b""


def digest_of(question: ExtractionRequest) -> bytes:
    """Return a digest of the message with the document, so that an attempt is used for no other message."""
    return sha256(question.prompts["user"].encode("utf-8", "surrogatepass")).digest()


def without_links(plan: ExtractionPlan) -> ExtractionPlan:
    """Return a plan without its clients and its compiled schema, so that it can be sent."""
    agent: Any = replace(plan.agent, compiled=None)  # type: ignore[arg-type]
    queries: Any = {name: replace(query, schema=None) for name, query in plan.queries.items()}  # type: ignore[arg-type]
    unset: Any = None
    return replace(plan, agent=agent, queries=queries, client=unset, canaries=unset, registry=unset)
