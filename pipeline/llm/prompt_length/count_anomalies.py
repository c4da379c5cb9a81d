"""Suspicious token counts of prompts that were accepted without a request. Sends nothing and decides nothing.

A verification shows how one server behaves. Behind a load balancer, a document may reach another server with a smaller
limit, and a server may be restarted with a smaller context. Truncated documents then leave two traces in the counts:

    equal counts    prompts of quite different lengths have the same count: that of a truncated prompt
    low density     a prompt has far fewer tokens for its bytes than the others of this run

Honest documents leave such traces too, so a suspected document is verified by its halves. Each one that turns out to be
whole raises the number of equal counts that is suspicious: large coincidences are rare, while the number of truncated
documents with one count only grows. The owner of a CountAnomalies holds the lock.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque

from pipeline.llm.prompt_length.repetition import EXEMPT_TOKENS, NEAR

LEAST_EQUAL = (2, 2, 3, 8)
"""The number of prompts with equal counts that is suspicious; the index is the number of false suspicions so far.

Each suspect costs three requests, of the 40 of a run. After the last entry, each one needs four times as many.
"""
EXCESS = 4
"""Least ratio of prompts with this count to those with counts nearby."""
NEIGHBOURHOOD = 64
"""Distance in tokens of the counts nearby."""
SPREAD = 1.1
"""Least ratio of the longest to the shortest of the prompts with equal counts: copies of a document have one length."""
EXACT = 3
"""Prompts with exactly the same count that need no `SPREAD`: few texts of nearly one length have exactly one count."""
ORDINARY = 2
"""Whole documents with one count, after which the count is usual here: the author has cut the texts to this length."""
LOW_DENSITY = 0.7
"""Tokens per byte, as a share of the median, below which a prompt is suspicious."""
LEAST_DENSITIES = 5
MOST_LOW_DENSITY = 2
"""Prompts of low density that may turn out to be whole before no more of them are suspected."""
DENSITIES_KEPT = 101
MOST_SIZES = 40
"""Most sizes kept of one count."""
MOST_KEPT = 1 << 16
"""Most sizes kept of all counts before all are discarded."""


class CountAnomalies:
    """Token counts and sizes of the accepted prompts of one server."""

    def __init__(self) -> None:
        self._sizes: dict[int, set[int]] = {}
        self._size_count = 0
        self._densities: deque[float] = deque(maxlen=DENSITIES_KEPT)
        self._equal_suspects = 0
        self._sparse_suspects = 0
        self._whole_counts = Counter[int]()
        self._lowest_whole_density = 1.0

    def suspects(self, tokens: int, size_bytes: int) -> bool:
        """Record a prompt of `size_bytes` bytes and `tokens` tokens; return whether it should be verified.

        A suspect counts as whole until `settle` reports otherwise.
        """
        if tokens < EXEMPT_TOKENS:
            return False
        self._record(tokens, size_bytes)
        is_sparse = self._is_sparse(tokens / size_bytes)
        is_equal = not is_sparse and self._has_equal_counts(tokens)
        if not is_sparse and not is_equal:
            self._densities.append(tokens / size_bytes)
        self._sparse_suspects += is_sparse
        self._equal_suspects += is_equal
        return is_sparse or is_equal

    def settle(self, tokens: int, size_bytes: int, *, is_cut: bool) -> None:
        """Record the result of a verification; prompts like a complete one are not suspected again."""
        if is_cut:
            self._equal_suspects = 0
            self._sparse_suspects = 0
            return
        self._lowest_whole_density = min(self._lowest_whole_density, tokens / size_bytes)
        self._whole_counts[tokens] += 1
        for count in range(tokens - NEAR, tokens + NEAR + 1):
            self._size_count -= len(self._sizes.pop(count, ()))

    def _record(self, tokens: int, size_bytes: int) -> None:
        if self._size_count >= MOST_KEPT:
            self._sizes.clear()
            self._size_count = 0
        sizes = self._sizes.setdefault(tokens, set())
        if len(sizes) < MOST_SIZES and size_bytes not in sizes:
            sizes.add(size_bytes)
            self._size_count += 1

    def _is_sparse(self, density: float) -> bool:
        if self._sparse_suspects >= MOST_LOW_DENSITY or len(self._densities) < LEAST_DENSITIES:
            return False
        if density >= 0.9 * self._lowest_whole_density:
            return False
        return density < LOW_DENSITY * statistics.median(self._densities)

    def _has_equal_counts(self, tokens: int) -> bool:
        sizes = self._sizes_between(tokens - NEAR, tokens + NEAR)
        further = max(0, self._equal_suspects - len(LEAST_EQUAL) + 1)
        is_spread = len(self._sizes[tokens]) >= EXACT or max(sizes) >= SPREAD * min(sizes)
        if len(sizes) < LEAST_EQUAL[self._equal_suspects - further] * 4**further or not is_spread:
            return False
        if sum(self._whole_counts[count] for count in range(tokens - NEAR, tokens + NEAR + 1)) >= ORDINARY:
            return False
        nearby = len(self._sizes_between(tokens - NEIGHBOURHOOD, tokens + NEIGHBOURHOOD)) - len(sizes)
        expected_count = nearby * (2 * NEAR + 1) / (2 * (NEIGHBOURHOOD - NEAR))
        return len(sizes) > EXCESS * expected_count

    def _sizes_between(self, low: int, high: int) -> list[int]:
        return [size for count in range(low, high + 1) for size in self._sizes.get(count, ())]
