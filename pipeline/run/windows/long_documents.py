"""The processing of documents that are cut into windows: send the windows, store their answers, write the records.

Used by the main thread only; open_documents.py chooses the next window, window_outcome.py sends it in a worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pipeline.errors import InternalError
from pipeline.long.windows import Span, covers
from pipeline.records import Entry, Failure, Left, Postponed, Result, changed
from pipeline.run.document.process import FinishedEntry
from pipeline.run.plan import ExtractionPlan
from pipeline.run.stop_rules import StopReason, end_of
from pipeline.run.windows.cutting import CutDocument, Divided, Window, WindowFailed
from pipeline.run.windows.long_counts import LongCounts, LongStatus
from pipeline.run.windows.merged_outcome import merge_windows
from pipeline.run.windows.open_documents import OpenDocument, OpenDocuments, is_suspect, postponed
from pipeline.run.windows.stored_answers import StoredAnswers
from pipeline.run.windows.window_outcome import ask_window
from pipeline.window_answers import WindowAnswer

if TYPE_CHECKING:
    from pipeline.run.runner import Runner


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """A worker's outcome for a window of an open document; `window` is None for the merged document."""

    document: OpenDocument
    window: Window | None
    finished: FinishedEntry


class LongDocuments:
    """The open documents of one run; `counts`: of the run so far."""

    def __init__(self, runner: Runner, clock: Callable[[], float]) -> None:
        self.counts = LongCounts()
        self._runner = runner
        self._clock = clock
        self._open = OpenDocuments()
        self._is_windows_turn = False
        self._to_merge: deque[OpenDocument] = deque()
        """Documents with all answers. Only the first is being merged, so that the answers of one are in memory."""

    @property
    def documents(self) -> int:
        """The number of documents that are open or parked."""
        return len(self._open)

    @property
    def status(self) -> LongStatus:
        """The open documents now, and the windows of the run by outcome."""
        return LongStatus(*self._open.status, outcomes=self.counts.outcomes)

    @property
    def in_flight(self) -> int:
        """The number of requests in flight for windows."""
        return self._open.in_flight

    @property
    def size_bytes(self) -> int:
        """The approximate memory of the open documents."""
        return self._open.size_bytes

    @property
    def is_full(self) -> bool:
        """True while no new document should be read."""
        return self._open.is_full

    def uses(self, plan: ExtractionPlan) -> bool:
        """True while a document is processed with this plan."""
        return self._open.uses(plan)

    def open_or_park(self, cut: CutDocument, finished: FinishedEntry, plan: ExtractionPlan) -> None:
        """Open a document that is cut into windows, or park it."""
        self._runner.job.watcher.outcome(finished)
        self._runner.finish(end_of(self._runner.job.output.open_windows))
        if not (self._open.free_place(finished.entry) or self._open.may_open(self._runner.most_in_flight)):
            entry = changed(cut.long.entry, earlier_failure=cut.long.earlier_failure)
            self._open.park(entry, windows=len(cut.spans), size_bytes=cut.long.size_bytes)
            return
        document = OpenDocument.of(cut, plan, now=self._clock())
        self._open.open(document)
        self.counts.reused += document.reused
        self._advance(document)

    def free_place(self, entry: Entry) -> None:
        """Free the place of a parked document that was read again and need not be cut."""
        self._open.free_place(entry)

    def send_one(self, send_entry: Callable[[], bool]) -> bool:
        """Send a new entry or a window, in turn; return False when neither may be sent."""
        if not self._open:
            return send_entry()
        if (entry := self._open.unpark(self._runner.most_in_flight)) is not None:
            self._runner.backlog.postpone(entry)
        # a whole document that must be sent alone goes before a window that must: else both would wait for ever
        if self._open.has_suspect and not self._runner.backlog.waits_for_idle:
            return self._send_window()
        if self._is_windows_turn and not self._runner.backlog.has_postponed:
            is_window = self._send_window()
            is_sent = is_window or send_entry()
        else:
            is_sent = send_entry()
            is_window = not is_sent and self._send_window()
        if is_sent or is_window:
            self._is_windows_turn = not is_window
        return is_sent or is_window

    def _send_window(self) -> bool:
        runner = self._runner
        if runner.in_flight >= runner.most_in_flight or runner.job.output.is_full or runner.backlog.waits_for_idle:
            return False
        next_window = self._open.next(idle=runner.in_flight == 0)
        if next_window is None:
            return False
        document, window = next_window
        alone = is_suspect(window)
        plan = document.plan
        ask = partial(ask_window, document.long, window, plan, client=plan.client, alone=alone)
        self._submit(document, window, ask)
        return True

    def _submit(self, document: OpenDocument, window: Window | None, task: Callable[[], FinishedEntry]) -> None:
        self._open.in_flight += 1
        self._runner.submit(lambda: PartOutcome(document, window, task()))

    def handle(self, event: PartOutcome) -> None:
        """Process the outcome of a window or of a merged document."""
        self._open.in_flight -= 1
        document = event.document
        if event.window is None:
            document.is_merging = False
            self._to_merge.popleft()
            self._merge_next()
            self._close(document, event.finished.outcome)
            return
        document.in_flight.remove(event.window.span)
        document.cost.add(event.finished.attempts)
        self._runner.learn(event.finished)
        self._handle_window(document, event.window, event.finished)
        self._advance(document)

    def _handle_window(self, document: OpenDocument, window: Window, finished: FinishedEntry) -> None:
        outcome = finished.outcome
        if isinstance(outcome, Left):
            if outcome.error is not None:
                self._runner.finish(StopReason.of_error(outcome.error))
            document.queue(window)
            return
        if isinstance(outcome, WindowAnswer):
            self._store_answer(document, window, outcome)
        elif isinstance(outcome, Divided):
            document.divide(window, outcome)
            self.counts.divided += 1
        elif isinstance(outcome, WindowFailed):
            document.fail(window, outcome.failure)
            self.counts.failed += 1
        elif isinstance(outcome, Postponed):
            document.queue(postponed(window, outcome))
            self._use_present_plan(document, outcome.failure)
        self._runner.job.watcher.outcome(finished)

    def _store_answer(self, document: OpenDocument, window: Window, answer: WindowAnswer) -> None:
        windows = self._runner.job.output.windows
        assert windows is not None
        if (end := end_of(partial(windows.write, answer))) is not None:
            self._runner.finish(end)
            document.queue(window)
            return
        document.cost.reasks += answer.reasks
        document.answered.add(window.span)
        self.counts.answered += 1

    def _use_present_plan(self, document: OpenDocument, failure: Failure) -> None:
        """Move a document of a former plan, whose servers are unavailable, to the present plan."""
        plan = self._runner.plan
        if document.plan is plan:
            return
        former_plan = document.plan
        query = plan.query_for(document.long.entry.id)
        split = document.long.query.split
        document.plan = plan
        if query.split is not None and split is not None and query.split.question == split.question:
            document.long = replace(document.long, query=query)
        else:
            document.outdate()
            document.long = replace(document.long, earlier_failure=document.with_cost(failure))
        self._runner.close_unused(former_plan)

    def _advance(self, document: OpenDocument) -> None:
        """Merge, fail or requeue a document that has no window waiting or in flight."""
        if not document.is_settled:
            return
        if document.first_failure is not None:
            self._close(document, document.failure())
        elif document.is_outdated:
            self._open.close(document)
            self._runner.backlog.postpone(changed(document.long.entry, earlier_failure=document.long.earlier_failure))
        elif self._runner.end is None or not self._has_gaps(document):
            document.is_merging = True
            self._to_merge.append(document)
            if len(self._to_merge) == 1:
                self._merge_next()

    def _merge_next(self) -> None:
        """Merge the next document, if any."""
        if not self._to_merge:
            return
        document = self._to_merge[0]
        windows = self._runner.job.output.windows
        assert windows is not None
        merge = partial(
            merge_windows,
            document.long,
            partial(StoredAnswers(windows).answers_about, document.long, document.answered),
            document.plan,
            cost=document.cost,
            reused=document.reused,
            divided=document.divided,
            elapsed_s=self._clock() - document.opened_at,
            client=document.plan.client,
        )
        self._submit(document, None, merge)

    def _has_gaps(self, document: OpenDocument) -> bool:
        return not covers(document.answered, len(document.long.document.text))

    def _close(self, document: OpenDocument, outcome: object) -> None:
        """Write the record of a document that is merged or failed."""
        runner = self._runner
        if isinstance(outcome, Result) and (error := _proof_error(outcome)) is not None:
            runner.finish(StopReason.of_error(error))
            return
        self._open.close(document)
        runner.close_unused(document.plan)
        if isinstance(outcome, (Result, Failure)):
            if runner.write(outcome):
                self.counts.add_document(outcome, windows=document.windows)
                runner.job.watcher.outcome(FinishedEntry(document.long.entry, outcome))
        else:
            entry: Entry = document.long.entry
            runner.backlog.postpone(outcome.next_entry() if isinstance(outcome, Postponed) else entry)


def _proof_error(result: Result) -> InternalError | None:
    """Return an error unless the result's ledger proves that the whole document was read.

    The rows must cover the text, and each row except those of blank windows must name the model of its answer.
    """
    assert result.windows is not None
    rows = result.windows["rows"]
    if not covers([Span(row[0], row[1]) for row in rows], result.windows["chars"]):
        return InternalError(f"{result.id!r}: its windows do not cover the document; no record is written")
    if any(row[4] and row[6] is None for row in rows):
        return InternalError(f"{result.id!r}: a window was sent and has no answer; no record is written")
    return None
