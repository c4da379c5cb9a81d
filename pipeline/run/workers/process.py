"""A worker process: threads that send the first requests of documents (workers/first_request.py) for the main process.

It reads tasks from its standard input and writes their results to its standard output; workers/pool.py is the other
end. It writes no output and no log: log lines go to the main process, which writes them. Interrupts reach only the main
process, which lets requests in flight finish. When the standard input ends, because the main process has ended or has
closed the pipe, this process ends at once.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from pipeline.answers.schema import compile_schema
from pipeline.config.redaction import SECRETS
from pipeline.errors import ConfigError
from pipeline.llm.failover import Failover
from pipeline.llm.lending import ClientSettings, LentClients
from pipeline.llm.overhead import Overhead
from pipeline.llm.replica import Client
from pipeline.logs import TALKATIVE, fields_of
from pipeline.run.garbage import rare_collections
from pipeline.run.machine import limit_arenas, raise_open_files
from pipeline.run.plan import ExtractionPlan
from pipeline.run.runner import start_thread
from pipeline.run.workers.first_request import first_request
from pipeline.run.workers.messages import (
    Claim,
    ClaimReply,
    ClientMessage,
    FinishedTask,
    LogMessage,
    OverheadMessage,
    PlanMessage,
    ReturnedTask,
    Settings,
    Task,
    WorkerReady,
)
from pipeline.run.workers.packing import pack, unpack
from pipeline.run.workers.threads import Workers


class Channel:
    """The pipe to the main process; any thread may call `send`, which writes one complete message."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Write a message; end this process when the main process has ended."""
        remaining = memoryview(pack(message))
        try:
            with self._lock:
                while remaining:
                    remaining = remaining[os.write(self._descriptor, remaining) :]
        except OSError:
            os._exit(1)


class _ClaimedQuestions:
    """Access to the main process's table of identical questions; the calling thread waits for the reply."""

    def __init__(self, channel: Channel, run: int) -> None:
        self.run = run
        self._channel = channel
        self._local = threading.local()
        self._reply_queues: dict[int, SimpleQueue[ClaimReply]] = {}

    def answered_before(self, question: str, fingerprints: Collection[str], document_id: str) -> tuple[str, int] | None:
        """Return another document that was asked this question before this run, and the run of its result."""
        thread = threading.get_ident()
        replies = self._reply_queues.setdefault(thread, SimpleQueue())
        self._channel.send(Claim(thread, question, next(iter(fingerprints)), document_id))
        self._local.reply = replies.get()
        return self._local.reply.before  # type: ignore[no-any-return]

    def claim(self, question: str, fingerprint: str, document_id: str) -> str | None:  # noqa: ARG002 - in the reply
        """Return the document that is sent with this question in this run; None: this document must be sent."""
        return self._local.reply.first  # type: ignore[no-any-return]

    def pass_on(self, reply: ClaimReply) -> None:
        """Pass on a reply."""
        self._reply_queues[reply.thread].put(reply)


class _LogHandler(logging.Handler):
    """The handler that sends each record to the main process."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record, redacted with the secrets that this process knows."""
        values = record.args if isinstance(record.args, tuple) else ()
        arguments = tuple(value if isinstance(value, (int, float)) else SECRETS.redact(str(value)) for value in values)
        message = str(record.msg) if isinstance(record.args, tuple) else record.getMessage()
        fields = {
            name: SECRETS.redact(value) if isinstance(value, str) else value
            for name, value in fields_of(record).items()
        }
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        trace = SECRETS.redact(trace) if trace else None
        self._channel.send(LogMessage(record.name, record.levelno, message, arguments, fields, trace))


class _CountedOverhead(Overhead):
    """The counter that reports each request to the main process, which counts them."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def add(self, prompt_tokens: int | None) -> None:
        """Report one request."""
        self._channel.send(OverheadMessage(prompt_tokens))


class _WorkerProcess:
    """The state of this process: the received plans and clients, its threads, and the waiting tasks."""

    def __init__(self, channel: Channel, settings: Settings) -> None:
        self._channel = channel
        self._copies = _ClaimedQuestions(channel, settings.run) if settings.shares else None
        self._clients = LentClients(_CountedOverhead(channel))
        self._plans: dict[int, ExtractionPlan] = {}
        self._usable_clients: dict[int, Client | None] = {}
        self._tasks: SimpleQueue[Task] = SimpleQueue()
        self._workers = Workers(partial(start_thread, self._work))
        self._lock = threading.Lock()
        self._in_flight = 0

    def handle(self, message: object) -> None:
        """Handle a message of the main process."""
        if isinstance(message, Task):
            with self._lock:
                self._in_flight += 1
            self._workers.ensure(self._in_flight)
            self._tasks.put(message)
        elif isinstance(message, ClaimReply) and self._copies is not None:
            self._copies.pass_on(message)
        elif isinstance(message, ClientMessage):
            self._usable_clients[message.number] = self._client(message.settings)
        elif isinstance(message, PlanMessage):
            self._plans[message.number] = _with_schema(message.plan)

    def _client(self, settings: ClientSettings) -> Client | None:
        try:
            return self._clients.client(settings)
        except ConfigError:  # a certificate that is being replaced: the main process sends these requests itself
            return None

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            message: FinishedTask | ReturnedTask = ReturnedTask(task.number)
            try:
                client = self._usable_clients[task.client]
                if client is not None:
                    message = first_request(task, self._plans[task.plan], client, copies=self._copies)
            finally:
                with self._lock:
                    self._in_flight -= 1
                self._channel.send(message)


def _with_schema(plan: ExtractionPlan) -> ExtractionPlan:
    """Return a received plan with its schema compiled; its requests go through the client of each task."""
    compiled = compile_schema(plan.agent.schema, where=str(plan.agent.path))
    queries = {name: replace(query, schema=compiled) for name, query in plan.queries.items()}
    return replace(plan, agent=replace(plan.agent, compiled=compiled), queries=queries, client=Failover({}))


def _log_to(channel: Channel, level: int) -> None:
    root = logging.getLogger()
    root.addHandler(_LogHandler(channel))
    root.setLevel(logging.WARNING)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    logging.getLogger("pipeline").setLevel(level)
    # failures here are repeated by the main process, which logs them
    logging.getLogger("pipeline.run.document.process").setLevel(logging.CRITICAL + 1)
    logging.captureWarnings(True)


def main() -> None:
    """Serve the main process until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    messages = os.fdopen(os.dup(0), "rb", buffering=1 << 18)
    channel = Channel(os.dup(1))
    null_device = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_device, 0)
    os.dup2(null_device, 1)  # a library that prints must not break a message
    raise_open_files()
    limit_arenas()
    worker: _WorkerProcess | None = None
    with rare_collections():
        while (message := unpack(messages)) is not None:
            if worker is None:
                assert isinstance(message, Settings)
                _log_to(channel, message.level)
                worker = _WorkerProcess(channel, message)
                channel.send(WorkerReady())
            else:
                worker.handle(message)
    os._exit(0)
