"""One entry → one outcome: read, prompt, ask, judge, ask once more. It writes nothing, and waits for answers only.

    entry ─▶ bytes ─▶ document ─▶ prompts ─▶ ask ─▶ judge ─▶ Result
                │                    ▲                │
            Unchanged                └── complaint ◀──┘   …else Failure, or Postponed when no server could take it

The only broad `except` of the program is here: whatever a document does to us becomes its own failure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from pipeline import documents
from pipeline.agents import render
from pipeline.agents.prompts import document_places
from pipeline.answers import AnswerError, judge, reask_prompt
from pipeline.config.redaction import SECRETS
from pipeline.documents.special_tokens import break_special_tokens
from pipeline.errors import REASKED, DocumentError, InternalError, PipelineError, TryLaterError, kind_of
from pipeline.llm.error_patterns import without_echo
from pipeline.llm.provider import LOSSES_BEFORE_ALONE, ExtractionRequest
from pipeline.output.copies import Copied, Copies
from pipeline.records import (
    Document,
    Entry,
    ExtractionAttempt,
    Left,
    Outcome,
    Postponed,
    Unchanged,
    changed,
    utc_now,
)
from pipeline.run.attempts import with_notes
from pipeline.run.breaking import broken, candidates_in, harmless, harmless_names
from pipeline.run.copies import copy_of, question_sha256
from pipeline.run.document_state import Asker, DocumentState, failure_of, result_of
from pipeline.run.overflow import Kept, shorter, whole
from pipeline.run.plan import ExtractionPlan
from pipeline.run.shortage import has_memory, place_of, shortage_of
from pipeline.stores import ReadingStoppedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of an entry, and the requests it took."""

    entry: Entry
    outcome: Outcome | Copied
    attempts: tuple[ExtractionAttempt, ...] = ()


class _NoServerError(Exception):
    """No server could take the document."""


def process(
    entry: Entry,
    plan: ExtractionPlan,
    *,
    client: Asker,
    alone: bool = False,
    now: Callable[[], str] = utc_now,
    copies: Copies | None = None,
) -> Finished:
    """The outcome of an entry; never raises. `alone`: nothing else is in flight, and one lost server is the end."""
    state = DocumentState(entry, plan.query_for(entry.id), client)
    outcome: Outcome | Copied
    try:
        outcome = _steps(state, plan, copies=copies, alone=alone, now=now)
    except (ReadingStoppedError, PipelineError) as error:
        outcome = Left(entry.id, error if isinstance(error, PipelineError) else None)
    except _NoServerError:
        last = state.attempts[-1] if state.attempts else None
        reason = last.reason if last and last.reason else "connection_error"
        message = f"a server was lost each time it worked on this document: {last.message if last else ''}"
        outcome = failure_of(state, plan, reason=reason, message=message, now=now)
        outcome = (
            outcome if alone and state.losses else Postponed(entry, outcome, losses=state.losses, refused=state.refused)
        )
    except DocumentError as problem:
        state.stage = problem.stage
        state.entry = changed(entry, version=None) if problem.again else entry
        outcome = failure_of(state, plan, reason=problem.reason, message=str(problem), now=now)
    except AnswerError as problem:
        state.stage = problem.stage
        outcome = failure_of(state, plan, reason=problem.reason, message=problem.message, now=now)
    except Exception as fault:  # whatever one document raises is its own failure, and must not end its worker
        if (shortage := shortage_of(fault)) is not None:
            return Finished(entry, _short(state, plan, shortage, alone=alone, now=now), tuple(state.attempts))
        state.stage = "internal"
        told = f"{type(fault).__name__} in {place_of(fault)}"
        unquoted = InternalError(told).with_traceback(fault.__traceback__)  # its own message might quote the document
        logger.error("internal error", extra={"document": entry.id}, exc_info=unquoted)
        outcome = failure_of(state, plan, reason="internal_error", message=told, now=now)
    return Finished(entry, outcome, tuple(state.attempts))


def _short(
    state: DocumentState, plan: ExtractionPlan, shortage: str, *, alone: bool, now: Callable[[], str]
) -> Outcome:
    """Have the document done once more with nothing else in flight; what is short of memory even then is too large."""
    message = f"this machine ran out of {shortage}"
    if alone and (shortage != "memory" or not has_memory()):
        return Left(state.entry.id, TryLaterError(f"{message}, with one document in flight"))
    told = f"{message}, with nothing else in flight" if alone else message
    failure = failure_of(state, plan, reason="document_too_expensive", message=told, now=now)
    return failure if alone else Postponed(state.entry, failure, losses=LOSSES_BEFORE_ALONE)


