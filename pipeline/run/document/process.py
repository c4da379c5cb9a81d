"""One entry → one outcome: read it, then extract (extraction.py). Writes nothing; waits only for answers.

    entry ─▶ bytes ─▶ document ─▶ sent ─▶ Result   …else Failure, or Postponed when no server could take it
                │
            Unchanged

The only broad `except` of the program is here: any error that a document causes becomes that document's failure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256

from pipeline import documents
from pipeline.agents import render
from pipeline.agents.prompts import LEAD
from pipeline.answers import AnswerError
from pipeline.errors import DocumentError, InternalError, PipelineError, TryLaterError
from pipeline.llm.provider import LOSSES_BEFORE_ALONE
from pipeline.output.copies import Copied
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
from pipeline.run.document.attempts import with_notes
from pipeline.run.document.breaking import broken, candidates_in, with_broken_tokens
from pipeline.run.document.extraction import ModelText, NoServerError, extract_answer
from pipeline.run.document.overflow import KeptText, full_text, shorter
from pipeline.run.document.state import DocumentState, ExtractionClient, failure_of, result_of
from pipeline.run.plan import ExtractionPlan
from pipeline.run.selection.copies import Questions, copy_of, question_sha256
from pipeline.run.shortage import has_memory, place_of, shortage_of
from pipeline.run.windows.cutting import CutDocument, Divided, EarlierAnswers, WindowFailed, cut_after, cut_before
from pipeline.stores import ReadingStoppedError
from pipeline.window_answers import WindowAnswer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FinishedEntry:
    """The outcome of an entry, and its requests."""

    entry: Entry
    outcome: Outcome | Copied | CutDocument | WindowAnswer | Divided | WindowFailed
    attempts: tuple[ExtractionAttempt, ...] = ()
    variant: str = ""


def process(
    entry: Entry,
    plan: ExtractionPlan,
    *,
    client: ExtractionClient,
    alone: bool = False,
    now: Callable[[], str] = utc_now,
    copies: Questions | None = None,
    earlier: EarlierAnswers | None = None,
) -> FinishedEntry:
    """Return the outcome of an entry; never raises. `alone`: nothing else is in flight, a lost server is a failure."""
    state = DocumentState(entry, plan.query_for(entry.id), client)

    def steps() -> Outcome | Copied | CutDocument:
        return _steps(state, plan, copies=copies, earlier=earlier, alone=alone, now=now)

    return outcome_of_steps(state, plan, steps, alone=alone, now=now)


def outcome_of_steps(
    state: DocumentState,
    plan: ExtractionPlan,
    steps: Callable[[], Outcome | Copied | CutDocument | WindowAnswer],
    *,
    alone: bool,
    now: Callable[[], str],
) -> FinishedEntry:
    """Return the outcome of the steps, or of the error that ended them."""
    entry = state.entry
    outcome: Outcome | Copied | CutDocument | WindowAnswer
    try:
        outcome = steps()
    except (ReadingStoppedError, PipelineError) as error:
        outcome = Left(entry.id, error if isinstance(error, PipelineError) else None)
    except NoServerError:
        last_attempt = state.attempts[-1] if state.attempts else None
        reason = last_attempt.reason if last_attempt and last_attempt.reason else "connection_error"
        message = (
            f"a server was lost each time it worked on this document: {last_attempt.message if last_attempt else ''}"
        )
        outcome = failure_of(state, plan, reason=reason, message=message, now=now)
        if not (alone and state.losses):
            outcome = Postponed(entry, outcome, losses=state.losses, was_refused=state.was_refused)
    except DocumentError as problem:
        state.stage = problem.stage
        state.entry = changed(entry, version=None) if problem.is_transient else entry
        outcome = failure_of(state, plan, reason=problem.reason, message=str(problem), now=now)
    except AnswerError as problem:
        state.stage = problem.stage
        outcome = failure_of(state, plan, reason=problem.reason, message=problem.message, now=now)
    except Exception as fault:  # an error of one document must not end its worker
        if (shortage := shortage_of(fault)) is not None:
            return FinishedEntry(
                entry, _shortage_outcome(state, plan, shortage, alone=alone, now=now), tuple(state.attempts)
            )
        state.stage = "internal"
        fault_text = f"{type(fault).__name__} in {place_of(fault)}"
        # the error's own message might quote the document
        unquoted = InternalError(fault_text).with_traceback(fault.__traceback__)
        logger.error("internal error", extra={"document": entry.id}, exc_info=unquoted)
        outcome = failure_of(state, plan, reason="internal_error", message=fault_text, now=now)
    return FinishedEntry(entry, outcome, tuple(state.attempts), state.query.resolved.variant)


def _shortage_outcome(
    state: DocumentState, plan: ExtractionPlan, shortage: str, *, alone: bool, now: Callable[[], str]
) -> Outcome:
    """Return the outcome when the machine lacks `shortage`: postponed; if it was sent alone, a failure or Left."""
    message = f"this machine ran out of {shortage}"
    if alone and (shortage != "memory" or not has_memory()):
        return Left(state.entry.id, TryLaterError(f"{message}, with one document in flight"))
    text = f"{message}, with nothing else in flight" if alone else message
    failure = failure_of(state, plan, reason="document_too_expensive", message=text, now=now)
    return failure if alone else Postponed(state.entry, failure, losses=LOSSES_BEFORE_ALONE)


def _steps(
    state: DocumentState,
    plan: ExtractionPlan,
    *,
    copies: Questions | None,
    earlier: EarlierAnswers | None,
    alone: bool,
    now: Callable[[], str],
) -> Outcome | Copied | CutDocument:
    split = state.query.split
    with nullcontext() if split is None else split.turn(state.entry.size_bytes):
        document = _prepare(state, plan, copies=copies, earlier=earlier)
    if not isinstance(document, Document):
        return document
    try:
        return _ask(state, plan, document=document, alone=alone, now=now)
    except DocumentError as problem:
        state.stage = problem.stage
        refusal = failure_of(state, plan, reason=problem.reason, message=str(problem), now=now)
        if (cut := cut_after(state, plan, document=document, refusal=refusal)) is not None:
            return cut
        raise


def _prepare(
    state: DocumentState, plan: ExtractionPlan, *, copies: Questions | None, earlier: EarlierAnswers | None
) -> Document | Outcome | Copied | CutDocument:
    """Return the document to send whole, or the outcome of one for which no request is needed."""
    entry = state.entry
    query = state.query
    data = entry.read()
    state.sha256 = sha256(data).hexdigest()
    if entry.latest_is_valid and entry.latest is not None and entry.latest.sha256 == state.sha256:
        return Unchanged(entry.id, failed=entry.latest.failed)
    if entry.duplicate_of is not None:
        raise DocumentError("duplicate_id", f"another document of this run has the id {entry.duplicate_of!r} already")
    document = documents.decode(entry, data, text_field=plan.text_field, limits=plan.limits, sha256=state.sha256)
    state.notes = document.notes
    state.stage = "prompt"
    question = state.question_sha256 = question_sha256(document, query.resolved.user_prompt)
    if (copy := copy_of(entry, document, query, question=question, copies=copies)) is not None:
        return copy
    state.tokens = state.client.special_tokens(candidates_in(document), variant=query.resolved.variant)
    return cut_before(state, plan, document=document, earlier=earlier) or document


def _ask(
    state: DocumentState, plan: ExtractionPlan, *, document: Document, alone: bool, now: Callable[[], str]
) -> Outcome:
    """Return the outcome of the whole document, or of the part that the agent's `overflow` keeps."""
    part = full_text(document.text)
    model_text = _model_text(state, document, part)

    def shorten(attempt: ExtractionAttempt) -> ModelText | None:
        nonlocal part
        agent_config = state.query.resolved
        size = sum(map(len, render(agent_config, _model_text(state, document, part).document).values()))
        shorter_part = shorter(part, attempt, overflow=agent_config.overflow, prompt_chars=size)
        if shorter_part is None:
            return None
        part = shorter_part
        state.notes = with_notes(state.notes, "document_truncated")
        return _model_text(state, document, part)

    answer, model_text = extract_answer(
        state, plan, model_text, schema=state.query.schema, shorten=shorten, alone=alone
    )
    asked_document = changed(model_text.document, metadata=document.metadata)
    return result_of(state, asked_document, answer=answer, text=document.text, now=now)


def _model_text(state: DocumentState, document: Document, kept: KeptText) -> ModelText:
    """Return the kept text of a document as the model sees it: without special tokens that could end its message."""
    kept_text = kept.model_text
    resolved = state.query.resolved
    document = document if kept_text == document.text else changed(document, text=kept_text)
    harmless_document, is_broken = with_broken_tokens(document, resolved, tokens=state.tokens)
    state.notes = with_notes(state.notes, "special_tokens_broken") if is_broken else state.notes
    if resolved.split is not None and LEAD in harmless_document.metadata:
        harmless_document = changed(harmless_document, metadata={**harmless_document.metadata, LEAD: ""})
    has_broken = "special_tokens_broken" in state.notes
    quotable = broken(kept.quotable, resolved, tokens=state.tokens) if has_broken else ""
    return ModelText(harmless_document, kept.text, kept.spans, quotable, pages=document.pages or None)


def is_suspect(entry: Entry) -> bool:
    """Return True when servers were lost over this entry so often that it must be sent alone."""
    return entry.losses >= LOSSES_BEFORE_ALONE
