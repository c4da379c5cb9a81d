"""The messages between the main process and its worker processes, as pickles on a pipe (packing.py). Plain data.

Both ends are this program, of one version and one user; nothing of a server or a document is ever unpickled.
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
    """The first message. `level`: of the program's log; `shares`: identical documents are sent once."""

    level: int
    run: int
    shares: bool


@dataclass(frozen=True, slots=True)
class PlanMessage:
    """A plan without what cannot travel: its clients, and its compiled schema."""

    number: int
    plan: ExtractionPlan


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """The current settings of a client."""

    number: int
    settings: ClientSettings


class Ready(NamedTuple):
    """A worker process has begun to work: a loss from now on may be caused by a document."""


class Claim(NamedTuple):
    """Asks whether another document has the same request; `thread` is the thread that waits for the reply."""

    thread: int
    question: str
    fingerprint: str
    document: str


class Claimed(NamedTuple):
    """The reply to a Claim: a document answered before this run and its run, or the one that is sent in this run."""

    thread: int
    before: tuple[str, int] | None
    first: str | None


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
    """A document for a worker process; `plan` and `client` are numbers of those sent before.

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


class Done(NamedTuple):
    """A finished document that only needs its answer recorded. `call`, `prompt`: None if no request was sent."""

    number: int
    outcome: Result | Unchanged | Copied
    call: Call | None = None
    prompt: PromptMeasurements | None = None


class GivenBack(NamedTuple):
    """A document that the main process must process; `call`: the request that was sent for it, if any."""

    number: int
    call: Call | None = None


@dataclass(frozen=True, slots=True)
class Here:
    """A document that the main process must process; `sent`: its first request, `digest`: of the message sent."""

    entry: Entry
    plan: ExtractionPlan
    alone: bool
    sent: SentRequest | None = None
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
