"""The slots of a server, which limit its completions at a time; first come, first served.

It must not drop a request: a waiting one is served or, after `abandon`, released.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Slots:
    """Turns for at most `count` at a time, in the order of arrival; 0 means no limit."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._running = 0
        self.most = 0
        self._abandoned = False

    @property
    def gauges(self) -> tuple[int, int]:
        """The numbers of running and waiting completions."""
        return self._running, len(self._waiting)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a slot and keep it for the block."""
        self._take()
        try:
            yield
        finally:
            self._give()

    def abandon(self) -> None:
        """Release all waiting threads, now and later."""
        with self._lock:
            self._abandoned = True
            for event in self._waiting:
                event.set()
            self._waiting.clear()

    def _take(self) -> None:
        with self._lock:
            if self._abandoned or not self._count or self._running < self._count:
                self._running += 1
                self.most = max(self.most, self._running)
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def _give(self) -> None:
        # A slot goes directly to the next in the queue, so that no newcomer can overtake.
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._running -= 1
