"""The size of a document's windows: the tokens of their text, converted to bytes of UTF-8.

    room = context_length - max_tokens - prompt - reserve for a re-ask - lead and lines before a window
    window = nine tenths of the room, or `window_tokens` if that is less

The server's own tokenizer counts the tokens of three samples of a text. Without one, the bytes per token come from
recent prompts of the same server, or else are taken to be three. It sends requests only through the caller's `count`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.long.windows import LEAST_BUDGET_BYTES

Count = Callable[[str], "int | None"]
"""A function that returns the tokens of a text by a server's tokenizer; None when the server does not report them."""

USUAL_BYTES_PER_TOKEN = 3.0
LEAST_RATIO = 0.5
MOST_RATIO = 12.0
"""Bounds of bytes per token in a plausible count: a server that leaves out cached tokens counts too few."""
RATIOS_KEPT = 101
RATIOS_NEEDED = 5
SAMPLE_BYTES = 4096
TEXTS_KEPT = 256
"""Texts whose ratio is kept: a document is sized before it is sent, when it is cut, and when it is read again."""
MOST_FAILURES = 2
"""Requests without a usable reply after which a tokenizer is not used again."""
REASK_TOKENS = 750
"""A re-ask quotes 2,000 characters of the answer, and the complaint."""
SHARE_OF_ROOM = 0.9
LEAST_USUAL_TOKENS = 1000
WINDOW_PER_ANSWER = 8
"""The largest window in multiples of `max_tokens`: recall falls with length, and an answer has room for few items."""
UNKNOWN_CONTEXT_TOKENS = 3000
LEAST_ROOM = 256
WHOLE_BELOW = 0.8
CUT_FROM = 1.25
"""Shares of the room, by estimate, below which a document is sent whole, and from which on it is cut."""
OVERLAP_SHARE = 20
MOST_OVERLAP = 200
LEAST_OVERLAP_PARTS = 4
"""An overlap is at most a quarter of its window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The tokens of one request. `prompt_tokens`: of the prompt without a document. `reasks`: a re-ask is allowed.

    `before_bytes`: the lead of a window and the lines around it. `copies`: how often the prompt contains the document.
    """

    context_length: int | None
    max_tokens: int
    prompt_tokens: int
    reasks: bool = True
    before_bytes: int = 0
    copies: int = 1

    @property
    def tokens(self) -> int | None:
        """The tokens of a window's text, which is in the prompt `copies` times; None: the context is unknown."""
        prompt_room = self.whole_tokens
        return None if prompt_room is None else prompt_room - self.before_tokens

    @property
    def before_tokens(self) -> int:
        """The tokens of the lead and the lines around it."""
        return math.ceil(self.before_bytes / USUAL_BYTES_PER_TOKEN)

    @property
    def whole_tokens(self) -> int | None:
        """The tokens of the text of a document that is sent whole, with room for a re-ask; None: see `tokens`."""
        return self._remaining_tokens(self.reserve)

    @property
    def most_tokens(self) -> int | None:
        """The tokens of the longest text that the server takes; None: see `tokens`."""
        return self._remaining_tokens(0)

    @property
    def reserve(self) -> int:
        """The tokens that a re-ask takes."""
        return REASK_TOKENS if self.reasks else 0

    def _remaining_tokens(self, reserve: int) -> int | None:
        if self.context_length is None:
            return None
        return (self.context_length - self.max_tokens - self.prompt_tokens - reserve) // self.copies


