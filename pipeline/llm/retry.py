"""The only level of retry in the program: the number of retries, the delays, and the results that end them.

A policy is a value, safe for all threads. The caller passes in the function that sleeps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import OllamaConfig, VLLMConfig
from pipeline.llm.protocol import LLMClient
from pipeline.records import ExtractionAttempt

COSTLY_RETRIES = 1
"""Retries after a timeout, or after an answer that consists of thoughts: both cost client and server much."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter; delays in seconds. At most `max_retries` + 1 requests."""

    max_retries: int
    base_delay_s: float
    max_delay_s: float
    multiplier: float

    @classmethod
    def of(cls, config: OllamaConfig | VLLMConfig) -> RetryPolicy:
        """Return the policy of a provider's settings."""
        return cls(config.max_retries, config.retry_base_delay, config.retry_max_delay, config.retry_backoff_multiplier)

    def allows(self, failures: list[ExtractionAttempt]) -> bool:
        """Return whether another request may follow these failures."""
        costly = sum(1 for attempt in failures if attempt.reason == "timeout" or attempt.thought)
        return failures[-1].retryable and len(failures) <= self.max_retries and costly <= COSTLY_RETRIES

    def delay_s(self, failures: list[ExtractionAttempt], rng: random.Random) -> float:
        """Return the seconds before the next request: the server's Retry-After, else the back-off; capped."""
        requested_s = failures[-1].retry_after_s
        if requested_s is not None:
            return min(requested_s, self.max_delay_s)
        ceiling = min(self.max_delay_s, self.base_delay_s * self.multiplier ** (len(failures) - 1))
        return rng.uniform(0.0, ceiling)


def call_with_retries(
    client: LLMClient,
    prompts: Mapping[str, str],
    *,
    json_schema: Mapping[str, Any] | None,
    document_text: str,
    policy: RetryPolicy,
    sleep: Callable[[float], object],
    rng: random.Random,
) -> list[ExtractionAttempt]:
    """Return all attempts at one request; the last one is the result. `sleep` returns True to stop the retries."""
    attempts: list[ExtractionAttempt] = []
    while True:
        attempts.append(client.call_llm(prompts, json_schema, document_text))
        if not policy.allows(attempts) or sleep(policy.delay_s(attempts, rng)) is True:
            return attempts
