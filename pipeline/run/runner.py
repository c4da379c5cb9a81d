"""All threads of a run (workers, reader, prober, refresher), and the loop of the main thread that connects them.

    reader ──entries──▶ main ──tasks──▶ workers        prober: preflight and recovery, each check in its own thread
                         ▲ └─▶ output, progress   │    refresher: a new plan when the configuration changes
                         └───────outcomes─────────┘

Only the main thread uses the output and the progress. It waits for one queue, at most half a second at a time. All
other threads are daemons, so that a stuck socket or file system cannot delay the end.

The end (`_drain`): documents in flight get `grace_s`; then workers, reader and output are closed, and the client last.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.errors import PipelineError
from pipeline.output.copies import Copied, Copies
from pipeline.records import Entry, Failure, Left, Postponed, Result, Unchanged
from pipeline.run.dispatch import pause, send_entry, take_back
from pipeline.run.display.run_counts import RunCounts, settle
from pipeline.run.display.status import Pace, RunStatus, status_of
from pipeline.run.document.process import FinishedEntry
from pipeline.run.ending.end_wait import EndWait
from pipeline.run.in_flight import Backlog, DocumentOutcome, Flight
from pipeline.run.job import Job
from pipeline.run.plan import ExtractionPlan
from pipeline.run.reader import ListingEnd, Reader
from pipeline.run.selection.copy_records import end_copies
from pipeline.run.shortage import run_thread
from pipeline.run.stop_rules import OutageTimer, StopReason, end_of
from pipeline.run.windows.cutting import CutDocument
from pipeline.run.windows.long_documents import LongDocuments, PartOutcome
from pipeline.run.workers.workforce import Workforce
from pipeline.run.writing import OutcomeWriter

logger = logging.getLogger(__name__)

TURN_S, PROBE_TICK_S, REFRESH_S, REFRESH_WAITING_S = 0.5, 0.25, 60.0, 1.0


def start_thread(body: Callable[[], object], name: str) -> None:
    threading.Thread(target=body, name=name, daemon=True).start()


class Runner:
    """One run, from the first entry to the last outcome; `run` is called once, in the main thread."""

    def __init__(
        self, job: Job, plan: ExtractionPlan, *, stop: threading.Event, clock: Callable[[], float] = time.monotonic
    ):
        self.job, self.plan, self.run_counts = job, plan, RunCounts()
        self.end: StopReason | None = None
        self._clock, self._stop = clock, stop
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._new_reader = partial(Reader, events=self._events, stop=stop, room=job.config.max_concurrency)
        self._reader = self._feeder = self._new_reader(job.entries, job.selection)
        self.backlog = Backlog(lambda id: self.plan.query_for(id).resolved.variant if job.budget is None else "")
        self.flight = Flight(max_bytes=job.config.max_in_flight_bytes)
        self._writer, self._outage_timer, self._pace = OutcomeWriter(self), OutageTimer(job.config), Pace(clock)
        self.is_ready, self.is_listing_complete, self._is_reading, self._stops_at_once = False, False, True, False
        self.workforce = Workforce(job, start=self._start, report=self._events.put)
        self.long_documents = LongDocuments(self, clock)
        self._was_full, self._refresh_now, self.end_wait = False, threading.Event(), EndWait(clock)

    @property
    def in_flight(self) -> int:
        """Return the number of requests in flight: documents at the workers, and windows of open documents."""
        return self.flight.documents + self.long_documents.in_flight

    @property
    def most_in_flight(self) -> int:
        """Return the number of requests that may be in flight now."""
        return self.workforce.limit_to_threads(self.job.limit.value)

    def interrupt(self, number: int) -> None:
        """End the run because of a signal, at once on the second signal; called by the signal handler."""
        self._stops_at_once = self.end is not None
        self.end_wait.limit(0.0 if self._stops_at_once else self.job.config.grace_s)
        self.finish(StopReason.of_signal(number))
        self._events.put(None)

    @property
    def counts(self) -> dict[str, int]:
        """Return the documents found, done, failed, skipped and left; exact once `run` has returned."""
        return self.run_counts.with_listing(self._reader.counts)

    @property
    def status(self) -> RunStatus:
        """Return a snapshot of the run."""
        return status_of(self, is_outage=self._outage_timer.since is not None)

    def run(self) -> None:
        """Run to the end of the input, or until `end` is set; documents without an outcome count as left."""
        duties = {"reader": self._reader.run, "prober": self._probe, **self.job.output.backend.duties()}
        for name, duty in duties.items():
            self._start(duty, name)
        self._process_all()
        end_copies(self)
        self._drain()

    def _process_all(self) -> None:
        """Process entries until all are processed or the run ends."""
        while not self._is_over():
            self.turn(TURN_S, dispatch=True)

    def ask_copies(self, copies: Copies) -> None:
        """Send the copies whose original has no record; the input is listed once more to find them."""
        if self._is_reading or self.backlog or self.end is not None:
            return
        copies.begin_last_pass()
        self._feeder, self._is_reading = self._new_reader(self.job.relist, copies), True
        self._start(self._feeder.run, "reader of copies")
        self._process_all()

    def turn(self, timeout_s: float, *, dispatch: bool = False) -> bool:
        """Do one turn of the main loop; return False when the run is over. `dispatch`: send documents, too."""
        self._handle_events(timeout_s)
        self._check_time()
        if dispatch:
            self._dispatch()
        self._sync()
        if self._pace.is_due(busy=self.in_flight > 0):
            self.job.watcher.turn(self.status)
        return self.end is None

    def _is_over(self) -> bool:
        if self.end is not None:
            return True
        nothing_waits = not self.job.allows(self.run_counts.tried) or not (self._is_reading or self.backlog)
        return nothing_waits and self.in_flight == 0 and not self.long_documents.documents

    def _handle_events(self, timeout_s: float) -> None:
        """Wait for the first event, handle all that are queued, and write their outcomes."""
        pause(self)
        with suppress(Empty):
            event = self._events.get(timeout=timeout_s)
            while True:
                self._handle(event)
                event = self._events.get_nowait()
        for entry in self._feeder.arrivals():
            self._accept(entry)
        self._writer.write_waiting()

    def _handle(self, event: object) -> None:
        if isinstance(event, DocumentOutcome):
            self.flight.remove(event.finished.entry, event.plan)
            self.close_unused(event.plan)
            self._handle_outcome(event.finished, event.plan)
        elif isinstance(event, PartOutcome):
            self.long_documents.handle(event)
        elif isinstance(event, ListingEnd):
            self._is_reading, self.is_listing_complete = False, self.is_listing_complete or event.is_complete
        elif isinstance(event, ExtractionPlan):
            self._switch(event)
        elif isinstance(event, PipelineError):
            self.finish(StopReason.of_error(event))
        elif event == "ready":
            self.is_ready = True

    def _accept(self, entry: Entry) -> None:
        """Queue an entry; an entry of the second listing is queued only if it still waits for a record."""
        if self._feeder is self._reader or self.job.release(entry):
            self.backlog.append(entry)
        else:
            self._feeder.count_sent(entry)

    def learn(self, finished: FinishedEntry) -> None:
        """Pass the requests of an outcome to the limit."""
        self.job.limit.record(finished.attempts, full=self._was_full, now=self._clock())

    def _handle_outcome(self, finished: FinishedEntry, plan: ExtractionPlan) -> None:
        outcome = finished.outcome
        self.learn(finished)
        if isinstance(outcome, Left):
            self.run_counts.left += 1
            if outcome.error is not None:
                self.finish(StopReason.of_error(outcome.error))
            return
        if isinstance(outcome, CutDocument):
            self.long_documents.open_or_park(outcome, finished, plan)
            return
        self.long_documents.free_place(finished.entry)
        if isinstance(outcome, Postponed):
            self.backlog.postpone(outcome.next_entry())
        elif isinstance(outcome, Copied):
            end = end_of(partial(self.job.add_copy, outcome))
            self.run_counts.left += end is not None
            self.finish(end)
            return
        elif isinstance(outcome, Unchanged):
            self.run_counts.unchanged += 1
        elif isinstance(outcome, (Result, Failure)):
            self._writer.add(finished, outcome)
            return
        self.job.watcher.outcome(finished)

    def write(self, outcome: Result | Failure, *, is_copy: bool = False) -> bool:
        """Write an outcome now; return False when that ended the run."""
        return self._writer.write(outcome, is_copy=is_copy)

    def refresh_now(self) -> None:
        """Look for a change of the configuration or the servers at once."""
        self._refresh_now.set()

    def _sync(self) -> None:
        """Sync the records that are due; an error of the disk or the store ends the run."""
        self.finish(end_of(partial(self.job.output.sync_due, self._clock())))

    def close_unused(self, plan: ExtractionPlan) -> None:
        """Close the client of a former plan when the last document that uses it is done."""
        if plan is not self.plan and not self.flight.uses(plan) and not self.long_documents.uses(plan):
            plan.client.close()

    def _check_time(self) -> None:
        """End the run when its time is up, or when its providers have been unavailable for too long."""
        now = self._clock()
        self.workforce.start_processes_if_needed(now)
        self.job.limit.set_servers(self.plan.client.serving)
        if self.job.ends_at is not None and now >= self.job.ends_at:
            self.end_wait.limit(self.job.config.grace_s)
            self.finish(StopReason("stopped by --max-duration"))
        trouble = self.plan.client.trouble
        if trouble is None or self.backlog or self.in_flight or self.long_documents.documents:
            self.finish(self._outage_timer.watch(trouble, now, examined=self.is_ready))

    def _dispatch(self) -> None:
        """Send entries and windows to workers while there is room."""
        send = partial(send_entry, self, self._feeder)
        while self.is_ready and self.end is None and self.plan.client.available and self.long_documents.send_one(send):
            pass
        self._was_full = self.in_flight >= self.job.limit.value

    def submit(self, task: Callable[[], object]) -> None:
        """Run a task in a thread of this process; its return value becomes an event."""
        self.finish(end_of(partial(self.workforce.submit, task)))

    def send(self, entry: Entry, *, alone: bool) -> None:
        """Send an entry to a worker process or to a thread of this process."""
        self.finish(end_of(partial(self.workforce.send, entry, self.plan, alone=alone)))

    def _switch(self, plan: ExtractionPlan) -> None:
        """Use the new plan from the next document on; documents in flight keep theirs."""
        former_plan, self.plan = self.plan, plan
        self.close_unused(former_plan)

    def finish(self, end: StopReason | None) -> None:
        """End the run for this reason, unless it has ended for an earlier one."""
        self.end = self.end or end

    def _drain(self) -> None:
        """Let documents in flight finish within the grace period, then close all parts; see the module's docstring."""
        deadline = self._clock() + self.job.config.grace_s
        self._stop.set()
        take_back(self)
        if self.end is not None and self.in_flight:
            logger.info("stopping", extra={"in_flight": self.in_flight, "why": self.end.message})
        while self.in_flight and not self._stops_at_once and (left_s := deadline - self._clock()) > 0:
            self._handle_events(min(TURN_S, left_s))
            self._sync()
            self.job.watcher.turn(self.status)
        self.workforce.close()
        self._reader.close()  # makes its counts final
        self._feeder.close()
        self._handle_events(0.0)
        self.end = settle(self.job.output, self.run_counts, end=self.end)
        waiting = self.job.copies_waiting + len(self.backlog)
        self.run_counts.left += waiting + self.flight.documents + self.long_documents.documents
        self.plan.client.close()  # last, as the documents in flight use it

    def _start(self, body: Callable[[], object], name: str) -> None:
        start_thread(lambda: run_thread(body, self._events.put, name=name), name)

    def _probe(self) -> None:
        self.job.supervisor.establish(self.plan, start=self._start, log_wait=self._outage_timer.log_start)
        self._events.put("ready")
        self._start(self._refresh, "refresher")
        while not self._stop.wait(PROBE_TICK_S):
            self.plan.client.recover(self._start)
            self.job.limit.read_gauges(self.plan.client.serving, now=self._clock())

    def _refresh(self) -> None:
        checked_at = self._clock()
        while not self._stop.wait(PROBE_TICK_S):
            pause = REFRESH_S if self._outage_timer.since is None else REFRESH_WAITING_S
            if self._refresh_now.is_set() or self._clock() - checked_at >= pause:
                self._refresh_now.clear()
                if (plan := self.job.supervisor.refresh(start=self._start)) is not None:
                    self._events.put(plan)
                checked_at = self._clock()
