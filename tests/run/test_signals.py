"""A run that is interrupted or killed loses no record, and the same command resumes it."""

from __future__ import annotations

import signal
import time

import pytest
from conftest import Place, line_with
from fake_llm import FakeLLM, Fault
from timing import Gate

LONG_S = 60.0
"""Longer than any end takes on a slow machine, and far shorter than what the run would else wait for."""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_lets_requests_in_flight_finish(place: Place, server: FakeLLM, number: int, code: int) -> None:
    """Every request that was sent has a record; the next run does the remaining documents."""
    names = place.documents(30)
    server.faults = gate = Gate(after=8)
    child = place.start("run")
    place.wait_for_results(8)
    place.wait_for(lambda: len(place.server.chats()) >= 12, "requests in flight")
    child.process.send_signal(number)
    line_with(child, "stopping")
    gate.open()
    ran = child.end()
    assert ran.code == code
    sent = place.sent_documents()
    assert sorted(place.done()) == sorted(sent)
    counts = place.last_run()["counts"]
    assert counts["found"] == counts["done"] + counts["left"]
    assert place.last_run()["exit_code"] == code
    place.run()
    assert place.done() == dict.fromkeys(names, 1)


def test_second_interrupt_exits_at_once(place: Place, server: FakeLLM) -> None:
    """A second Ctrl-C does not wait for a hanging request, and finished records are kept."""
    place.documents(4)
    place.configure({"runner.grace_s": 600, "vllm.timeout": 600})
    server.faults = lambda request, _n: Fault("hang") if request.document in ("d002.txt", "d003.txt") else None
    child = place.start("run")
    place.wait_for_results(2)
    place.wait_for(
        lambda: len({chat.document for chat in server.chats()} & {"d002.txt", "d003.txt"}) == 2, "hanging requests"
    )
    child.process.send_signal(signal.SIGINT)
    line_with(child, "stopping")
    begun = time.monotonic()
    assert child.end(signal.SIGINT).code == 130
    assert time.monotonic() - begun < LONG_S
    assert set(place.done()) == {"d000.txt", "d001.txt"}
    assert place.last_run()["counts"]["left"] == 2


def test_hanging_request_delays_the_end_by_at_most_the_grace(place: Place, server: FakeLLM) -> None:
    """After SIGTERM the run waits `grace_s` and then ends."""
    place.documents(2)
    place.configure({"runner.grace_s": 1, "vllm.timeout": 600})
    server.faults = lambda request, _n: Fault("hang") if request.document == "d001.txt" else None
    child = place.start("run")
    place.wait_for_results(1)
    place.wait_for(lambda: any(chat.document == "d001.txt" for chat in server.chats()), "the hanging request")
    begun = time.monotonic()
    assert child.end(signal.SIGTERM).code == 143
    assert 0.5 < time.monotonic() - begun < LONG_S
    assert place.last_run()["counts"] == {"found": 2, "done": 1, "failed": 0, "skipped": 0, "ignored": 0, "left": 1}


STUCK = """
import os, sys, threading
_open, _scandir = os.open, os.scandir
def _stick(path):
    if not isinstance(path, int) and os.path.basename(os.fspath(path)).startswith("stuck"):
        print("a read that does not come back", file=sys.stderr, flush=True)
        threading.Event().wait()
def open(path, *arguments, **named):
    _stick(path)
    return _open(path, *arguments, **named)
def scandir(path):
    _stick(path)
    return _scandir(path)
os.open, os.scandir = open, scandir
"""
"""A child with this as its sitecustomize waits for ever where the name of a file or a folder begins with `stuck`."""


@pytest.mark.parametrize(("where", "left"), [("stuck.md", 1), ("stuck/d9.txt", 0)])
def test_hanging_file_system_delays_the_end_by_at_most_the_grace(place: Place, where: str, left: int) -> None:
    """The run waits neither for a reading thread nor for the listing thread."""
    place.documents(2)
    place.documents({where: "text"})
    place.configure({"runner.grace_s": 1})
    (place.folder / "sitecustomize.py").write_text(STUCK)
    child = place.start("run", env={"PYTHONPATH": str(place.folder)})
    line_with(child, "a read that does not come back")
    place.wait_for_results(2)
    begun = time.monotonic()
    assert child.end(signal.SIGTERM).code == 143
    assert time.monotonic() - begun < LONG_S
    counts = place.last_run()["counts"]
    assert (counts["done"], counts["left"]) == (2, left)


def test_signal_ends_the_wait_for_a_provider(place: Place, server: FakeLLM) -> None:
    """No request has been sent yet, so the run ends at once."""
    place.documents(2)
    place.configure({"runner.startup_wait_s": 600})
    server.down()
    child = place.start("run")
    line_with(child, "waiting up to")
    begun = time.monotonic()
    assert child.end(signal.SIGTERM).code == 143
    assert time.monotonic() - begun < LONG_S


def test_signal_ends_the_wait_for_the_lock(place: Place, server: FakeLLM) -> None:
    """The waiting run names the run that holds the output, and exits with the signal's code."""
    place.documents(4)
    server.latency_s = 5.0
    holder = place.start("run", "--run-id", "holder")
    place.wait_for(lambda: len(server.chats()) > 0, "the holder's first request")
    waiting = place.start("run", "--set", "runner.lock_wait_s=60")
    assert "holder" in line_with(waiting, "Waiting for the output")
    assert waiting.end(signal.SIGTERM).code == 143
    assert holder.end(signal.SIGKILL).code == -9


def test_documents_are_done_once_despite_repeated_kills(place: Place, server: FakeLLM) -> None:
    """After several kill -9 no result is missing or duplicated, and no line is broken."""
    names = place.documents(40)
    server.latency_s = 0.1
    for lines in (4, 12, 20):
        child = place.start("run")
        place.wait_for_results(lines)
        child.end(signal.SIGKILL)
    server.latency_s = 0.0
    place.run()
    assert place.done() == dict.fromkeys(names, 1)
    assert place.failed() == {}
    assert len(place.sent_documents()) <= 40 + 3 * 4


def test_second_run_waits_for_the_first_and_skips_all(place: Place, server: FakeLLM) -> None:
    """Two overlapping cron jobs process no document twice."""
    names = place.documents(8)
    server.latency_s = 0.5
    first = place.start("run")
    place.wait_for(lambda: len(server.chats()) > 2, "the first run's requests")
    second = place.start("run", "--set", "runner.lock_wait_s=30")
    assert first.end().code == 0
    ran = second.end()
    assert ran.code == 0, ran.err
    assert "8 skipped" in ran.out
    assert place.done() == dict.fromkeys(names, 1)
