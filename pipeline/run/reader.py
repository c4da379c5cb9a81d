"""The reader: lists entries, selects and counts them, and passes a bounded number of them to the main thread.

It runs in a thread of its own, which runner.py starts. It reads no document.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from pipeline.documents import held_bytes
from pipeline.records import Entry
from pipeline.run.selection.selection import Choice
from pipeline.stores import ReadingStoppedError

LOOK_AHEAD = 64
"""Entries that may wait in addition to those in flight: enough that no worker waits for the listing."""
LOOK_AHEAD_BYTES = 32 << 20
"""The memory of the waiting entries: lines and records contain their bytes, and each may have 10 MB."""
WAIT_S = 0.5
WAKE_BELOW = 32
"""Entries on their way to workers, up to which each one wakes the main thread; further ones wait for its next turn."""


class EntryChoice(Protocol):
    """The choice for each entry of a listing; called by the reader's thread (selection/)."""

    def wants(self, document_id: str) -> bool: ...

    def judge(self, entry: Entry) -> tuple[Choice, Entry]: ...


@dataclass(slots=True)
class ReaderCounts:
    """The reader's counts, in documents; it passed on `found` minus `skipped` and `left`."""

    found: int = 0
    skipped: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class ListingEnd:
    """The event that the reader has ended; `is_complete`: it has passed on the whole listing."""

    is_complete: bool


class Reader:
    """The thread that lists entries while there is room; after `close` its counts are final."""

    def __init__(
        self,
        entries: Callable[[], Iterator[Entry]],
        selection: EntryChoice,
        *,
        events: SimpleQueue[Any],
        stop: threading.Event,
        room: int,
    ) -> None:
        self.counts = ReaderCounts()
        self._entries = entries
        self._arrived: deque[Entry] = deque()
        self._selection = selection
        self._events = events
        self._stop = stop
        self._room = LOOK_AHEAD + room
        self._passed_count = 0
        self._sent_count = 0
        self._passed_bytes = 0
        self._sent_bytes = 0
        self._wake = threading.Event()
        self._handover = threading.Lock()
        self._closed = False

    def run(self) -> None:
        """Read to the end of the listing, or until the run stops; raise PipelineError when the listing fails."""
        is_complete = False
        try:
            is_complete = all(map(self._pass_on, self._entries()))
        except ReadingStoppedError:
            return
        finally:
            self._events.put(ListingEnd(is_complete))

    def count_sent(self, entry: Entry) -> None:
        """Count an entry that was sent to a worker; wake the reader when half of the room is free.

        Waking the reader for each entry would cost two thread switches per document.
        """
        self._sent_count += 1
        self._sent_bytes += held_bytes(entry)
        waiting = self._passed_count - self._sent_count
        waiting_bytes = self._passed_bytes - self._sent_bytes
        if waiting <= self._room // 2 and waiting_bytes <= LOOK_AHEAD_BYTES // 2 and not self._wake.is_set():
            self._wake.set()

    def arrivals(self) -> Iterator[Entry]:
        """Yield the entries that were passed on since the last call; for the main thread."""
        while self._arrived:
            yield self._arrived.popleft()

    def close(self) -> None:
        """Stop counting and passing on entries."""
        with self._handover:
            self._closed = True

    def _pass_on(self, entry: Entry) -> bool:
        if not self._selection.wants(entry.id):
            return not self._stop.is_set()
        choice, entry = self._selection.judge(entry)
        while choice == "do" and self._is_full():
            if self._stop.is_set():
                return False
            self._wait_for_room()
        with self._handover:
            if self._closed or self._stop.is_set():
                return False
            self.counts.found += 1
            self.counts.skipped += choice == "skip"
            self.counts.left += choice == "leave"
            if choice == "do":
                self._passed_count += 1
                self._passed_bytes += held_bytes(entry)
                self._arrived.append(entry)
                if self._passed_count - self._sent_count <= WAKE_BELOW:
                    self._events.put(None)  # the main thread may wait for entries
        return True

    def _is_full(self) -> bool:
        waiting_bytes = self._passed_bytes - self._sent_bytes
        return self._passed_count - self._sent_count >= self._room or waiting_bytes >= LOOK_AHEAD_BYTES

    def _wait_for_room(self) -> None:
        self._wake.clear()
        if self._is_full():
            self._wake.wait(WAIT_S)
