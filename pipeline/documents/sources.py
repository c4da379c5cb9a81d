"""The sources of documents: an input as its listing sees it, and the counts of the listing.

Data only: stores/local.py and buckets.py list each kind.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.documents.patterns import PathFilter
from pipeline.records import LatestRecord
from pipeline.stores import OutageRetry, Source, StoredFile

if TYPE_CHECKING:
    from pipeline.config import InputConfig

Files = Callable[[Callable[[str], None]], Iterator[StoredFile]]

_WILDCARD = re.compile(r"[*?\[]")
_MAX_EXTENSIONS = 200


@dataclass(slots=True)
class ListingCounts:
    """The counts of the listing so far; only the reader changes them.

    `listed` entries were yielded, from `files` files; `ignored` files are counted by extension, `(none)` without one,
    `(hidden)` and `(underscore)` by the first character of a name, `(excluded)` and `(not included)` by the settings,
    each with ` folder` for a folder that was not entered, `(symlink)` for dangling links or links out of the input,
    `(special)` for fifos, sockets and devices. `streamed` files had to be read to their end to be listed, by each shard
    of a run. `on_complete` is called with the id of each container that was read to its end. `latest_record` returns
    the last line of an id in the output; `look_up` is called with the ids that it will soon be called for.
    """

    files: int = 0
    streamed: int = 0
    listed: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    on_complete: Callable[[str], None] = lambda _: None
    latest_record: Callable[[str], LatestRecord | None] = lambda _: None
    look_up: Callable[[Iterable[str]], object] = lambda _: None

    def ignore(self, kind: str) -> None:
        """Count one skipped file of this kind."""
        room = kind in self.ignored or len(self.ignored) < _MAX_EXTENSIONS
        self.ignored[kind if room else "(other)"] += 1


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """One input: `files` lists it and reports the kind of each skipped file, `open` opens the listed version of a file.

    `newest` opens the current version, for a store whose files may be replaced meanwhile. The prefixes are prepended
    to ids and uris. `reads`: the state shared by all reads, None where no read waits for an outage.
    `read_all` returns the bytes of a file without a stream, None when it has more bytes than the limit. `find_current`
    returns the present version of a file that was listed before, None for a deleted file; for a store it sends a
    request only if the flag is set.
    """

    files: Files
    open: Callable[[StoredFile], BinaryIO]
    newest: Callable[[StoredFile], BinaryIO]
    path_filter: PathFilter
    id_prefix: str
    uri_prefix: str
    reads: Source | None = None
    buffer_bytes: int = 1 << 18
    find_current: Callable[[StoredFile, bool], StoredFile | None] = lambda file, _: file
    read_all: Callable[[StoredFile, int], bytes | None] | None = None

    def open_listed(self, file: StoredFile) -> BinaryIO:
        """Open the listed version of a file, with reads that survive an outage of its store."""
        return self._open(partial(self.open, file), file)

    def open_newest(self, file: StoredFile) -> BinaryIO:
        """Open the current version of a file in the same way."""
        return self._open(partial(self.newest, file), file)

    def read_listed(self, file: StoredFile, limit_bytes: int) -> bytes | None:
        """Read all of the listed file with `read_all`, which must not be None; repeat it after an outage."""
        assert self.read_all is not None
        if self.reads is None:
            return self.read_all(file, limit_bytes)
        return self.reads.read(partial(self.read_all, file, limit_bytes), partial(self.open, file), key=file.path)

    def _open(self, opener: Callable[[], BinaryIO], file: StoredFile) -> BinaryIO:
        if self.reads is None:
            return opener()
        return self.reads.open(opener, key=file.path, buffer_bytes=self.buffer_bytes)


@dataclass(frozen=True, slots=True)
class ListingPlan:
    """The common settings of all inputs of a run; `output` is a folder, or the address of an object store's prefix."""

    config: InputConfig
    output: Path | str | None
    counts: ListingCounts
    clock: Callable[[], float]
    outage_retry: OutageRetry | None = None

    def reads_of(self, name: str, renew: Callable[[], object] = lambda: None) -> Source | None:
        """Return the state shared by the reads of one input; None where no read waits for an outage."""
        return None if self.outage_retry is None else Source(name, self.outage_retry, renew)


def fixed_parts(parts: Sequence[str]) -> int:
    """Return the number of parts of a path before the first one with a wildcard; all of them without any."""
    return next((number for number, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
