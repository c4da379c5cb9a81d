"""What the requests for one document add up to."""

from __future__ import annotations

from pipeline.records import ExtractionAttempt, Usage


def requests_sent(attempts: list[ExtractionAttempt]) -> int:
    """How many requests were sent; a prompt that cannot fit is not."""
    return sum(attempt.sent or attempt.reason != "context_length" for attempt in attempts)


def usage_of(attempts: list[ExtractionAttempt]) -> Usage:
    """Tokens summed over the attempts; None where no server told any."""
    prompt = [a.prompt_tokens for a in attempts if a.prompt_tokens is not None]
    completion = [a.completion_tokens for a in attempts if a.completion_tokens is not None]
    return Usage(sum(prompt) if prompt else None, sum(completion) if completion else None)
