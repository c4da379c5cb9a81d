"""A turn: one thread verifies a server at a time; other threads wait for it as long as they may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL_S = 0.25
"""Seconds between two calls that ask whether a thread may still wait."""


class Turn:
    """Mutual exclusion of threads that may give up waiting."""

    def __init__(self) -> None:
        self._is_taken = False
        self._changed = threading.Condition()

    @contextmanager
    def take(self, may_wait: Callable[[], bool]) -> Iterator[bool]:
        """Yield True when this thread has the turn for the block; False when it may not wait any longer."""
        with self._changed:
            while self._is_taken and may_wait():
                self._changed.wait(POLL_S)
            has_turn = not self._is_taken
            self._is_taken = True
        try:
            yield has_turn
        finally:
            if has_turn:
                with self._changed:
                    self._is_taken = False
                    self._changed.notify_all()
