"""THE THREADS: workers, reader, prober, refresher; and the loop of the main thread that connects them.

    reader ──entries──▶ main ──tasks──▶ workers        prober: preflight, recovery: a look a thread
                         ▲ └─▶ output, progress   │    refresher: a new plan when the configuration changes
                         └───────outcomes─────────┘

The main thread alone touches the output and the progress; it waits on one queue, half a second at most, and on nothing
else. Workers, reader and prober are daemons: a stuck socket or file system cannot hold the end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.errors import InternalError, PipelineError, TryLaterError
from pipeline.records import Entry, Failure, Left, Postponed, Result, Unchanged
from pipeline.run.end_wait import EndWait
from pipeline.run.in_flight import Backlog, Flight, Landed
from pipeline.run.job import Job
from pipeline.run.plan import ExtractionPlan
from pipeline.run.process import Finished, is_suspect, process
from pipeline.run.reader import Listed, Reader
from pipeline.run.run_counts import RunCounts
from pipeline.run.shortage import THREAD_ENDS, end_of_thread
from pipeline.run.stop_rules import FailureGuard, OutageTimer, StopReason

logger = logging.getLogger(__name__)

TURN_S, PROBE_TICK_S, REFRESH_S, REFRESH_WAITING_S = 0.5, 0.25, 60.0, 1.0


def start_thread(body: Callable[[], object], name: str) -> None:
    threading.Thread(target=body, name=name, daemon=True).start()


class Runner:
    """One run, from the first entry to the last outcome; `run` is called once, in the main thread."""

    def __init__(
        self, job: Job, plan: ExtractionPlan, *, stop: threading.Event, clock: Callable[[], float] = time.monotonic
    ):
        self.job, self.plan, self.tally = job, plan, RunCounts()
        self.end: StopReason | None = None
        self._clock, self._stop = clock, stop
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._tasks: SimpleQueue[Any] = SimpleQueue()
        self._reader = Reader(
            job.entries, job.selection, events=self._events, stop=stop, room=job.config.max_concurrency
        )
        self._backlog = Backlog(lambda id: self.plan.query_for(id).resolved.variant if job.budget is None else "")
        self._postponed: deque[Entry] = deque()
        self._flight = Flight(max_bytes=job.config.max_in_flight_bytes)
        self._guard, self._patience = FailureGuard(job.config), OutageTimer(job.config)
        self.ready, self.listed_whole, self._reading, self._hurry = False, False, True, False
        self._workers, self._answered, self._was_full, self._is_short = 0, 0, False, False
        self._look_now, self.end_wait = threading.Event(), EndWait(clock)

    @property
    def in_flight(self) -> int:
        """Documents at the workers now."""
        return self._flight.documents

    @property
    def waiting_since(self) -> float | None:
        """When the providers were last lost; None while one can be asked."""
        return self._patience.since

    def interrupt(self, number: int) -> None:
        """Ends the run because of a signal, the second time at once; called by a signal handler: it notes and wakes."""
        self._hurry = self.end is not None
        self.end_wait.limit(0.0 if self._hurry else self.job.config.grace_s)
        self._finish(StopReason.of_signal(number))
        self._events.put(None)

    @property
    def counts(self) -> dict[str, int]:
        """Found, done, failed, skipped and left, in documents; exact once `run` has returned."""
        return self.tally.with_listing(self._reader.read)

    def run(self) -> None:
        """Runs to the end of the input, or until `end` says why not; what is not done then counts as left."""
        duties = {"reader": self._reader.run, "prober": self._probe, **self.job.output.backend.duties()}
        for name, duty in duties.items():
            self._start(duty, name)
        while not self._is_over():
            self._take(TURN_S)
            self._watch_time()
            self._dispatch()
            self._was_full = self.in_flight >= self.job.limit.value
            self._sync()
            self.job.watcher.turn(self)
        self._drain()

    def _is_over(self) -> bool:
        if self.end is not None:
            return True
        exhausted = self.job.budget is not None and self.tally.tried >= self.job.budget
        nothing_waits = exhausted or not (self._reading or self._backlog or self._postponed)
        return nothing_waits and self.in_flight == 0

    def _take(self, timeout_s: float) -> None:
        """Handles what has come in: waits for the first event, then takes all that are there."""
        with suppress(Empty):
            event = self._events.get(timeout=timeout_s)
            while True:
                self._handle(event)
                event = self._events.get_nowait()

    def _handle(self, event: object) -> None:
        if isinstance(event, Entry):
            self._backlog.append(event)
        elif isinstance(event, Landed):
            self._land(event)
            self._finished(event.finished)
        elif isinstance(event, Listed):
            self._reading, self.listed_whole = False, event.whole
        elif isinstance(event, ExtractionPlan):
            self._switch(event)
        elif isinstance(event, PipelineError):
            self._finish(StopReason.of_error(event))
        elif event == "ready":
            self.ready = True

    def _finished(self, finished: Finished) -> None:
        outcome = finished.outcome
        self.job.limit.finished(finished.attempts, full=self._was_full, now=self._clock())
        if isinstance(outcome, Left):
            self.tally.left += 1
            if outcome.error is not None:
                self._finish(StopReason.of_error(outcome.error))
            return
        if isinstance(outcome, Postponed):
            self._postponed.append(outcome.again())
        elif isinstance(outcome, Unchanged):
            self.tally.unchanged += 1
        elif not self._write(outcome):
            return
        self.job.watcher.outcome(finished)

    def _write(self, outcome: Result | Failure) -> bool:
        """True when the outcome's line stands; else the run is over."""
        outcome = self.job.settled(outcome)
        try:
            self.job.output.write(outcome)
        except PipelineError as error:
            self.tally.left += 1
            self._finish(StopReason.of_error(error))
            return False
        self.tally.failed += isinstance(outcome, Failure)
        self.tally.done += isinstance(outcome, Result)
        self._answered += 1
        if self._answered % self.job.config.refresh_every == 0:
            self._look_now.set()
        if (end := self._guard.add(outcome)) is not None:
            self._finish(end)
        return True

    def _sync(self) -> None:
        """Makes records durable whose time has come; when the disk says no, the run is over."""
        try:
            self.job.output.sync_due(self._clock())
        except PipelineError as error:
            self._finish(StopReason.of_error(error))

    def _land(self, landed: Landed) -> None:
        self._flight.landed(landed.finished.entry, landed.plan)
        self._close_unused(landed.plan)

    def _close_unused(self, plan: ExtractionPlan) -> None:
        """Closes the client of a plan that is no longer asked, when its last document is done."""
        if plan is not self.plan and not self._flight.uses(plan):
            plan.client.close()

    def _watch_time(self) -> None:
        """Ends a run whose time is up, or whose providers have been gone for too long."""
        now = self._clock()
        self.job.limit.follow(self.plan.client.serving)
        if self.job.until is not None and now >= self.job.until:
            self.end_wait.limit(self.job.config.grace_s)
            self._finish(StopReason("stopped by --max-duration"))
        if (end := self._patience.watch(self.plan.client.trouble if self.ready else None, now)) is not None:
            self._finish(end)

    def _dispatch(self) -> None:
        """Sends entries to workers while there is room; one that may have killed its server goes alone."""
        while self.ready and self.end is None and self._has_room() and self.plan.client.available:
            suspect = next((entry for entry in self._postponed if is_suspect(entry)), None)
            if suspect is not None:
                if self.in_flight == 0:
                    self._postponed.remove(suspect)
                    self._send(suspect, alone=True)
                return
            queue = self._postponed or self._backlog
            if not queue:
                return
            entry = queue.popleft()
            if queue is self._backlog:
                self._reader.taken(entry)
            self._send(entry, alone=False)

    def _has_room(self) -> bool:
        budget = self.job.budget
        if budget is not None and self.tally.tried + self.in_flight >= budget:
            return False
        limit = min(self.job.limit.value, self._workers) if self._is_short else self.job.limit.value
        return not self.job.output.is_full and self._flight.has_room(limit)

    def _send(self, entry: Entry, *, alone: bool) -> None:
        self._flight.sent(entry, self.plan)
        if self.in_flight > self._workers and not self._is_short:
            try:
                self._start(self._work, f"worker-{self._workers + 1}")
                self._workers += 1
            except (RuntimeError, MemoryError) as cause:
                self._is_short = True
                logger.warning("this machine starts no more than %d workers: %s", self._workers, cause)
                if not self._workers:
                    self._finish(StopReason.of_error(TryLaterError(f"no worker can be started: {cause}")))
        self._tasks.put((entry, self.plan, alone))

    def _switch(self, plan: ExtractionPlan) -> None:
        """From the next document on the new plan is asked; those that run keep theirs."""
        old, self.plan = self.plan, plan
        self._close_unused(old)

    def _finish(self, end: StopReason) -> None:
        self.end = self.end or end

    def _drain(self) -> None:
        """After the end: what is in flight may finish within the grace, the rest is left for the next run."""
        deadline = self._clock() + self.job.config.grace_s
        self._stop.set()
        if self.end is not None and self.in_flight:
            logger.info("stopping", extra={"in_flight": self.in_flight, "why": self.end.message})
        while self.in_flight and not self._hurry and (left_s := deadline - self._clock()) > 0:
            self._take(min(TURN_S, left_s))
            self._sync()
            self.job.watcher.turn(self)
        self._reader.close()
        self._take(0.0)
        self._settle()
        self.tally.left += self.in_flight + len(self._backlog) + len(self._postponed)
        self.plan.client.close()

    def _settle(self) -> None:
        """Makes the records safe; those that cannot be were not done."""
        output = self.job.output
        try:
            output.finish()
        except PipelineError as error:
            if self.end is not None and self.end.exit_code is not None:
                logger.error("%s", error)
            else:
                self.end = StopReason.of_error(error)
        self.tally.undo(*output.unwritten)

    def _start(self, body: Callable[[], object], name: str) -> None:
        start_thread(lambda: self._guarded(body, name), name)

    def _guarded(self, body: Callable[[], object], name: str) -> None:
        """Runs a thread's body; whatever ends it other than its own return ends the run."""
        end: PipelineError | None = InternalError(f"the {name} ended by a fault of ours; the log has the traceback")
        try:
            body()
            end = None
        except THREAD_ENDS as cause:
            end = end_of_thread(cause, name=name)
        finally:
            if end is not None:
                self._events.put(end)

    def _work(self) -> None:
        while True:
            entry, plan, alone = self._tasks.get()
            self._events.put(Landed(process(entry, plan, client=plan.client, alone=alone), plan))

    def _probe(self) -> None:
        self.job.supervisor.establish(self.plan, start=self._start)
        self._events.put("ready")
        self._start(self._refresh, "refresher")
        while not self._stop.wait(PROBE_TICK_S):
            self.plan.client.recover(self._start)
            self.job.limit.look(self.plan.client.serving, now=self._clock())

    def _refresh(self) -> None:
        looked_at = self._clock()
        while not self._stop.wait(PROBE_TICK_S):
            pause = REFRESH_S if self.waiting_since is None else REFRESH_WAITING_S
            if self._look_now.is_set() or self._clock() - looked_at >= pause:
                self._look_now.clear()
                if (plan := self.job.supervisor.refresh(start=self._start)) is not None:
                    self._events.put(plan)
                looked_at = self._clock()
