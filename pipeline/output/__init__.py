"""Results and errors of a run, in a folder or an object store: what is written here is done, and nothing else is.

It must be touched by the main thread only (the index and the duties aside), and must never pass over a write that
failed.

    backend.py   what an output is written to, as it is seen from here; folder.py and bucket.py are two
    index.py    what is done, seen and failed; record_keys.py: what it needs of a line
    runs.py     the summaries of the runs
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.config import AppConfig, OutputConfig
from pipeline.config.redaction import SECRETS
from pipeline.errors import ConfigError, InternalError, TryLaterError
from pipeline.output.backend import OutputBackend
from pipeline.output.conditions import check_conditions
from pipeline.output.index import Index
from pipeline.output.local import LocalBackend
from pipeline.output.part_writer import Limits
from pipeline.output.record_keys import head_of_outcome
from pipeline.output.remote import RemoteBackend
from pipeline.output.runs import read_runs, write_run
from pipeline.records import Failure, Result, Stamp, redacted, to_line
from pipeline.shards import WHOLE, Shard
from pipeline.stores import REMOTE_SCHEMES, RemoteStore, is_remote, lacks_slashes, service_of

__all__ = [
    "Index",
    "Output",
    "OutputBackend",
    "backend_of",
    "check_store",
    "folder_of",
    "left_out",
    "read_runs",
    "scan",
    "tidy",
]

_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Output:
    """The output of one run, locked, mended and indexed. `with` it, or `close` it: the lock is held until then.

    `index`: what is done. `stamp`: what this run's records carry. `backend`: where they go.
    """

    def __init__(self, backend: OutputBackend, index: Index, *, stamp: Stamp, shard: Shard) -> None:
        """For `open` only, which has checked everything."""
        self.backend = backend
        self.index = index
        self.stamp = stamp
        self._shard = shard

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
    ) -> Output:
        """The output, ready to be written to; `agent` None: by nobody's question, for what changes records only.

        ConfigError: no address of an output, a run id that is no file name, another agent's output. OutputError: it
        cannot be written. TryLaterError: another run holds it for longer than `lock_wait_s`, or `wait` said stop.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise ConfigError(f"run id: got {run_id!r}, need 1 to 128 of A-Z a-z 0-9 . _ -")
        shard = shard or WHOLE
        backend = backend_of(config, shard=shard)
        backend.lock(run_id, lock_wait_s=lock_wait_s, wait=wait, clock=clock)
        index = None
        try:
            index = backend.read()
            if agent is not None:
                _check_agent(backend, index, agent)
            stamp = Stamp(index.highest_run + 1, run_id, shard.label)
            backend.start(index, clock=clock)
            index.slim()
        except BaseException:
            if index is not None:
                index.close()
            backend.close()
            raise
        return cls(backend, index, stamp=stamp, shard=shard)

    @property
    def where(self) -> str:
        """The folder or the address, for people."""
        return self.backend.where

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what this run's records are written to: results, then errors."""
        return self.backend.written

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, outcome: Result | Failure) -> None:
        """Writes the outcome's line, then notes it in the index. OutputError ends the run: nothing was noted then."""
        try:
            line = to_line(redacted(outcome, SECRETS.redact_values), self.stamp)
        except ValueError as exc:
            raise InternalError(f"{outcome.id!r}: the record is no JSON of UTF-8: {exc}") from exc
        head = head_of_outcome(outcome, self.stamp)
        self.backend.append(line, head)
        self.index.record(head)

    def sync_due(self, now: float) -> None:
        """Makes the records durable that have waited long enough; to be called twice a second."""
        self.backend.sync_due(now)

    def finish(self) -> None:
        """Makes every record durable, takes no more, and leaves the errors that stand, and what the next start needs.

        The lock and the index stay, for the report and `write_run`. A second call does nothing.
        """
        self.backend.sync()
        self.backend.tidy(self.index)
        self.backend.settle(self.index)

    def write_run(self, summary: Mapping[str, Any]) -> str:
        """The name of the run's file, written last and never changed (runs.py)."""
        return write_run(self.backend, summary, stamp=self.stamp, suffix=self._shard.suffix)

    @property
    def unwritten(self) -> tuple[int, int]:
        """Results and errors that were written here and are not safe yet: if the run ends so, they were not done."""
        return self.backend.unwritten("results"), self.backend.unwritten("errors")

    @property
    def is_full(self) -> bool:
        """True while no more should be written, because the place is slow to take what it has got."""
        return self.backend.is_full

    def runs(self) -> list[dict[str, Any]]:
        """The summaries of the runs of all shards that came to their end, newest last."""
        return read_runs(self.backend)

    def close(self) -> None:
        """Closes what is open and lets the next run in; what was written stays, also when `finish` was not reached."""
        try:
            self.backend.close()
        finally:
            self.index.close()


