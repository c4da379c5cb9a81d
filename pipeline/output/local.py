"""An output in a local folder: append-only files of records, one line each.

Without shards a run writes `results.jsonl` and `errors.jsonl`; a shard writes `results-00003-of-00016.jsonl` and
`errors-00003-of-00016.jsonl`. Every run reads the files of all runs, whatever their number of shards, except those of
other shards of its own count: these are active, and their documents belong to other shards.

It must never change a file that another run may be writing. Its lock (lock.py) covers its own files; a shard changes
a file of another shard count only under the gate, since other shards may want to change it at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import InternalError, OutputError
from pipeline.output import accepted, checkpoint, record_files
from pipeline.output.index import Index
from pipeline.output.line_file import LineFile
from pipeline.output.lines import Damage, mend, read_lines, rewrite
from pipeline.output.lock import Lock, acquire, is_held, try_gate
from pipeline.output.record_files import make_folder, note_siblings, read_records, records_by_run, shard_of_file
from pipeline.output.record_keys import KINDS, Kind, RecordKey, Records, key_reader
from pipeline.output.rewritten_files import rewrite_records
from pipeline.output.run_entries import FOLDER as RUN_INDEX
from pipeline.output.run_index import highest_run
from pipeline.output.runs import RUNS
from pipeline.output.shared_files import FileGoneError, make_parent, names_in, read_if_there, until_unchanged
from pipeline.output.window_files import LocalWindows
from pipeline.shards import Shard
from pipeline.stores import is_half_written, write_atomic

SYNC_AFTER_S = 0.4
"""The main thread calls `sync_due` every 0.5 s, so a record is durable within a second (0.4 + 0.5 s)."""


class LocalBackend:
    """An OutputBackend (backend.py) in a folder. `damage`: the damage found by the last reading, by file."""

    def __init__(self, folder: Path, *, shard: Shard) -> None:
        """Prepare the backend without accessing the folder."""
        self.folder = folder
        self.damage: dict[Path, Damage] = {}
        self._shard = shard
        self._record_files = partial(record_files.record_paths, folder)
        self._own_names: Mapping[Kind, str] = {kind: f"{kind}{shard.suffix}.jsonl" for kind in KINDS}
        self._files: dict[Kind, LineFile] = {}
        self._run = 0
        self._starts: dict[Kind, int] = {}
        """The sizes of this run's files before its first record."""
        self._lock: Lock | None = None
        self._is_stopped: Callable[[], bool] = lambda: False
        self._results: dict[str, int] = {}
        """The results files that were read, with the number of bytes covered by their checkpoints."""

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def is_full(self) -> bool:
        """True in an outage."""
        return any(file.is_failing for file in self._files.values())

    def unwritten(self, kind: Kind) -> int:
        """Return 0 except in an outage: `append` passes each line to the kernel."""
        return self._files[kind].unwritten if kind in self._files else 0

    @property
    def written(self) -> tuple[str, ...]:
        """The names of the two files of this run."""
        return tuple(self._own_names.values())

    def lock(
        self, run_id: str, *, lock_wait_s: float, wait: Callable[[float], bool], clock: Callable[[], float]
    ) -> None:
        """Create the folder and acquire its lock (lock.py)."""
        make_folder(self.folder)
        self._is_stopped = partial(wait, 0)
        self._lock = acquire(self.folder, run_id, shard=self._shard, lock_wait_s=lock_wait_s, wait=wait, clock=clock)

    def read(self) -> Index:
        """Index every line of every file, except the files of other shards of the same count, which own other ids."""
        return until_unchanged(self._read_all)

    def _read_all(self) -> Index:
        index = Index()
        index.is_stopped = self._is_stopped
        try:
            index.add_run(highest_run(self))
            index.accept(accepted.from_lines(self.content(accepted.NAME), where=self.where))
            paths = self._record_files()
            note_siblings(filter(self._is_siblings, reversed(paths)), index)
            for path in paths:
                if not self._is_siblings(path):
                    self._read_file(path, index)
        except BaseException:  # an interrupt too must not leave the index's file
            index.close()
            raise
        return index

    def start(self, index: Index, *, clock: Callable[[], float]) -> None:
        """Remove partly written files, broken lines and outdated errors; open the files of this run."""
        self._sweep()
        for path, damage in self.damage.items():
            if self._is_own(path):
                mend(path, damage)
            elif damage.lines or damage.unfinished:
                self._under_gate(mend, path)
        self.tidy(index)
        if self._lock is None:
            raise InternalError(f"{self.where}: `lock` comes before `start`")
        for kind, name in self._own_names.items():
            self._files[kind] = LineFile(self.folder / name, clock=clock, check_lock=self._lock.check)
        self._run = index.highest_run + 1
        self._starts = {kind: file.size for kind, file in self._files.items()}

    def append(self, line: bytes, key: RecordKey) -> None:
        """Pass the line to the kernel."""
        kind: Kind = "results" if key.reason is None else "errors"
        if kind not in self._files:
            raise InternalError(f"{self.where}: `start` comes before `append`")
        self._files[kind].append(line)

    def append_results(self, records: Sequence[tuple[bytes, RecordKey]]) -> bool:
        """Pass the lines of results to the kernel in one call."""
        return "results" in self._files and self._files["results"].append_all([line for line, _ in records])

    def sync_due(self, now: float) -> None:
        """Sync the files whose oldest unsynced record is SYNC_AFTER_S old, or whose last sync failed."""
        for file in self._files.values():
            if file.unsynced_since is None:
                continue
            if file.is_failing or now - file.unsynced_since >= SYNC_AFTER_S:
                file.sync()

    def sync(self) -> None:
        """Sync, then close the files."""
        for file in self._files.values():
            file.sync()
        self._close_files()

    def tidy(self, index: Index) -> None:
        """Remove outdated errors from every errors file that no other run is writing."""
        failed = index.failed_count()
        if failed == index.error_lines:
            return

        def is_current(line: Mapping[str, Any]) -> bool:
            return index.is_current_failure(line["id"], line["run"])

        def is_current_or_foreign(line: Mapping[str, Any]) -> bool:
            return not self._shard.owns(line["id"]) or is_current(line)

        for path in self._record_files("errors"):
            if self._is_siblings(path):
                continue
            if self._is_own(path):
                rewrite(path, is_current)
            else:
                self._under_gate(lambda other: rewrite(other, is_current_or_foreign), path)
        index.error_lines = failed

    def settle(self, index: Index) -> None:
        """Write a checkpoint (checkpoint.py) if all results of the index are in this run's file."""
        path = self.folder / self._own_names["results"]
        if len(index.agents) == 1 and {*self._results, path.name} == {path.name}:
            checkpoint.save(path, index.results(*index.agents), covered=self._results.get(path.name, 0))

    def files(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Yield the files of a folder, except partly written ones; foreign files may be among them."""
        for name in names_in(self.folder / folder):
            if not is_half_written(name) and (data := read_if_there(self.folder / folder / name)) is not None:
                yield f"{folder}/{name}", data

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, except those of partly written files."""
        return [f"{folder}/{name}" for name in names_in(self.folder / folder) if not is_half_written(name)]

    def content(self, name: str) -> bytes | None:
        """Return the file's bytes."""
        return read_if_there(self.folder / name)

    def create(self, name: str, data: bytes) -> bool:
        """Write the file if it does not exist; under the lock no other process creates it at the same time."""
        path = self.folder / name
        try:
            if path.exists():
                return False
        except OSError as exc:
            raise OutputError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
        self.replace(name, data)
        return True

    def replace(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Write a temporary file beside it, then rename it; create the folder for its first file."""
        path = self.folder / name
        make_parent(path)
        write_atomic(path, data)

    def is_in_use(self) -> bool:
        """Probe the lock files."""
        return self.folder.is_dir() and is_held(self.folder)

    def remove(self, name: str) -> bool:
        """Unlink the file."""
        path = self.folder / name
        try:
            exists = path.exists()
            path.unlink(missing_ok=True)
        except OSError as exc:
            raise OutputError(f"{path}: cannot be removed: {exc.strerror or exc}") from exc
        return exists

    def records(self, kind: Kind, *, since: int = 0) -> Records:
        """Read file by file; if a compaction removes one during that, read the compacted file as well."""
        if kind in self._starts and since >= self._run:
            yield from read_records(self.folder / self._own_names[kind], kind, start=self._starts[kind])
            return
        is_file_removed = False
        for path in self._record_files(kind):
            if since and self._is_siblings(path):
                continue
            try:
                yield from records_by_run(path, kind, since=since)
            except FileGoneError:
                is_file_removed = True
        if is_file_removed and (compacted := self.folder / f"{kind}.jsonl").exists():
            yield from read_records(compacted, kind)

    def rewrite(self, kind: Kind, choose: Callable[[Records], Records]) -> None:
        """Replace each file of a chunk atomically, and all others by the file of all shards."""
        rewrite_records(self.folder, kind, choose)

    def windows(self, *, clock: Callable[[], float]) -> LocalWindows:
        """Return the stream of `windows.jsonl`."""
        return LocalWindows(self.folder, self._lock, shard=self._shard, clock=clock, under_gate=self._under_gate)

    def duties(self) -> Mapping[str, Callable[[], None]]:
        """Return no tasks: the main thread writes, and the kernel keeps the lock."""
        return {}

    def close(self) -> None:
        """Close the files and release the lock."""
        try:
            self._close_files()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _close_files(self) -> None:
        """Close both files, also when the first one fails."""
        with ExitStack() as stack:
            for file in self._files.values():
                stack.callback(file.close)

    def _is_siblings(self, path: Path) -> bool:
        """Return True for the file of another shard of the same count; that shard may be active."""
        if self._shard.count == 0 or shard_of_file(path).count != self._shard.count:
            return False
        return path.name not in self._own_names.values()

    def _is_own(self, path: Path) -> bool:
        """Return True when no other run can write to the file: all files without shards, else the two of this run."""
        return self._shard.count == 0 or path.name in self._own_names.values()

    def _read_file(self, path: Path, index: Index) -> None:
        kind: Kind = "errors" if path.name.startswith("errors") else "results"
        damage = self.damage[path] = Damage()
        # a duplicate is recorded by the shard of the id it repeats, under an id that another may own
        is_own = self._shard.count > 0 and path.name in self._own_names.values()
        owns = (lambda _: True) if is_own else self._shard.owns
        add = partial(index.add, kind, where=str(path), owns=owns)
        if kind == "results":
            damage.size = self._results[path.name] = checkpoint.load(path, add)
        add(read_lines(path, key_reader(kind, str(path)), damage))

    def _sweep(self) -> None:
        """Remove the partly written files of a killed run; a shard removes only its own, as others may be active."""
        for folder in (self.folder, *(self.folder / name for name in (RUNS, RUN_INDEX, checkpoint.FOLDER))):
            for name in filter(is_half_written, names_in(folder)):
                if self._shard.count == 0 or self._shard.suffix in name:
                    self.remove(str((folder / name).relative_to(self.folder)))

    def _under_gate(self, change: Callable[[Path], object], path: Path) -> None:
        """Change a file of another shard count, which other shards may want to change as well."""
        gate = try_gate(self.folder)
        if gate is None:
            return  # another shard is changing files, or a run is starting; the next start or end makes this change
        try:
            with suppress(FileGoneError):
                change(path)
        finally:
            gate.release()
