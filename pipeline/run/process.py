"""One entry → one outcome: read, prompt, ask, judge, ask once more. It writes nothing, and waits for answers only.

    entry ─▶ bytes ─▶ document ─▶ prompts ─▶ ask ─▶ judge ─▶ Result
                │                    ▲                │
            Unchanged                └── complaint ◀──┘   …else Failure, or Postponed when no server could take it

The only broad `except` of the program is here: whatever a document does to us becomes its own failure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Protocol

from pipeline import documents
from pipeline.agents import Agent, names_special_tokens, render, variant_for
from pipeline.answers import AnswerError, judge, reask_prompt
from pipeline.answers.schema import CompiledSchema
from pipeline.config import ResolvedAgentConfig
from pipeline.documents.special_tokens import break_special_tokens
from pipeline.errors import REASKED, DocumentError, InternalError, Stage, kind_of
from pipeline.llm.error_patterns import without_echo
from pipeline.llm.failover import Failover
from pipeline.llm.provider import LOSSES_BEFORE_ALONE, Asked, Question
from pipeline.records import (
    Document,
    Entry,
    ExtractionAttempt,
    Failure,
    Outcome,
    Postponed,
    Result,
    Try,
    Unchanged,
    Usage,
    utc_now,
)
from pipeline.run.overflow import Kept, shorter, whole

logger = logging.getLogger(__name__)


class Asker(Protocol):
    """Who is asked: settles a question, with all retries that takes."""

    def ask(self, question: Question) -> Asked: ...


@dataclass(frozen=True, slots=True)
class Asking:
    """What one variant asks, and the fingerprint of it."""

    resolved: ResolvedAgentConfig
    fingerprint: str
    schema: CompiledSchema


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked and of whom; a refresh replaces it whole, and running documents keep theirs.

    `canaries`: the endpoints that were sent a canary in this run, shared by its plans.
    """

    agent: Agent
    askings: Mapping[str, Asking]
    client: Failover
    pinned: str | None = None
    text_field: str = "text"
    repair: str = "basic"
    raw_chars: int = 2000
    canaries: set[str | None] = field(default_factory=set, compare=False)

    def asking_for(self, document_id: str) -> Asking:
        """The variant's asking that this document gets, always the same one."""
        return self.askings[variant_for(self.agent, document_id, pinned=self.pinned)]


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of an entry, and the requests it took."""

    entry: Entry
    outcome: Outcome
    attempts: tuple[ExtractionAttempt, ...] = ()


@dataclass(slots=True)
class _Trail:
    """What is known so far about one document in the works."""

    entry: Entry
    asking: Asking
    client: Asker
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    attempts: list[ExtractionAttempt] = field(default_factory=list)
    reasks: int = 0
    losses: int = 0
    stage: Stage = "load"


class _NoServerError(Exception):
    """No server could take the document."""


def process(
    entry: Entry, plan: Plan, *, client: Asker, alone: bool = False, now: Callable[[], str] = utc_now
) -> Finished:
    """The outcome of an entry; never raises. `alone`: nothing else is in flight, and one lost server is the end."""
    trail = _Trail(entry, plan.asking_for(entry.id), client)
    outcome: Outcome
    try:
        outcome = _steps(trail, plan, alone=alone, now=now)
    except _NoServerError:
        last = trail.attempts[-1] if trail.attempts else None
        reason = last.reason if last and last.reason else "connection_error"
        message = f"a server was lost each time it worked on this document: {last.message if last else ''}"
        outcome = _failure(trail, plan, reason=reason, message=message, now=now)
        outcome = outcome if alone and trail.losses else Postponed(entry, outcome, losses=trail.losses)
    except DocumentError as problem:
        trail.stage = problem.stage
        trail.entry = replace(entry, version=None) if problem.again else entry
        outcome = _failure(trail, plan, reason=problem.reason, message=str(problem), now=now)
    except AnswerError as problem:
        trail.stage = problem.stage
        outcome = _failure(trail, plan, reason=problem.reason, message=problem.message, now=now)
    except Exception as fault:
        trail.stage = "internal"
        told = f"{type(fault).__name__} in {_where(fault)}"
        unquoted = InternalError(told).with_traceback(fault.__traceback__)  # its own message might quote the document
        logger.error("internal error", extra={"document": entry.id}, exc_info=unquoted)
        outcome = _failure(trail, plan, reason="internal_error", message=told, now=now)
    return Finished(entry, outcome, tuple(trail.attempts))


def _steps(trail: _Trail, plan: Plan, *, alone: bool, now: Callable[[], str]) -> Outcome:
    entry = trail.entry
    data = entry.read()
    trail.sha256 = sha256(data).hexdigest()
    if entry.stands and entry.known is not None and entry.known.sha256 == trail.sha256:
        return Unchanged(entry.id, failed=entry.known.failed)
    if entry.duplicate_of is not None:
        raise DocumentError("duplicate_id", f"another document of this run has the id {entry.duplicate_of!r} already")
    document = documents.decode(entry, data, text_field=plan.text_field)
    trail.notes, trail.stage = document.notes, "prompt"
    return _ask(trail, plan, document=document, alone=alone, now=now)


def _ask(trail: _Trail, plan: Plan, *, document: Document, alone: bool, now: Callable[[], str]) -> Outcome:
    """Asks, and asks again with the complaint or less of the text, until there is a result or no more may be asked."""
    resolved, schema = trail.asking.resolved, trail.asking.schema
    kept, complaint = whole(document.text), None
    document = _harmless(trail, document, kept)
    prompts = render(resolved, document)
    while True:
        attempt = _once(trail, prompts=prompts, text=document.text, alone=alone)
        if not attempt.ok and complaint is not None and kind_of(attempt.reason or "") == "document":
            raise complaint
        if not attempt.ok:
            size = sum(map(len, prompts.values()))
            cut = None if trail.reasks else shorter(kept, attempt, overflow=resolved.overflow, prompt_chars=size)
            if cut is None:
                raise DocumentError(attempt.reason or "bad_response", attempt.message, stage="call")
            kept = cut
            document = _harmless(trail, document, kept)
            prompts = render(resolved, document)
            trail.notes = _with(trail.notes, "document_truncated")
            continue
        try:
            answer = judge(attempt.raw_text or "", schema, document_text=kept.quotable, repair=plan.repair)
        except AnswerError as problem:
            trail.attempts[-1] = replace(attempt, refused=problem.reason)
            if problem.reason not in REASKED or trail.reasks >= resolved.max_reasks:
                raise
            complaint, trail.reasks = problem, trail.reasks + 1
            user = render(resolved, document)["user"]
            said, _ = break_special_tokens(attempt.raw_text or "")
            prompts = {**prompts, "user": reask_prompt(user, said, problem)}
            continue
        trail.notes = (*trail.notes, *answer.notes)
        return _result(trail, document, output=answer.value, repaired=answer.repaired, now=now)


def _harmless(trail: _Trail, document: Document, kept: Kept) -> Document:
    """The document as it stands in the prompt: what is kept of it, and no special token that could end its message."""
    text, broken = break_special_tokens(kept.shown)
    if broken or names_special_tokens(trail.asking.resolved, document):
        trail.notes = _with(trail.notes, "special_tokens_broken")
    return replace(document, text=text)


def _once(trail: _Trail, *, prompts: Mapping[str, str], text: str, alone: bool) -> ExtractionAttempt:
    """The attempt that settled one ask; its failures are in the trail."""
    trail.stage = "call"
    asking, losses = trail.asking, trail.entry.losses
    question = Question(
        asking.resolved.variant,
        prompts,
        asking.schema.for_server,
        text,
        document=trail.entry.id,
        losses=losses,
        alone=alone,
    )
    asked = trail.client.ask(question)
    said = (text, prompts["user"])
    trail.attempts += [replace(each, message=without_echo(each.message, *said)) for each in asked.attempts]
    trail.losses += asked.losses
    if asked.unavailable:
        raise _NoServerError
    settled = trail.attempts[-1]
    trail.notes = _with(trail.notes, *settled.notes)
    return settled


def is_suspect(entry: Entry) -> bool:
    """True when servers were lost over this entry so often that it must be sent alone."""
    return entry.losses >= LOSSES_BEFORE_ALONE


def _result(trail: _Trail, document: Document, *, output: object, repaired: bool, now: Callable[[], str]) -> Result:
    answered, resolved = trail.attempts[-1], trail.asking.resolved
    return Result(
        id=trail.entry.id,
        uri=trail.entry.uri,
        sha256=document.sha256,
        agent=resolved.agent,
        variant=resolved.variant,
        fingerprint=trail.asking.fingerprint,
        output=output,
        model=answered.model,
        attempts=len(trail.attempts),
        reasks=trail.reasks,
        repaired=repaired,
        notes=trail.notes,
        usage=_usage(trail.attempts),
        context_length=answered.context_length,
        document_chars=len(document.text),
        metadata=document.metadata,
        latency_s=round(sum(attempt.latency_s for attempt in trail.attempts), 3),
        finished_at=now(),
        version=trail.entry.version,
    )


def _failure(trail: _Trail, plan: Plan, *, reason: str, message: str, now: Callable[[], str]) -> Failure:
    entry, asking = trail.entry, trail.asking
    last = trail.attempts[-1] if trail.attempts else None
    raw = last.raw_text[: plan.raw_chars] if last and last.raw_text and plan.raw_chars else None
    error = last.error if last and last.error and trail.stage == "call" else reason
    known = entry.known
    again = known is not None and (known.sha256, known.fingerprint) == (trail.sha256, asking.fingerprint)
    return Failure(
        id=entry.id,
        uri=entry.uri,
        sha256=trail.sha256,
        agent=asking.resolved.agent,
        variant=asking.resolved.variant,
        fingerprint=asking.fingerprint,
        stage=trail.stage,
        reason=reason,
        error=error,
        message=message,
        attempts=len(trail.attempts),
        history=tuple(
            Try(step.model.provider, step.model.endpoint, step.error or step.refused, round(step.latency_s, 3))
            for step in trail.attempts
        ),
        raw=raw.encode("utf-8", "replace").decode() if raw else raw,
        usage=_usage(trail.attempts),
        notes=trail.notes,
        runs=known.runs + 1 if again and known and known.failed else 1,
        finished_at=now(),
        version=entry.version,
        reasks=trail.reasks,
    )


def _usage(attempts: list[ExtractionAttempt]) -> Usage:
    """Tokens summed over the attempts; None where no server told any."""
    prompt = [a.prompt_tokens for a in attempts if a.prompt_tokens is not None]
    completion = [a.completion_tokens for a in attempts if a.completion_tokens is not None]
    return Usage(sum(prompt) if prompt else None, sum(completion) if completion else None)


def _with(notes: tuple[str, ...], *more: str) -> tuple[str, ...]:
    return (*notes, *(note for note in dict.fromkeys(more) if note not in notes))


def _where(fault: BaseException) -> str:
    """The place of a fault in the code: its message might quote the document."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_name} line {trace.tb_lineno}" if trace else "unknown"
