"""One window of a long document → one outcome.

    window ─▶ sent (document/extraction.py) ─▶ WindowAnswer
                  └─ too long, or no valid answer ─▶ Divided: smaller windows   …else WindowFailed or Postponed

It runs in workers, writes nothing, and does not depend on the other windows in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.answers import Answer
from pipeline.llm.prompt_length.repetition import size_of
from pipeline.long.sizing import WindowSize
from pipeline.long.windows import Span, cut, divide
from pipeline.records import ExtractionAttempt, Failure, changed, utc_now
from pipeline.run.document.attempts import requests_sent, usage
from pipeline.run.document.extraction import extract_answer
from pipeline.run.document.process import FinishedEntry, outcome_of_steps
from pipeline.run.document.state import DocumentState, ExtractionClient
from pipeline.run.plan import ExtractionPlan
from pipeline.run.windows.cutting import (
    TOO_LONG,
    Divided,
    LongDocument,
    Window,
    WindowFailed,
    blank_answer,
    room_of,
)
from pipeline.run.windows.window_text import model_text
from pipeline.window_answers import WindowAnswer

_DIVIDED_ANSWERS = frozenset({"invalid_json", "schema_invalid", "not_grounded", "generation_loop"})
_MOST_DIVISIONS = 2
"""Divisions of a window without a valid answer: one failure in 200 windows must not fail most long documents."""


def ask_window(
    long: LongDocument,
    window: Window,
    plan: ExtractionPlan,
    *,
    client: ExtractionClient,
    alone: bool = False,
    now: Callable[[], str] = utc_now,
) -> FinishedEntry:
    """Return the outcome of one window; never raises."""
    entry = changed(
        long.entry, losses=window.losses, was_refused=window.was_refused, earlier_failure=window.earlier_failure
    )
    state = DocumentState(entry, long.query, client, sha256=long.document.sha256, tokens=long.tokens)

    def steps() -> WindowAnswer:
        state.stage = "prompt"
        window_view = model_text(state, long, window.span)
        answer, _ = extract_answer(
            state, plan, window_view, schema=long.split.schema, shorten=lambda _: None, alone=alone
        )
        return _answer_of(state, long, window.span, answer=answer, now=now)

    finished = outcome_of_steps(state, plan, steps, alone=alone, now=now)
    if isinstance(finished.outcome, Failure):
        divided = _divided(long, window, plan, finished.outcome, finished.attempts)
        return replace(finished, outcome=divided or WindowFailed(finished.outcome))
    return finished


def _answer_of(
    state: DocumentState, long: LongDocument, span: Span, *, answer: Answer, now: Callable[[], str]
) -> WindowAnswer:
    last_attempt = state.attempts[-1]
    return replace(
        blank_answer(long, span),
        output=answer.value,
        evidence=answer.evidence,
        attempts=requests_sent(state.attempts, state.entry.earlier_failure),
        reasks=state.reasks,
        repaired=answer.repaired,
        notes=state.notes,
        model=last_attempt.model,
        usage=usage(state.attempts, state.entry.earlier_failure),
        context_length=last_attempt.context_length,
        latency_s=round(sum(attempt.latency_s for attempt in state.attempts), 3),
        finished_at=now(),
    )


def _divided(
    long: LongDocument,
    window: Window,
    plan: ExtractionPlan,
    failure: Failure,
    attempts: Sequence[ExtractionAttempt],
) -> Divided | None:
    """Divide a failed window into smaller ones; None when that would not help, or when they would be too small."""
    text = long.document.text
    if failure.reason in TOO_LONG:
        size = _size_after(long, window.span, plan, attempts[-1]) if attempts else None
        if size is not None and len(spans := recut(long, window.span, size)) > 1:
            return Divided(tuple(Window(span, divisions=window.divisions) for span in spans), size)
        divisions = window.divisions
    elif failure.reason in _DIVIDED_ANSWERS and window.divisions < _MOST_DIVISIONS:
        divisions = window.divisions + 1
    else:
        return None
    halves = divide(text, window.span, long.size.overlap_bytes, page_starts=long.pages)
    return None if halves is None else Divided(tuple(Window(span, divisions=divisions) for span in halves))


def _size_after(long: LongDocument, span: Span, plan: ExtractionPlan, refusal: ExtractionAttempt) -> WindowSize | None:
    """Return the size that fits according to a refusal; None when it has no numbers, or the answer was too long."""
    if refusal.reason == "output_truncated" or not (refusal.needed_tokens or refusal.context_length):
        return None
    room, _ = room_of(plan, long.query, long.lead)
    if refusal.context_length:
        room = replace(room, context_length=refusal.context_length)
    return long.split.sizer.size_after_refusal(
        room,
        size_of(long.document.text[span.start : span.end]),
        needed_tokens=refusal.needed_tokens,
        bytes_per_token=long.size.bytes_per_token,
    )


def recut(long: LongDocument, span: Span, size: WindowSize) -> list[Span]:
    """Cut a window again into overlapping windows of another size."""
    part = long.document.text[span.start : span.end]
    pages = [page - span.start for page in long.pages if span.start <= page <= span.end]
    spans = cut(part, size.budget_bytes, size.overlap_bytes, page_starts=pages)
    return [Span(span.start + start, span.start + end) for start, end in spans]
