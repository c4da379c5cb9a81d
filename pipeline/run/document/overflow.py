"""A document that does not fit the context, made shorter: which part stays, and how much of it. It asks nobody."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.long import Span, joined
from pipeline.records import ExtractionAttempt

KEPT = 0.75
LEAST_CHARS = 200
MARGIN = 0.97
"""The share of the room that a cut aims at: the rest of a text may hold more tokens a character than the whole."""
MOST_CHARS_PER_TOKEN = 6
"""No prose has more; what is longer than that cannot fit, even where a server does not tell how long a prompt was."""
GAP = "\n[…]\n"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is asked about of a text: `head` characters from its beginning and, behind a gap, `tail` from its end."""

    text: str
    head: int
    tail: int = 0

    @property
    def chars(self) -> int:
        """How many characters of the text are kept."""
        return self.head + self.tail

    @property
    def shown(self) -> str:
        """What the model sees."""
        return GAP.join(self.text[start:end] for start, end in self.spans)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Where these parts are in the text: quotes must stand in one of them, and never across the gap."""
        size = len(self.text)
        return ((0, self.head), (size - self.tail, size)) if self.tail else ((0, self.head),)

    @property
    def quotable(self) -> str:
        """The parts as quotes are looked for in them."""
        return joined(self.text, self.spans)


def whole(text: str) -> Kept:
    """All of a text."""
    return Kept(text, len(text))


def shorter(kept: Kept, attempt: ExtractionAttempt, *, overflow: str, prompt_chars: int) -> Kept | None:
    """Less of the text, or None when cutting is not wanted, not the remedy, or at its end.

    As much as fits, where the server tells how many tokens a prompt of `prompt_chars` characters has; else three
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


def _room_chars(kept: Kept, attempt: ExtractionAttempt, *, prompt_chars: int) -> int:
    """How many characters of the text are to be kept: fewer than there are now."""
    room = (attempt.context_length or 0) - (attempt.max_tokens or 0)
    needed = attempt.needed_tokens
    if needed is None and attempt.reason == "output_truncated":
        needed = attempt.prompt_tokens
    if room <= 0 or not needed:
        limit = room * MOST_CHARS_PER_TOKEN if room > 0 else kept.chars
        return min(int(kept.chars * KEPT), limit)
    around = prompt_chars - len(kept.shown)
    return min(int(room * MARGIN * prompt_chars / needed) - around, int(kept.chars * MARGIN))
