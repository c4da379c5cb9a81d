"""One text → one answer: build the prompt, send it, validate the answer, and retry with the error or with less text.

    text ─▶ prompts ─▶ ask ─▶ judge ─▶ Answer
               ▲                │
               └── complaint ◀──┘   …else an error with the reason

It builds no outcome. Documents that are sent whole (process.py) and windows (windows/window_outcome.py) both use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.agents import render
from pipeline.agents.prompts import document_places
from pipeline.answers import Answer, AnswerError, judge, reask_prompt
from pipeline.answers.schema import CompiledSchema
from pipeline.config.redaction import SECRETS
from pipeline.documents.special_tokens import break_special_tokens
from pipeline.errors import REASKED, DocumentError, kind_of
from pipeline.llm.error_patterns import without_echo
from pipeline.llm.prompt_length.repetition import size_of
from pipeline.llm.provider import ExtractionRequest
from pipeline.long import Span
from pipeline.records import Document, ExtractionAttempt, changed
from pipeline.run.document.attempts import with_notes
from pipeline.run.document.breaking import harmless_names
from pipeline.run.document.state import DocumentState
from pipeline.run.plan import ExtractionPlan


class NoServerError(Exception):
    """No server could take the document."""


@dataclass(frozen=True, slots=True)
class ModelText:
    """A text as a model sees it: the `document` of the prompt, and the parts (`spans`) of `text` in it.

    `quotable`: these parts as they are in the prompt, for the search of quotes; "" where they are unchanged. `pages`:
    where pages of `text` begin; None: after its form feeds. `is_window`: the parts are a window and its lead, if any.
    """

    document: Document
    text: str
    spans: tuple[Span, ...]
    quotable: str = ""
    pages: Sequence[int] | None = None
    is_window: bool = False


Shorten = Callable[[ExtractionAttempt], "ModelText | None"]
"""A function that returns a shorter text after a failed attempt; None when a shorter text would not help."""


def extract_answer(
    state: DocumentState,
    plan: ExtractionPlan,
    model_text: ModelText,
    *,
    schema: CompiledSchema,
    shorten: Shorten,
    alone: bool,
) -> tuple[Answer, ModelText]:
    """Return the valid answer and the text that it is about.

    Raise DocumentError or AnswerError when no more requests are allowed, NoServerError when no server took the text.
    """
    resolved = state.query.resolved
    complaint: AnswerError | None = None
    suffix = ""
    while True:
        attempt = _send(state, model_text.document, schema.for_server, suffix=suffix, alone=alone)
        if not attempt.ok and complaint is not None and kind_of(attempt.reason or "") == "document":
            raise complaint
        if not attempt.ok:
            shorter = None if state.reasks else shorten(attempt)
            if shorter is None:
                raise DocumentError(attempt.reason or "bad_response", attempt.message, stage="call")
            model_text = shorter
            continue
        try:
            answer = _judged(attempt.raw_text or "", model_text, schema, repair=plan.repair)
        except AnswerError as problem:
            state.attempts[-1] = changed(attempt, rejection=problem.reason)
            if problem.reason not in REASKED or state.reasks >= resolved.max_reasks:
                raise
            complaint = problem
            state.reasks += 1
            quoted, _ = break_special_tokens(attempt.raw_text or "")
            suffix = reask_prompt("", quoted, problem)
            continue
        state.notes = (*state.notes, *answer.notes)
        return answer, model_text


def _judged(text: str, model_text: ModelText, schema: CompiledSchema, *, repair: str) -> Answer:
    """Return the valid answer; raise AnswerError for an invalid one, and for one that contains a secret."""
    answer = judge(
        text,
        schema,
        document_text=model_text.text,
        spans=model_text.spans,
        shown=model_text.quotable,
        pages=model_text.pages,
        is_window=model_text.is_window,
        repair=repair,
    )
    if SECRETS.holds(text):
        raise AnswerError("schema_invalid", "the answer contains a secret of the configuration", stage="validate")
    return answer


def _send(
    state: DocumentState, document: Document, json_schema: Mapping[str, object], *, suffix: str, alone: bool
) -> ExtractionAttempt:
    """Send one request; return its last attempt. All attempts go to `state`. `suffix`: text after the user message."""
    state.stage = "call"
    query = state.query
    text = document.text
    safe_document = harmless_names(document, tokens=state.tokens)

    def prompts_for(part: str, is_full_prompt: bool) -> Mapping[str, str]:
        rendered = render(
            query.resolved, safe_document if part is safe_document.text else changed(safe_document, text=part)
        )
        return {**rendered, "user": rendered["user"] + suffix} if is_full_prompt else rendered

    prompts = prompts_for(text, True)
    question = ExtractionRequest(
        query.resolved.variant,
        prompts,
        json_schema,
        text,
        document=state.entry.id,
        losses=state.entry.losses,
        alone=alone,
        was_refused=state.entry.was_refused,
        prompts_for=prompts_for,
        places=document_places(query.resolved.user_prompt),
        metadata=document.metadata,
    )
    result = state.client.ask(question)
    echoes = (text, prompts["user"])
    state.attempts += [
        changed(attempt, message=without_echo(attempt.message, *echoes)) if attempt.message else attempt
        for attempt in result.attempts
    ]
    state.losses += result.losses
    state.was_refused = state.was_refused or result.was_refused
    if result.unavailable:
        raise NoServerError
    final = state.attempts[-1]
    state.notes = with_notes(state.notes, *final.notes)
    if query.split is not None and final.ok:
        query.split.sizer.learn(str(final.model.endpoint), size_of(*prompts.values()), final.prompt_tokens)
    return final