def _steps(
    state: DocumentState, plan: ExtractionPlan, *, copies: Copies | None, alone: bool, now: Callable[[], str]
) -> Outcome | Copied:
    entry = state.entry
    query = state.asking
    data = entry.read()
    state.sha256 = sha256(data).hexdigest()
    if entry.stands and entry.known is not None and entry.known.sha256 == state.sha256:
        return Unchanged(entry.id, failed=entry.known.failed)
    if entry.duplicate_of is not None:
        raise DocumentError("duplicate_id", f"another document of this run has the id {entry.duplicate_of!r} already")
    document = documents.decode(entry, data, text_field=plan.text_field, limits=plan.limits, sha256=state.sha256)
    state.notes = document.notes
    state.stage = "prompt"
    question = state.question_sha256 = question_sha256(document, query.resolved.user_prompt)
    if (copy := copy_of(entry, document, query, question=question, copies=copies)) is not None:
        return copy
    return _ask(state, plan, document=document, alone=alone, now=now)


def _ask(
    state: DocumentState, plan: ExtractionPlan, *, document: Document, alone: bool, now: Callable[[], str]
) -> Outcome:
    """Asks, and asks again with the complaint or less of the text, until there is a result or no more may be asked."""
    resolved = state.asking.resolved
    schema = state.asking.schema
    kept, complaint, after = whole(document.text), None, ""
    state.tokens = state.client.special_tokens(candidates_in(document), variant=resolved.variant)
    document = _harmless(state, document, kept)
    while True:
        attempt = _once(state, document, after=after, alone=alone)
        if not attempt.ok and complaint is not None and kind_of(attempt.reason or "") == "document":
            raise complaint
        if not attempt.ok:
            size = sum(map(len, render(resolved, document).values()))
            cut = None if state.reasks else shorter(kept, attempt, overflow=resolved.overflow, prompt_chars=size)
            if cut is None:
                raise DocumentError(attempt.reason or "bad_response", attempt.message, stage="call")
            kept = cut
            document = _harmless(state, document, kept)
            state.notes = with_notes(state.notes, "document_truncated")
            continue
        is_broken = "special_tokens_broken" in state.notes
        shown = broken(kept.quotable, resolved, tokens=state.tokens) if is_broken else ""
        try:
            answer = judge(
                attempt.raw_text or "",
                schema,
                document_text=kept.text,
                spans=kept.spans,
                shown=shown,
                pages=document.pages,
                repair=plan.repair,
            )
            _refuse_secrets(attempt.raw_text or "")
        except AnswerError as problem:
            state.attempts[-1] = changed(attempt, refused=problem.reason)
            if problem.reason not in REASKED or state.reasks >= resolved.max_reasks:
                raise
            complaint, state.reasks = problem, state.reasks + 1
            said, _ = break_special_tokens(attempt.raw_text or "")
            after = reask_prompt("", said, problem)
            continue
        state.notes = (*state.notes, *answer.notes)
        return result_of(state, document, answer=answer, text=kept.text, now=now)


def _refuse_secrets(text: str) -> None:
    """AnswerError when the answer holds a secret: in a record nothing is edited, and no secret is written."""
    if SECRETS.holds(text):
        raise AnswerError("schema_invalid", "the answer holds a secret of the configuration", stage="validate")


def _harmless(state: DocumentState, document: Document, kept: Kept) -> Document:
    """The document as it stands in the prompt: what is kept of it, and no special token that could end its message."""
    shown = kept.shown
    document = document if shown == document.text else changed(document, text=shown)
    found, is_broken = harmless(document, state.asking.resolved, tokens=state.tokens)
    state.notes = with_notes(state.notes, "special_tokens_broken") if is_broken else state.notes
    return found


def _once(state: DocumentState, document: Document, *, after: str, alone: bool) -> ExtractionAttempt:
    """The attempt that settled one ask; its failures are in the trail. `after`: what is said behind the document."""
    state.stage = "call"
    asking = state.asking
    losses = state.entry.losses
    text = document.text
    named = harmless_names(document, tokens=state.tokens)

    def prompts_for(part: str, whole: bool) -> Mapping[str, str]:
        rendered = render(asking.resolved, named if part is named.text else changed(named, text=part))
        return {**rendered, "user": rendered["user"] + after} if whole else rendered

    prompts = prompts_for(text, True)
    question = ExtractionRequest(
        asking.resolved.variant,
        prompts,
        asking.schema.for_server,
        text,
        document=state.entry.id,
        losses=losses,
        alone=alone,
        refused=state.entry.refused,
        prompts_for=prompts_for,
        places=document_places(asking.resolved.user_prompt),
        metadata=document.metadata,
    )
    asked = state.client.ask(question)
    said = (text, prompts["user"])
    state.attempts += [
        changed(each, message=without_echo(each.message, *said)) if each.message else each for each in asked.attempts
    ]
    state.losses += asked.losses
    state.refused = state.refused or asked.refused
    if asked.unavailable:
        raise _NoServerError
    settled = state.attempts[-1]
    state.notes = with_notes(state.notes, *settled.notes)
    return settled


def is_suspect(entry: Entry) -> bool:
    """True when servers were lost over this entry so often that it must be sent alone."""
    return entry.losses >= LOSSES_BEFORE_ALONE
