"""The cost of a document so far: its requests, their history and their tokens, over all attempts.

A document that no server could finish returns to the queue with the failure it would have become; that failure carries
the cost so far. This module sends no request.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.records import ExtractionAttempt, Failure, Known, Try, Usage
from pipeline.run.plan import VariantQuery
from pipeline.run.selection.deciding import settings_digest

HISTORY_KEPT = 20
"""Requests in the history of a record; a document that met many outages has had more."""


def requests_sent(attempts: Sequence[ExtractionAttempt], before: Failure | None) -> int:
    """Return how many requests reached a server, or may have."""
    return sum(attempt.sent for attempt in attempts) + (before.attempts if before else 0)


def history(attempts: Sequence[ExtractionAttempt], before: Failure | None) -> tuple[Try, ...]:
    """Return the last requests in order, including those of earlier attempts."""
    tries = [
        Try(
            attempt.model.provider,
            attempt.model.endpoint,
            attempt.error or attempt.refused,
            round(attempt.latency_s, 3),
        )
        for attempt in attempts
    ]
    return ((before.history if before else ()) + tuple(tries))[-HISTORY_KEPT:]


def usage(attempts: Sequence[ExtractionAttempt], before: Failure | None) -> Usage:
    """Return the tokens summed over all requests; None where no server counted any."""
    return total_of(before.usage if before else Usage(), *attempts)


def total_of(*parts: Usage | ExtractionAttempt) -> Usage:
    """Return the sums of tokens; None where no server counted any."""
    return Usage(
        _sum([attempt.prompt_tokens for attempt in parts]), _sum([attempt.completion_tokens for attempt in parts])
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    numbers = [count for count in counts if count is not None]
    return sum(numbers) if numbers else None


def runs_so_far(known: Known | None, sha256: str | None, query: VariantQuery) -> int:
    """Return how many runs have failed on these bytes with this prompt and the settings that decide it."""
    if known is None or not known.failed or (known.sha256, known.fingerprint) != (sha256, query.failure_fingerprint):
        return 0
    return known.runs if settings_digest(known.decided_by) in (None, query.decided_by.get(known.reason or "")) else 0


def with_notes(notes: tuple[str, ...], *more: str) -> tuple[str, ...]:
    """Return the notes, and those of `more` that are not among them."""
    return (*notes, *(note for note in dict.fromkeys(more) if note not in notes))
