"""Results and errors of a run, in a folder or an object store: a document is done when its record is written here.

Only the main thread may use it (except the index and the background tasks), and it must never ignore a failed write.

    backend.py  the interface of a folder or bucket; local.py and remote.py implement it
    index.py    the done, met and failed documents; record_keys.py: the fields of a line that it needs
    runs.py     the summaries of the runs; run_index.py: the facts about earlier runs that a run needs
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from pipeline.config import OutputConfig, mask_url
from pipeline.errors import ConfigError, OutputError
from pipeline.output.backend import OutputBackend, ReadableOutput
from pipeline.output.conditions import check_conditions
from pipeline.output.index import Index
from pipeline.output.local import LocalBackend
from pipeline.output.outage import Outage, no_outage
from pipeline.output.part_writer import Limits
from pipeline.output.patient import PatientBackend
from pipeline.output.places import folder_of, left_out
from pipeline.output.record_keys import RecordKey
from pipeline.output.record_writing import write_all
from pipeline.output.remote import RemoteBackend
from pipeline.output.run_index import RunIndex
from pipeline.output.runs import identity, read_runs, write_run
from pipeline.output.window_lines import WindowLines
from pipeline.records import Failure, Result, Stamp
from pipeline.shards import WHOLE, Shard
from pipeline.stores import RemoteStore

__all__ = [
    "Index",
    "Output",
    "OutputBackend",
    "ReadableOutput",
    "RunIndex",
    "backend_of",
    "check_store",
    "folder_of",
    "left_out",
    "read_runs",
    "scan",
]

RETRY_FOR_S = 5.0
"""Seconds of retries of one request by the store's client: well below the 20 s after which a lease is taken over."""

_log = logging.getLogger(__name__)
_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Output:
    """The output of one run: locked, repaired and indexed. The lock is held until `close` or the end of `with`.

    `index`: the state of all documents. `stamp`: run number and id of new records. `backend`: the folder or bucket.
    `run_index`: the index of earlier runs. `shard`: the shard of this run. `windows`: the answers about parts of
    documents; None when the output was opened without them.
    """

    def __init__(
        self,
        backend: OutputBackend,
        index: Index,
        *,
        stamp: Stamp,
        run_index: RunIndex,
        outage: Outage | None = None,
        windows: WindowLines | None = None,
    ) -> None:
        """Use `open`, which locks and checks the output."""
        self.backend = backend
        self.index = index
        self.stamp = stamp
        self.run_index = run_index
        self.shard = run_index.shard
        self.windows = windows
        self._outage = outage or no_outage(backend.where)

    @classmethod
    def open(
        cls,
        config: OutputConfig,
        *,
        agent: str | None,
        shard: Shard | None,
        lock_wait_s: float,
        run_id: str,
        wait: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
        max_outage_s: float = 0.0,
        windows: bool = False,
    ) -> Output:
        """Lock and index an output for writing; `agent` None: to change existing records only.

        `max_outage_s`: how long each request waits for the end of an outage of the store or the file system. `windows`:
        open windows.jsonl too, which is needed for split documents and for changes of old records. ConfigError: an
        invalid address or run id, or another agent's output. OutputError: it cannot be written. TryLaterError: another
        run holds it for longer than `lock_wait_s`, or `wait` returned True.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise ConfigError(f"run id: got {run_id!r}, need 1 to 128 of A-Z a-z 0-9 . _ -")
        shard = shard or WHOLE
        outage = Outage(mask_url(config.uri), max_outage_s=max_outage_s, wait=wait, clock=clock)
        backend = backend_of(config, shard=shard, outage=outage if max_outage_s else None)
        backend.lock(run_id, lock_wait_s=lock_wait_s, wait=wait, clock=clock)
        index = None
        try:
            index = backend.read()
            if agent is not None:
                check_agent(backend.where, index.agents, agent)
            parts = WindowLines.loaded(backend.windows(clock=clock), index, shard, outage) if windows else None
            stamp = Stamp(index.highest_run + 1, run_id, shard.label)
            run_index = RunIndex(backend, shard)
            run_index.check(index.highest_run)
            backend.start(index, clock=clock)
            if parts is not None:
                parts.start(stamp)
            index.release_memory()
        except BaseException:  # an interrupt too must release the lock
            if index is not None:
                index.close()
            backend.close()
            raise
        return cls(backend, index, stamp=stamp, run_index=run_index, outage=outage, windows=parts)

    @property
    def where(self) -> str:
        """The folder or the address, for messages."""
        return self.backend.where

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files or prefixes of this run's records: results, then errors."""
        return self.backend.written

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open_windows(self) -> None:
        """Open windows.jsonl if it is not open, after a change of the configuration during the run."""
        if self.windows is None:
            stream = self.backend.windows(clock=time.monotonic)
            self.windows = WindowLines(stream, self.index, shard=self.shard, outage=self._outage)
            self.windows.load()
            self.windows.start(self.stamp)

    def write_all(self, outcomes: Sequence[Result | Failure]) -> Iterator[RecordKey]:
        """Write the outcomes' lines in order, and yield the key of each one that is written and indexed.

        OutputError ends the run; the outcome that was not written is not indexed, nor are those after it.
        """
        for key in write_all(outcomes, self.stamp, backend=self.backend, index=self.index):
            if self.windows is not None and key.reason is None:
                self.windows.forget(key.id)
            yield key

    def write(self, outcome: Result | Failure) -> None:
        """Write the outcome's line, then index it; errors as for `write_all`."""
        for _ in self.write_all([outcome]):
            pass

    def sync_due(self, now: float) -> None:
        """Make records durable that have waited long enough; the caller repeats this twice a second."""
        self.backend.sync_due(now)
        if self.windows is not None:
            self.windows.sync_due(now)

    def finish(self, *, settle: bool = True) -> None:
        """Stop writing: make all records durable, remove outdated errors, and write a checkpoint for the next start.

        `settle` False: without the checkpoint, whose time grows with the size of the output. The lock and the index
        remain, for the report and `write_run`. A second call does nothing.
        """
        self.backend.sync()
        self.backend.tidy(self.index)
        if self.windows is not None:
            self.windows.finish()
        if settle:
            try:
                self.backend.settle(self.index)
            except OutputError as error:  # a checkpoint only saves time: the run is complete without it
                _log.warning("no checkpoint was written, so the next start reads all records: %s", error)

    def write_run(self, summary: Mapping[str, Any]) -> str:
        """Write the run's summary, last and once (runs.py), and add it to the index of runs; return the file's name."""
        name = write_run(self.backend, summary, stamp=self.stamp, suffix=self.shard.suffix)
        try:
            self.run_index.write(self.backend, {**summary, **identity(self.stamp)}, is_current=self._is_current)
        except OutputError as error:  # the next run reads the summary itself; the report lacks this run until then
            _log.warning("the index of runs was not written; `pipeline report` shows this run: %s", error)
        return name

    def _is_current(self, document_id: str, run: int) -> bool:
        """Return True when the current result of a document is the one that this run number wrote."""
        entry = self.index.latest(document_id)
        return entry is not None and not entry.failed and entry.run == run

    @property
    def unwritten(self) -> tuple[int, int]:
        """The numbers of results and errors that are not durable yet and would be lost with this process."""
        return self.backend.unwritten("results"), self.backend.unwritten("errors")

    @property
    def is_full(self) -> bool:
        """True while no more records should be written, because earlier ones still wait to be stored."""
        return self.backend.is_full or (self.windows is not None and self.windows.is_full)

    @property
    def trouble(self) -> str | None:
        """The reason why records wait for the store or the file system, as text for the user; None otherwise."""
        return self._outage.message

    def wait_by(self, wait: Callable[[float], bool]) -> None:
        """Set the main thread's wait in an outage; `wait(seconds)` returns True when the wait must end."""
        self._outage.wait = wait

    def runs(self) -> list[dict[str, Any]]:
        """Return the summaries of completed runs of all shards, newest last; only for commands, as they may be many."""
        return read_runs(self.backend)

    def close(self) -> None:
        """Close everything and release the lock; written records are kept, also without `finish`."""
        try:
            if self.windows is not None:
                self.windows.close()
        finally:
            try:
                self.backend.close()
            finally:
                self.index.close()


