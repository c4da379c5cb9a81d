"""Manifests of many small parts in one object, so that a start reads a few objects instead of one per earlier run.

    manifests/merged/000000-00003-of-00016.jsonl    the manifests of results of one shard, one after the other

1. A manifest begins with a line that names its part and the part's size. The manifest of a deleted part, or of a part
   with another size, is ignored; for a part without one here, its own manifest is read. So these objects are a cache.
2. A run whose start has read MERGED_FROM small parts one by one adds their manifests (at most MOST_AT_ONCE) to the last
   object of its shard, and begins another one when that is full. Only the holder of the shard's lock writes them.
3. Compacting and purging remove them all first: they hold ids.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

from pipeline.errors import OutputError
from pipeline.output.backend import OutputBackend, ReadableOutput
from pipeline.output.index import Index
from pipeline.output.part_reader import PartReader
from pipeline.output.parts import ManifestError, Part, part_of, read_manifest
from pipeline.shards import SUFFIX, Shard, shard_of_suffix

_log = logging.getLogger(__name__)

MERGED_FROM = 64
"""In most stores, this many requests in a row take less than a second."""
MOST_AT_ONCE = 128
"""The most manifests that one run merges: a signal has to wait for the end of the merge."""
SMALL_BYTES = 4 << 20
"""The manifest of a larger part takes longer to transfer than a request takes, so that merging saves little."""
MANY_PARTS = 1000
"""From this number of separately read parts on, compacting is worth the time."""
FULL_BYTES = 8 << 20
"""Objects are read and written as a whole, in memory."""

_FOLDER = "manifests/merged"
_NAME = re.compile(rf"{_FOLDER}/([0-9]{{6}})({SUFFIX})?\.jsonl")


class MergedManifests:
    """The merged manifests of an output. `covered`: the parts that were read from them."""

    def __init__(self, parts: PartReader, *, shard: Shard) -> None:
        """Prepare without a request."""
        self.covered: set[Part] = set()
        self._parts = parts
        self._shard = shard
        self._highest_number = -1
        """The highest number of an object of this shard."""

    def add_to(self, index: Index, backend: ReadableOutput) -> set[Part]:
        """Index the parts of the last listing that have merged manifests, and return them."""
        self.covered = set()
        if self._parts.mergeable(()) < MERGED_FROM:
            return self.covered
        for name in backend.names(_FOLDER):
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            shard = shard_of_suffix(match[2])
            if shard == self._shard:
                self._highest_number = max(self._highest_number, int(match[1]))
            elif self._shard.count and shard.count == self._shard.count:
                continue
            for lines in _manifests(backend.content(name) or b""):
                self._add(index, lines)
        return self.covered

    def merge(self, backend: OutputBackend) -> None:
        """Add the manifests of small parts of this shard, if there are many; log a failure."""
        parts = self._small_parts()
        unmerged_count = self._parts.mergeable({*self.covered, *parts})
        if unmerged_count > MANY_PARTS:
            _log.warning(f"each start reads {unmerged_count} parts: `pipeline compact {backend.where}` makes it faster")
        if len(parts) < MERGED_FROM:
            return
        number = max(self._highest_number, 0)
        try:
            data = backend.content(_name(number, self._shard)) or b"" if self._highest_number >= 0 else b""
            for part in parts[:MOST_AT_ONCE]:
                manifest = backend.content(part.manifest_key) or b""
                if data and len(data) + len(manifest) > FULL_BYTES:
                    backend.replace(_name(number, self._shard), data)
                    number += 1
                    data = b""
                data += manifest
            backend.replace(_name(number, self._shard), data)
        except OutputError as error:
            _log.info("Cannot merge manifests; the next start reads each", extra={"why": str(error)})

    def drop(self, backend: OutputBackend) -> None:
        """Remove all merged manifests, of all shards."""
        for name in backend.names(_FOLDER):
            backend.remove(name)

    def _small_parts(self) -> list[Part]:
        """Return the small parts of results of this shard that are not covered."""
        sizes = self._parts.sizes
        parts = (part for part in self._parts.parts("results") if part.shard == self._shard)
        return [part for part in parts if sizes[part] <= SMALL_BYTES and part not in self.covered]

    def _add(self, index: Index, lines: list[bytes]) -> None:
        try:
            header = json.loads(lines[0])
            part = part_of(header["part"])
            if part is None or part in self.covered or self._parts.sizes.get(part) != header["bytes"]:
                return
            record_keys = list(read_manifest(lines, {"part": part.key, "bytes": header["bytes"]}))
        except (ManifestError, ValueError, LookupError, TypeError):
            return  # the part is read by its own manifest
        self._parts.add_keys(index, part, record_keys)
        self.covered.add(part)


def _manifests(data: bytes) -> Iterator[list[bytes]]:
    """Yield the lines of each manifest; only the first line of a manifest is an object."""
    lines: list[bytes] = []
    for line in data.splitlines(keepends=True):
        if line.startswith(b"{") and lines:
            yield lines
            lines = []
        lines.append(line)
    if lines:
        yield lines


def _name(number: int, shard: Shard) -> str:
    return f"{_FOLDER}/{number:06d}{shard.suffix}.jsonl"
