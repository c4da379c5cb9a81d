"""What is under way: documents and bytes at the workers, and which plans are still in use. It starts nothing."""

from __future__ import annotations

from pipeline.process import Plan
from pipeline.records import Entry


class Flight:
    """Counts what was sent and has not come back; belongs to the main thread."""

    def __init__(self, *, max_bytes: int) -> None:
        self.documents = 0
        self._size_bytes, self._max_bytes = 0, max_bytes
        self._by_plan: dict[int, int] = {}

    def has_room(self, limit: int) -> bool:
        """True when one more may go; a document larger than all bytes allowed goes when it is alone."""
        return self.documents == 0 or (self.documents < limit and self._size_bytes < self._max_bytes)

    def sent(self, entry: Entry, plan: Plan) -> None:
        """Counts one document in."""
        self.documents += 1
        self._size_bytes += entry.size_bytes
        self._by_plan[id(plan)] = self._by_plan.get(id(plan), 0) + 1

    def landed(self, entry: Entry, plan: Plan) -> None:
        """Counts one document out."""
        self.documents -= 1
        self._size_bytes -= entry.size_bytes
        self._by_plan[id(plan)] -= 1

    def uses(self, plan: Plan) -> bool:
        """True while a document that was sent with this plan is under way."""
        return self._by_plan.get(id(plan), 0) > 0
