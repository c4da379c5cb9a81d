"""An output in an object store: parts that are written once, a manifest for each, and a lease as its lock.

It must never write without the lease, and must never change a part.

    results/000012-00003-of-00016-000000.jsonl              run, shard, sequence number: a name with one writer
    errors/…                                                the same
    manifests/results/000012-00003-of-00016-000000.jsonl    the index fields of the part; rebuilt when missing
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from pipeline.errors import OutputError
from pipeline.output import accepted
from pipeline.output.index import Index
from pipeline.output.lease import Lease, acquire
from pipeline.output.part_reader import PartReader
from pipeline.output.part_writer import Limits, PartWriter
from pipeline.output.parts import Part
from pipeline.output.record_keys import KINDS, Kind, RecordKey
from pipeline.output.runs import read_runs
from pipeline.output.store_errors import as_output_errors
from pipeline.shards import Shard
from pipeline.stores import RemoteStore, StoreRefusedError

_log = logging.getLogger(__name__)

MANY_PARTS = 1000
"""More parts than this are worth compacting: each costs the next start a request."""

_TICK_S = 0.5


class RemoteBackend:
    """An OutputBackend (backend.py) in a prefix of a bucket."""

    def __init__(self, store: RemoteStore, limits: Limits, *, shard: Shard) -> None:
        """Prepare the backend without sending a request."""
        self.store = store
        self._parts = PartReader(store, allowed=self._allowed)
        self._limits = limits
        self._shard = shard
        self._lease: Lease | None = None
        self._writer: PartWriter | None = None
        self._closed = threading.Event()
        self._parts_before = 0

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

    def unwritten(self, kind: Kind) -> int:
        """Return the number of records in no written part."""
        return self._writer.unwritten(kind) if self._writer is not None else 0

    def lock(
        self, run_id: str, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]
    ) -> None:
        """Acquire the lease (lease.py)."""
        self._lease = acquire(self.store, run_id, shard=self._shard, lock_wait_s=lock_wait_s, wait=wait, clock=clock)

    def read(self) -> Index:
        """Index the manifests of all parts, except those of other shards of the same count, which own other ids.

        A part without a manifest is read as a whole; under the lease its manifest is rebuilt.
        """
        index = Index()
        try:
            for run in read_runs(self):
                index.met(run["run"])
            index.accept(accepted.from_lines(self.content(accepted.NAME), where=self.where))
            self._parts.repair = self.replace if self._lease is not None else None
            self._parts.each(*KINDS, read=lambda part: self._read_part(part, index))
        except BaseException:
            index.close()
            raise
        return index

    def start(self, index: Index, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare the writer of parts, and remove outdated errors."""
        self._writer = PartWriter(self.store, self._limits, shard=self._shard, allowed=self._allowed, clock=clock)
        self._writer.run = index.highest_run + 1
        self._parts_before = len(self._parts.sizes)
        self.tidy(index)

    def append(self, line: bytes, key: RecordKey) -> None:
        """Add the line to the open part of its kind."""
        assert self._writer is not None
        self._writer.add("results" if key.reason is None else "errors", line, key)

    def sync_due(self, now: float) -> None:
        """Close the parts that are old enough; the uploader writes them."""
        if self._writer is not None:
            self._writer.close_due(now)

    def sync(self) -> None:
        """Write all remaining records, in this thread."""
        if self._writer is not None:
            self._writer.send_all()

    def tidy(self, index: Index) -> None:
        """Write the remaining errors into new parts, then delete the old parts.

        A shard does this for its own parts; parts of other shard counts are removed after the last shard (output.tidy).
        """
        failed = index.failed_count()
        if failed == index.error_lines:
            return
        assert self._writer is not None
        self._parts.refresh()
        old = [part for part in self._parts.parts("errors") if self._is_own(part)]
        kept = set[str]()
        for part in old:
            for line, key in self._parts.lines(part) or ():
                if key.id not in kept and index.is_current_failure(key.id, key.run):
                    kept.add(key.id)
                    self._writer.add("errors", line, key)
            while self._writer.is_full:
                self._writer.send()
        self._writer.send_all()
        index.error_lines = failed
        try:
            self.delete(old)
        except OutputError as error:
            if not isinstance(error.__cause__, StoreRefusedError):
                raise
            _log.warning("Cannot delete old errors; allow DELETE for this prefix (docs/storage.md): %s", error)

    def settle(self, index: Index) -> None:  # noqa: ARG002
        """Log a warning when the output should be compacted."""
        assert self._writer is not None
        parts = self._parts_before + sum(self._writer.parts(kind) for kind in KINDS)
        if parts > MANY_PARTS:
            _log.warning(f"the output has {parts} parts: `pipeline compact {self.where}` makes the next start faster")

    def files(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Yield the objects below a prefix, one in memory at a time."""
        with as_output_errors(self.where, opening=True):
            for stored in list(self.store.list(folder)):
                if (data := self._parts.get(stored.key)) is not None:
                    yield stored.key, data

    def content(self, name: str) -> bytes | None:
        """Return the object's bytes."""
        with as_output_errors(self.where, opening=True):
            return self._parts.get(name)

    def create(self, name: str, data: bytes) -> bool:
        """Create the object by a conditional write: of two writers, one gets True."""
        self._allowed()
        with as_output_errors(self.store.uri_of(name)):
            try:
                self.store.create(name, data)
            except FileExistsError:
                return False
        return True

    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Replace the object as a whole; a large one when its last piece is uploaded."""
        self._allowed()
        with as_output_errors(self.store.uri_of(name)):
            self.store.put(name, data)

    def remove(self, name: str) -> bool:
        """Delete the object."""
        self._allowed()
        with as_output_errors(self.store.uri_of(name)):
            there = self.store.find(name) is not None
            self.store.delete(name)
        return there

    def records(self, kind: Kind) -> Iterator[tuple[bytes, RecordKey]]:
        """Read part by part, one in memory at a time; when a part was deleted meanwhile, list again for its lines."""
        seen = set[Part]()
        gone = True
        while gone:
            self._parts.refresh()
            parts = [part for part in self._parts.parts(kind) if part not in seen]
            gone = False
            for part in parts:
                lines = self._parts.lines(part)
                gone |= lines is None
                yield from lines or ()
            seen.update(parts)

    def rewrite(self, kind: Kind, lines: Iterable[tuple[bytes, RecordKey]]) -> None:
        """Write the lines into new parts of this run, then delete the old parts."""
        assert self._writer is not None
        self._parts.refresh()
        old = self._parts.parts(kind)
        for line, key in lines:
            self._writer.add(kind, line, key)
            while self._writer.is_full:
                self._writer.send()
        self._writer.send_all()
        self.delete(old)

    def delete(self, parts: list[Part]) -> None:
        """Delete parts, then their manifests: a manifest without its part is ignored."""
        for part in parts:
            self._allowed()
            with as_output_errors(self.store.uri_of(part.key)):
                self.store.delete(part.key, part.manifest_key)
            self._parts.sizes.pop(part, None)

    def duties(self) -> Mapping[str, Callable[[], None]]:
        """Return the uploader and, in a thread of its own so that a slow upload cannot delay it, the lease renewal."""
        return {"uploader": self._upload, "lease": self._keep}

    def close(self) -> None:
        """Write the open parts and release the lease; after a failed write, send no further request."""
        failed = self._writer is not None and self._writer.failed is not None
        try:
            if not failed:
                self.sync()
        finally:
            self._closed.set()
            if self._lease is not None and not failed:
                self._lease.release()

    def _upload(self) -> None:
        while not self._closed.is_set():
            assert self._writer is not None
            if self._writer.waiting.wait(_TICK_S):
                while self._writer.send():
                    pass

    def _keep(self) -> None:
        while not self._closed.wait(_TICK_S):
            self._allowed()

    def _allowed(self) -> None:
        if self._writer is not None and self._writer.failed is not None:
            raise self._writer.failed
        if self._lease is not None:
            self._lease.check()

    def _is_siblings(self, part: Part) -> bool:
        """Return True for a part of another shard of the same count."""
        return self._shard.count > 0 and part.shard.count == self._shard.count and not self._is_own(part)

    def _is_own(self, part: Part) -> bool:
        """Return True when no other run can replace the part: all parts without shards, else those of this shard."""
        return self._shard.count == 0 or part.shard == self._shard

    def _read_part(self, part: Part, index: Index) -> bool:
        """Index a part unless it belongs to another shard; return False when it was deleted meanwhile."""
        index.met(part.run)
        if self._is_siblings(part):
            return True
        record_keys = self._parts.record_keys(part)
        if record_keys is None:
            return False
        # a duplicate is recorded by the shard of the id it repeats, under an id that another may own
        is_own = self._shard.count > 0 and self._is_own(part)
        owns = (lambda _: True) if is_own else self._shard.owns
        before = index.error_lines
        index.add(part.kind, record_keys, where=self.store.uri_of(part.key), owns=owns)
        if not self._is_own(part):
            index.error_lines = before
        return True
