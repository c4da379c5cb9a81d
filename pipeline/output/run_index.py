"""The index of runs: the facts about earlier runs that a run needs, without reading all of `runs/`.

How it works:

1. At its end a run writes its summary to `runs/`, which is the history, and the entry of its shard to `.runs/`
   (run_entries.py), which replaces the one before. Names give shard, run, and whether documents must be sent again.
2. Only the holder of a shard's lock writes its entry: the new one first, then it removes the old one. Of two that a
   killed run has left, the higher run counts.
3. `.runs/complete` means that every shard with a summary has an entry. Until then, as in an output of an earlier
   version, `runs/` is listed, and summaries of shards without an entry are read from there. `pipeline compact` and
   `pipeline purge` rebuild all entries.
4. A run that was killed, or was of an earlier version, has no entry. Records of a higher run than any entry reveal
   it: the summaries of this shard are then counted, and read again when there are more than the entry knows.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.config.redaction import SECRETS
from pipeline.errors import OutputError
from pipeline.output.backend import OutputBackend, ReadableOutput
from pipeline.output.run_entries import (
    FOLDER,
    HISTORY_OF_SET,
    Entry,
    EntryName,
    Run,
    distinct,
    entries_of,
    entry_after,
    entry_names,
    history_row,
    is_entry_of,
    name_of,
    parsed_entry,
)
from pipeline.output.runs import FOLDED, RUNS, runs_in
from pipeline.shards import Shard, suffix_in

_log = logging.getLogger(__name__)
_COMPLETE = f"{FOLDER}/complete"

FEW = 32
"""The most entries of other shards that a start reads for the earlier prompts and schemas of an output."""

MANY_SETS = 64
"""The most entries of other shard counts that the report reads, for the profile of their results."""


def highest_run(backend: ReadableOutput) -> int:
    """Return the highest number of a completed run; 0 without any."""
    return RunIndex(backend, Shard()).highest_run


class RunIndex:
    """The index of an output, as seen by one shard or a run without shards: listed once, each entry read once."""

    def __init__(self, backend: ReadableOutput, shard: Shard) -> None:
        """Prepare without reading; `shard`: the one whose entry this run writes."""
        self._backend = backend
        self.shard = shard
        self._names: dict[Shard, EntryName] | None = None
        self._is_complete = False
        self._own: EntryName | None = None
        """The entry of this shard when it was rebuilt from `runs/`; only this run writes that entry."""
        self._read: dict[str, Entry] = {}

    def refresh(self) -> None:
        """List the entries again; read only those with new names."""
        self._names = None

    @property
    def names(self) -> list[EntryName]:
        """The entries by name, the newest run's last."""
        if self._names is None:
            paths = self._backend.names(FOLDER)
            self._is_complete = _COMPLETE in paths
            self._names = entry_names(paths)
            if not self._is_complete:
                self._add_unindexed(self._names)
            if self._own is not None:
                self._names[self.shard] = self._own
        return sorted(self._names.values(), key=lambda name: (name.run, name.shard.index))

    @property
    def highest_run(self) -> int:
        """The highest number of a completed run; 0 without any."""
        return max((name.run for name in self.names), default=0)

    def check(self, recorded_run: int) -> None:
        """Read the summaries of this shard when its entry lacks one; `recorded_run`: the highest run in its records."""
        if recorded_run <= self.highest_run:
            return
        suffix = self.shard.suffix
        own = [path for path in self._backend.names(RUNS) if path.endswith(".json") and suffix_in(path) == suffix]
        entry = self._own_entry()
        if len(own) > (0 if entry is None else entry["files"]):
            self._own = self._entries_built_from([*own, FOLDED]).get(self.shard)
            self.refresh()

    def recent(self) -> list[dict[str, Any]]:
        """Return the complete summaries in the index of this shard and of a few others, newest last."""
        runs = [run for entry in self._entries(self._few()) for run in (*entry["kept"], entry["newest"])]
        return sorted(runs, key=lambda run: run["run"])

    def answered(self) -> set[str]:
        """Return the fingerprints of results that this shard and a few others have written."""
        return {fingerprint for entry in self._entries(self._few()) for fingerprint in entry["answered"]}

    def questions(self) -> list[dict[str, Any]]:
        """Return the prompts and schemas of all runs of this shard and of the newest others, in their stored form."""
        return distinct(question for entry in self._entries(self._few()) for question in entry["questions"])

    def ask_again(self) -> dict[str, int]:
        """Return the ids whose results may have been cut, each with the run that wrote the result."""
        entries = self._entries(name for name in self.names if name.asks_again)
        return {document_id: run for entry in entries for document_id, run in entry["ask_again"].items()}

    def of_this_shard(self) -> list[dict[str, Any]]:
        """Return the runs of this shard with which the next run is compared, oldest first."""
        entry = self._own_entry()
        return [] if entry is None else [*entry["kept"], entry["newest"]]

    def of_all_shards(self, *, stop: Callable[[], bool] = lambda: False) -> list[dict[str, Any]]:
        """Return the runs of each shard of this set that a report needs; OutputError when `stop` returns True."""
        return [run for entry in self._set(stop) for run in (*entry["kept"], entry["newest"])]

    def earlier(self) -> list[dict[str, Any]]:
        """Return the profiles of all other runs, in the form of runs."""
        other_names = [name for name in self.names if not self._is_of_set(name)][-MANY_SETS:]
        parts = [part for entry in self._set() for part in entry["earlier"]]
        for entry in self._entries(other_names):
            parts += [*entry["earlier"], *entry["kept"], entry["newest"]]
        return [{"profile": part["profile"]} for part in parts if "profile" in part]

    def history(self) -> list[dict[str, Any]]:
        """Return the last runs of this set of shards with the figures of the history only, oldest first."""
        entries = self._set()
        rows_of_each = max(1, HISTORY_OF_SET // max(len(entries), 1))
        rows = [row for entry in entries for row in [*entry["history"], history_row(entry["newest"])][-rows_of_each:]]
        return sorted(rows, key=lambda row: (row["run"], str(row["finished_at"])))

    def finished_shards(self) -> set[Shard]:
        """Return the shards that have completed a run, by name."""
        return {name.shard for name in self.names}

    def write(self, backend: OutputBackend, run: Mapping[str, Any], *, is_current: Callable[[str, int], bool]) -> None:
        """Replace the entry of this shard; `is_current(id, run)`: the document's current result is of that run.

        Like writing the summary before, this needs the lock.
        """
        entry = entry_after(self._own_entry(), run)
        entry["ask_again"] = {key: number for key, number in entry["ask_again"].items() if is_current(key, number)}
        name = name_of(entry, self.shard)
        _put(backend, name, entry)
        self._read[name.path] = entry
        paths = backend.names(FOLDER)
        for path in paths:
            if path != name.path and is_entry_of(path, self.shard):
                _remove(backend, path)
        if not self._is_complete and _suffixes(backend) <= {
            entry_name.shard.suffix for entry_name in entry_names(paths).values()
        }:
            backend.replace(_COMPLETE, b"{}\n")
        self._own = None
        self.refresh()

    def _own_entry(self) -> Entry | None:
        return next(iter(self._entries(name for name in self.names if name.shard == self.shard)), None)

    def _few(self) -> list[EntryName]:
        names = self.names
        return [name for name in names[:-FEW] if name.shard == self.shard] + names[-FEW:]

    def _is_of_set(self, name: EntryName) -> bool:
        return max(name.shard.count, 1) == max(self.shard.count, 1)

    def _set(self, stop: Callable[[], bool] = lambda: False) -> list[Entry]:
        return self._entries((name for name in self.names if self._is_of_set(name)), stop=stop)

    def _entries(self, names: Iterable[EntryName], *, stop: Callable[[], bool] = lambda: False) -> list[Entry]:
        entries = []
        for name in names:
            if stop():
                raise OutputError(f"{self._backend.where}: interrupted while the runs of all shards were read")
            if name.path not in self._read:
                entry = parsed_entry(self._backend.content(name.path) or b"")
                if entry is None:  # replaced by a run in between, or damaged: `compact` rebuilds it
                    continue
                self._read[name.path] = entry
            entries.append(self._read[name.path])
        return entries

    def _add_unindexed(self, names: dict[Shard, EntryName]) -> None:
        """Add the entries of shards that have summaries but no entry file."""
        paths = self._backend.names(RUNS)
        indexed = {shard.suffix for shard in names}
        loose = [path for path in paths if path.endswith(".json") and suffix_in(path) not in indexed]
        if not loose and FOLDED not in paths:
            return
        names.update(
            {shard: name for shard, name in self._entries_built_from([*loose, FOLDED]).items() if shard not in names}
        )

    def _entries_built_from(self, paths: Sequence[str]) -> dict[Shard, EntryName]:
        """Return the names of entries built from these summaries; the entries stay in memory."""
        names = {}
        for shard, entry in _counted(entries_of(runs_in(self._backend, paths)), paths).items():
            names[shard] = name_of(entry, shard)
            self._read[names[shard].path] = entry
        return names


def rebuild(backend: OutputBackend, runs: Sequence[Run], paths: Sequence[str]) -> None:
    """Rebuild the entries of all shards; call it under the lock of the whole output.

    `runs`: all summaries, oldest first. `paths`: the files in `runs/` that stay.
    """
    drop(backend)
    for shard, entry in _counted(entries_of(runs), paths).items():
        _put(backend, name_of(entry, shard), entry)
    backend.replace(_COMPLETE, b"{}\n")


def drop(backend: OutputBackend) -> None:
    """Remove the index; remove its completion mark first, so that `runs/` is read until the index is rebuilt."""
    for path in sorted(backend.names(FOLDER), key=lambda path: path != _COMPLETE):
        backend.remove(path)


def _counted(entries: dict[Shard, Entry], paths: Sequence[str]) -> dict[Shard, Entry]:
    """Return the entries with the number of files that each shard has in `runs/`."""
    files = Counter(suffix_in(path) for path in paths if path.endswith(".json"))
    return {shard: {**entry, "files": files[shard.suffix]} for shard, entry in entries.items()}


def _suffixes(backend: ReadableOutput) -> set[str]:
    return {suffix_in(path) for path in backend.names(RUNS) if path.endswith(".json")}


def _put(backend: OutputBackend, name: EntryName, entry: Entry) -> None:
    text = SECRETS.redact_whole(json.dumps(entry, ensure_ascii=False, allow_nan=False))
    backend.replace(name.path, text.encode("utf-8", "backslashreplace") + b"\n")


def _remove(backend: OutputBackend, path: str) -> None:
    try:
        backend.remove(path)
    except OutputError as error:  # a store that refuses DELETE; of two entries the one with the higher run counts
        _log.info("an older entry of the index of runs could not be removed", extra={"file": path, "why": str(error)})
