"""Records on their way into parts of an object store: gathered in memory, closed by age or size, written in order.

It must not hold more than a few parts: `is_full` says when no more records should come. The main thread adds and
closes; whoever calls `send` writes, one at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.errors import OutputError, PipelineError
from pipeline.output.lines import check_length
from pipeline.output.parts import Part, write_manifest
from pipeline.output.record_keys import KINDS, Kind, RecordKey
from pipeline.output.store_errors import as_output_errors
from pipeline.shards import Shard
from pipeline.stores import RemoteStore

MOST_CLOSED = 2
"""Closed parts that may wait to be written; with the open ones that is what a run holds in memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a part is closed: its oldest record's age, and its size."""

    part_seconds: float
    part_bytes: int


@dataclass(slots=True)
class _Open:
    """A part that is still gathered."""

    lines: list[bytes] = field(default_factory=list)
    record_keys: list[RecordKey] = field(default_factory=list)
    size_bytes: int = 0
    since: float = 0.0


class Outbox:
    """The parts of one run and shard. `allowed` raises when nothing may be written any more."""

    def __init__(
        self,
        store: RemoteStore,
        limits: Limits,
        *,
        shard: Shard,
        allowed: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._store, self._limits, self._shard = store, limits, shard
        self._allowed, self._clock = allowed, clock
        self._open: dict[Kind, _Open] = {kind: _Open() for kind in KINDS}
        self._closed: deque[tuple[Part, _Open]] = deque()
        self._sequence: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._sending = threading.Lock()
        self.failed: PipelineError | None = None
        """What no part was written after."""
        self.run = 0
        """The number that the parts carry; to be set before the first record."""
        self.waiting = threading.Event()
        """Set while a closed part may be there to be sent."""

    @property
    def is_full(self) -> bool:
        """True while enough parts wait to be written."""
        return len(self._closed) >= MOST_CLOSED

    def unwritten(self, kind: Kind) -> int:
        """Records that were added and are in no part yet."""
        waiting = sum(len(part.lines) for each, part in list(self._closed) if each.kind == kind)
        return waiting + len(self._open[kind].lines)

    def parts(self, kind: Kind) -> int:
        """How many parts were closed."""
        return self._sequence[kind]

    def add(self, kind: Kind, line: bytes, head: RecordKey) -> None:
        """Takes a record's line; closes its part when that is large enough. OutputError for a line that is too long."""
        part = self._open[kind]
        check_length(line, self._store.uri_of(kind))
        if not part.lines:
            part.since = self._clock()
        part.lines.append(line)
        part.record_keys.append(head)
        part.size_bytes += len(line)
        if part.size_bytes >= self._limits.part_bytes:
            self._close(kind)

    def close_due(self, now: float) -> None:
        """Closes the parts whose oldest record is old enough."""
        for kind, part in self._open.items():
            if part.lines and now - part.since >= self._limits.part_seconds:
                self._close(kind)

    def send_all(self) -> None:
        """Closes and writes everything; OutputError when a part cannot be written, and then at each further call."""
        for kind in KINDS:
            self._close(kind)
        while self.send():
            pass

    def send(self) -> bool:
        """True when a closed part was written: the part first, then its manifest, which can be made anew."""
        with self._sending:
            self.waiting.clear()
            if self.failed is not None:
                raise self.failed
            if not self._closed:
                return False
            try:
                self._put(*self._closed[0])
            except PipelineError as error:
                self.failed = error
                raise
            return True

    def _close(self, kind: Kind) -> None:
        part = self._open[kind]
        if part.lines:
            self._open[kind] = _Open()
            self._closed.append((Part(kind, self.run, self._shard, self._sequence[kind]), part))
            self._sequence[kind] += 1
            self.waiting.set()

    def _put(self, name: Part, part: _Open) -> None:
        self._allowed()
        with as_output_errors(self._store.uri_of(name.key)):
            try:
                self._store.create(name.key, b"".join(part.lines))
            except FileExistsError as exc:
                told = "is there already: another run has taken this run's number; start this one again"
                raise OutputError(f"{self._store.uri_of(name.key)}: {told}") from exc
            self._closed.popleft()
            self._store.put(name.manifest_key, manifest_of(name, part.record_keys, size_bytes=part.size_bytes))


def manifest_of(name: Part, record_keys: list[RecordKey], *, size_bytes: int) -> bytes:
    """The manifest of a part."""
    return b"".join(write_manifest(record_keys, {"part": name.key, "bytes": size_bytes}))
