"""Waiting and running work: documents, bytes, and the plans still in use. Starts nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.documents import held_bytes
from pipeline.records import Entry
from pipeline.run.document.process import FinishedEntry, is_suspect
from pipeline.run.plan import ExtractionPlan


@dataclass(frozen=True, slots=True)
class DocumentOutcome:
    """A worker's outcome, and the plan of its document."""

    finished: FinishedEntry
    plan: ExtractionPlan


class Backlog:
    """Waiting entries, grouped by variant: servers cache the beginning of the most recent prompts.

    When a variant has no more entries here, the variant that has waited longest is next; the reader's look-ahead bounds
    its wait. To keep the listing's order, `variant_of` returns the same text for all ids. Postponed entries come first.
    Used by the main thread only.
    """

    def __init__(self, variant_of: Callable[[str], str]) -> None:
        self._variant_of = variant_of
        self._queues: dict[str, deque[Entry]] = {}
        self._postponed: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._postponed) + sum(map(len, self._queues.values()))

    def append(self, entry: Entry) -> None:
        """Add an entry behind the others of its variant."""
        self._queues.setdefault(self._variant_of(entry.id), deque()).append(entry)

    def postpone(self, entry: Entry) -> None:
        """Add an entry behind the other postponed ones."""
        self._postponed.append(entry)

    @property
    def has_postponed(self) -> bool:
        """True while an entry waits to be sent again."""
        return bool(self._postponed)

    @property
    def waits_for_idle(self) -> bool:
        """True while an entry waits until nothing else is in flight."""
        return any(map(is_suspect, self._postponed))

    def take(self, *, idle: bool) -> Entry | None:
        """Remove and return the next entry; None when no entry may be sent now.

        An entry that may have killed its server precedes all others, and is sent only when nothing is in flight
        (`idle`).
        """
        suspect = next((entry for entry in self._postponed if is_suspect(entry)), None)
        if suspect is not None:
            if not idle:
                return None
            self._postponed.remove(suspect)
            return suspect
        if self._postponed:
            return self._postponed.popleft()
        return self._popleft() if self._queues else None

    def _popleft(self) -> Entry:
        variant, queue = next(iter(self._queues.items()))
        entry = queue.popleft()
        if not queue:
            del self._queues[variant]
        return entry


class Flight:
    """The documents in flight and their bytes; used by the main thread only."""

    def __init__(self, *, max_bytes: int) -> None:
        self.documents = 0
        self._size_bytes = 0
        self._max_bytes = max_bytes
        self._by_plan: dict[int, int] = {}

    def has_room(self, limit: int, *, other_requests: int = 0, others_bytes: int = 0) -> bool:
        """Return True when one more document may be sent; a document above the byte limit may be sent alone.

        `other_requests`: further requests in flight. `others_bytes`: memory in use besides these documents.
        """
        in_flight = self.documents + other_requests
        return in_flight == 0 or (in_flight < limit and self._size_bytes + others_bytes < self._max_bytes)

    def add(self, entry: Entry, plan: ExtractionPlan) -> None:
        """Count a document that was sent."""
        self.documents += 1
        self._size_bytes += max(entry.size_bytes, held_bytes(entry))
        self._by_plan[id(plan)] = self._by_plan.get(id(plan), 0) + 1

    def remove(self, entry: Entry, plan: ExtractionPlan) -> None:
        """Count a document that has returned."""
        self.documents -= 1
        self._size_bytes -= max(entry.size_bytes, held_bytes(entry))
        self._by_plan[id(plan)] -= 1

    def uses(self, plan: ExtractionPlan) -> bool:
        """Return True while a document that was sent with this plan is in flight."""
        return self._by_plan.get(id(plan), 0) > 0
