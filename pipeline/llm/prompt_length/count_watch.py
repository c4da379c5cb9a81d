"""Suspicion that some prompts of a server that was proved are cut all the same; it sends nothing and decides nothing.

A proof says what one server does. Behind a load balancer the document may reach another one with a smaller limit, and
a server may be restarted with a smaller context. Two traces are left in the counts of documents:

    pile     prompts of quite different lengths have the same count: the one that a cut leaves
    thin     a prompt has far fewer tokens for its bytes than the others of this run

Honest documents leave such traces too, so a suspected document is proved by its halves. Each one that turns out to be
whole makes the watch ask for a larger pile: coincidences get rarer with their size, while a pile that a cut leaves
grows with every document that is cut. Its owner has the lock.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque

from pipeline.llm.prompt_length.repetition import EXEMPT_TOKENS, NEAR

PILES = (2, 2, 3, 8)
"""Prompts of one count and of different sizes that are a pile, by how many suspected documents were whole so far.

Each costs three requests, of the 40 of a run. After the last, a pile needs four times as many each time.
"""
PILE_RATIO = 4
"""How many times more prompts than around it a pile has."""
AROUND = 64
SPREAD = 1.1
"""How much longer than the shortest the longest prompt of a pile is: copies of one document have one length."""
EXACT = 3
"""Prompts of one and the same count whose sizes may differ by a byte: texts of one length seldom have it."""
ORDINARY = 2
"""Proofs of whole documents with one count, after which the corpus has many of them: its maker cut them so."""
THIN = 0.7
ENOUGH = 5
MOST_THIN = 2
"""Thin documents that may turn out to be whole before no more of them are suspected."""
KEPT = 101
MOST_SIZES = 40
"""Sizes remembered of one count."""
MOST_REMEMBERED = 1 << 16
"""Sizes remembered in all before the watch begins anew."""


class CountWatch:
    """Counts and lengths of the accepted prompts of one server."""

    def __init__(self) -> None:
        self._sizes: dict[int, set[int]] = {}
        self._remembered = 0
        self._densities: deque[float] = deque(maxlen=KEPT)
        self._spent = 0
        self._thin = 0
        self._whole = Counter[int]()
        self._thinnest = 1.0

    def suspects(self, tokens: int, size_bytes: int) -> bool:
        """Note a prompt of `size_bytes` bytes that was counted as `tokens`; return whether it should be proved.

        A proof that is asked for counts as one of a whole document until `settle` says otherwise.
        """
        if tokens < EXEMPT_TOKENS:
            return False
        self._note(tokens, size_bytes)
        is_thin = self._is_thin(tokens / size_bytes)
        is_piled = not is_thin and self._is_piled(tokens)
        if not is_thin and not is_piled:
            self._densities.append(tokens / size_bytes)
        self._thin += is_thin
        self._spent += is_piled
        return is_thin or is_piled

    def settle(self, tokens: int, size_bytes: int, *, is_cut: bool) -> None:
        """Note what the proof of a suspected prompt showed; the like of a whole one are not suspected again."""
        if is_cut:
            self._spent = 0
            self._thin = 0
            return
        self._thinnest = min(self._thinnest, tokens / size_bytes)
        self._whole[tokens] += 1
        for count in range(tokens - NEAR, tokens + NEAR + 1):
            self._remembered -= len(self._sizes.pop(count, ()))

    def _note(self, tokens: int, size_bytes: int) -> None:
        if self._remembered >= MOST_REMEMBERED:
            self._sizes.clear()
            self._remembered = 0
        sizes = self._sizes.setdefault(tokens, set())
        if len(sizes) < MOST_SIZES and size_bytes not in sizes:
            sizes.add(size_bytes)
            self._remembered += 1

    def _is_thin(self, density: float) -> bool:
        if self._thin >= MOST_THIN or len(self._densities) < ENOUGH or density >= 0.9 * self._thinnest:
            return False
        return density < THIN * statistics.median(self._densities)

    def _is_piled(self, tokens: int) -> bool:
        pile = self._sizes_between(tokens - NEAR, tokens + NEAR)
        further = max(0, self._spent - len(PILES) + 1)
        is_spread = len(self._sizes[tokens]) >= EXACT or max(pile) >= SPREAD * min(pile)
        if len(pile) < PILES[self._spent - further] * 4**further or not is_spread:
            return False
        if sum(self._whole[count] for count in range(tokens - NEAR, tokens + NEAR + 1)) >= ORDINARY:
            return False
        around = len(self._sizes_between(tokens - AROUND, tokens + AROUND)) - len(pile)
        usual = around * (2 * NEAR + 1) / (2 * (AROUND - NEAR))
        return len(pile) > PILE_RATIO * usual

    def _sizes_between(self, low: int, high: int) -> list[int]:
        return [size for count in range(low, high + 1) for size in self._sizes.get(count, ())]
