"""The requests of a run that belong to no document, and the verifiers of its servers; safe for many threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pipeline.llm.prompt_length.verifier import PromptVerifier


@dataclass(frozen=True, slots=True)
class OverheadCounts:
    """Requests, and the prompt tokens that servers counted for them."""

    requests: int = 0
    prompt_tokens: int = 0


class Overhead:
    """Counter of the requests that belong to no document: verifications, preflights, liveness requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = OverheadCounts()

    @property
    def counts(self) -> OverheadCounts:
        """Return the requests and tokens so far."""
        return self._counts

    def add(self, prompt_tokens: int | None) -> None:
        """Count one request."""
        with self._lock:
            spent = self._counts
            self._counts = OverheadCounts(spent.requests + 1, spent.prompt_tokens + (prompt_tokens or 0))


class VerifierRegistry:
    """The verifier of each endpoint and model of a run; it outlives the plans that a refresh replaces."""

    def __init__(self) -> None:
        self.overhead = Overhead()
        self._lock = threading.Lock()
        self._verifiers: dict[tuple[str, ...], PromptVerifier] = {}

    def verifier_of(self, provider: str, endpoint: str, model: str, *, limit_is_set: bool) -> PromptVerifier:
        """Return the verifier of one model at one endpoint."""
        with self._lock:
            key = (endpoint, model, str(limit_is_set))
            if key not in self._verifiers:
                self._verifiers[key] = PromptVerifier(f"{provider} ({endpoint})", limit_is_set=limit_is_set)
            return self._verifiers[key]

    def all(self) -> list[tuple[str, PromptVerifier]]:
        """Return each endpoint with its verifier."""
        with self._lock:
            return [(key[0], verifier) for key, verifier in self._verifiers.items()]
