"""Sums over the attempts of one document."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.records import ExtractionAttempt, Usage


def usage_of(attempts: Iterable[ExtractionAttempt]) -> Usage:
    """Return the tokens of the attempts, summed; None where no server reported any."""
    pairs = [(each.prompt_tokens, each.completion_tokens) for each in attempts]
    prompt = [count for count, _ in pairs if count is not None]
    completion = [count for _, count in pairs if count is not None]
    return Usage(sum(prompt) if prompt else None, sum(completion) if completion else None)
