"""What an output is written to, as the output sees it: a folder, or a prefix of a bucket; it does nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from pipeline.output.index import Index
from pipeline.output.record_keys import Kind, RecordKey


class OutputBackend(Protocol):
    """The place of one output, as one shard (or the whole) of it reads and writes it.

    In this order: `lock`, `read`, `start`, then `append` and `sync_due`; `sync` ends the writing; `tidy` and `create`
    may follow; `close`, whatever happened. Reading alone needs no lock: `read`, `files`, `records`, `replace`. All
    methods raise OutputError when the place does not answer or take what is given, and all but `duties` belong to the
    main thread.
    """

    @property
    def where(self) -> str:
        """The place, for people."""

    @property
    def is_full(self) -> bool:
        """True while records wait for the place, and no more should come."""

    @property
    def written(self) -> tuple[str, ...]:
        """The names, relative to `where`, of what this run writes its records to: results, then errors."""

    def unwritten(self, kind: Kind) -> int:
        """Records that were appended and would be lost with this process; they are not done."""

    def lock(
        self, run_id: str, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]
    ) -> None:
        """Makes the place this run's; TryLaterError when another run holds it for longer than `lock_wait_s`."""

    def read(self) -> Index:
        """What is there, without changing anything; an empty index when nothing is."""

    def start(self, index: Index, *, clock: Callable[[], float]) -> None:
        """Mends what a killed run has left, and is ready for records."""

    def append(self, line: bytes, head: RecordKey) -> None:
        """Takes one record's line, which ends in LF."""

    def sync_due(self, now: float) -> None:
        """Sees to records that have waited long enough; never waits itself."""

    def sync(self) -> None:
        """Makes every record durable and takes no more; a second call does nothing."""

    def tidy(self, index: Index) -> None:
        """Leaves only the errors that stand."""

    def settle(self, index: Index) -> None:
        """Does or says, at the end of a run, what makes the next start faster."""

    def files(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """The small files of a folder, name and content, by name."""

    def content(self, name: str) -> bytes | None:
        """The content of a small file; None when there is none of this name."""

    def create(self, name: str, data: bytes) -> bool:
        """True when the file is written now; False when there is one of this name, which stays as it is."""

    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Writes a file as a whole, whatever was there; a reader sees the old one until all of the data is there."""

    def remove(self, name: str) -> bool:
        """True when there was such a file; it is gone now."""

    def records(self, kind: Kind) -> Iterator[tuple[bytes, RecordKey]]:
        """Every whole line of a kind, of all shards, with its head, in the order in which the later one counts."""

    def rewrite(self, kind: Kind, lines: Iterable[tuple[bytes, RecordKey]]) -> None:
        """Puts these lines in the place of all records of a kind; needs the lock of the whole, and `sync` before.

        A kill at any instant leaves every one of them there, some perhaps beside what they replace.
        """

    def duties(self) -> Mapping[str, Callable[[], None]]:
        """What threads of their own must do from `start` to `close`, by the thread's name; each returns soon after."""

    def close(self) -> None:
        """Writes what is still open, as far as that goes, and lets the next run in."""
