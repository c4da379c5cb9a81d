"""The worker processes in the main process: start them, send documents, receive outcomes, replace them when they die.

    main thread ─ offer ─▶ outbox ─▶ writer thread ─▶ worker process ─▶ listener thread ─▶ outcome or `do_here`

Each worker process has an input pipe, an output pipe, and two threads in the main process. The documents of a lost
worker process are sent again by another one. This module must not interpret an outcome: the runner does.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections.abc import Callable
from functools import partial

from pipeline.llm.lending import lend
from pipeline.output.copies import Copies
from pipeline.records import Entry, Postponed, Result, changed, utc_now
from pipeline.run.document.attempts import with_notes
from pipeline.run.document.process import FinishedEntry
from pipeline.run.document.state import DocumentState, failure_of
from pipeline.run.in_flight import DocumentOutcome
from pipeline.run.plan import ExtractionPlan
from pipeline.run.workers.link import LentDocument, Worker, write_log
from pipeline.run.workers.messages import (
    Call,
    Claim,
    ClaimReply,
    FinishedTask,
    LocalTask,
    LogMessage,
    OverheadMessage,
    ReturnedTask,
    Settings,
    Task,
    WorkerReady,
)
from pipeline.run.workers.packing import pack, unpack

logger = logging.getLogger(__name__)

MOST_LOST = 5
"""After this many lost worker processes in a row, without a finished document between them, no other one is started."""

Start = Callable[[Callable[[], object], str], object]


class WorkerPool:
    """The worker processes of a run. The main thread calls `offer` and `start`, the listener threads the rest."""

    def __init__(
        self,
        *,
        copies: Copies | None,
        start_thread: Start,
        report: Callable[[DocumentOutcome], object],
        do_here: Callable[[LocalTask], object],
    ) -> None:
        self._copies = copies
        self._start_thread = start_thread
        self._report = report
        self._do_here = do_here
        self._workers: list[Worker] = []
        self._endpoints: dict[object, int] = {}
        self._number = 0
        self._started_count = 0
        self._lost_count = 0
        self._is_closed = False
        self._lock = threading.Lock()

    def start(self, count: int) -> None:
        """Start `count` worker processes at the first call, or as many as this machine can start."""
        if self._started_count:
            return
        with self._lock:
            while len(self._workers) < count and self._add():
                pass
        logger.info("worker processes started", extra={"processes": len(self._workers)})

    def _add(self) -> bool:
        """Start one more worker process; False when this machine cannot. The caller holds the lock."""
        self._started_count += 1
        worker: Worker | None = None
        try:
            worker = Worker(self._started_count)
            self._start_thread(worker.write, f"writer of worker process {worker.number}")
            self._start_thread(partial(self._listen, worker), f"listener of worker process {worker.number}")
        except (OSError, RuntimeError, MemoryError) as cause:  # no process, or no thread for it
            if worker is not None:
                worker.end()
            message = "cannot start a worker process: %s; the run continues with %d of them, and in the main process"
            logger.warning(message, cause, len(self._workers))
            return False
        copies = self._copies
        level = logging.getLogger("pipeline").level
        worker.queue_message(Settings(level, copies.run if copies else 0, copies is not None))
        self._workers.append(worker)
        return True

    def offer(self, entry: Entry, plan: ExtractionPlan, *, alone: bool) -> bool:
        """Send a document to the worker process with the fewest documents; False when this process must process it.

        Documents that failed at a server before are processed here, and so are entries that cannot be pickled or may be
        cut into windows.
        """
        query = plan.query_for(entry.id)
        worker = min(
            (candidate for candidate in self._workers if candidate.is_alive),
            key=lambda candidate: len(candidate.lent),
            default=None,
        )
        if (
            worker is None
            or query.split is not None
            or (entry.earlier_failure is not None and entry.earlier_failure.attempts)
            or entry.was_refused
        ):
            return False
        loan = lend(plan.client, variant=query.resolved.variant)
        if loan is None:
            return False
        if self._hand_over(worker, LentDocument(entry, plan, alone, loan)):
            return True
        loan.end()
        return False

    def _hand_over(self, worker: Worker, lent: LentDocument) -> bool:
        self._number += 1
        plan, client = worker.ensure_known(lent, self._endpoints)
        ratio = lent.loan.tokens_per_weight
        task = Task(self._number, plan, client, lent.entry, ratio, lent.alone)
        try:
            data = pack(task)
        except (pickle.PicklingError, TypeError, AttributeError):
            return False
        with worker.lock:
            if not worker.is_alive:
                return False
            worker.lent[task.number] = lent
        worker.outbox.put(data)
        return True

    def close(self) -> None:
        """End all worker processes; their unfinished documents remain for the next run."""
        with self._lock:
            self._is_closed = True
            workers = self._workers
            self._workers = []
        for worker in workers:
            worker.end()

    def _listen(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        messages = os.fdopen(worker.process.stdout.fileno(), "rb", buffering=1 << 18, closefd=False)
        while (message := unpack(messages)) is not None:
            self._handle(worker, message)
        self._replace_lost(worker)

    def _handle(self, worker: Worker, message: object) -> None:
        if isinstance(message, (FinishedTask, ReturnedTask)):
            lent = worker.lent.pop(message.number)
            lent.loan.end()
            self._lost_count = 0
            if isinstance(message, FinishedTask):
                self._report_finished(lent, message)
            else:
                self._process_here(lent, message.call)
        elif isinstance(message, Claim) and self._copies is not None:
            worker.queue_message(self._answer_claim(self._copies, message))
        elif isinstance(message, LogMessage):
            write_log(message)
        elif isinstance(message, WorkerReady):
            worker.is_ready = True
        elif isinstance(message, OverheadMessage):
            for lent in list(worker.lent.values())[:1]:
                lent.loan.client.overhead.add(message.prompt_tokens)

    def _answer_claim(self, copies: Copies, claim: Claim) -> ClaimReply:
        question = claim.question
        earlier_answer = copies.answered_before(question, (claim.fingerprint,), claim.document)
        original = copies.claim(question, claim.fingerprint, claim.document) if earlier_answer is None else None
        return ClaimReply(claim.thread, earlier_answer, original)

    def _report_finished(self, lent: LentDocument, finished_task: FinishedTask) -> None:
        outcome = finished_task.outcome
        call = finished_task.call
        if call is None or finished_task.prompt is None or not isinstance(outcome, Result):
            self._report(DocumentOutcome(FinishedEntry(lent.entry, outcome), lent.plan))
            return
        attempt = lent.loan.final_attempt(call.attempt, finished_task.prompt, started_at=call.started)
        if attempt is None:
            self._process_here(lent, call)
            return
        outcome = changed(
            outcome,
            context_length=attempt.context_length,
            notes=with_notes(outcome.notes, *attempt.notes),
            finished_at=utc_now(),
        )
        self._report(DocumentOutcome(FinishedEntry(lent.entry, outcome, (attempt,), outcome.variant), lent.plan))

    def _process_here(self, lent: LentDocument, call: Call | None) -> None:
        request = (
            lent.loan.sent_request(call.attempt, started_at=call.started, ended_at=call.ended)
            if call is not None
            else None
        )
        self._do_here(LocalTask(lent.entry, lent.plan, lent.alone, request, call.digest if call is not None else b""))

    def _replace_lost(self, worker: Worker) -> None:
        """Replace a lost worker process, and report its documents to be sent again."""
        with worker.lock:
            worker.is_alive = False
            documents = list(worker.lent.values())
            worker.lent.clear()
        worker.end()
        with self._lock:
            if self._is_closed:  # `close` killed it, and the next run processes its documents
                return
            self._workers.remove(worker)
            self._lost_count += 1
            if self._lost_count < MOST_LOST:
                self._add()
            fields = {
                "worker": worker.number,
                "documents": len(documents),
                "why": worker.exit_reason,
                "workers": len(self._workers),
            }
        logger.warning("a worker process was lost; its documents are sent again", extra=fields)
        for lent in documents:
            lent.loan.end()
            self._report(DocumentOutcome(_interrupted(lent, worker), lent.plan))


def _interrupted(lent: LentDocument, worker: Worker) -> FinishedEntry:
    """Return the outcome of a document whose process was lost: it is sent again, or fails if it was sent alone."""
    entry = lent.entry
    state = DocumentState(entry, lent.plan.query_for(entry.id), lent.plan.client)
    reason = f"the worker process was lost each time it worked on this document ({worker.exit_reason})"
    message = f"{reason}, the last time with nothing else in flight: not enough memory here?"
    failure = failure_of(state, lent.plan, reason="document_too_expensive", message=message, now=utc_now)
    if lent.alone and worker.is_ready:
        return FinishedEntry(entry, failure, (), failure.variant)
    return FinishedEntry(entry, Postponed(entry, failure, losses=int(worker.is_ready)), (), failure.variant)
