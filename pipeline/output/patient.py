"""An output in a folder whose file system may be temporarily unavailable: each step is repeated (outage.py).

It must not change a step; the files themselves repeat steps that append (line_file.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from pipeline.output.backend import OutputBackend
from pipeline.output.index import Index
from pipeline.output.outage import Outage
from pipeline.output.record_keys import Kind, RecordKey, Records
from pipeline.output.window_lines import WindowFiles

T = TypeVar("T")


class PatientBackend:
    """An OutputBackend (backend.py) that repeats the steps of another one in an outage; for the main thread."""

    def __init__(self, inner: OutputBackend, outage: Outage) -> None:
        """Wrap the backend of a folder."""
        self._inner = inner
        self._outage = outage

    def _patiently(self, step: Callable[[], T]) -> T:
        return self._outage.attempt("files", step)

    @property
    def where(self) -> str:
        """The folder."""
        return self._inner.where

    @property
    def is_full(self) -> bool:
        """True in an outage, in which lines are kept in memory."""
        return self._inner.is_full

    @property
    def written(self) -> tuple[str, ...]:
        """The names of the files of this run."""
        return self._inner.written

    def unwritten(self, kind: Kind) -> int:
        """Return the number of lines that are kept in memory."""
        return self._inner.unwritten(kind)

    def lock(
        self, run_id: str, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]
    ) -> None:
        """Lock the folder; the time of an outage comes on top of `lock_wait_s`."""
        self._patiently(lambda: self._inner.lock(run_id, lock_wait_s=lock_wait_s, wait=wait, clock=clock))

    def read(self) -> Index:
        """Index all records."""
        return self._patiently(self._inner.read)

    def start(self, index: Index, *, clock: Callable[[], float]) -> None:
        """Repair and open the files; all of these steps can be repeated."""
        self._patiently(lambda: self._inner.start(index, clock=clock))

    def append(self, line: bytes, key: RecordKey) -> None:
        """Append a line."""
        self._inner.append(line, key)

    def append_results(self, records: Sequence[tuple[bytes, RecordKey]]) -> bool:
        """Append several lines at once, if possible."""
        return self._inner.append_results(records)

    def sync_due(self, now: float) -> None:
        """Sync the due files; a failed sync is repeated after its back-off."""
        self._outage.try_once("records", lambda: self._inner.sync_due(now))

    def sync(self) -> None:
        """Make all lines durable."""
        self._outage.attempt("records", self._inner.sync)

    def tidy(self, index: Index) -> None:
        """Remove outdated errors."""
        self._patiently(lambda: self._inner.tidy(index))

    def settle(self, index: Index) -> None:
        """Write a checkpoint."""
        self._patiently(lambda: self._inner.settle(index))

    def files(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Yield the files of a folder, which are small."""
        yield from self._patiently(lambda: list(self._inner.files(folder)))

    def names(self, folder: str) -> list[str]:
        """Return the names of the files of a folder."""
        return self._patiently(lambda: self._inner.names(folder))

    def is_in_use(self) -> bool:
        """Return True while a run holds a lock."""
        return self._inner.is_in_use()

    def content(self, name: str) -> bytes | None:
        """Return the content of a file."""
        return self._patiently(lambda: self._inner.content(name))

    def create(self, name: str, data: bytes) -> bool:
        """Create a file; an existing one with the same bytes counts as created: a failed step may have written it."""
        return self._patiently(lambda: self._inner.create(name, data) or self._inner.content(name) == data)

    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Replace a file."""
        content = data if isinstance(data, bytes) else b"".join(data)
        self._patiently(lambda: self._inner.replace(name, content))

    def remove(self, name: str) -> bool:
        """Remove a file."""
        return self._patiently(lambda: self._inner.remove(name))

    def records(self, kind: Kind, *, since: int = 0) -> Records:
        """Yield the records; an error while they are read is raised."""
        return self._inner.records(kind, since=since)

    def rewrite(self, kind: Kind, choose: Callable[[Records], Records]) -> None:
        """Replace the records; an error is raised."""
        self._inner.rewrite(kind, choose)

    def windows(self, *, clock: Callable[[], float]) -> WindowFiles:
        """Return the stream of windows, whose steps WindowLines repeats."""
        return self._inner.windows(clock=clock)

    def duties(self) -> Mapping[str, Callable[[], None]]:
        """Return no tasks."""
        return self._inner.duties()

    def close(self) -> None:
        """Close the files and release the lock."""
        self._inner.close()
