"""Estimate a prompt's tokens from the token counts that a server has reported in this run."""

from __future__ import annotations

import math
from collections import deque

RATIOS_KEPT = 101
RATIOS_NEEDED = 5
LEAST_WEIGHT = 256
"""Minimum weight of a usable prompt: in a lighter one, most tokens belong to the chat template."""
LEAST_RATIO = 0.5
"""Lower bound of a ratio: a server that leaves out cached tokens must not make texts look short."""
MARGIN = 1.2
"""Safety factor of an estimate: a text may be this much denser than the densest one of this run so far."""


class TokenRatios:
    """Tokens per unit of weight (token_weight.py) of recent prompts. The owner holds the lock."""

    def __init__(self) -> None:
        self._ratios: deque[float] = deque(maxlen=RATIOS_KEPT)

    def add(self, tokens: int, weight: int) -> None:
        """Record the token count that a server reported for a prompt of this weight."""
        if weight >= LEAST_WEIGHT:
            self._ratios.append(tokens / weight)

    def estimate(self, weight: int) -> int:
        """Return an upper estimate of the tokens of a prompt of this weight."""
        has_ratios = len(self._ratios) >= RATIOS_NEEDED
        ratio = max(LEAST_RATIO, *self._ratios) if has_ratios else 1.0
        return math.ceil(weight * ratio * MARGIN)