def backend_of(config: OutputConfig, *, shard: Shard = WHOLE, outage: Outage | None = None) -> OutputBackend:
    """Return the backend of an output, without accessing it; ConfigError for an invalid address.

    With `outage` requests are repeated in an outage, else the first error is raised.
    """
    folder = folder_of(config.uri)
    if folder is not None:
        local = LocalBackend(folder, shard=shard)
        return local if outage is None else PatientBackend(local, outage)
    storage = config.storage
    if outage is not None:
        # the lease is checked at each repetition of a request, and not at a retry by the store's client
        retry_for_s = storage.get("retry_for_s", RETRY_FOR_S)
        storage = {
            **storage,
            "retry_for_s": min(retry_for_s, RETRY_FOR_S) if isinstance(retry_for_s, int | float) else retry_for_s,
        }
    limits = Limits(config.part_seconds, config.part_bytes)
    return RemoteBackend(RemoteStore.open(config.uri, storage=storage), limits, shard=shard, outage=outage)


def scan(config: OutputConfig, *, shard: Shard = WHOLE) -> Index:
    """Index an output for reading: without a lock and without repairs; it may lag behind an active run."""
    return backend_of(config, shard=shard).read()


def check_store(config: OutputConfig) -> None:
    """Check that an output in an object store can be locked and written; a folder is not checked.

    ConfigError for a wrong setting or an unsuitable store, OutputError when the store cannot be reached.
    """
    if folder_of(config.uri) is None:
        check_conditions(RemoteStore.open(config.uri, storage=config.storage))


def check_agent(where: str, agents: Iterable[str], agent: str) -> None:
    """Raise ConfigError when an output holds records of another agent."""
    other_agents = sorted(set(agents) - {agent})
    if other_agents:
        raise ConfigError(
            f"{where}: got agent {agent!r}, but this output holds records of {', '.join(map(repr, other_agents))};"
            " need the same agent or another output.uri"
        )
