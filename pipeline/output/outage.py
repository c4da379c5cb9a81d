"""Waiting for an output that is in trouble: its store, its disk or this machine fails for a while.

    a thread's loop   ──try_once──▶ task ──▶ store     failed: not before its back-off has passed, at a later turn
    the main thread   ──attempt───▶ task ──▶ store     failed: wait, repeat

1. Each kind of request is a task of its own ("lease", "parts", ...): a lock that can be renewed does not excuse parts
   that cannot be written.
2. Only outages are waited for (stores/trouble.py). A write that fails for a definite reason, such as a full disk, ends
   the run at once, and so does an outage that lasts `max_outage_s`. From then on nothing is waited for any more.
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
"""Not longer than the renewal of a lease takes: a waiting run takes it over after 20 s."""

T = TypeVar("T")
Wait = Callable[[float], bool]


def is_outage(error: BaseException) -> bool:
    """Return True for an OutputError that may be over soon: of a store, a file system or this machine."""
    return isinstance(error, OutputError) and isinstance(error.__cause__, OSError) and is_trouble(error.__cause__)


@dataclass(slots=True)
class _Failing:
    """A task in an outage: when the waiting began, the failures since then, and when it may be tried again."""

    since: float
    tries: int = 0
    next_at: float = 0.0


class Outage:
    """The outages of one output; thread-safe. With `max_outage_s` 0 nothing is waited for.

    `opening`: nothing was written yet, and a refused request is a ConfigError. `wait(seconds)` is how the main thread
    waits; it returns True when the waiting has to end.
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
        self._over: OutputError | None = None

    @property
    def message(self) -> str | None:
        """The reason why the output is waited for now; None while it can be written."""
        return self._message

    def check(self) -> None:
        """Raise the OutputError of an outage that lasted too long."""
        if self._over is not None:
            raise self._over

    def request(self, where: str, action: Callable[[], T]) -> T:
        """Return the result of one request to a store, repeated in the main thread; `where` names its object."""

        def once() -> T:
            with as_output_errors(where, opening=self.opening):
                return action()

        return self.attempt("files", once)

    def attempt(self, task: str, action: Callable[[], T]) -> T:
        """Return the result of `action`, repeated for as long as an outage may last; for the main thread.

        OutputError for a definite error or a lasting outage, TryLaterError when `wait` ends the waiting.
        """
        while True:
            try:
                value = action()
            except OutputError as error:
                delay_s = self._failed(task, error)
                if self.wait(delay_s):
                    raise TryLaterError(f"interrupted while waiting for the output: {error}") from error
                continue
            self._succeeded(task)
            return value

    def try_once(self, task: str, action: Callable[[], object]) -> bool:
        """Run `action` unless its back-off lasts; return True when it succeeded. OutputError as for `attempt`."""
        self.check()
        failing = self._failing.get(task)
        if failing is not None and self._clock() < failing.next_at:
            return False
        try:
            action()
        except OutputError as error:
            self._failed(task, error)
            return False
        self._succeeded(task)
        return True

    def _failed(self, task: str, error: OutputError) -> float:
        """Note a failed try and return the delay in seconds; raise the error when waiting is no use."""
        if not is_outage(error) or not self._max_outage_s:
            raise error
        if self._over is not None:  # the same outage, told once
            raise self._over from error
        with self._lock:
            now = self._clock()
            # a task that begins to fail in an outage of the others has no time of its own
            begun = min([failing.since for failing in self._failing.values()], default=now)
            failing = self._failing.setdefault(task, _Failing(begun))
            left_s = self._max_outage_s - (now - failing.since)
            if left_s <= 0:
                self._over = OutputError(f"waited {now - failing.since:.0f} s (runner.max_outage_s); {error}")
                raise self._over from error
            delay_s: float = min(MAX_DELAY_S, BASE_DELAY_S * 2**failing.tries, left_s)
            failing.tries = min(failing.tries + 1, 10)
            failing.next_at = now + delay_s
            # a single failed request is nothing to report
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
    """Return the waiting of a command that ends at the first error."""
    return Outage(where, max_outage_s=0, wait=lambda _: True, clock=lambda: 0.0)