def backend_of(config: OutputConfig, *, shard: Shard = WHOLE) -> OutputBackend:
    """The place of an output, not looked at yet; ConfigError for an address that is none."""
    folder = folder_of(config.uri)
    if folder is not None:
        return LocalBackend(folder, shard=shard)
    limits = Limits(config.part_seconds, config.part_bytes)
    return RemoteBackend(RemoteStore.open(config.uri, storage=config.storage), limits, shard=shard)


def scan(config: OutputConfig, *, shard: Shard = WHOLE) -> Index:
    """The index of an output for reading: takes no lock, mends nothing, may be behind a run that goes on."""
    return backend_of(config, shard=shard).read()


def check_store(config: OutputConfig) -> None:
    """Check that an output in an object store can be locked and written; nothing for a folder.

    ConfigError for what a person has to change, OutputError when the store cannot be reached.
    """
    if folder_of(config.uri) is None:
        check_conditions(RemoteStore.open(config.uri, storage=config.storage))


def tidy(config: OutputConfig, *, run_id: str, wait: Callable[[float], bool]) -> None:
    """Leaves only the errors that stand, whatever shards have left them; nothing while another run is at work.

    A shard may not touch what a run without shards, or with another number of them, has written: its sisters own some
    of it. The last of them to end can.
    """
    with suppress(TryLaterError):
        Output.open(config, agent=None, shard=None, lock_wait_s=0, run_id=run_id, wait=wait).close()


def folder_of(uri: str) -> Path | None:
    """The folder of a path or a file:// address, None for an object store's; ConfigError for anything else."""
    if is_remote(uri):
        return None
    if "://" not in uri:
        if not uri:
            raise ConfigError("output.uri: got an empty text, need a folder")
        if lacks_slashes(uri):
            scheme = uri.partition(":")[0]
            raise ConfigError(f"output.uri: got {uri!r}, need {scheme}://…, or ./{uri} for a folder of that name")
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme != "file":
        known = ", ".join(f"{scheme}://" for scheme in REMOTE_SCHEMES)
        raise ConfigError(f"output.uri: got {parts.scheme}://…, need a folder, file:// or one of {known}")
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ConfigError(f"output.uri: got {uri!r}, need file:///path")
    return Path(unquote(parts.path))


def left_out(app: AppConfig) -> Path | str | None:
    """What the input leaves out as the output: its folder, or its address.

    None: the output lies in another service than any object that the input could name.
    """
    output = app.output
    folder = folder_of(output.uri)
    if folder is not None or service_of(output.uri, output.storage) != service_of(output.uri, app.input.storage):
        return folder
    return output.uri


def _check_agent(backend: OutputBackend, index: Index, agent: str) -> None:
    others = sorted(index.agents - {agent})
    if others:
        raise ConfigError(
            f"{backend.where}: got agent {agent!r}, but this output holds records of {', '.join(map(repr, others))};"
            " need the same agent or another output.uri"
        )
