"""Reading of the parts of an output in an object store: list them, then read one at a time.

A part that another run deletes in the meantime is not an error, because a newer part has its lines by then.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

from pipeline.errors import TryLaterError
from pipeline.output.index import Index
from pipeline.output.lines import bounded_lines
from pipeline.output.part_writer import manifest_of
from pipeline.output.parts import ManifestError, Part, part_of, read_manifest
from pipeline.output.record_keys import KINDS, RecordKey, Stream, key_reader
from pipeline.output.shared_files import TRIES
from pipeline.shards import Shard
from pipeline.stores import RemoteStore

_log = logging.getLogger(__name__)

T = TypeVar("T")
Lines = Iterator[tuple[bytes, RecordKey]]


class PartReader:
    """The listing and reading of parts. `sizes`: the parts of the last listing with their sizes in bytes.

    `check_lease` raises an error when the lease is lost; `request` sends a request (Outage.request). `repair` writes a
    missing manifest; None without the lease. `is_stopped`: once it returns True, `add_to` raises TryLaterError.
    """

    def __init__(
        self,
        store: RemoteStore,
        *,
        shard: Shard,
        check_lease: Callable[[], None],
        request: Callable[[str, Callable[[], Any]], Any],
        streams: tuple[Stream, ...] = KINDS,
    ) -> None:
        self.sizes: dict[Part, int] = {}
        self.repair: Callable[[str, bytes], None] | None = None
        self.is_stopped: Callable[[], bool] = lambda: False
        self._store = store
        self._shard = shard
        self._check_lease = check_lease
        self._request = request
        self._streams = streams

    def for_streams(self, *streams: Stream) -> PartReader:
        """Return a reader of other streams of the same output."""
        return PartReader(
            self._store, shard=self._shard, check_lease=self._check_lease, request=self._request, streams=streams
        )

    def refresh(self) -> None:
        """List all parts of its streams."""

        def listed() -> dict[Part | None, int]:
            return {
                part_of(stored.key): stored.size_bytes for name in self._streams for stored in self._store.list(name)
            }

        listing = self._under_lease(str(self._store.address), listed)
        self.sizes = {part: size_bytes for part, size_bytes in listing.items() if part is not None}

    def parts(self, *streams: Stream) -> list[Part]:
        """Return the parts of these streams in the last listing, stream by stream, in order."""
        return [
            part
            for stream in streams
            for part in sorted((part for part in self.sizes if part.kind == stream), key=lambda part: part.place)
        ]

    def read_each(
        self, *streams: Stream, read: Callable[[Part], bool], already_read: Callable[[], Iterable[Part]] = tuple
    ) -> None:
        """Call `read` with each part; when it returns False (the part was deleted), list again and read the new parts.

        A run that ends writes its errors into a new part before it deletes the old ones: the new listing has them.
        `already_read` is called after the first listing, and returns parts that need not be read.
        """
        read_parts: set[Part] = set()
        for turn in range(TRIES):
            self.refresh()
            if turn == 0:
                read_parts.update(already_read())
            parts = [part for part in self.parts(*streams) if part not in read_parts]
            deleted = sum(not read(part) for part in parts)
            if not deleted:
                return
            read_parts.update(parts)

    def is_own(self, part: Part) -> bool:
        """Return True when no other run can replace the part: all parts without shards, else those of this shard."""
        return self._shard.count == 0 or part.shard == self._shard

    def is_siblings(self, part: Part) -> bool:
        """Return True for a part of another shard of the same count."""
        return self._shard.count > 0 and part.shard.count == self._shard.count and not self.is_own(part)

    def mergeable(self, excluded: Collection[Part]) -> int:
        """Return how many parts of the last listing this shard reads, minus those that compacting leaves to chunks.

        `excluded`: parts that it has not read.
        """
        listed = [part for part in self.sizes if not self.is_siblings(part) and part not in excluded]
        return len(listed) - len({(part.kind, part.shard) for part in listed if part.shard.is_chunk})

    def add_to(self, index: Index, part: Part) -> bool:
        """Index a part unless it belongs to another shard; return False when it was deleted meanwhile."""
        if self.is_stopped():
            raise TryLaterError("interrupted while the output was read")
        if self.is_siblings(part):
            index.add_run(part.run)
            return True
        record_keys = self.record_keys(part)
        if record_keys is None:
            return False
        self.add_keys(index, part, record_keys)
        return True

    def add_keys(self, index: Index, part: Part, record_keys: Iterable[RecordKey]) -> None:
        """Index the records of a part by their keys."""
        index.add_run(part.run)
        assert part.kind != "windows"
        # a duplicate is recorded by the shard of the id it repeats, under an id that another may own
        is_own = self._shard.count > 0 and self.is_own(part)
        owns = (lambda _: True) if is_own else self._shard.owns
        former_count = index.error_lines
        index.add(part.kind, record_keys, where=self._store.uri_of(part.key), owns=owns)
        if not self.is_own(part):
            index.error_lines = former_count

    def record_keys(self, part: Part) -> list[RecordKey] | None:
        """Return the record keys of a part from its manifest, or else from the part; None when both were deleted."""
        header = {"part": part.key, "bytes": self.sizes[part]}
        try:
            data = self._under_lease(str(self._store.address), lambda: self.get(part.manifest_key))
            return list(read_manifest((data or b"").splitlines(keepends=True), header))
        except ManifestError as exc:
            _log.info("Rebuilding a manifest from its part", extra={"part": part.key, "why": str(exc)})
        lines = self.lines(part)
        if lines is None:
            return None
        record_keys = [key for _, key in lines]
        if self.repair is not None:
            self.repair(part.manifest_key, manifest_of(part, record_keys, size_bytes=self.sizes[part]))
        return record_keys

    def lines(self, part: Part) -> Lines | None:
        """Return the lines of a part with their keys; None for a deleted part."""
        data = self.content(part)
        return None if data is None else self._split(part, data)

    def content(self, part: Part) -> bytes | None:
        """Return the bytes of a part; None for a deleted part."""
        return self._under_lease(self._store.uri_of(part.key), lambda: self.get(part.key))

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes; None when it was deleted since it was listed."""
        try:
            return self._store.get(key)
        except FileNotFoundError:
            return None

    def _under_lease(self, where: str, action: Callable[[], T]) -> T:
        """Return the result of a request; renew the lease when that is due, as reading may take long."""

        def send_once() -> T:
            self._check_lease()
            return action()

        value: T = self._request(where, send_once)
        return value

    def _split(self, part: Part, data: bytes) -> Lines:
        """Yield the lines with their keys; broken lines are skipped and logged.

        ConfigError for a line that is too long and begins like a record.
        """
        where = self._store.uri_of(part.key)
        assert part.kind != "windows"
        take = key_reader(part.kind, where)
        broken = 0
        for line, _ in bounded_lines(io.BytesIO(data), where):
            key = take(line, True)
            if key is None:
                broken += 1
            else:
                yield line, key
        if broken:
            _log.warning("skipped broken lines in %s", part.key, extra={"lines": broken})
