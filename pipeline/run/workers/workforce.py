"""The workers of a run: threads of this process, and worker processes where there are any.

    send ─▶ a worker process (workers/pool.py) ─▶ DocumentOutcome
              └─ refused, or returned ─▶ a thread of this process ─▶ process() ─▶ DocumentOutcome

It must not choose documents or judge outcomes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from pipeline.llm.extraction_request import AskResult, ExtractionRequest, SentRequest
from pipeline.records import Entry
from pipeline.run.document.process import process
from pipeline.run.document.state import ExtractionClient
from pipeline.run.in_flight import DocumentOutcome
from pipeline.run.job import Job
from pipeline.run.plan import ExtractionPlan
from pipeline.run.workers.core_use import CoreWatch
from pipeline.run.workers.messages import LocalTask, digest_of
from pipeline.run.workers.threads import Workers

if TYPE_CHECKING:
    from pipeline.run.workers.pool import WorkerPool

Start = Callable[[Callable[[], object], str], object]

FEWEST_WITH_AHEAD = 16
"""The lowest limit at which documents wait for workers; below it a server is so slow that workers can wait instead."""
MOST_AHEAD = 32
"""More than the documents that finish in a pause of the main thread (dispatch.py), yet few to take back at the end."""


class Workforce:
    """The threads and the worker processes of a run; used by the main thread. `start` starts a thread."""

    def __init__(self, job: Job, *, start: Start, report: Callable[[object], object]) -> None:
        config = job.config
        copies = job.copies
        self._start = start
        self._job = job
        self._report = report
        self._tasks: SimpleQueue[Callable[[], object] | LocalTask] = SimpleQueue()
        self._limit = 1
        self._local_tasks = 0
        self._lock = threading.Lock()
        self._workers = Workers(self._start_worker)
        self._processes = config.processes
        self._pool: WorkerPool | None = None
        self._cores = CoreWatch() if config.processes == "auto" else None
        if config.processes != 1:
            from pipeline.run.workers.pool import WorkerPool  # not wanted by most runs

            self._pool = WorkerPool(copies=copies, start_thread=start, report=report, do_here=self._do_here)

    def start_processes_if_needed(self, now: float) -> None:
        """Start worker processes when this process has used up its core for a while (`processes: auto`)."""
        if self._cores is not None and self._pool is not None and (count := self._cores.processes_to_start(now)):
            self._pool.start(count)

    def limit_to_threads(self, limit: int) -> int:
        """Return how many documents may be in flight: `limit`, or fewer on a machine that cannot start more threads."""
        self._limit = self._workers.limit_to_threads(limit)
        return self._limit

    @property
    def ahead(self) -> int:
        """How many documents may wait for a worker, so that one that finishes begins its next document at once.

        None while there are more workers than the limit allows: each of them would take one.
        """
        if self._pool is not None or self._limit < FEWEST_WITH_AHEAD or self._workers.count > self._limit:
            return 0
        return min(self._limit // 4, MOST_AHEAD)

    @property
    def waiting(self) -> int:
        """The number of documents and tasks that no worker has begun."""
        return self._tasks.qsize()

    def take_back(self) -> list[LocalTask]:
        """Remove and return the documents that no worker has begun; those of worker processes are not taken back."""
        tasks: list[Callable[[], object] | LocalTask] = []
        with suppress(Empty):
            while self._pool is None:
                tasks.append(self._tasks.get_nowait())
        documents = [task for task in tasks if isinstance(task, LocalTask)]
        with self._lock:
            self._local_tasks -= len(documents)
        for task in tasks:
            if not isinstance(task, LocalTask):
                self._tasks.put(task)
        return documents

    def send(self, entry: Entry, plan: ExtractionPlan, *, alone: bool) -> None:
        """Send a document to a worker; TryLaterError when no process and no thread can be started for it.

        Worker processes start with the first document: a run that has nothing to do starts none.
        """
        if self._pool is not None and isinstance(self._processes, int):
            self._pool.start(self._processes)
        if self._pool is None or not self._pool.offer(entry, plan, alone=alone):
            self._do_here(LocalTask(entry, plan, alone))

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()

    def submit(self, task: Callable[[], object]) -> None:
        """Run a task in a thread of this process, and report its result; may be called by any thread."""
        with self._lock:
            self._local_tasks += 1
            self._workers.ensure(self._local_tasks)
        self._tasks.put(task)

    def _do_here(self, task: LocalTask) -> None:
        with self._lock:
            self._local_tasks += 1
            if self._local_tasks <= self._limit or not self.ahead:
                self._workers.ensure(self._local_tasks)
        self._tasks.put(task)

    def _outcome(self, task: LocalTask) -> DocumentOutcome:
        client: ExtractionClient = task.plan.client
        client = client if task.sent_request is None else _AfterFirst(client, task.sent_request, task.digest)
        job = self._job
        done = partial(process, client=client, alone=task.alone, copies=job.copies, earlier=job.earlier)
        return DocumentOutcome(done(task.entry, task.plan), task.plan)

    def _start_worker(self, name: str) -> None:
        self._start(self._work, name)

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            event = self._outcome(task) if isinstance(task, LocalTask) else task()
            with self._lock:
                self._local_tasks -= 1
            self._report(event)
            del (
                event,
                task,
            )  # a merged document is large, and this thread may wait for its next task to the end of the run


@dataclass(slots=True)
class _AfterFirst:
    """A client that continues from a request that a worker process has sent, if it was for the same prompt."""

    client: ExtractionClient
    sent: SentRequest | None
    digest: bytes

    def ask(self, question: ExtractionRequest) -> AskResult:
        """Return the answer; the request of the worker process counts as the first one for the first question."""
        sent = self.sent
        self.sent = None
        if sent is not None and digest_of(question) == self.digest:
            question = replace(question, sent_request=sent)
        return self.client.ask(question)

    def special_tokens(self, candidates: Collection[str], *, variant: str) -> frozenset[str]:
        """Return which of the texts are special tokens."""
        return self.client.special_tokens(candidates, variant=variant)
