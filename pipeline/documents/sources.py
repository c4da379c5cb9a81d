"""The sources of documents: an input as its listing sees it, and the counts of the listing.

Data only: stores/local.py and buckets.py list each kind.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.documents.patterns import PathFilter
from pipeline.stores import OutageRetry, Source, StoredFile

if TYPE_CHECKING:
    from pipeline.config import InputConfig

Files = Callable[[Callable[[str], None]], Iterator[StoredFile]]

_WILDCARD = re.compile(r"[*?\[]")
_MAX_EXTENSIONS = 200


@dataclass(slots=True)
class ListingCounts:
    """The counts of the listing so far; only the reader writes them.

    `listed` entries were yielded, from `files` files; `ignored` files are counted by extension, `(none)` without one,
    `(hidden)` and `(underscore)` by the first character of a name, `(excluded)` and `(not included)` by the settings,
    each with ` folder` for a folder that was not entered, `(symlink)` for dangling links or links out of the input,
    `(special)` for fifos, sockets and devices. `streamed` files had to be read to their end to be listed, by each shard
    of a run. `whole` is called with the id of each container that was read to its end. `version_of` returns the version
    of an id's document that has a result.
    """

    files: int = 0
    streamed: int = 0
    listed: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    whole: Callable[[str], None] = lambda _: None
    version_of: Callable[[str], str | None] = lambda _: None

    def ignore(self, kind: str) -> None:
        """Count one skipped file of this kind."""
        room = kind in self.ignored or len(self.ignored) < _MAX_EXTENSIONS
        self.ignored[kind if room else "(other)"] += 1


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """One input: `files` lists it and reports the kind of each skipped file, `open` opens the listed version of a file.

    `newest` opens the current version, for a store whose files may be replaced meanwhile. The prefixes are prepended
    to ids and uris. `reads`: the state shared by all reads, None where no read waits for an outage. `whole` reads all
    of a file up to a number of bytes, None when it has more; it spares the buffers of a stream. `again` returns the
    present version of a file that was listed earlier, None when it is gone; a store checks only if the flag is set.
    """

    files: Files
    open: Callable[[StoredFile], BinaryIO]
    newest: Callable[[StoredFile], BinaryIO]
    chosen: PathFilter
    id_prefix: str
    uri_prefix: str
    reads: Source | None = None
    buffer_bytes: int = 1 << 18
    again: Callable[[StoredFile, bool], StoredFile | None] = lambda file, _: file
    whole: Callable[[StoredFile, int], bytes | None] | None = None

    def reader(self, file: StoredFile) -> Callable[[int], bytes | None] | None:
        """Return a function that reads the listed file at once, up to a limit; None where files are only opened."""
        whole = self.whole
        if whole is None:
            return None
        if self.reads is None:
            return partial(whole, file)
        return partial(_read, whole, file, self.reads, partial(self.open, file))

    def opener(self, file: StoredFile, open: Callable[[StoredFile], BinaryIO]) -> Callable[[], BinaryIO]:
        """Return a function that opens the file by `open`, with reads that survive an outage of its store."""
        once = partial(open, file)
        if self.reads is None:
            return once
        return partial(self.reads.open, once, key=file.path, buffer_bytes=self.buffer_bytes)


def _read(
    whole: Callable[[StoredFile, int], bytes | None],
    file: StoredFile,
    reads: Source,
    opener: Callable[[], BinaryIO],
    limit_bytes: int,
) -> bytes | None:
    return reads.read(partial(whole, file, limit_bytes), opener, key=file.path)


@dataclass(frozen=True, slots=True)
class ListingPlan:
    """The common settings of all inputs of a run; `output` is a folder, or the address of an object store's prefix."""

    config: InputConfig
    output: Path | str | None
    counts: ListingCounts
    clock: Callable[[], float]
    outage_retry: OutageRetry | None = None

    def reads_of(self, where: str, renew: Callable[[], object] = lambda: None) -> Source | None:
        """Return the state shared by the reads of one input; None where no read waits for an outage."""
        return None if self.outage_retry is None else Source(where, self.outage_retry, renew)


def fixed_parts(parts: Sequence[str]) -> int:
    """Return the number of parts of a path before the first one with a wildcard; all of them without any."""
    return next((at for at, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
