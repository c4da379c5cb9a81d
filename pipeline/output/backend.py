"""The interfaces of an output in a folder or a prefix of a bucket: one to read it, one to write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from pipeline.output.index import Index
from pipeline.output.record_keys import Kind, RecordKey, Records
from pipeline.output.window_lines import WindowFiles


class ReadableOutput(Protocol):
    """One output for readers: at any time, without a lock, also while a run writes it.

    All methods raise OutputError when the output cannot be read, and must be called by the main thread.
    """

    @property
    def where(self) -> str:
        """The folder or the address, for messages."""

    def is_in_use(self) -> bool:
        """Return True while a run, of any shard, holds a lock of this output; it needs no lock itself."""

    def read(self) -> Index:
        """Index all records without changing anything; an empty index for a new output."""

    def records(self, kind: Kind, *, since: int = 0) -> Records:
        """Yield every valid line of a kind with its key, of all shards; for one document, the later line counts.

        `since`: only lines of this shard from that run on are needed; these come first, others may be skipped.
        """

    def files(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of the small files of a folder, sorted by name."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files of a folder, `folder/name`, without reading them."""

    def content(self, name: str) -> bytes | None:
        """Return the content of a small file; None when it does not exist."""


class OutputBackend(ReadableOutput, Protocol):
    """One output for the run that writes it, as one shard or without shards.

    Call order: `lock`, `read`, `start`, then `append` and `sync_due`; `sync` ends the appending, and `tidy`, `settle`
    and `rewrite` may follow; `close` in any case. Methods that need `start` raise InternalError before it. `create`,
    `replace` and `remove` need no other call, and raise TryLaterError once the lock is lost. All methods raise
    OutputError when the output cannot be written; the main thread calls all of them except the tasks of `duties`.
    """

    @property
    def is_full(self) -> bool:
        """True while appended records wait to be stored, and no more should be appended."""

    @property
    def written(self) -> tuple[str, ...]:
        """The names, relative to `where`, of the files or prefixes of this run's records: results, then errors."""

    def unwritten(self, kind: Kind) -> int:
        """Return the number of appended records that would be lost with this process."""

    def lock(
        self, run_id: str, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]
    ) -> None:
        """Lock the output; TryLaterError when another run holds it for longer than `lock_wait_s`."""

    def start(self, index: Index, *, clock: Callable[[], float]) -> None:
        """Repair the damage of a killed run, and open the output for records."""

    def append(self, line: bytes, key: RecordKey) -> None:
        """Append one record's line, which ends in LF."""

    def append_results(self, records: Sequence[tuple[bytes, RecordKey]]) -> bool:
        """Append the lines of results at once; return False, with none appended, where each needs its own `append`."""

    def sync_due(self, now: float) -> None:
        """Start to store records that have waited long enough; never block."""

    def sync(self) -> None:
        """Make every record durable and end the appending; a second call does nothing."""

    def tidy(self, index: Index) -> None:
        """Remove errors that a later record of the same document replaces."""

    def settle(self, index: Index) -> None:
        """Prepare a faster next start at the end of a run, or log how to get one."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file and return True; return False when the name exists, without changing that file."""

    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Write or replace a whole file atomically; readers see the old content until all data is stored."""

    def remove(self, name: str) -> bool:
        """Delete a file; return True when it existed."""

    def rewrite(self, kind: Kind, choose: Callable[[Records], Records]) -> None:
        """Replace the records of a kind by those that `choose` returns; it receives all of them, in several calls.

        Each chunk keeps a file or parts of its own, so that the next run of the chunk reads no others; all other
        records are merged. It needs the lock of the whole output, and `sync` before. A kill at any time loses no chosen
        line; replaced lines may remain beside them.
        """

    def windows(self, *, clock: Callable[[], float]) -> WindowFiles:
        """Return the stream of windows, which works under the lock; nothing is accessed yet."""

    def duties(self) -> Mapping[str, Callable[[], None]]:
        """Return the tasks to run in threads from `start` to `close`, by thread name; each ends soon after `close`."""

    def close(self) -> None:
        """Store open records as far as possible, and release the lock."""
