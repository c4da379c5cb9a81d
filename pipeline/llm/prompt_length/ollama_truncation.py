"""Detect prompts that Ollama truncated without an error, from their token counts alone.

Ollama keeps about half of the context (before 0.3x: all but one token) and answers with status 200. A truncated prompt
therefore has one of a few counts (routes.go, completionPromptForRequest). Honest prompts have such counts too, so a
prompt is judged as cut only if its text is also too long for the count, compared with the other documents of the run.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque

RATIOS_KEPT = 101
LEAST_RATIOS = 5
USUAL_BYTES_PER_TOKEN = 5.0
TOO_LONG = 1.3
TOO_LONG_WHEN_FULL = 1.05
"""Ratio to the usual bytes per token from which a text is too long for its count. This smaller ratio applies to a count
that fills the context: an honest prompt would have no room for an answer."""
MOST_BYTES_PER_TOKEN = 12.0
"""A count with more bytes per token leaves out cached tokens: no honest tokenizer reaches it."""


def truncated_counts(num_ctx: int) -> frozenset[int]:
    """Return the token counts of prompts truncated to `num_ctx` (num_keep 4, or 5 where the tokenizer adds a BOS)."""
    halves = {num_ctx - max((num_ctx - keep) // 2, 1) for keep in (4, 5)}
    return frozenset({num_ctx, num_ctx - 1, *halves})


class TruncationJudge:
    """Judge suspicious counts by the bytes per token of recent prompts; thread-safe."""

    def __init__(self, num_ctx: int) -> None:
        self._suspicious = truncated_counts(num_ctx)
        self._num_ctx = num_ctx
        self._counts_uncached_only = False
        self._ratios: deque[float] = deque(maxlen=RATIOS_KEPT)
        self._lock = threading.Lock()

    def is_cut(self, size_bytes: int, prompt_tokens: int | None) -> bool:
        """Return whether a prompt of `size_bytes` bytes is too long to have only `prompt_tokens` tokens.

        On a server that leaves out cached tokens (Ollama before 0.3x), the text must also be longer than the whole
        context.
        """
        if not prompt_tokens:
            return False
        ratio = size_bytes / prompt_tokens
        with self._lock:
            usual = statistics.median(self._ratios) if len(self._ratios) >= LEAST_RATIOS else USUAL_BYTES_PER_TOKEN
            if prompt_tokens not in self._suspicious:
                self._learn(ratio)
                return False
            is_conclusive = not self._counts_uncached_only or size_bytes / usual > self._num_ctx
        is_full = prompt_tokens >= self._num_ctx - 1
        return is_conclusive and ratio > (TOO_LONG_WHEN_FULL if is_full else TOO_LONG) * usual

    def _learn(self, ratio: float) -> None:
        if ratio > MOST_BYTES_PER_TOKEN:
            self._counts_uncached_only = True
        else:
            self._ratios.append(ratio)
