"""The numbers of a run's long documents, for its progress, its metrics and its report. Used by the main thread only.

It must not hold a document, so that its size does not depend on the archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.records import Failure, Result
from pipeline.report.numbers import LongDocumentNumbers
from pipeline.report.window_facts import dropped_items


@dataclass(frozen=True, slots=True)
class LongStatus:
    """The long documents at one moment: how many are `open`, and how many of their `windows` are `answered`.

    `parked`: the number of documents that are read again when fewer are open. `outcomes`: the run's windows by outcome.
    """

    open: int = 0
    answered: int = 0
    windows: int = 0
    parked: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str | None:
        """The status as the progress shows it; None while no long document is open."""
        parked = f", {self.parked:,} more waiting" if self.parked else ""
        return f"{self.open:,} open, {self.answered:,} of {self.windows:,} windows{parked}" if self.open else None

    @property
    def windows_of_finished(self) -> int:
        """The number of answered windows of finished documents."""
        return max(0, self.outcomes.get("answered", 0) + self.outcomes.get("reused", 0) - self.answered)


@dataclass(slots=True)
class LongCounts:
    """The number of windows by outcome (`reused`: answered in an earlier run), and of their documents.

    `most`: the largest number of windows of a document. `dropped`: items that were left out of merged answers.
    """

    answered: int = 0
    divided: int = 0
    failed: int = 0
    reused: int = 0
    documents: int = 0
    most: int = 0
    conflicts: int = 0
    dropped: int = 0
    merge_failed: int = 0

    @property
    def outcomes(self) -> dict[str, int]:
        """The windows by outcome, as the metric has them."""
        return {"answered": self.answered, "divided": self.divided, "failed": self.failed, "reused": self.reused}

    def add_document(self, outcome: Result | Failure, *, windows: int) -> None:
        """Count a document whose record is written, and how many windows it had."""
        self.documents += 1
        self.most = max(self.most, windows)
        if isinstance(outcome, Failure):
            self.merge_failed += outcome.reason == "merge_failed"
            return
        merge = outcome.merge or {}
        self.conflicts += merge.get("conflicts_total", 0)
        self.dropped += dropped_items(merge)

    def numbers(self) -> LongDocumentNumbers | None:
        """Return the numbers for the report; None for a run without windows."""
        if not (self.documents or any(self.outcomes.values())):
            return None
        return LongDocumentNumbers(
            documents=self.documents,
            windows=self.answered + self.reused,
            most=self.most,
            reused=self.reused,
            divided=self.divided,
            conflicts=self.conflicts,
            dropped=self.dropped,
            merge_failed=self.merge_failed,
        )
