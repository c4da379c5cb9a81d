"""The state of one document in progress, and the records made from it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

from pipeline.answers import Answer
from pipeline.config.redaction import SECRETS
from pipeline.errors import Stage
from pipeline.llm.provider import AskResult, ExtractionRequest
from pipeline.records import Document, Entry, ExtractionAttempt, Failure, Result
from pipeline.run.document.attempts import history, requests_sent, runs_so_far, usage
from pipeline.run.plan import ExtractionPlan, VariantQuery
from pipeline.run.selection.deciding import LENGTH, with_context


class ExtractionClient(Protocol):
    """The sender of the requests; `ask` sends one, with all its retries."""

    def ask(self, question: ExtractionRequest) -> AskResult: ...

    def special_tokens(self, candidates: Collection[str], *, variant: str) -> frozenset[str]: ...


@dataclass(slots=True)
class DocumentState:
    """The state of one document in progress."""

    entry: Entry
    query: VariantQuery
    client: ExtractionClient
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    attempts: list[ExtractionAttempt] = field(default_factory=list)
    reasks: int = 0
    losses: int = 0
    was_refused: bool = False
    stage: Stage = "load"
    tokens: frozenset[str] = frozenset()
    question_sha256: str | None = None


def result_of(state: DocumentState, document: Document, *, answer: Answer, text: str, now: Callable[[], str]) -> Result:
    """Return the result of the last attempt's answer. `text`: the document's own, which evidence refers to."""
    last_attempt = state.attempts[-1]
    resolved = state.query.resolved
    return Result(
        id=state.entry.id,
        uri=state.entry.uri,
        sha256=document.sha256,
        agent=resolved.agent,
        variant=resolved.variant,
        fingerprint=state.query.whole_fingerprint,
        output=answer.value,
        model=last_attempt.model,
        attempts=requests_sent(state.attempts, state.entry.earlier_failure),
        reasks=state.reasks,
        repaired=answer.repaired,
        notes=state.notes,
        usage=usage(state.attempts, state.entry.earlier_failure),
        context_length=last_attempt.context_length,
        document_chars=len(document.text),
        metadata=document.metadata,
        text_sha256=sha256(text.encode("utf-8")).hexdigest(),
        evidence=answer.evidence,
        latency_s=round(sum(attempt.latency_s for attempt in state.attempts), 3),
        finished_at=now(),
        version=state.entry.version,
        history=history(state.attempts[:-1], state.entry.earlier_failure),
        question_sha256=state.question_sha256,
    )


def _raw_start(raw_text: str, chars: int) -> str:
    """Return the beginning of the model's text, with secrets masked."""
    return SECRETS.redact(raw_text[: 4 * chars + 4096])[:chars]


def failure_of(
    state: DocumentState, plan: ExtractionPlan, *, reason: str, message: str, now: Callable[[], str]
) -> Failure:
    """Return the failure of the document in its present state."""
    entry = state.entry
    query = state.query
    last_attempt = state.attempts[-1] if state.attempts else None
    raw = (
        _raw_start(last_attempt.raw_text, plan.raw_chars)
        if last_attempt and last_attempt.raw_text and plan.raw_chars
        else None
    )
    error = last_attempt.error if last_attempt and last_attempt.error and state.stage == "call" else reason
    return Failure(
        id=entry.id,
        uri=entry.uri,
        sha256=state.sha256,
        agent=query.resolved.agent,
        variant=query.resolved.variant,
        fingerprint=query.failure_fingerprint,
        stage=state.stage,
        reason=reason,
        error=error,
        message=message,
        attempts=requests_sent(state.attempts, state.entry.earlier_failure),
        history=history(state.attempts, entry.earlier_failure),
        raw=raw.encode("utf-8", "replace").decode() if raw else raw,
        usage=usage(state.attempts, state.entry.earlier_failure),
        notes=state.notes,
        runs=runs_so_far(entry.latest, state.sha256, query) + 1,
        finished_at=now(),
        version=entry.version,
        reasks=state.reasks,
        decided_by=_decided_by(state, plan, reason),
    )


def _decided_by(state: DocumentState, plan: ExtractionPlan, reason: str) -> str | None:
    """Return the digest of the settings that decide the failure, with the server's context if the prompt was long."""
    digest = state.query.decided_by.get(reason)
    if reason not in LENGTH or not state.attempts:
        return digest
    last_context = state.attempts[-1].context_length or 0
    return with_context(digest, max(last_context, plan.client.context_length(state.query.resolved.variant) or 0))
