"""Shortening of a document that does not fit the context: which part remains, and how much. It sends no request."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.long import Span, joined
from pipeline.records import ExtractionAttempt

KEPT = 0.75
LEAST_CHARS = 200
MARGIN = 0.97
"""The share of the room that a cut aims at: a shortened text may have more tokens per character than the whole."""
MOST_CHARS_PER_TOKEN = 6
"""Prose never has more; a longer text cannot fit, even if the server does not report the length of a prompt."""
GAP = "\n[…]\n"


@dataclass(frozen=True, slots=True)
class Kept:
    """The remaining parts of a text: `head` characters from its beginning and, after a gap, `tail` from its end."""

    text: str
    head: int
    tail: int = 0

    @property
    def chars(self) -> int:
        """The number of remaining characters."""
        return self.head + self.tail

    @property
    def shown(self) -> str:
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


def whole(text: str) -> Kept:
    """Return a text with all its characters."""
    return Kept(text, len(text))


def shorter(kept: Kept, attempt: ExtractionAttempt, *, overflow: str, prompt_chars: int) -> Kept | None:
    """Return less of the text; None when cutting is not wanted, does not help, or has reached its limit.

    It keeps as much as fits, if the server reports how many tokens a prompt of `prompt_chars` characters has; else
    three quarters. `head` keeps the beginning, `head_tail` two thirds from the beginning and one third from the end.
    """
    clamped = attempt.reason == "output_truncated" and "max_tokens_clamped" in attempt.notes
    if overflow in ("fail", "split") or not (clamped or attempt.reason in ("context_length", "prompt_truncated")):
        return None
    keep = _room_chars(kept, attempt, prompt_chars=prompt_chars)
    if keep < LEAST_CHARS:
        return None
    tail = keep // 3 if overflow == "head_tail" else 0
    return replace(kept, head=keep - tail, tail=tail)


def _room_chars(kept: Kept, attempt: ExtractionAttempt, *, prompt_chars: int) -> int:
    """Return how many characters of the text to keep: fewer than now."""
    room = (attempt.context_length or 0) - (attempt.max_tokens or 0)
    needed = attempt.needed_tokens
    if needed is None and attempt.reason == "output_truncated":
        needed = attempt.prompt_tokens
    if room <= 0 or not needed:
        limit = room * MOST_CHARS_PER_TOKEN if room > 0 else kept.chars
        return min(int(kept.chars * KEPT), limit)
    around = prompt_chars - len(kept.shown)
    return min(int(room * MARGIN * prompt_chars / needed) - around, int(kept.chars * MARGIN))
