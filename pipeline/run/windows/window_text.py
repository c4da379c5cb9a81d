"""The text of a window as a model sees it: the lines around it, the lead, and special tokens broken up.

It sends nothing, and knows nothing of the answers.
"""

from __future__ import annotations

from pipeline.agents.prompts import LEAD, names_lead
from pipeline.long.lead import framed
from pipeline.long.quotes import GAP
from pipeline.long.windows import Span
from pipeline.records import changed
from pipeline.run.document.attempts import with_notes
from pipeline.run.document.breaking import broken, with_broken_tokens
from pipeline.run.document.extraction import ModelText
from pipeline.run.document.state import DocumentState
from pipeline.run.windows.cutting import LongDocument


def model_text(state: DocumentState, long: LongDocument, span: Span) -> ModelText:
    """Return a window as the model sees it, with the lines around it and the lead, without special tokens."""
    text = long.document.text
    resolved = long.query.resolved
    lead = broken(long.lead, resolved, tokens=long.tokens) if span.start else ""
    part = changed(long.document, text=text[span.start : span.end])
    harmless_window, is_broken = with_broken_tokens(part, resolved, tokens=long.tokens)
    state.notes = with_notes(state.notes, "special_tokens_broken") if is_broken else state.notes
    if names_lead(resolved.user_prompt):
        harmless_window = changed(harmless_window, metadata={**harmless_window.metadata, LEAD: lead})
    else:
        harmless_window = changed(harmless_window, text=framed(harmless_window.text, lead))
    quotable = quotable_text(long, span) if is_broken else ""
    return ModelText(harmless_window, text, visible_spans(long, span), quotable, pages=long.pages, is_window=True)


def visible_spans(long: LongDocument, span: Span) -> tuple[Span, ...]:
    """Return the parts of the text that the model sees: the window, and the lead, where quotes are looked for last."""
    return (span, Span(0, len(long.lead))) if span.start and long.lead else (span,)


def quotable_text(long: LongDocument, span: Span) -> str:
    """Return these parts as they are in the prompt, with their special tokens broken up."""
    text = long.document.text
    resolved = long.query.resolved
    return GAP.join(broken(text[start:end], resolved, tokens=long.tokens) for start, end in visible_spans(long, span))
