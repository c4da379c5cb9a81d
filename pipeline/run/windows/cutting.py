"""The decision whether a document is sent whole or in windows, and the places where it is cut.

    document ─▶ sizes of the serving provider ─▶ whole
                        │                        └─ refused for its length ─▶ cut
                        └─▶ cut ─▶ windows, less those that an earlier run has answered

Workers make the decision before the document is sent. It may call a server's tokenizer, but never a model.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

from pipeline.agents import render
from pipeline.agents.prompts import document_places
from pipeline.errors import DocumentError
from pipeline.evidence import page_starts
from pipeline.llm.prompt_length.repetition import size_of
from pipeline.llm.serving import Serving, serving
from pipeline.long.lead import lead_of
from pipeline.long.sizing import Count, Room, WindowSize
from pipeline.long.windows import LEAST_BUDGET_BYTES, LEAST_WINDOW_CHARS, Span, TooManyWindowsError, cut
from pipeline.records import Document, Entry, Failure, Usage, utc_now
from pipeline.run.document.state import DocumentState
from pipeline.run.plan import ExtractionPlan, VariantQuery
from pipeline.run.windows.split_query import SplitQuery, before_bytes
from pipeline.window_answers import WindowAnswer

TOO_LONG = frozenset({"context_length", "prompt_truncated", "output_truncated"})
"""Reasons for which a document, or a window, is cut into smaller pieces."""
_BYTES_PER_TOKEN = 3


@dataclass(frozen=True, slots=True)
class LongDocument:
    """Immutable description of a document that is cut into windows, for the workers that send them.

    `document`: with its own text, to which all places refer. `lead`: its beginning, "" for none. `tokens`: the texts in
    it that are special tokens for the server's tokenizer. `earlier_failure`: the failure of sending it whole, or None.
    """

    entry: Entry
    query: VariantQuery
    document: Document
    text_sha256: str
    question_sha256: str | None
    tokens: frozenset[str]
    lead: str
    pages: Sequence[int]
    earlier_failure: Failure | None
    size: WindowSize

    @property
    def split(self) -> SplitQuery:
        """Settings of the variant for long documents."""
        assert self.query.split is not None
        return self.query.split

    @property
    def size_bytes(self) -> int:
        """The memory of its text: one, two or four bytes a character."""
        return sys.getsizeof(self.document.text)


@dataclass(frozen=True, slots=True)
class CutDocument:
    """The outcome of a document that is sent in windows: the `spans` of the windows to send.

    `answered`: the windows that an earlier run has answered; `blank`: the windows without text, which are not sent.
    """

    long: LongDocument
    spans: tuple[Span, ...]
    answered: tuple[Span, ...]
    blank: tuple[Span, ...]

    @property
    def windows(self) -> int:
        """The number of all windows."""
        return len(self.spans) + len(self.answered) + len(self.blank)


@dataclass(frozen=True, slots=True)
class Window:
    """A window to send; `losses`, `was_refused` and `earlier_failure` as in an entry.

    `divisions`: how often it was divided because it had no valid answer.
    """

    span: Span
    losses: int = 0
    was_refused: bool = False
    earlier_failure: Failure | None = None
    divisions: int = 0


@dataclass(frozen=True, slots=True)
class Divided:
    """The outcome of a window that was too long or had no valid answer: smaller windows. `size`: a size that fits."""

    windows: tuple[Window, ...]
    size: WindowSize | None = None


@dataclass(frozen=True, slots=True)
class WindowFailed:
    """The outcome of a window that ends its document; the failure is the window's own."""

    failure: Failure


class EarlierAnswers(Protocol):
    """The answers about windows that may be reused (stored_answers.py)."""

    def spans(self, document: Document, text_sha256: str, question: str) -> list[Span]:
        """Return the windows of this text that are answered, sorted."""


def cut_before(
    state: DocumentState, plan: ExtractionPlan, *, document: Document, earlier: EarlierAnswers | None
) -> CutDocument | None:
    """Cut a document before it is sent; None when it must be sent whole.

    Documents are cut that are clearly too long, that were refused before, or that have answers about windows.
    """
    split = state.query.split
    if split is None:
        return None
    answered = [] if earlier is None else earlier.spans(document, _digest(document.text), split.question)
    if not (answered or state.entry.is_long or _is_too_long(plan, state.query, document)):
        return None
    return _cut(
        state,
        plan,
        document,
        answered=answered,
        earlier_failure=state.entry.earlier_failure,
        was_refused=state.entry.is_long,
    )


def cut_after(
    state: DocumentState, plan: ExtractionPlan, *, document: Document, refusal: Failure
) -> CutDocument | None:
    """Cut a document that did not fit whole; None when windows would not help."""
    if state.query.split is None or refusal.reason not in TOO_LONG:
        return None
    return _cut(state, plan, document, answered=[], earlier_failure=refusal, was_refused=True)