@dataclass(frozen=True, slots=True)
class WindowSize:
    """The size of windows in tokens, and the bytes of the document per token."""

    tokens: int
    overlap_tokens: int
    bytes_per_token: float

    @property
    def budget_bytes(self) -> int:
        """The most bytes of a window, for windows.cut()."""
        return int(self.tokens * self.bytes_per_token)

    @property
    def overlap_bytes(self) -> int:
        """The bytes that two windows share, for windows.cut()."""
        return min(int(self.overlap_tokens * self.bytes_per_token), self.budget_bytes // LEAST_OVERLAP_PARTS)


@dataclass(frozen=True, slots=True)
class Sizing:
    """Return whether a document is cut before it is sent, and the size of its windows; None: the room is too small."""

    is_cut: bool
    size: WindowSize | None


class Sizer:
    """The sizes of the windows of one plan; thread-safe.

    `window_tokens`: documents with more tokens are cut even if they fit; None: those alone that do not fit.
    `overlap_tokens`: None for a twentieth of the window, at most 200.
    """

    def __init__(self, *, window_tokens: int | None = None, overlap_tokens: int | None = None) -> None:
        self._window_tokens = window_tokens
        self._overlap_tokens = overlap_tokens
        self._ratios: dict[str, deque[float]] = {}
        self._counted: dict[tuple[str, int], float] = {}
        self._failures: dict[str, int] = {}
        self._lock = threading.Lock()

    def learn(self, endpoint: str, size_bytes: int, prompt_tokens: int | None) -> None:
        """Record the tokens of a prompt of `size_bytes` at an endpoint; an implausible count is left out."""
        if not prompt_tokens or not LEAST_RATIO <= size_bytes / prompt_tokens <= MOST_RATIO:
            return
        with self._lock:
            ratios = self._ratios.setdefault(endpoint, deque(maxlen=RATIOS_KEPT))
            ratios.append(size_bytes / prompt_tokens)

    def sizing(self, text: str, room: Room, *, endpoint: str, count: Count | None = None) -> Sizing:
        """Return whether a document is sent whole or cut at an endpoint, and the size of its windows.

        `count` calls its tokenizer, but not for a document that fits even with one token per byte.
        """
        size_bytes = len(text.encode("utf-8", "surrogatepass"))
        if self._is_whole(size_bytes, room):  # no token is less than a byte
            return Sizing(False, self.size(room, USUAL_BYTES_PER_TOKEN))
        ratio = self.bytes_per_token(text, endpoint=endpoint, count=count)
        size = self.size(room, ratio)
        if size is None:
            return Sizing(False, None)
        is_cut = self.is_cut(size_bytes / ratio, room, exact=lambda: self._token_count(text, endpoint, count))
        return Sizing(is_cut, size)

    def is_cut(self, tokens: float, room: Room, *, exact: Callable[[], float | None]) -> bool:
        """Return whether a text of this many tokens by estimate is cut; near the room their `exact` number decides."""
        if self._is_whole(tokens, room):
            return False
        whole_tokens = room.whole_tokens
        if (self._window_tokens or math.inf) < tokens or (
            whole_tokens is not None and tokens >= CUT_FROM * whole_tokens
        ):
            return True
        exact_tokens = None if whole_tokens is None else exact()
        return exact_tokens is not None and exact_tokens > (room.most_tokens or 0)

    def size(self, room: Room, bytes_per_token: float) -> WindowSize | None:
        """Return the size of windows; None when the room is below LEAST_ROOM tokens."""
        room_tokens = room.tokens
        if room_tokens is not None and room_tokens < LEAST_ROOM:
            return None
        usual = self._window_tokens or max(LEAST_USUAL_TOKENS, WINDOW_PER_ANSWER * room.max_tokens)
        tokens = min(UNKNOWN_CONTEXT_TOKENS if room_tokens is None else int(SHARE_OF_ROOM * room_tokens), usual)
        overlap = min(tokens // OVERLAP_SHARE, MOST_OVERLAP) if self._overlap_tokens is None else self._overlap_tokens
        return WindowSize(tokens, min(overlap, tokens // LEAST_OVERLAP_PARTS), bytes_per_token)

    def size_after_refusal(
        self, room: Room, refused_bytes: int, *, needed_tokens: int | None, bytes_per_token: float
    ) -> WindowSize | None:
        """Return the size for a window that was refused; None when it must be divided instead.

        `room`: with the context length that the refusal reports, if any. `needed_tokens`: the tokens of the prompt.
        """
        text_tokens = 0
        if needed_tokens is not None:
            text_tokens = (needed_tokens - room.prompt_tokens) // room.copies - room.before_tokens
        ratio = min(refused_bytes / text_tokens, bytes_per_token) if text_tokens > 0 else bytes_per_token
        size = self.size(room, ratio)
        return size if size is not None and LEAST_BUDGET_BYTES <= size.budget_bytes < refused_bytes else None

    def bytes_per_token(self, text: str, *, endpoint: str, count: Count | None = None) -> float:
        """Return the bytes per token of a document, rather too few than too many; its samples are counted once."""
        key = (endpoint, hash(text))
        if key in self._counted:
            return self._counted[key]
        ratios = []
        for sample in samples(text):
            tokens = self._token_count(sample, endpoint, count)
            if tokens is None:
                break
            ratios.append(len(sample.encode("utf-8", "surrogatepass")) / tokens)
        else:
            if ratios:
                return self._keep(key, min(max(min(ratios), LEAST_RATIO), MOST_RATIO))
        with self._lock:
            known_ratios = sorted(self._ratios.get(endpoint, ()))
        return known_ratios[len(known_ratios) // 10] if len(known_ratios) >= RATIOS_NEEDED else USUAL_BYTES_PER_TOKEN

    def _keep(self, key: tuple[str, int], ratio: float) -> float:
        """Keep the ratio of a text at an endpoint, and drop the oldest of too many."""
        with self._lock:
            self._counted[key] = ratio
            if len(self._counted) > TEXTS_KEPT:
                del self._counted[next(iter(self._counted))]
        return ratio

    def _is_whole(self, tokens: float, room: Room) -> bool:
        most_tokens = room.whole_tokens
        fits = most_tokens is not None and tokens < WHOLE_BELOW * most_tokens
        return fits and tokens <= (self._window_tokens or math.inf)

    def _token_count(self, text: str, endpoint: str, count: Count | None) -> int | None:
        """Return the tokens of a text; None, without a request, for an endpoint that failed to report them twice."""
        if count is None or self._failures.get(endpoint, 0) >= MOST_FAILURES:
            return None
        tokens = count(text)
        if tokens:
            return tokens
        with self._lock:
            self._failures[endpoint] = self._failures.get(endpoint, 0) + 1
        return None


def samples(text: str) -> list[str]:
    """Return the beginning, the middle and the end of a text, of 4 kB each; a short text as a whole."""
    if len(text) <= 3 * SAMPLE_BYTES:
        pieces = [text[at : at + SAMPLE_BYTES] for at in range(0, len(text), SAMPLE_BYTES)]
    else:
        starts = (0, (len(text) - SAMPLE_BYTES) // 2, len(text) - SAMPLE_BYTES)
        pieces = [text[start : start + SAMPLE_BYTES] for start in starts]
    return [piece.encode("utf-8", "replace")[:SAMPLE_BYTES].decode("utf-8", "ignore") for piece in pieces]


def too_small(room: Room) -> str | None:
    """Return the warning about a room that is too small for a window; None for a room that is large enough."""
    if room.tokens is None or room.tokens >= LEAST_ROOM:
        return None
    return (
        f"overflow: split: the prompt and max_tokens leave {max(room.tokens, 0)} tokens of the context of "
        f"{room.context_length} for a window, need {LEAST_ROOM}"
    )


def size_text(room: Room, size: WindowSize, *, lead_chars: int) -> str:
    """Return how `check` shows the size of windows."""
    if room.context_length is None:
        reason = "the context is unknown"
    else:
        parts = [f"context {room.context_length:,}", f"answer {room.max_tokens:,}", f"prompt {room.prompt_tokens:,}"]
        parts += [f"re-ask {room.reserve:,}"] if room.reserve else []
        before = "lead" if lead_chars else "lines before it"
        parts += [f"{before} {room.before_tokens:,}"] if room.before_tokens else []
        reason = " \N{MINUS SIGN} ".join(parts) + _bound(room, size)
    description = f"split: windows of about {size.tokens:,} tokens ({reason}), overlap {size.overlap_tokens:,}"
    return f"{description}, lead {lead_chars:,} characters" if lead_chars else f"{description}, no lead"


def _bound(room: Room, size: WindowSize) -> str:
    """Return the bound that decides the size."""
    if size.tokens == int(SHARE_OF_ROOM * (room.tokens or 0)):
        return ", nine tenths"
    usual = max(LEAST_USUAL_TOKENS, WINDOW_PER_ANSWER * room.max_tokens)
    return f", at most {usual:,} for an answer of {room.max_tokens:,}" if size.tokens == usual else ", window_tokens"
