"""The link from the main process to one worker process: the plans and clients it has received, and its documents.

Only `write` may block, in a thread of its own. This module must not decide the outcome of a document.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from pipeline.child_python import child_command
from pipeline.llm.lending import Loan, settings_of
from pipeline.records import Entry
from pipeline.run.plan import ExtractionPlan
from pipeline.run.workers.messages import ClientMessage, LogMessage, PlanMessage, without_links
from pipeline.run.workers.packing import pack

_END = b""
_BATCH_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class LentDocument:
    """A document in a worker process."""

    entry: Entry
    plan: ExtractionPlan
    alone: bool
    loan: Loan


class Worker:
    """One worker process with its plans, clients and documents. `is_ready`: it has begun to work."""

    def __init__(self, number: int) -> None:
        """Start the process; OSError when this machine cannot."""
        self.number = number
        self.lent: dict[int, LentDocument] = {}
        self.outbox: SimpleQueue[bytes] = SimpleQueue()
        self.is_alive = True
        self.is_ready = False
        self.lock = threading.Lock()
        self._plans: dict[int, ExtractionPlan] = {}
        self._clients: dict[int, tuple[object, int]] = {}
        # block the signals from the first moment on: an interrupt must not end a request in flight
        former_mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            # a session of its own: Ctrl-C must reach only the main process
            self.process = subprocess.Popen(
                child_command("pipeline.run.workers.process"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                bufsize=0,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former_mask)

    def queue_message(self, message: object) -> None:
        """Queue a message for the writer thread: a full pipe must not stop the caller."""
        self.outbox.put(pack(message))

    def ensure_known(self, lent: LentDocument, endpoints: dict[object, int]) -> tuple[int, int]:
        """Return the numbers of a document's plan and client in this process; send a new plan or client before."""
        plan, client = (lent.plan, lent.loan.client)
        if id(plan) not in self._plans:
            self._plans[id(plan)] = plan
            self.queue_message(PlanMessage(id(plan), without_links(plan)))
        state = (client.bodies, lent.loan.keys)
        if self._clients.get(id(client)) != state:
            number = endpoints.setdefault(client.endpoint, len(endpoints))
            self._clients[id(client)] = state
            self.queue_message(ClientMessage(id(client), settings_of(client, endpoint=number)))
        return id(plan), id(client)

    def write(self) -> None:
        """Write the queued messages until the process is ended."""
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):
            while (data := self.outbox.get()) != _END:
                while not self.outbox.empty() and len(data) < _BATCH_BYTES:
                    next_data = self.outbox.get()
                    if next_data == _END:
                        return
                    data += next_data
                remaining = memoryview(data)
                while remaining:
                    remaining = remaining[self.process.stdin.write(remaining) :]

    @property
    def exit_reason(self) -> str:
        """Return the signal or the exit status with which the process ended."""
        status = self.process.returncode
        return signal.Signals(-status).name if status and status < 0 else f"exit status {status}"

    def end(self) -> None:
        """Kill the process, and wait for its end."""
        self.outbox.put(_END)
        self.process.kill()
        self.process.wait()


def write_log(message: LogMessage) -> None:
    """Write a log line of a worker process as if it were one of this process."""
    fields: Mapping[str, Any] = {name: value for name, value in message.fields.items() if name != "stack_info"}
    record = logging.makeLogRecord(
        {
            **fields,
            "name": message.name,
            "levelno": message.level,
            "levelname": logging.getLevelName(message.level),
            "msg": message.message,
            "args": message.arguments,
            "stack_info": message.trace,
        }
    )
    logging.getLogger(message.name).handle(record)
