"""Large documents are read and cut a few at a time: each takes several times its size in memory meanwhile."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any, cast

from pipeline.records import Entry
from pipeline.run.document.process import process
from pipeline.run.windows.split_query import LARGE_AT_ONCE, LARGE_BYTES, SplitQuery


def most_at_once(size_bytes: int, *, threads: int = 8) -> int:
    """Return how many of these documents were being read at the same time."""
    split = SplitQuery(cast(Any, None), "f", "q", cast(Any, None), cast(Any, None))
    query = SimpleNamespace(split=split, resolved=SimpleNamespace(variant=""))
    plan = cast(Any, SimpleNamespace(query_for=lambda _: query))
    lock = threading.Lock()
    full = threading.Event()
    reading = most = 0

    def read() -> bytes:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        full.wait(0.05)
        with lock:
            reading -= 1
        raise SystemExit  # the test ends here

    def request(number: int) -> None:
        entry = Entry(str(number), "", None, size_bytes, "text", read)
        with suppress(SystemExit):
            process(entry, plan, client=cast(Any, None))

    workers = [threading.Thread(target=request, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return most


def test_two_large_documents_are_read_at_once() -> None:
    """However many worker threads have one."""
    assert most_at_once(LARGE_BYTES) == LARGE_AT_ONCE


def test_small_documents_need_no_turn() -> None:
    """More of them than may be read at once, without any that has ended."""
    split = SplitQuery(cast(Any, None), "f", "q", cast(Any, None), cast(Any, None))
    with ExitStack() as turns:
        for _ in range(LARGE_AT_ONCE + 1):
            turns.enter_context(split.turn(LARGE_BYTES - 1))
        assert split.turns.acquire(blocking=False)
