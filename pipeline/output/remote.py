"""An output in an object store: parts that are written once, a manifest beside each, and a lease as its lock.

It must never write without the lease, and must never change a part.

    results/000012-00003-of-00016-000000.jsonl              run, shard, number: nobody else writes this name
    errors/…                                                the same
    manifests/results/000012-00003-of-00016-000000.jsonl    what the index needs of the part; made anew when missing
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
from pipeline.output.part_writer import Limits, Outbox
from pipeline.output.parts import Part
from pipeline.output.record_keys import KINDS, Kind, RecordKey
from pipeline.output.runs import read_runs
from pipeline.output.store_errors import as_output_errors
from pipeline.shards import Shard
from pipeline.stores import RemoteStore, StoreRefusedError

_log = logging.getLogger(__name__)

MANY_PARTS = 1000
"""More than this are worth compacting: each costs the next start a request."""

_TICK_S = 0.5


class RemoteBackend:
    """An OutputBackend (backend.py) in a prefix of a bucket."""

    def __init__(self, store: RemoteStore, limits: Limits, *, shard: Shard) -> None:
        """Nothing is asked yet."""
        self.store = store
        self._parts = PartReader(store, allowed=self._allowed)
        self._limits, self._shard = limits, shard
        self._lease: Lease | None = None
        self._outbox: Outbox | None = None
        self._closed = threading.Event()
        self._parts_before = 0

    @property
    def where(self) -> str:
        """The address."""
        return str(self.store.address)

    @property
    def is_full(self) -> bool:
        """True while parts wait to be written."""
        return self._outbox is not None and self._outbox.is_full

    @property
    def written(self) -> tuple[str, ...]:
        """The folders of the parts."""
        return KINDS

    def unwritten(self, kind: Kind) -> int:
        """Records in no part yet."""
        return self._outbox.unwritten(kind) if self._outbox is not None else 0

    def lock(
        self, run_id: str, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]
    ) -> None:
        """Takes the lease (lease.py)."""
        self._lease = acquire(self.store, run_id, shard=self._shard, lock_wait_s=lock_wait_s, wait=wait, clock=clock)

    def read(self) -> Index:
        """The manifests of all parts, but for those of other shards of the same count, which own other ids.

        A part without one is read whole; under the lease its manifest is made.
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
        """Removes errors that no longer stand."""
        self._outbox = Outbox(self.store, self._limits, shard=self._shard, allowed=self._allowed, clock=clock)
        self._outbox.run = index.highest_run + 1
        self._parts_before = len(self._parts.sizes)
        self.tidy(index)

    def append(self, line: bytes, head: RecordKey) -> None:
        """Keeps the line until its part is closed."""
        assert self._outbox is not None
        self._outbox.add("results" if head.reason is None else "errors", line, head)

    def sync_due(self, now: float) -> None:
        """Closes the parts that are old enough; the uploader writes them."""
        if self._outbox is not None:
            self._outbox.close_due(now)

    def sync(self) -> None:
        """Writes what is not written yet, in this thread."""
        if self._outbox is not None:
            self._outbox.send_all()

    def tidy(self, index: Index) -> None:
        """Writes the errors that stand into new parts, then deletes the old ones.

        A shard sees to its own parts: what other numbers of shards have left goes when the last one has ended (tidy).
        """
        standing = index.failed_count()
        if standing == index.error_lines:
            return
        assert self._outbox is not None
        self._parts.refresh()
        old, kept = [part for part in self._parts.parts("errors") if self._is_own(part)], set[str]()
        for part in old:
            for line, head in self._parts.lines(part) or ():
                if head.id not in kept and index.stands(head.id, head.run):
                    kept.add(head.id)
                    self._outbox.add("errors", line, head)
            while self._outbox.is_full:
                self._outbox.send()
        self._outbox.send_all()
        index.error_lines = standing
        try:
            self.delete(old)
        except OutputError as error:
            if not isinstance(error.__cause__, StoreRefusedError):
                raise
            _log.warning("old errors were left, as nothing may be deleted: allow DELETE (docs/storage.md): %s", error)

    def settle(self, index: Index) -> None:  # noqa: ARG002
        """Says when compacting is worth its while."""
        assert self._outbox is not None
        parts = self._parts_before + sum(self._outbox.parts(kind) for kind in KINDS)
        if parts > MANY_PARTS:
            _log.warning(f"the output has {parts} parts: `pipeline compact {self.where}` makes the next start faster")

    def files(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """The objects below a prefix, one at a time."""
        with as_output_errors(self.where, opening=True):
            for found in list(self.store.list(folder)):
                if (data := self._parts.get(found.key)) is not None:
                    yield found.key, data

    def content(self, name: str) -> bytes | None:
        """The object's bytes."""
        with as_output_errors(self.where, opening=True):
            return self._parts.get(name)

    def create(self, name: str, data: bytes) -> bool:
        """Decided by the store: of two writers one gets True."""
        self._allowed()
        with as_output_errors(self.store.uri_of(name)):
            try:
                self.store.create(name, data)
            except FileExistsError:
                return False
        return True

    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """An object is replaced as a whole, a large one when the last of its pieces is there."""
        self._allowed()
        with as_output_errors(self.store.uri_of(name)):
            self.store.put(name, data)

    def remove(self, name: str) -> bool:
        """Deletes the object."""
        self._allowed()
        with as_output_errors(self.store.uri_of(name)):
            there = self.store.find(name) is not None
            self.store.delete(name)
        return there

    def records(self, kind: Kind) -> Iterator[tuple[bytes, RecordKey]]:
        """Part by part, one in memory at a time; what is deleted meanwhile is read from where its lines are now."""
        seen, gone = set[Part](), True
        while gone:
            self._parts.refresh()
            parts, gone = [part for part in self._parts.parts(kind) if part not in seen], False
            for part in parts:
                lines = self._parts.lines(part)
                gone |= lines is None
                yield from lines or ()
            seen.update(parts)

    def rewrite(self, kind: Kind, lines: Iterable[tuple[bytes, RecordKey]]) -> None:
        """New parts of this run; when the last is written, the old ones go."""
        assert self._outbox is not None
        self._parts.refresh()
        old = self._parts.parts(kind)
        for line, head in lines:
            self._outbox.add(kind, line, head)
            while self._outbox.is_full:
                self._outbox.send()
        self._outbox.send_all()
        self.delete(old)

    def delete(self, parts: list[Part]) -> None:
        """Removes parts, and their manifests after them: a manifest without its part says nothing."""
        for part in parts:
            self._allowed()
            with as_output_errors(self.store.uri_of(part.key)):
                self.store.delete(part.key, part.manifest_key)
            self._parts.sizes.pop(part, None)

    def duties(self) -> Mapping[str, Callable[[], None]]:
        """The uploader, and the keeper of the lease, which no slow upload may hold up."""
        return {"uploader": self._upload, "lease": self._keep}

    def close(self) -> None:
        """Writes what is still open and frees the lease; a store that has failed is not asked again."""
        failed = self._outbox is not None and self._outbox.failed is not None
        try:
            if not failed:
                self.sync()
        finally:
            self._closed.set()
            if self._lease is not None and not failed:
                self._lease.release()

    def _upload(self) -> None:
        while not self._closed.is_set():
            assert self._outbox is not None
            if self._outbox.waiting.wait(_TICK_S):
                while self._outbox.send():
                    pass

    def _keep(self) -> None:
        while not self._closed.wait(_TICK_S):
            self._allowed()

    def _allowed(self) -> None:
        if self._outbox is not None and self._outbox.failed is not None:
            raise self._outbox.failed
        if self._lease is not None:
            self._lease.check()

    def _is_siblings(self, part: Part) -> bool:
        """True for a part of another shard of the same count."""
        return self._shard.count > 0 and part.shard.count == self._shard.count and not self._is_own(part)

    def _is_own(self, part: Part) -> bool:
        """True when no other run can change what the part stands for: all of them without shards, else our own."""
        return self._shard.count == 0 or part.shard == self._shard

    def _read_part(self, part: Part, index: Index) -> bool:
        """True when the index knows the part, or need not; False when a sibling has deleted it meanwhile."""
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
