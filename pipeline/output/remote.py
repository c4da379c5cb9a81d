"""An output in an object store: parts that are written once, a manifest for each, and a lease as its lock.

It must never write without the lease, and must never change a part. In an outage (outage.py) the main thread repeats
its request until it succeeds, the two background threads repeat theirs on a later turn.

    results/000012-00003-of-00016-000000.jsonl              run, shard, sequence number: a name with one writer
    errors/…                                                the same
    manifests/results/000012-00003-of-00016-000000.jsonl    the index fields of the part; rebuilt when missing
    manifests/merged/…                                      the manifests of many small parts (merged_manifests.py)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pipeline.errors import InternalError, OutputError
from pipeline.output import accepted
from pipeline.output.index import Index
from pipeline.output.lease import Lease, acquire, is_held
from pipeline.output.merged_manifests import MergedManifests
from pipeline.output.outage import Outage, no_outage
from pipeline.output.part_reader import PartReader
from pipeline.output.part_writer import Limits, PartWriter
from pipeline.output.parts import Part
from pipeline.output.record_keys import KINDS, Kind, RecordKey, Records
from pipeline.output.run_index import highest_run
from pipeline.output.store_errors import DeleteRefusedError
from pipeline.output.window_parts import StoredWindows
from pipeline.shards import Shard, by_chunk
from pipeline.stores import RemoteStore, StoreRefusedError

_log = logging.getLogger(__name__)

PARTS = "parts"  # the task (outage.py) of writing parts
T = TypeVar("T")
_TICK_S = 0.5


class RemoteBackend:
    """An OutputBackend (backend.py) in a prefix of a bucket."""

    def __init__(self, store: RemoteStore, limits: Limits, *, shard: Shard, outage: Outage | None = None) -> None:
        """Prepare the backend without sending a request; without `outage` the first error of the store is raised."""
        self.store = store
        self._outage = outage or no_outage(str(store.address))
        self._parts = PartReader(store, shard=shard, check_lease=self._check_lease, request=self._outage.request)
        self._merged = MergedManifests(self._parts, shard=shard)
        self._limits = limits
        self._shard = shard
        self._lease: Lease | None = None
        self._writer: PartWriter | None = None
        self._closed = threading.Event()

    @property
    def where(self) -> str:
        """The address."""
        return str(self.store.address)

    @property
    def is_full(self) -> bool:
        """True while closed parts wait to be written."""
        return self._writer is not None and self._writer.is_full

    @property
    def written(self) -> tuple[str, ...]:
        """The prefixes of the parts."""
        return KINDS

    @property
    def _started_writer(self) -> PartWriter:
        """The writer of parts; InternalError before `start`."""
        if self._writer is None:
            raise InternalError(f"{self.where}: `start` comes before writing")
        return self._writer

    def unwritten(self, kind: Kind) -> int:
        """Return the number of records in no written part."""
        return self._writer.unwritten(kind) if self._writer is not None else 0

    def lock(
        self, run_id: str, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]
    ) -> None:
        """Acquire the lease (lease.py)."""
        self._parts.is_stopped = partial(wait, 0)
        attempt = self._outage.attempt
        self._lease = acquire(
            self.store, run_id, shard=self._shard, lock_wait_s=lock_wait_s, wait=wait, clock=clock, attempt=attempt
        )

    def read(self) -> Index:
        """Index the manifests of all parts, except those of other shards of the same count, which own other ids.

        A part without a manifest is read as a whole; under the lease its manifest is rebuilt.
        """
        index = Index()
        try:
            index.add_run(highest_run(self))
            index.accept(accepted.from_lines(self.content(accepted.NAME), where=self.where))
            self._parts.repair = self.replace if self._lease is not None else None
            merged_parts = partial(self._merged.add_to, index, self)
            self._parts.read_each(*KINDS, read=lambda part: self._parts.add_to(index, part), already_read=merged_parts)
        except BaseException:  # an interrupt too must not leave the index's file
            index.close()
            raise
        return index

    def start(self, index: Index, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare the writer of parts, and remove outdated errors."""
        check = self._check_lease
        self._writer = PartWriter(self.store, self._limits, shard=self._shard, check_lease=check, clock=clock)
        self._writer.run = index.highest_run + 1
        self.tidy(index)
        self._outage.opening = False

    def append(self, line: bytes, key: RecordKey) -> None:
        """Add the line to the open part of its kind."""
        self._started_writer.add("results" if key.reason is None else "errors", line, key)

    def append_results(self, records: Sequence[tuple[bytes, RecordKey]]) -> bool:  # noqa: ARG002
        """Return False: a line is added in memory."""
        return False

    def sync_due(self, now: float) -> None:
        """Close the parts that are old enough; the uploader writes them."""
        if self._writer is not None:
            self._writer.close_due(now)

    def sync(self) -> None:
        """Write all remaining records, in this thread."""
        if self._writer is not None:
            self._writer.close_all()
            self._send_all()

    def tidy(self, index: Index) -> None:
        """Write the remaining errors into new parts, then delete the old parts; a shard changes its own parts only."""
        failed = index.failed_count()
        if failed == index.error_lines:
            return
        self._parts.refresh()
        old = [part for part in self._parts.parts("errors") if self._parts.is_own(part)]
        kept_ids = set[str]()
        for part in old:
            for line, key in self._parts.lines(part) or ():
                if key.id not in kept_ids and index.is_current_failure(key.id, key.run):
                    kept_ids.add(key.id)
                    self._started_writer.add("errors", line, key)
            if self._started_writer.is_full:
                self._send_all()
        self.sync()
        index.error_lines = failed
        try:
            self.delete(old)
        except DeleteRefusedError as error:
            _log.warning("Cannot delete old errors; allow DELETE for this prefix (docs/storage.md): %s", error)

    def settle(self, index: Index) -> None:  # noqa: ARG002
        """Merge the manifests of many small parts; log a warning when the output should be compacted."""
        self._merged.merge(self)

    def files(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Yield the objects below a prefix, one in memory at a time."""
        for stored in self._outage.request(self.where, lambda: list(self.store.list(folder))):
            if (data := self.content(stored.key)) is not None:
                yield stored.key, data

    def names(self, folder: str) -> list[str]:
        """Return the keys below a prefix."""
        return self._outage.request(self.where, lambda: [stored.key for stored in self.store.list(folder)])

    def content(self, name: str) -> bytes | None:
        """Return the object's bytes."""
        return self._outage.request(self.where, lambda: self._parts.get(name))

    def create(self, name: str, data: bytes) -> bool:
        """Create the object by a conditional write: of two writers, one gets True."""
        try:
            self._write(name, lambda: self.store.create(name, data))
        except FileExistsError:
            return False
        return True

    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Replace the object as a whole; a large one when its last piece is uploaded."""
        self._write(name, lambda: self.store.put(name, data))

    def is_in_use(self) -> bool:
        """List the lock objects; the lock of a killed run counts as held until another run takes it over."""
        return self._outage.request(self.where, lambda: is_held(self.store))

    def remove(self, name: str) -> bool:
        """Delete the object."""
        is_found = self._write(name, lambda: self.store.find(name) is not None)
        self._write(name, partial(self._delete, name))
        return is_found

    def records(self, kind: Kind, *, since: int = 0) -> Records:
        """Read part by part, one in memory at a time; when one was deleted in between, list again to find its lines."""
        read_parts, has_deleted = set[Part](), True
        while has_deleted:
            self._parts.refresh()
            parts = [part for part in self._parts.parts(kind) if part not in read_parts]
            if since:
                parts = [part for part in parts if part.run >= since and not self._parts.is_siblings(part)]
            has_deleted = False
            for part in parts:
                lines = self._parts.lines(part)
                has_deleted |= lines is None
                yield from lines or ()
            read_parts.update(parts)

    def rewrite(self, kind: Kind, choose: Callable[[Records], Records]) -> None:
        """Write the chosen lines of each chunk, and all others together, into new parts, then delete the old parts."""
        self._merged.drop(self)
        self._parts.refresh()
        for shard, old in by_chunk(self._parts.parts(kind), lambda part: part.shard).items():
            self._started_writer.shard = shard
            for line, key in choose(line for part in old for line in self._parts.lines(part) or ()):
                self._started_writer.add(kind, line, key)
                if self._started_writer.is_full:
                    self._send_all()
            self.sync()
            self.delete(old)
        self._started_writer.shard = self._shard

    def delete(self, parts: list[Part]) -> None:
        """Delete parts, then their manifests: a manifest without its part is ignored."""
        for part in parts:
            self._write(part.key, partial(self._delete, part.key, part.manifest_key))
            self._parts.sizes.pop(part, None)

    def windows(self, *, clock: Callable[[], float]) -> StoredWindows:  # noqa: ARG002
        """Return the stream of the parts of windows."""
        reader = self._parts.for_streams("windows")
        return StoredWindows(reader, writer=lambda: self._started_writer, send=self._send_all, delete=self.delete)

    def duties(self) -> Mapping[str, Callable[[], None]]:
        """Return the uploader and, in a thread of its own so that a slow upload cannot delay it, the lease renewal."""
        return {"uploader": self._upload, "lease": self._keep}

    def close(self) -> None:
        """Write the open parts and release the lease; after a failed write, send no further request."""
        try:
            if self._can_write():
                self.sync()
        finally:
            self._closed.set()
            if self._lease is not None and self._can_write():
                self._lease.release()

    def _upload(self) -> None:
        while not self._closed.is_set():
            if self._started_writer.has_waiting.wait(_TICK_S) and not self._outage.try_once(PARTS, self._send_closed):
                self._closed.wait(_TICK_S)

    def _keep(self) -> None:
        while not self._closed.wait(_TICK_S):
            self._outage.try_once("lease", self._check_lease)

    def _send_closed(self) -> None:
        while self._started_writer.send():
            pass

    def _send_all(self) -> None:
        """Write the closed parts, in the main thread."""
        self._outage.attempt(PARTS, self._send_closed)

    def _write(self, name: str, action: Callable[[], T]) -> T:
        """Return the result of a request that needs the lease, which is checked at each repetition."""

        def under_lease() -> T:
            self._check_lease()
            return action()

        return self._outage.request(self.store.uri_of(name), under_lease)

    def _delete(self, *keys: str) -> None:
        try:
            self.store.delete(*keys)
        except StoreRefusedError as cause:
            # not chained, so that it does not count as an outage
            raise DeleteRefusedError(f"{self.store.uri_of(keys[0])}: was refused: {cause.strerror}") from None

    def _can_write(self) -> bool:
        try:
            self._outage.check()
        except OutputError:
            return False
        return self._writer is None or self._writer.failed is None

    def _check_lease(self) -> None:
        self._outage.check()
        if self._writer is not None and self._writer.failed is not None:
            raise self._writer.failed
        if self._lease is not None:
            self._lease.check()
