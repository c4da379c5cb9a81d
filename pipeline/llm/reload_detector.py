"""Detect an Ollama that reloads the model repeatedly, because another client requests it with another `num_ctx`.

It judges times only, and counts loads instead of requests, as many requests wait for one load.
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
"""Requests whose model was loaded within this many seconds of each other waited for the same load."""
RELOADS = 3
WITHIN_S = 600.0


class ReloadWatch:
    """Times of the last loads of a model; safe for many threads."""

    def __init__(self) -> None:
        self._loaded_at: deque[float] = deque(maxlen=RELOADS)
        self._lock = threading.Lock()
        self._is_logged = False

    def noted(self, attempt: ExtractionAttempt, *, sent_at: float) -> ExtractionAttempt:
        """Return the attempt, with a note if it waited for the third load within ten minutes; log the first one."""
        if attempt.load_s is None or attempt.load_s <= SLOW_LOAD_S:
            return attempt
        if not self._is_repeated(sent_at + attempt.load_s):
            return attempt
        if not self._is_logged:
            self._is_logged = True
            logger.warning(
                "the model is reloaded repeatedly: does another client request it with another num_ctx?",
                extra={"reason": NOTE, "endpoint": attempt.model.endpoint, "model": attempt.model.name},
            )
        return changed(attempt, notes=(*attempt.notes, NOTE))

    def _is_repeated(self, at: float) -> bool:
        with self._lock:
            if not any(abs(at - earlier) <= SAME_LOAD_S for earlier in self._loaded_at):
                self._loaded_at.append(at)
            times = self._loaded_at
            return len(times) == RELOADS and max(times) - min(times) <= WITHIN_S
