"""The reader: lists entries, selects and counts them, and passes them to the main thread, a bounded number at a time.

It runs in one thread, which runner.py starts; it reads no document.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from pipeline.documents import held_bytes
from pipeline.records import Entry
from pipeline.run.selection.selection import Choice
from pipeline.stores import ReadingStoppedError

LOOK_AHEAD = 64
"""Entries that may wait beyond those in flight: enough that no worker waits for the listing."""
LOOK_AHEAD_BYTES = 32 << 20
"""The memory of the waiting entries: lines and records contain their bytes, and each may have 10 MB."""
WAIT_S = 0.5


class EntryChoice(Protocol):
    """Decides on each entry of a listing; called by the reader's thread (selection/)."""

    def wants(self, document_id: str) -> bool: ...

    def judge(self, entry: Entry) -> tuple[Choice, Entry]: ...


@dataclass(slots=True)
class Read:
    """The reader's counts, in documents; `found` minus `skipped` and `left` were passed on."""

    found: int = 0
    skipped: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Listed:
    """The reader has ended; `whole`: the listing is complete."""

    whole: bool


class Reader:
    """Pulls entries while there is room; after `close` its counts are final."""

    def __init__(
        self,
        entries: Callable[[], Iterator[Entry]],
        selection: EntryChoice,
        *,
        events: SimpleQueue[Any],
        stop: threading.Event,
        room: int,
    ) -> None:
        self.read = Read()
        self._entries = entries
        self._selection = selection
        self._events = events
        self._stop = stop
        self._room = LOOK_AHEAD + room
        self._passed = 0
        self._sent_count = 0
        self._passed_bytes = 0
        self._sent_bytes = 0
        self._wake = threading.Event()
        self._handover = threading.Lock()
        self._closed = False

    def run(self) -> None:
        """Read to the end of the listing, or until no more entries are needed. PipelineError when the listing fails."""
        is_complete = False
        try:
            is_complete = all(map(self._pass_on, self._entries()))
        except ReadingStoppedError:
            return
        finally:
            self._events.put(Listed(is_complete))

    def taken(self, entry: Entry) -> None:
        """Count an entry that went to a worker; when half of the room is free, wake the reader to refill it at once.

        To wake it for each entry would cost two thread switches per document.
        """
        self._sent_count += 1
        self._sent_bytes += held_bytes(entry)
        waiting = self._passed - self._sent_count
        waiting_bytes = self._passed_bytes - self._sent_bytes
        if waiting <= self._room // 2 and waiting_bytes <= LOOK_AHEAD_BYTES // 2 and not self._wake.is_set():
            self._wake.set()

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
            self.read.found += 1
            self.read.skipped += choice == "skip"
            self.read.left += choice == "leave"
            if choice == "do":
                self._passed += 1
                self._passed_bytes += held_bytes(entry)
                self._events.put(entry)
        return True

    def _is_full(self) -> bool:
        waiting_bytes = self._passed_bytes - self._sent_bytes
        return self._passed - self._sent_count >= self._room or waiting_bytes >= LOOK_AHEAD_BYTES

    def _wait_for_room(self) -> None:
        self._wake.clear()
        if self._is_full():
            self._wake.wait(WAIT_S)