def room_of(plan: ExtractionPlan, query: VariantQuery, lead: str) -> tuple[Room, Serving | None]:
    """Return the tokens that the serving provider has for a text, and that provider."""
    resolved = query.resolved
    server = serving(plan.client, resolved.variant)
    fixed = server.prompt_tokens if server is not None else None
    if fixed is None:
        fixed = size_of(*render(resolved, Document("", "", "", "")).values()) // _BYTES_PER_TOKEN
    room = Room(
        context_length=server.context_length if server is not None else None,
        max_tokens=server.max_tokens if server is not None else resolved.max_tokens or 0,
        prompt_tokens=fixed,
        reasks=resolved.max_reasks > 0,
        before_bytes=before_bytes(resolved, lead),
        copies=document_places(resolved.user_prompt),
    )
    return room, server


def _is_too_long(plan: ExtractionPlan, query: VariantQuery, document: Document) -> bool:
    split = query.split
    assert split is not None
    room, server = room_of(plan, query, lead_of(document.text, split.settings.lead_chars))
    endpoint, count = _tokenizer(server)
    return split.sizer.sizing(document.text, room, endpoint=endpoint, count=count).is_cut


def _cut(
    state: DocumentState,
    plan: ExtractionPlan,
    document: Document,
    *,
    answered: Sequence[Span],
    earlier_failure: Failure | None,
    was_refused: bool,
) -> CutDocument | None:
    """Return the windows; None when there is no room for a window, or when one window would contain all of the text."""
    split = state.query.split
    assert split is not None
    text = document.text
    lead = lead_of(text, split.settings.lead_chars)
    room, server = room_of(plan, state.query, lead)
    endpoint, count = _tokenizer(server)
    size = split.sizer.size(room, split.sizer.bytes_per_token(text, endpoint=endpoint, count=count))
    if size is None or len(text) < 2 * LEAST_WINDOW_CHARS:
        return None
    size = _halved(size, text) if was_refused else size
    if size.budget_bytes < LEAST_BUDGET_BYTES:
        return None
    pages = page_starts(text, document.pages)
    try:
        spans = cut(text, size.budget_bytes, size.overlap_bytes, laid=answered, page_starts=pages)
    except TooManyWindowsError as cause:
        raise too_many_windows(cause) from cause
    if len(spans) < 2:
        return None
    long = LongDocument(
        entry=state.entry,
        query=state.query,
        document=document,
        text_sha256=_digest(text),
        question_sha256=state.question_sha256,
        tokens=state.tokens,
        lead=lead,
        pages=pages,
        earlier_failure=earlier_failure,
        size=size,
    )
    return _partition(long, spans, set(answered))


def too_many_windows(cause: TooManyWindowsError) -> DocumentError:
    """Return the failure of a document that has too many windows."""
    need = "need larger ones (split.window_tokens, or a server with a larger context) or a shorter document"
    return DocumentError("document_too_large", f"the document has {cause}: {need}", stage="prompt")


def _partition(long: LongDocument, spans: Sequence[Span], already_answered: Collection[Span]) -> CutDocument:
    """Divide the windows into those to send, the answered and the blank ones."""
    answered = []
    blank = []
    unanswered = []
    for span in spans:
        if span in already_answered:
            answered.append(span)
        elif not long.document.text[span.start : span.end].strip():
            blank.append(span)
        else:
            unanswered.append(span)
    return CutDocument(long, tuple(unanswered), answered=tuple(answered), blank=tuple(blank))


def blank_answer(long: LongDocument, span: Span) -> WindowAnswer:
    """Return the empty answer about a window without text, for which no request is sent."""
    return WindowAnswer(
        id=long.document.id,
        sha256=long.document.sha256,
        text_sha256=long.text_sha256,
        question=long.split.question,
        start=span.start,
        end=span.end,
        output=None,
        evidence=(),
        attempts=0,
        reasks=0,
        repaired=False,
        notes=(),
        model=None,
        usage=Usage(),
        context_length=None,
        latency_s=0.0,
        finished_at=utc_now(),
    )


def _tokenizer(server: Serving | None) -> tuple[str, Count | None]:
    return ("", None) if server is None else (server.endpoint, server.count)


def _halved(size: WindowSize, text: str) -> WindowSize:
    """Return a size with which a text that did not fit whole has at least two windows."""
    budget_bytes = -(-size_of(text) // 2)
    return size if size.budget_bytes <= budget_bytes else replace(size, tokens=int(budget_bytes / size.bytes_per_token))


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8")).hexdigest()
