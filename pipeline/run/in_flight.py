"""What waits for a worker and what is under way: documents, bytes, and the plans still in use. It starts nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.documents import held_bytes
from pipeline.records import Entry
from pipeline.run.document.process import Finished, is_suspect
from pipeline.run.plan import ExtractionPlan


@dataclass(frozen=True, slots=True)
class Landed:
    """A worker's outcome, and the plan it was asked with."""

    finished: Finished
    plan: ExtractionPlan


class Backlog:
    """Entries that wait, those of one variant side by side: servers keep the beginning of the prompts that come last.

    When one variant has none left here, the one that has waited longest has its turn; the reader's look-ahead bounds
    how long that takes. Where the first documents of the listing are wanted, `variant_of` says the same of all ids.
    Postponed entries come first. Belongs to the main thread.
    """

    def __init__(self, variant_of: Callable[[str], str]) -> None:
        self._variant_of = variant_of
        self._queues: dict[str, deque[Entry]] = {}
        self._postponed: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._postponed) + sum(map(len, self._queues.values()))

    def append(self, entry: Entry) -> None:
        """Behind the others of its variant."""
        self._queues.setdefault(self._variant_of(entry.id), deque()).append(entry)

    def postpone(self, entry: Entry) -> None:
        """Behind the other postponed ones."""
        self._postponed.append(entry)

    @property
    def has_postponed(self) -> bool:
        """True while an entry that was sent before waits to be sent again."""
        return bool(self._postponed)

    @property
    def waits_for_idle(self) -> bool:
        """True while an entry waits for the moment in which nothing else is in flight."""
        return any(map(is_suspect, self._postponed))

    def take(self, *, idle: bool) -> Entry | None:
        """Remove and return the next entry; None when none may go now.

        One that may have killed its server goes before all others, and only when nothing is in flight (`idle`).
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
    """Counts what was sent and has not come back; belongs to the main thread."""

    def __init__(self, *, max_bytes: int) -> None:
        self.documents = 0
        self._size_bytes = 0
        self._max_bytes = max_bytes
        self._by_plan: dict[int, int] = {}

    def has_room(self, limit: int, *, others: int = 0, others_bytes: int = 0) -> bool:
        """True when one more document may be sent; one larger than the limit of bytes may be sent alone.

        `others`: further requests in flight. `others_bytes`: the memory that is held besides these documents.
        """
        in_flight = self.documents + others
        return in_flight == 0 or (in_flight < limit and self._size_bytes + others_bytes < self._max_bytes)

    def sent(self, entry: Entry, plan: ExtractionPlan) -> None:
        """Counts one document in."""
        self.documents += 1
        self._size_bytes += max(entry.size_bytes, held_bytes(entry))
        self._by_plan[id(plan)] = self._by_plan.get(id(plan), 0) + 1

    def landed(self, entry: Entry, plan: ExtractionPlan) -> None:
        """Counts one document out."""
        self.documents -= 1
        self._size_bytes -= max(entry.size_bytes, held_bytes(entry))
        self._by_plan[id(plan)] -= 1

    def uses(self, plan: ExtractionPlan) -> bool:
        """True while a document that was sent with this plan is under way."""
        return self._by_plan.get(id(plan), 0) > 0
