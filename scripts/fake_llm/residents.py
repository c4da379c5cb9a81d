"""The models that an Ollama has loaded, their contexts, and until when another client keeps them.

It must not wait or answer: the server does.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

KEEP_S = 300.0


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model; `kept_until`: another client renews it until then, so no other context can be loaded."""

    context: int
    expires_at: float
    kept_until: float = 0.0


class Residents:
    """The loaded models by name; safe for many threads. Times are Unix times."""

    def __init__(self) -> None:
        self._models: dict[str, Resident] = {}
        self._lock = threading.Lock()

    def get(self, model: str) -> int:
        """Return the context of a loaded model, 0 if it is not loaded."""
        with self._lock:
            return self._models[model].context if model in self._models else 0

    def put(self, model: str, context: int, *, kept_s: float = 0.0) -> None:
        """Load a model."""
        now = time.time()
        with self._lock:
            self._models[model] = Resident(context, now + (kept_s or KEEP_S), now + kept_s)

    def drop(self, model: str) -> None:
        """Unload a model, whichever client keeps it."""
        with self._lock:
            self._models.pop(model, None)

    def clear(self) -> None:
        """Unload all models."""
        with self._lock:
            self._models.clear()

    def is_kept_from(self, model: str, context: int) -> bool:
        """Return whether a request with this context has to wait for another client's model to expire."""
        with self._lock:
            resident = self._models.get(model)
        return resident is not None and resident.context != context and time.time() < resident.kept_until

    def listed(self) -> list[tuple[str, Resident]]:
        """Return the loaded models, the last to expire first."""
        with self._lock:
            return sorted(self._models.items(), key=lambda item: -item[1].expires_at)
