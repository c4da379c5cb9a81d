"""Wait for an output during an outage of its store, its disk or this machine.

    a thread's loop   ──try_once──▶ task ──▶ store     after a failure: retry on a later turn, after the back-off
    the main thread   ──attempt───▶ task ──▶ store     after a failure: wait, repeat

1. Each kind of request is a task of its own ("lease", "parts", ...): parts that cannot be written stay in an outage
   even when the lock can be renewed.
2. Only an outage leads to a wait (stores/trouble.py). A write that fails for a definite reason, such as a full disk,
   ends the run at once, and so does an outage that lasts `max_outage_s`. After that, every task fails at once.
3. A task that writes to a store checks the lease itself, at each repetition: after an outage another run may hold it.

It must not start a thread; tasks of several threads may fail at the same time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import OutputError, TryLaterError
from pipeline.output.store_errors import as_output_errors
from pipeline.stores import is_trouble

_log = logging.getLogger(__name__)

BASE_DELAY_S = 0.5
MAX_DELAY_S = 5.0
"""Less than the time between two renewals of a lease: a waiting run takes the lease over after 20 s."""

T = TypeVar("T")
Wait = Callable[[float], bool]


def is_outage(error: BaseException) -> bool:
    """Return True for an OutputError that may be temporary: of a store, a file system or this machine."""
    return isinstance(error, OutputError) and isinstance(error.__cause__, OSError) and is_trouble(error.__cause__)


@dataclass(slots=True)
class _Failing:
    """A task in an outage: its start, the failures since then, and the time of the next attempt."""

    since: float
    tries: int = 0
    next_at: float = 0.0


class Outage:
    """The outages of one output; thread-safe. With `max_outage_s` 0 the first error is raised.

    `opening`: no record was written yet, and a refused request is a ConfigError. `wait(seconds)` is the main thread's
    wait; it returns True when it has to end.
    """

    def __init__(self, where: str, *, max_outage_s: float, wait: Wait, clock: Callable[[], float]) -> None:
        self.opening = True
        self.wait = wait
        self._where = where
        self._max_outage_s = max_outage_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failing: dict[str, _Failing] = {}
        self._message: str | None = None
        self._final_error: OutputError | None = None

    @property
    def message(self) -> str | None:
        """The reason for the current wait; None while the output can be written."""
        return self._message

    def check(self) -> None:
        """Raise the OutputError of an outage that lasted too long."""
        if self._final_error is not None:
            raise self._final_error

    def request(self, where: str, action: Callable[[], T]) -> T:
        """Return the result of one request to a store, repeated in the main thread; messages name `where`."""

        def send_once() -> T:
            with as_output_errors(where, opening=self.opening):
                return action()

        return self.attempt("files", send_once)

    def attempt(self, task: str, action: Callable[[], T]) -> T:
        """Return the result of `action`, repeated for as long as an outage may last; for the main thread.

        OutputError for a definite error or a lasting outage, TryLaterError when `wait` ends it.
        """
        while True:
            try:
                value = action()
            except OutputError as error:
                delay_s = self._record_failure(task, error)
                if self.wait(delay_s):
                    raise TryLaterError(f"interrupted while waiting for the output: {error}") from error
                continue
            self._succeeded(task)
            return value

    def try_once(self, task: str, action: Callable[[], object]) -> bool:
        """Run `action` unless its back-off lasts; return True on success. OutputError as for `attempt`."""
        self.check()
        failing = self._failing.get(task)
        if failing is not None and self._clock() < failing.next_at:
            return False
        try:
            action()
        except OutputError as error:
            self._record_failure(task, error)
            return False
        self._succeeded(task)
        return True

    def _record_failure(self, task: str, error: OutputError) -> float:
        """Record a failed attempt and return the delay in seconds; raise the error when a retry is pointless."""
        if not is_outage(error) or not self._max_outage_s:
            raise error
        if self._final_error is not None:  # the same outage, reported once
            raise self._final_error from error
        with self._lock:
            now = self._clock()
            # a task that begins to fail in an outage of other tasks shares their start
            outage_began = min([failing.since for failing in self._failing.values()], default=now)
            failing = self._failing.setdefault(task, _Failing(outage_began))
            left_s = self._max_outage_s - (now - failing.since)
            if left_s <= 0:
                self._final_error = OutputError(f"waited {now - failing.since:.0f} s (runner.max_outage_s); {error}")
                raise self._final_error from error
            delay_s: float = min(MAX_DELAY_S, BASE_DELAY_S * 2**failing.tries, left_s)
            failing.tries = min(failing.tries + 1, 10)
            failing.next_at = now + delay_s
            # a single failed request is not worth a message
            if failing.tries > 1 and self._message is None:
                self._message = str(error)
                _log.warning("The output is not available; retrying for up to %g s: %s", self._max_outage_s, error)
        return delay_s

    def _succeeded(self, task: str) -> None:
        if not self._failing:
            return
        with self._lock:
            self._failing.pop(task, None)
            is_over = not self._failing and self._message is not None
            if is_over:
                self._message = None
        if is_over:
            _log.info("The output is available again", extra={"output": self._where})


def no_outage(where: str) -> Outage:
    """Return an Outage for a command that ends at the first error."""
    return Outage(where, max_outage_s=0, wait=lambda _: True, clock=lambda: 0.0)
