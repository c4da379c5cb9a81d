"""Estimate of a prompt's tokens by those of the prompts that a server has counted in this run."""

from __future__ import annotations

import math
from collections import deque

RATIOS_KEPT = 101
RATIOS_NEEDED = 5
LEAST_WEIGHT = 256
"""Lighter prompts say little of a text's tokens: the chat template is most of them."""
LEAST_RATIO = 0.5
"""A server that leaves out what it has cached must not make texts look short."""
MARGIN = 1.2
"""How much denser than the densest of this run's texts a text is taken to be where its tokens are estimated."""


class TokenRatios:
    """Tokens for each unit of weight (token_weight.py) of recent prompts; its owner has the lock."""

    def __init__(self) -> None:
        self._ratios: deque[float] = deque(maxlen=RATIOS_KEPT)

    def add(self, tokens: int, weight: int) -> None:
        """Note a prompt of this weight that was counted as so many tokens."""
        if weight >= LEAST_WEIGHT:
            self._ratios.append(tokens / weight)

    def estimate(self, weight: int) -> int:
        """Return how many tokens a prompt of this weight may have."""
        known = len(self._ratios) >= RATIOS_NEEDED
        ratio = max(LEAST_RATIO, *self._ratios) if known else 1.0
        return math.ceil(weight * ratio * MARGIN)
