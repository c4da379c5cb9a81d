"""The limits that were found of one server, and which of its records they make doubtful; its owner has the lock.

A limit is found after documents have been accepted, and while others are. Which of those were cut is judged at the end
of the run, from their records: a count that a cut leaves makes a record doubtful, unless its document was proved by its
halves. Times decide only where a record does not tell the count of the prompt, since several requests led to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pipeline.llm.prompt_length.repetition import Cut
from pipeline.records import utc_now

LAG = timedelta(seconds=2)
"""How long after its prompt was accepted a record may get its time: its answer is parsed and validated meanwhile."""


@dataclass(frozen=True, slots=True)
class FoundLimit:
    """A limit, and the latest time of records whose prompts had been accepted before it was found."""

    cut: Cut
    until: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a record tells of its prompt. `is_noted`: it says that its prompt was not verified."""

    document: str
    tokens: int
    attempts: int
    finished_at: str
    is_noted: bool


class FoundLimits:
    """The limits of a server in the order in which they were found.

    `proved` holds the ids of documents that were proved by their halves: only of those whose counts are near a limit.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> None:
        self.proved: set[str] = set()
        self._now = now
        self._limits: list[FoundLimit] = []
        self._until = datetime.min.replace(tzinfo=timezone.utc)
        self._accepted_since: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether a limit was found after the first prompt had been accepted."""
        return bool(self._limits)

    def add(self, cut: Cut) -> None:
        """Record a limit that was found now."""
        self._until = self._now() + LAG
        self._limits.append(FoundLimit(cut, utc_now(self._until)))
        self._accepted_since.clear()

    def accept(self, document: str) -> None:
        """Record that the prompt of a document was accepted now."""
        if self._limits and self._now() <= self._until:
            self._accepted_since.add(document)

    def doubt(self, accepted: Accepted) -> bool:
        """Return whether a record may be that of a cut prompt."""
        return any(self._is_doubtful(accepted, limit) for limit in self._limits)

    def _is_doubtful(self, accepted: Accepted, limit: FoundLimit) -> bool:
        is_early = accepted.finished_at <= limit.until and accepted.document not in self._accepted_since
        if accepted.attempts > 1:
            return is_early
        if not limit.cut.is_near(accepted.tokens, limit.cut.max_tokens) or accepted.document in self.proved:
            return False
        return is_early or not accepted.is_noted
