"""Where documents come from: what an input is to those who list it, and what is counted on the way.

Data only: local.py of the stores and buckets.py say how each kind is listed.
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
from pipeline.stores import Patience, Source, StoredFile

if TYPE_CHECKING:
    from pipeline.config import InputConfig

Files = Callable[[Callable[[str], None]], Iterator[StoredFile]]

_WILDCARD = re.compile(r"[*?\[]")
_MAX_EXTENSIONS = 200


@dataclass(slots=True)
class ListingCounts:
    """What the reader has seen so far; it alone writes here.

    `listed` entries were yielded, from `files` files; `ignored` files count by extension, `(none)` without one,
    `(symlink)` for links that lead nowhere or outside, `(special)` for fifos, sockets and devices. `streamed` files had
    to be read from end to end to be listed, by each shard of a run. `whole` is told the id of each file of many that
    was read to its end.
    """

    files: int = 0
    streamed: int = 0
    listed: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    whole: Callable[[str], None] = lambda _: None

    def ignore(self, kind: str) -> None:
        """Nothing; one more file of this kind was passed over."""
        room = kind in self.ignored or len(self.ignored) < _MAX_EXTENSIONS
        self.ignored[kind if room else "(other)"] += 1


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """One input: `files` lists it and tells of each kind passed over, `open` opens one of its files as it was listed.

    `newest` opens it as it is now, for a store whose files may be replaced meanwhile. The prefixes go
    before ids and uris. `reads`: what all of its reads share, None where nothing is waited for.
    """

    files: Files
    open: Callable[[StoredFile], BinaryIO]
    newest: Callable[[StoredFile], BinaryIO]
    chosen: PathFilter
    id_prefix: str
    uri_prefix: str
    reads: Source | None = None
    buffer_bytes: int = 1 << 18

    def opener(self, file: StoredFile, open: Callable[[StoredFile], BinaryIO]) -> Callable[[], BinaryIO]:
        """Return what opens the file in this way, for reads that outlive the trouble of its store."""
        once = partial(open, file)
        if self.reads is None:
            return once
        return partial(self.reads.open, once, key=file.path, buffer_bytes=self.buffer_bytes)


@dataclass(frozen=True, slots=True)
class ListingPlan:
    """What is the same for all inputs of a run; `output` is a folder, or the address of an object store's prefix."""

    config: InputConfig
    output: Path | str | None
    counts: ListingCounts
    clock: Callable[[], float]
    patience: Patience | None = None

    def reads_of(self, where: str, renew: Callable[[], object] = lambda: None) -> Source | None:
        """Return what the reads of one input share; None where trouble is not waited for."""
        return None if self.patience is None else Source(where, self.patience, renew)


def fixed_parts(parts: Sequence[str]) -> int:
    """How many parts of a path come before the first that has a wildcard; all of them when none has."""
    return next((at for at, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
