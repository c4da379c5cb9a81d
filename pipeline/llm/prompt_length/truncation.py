"""Tells whether Ollama cut a prompt without saying so; it judges counts, never texts.

Ollama keeps about half of the context (or, before 0.3x, all but one token) and answers 200. What remains are counts
that a cut leaves behind (routes.go, completionPromptForRequest). Honest prompts hit them too, so it takes a text that
is too long for the count as well, held against what the other documents of the run cost.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque

WINDOW = 101
ENOUGH = 5
USUAL_BYTES_PER_TOKEN = 5.0
TOO_LONG = 1.3
TOO_LONG_WHEN_FULL = 1.05
"""How much longer than usual a text is too long for its count; a full context leaves an honest prompt no answer."""
MOST_BYTES_PER_TOKEN = 12.0
"""More bytes a token than any honest count has: the server counted only what its cache did not hold."""


def fingerprints(num_ctx: int) -> frozenset[int]:
    """The prompt token counts that a cut to `num_ctx` leaves (num_keep 4, and 5 where the tokenizer adds a BOS)."""
    halves = {num_ctx - max((num_ctx - keep) // 2, 1) for keep in (4, 5)}
    return frozenset({num_ctx, num_ctx - 1, *halves})


class TruncationJudge:
    """Remembers what recent prompts cost (bytes of UTF-8 a token) and judges suspicious counts by it; thread-safe."""

    def __init__(self, num_ctx: int) -> None:
        self._suspicious = fingerprints(num_ctx)
        self._num_ctx = num_ctx
        self._counts_uncached_only = False
        self._ratios: deque[float] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()

    def is_cut(self, size_bytes: int, prompt_tokens: int | None) -> bool:
        """True when a prompt of `size_bytes` bytes cannot have cost only `prompt_tokens`.

        A server that leaves out what it had in its cache (Ollama before 0.3x) must have met a text longer than the
        whole context besides.
        """
        if not prompt_tokens:
            return False
        ratio = size_bytes / prompt_tokens
        with self._lock:
            usual = statistics.median(self._ratios) if len(self._ratios) >= ENOUGH else USUAL_BYTES_PER_TOKEN
            if prompt_tokens not in self._suspicious:
                self._learn(ratio)
                return False
            longer = not self._counts_uncached_only or size_bytes / usual > self._num_ctx
        full = prompt_tokens >= self._num_ctx - 1
        return longer and ratio > (TOO_LONG_WHEN_FULL if full else TOO_LONG) * usual

    def _learn(self, ratio: float) -> None:
        if ratio > MOST_BYTES_PER_TOKEN:
            self._counts_uncached_only = True
        else:
            self._ratios.append(ratio)
