"""Which models an Ollama has loaded, with what context, and until when another client keeps them.

It must not wait or answer: the server asks it what is loaded and what a request has to wait for.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

KEEP_S = 300.0


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model; `kept_until`: another client renews it until then, and no other context is loaded meanwhile."""

    context: int
    expires_at: float
    kept_until: float = 0.0


class Residents:
    """The loaded models by name; safe for many threads. Times are Unix times."""

    def __init__(self) -> None:
        self._models: dict[str, Resident] = {}
        self._lock = threading.Lock()

    def get(self, model: str) -> int:
        """Return the context of a loaded model, 0 for one that is not loaded."""
        with self._lock:
            return self._models[model].context if model in self._models else 0

    def put(self, model: str, context: int, *, kept_s: float = 0.0) -> None:
        """Load a model."""
        now = time.time()
        with self._lock:
            self._models[model] = Resident(context, now + (kept_s or KEEP_S), now + kept_s)

    def drop(self, model: str) -> None:
        """Unloads a model, whoever keeps it."""
        with self._lock:
            self._models.pop(model, None)

    def clear(self) -> None:
        """Unloads all models."""
        with self._lock:
            self._models.clear()

    def is_kept_from(self, model: str, context: int) -> bool:
        """Return whether a request with this context has to wait for another client's model to expire."""
        with self._lock:
            found = self._models.get(model)
        return found is not None and found.context != context and time.time() < found.kept_until

    def listed(self) -> list[tuple[str, Resident]]:
        """Return what is loaded, that which expires last first."""
        with self._lock:
            return sorted(self._models.items(), key=lambda item: -item[1].expires_at)
