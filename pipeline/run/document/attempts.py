"""What a document has cost so far: the requests sent for it, their history and their tokens, over all its tries.

A document that no server could finish goes back in the queue with the failure that it would have been; that failure
carries what was spent until then. Nothing here sends a request.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.records import ExtractionAttempt, Failure, Known, Try, Usage
from pipeline.run.plan import VariantQuery
from pipeline.run.selection.deciding import settings_digest

HISTORY_KEPT = 20
"""Requests told of in a record; a document that met many outages has had more."""


def requests_sent(attempts: Sequence[ExtractionAttempt], before: Failure | None) -> int:
    """Return how many requests reached a server, or may have."""
    return sum(attempt.sent for attempt in attempts) + (before.attempts if before else 0)


def history(attempts: Sequence[ExtractionAttempt], before: Failure | None) -> tuple[Try, ...]:
    """Return the last requests, in order, those of earlier tries included."""
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


def total_of(*counted: Usage | ExtractionAttempt) -> Usage:
    """Return the sums of tokens; None where no server counted any."""
    return Usage(
        _sum([attempt.prompt_tokens for attempt in counted]), _sum([attempt.completion_tokens for attempt in counted])
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    numbers = [count for count in counts if count is not None]
    return sum(numbers) if numbers else None


def runs_so_far(known: Known | None, sha256: str | None, query: VariantQuery) -> int:
    """Return how many runs have failed to do these bytes with this question and the settings that decide it."""
    if known is None or not known.failed or (known.sha256, known.fingerprint) != (sha256, query.failure_fingerprint):
        return 0
    return known.runs if settings_digest(known.decided_by) in (None, query.decided_by.get(known.reason or "")) else 0


def with_notes(notes: tuple[str, ...], *more: str) -> tuple[str, ...]:
    """Return the notes and those of `more` that are new."""
    return (*notes, *(note for note in dict.fromkeys(more) if note not in notes))
