"""Tools that make tests independent of the machine's speed: blocked requests, and load-tolerant limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from conftest import WAIT_S
from fake_llm import Fault, ReceivedRequest
from fake_llm.received import Faults


class Gate:
    """Chats of documents that a server takes to begin with; those behind them wait until the gate is opened.

    It replaces `FakeLLM.faults`. A test that acts in the middle of a run closes it behind some documents,
    acts, and opens it: on a busy machine the run would else be over before the test has seen its first results.
    """

    def __init__(self, after: int, *, faults: Faults | None = None) -> None:
        self._left = after
        self._faults = faults
        self._lock = threading.Lock()
        self._opened = threading.Event()

    def __call__(self, request: ReceivedRequest, n: int) -> Fault | None:
        """Return the fault of a chat, if any, once it may proceed."""
        if request.document.endswith(".txt"):
            with self._lock:
                self._left -= 1
                is_held = self._left < 0
            if is_held:
                self._opened.wait(WAIT_S)
        return self._faults(request, n) if self._faults else None

    def open(self) -> None:
        """Let all requests proceed from now on."""
        self._opened.set()


def until(condition: Callable[[], bool], event: str = "the condition", *, pause_s: float = 0.005) -> None:
    """Return as soon as a condition holds that a thread or another process fulfils."""
    ends_at = time.monotonic() + WAIT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < ends_at, f"waited {WAIT_S:g} s for {event}"
        pause.wait(pause_s)


def assert_less(limit_s: float, measure: Callable[[], float], *, tries: int = 10) -> None:
    """Pass as soon as one measurement is below the limit: load makes single ones longer, a fault all of them."""
    spent = []
    while len(spent) < tries:
        spent.append(measure())
        if spent[-1] < limit_s:
            return
    raise AssertionError(f"took {min(spent):.2f} s at the least, need less than {limit_s:g} s")


def has_signal(pid: int, row: str, number: int) -> bool:
    """Return whether Linux lists the signal in this row of a process's status (caught or ignored)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    mask = int(next(line for line in lines if line.startswith(row)).split()[1], 16)
    return bool(mask & 1 << (number - 1))
