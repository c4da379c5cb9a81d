"""The limits detected at one server, and which of its records may come from truncated prompts.

A limit is often detected after documents have been accepted, or while other threads accept some. At the end of the run
their records are judged: a record is doubtful if its token count is one of a truncated prompt, unless its document was
verified by its halves. Times decide only where a record does not have the count of its prompt, because several requests
led to it. The owner of a DetectedLimits holds the lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pipeline.llm.prompt_length.repetition import TruncatedCounts
from pipeline.records import utc_now

LAG = timedelta(seconds=2)
"""Longest time from the acceptance of a prompt to that in its record: its answer is parsed and validated meanwhile."""


@dataclass(frozen=True, slots=True)
class DetectedLimit:
    """A limit, and the latest time of records whose prompts were accepted before it was detected."""

    truncation: TruncatedCounts
    accepted_until: str


@dataclass(frozen=True, slots=True)
class AcceptedResult:
    """A record's information about its prompt. `is_noted`: the record has the note `prompt_length_unverified`."""

    document: str
    tokens: int
    attempts: int
    finished_at: str
    is_noted: bool


class DetectedLimits:
    """The limits of a server, in the order in which they were detected.

    `verified`: ids of the documents that were verified by their halves, as their counts are near a limit.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> None:
        self.verified: set[str] = set()
        self._clock = clock
        self._limits: list[DetectedLimit] = []
        self._until = datetime.min.replace(tzinfo=timezone.utc)
        self._accepted_since: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether a limit was detected after the first prompt had been accepted."""
        return bool(self._limits)

    def add(self, truncation: TruncatedCounts) -> None:
        """Record a limit that was detected now."""
        self._until = self._clock() + LAG
        self._limits.append(DetectedLimit(truncation, utc_now(self._until)))
        self._accepted_since.clear()

    def accept(self, document: str) -> None:
        """Record that the prompt of a document was accepted now."""
        if self._limits and self._clock() <= self._until:
            self._accepted_since.add(document)

    def doubts(self, result: AcceptedResult) -> bool:
        """Return whether a record may come from a truncated prompt."""
        return any(self._is_doubtful(result, limit) for limit in self._limits)

    def _is_doubtful(self, result: AcceptedResult, limit: DetectedLimit) -> bool:
        is_early = result.finished_at <= limit.accepted_until and result.document not in self._accepted_since
        if result.attempts > 1:
            return is_early
        is_near = limit.truncation.is_near(result.tokens, limit.truncation.max_tokens)
        if not is_near or result.document in self.verified:
            return False
        return is_early or not result.is_noted
