"""The cost of a document so far: its requests, their history and their tokens, over all attempts.

A document that no server could finish returns to the queue. The failure that it would have become is kept with it, and
holds the cost so far. This module sends no request.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.records import ExtractionAttempt, Failure, LatestRecord, Try, Usage
from pipeline.run.plan import VariantQuery
from pipeline.run.selection.deciding import settings_digest

HISTORY_KEPT = 20
"""The most requests in the history of a record; more may have been sent during outages."""


def requests_sent(attempts: Sequence[ExtractionAttempt], earlier_failure: Failure | None) -> int:
    """Return the number of requests that reached a server or may have reached it."""
    return sum(attempt.sent for attempt in attempts) + (earlier_failure.attempts if earlier_failure else 0)


def history(attempts: Sequence[ExtractionAttempt], earlier_failure: Failure | None) -> tuple[Try, ...]:
    """Return the last requests in order, including those of earlier attempts."""
    tries = [
        Try(
            attempt.model.provider,
            attempt.model.endpoint,
            attempt.error or attempt.rejection,
            round(attempt.latency_s, 3),
        )
        for attempt in attempts
    ]
    return ((earlier_failure.history if earlier_failure else ()) + tuple(tries))[-HISTORY_KEPT:]


def usage(attempts: Sequence[ExtractionAttempt], earlier_failure: Failure | None) -> Usage:
    """Return the tokens summed over all requests; None where no server counted any."""
    return total_of(earlier_failure.usage if earlier_failure else Usage(), *attempts)


def total_of(*parts: Usage | ExtractionAttempt) -> Usage:
    """Return the sums of tokens; None where no server counted any."""
    return Usage(
        _sum([attempt.prompt_tokens for attempt in parts]), _sum([attempt.completion_tokens for attempt in parts])
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    numbers = [count for count in counts if count is not None]
    return sum(numbers) if numbers else None


def runs_so_far(latest: LatestRecord | None, sha256: str | None, query: VariantQuery) -> int:
    """Return how many runs have failed on these bytes with this prompt and the settings that decide it."""
    if (
        latest is None
        or not latest.failed
        or (latest.sha256, latest.fingerprint) != (sha256, query.failure_fingerprint)
    ):
        return 0
    return latest.runs if settings_digest(latest.decided_by) in (None, query.decided_by.get(latest.reason or "")) else 0


def with_notes(notes: tuple[str, ...], *further_notes: str) -> tuple[str, ...]:
    """Return the notes, and those of `further_notes` that are not among them."""
    return (*notes, *(note for note in dict.fromkeys(further_notes) if note not in notes))
