"""Shortening of a document that does not fit the context: which part remains, and how much. It sends no request."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.long import Span, joined
from pipeline.records import ExtractionAttempt

RETRY_SHARE = 0.75
LEAST_CHARS = 200
MARGIN = 0.97
"""The share of the room to fill: a shortened text may have more tokens per character than the whole text."""
MOST_CHARS_PER_TOKEN = 6
"""No prose has more. A longer text cannot fit, even if the server does not report the length of a prompt."""
GAP = "\n[…]\n"


@dataclass(frozen=True, slots=True)
class KeptText:
    """The parts of a text to send: `head` characters from its beginning and, after a gap, `tail` from its end."""

    text: str
    head: int
    tail: int = 0

    @property
    def chars(self) -> int:
        """The number of remaining characters."""
        return self.head + self.tail

    @property
    def model_text(self) -> str:
        """The text that the model sees."""
        return GAP.join(self.text[start:end] for start, end in self.spans)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The positions of these parts in the text: a quote must lie within one of them, never across the gap."""
        size = len(self.text)
        return ((0, self.head), (size - self.tail, size)) if self.tail else ((0, self.head),)

    @property
    def quotable(self) -> str:
        """The parts as the search for quotes sees them."""
        return joined(self.text, self.spans)


def full_text(text: str) -> KeptText:
    """Return a text with all its characters."""
    return KeptText(text, len(text))


def shorter(kept: KeptText, attempt: ExtractionAttempt, *, overflow: str, prompt_chars: int) -> KeptText | None:
    """Return less of the text; None when cutting is not configured, does not help, or has reached its limit.

    If the server reports how many tokens a prompt of `prompt_chars` characters has, as much as fits is kept, else three
    quarters. `head` keeps the beginning, `head_tail` two thirds from the beginning and one third from the end.
    """
    clamped = attempt.reason == "output_truncated" and "max_tokens_clamped" in attempt.notes
    if overflow in ("fail", "split") or not (clamped or attempt.reason in ("context_length", "prompt_truncated")):
        return None
    keep = _room_chars(kept, attempt, prompt_chars=prompt_chars)
    if keep < LEAST_CHARS:
        return None
    tail = keep // 3 if overflow == "head_tail" else 0
    return replace(kept, head=keep - tail, tail=tail)


def _room_chars(kept: KeptText, attempt: ExtractionAttempt, *, prompt_chars: int) -> int:
    """Return how many characters of the text to keep; fewer than it has now."""
    room_tokens = (attempt.context_length or 0) - (attempt.max_tokens or 0)
    needed_tokens = attempt.needed_tokens
    if needed_tokens is None and attempt.reason == "output_truncated":
        needed_tokens = attempt.prompt_tokens
    if room_tokens <= 0 or not needed_tokens:
        limit = room_tokens * MOST_CHARS_PER_TOKEN if room_tokens > 0 else kept.chars
        return min(int(kept.chars * RETRY_SHARE), limit)
    overhead_chars = prompt_chars - len(kept.model_text)
    return min(int(room_tokens * MARGIN * prompt_chars / needed_tokens) - overhead_chars, int(kept.chars * MARGIN))
