"""Writing of records as parts of an object store: collected in memory, closed by age or size, written in order.

It must not hold more than a few parts: `is_full` asks the caller to wait. The main thread adds records and closes
parts; any thread may write them with `send`, one at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.errors import OutputError, PipelineError
from pipeline.output.lines import check_length
from pipeline.output.outage import is_outage
from pipeline.output.parts import Part, write_manifest
from pipeline.output.record_keys import STREAMS, RecordKey, Stream
from pipeline.output.store_errors import as_output_errors
from pipeline.shards import Shard
from pipeline.stores import RemoteStore

MOST_CLOSED = 2
"""Closed parts in the queue: one being sent and the next one. With the open parts, these are all parts in memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum age of a part's oldest record, and maximum size of a part, before it is closed."""

    part_seconds: float
    part_bytes: int


@dataclass(slots=True)
class _OpenPart:
    """A part that still receives records."""

    lines: list[bytes] = field(default_factory=list)
    record_keys: list[RecordKey] = field(default_factory=list)
    size_bytes: int = 0
    opened_at: float = 0.0


class PartWriter:
    """Writer of the parts of one run and shard. `check_lease` raises an error when the lease is lost."""

    def __init__(
        self,
        store: RemoteStore,
        limits: Limits,
        *,
        shard: Shard,
        check_lease: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._limits = limits
        self.shard = shard
        """The shard in the names of the parts; it may be changed while no part is open."""
        self._check_lease = check_lease
        self._clock = clock
        self._open: dict[Stream, _OpenPart] = {stream: _OpenPart() for stream in STREAMS}
        self._closed_parts: deque[tuple[Part, _OpenPart]] = deque()
        self._sequence: dict[Stream, int] = dict.fromkeys(STREAMS, 0)
        self._send_lock = threading.Lock()
        self.failed: PipelineError | None = None
        """The error that ended the writing."""
        self.run = 0
        """The run number in the names of the parts; to be set before the first record."""
        self.has_waiting = threading.Event()
        """Set when a closed part may wait to be sent."""

    @property
    def is_full(self) -> bool:
        """True while enough parts wait to be written."""
        return len(self._closed_parts) >= MOST_CLOSED

    def unwritten(self, kind: Stream) -> int:
        """Return the number of added records that are in no written part."""
        waiting = sum(len(part.lines) for name, part in list(self._closed_parts) if name.kind == kind)
        return waiting + len(self._open[kind].lines)

    def parts(self, kind: Stream) -> int:
        """Return the number of closed parts."""
        return self._sequence[kind]

    def add(self, kind: Stream, line: bytes, key: RecordKey | None) -> None:
        """Add a line, a window's without a key, and close a full part; OutputError when the line is too long."""
        part = self._open[kind]
        check_length(line, self._store.uri_of(kind))
        if not part.lines:
            part.opened_at = self._clock()
        part.lines.append(line)
        if key is not None:
            part.record_keys.append(key)
        part.size_bytes += len(line)
        if part.size_bytes >= self._limits.part_bytes:
            self._close(kind)

    def close_due(self, now: float) -> None:
        """Close the parts whose oldest record is old enough."""
        for kind, part in self._open.items():
            if part.lines and now - part.opened_at >= self._limits.part_seconds:
                self._close(kind)

    def close_all(self) -> None:
        """Close all parts, for `send`."""
        for stream in STREAMS:
            self._close(stream)

    def send(self) -> bool:
        """Write the oldest closed part, then its manifest, which can be rebuilt; return False when there is none.

        OutputError when it cannot be written: in an outage the part stays in the queue, else each further call fails.
        """
        with self._send_lock:
            self.has_waiting.clear()
            if self.failed is not None:
                raise self.failed
            if not self._closed_parts:
                return False
            try:
                self._send_part(*self._closed_parts[0])
            except PipelineError as error:
                self.has_waiting.set()
                if not is_outage(error):
                    self.failed = error
                raise
            return True

    def _close(self, kind: Stream) -> None:
        part = self._open[kind]
        if part.lines:
            self._open[kind] = _OpenPart()
            self._closed_parts.append((Part(kind, self.run, self.shard, self._sequence[kind]), part))
            self._sequence[kind] += 1
            self.has_waiting.set()

    def _send_part(self, name: Part, part: _OpenPart) -> None:
        self._check_lease()
        with as_output_errors(self._store.uri_of(name.key)):
            try:
                self._store.create(name.key, b"".join(part.lines))
            except FileExistsError as exc:
                message = "exists already: another run has taken this run's number; start this run again"
                raise OutputError(f"{self._store.uri_of(name.key)}: {message}") from exc
            self._closed_parts.popleft()
            if name.kind != "windows":
                self._store.put(name.manifest_key, manifest_of(name, part.record_keys, size_bytes=part.size_bytes))


def manifest_of(name: Part, record_keys: list[RecordKey], *, size_bytes: int) -> bytes:
    """Return the manifest of a part."""
    return b"".join(write_manifest(record_keys, {"part": name.key, "bytes": size_bytes}))
