"""The wait for another run that holds an output: its duration, its polls and its log messages.

It must not take a lock: lock.py and lease.py do, and call this module after each failed attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pipeline.errors import TryLaterError

_log = logging.getLogger(__name__)

LOG_EVERY_S = 60.0
"""A pod may wait for hours; a line a minute in its log shows that it is alive and which run it waits for."""


class LockWait:
    """One wait for an output, which begins now and ends after `lock_wait_s` or when `wait` returns True."""

    def __init__(
        self, where: str, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]
    ) -> None:
        """Start the wait; `where` is the output in messages, `wait(seconds)` returns True when the run is to stop."""
        self._where = where
        self._lock_wait_s = lock_wait_s
        self._wait = wait
        self._clock = clock
        self._start = clock()
        self._log_at = self._start

    @property
    def waited_s(self) -> float:
        """Seconds since the wait began."""
        return self._clock() - self._start

    def pause(self, holder: str, poll_s: float) -> None:
        """Wait `poll_s` before the next attempt; TryLaterError, naming the holder, when the wait is over."""
        waited_s = self.waited_s
        if waited_s >= self._lock_wait_s:
            raise TryLaterError(
                f"{self._where}: another run holds the output: {holder}; waited {self._lock_wait_s:g} s"
                " (runner.lock_wait_s)"
            )
        if self._clock() >= self._log_at:
            self._log_at = self._clock() + LOG_EVERY_S
            fields = {"holder": holder, "waited_s": round(waited_s), "lock_wait_s": self._lock_wait_s}
            _log.info("Waiting for the output", extra=fields)
        if self._wait(min(poll_s, self._lock_wait_s - waited_s)):
            raise TryLaterError(f"{self._where}: interrupted while waiting for the output, held by {holder}")
