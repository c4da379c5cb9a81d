"""Results and errors of a run in a local folder: what is written here counts as done, and nothing else does.

It must be touched by the main thread only (the index aside), and must never pass over a write that failed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError, InternalError, OutputError
from pipeline.output.index import Index, is_sibling, record_files
from pipeline.output.lines import LineFile, mend, rewrite, sync_folder
from pipeline.output.lock import Lock, acquire, try_gate
from pipeline.output.runs import read_runs, write_run
from pipeline.records import Failure, Known, Result, Stamp, to_line
from pipeline.shards import WHOLE, Shard

__all__ = ["Index", "Output", "folder_of", "read_runs", "scan"]

SYNC_AFTER_S = 0.4
"""With a main thread that comes by every half second, a record is durable within a second."""

_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Output:
    """The output of one run, locked, mended and indexed. `with` it, or `close` it: the lock is held until then.

    `index`: what is done. `stamp`: what this run's records carry. `folder`: where the files are.
    """

    def __init__(self, folder: Path, index: Index, *, lock: Lock, stamp: Stamp, shard: Shard) -> None:
        """For `open` only, which has checked everything."""
        self.folder = folder
        self.index = index
        self.stamp = stamp
        self._lock = lock
        self._shard = shard
        self._own = {kind: f"{kind}{shard.suffix}.jsonl" for kind in ("results", "errors")}
        self._error_lines = index.error_lines
        self._files: dict[str, LineFile] = {}

    @classmethod
    def open(
        cls,
        uri: str,
        *,
        agent: str,
        shard: Shard | None,
        lock_wait_s: float,
        run_id: str,
        wait: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> Output:
        """The output, ready to be written to.

        ConfigError: not a local folder, a run id that is no file name, another agent's output. OutputError: it cannot
        be written. TryLaterError: another run holds it for longer than `lock_wait_s`, or `wait` said stop.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise ConfigError(f"run id: got {run_id!r}, need 1 to 128 of A-Z a-z 0-9 . _ -")
        folder, shard = _make_folder(folder_of(uri)), shard or WHOLE
        lock = acquire(folder, run_id, shard=shard, lock_wait_s=lock_wait_s, wait=wait, clock=clock)
        index = None
        try:
            index = Index.build(folder, shard=shard)
            _check_agent(folder, index, agent)
            stamp = Stamp(index.highest_run + 1, run_id, shard.label)
            output = cls(folder, index, lock=lock, stamp=stamp, shard=shard)
            output._start(clock)
        except BaseException:
            if index is not None:
                index.close()
            lock.release()
            raise
        return output

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files this run appends to: results, then errors."""
        return tuple(self._own.values())

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, outcome: Result | Failure) -> None:
        """Writes the outcome's line, then notes it in the index. OutputError ends the run: nothing was noted then."""
        try:
            line = to_line(outcome, self.stamp)
        except ValueError as exc:
            raise InternalError(f"{outcome.id!r}: the record is no JSON of UTF-8: {exc}") from exc
        failed = isinstance(outcome, Failure)
        self._files["errors" if failed else "results"].append(line)
        self._error_lines += failed
        self.index.record(outcome.id, _known(outcome, self.stamp), variant=outcome.variant)

    def sync_due(self, now: float) -> None:
        """Makes the records durable that have waited long enough; to be called twice a second."""
        for file in self._files.values():
            if file.unsynced_since is not None and now - file.unsynced_since >= SYNC_AFTER_S:
                file.sync()

    def finish(self) -> None:
        """Makes every record durable, closes the files and writes the errors anew that stand.

        The lock and the index stay, for the report and `write_run`. A second call does nothing.
        """
        self._close_files()
        self._tidy()

    def write_run(self, summary: Mapping[str, Any]) -> Path:
        """The run's file, written last and never changed (runs.py)."""
        return write_run(self.folder, summary, stamp=self.stamp, suffix=self._shard.suffix)

    def runs(self) -> list[dict[str, Any]]:
        """The summaries of the runs of all shards that came to their end, newest last."""
        return read_runs(self.folder)

    def close(self) -> None:
        """Closes what is open and lets the next run in; what was written stays, also when `finish` was not reached."""
        try:
            self._close_files()
        finally:
            self.index.close()
            self._lock.release()

    def _start(self, clock: Callable[[], float]) -> None:
        self._sweep()
        for path, damage in self.index.damage.items():
            if self._is_own(path):
                mend(path, damage)
            elif damage.lines or damage.unfinished:
                self._under_gate(mend, path)
        self._tidy()
        for kind, name in self._own.items():
            self._files[kind] = LineFile(self.folder / name, clock=clock)

    def _sweep(self) -> None:
        """Removes what a killed run had half written beside our files."""
        for name in self._own.values():
            for path in self.folder.glob(f".{name}.*.tmp"):
                path.unlink(missing_ok=True)

    def _is_own(self, path: Path) -> bool:
        """True when no other run can write to the file now: all of them without shards, else our two."""
        return self._shard.count == 0 or path.name in self._own.values()

    def _under_gate(self, change: Callable[[Path], object], path: Path) -> None:
        """Changes a file of another shard count, which our sister shards may want to change, too."""
        gate = try_gate(self.folder)
        if gate is None:
            return  # a sister is at it, or a run is starting; the next start or end does it
        try:
            change(path)
        finally:
            gate.release()

    def _tidy(self) -> None:
        """Leaves only the errors that stand, in every errors file that no other run is writing."""
        standing = self.index.failed_count()
        if standing == self._error_lines:
            return
        for path in record_files(self.folder):
            if path.name.startswith("results") or is_sibling(path, self._shard):
                continue
            if self._is_own(path):
                rewrite(path, self._stands)
            else:
                self._under_gate(lambda other: rewrite(other, self._stands_or_is_not_ours), path)
        self._error_lines = standing

    def _stands(self, line: Mapping[str, Any]) -> bool:
        return self.index.stands(line["id"], line["run"])

    def _stands_or_is_not_ours(self, line: Mapping[str, Any]) -> bool:
        return not self._shard.owns(line["id"]) or self._stands(line)

    def _close_files(self) -> None:
        try:
            for file in self._files.values():
                file.sync()
        finally:
            for file in self._files.values():
                file.close()


