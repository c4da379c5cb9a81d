"""The parts of an output in an object store as their reader sees them: listed, then read one at a time.

It must not report a part that a sibling deletes meanwhile as a failure: its lines are in a newer part by then.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

from pipeline.errors import OutputError
from pipeline.output.lines import bounded_lines
from pipeline.output.part_writer import manifest_of
from pipeline.output.parts import ManifestError, Part, part_of, read_manifest
from pipeline.output.record_keys import KINDS, Kind, RecordKey, heads_of
from pipeline.output.shared_files import TRIES
from pipeline.output.store_errors import as_output_errors
from pipeline.stores import RemoteStore

_log = logging.getLogger(__name__)

Lines = Iterator[tuple[bytes, RecordKey]]


class PartReader:
    """Lists and reads parts; `sizes`: what the last listing found, in bytes. `allowed` raises once the lease is lost.

    `repair`: write a manifest that is missing; only a run that holds the lease may.
    """

    def __init__(self, store: RemoteStore, *, allowed: Callable[[], None]) -> None:
        self.sizes: dict[Part, int] = {}
        self.repair: Callable[[str, bytes], None] | None = None
        self._store, self._allowed = store, allowed

    def refresh(self) -> None:
        """Find all parts of both kinds."""
        self._allowed()
        with as_output_errors(str(self._store.address), opening=True):
            found = {part_of(found.key): found.size_bytes for kind in KINDS for found in self._store.list(kind)}
        self.sizes = {part: size_bytes for part, size_bytes in found.items() if part is not None}

    def parts(self, *kinds: Kind) -> list[Part]:
        """Return the parts of these kinds that the last listing found, kind by kind, in order."""
        return [
            part
            for kind in kinds
            for part in sorted((part for part in self.sizes if part.kind == kind), key=lambda each: each.place)
        ]

    def each(self, *kinds: Kind, read: Callable[[Part], bool]) -> None:
        """Call `read` with each part; it returns False for one that is gone, and then the next listing is read too.

        A run that ends writes its errors into a new part before it deletes the old ones: the next listing has them.
        """
        seen: set[Part] = set()
        for _ in range(TRIES):
            self.refresh()
            parts = [part for part in self.parts(*kinds) if part not in seen]
            gone = sum(not read(part) for part in parts)
            if not gone:
                return
            seen.update(parts)

    def record_keys(self, part: Part) -> list[RecordKey] | None:
        """Return what the manifest says of a part, or else the part itself; None when both are gone."""
        self._allowed()
        header = {"part": part.key, "bytes": self.sizes[part]}
        try:
            with as_output_errors(str(self._store.address)):
                data = self._store.get(part.manifest_key)
            return list(read_manifest(data.splitlines(keepends=True), header))
        except (OutputError, ManifestError) as exc:
            _log.info("rebuilding a manifest from its part", extra={"part": part.key, "why": str(exc)})
        lines = self.lines(part)
        if lines is None:
            return None
        record_keys = [head for _, head in lines]
        if self.repair is not None:
            self.repair(part.manifest_key, manifest_of(part, record_keys, size_bytes=self.sizes[part]))
        return record_keys

    def lines(self, part: Part) -> Lines | None:
        """Return the lines of a part with their keys; None when it is gone."""
        self._allowed()
        with as_output_errors(self._store.uri_of(part.key)):
            data = self.get(part.key)
        return None if data is None else self._split(part, data)

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes; None when it was deleted since it was listed."""
        try:
            return self._store.get(key)
        except FileNotFoundError:
            return None

    def _split(self, part: Part, data: bytes) -> Lines:
        """The lines with their keys; broken ones are skipped and reported.

        ConfigError for a line that is too long and begins as a record does.
        """
        where = self._store.uri_of(part.key)
        take, broken = heads_of(part.kind, where), 0
        for line, _ in bounded_lines(io.BytesIO(data), where):
            head = take(line, True)
            if head is None:
                broken += 1
            else:
                yield line, head
        if broken:
            _log.warning("broken lines were passed over in %s", part.key, extra={"lines": broken})
