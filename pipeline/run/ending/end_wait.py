"""The wait for an unavailable output at the end of a run, which a signal limits to the remaining time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue


class EndWait:
    """An interruptible wait in the main thread; a signal handler, which must not take a lock, may call `limit`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadline: float | None = None
        self._wakes: SimpleQueue[None] = SimpleQueue()

    def limit(self, seconds: float) -> None:
        """End all waits after this time; the earliest of several limits applies."""
        deadline = self._clock() + seconds
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self._wakes.put(None)

    def __call__(self, seconds: float) -> bool:
        """Wait for this time or until a limit changes; return True when waiting must end."""
        with suppress(Empty):
            self._wakes.get(timeout=seconds if self._deadline is None else max(0.0, min(seconds, self._left_s())))
        return self._deadline is not None and self._left_s() <= 0

    def _left_s(self) -> float:
        return 0.0 if self._deadline is None else self._deadline - self._clock()
