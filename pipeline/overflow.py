"""A document that does not fit the context, made shorter: which part stays, and how much of it. It asks nobody."""

from __future__ import annotations

from dataclasses import replace

from pipeline.records import Document, ExtractionAttempt

KEPT = 0.75
LEAST_CHARS = 200
GAP = "\n[…]\n"


def shorter(document: Document, attempt: ExtractionAttempt, *, overflow: str) -> Document | None:
    """The document cut to three quarters, or None when cutting is not wanted, not the remedy, or at its end.

    `head` keeps the beginning, `head_tail` two thirds from the beginning and one third from the end.
    """
    clamped = attempt.reason == "output_truncated" and "max_tokens_clamped" in attempt.notes
    if overflow == "fail" or not (clamped or attempt.reason in ("context_length", "prompt_truncated")):
        return None
    keep = int(len(document.text) * KEPT)
    if keep < LEAST_CHARS:
        return None
    if overflow == "head":
        return replace(document, text=document.text[:keep])
    text = document.text.replace(GAP, "", 1)
    head = keep * 2 // 3
    return replace(document, text=text[:head] + GAP + text[len(text) - (keep - head) :])
