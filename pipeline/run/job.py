"""The parts of a run, passed to the runner as one value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pipeline.config import RunnerConfig
from pipeline.llm.replica import Start
from pipeline.output import Output
from pipeline.output.copies import Copied, Copies
from pipeline.records import Entry, Failure, Result, changed
from pipeline.run.concurrency import Limit
from pipeline.run.display.status import RunStatus
from pipeline.run.document.process import FinishedEntry
from pipeline.run.plan import ExtractionPlan
from pipeline.run.selection.selection import Selection
from pipeline.run.stop_rules import LogWait
from pipeline.run.windows.cutting import EarlierAnswers
from pipeline.stores import OutageRetry

READ_AGAIN = frozenset({"document_unreadable", "document_too_large"})
"""Reasons that a store or a file system can cause during an outage, when it truncates files."""


class Watcher(Protocol):
    """The receiver of each outcome and each turn, in the main thread."""

    def outcome(self, finished: FinishedEntry) -> None: ...

    def turn(self, status: RunStatus) -> None: ...


class Supervisor(Protocol):
    """The keeper of the plan: `establish` is called before the first document, `refresh` returns a new plan or None.

    Slow work is passed to `start`, which runs it in a thread of its own.
    """

    def establish(self, plan: ExtractionPlan, *, start: Start, log_wait: LogWait) -> None: ...

    def refresh(self, *, start: Start) -> ExtractionPlan | None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """The parts of a run. `budget`: how many documents may be tried (None: all); `ends_at`: monotonic end time.

    `relist` lists the input once more, without counting it. `earlier`: the answers about windows of earlier runs.
    """

    entries: Callable[[], Iterator[Entry]]
    relist: Callable[[], Iterator[Entry]]
    selection: Selection
    output: Output
    config: RunnerConfig
    limit: Limit
    supervisor: Supervisor
    watcher: Watcher
    budget: int | None = None
    copies: Copies | None = None
    ends_at: float | None = None
    earlier: EarlierAnswers | None = None
    outage_retry: OutageRetry | None = None

    def doubtful_unversioned(self, outcome: Result | Failure) -> Result | Failure:
        """Return the outcome to write; without its version when an outage may have caused it, so that it is retried."""
        if self.outage_retry is None or not self.outage_retry.troubled or isinstance(outcome, Result):
            return outcome
        return changed(outcome, version=None) if outcome.reason in READ_AGAIN else outcome

    @property
    def copies_waiting(self) -> int:
        """The number of documents that wait for the record of another one."""
        return 0 if self.copies is None else self.copies.waiting

    def allows(self, tried: int) -> bool:
        """Return True while one more document may be tried, besides `tried` ones and the waiting copies.

        In the last pass the copies are sent themselves; they have been counted before.
        """
        is_counted = self.copies is not None and not self.copies.is_last_pass
        waiting_copies = self.copies_waiting if is_counted else 0
        return self.budget is None or tried + waiting_copies < self.budget

    def release(self, entry: Entry) -> bool:
        """End the wait of a document; return False when it did not wait for the record of another one."""
        return self.copies is not None and self.copies.release(entry.id)

    def add_copy(self, copy: Copied) -> None:
        """Let a copy wait for the record of its original."""
        assert self.copies is not None
        self.copies.add(copy)
