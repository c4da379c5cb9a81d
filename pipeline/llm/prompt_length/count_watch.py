"""Suspicion that some prompts of a server that was proved are cut all the same; it sends nothing and decides nothing.

A proof says what one server does. Behind a load balancer the document may reach another one with a smaller limit, and
a server may be restarted with a smaller context. Two traces are left in the counts of documents:

    pile     prompts of quite different lengths have the same count: the one that a cut leaves
    thin     a prompt has far fewer tokens for its bytes than the others of this run

Honest documents leave such traces too, so a suspected document is proved by its halves, and only a few are.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque

from pipeline.llm.prompt_length.repetition import EXEMPT_TOKENS, NEAR

PILE = 3
PILE_RATIO = 4
"""Prompts of one count that are a pile, and how many times more than around it."""
AROUND = 64
SPREAD = 1.15
"""How much longer than the shortest the longest prompt of a pile is: copies of one document have one length."""
THIN = 0.7
ENOUGH = 5
KEPT = 101
MOST_CLEARED = 4
"""Suspected documents that may turn out to be whole: three requests each, of the 40 that a run may cost a server."""
MOST_COUNTS = 1 << 16


class CountWatch:
    """Counts and lengths of the accepted prompts of one server; safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[int, tuple[int, int, int]] = {}
        self._densities: deque[float] = deque(maxlen=KEPT)
        self._cleared = 0
        self._thinnest = 1.0

    def suspects(self, tokens: int, size_bytes: int) -> bool:
        """Note a prompt of `size_bytes` bytes that was counted as `tokens`; return whether it should be proved."""
        if tokens < EXEMPT_TOKENS:
            return False
        with self._lock:
            if self._cleared >= MOST_CLEARED:
                return False
            self._note(tokens, size_bytes)
            suspected = self._is_thin(tokens / size_bytes) or self._is_piled(tokens)
            if not suspected:
                self._densities.append(tokens / size_bytes)
            self._cleared += suspected
            return suspected

    def clear(self, tokens: int, size_bytes: int) -> None:
        """Note that a suspected prompt was read whole, so that its like is not suspected again."""
        with self._lock:
            self._thinnest = min(self._thinnest, tokens / size_bytes)
            for count in range(tokens - NEAR, tokens + NEAR + 1):
                self._seen.pop(count, None)

    def _note(self, tokens: int, size_bytes: int) -> None:
        if len(self._seen) >= MOST_COUNTS:
            self._seen.clear()
        times, shortest, longest = self._seen.get(tokens, (0, size_bytes, size_bytes))
        self._seen[tokens] = (times + 1, min(shortest, size_bytes), max(longest, size_bytes))

    def _is_thin(self, density: float) -> bool:
        if len(self._densities) < ENOUGH or density >= 0.9 * self._thinnest:
            return False
        return density < THIN * statistics.median(self._densities)

    def _is_piled(self, tokens: int) -> bool:
        pile = self._between(tokens - NEAR, tokens + NEAR)
        number = sum(times for times, _, _ in pile)
        if number < PILE or max(each[2] for each in pile) < SPREAD * min(each[1] for each in pile):
            return False
        around = sum(times for times, _, _ in self._between(tokens - AROUND, tokens + AROUND)) - number
        usual = around * (2 * NEAR + 1) / (2 * (AROUND - NEAR))
        return number > PILE_RATIO * usual

    def _between(self, low: int, high: int) -> list[tuple[int, int, int]]:
        return [self._seen[count] for count in range(low, high + 1) if count in self._seen]
