"""The preflight of `pipeline check`, watched: a server that is busy for others is reported while it is waited for.

The examination runs in a thread that the caller starts; this one waits, bounded, and measures what a server can take.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from pipeline.errors import InternalError
from pipeline.llm.capabilities import Preflight
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.provider import Provider
from pipeline.llm.replica import Client, Replica, Start
from pipeline.llm.verification import TINY_PROMPTS
from pipeline.records import ExtractionAttempt

HELD_PATIENCE_S = 30.0
"""How long `check` waits for a server that is busy for others (contract, section 6)."""
TICK_S = 0.1
SIDE_BY_SIDE, SIDE_TOKENS, SIDE_TIMEOUT_S = 4, 16, 20.0


def examine(
    provider: Provider,
    replica: Replica,
    *,
    start: Start,
    report: Callable[[str], object],
    clock: Callable[[], float] = time.monotonic,
    patience_s: float = HELD_PATIENCE_S,
) -> Preflight:
    """Return what the full preflight finds, or, after `patience_s` of waiting for others, that the server is busy.

    `report` is called once with each message about a model that others keep loaded.
    """
    ended: SimpleQueue[Preflight | None] = SimpleQueue()
    start(lambda: _examine(provider, replica, ended), f"look at {replica.endpoint}")
    reported, held_at = "", float("inf")
    while True:
        try:
            found = ended.get(timeout=TICK_S)
        except Empty:
            replica.watch(start)
            held = replica.sharing.held
            held_at = min(held_at, clock()) if held is not None else float("inf")
            if held is not None and held.message != reported:
                reported = held.message
                report(reported)
            if held is not None and replica.why is not None and clock() - held_at >= patience_s:
                return replica.why
            continue
        if found is None:
            raise InternalError("the preflight ended by an internal error; the traceback is above")
        return found


def _examine(provider: Provider, replica: Replica, ended: SimpleQueue[Preflight | None]) -> None:
    found = None
    try:
        found = provider.examine(replica)
    finally:
        ended.put(found)


def side_by_side(client: Client, *, start: Start) -> int | None:
    """Return how many of four tiny requests an Ollama works on at the same time; None when it does not tell.

    A request that waited in the server's queue was not served side by side (OLLAMA_NUM_PARALLEL).
    """
    if not isinstance(client, OllamaClient):
        return None
    small = client.small(max_tokens=SIDE_TOKENS, timeout_s=min(SIDE_TIMEOUT_S, client.config.timeout))
    attempts: SimpleQueue[ExtractionAttempt | None] = SimpleQueue()

    def send() -> None:
        attempt = None
        try:
            attempt = small.call_llm(TINY_PROMPTS, None, "")
        finally:
            attempts.put(attempt)

    for number in range(SIDE_BY_SIDE):
        start(send, f"tiny request {number + 1}")
    answered = [attempt for attempt in (attempts.get() for _ in range(SIDE_BY_SIDE)) if attempt is not None]
    waits = [attempt.queue_s for attempt in answered if attempt.queue_s is not None]
    if len(waits) < SIDE_BY_SIDE:
        return None
    shortest_s = min(attempt.latency_s - (attempt.queue_s or 0.0) for attempt in answered)
    return sum(wait < shortest_s / 2 for wait in waits)
