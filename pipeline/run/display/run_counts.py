"""The counts of a run's documents by outcome."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.output import Output
from pipeline.run.reader import ReaderCounts
from pipeline.run.stop_rules import StopReason


@dataclass(slots=True)
class RunCounts:
    """Counts of outcomes from the workers, in documents; `unchanged` documents were read and skipped."""

    done: int = 0
    failed: int = 0
    unchanged: int = 0
    left: int = 0

    def undo(self, done: int, failed: int) -> None:
        """Count documents as left whose records could not be synced to the disk or the store."""
        self.done -= done
        self.failed -= failed
        self.left += done + failed

    @property
    def tried(self) -> int:
        """The documents with a result or a failure in this run."""
        return self.done + self.failed

    def with_listing(self, listing: ReaderCounts) -> dict[str, int]:
        """Return found, done, failed, skipped and left."""
        skipped = listing.skipped + self.unchanged
        left = listing.left + self.left
        return {"found": listing.found, "done": self.done, "failed": self.failed, "skipped": skipped, "left": left}


def settle(output: Output, counts: RunCounts, *, end: StopReason | None) -> StopReason | None:
    """Sync the records; return the reason of the run's end. Documents whose records are lost count as left."""
    try:
        output.finish(settle=end is None or not end.is_signal)
    except PipelineError as error:
        if end is not None and end.exit_code is not None:
            end = end.with_error(str(error))
        else:
            end = StopReason.of_error(error)
    counts.undo(*output.unwritten)
    return end
