"""The preflights of `pipeline check`, with a report while a server is busy for other clients.

Each server is examined in a thread of its own; the calling thread waits for all of them, for a limited time. This
module also measures how many requests an Ollama serves at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from pipeline.errors import InternalError
from pipeline.llm.capabilities import Preflight
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.prompt_length.verification import TINY_PROMPTS, inspect_server
from pipeline.llm.provider import Provider
from pipeline.llm.replica import Client, Replica, Start
from pipeline.records import ExtractionAttempt

CONFLICT_PATIENCE_S = 30.0
"""Time limit of `check` for a server that is busy for others (docs/ollama.md)."""
TICK_S = 0.05
SIDE_BY_SIDE = 4
SIDE_TOKENS = 16
SIDE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Server:
    """One server to examine: a replica of a provider."""

    provider: Provider
    replica: Replica

    @property
    def place(self) -> str:
        """Name the server for messages."""
        return f"{self.provider.name} at {self.replica.client.model.endpoint}"


class _Examination:
    """The full preflight of one server in a thread of its own; `preflight` is None until it has ended."""

    def __init__(self, server: Server, *, start: Start) -> None:
        self.preflight: Preflight | None = None
        self.reported = ""
        self._conflict_at = float("inf")
        self._server = server
        self._start = start
        self._results: SimpleQueue[Preflight | None] = SimpleQueue()
        start(self._examine, f"look at {server.replica.endpoint}")

    def _examine(self) -> None:
        result = None
        try:
            result = self._server.provider.examine(self._server.replica)
            for variant, preflight in self._server.replica.preflights.items():
                if preflight.status == "ok":
                    inspect_server(self._server.replica.clients[variant])
        finally:
            self._results.put(result)

    def poll(self, now: float, *, patience_s: float) -> str:
        """Take the result if there is one; return a new message about a model that others keep loaded, else ""."""
        if not self._results.empty():
            self.preflight = self._results.get()
            if self.preflight is None:
                raise InternalError("the preflight ended by an internal error; the traceback is above")
            return ""
        replica = self._server.replica
        replica.watch(self._start)
        conflict = replica.sharing.conflict
        self._conflict_at = min(self._conflict_at, now) if conflict is not None else float("inf")
        if conflict is not None and replica.preflight is not None and now - self._conflict_at >= patience_s:
            self.preflight = replica.preflight
        message = conflict.message if conflict is not None and conflict.message != self.reported else ""
        self.reported = message or self.reported
        return message


def examine_all(
    servers: Sequence[Server],
    *,
    start: Start,
    report: Callable[[Server, str], object],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
    patience_s: float = CONFLICT_PATIENCE_S,
) -> list[Preflight]:
    """Return the full preflight of each server; all of them run at the same time.

    A server that is busy for other clients is waited for `patience_s` seconds; then its last preflight is returned.
    `report` is called once with each message about a model that others keep loaded.
    """
    examinations = [_Examination(server, start=start) for server in servers]
    while True:
        for server, examination in zip(servers, examinations, strict=True):
            if examination.preflight is None and (message := examination.poll(clock(), patience_s=patience_s)):
                report(server, message)
        preflights = [examination.preflight for examination in examinations if examination.preflight]
        if len(preflights) == len(servers):
            return preflights
        sleep(TICK_S)


def side_by_side(client: Client, *, start: Start) -> int | None:
    """Return how many of four tiny requests an Ollama serves at the same time; None when it reports no queue times.

    A request that waited in the server's queue was not served side by side (OLLAMA_NUM_PARALLEL).
    """
    if not isinstance(client, OllamaClient):
        return None
    short_client = client.short_client(max_tokens=SIDE_TOKENS, timeout_s=min(SIDE_TIMEOUT_S, client.config.timeout))
    attempts: SimpleQueue[ExtractionAttempt | None] = SimpleQueue()

    def send() -> None:
        attempt = None
        try:
            attempt = short_client.call_llm(TINY_PROMPTS, None, "")
        finally:
            attempts.put(attempt)

    for number in range(SIDE_BY_SIDE):
        start(send, f"tiny request {number + 1}")
    replies = [attempt for attempt in (attempts.get() for _ in range(SIDE_BY_SIDE)) if attempt is not None]
    waits = [attempt.queue_s for attempt in replies if attempt.queue_s is not None]
    if len(waits) < SIDE_BY_SIDE:
        return None
    shortest_s = min(attempt.latency_s - (attempt.queue_s or 0.0) for attempt in replies)
    return sum(wait < shortest_s / 2 for wait in waits)
