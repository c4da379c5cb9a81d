"""Requests that belong to no document (proofs, preflights, life signs), counted; safe for many threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pipeline.llm.prompt_length.proofs import PromptProofs


@dataclass(frozen=True, slots=True)
class Spent:
    """Requests and the prompt tokens that servers counted for them."""

    requests: int = 0
    prompt_tokens: int = 0


class Overhead:
    """The requests of a run that belong to no document."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent = Spent()

    @property
    def spent(self) -> Spent:
        """Return what was spent so far."""
        return self._spent

    def add(self, prompt_tokens: int | None) -> None:
        """Count one request."""
        with self._lock:
            spent = self._spent
            self._spent = Spent(spent.requests + 1, spent.prompt_tokens + (prompt_tokens or 0))


class ProofBook:
    """What a run knows of its servers' limits, by endpoint and model; it outlives the plans that a refresh replaces."""

    def __init__(self) -> None:
        self.overhead = Overhead()
        self._lock = threading.Lock()
        self._proofs: dict[tuple[str, ...], PromptProofs] = {}

    def of(self, provider: str, endpoint: str, model: str, *, limit_is_set: bool) -> PromptProofs:
        """Return what is known of one model at one endpoint."""
        with self._lock:
            key = (endpoint, model, str(limit_is_set))
            if key not in self._proofs:
                self._proofs[key] = PromptProofs(f"{provider} ({endpoint})", limit_is_set=limit_is_set)
            return self._proofs[key]

    def all(self) -> list[tuple[str, PromptProofs]]:
        """Return each endpoint with what is known of it."""
        with self._lock:
            return [(key[0], proofs) for key, proofs in self._proofs.items()]
