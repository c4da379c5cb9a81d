"""Sees when Ollama loads a warm model again and again: somebody else asks for it with another `num_ctx`.

It judges times, counts loads and not requests (many wait for one load), and changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from pipeline.records import ExtractionAttempt, changed

logger = logging.getLogger(__name__)

NOTE = "model_reloading"
SLOW_LOAD_S = 1.0
SAME_LOAD_S = 1.0
"""Requests whose model was there within so many seconds of each other waited for one load."""
AGAIN_AND_AGAIN = 3
WITHIN_S = 600.0


class ReloadWatch:
    """Remembers when the model was last loaded; safe for many threads."""

    def __init__(self) -> None:
        self._loaded_at: deque[float] = deque(maxlen=AGAIN_AND_AGAIN)
        self._lock = threading.Lock()
        self._told = False

    def seen(self, attempt: ExtractionAttempt, *, asked_at: float) -> ExtractionAttempt:
        """The attempt, with a note when it waited for the third load within ten minutes; the first time it is said."""
        if attempt.load_s is None or attempt.load_s <= SLOW_LOAD_S:
            return attempt
        if not self._again(asked_at + attempt.load_s):
            return attempt
        if not self._told:
            self._told = True
            logger.warning(
                "the model is reloaded repeatedly: does another client request it with another num_ctx?",
                extra={"reason": NOTE, "endpoint": attempt.model.endpoint, "model": attempt.model.name},
            )
        return changed(attempt, notes=(*attempt.notes, NOTE))

    def _again(self, at: float) -> bool:
        with self._lock:
            if not any(abs(at - earlier) <= SAME_LOAD_S for earlier in self._loaded_at):
                self._loaded_at.append(at)
            times = self._loaded_at
            return len(times) == AGAIN_AND_AGAIN and max(times) - min(times) <= WITHIN_S
