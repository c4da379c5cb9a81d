"""Documents that wait for a worker: never more requests than the limit, and no new one after a stop."""

from __future__ import annotations

import signal
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import Place, line_with
from fake_llm import FakeLLM
from timing import Gate

from pipeline.run.workers.workforce import MOST_AHEAD, Workforce

LIMIT = 16


@pytest.fixture
def workforce() -> Workforce:
    """Return a workforce whose threads do not run."""
    job = cast(Any, SimpleNamespace(config=SimpleNamespace(processes=1), copies=None, earlier=None))
    started = Workforce(job, start=lambda *_: None, report=SimpleQueue[object]().put)
    started.limit_to_threads(LIMIT)
    return started


@pytest.mark.parametrize(("limit", "ahead"), [(1, 0), (15, 0), (16, 4), (64, 16), (1024, MOST_AHEAD)])
def test_few_documents_wait_where_many_are_in_flight(workforce: Workforce, limit: int, ahead: int) -> None:
    """With a low limit none waits: it would wait for as long as a request takes."""
    workforce.limit_to_threads(limit)
    assert workforce.ahead == ahead


def test_no_document_waits_while_there_are_more_workers_than_the_limit(workforce: Workforce) -> None:
    """Each of the workers would take one, and more requests would be in flight than the limit allows."""
    for _ in range(LIMIT + 1):
        workforce.submit(lambda: None)
    assert workforce.ahead == 0


def test_waiting_documents_start_no_workers(workforce: Workforce) -> None:
    """As many workers are started as documents may be in flight."""
    entry: Any = "entry"
    for _ in range(LIMIT + workforce.ahead):
        workforce.send(entry, cast(Any, None), alone=False)
    assert workforce._workers.count == LIMIT


def test_waiting_documents_are_taken_back_and_other_tasks_stay(workforce: Workforce) -> None:
    """A merged document that waits for a worker is still written at the end of a run."""
    entries: list[Any] = ["a", "b"]
    workforce.send(entries[0], cast(Any, None), alone=False)
    workforce.submit(lambda: "merged")
    workforce.send(entries[1], cast(Any, None), alone=False)
    assert [task.entry for task in workforce.take_back()] == entries
    assert workforce.waiting == 1


def test_requests_stay_within_the_limit_and_none_begins_after_a_signal(place: Place, server: FakeLLM) -> None:
    """Documents that wait for a worker at a stop are left for the next run, which sends each of them once."""
    names = place.documents(80)
    place.configure({"runner.concurrency": LIMIT})
    server.faults = gate = Gate(after=8)
    child = place.start("run")
    place.wait_for_results(8)
    place.wait_for(lambda: len(server.chats()) >= 8 + LIMIT, "as many requests as the limit allows")
    child.process.send_signal(signal.SIGTERM)
    line_with(child, "stopping")
    gate.open()
    assert child.end().code == 143
    sent = place.sent_documents()
    assert sorted(place.done()) == sorted(sent)
    assert len(sent) == 8 + LIMIT
    counts = place.last_run()["counts"]
    assert counts["found"] == counts["done"] + counts["left"]
    place.run()
    assert place.done() == dict.fromkeys(names, 1)