def scan(folder: Path, *, shard: Shard | None = None) -> Index:
    """The index of an output for reading: takes no lock, mends nothing, may be behind a run that goes on."""
    return Index.build(folder, shard=shard)


def folder_of(uri: str) -> Path:
    """The folder of a path or a file:// address; ConfigError for anything else."""
    if "://" not in uri:
        if not uri:
            raise ConfigError("output.uri: got an empty text, need a folder")
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise ConfigError(f"output.uri: got {parts.scheme}://…, which is not supported yet; need a folder or file://")
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ConfigError(f"output.uri: got {uri!r}, need file:///path")
    return Path(unquote(parts.path))


def _make_folder(folder: Path) -> Path:
    blocker = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if blocker.exists() and not blocker.is_dir():
        raise ConfigError(f"output.uri: {blocker} is a file, need a folder")
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if is_new:
            sync_folder(folder.parent)
    except OSError as exc:
        raise OutputError(f"{folder}: the output folder cannot be made: {exc.strerror or exc}") from exc
    return folder


def _check_agent(folder: Path, index: Index, agent: str) -> None:
    others = sorted(index.agents - {agent})
    if others:
        raise ConfigError(
            f"{folder}: got agent {agent!r}, but this output holds records of {', '.join(map(repr, others))};"
            " need the same agent or another output.uri"
        )


def _known(outcome: Result | Failure, stamp: Stamp) -> Known:
    reason, runs = (outcome.reason, outcome.runs) if isinstance(outcome, Failure) else (None, 0)
    return Known(
        sha256=outcome.sha256,
        fingerprint=outcome.fingerprint,
        version=outcome.version,
        failed=reason is not None,
        reason=reason,
        runs=runs,
        run=stamp.run,
        run_id=stamp.run_id,
    )
