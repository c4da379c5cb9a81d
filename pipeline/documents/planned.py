"""Inputs that are listed once for a plan, and later read file by file under the same ids.

    PlannedInput.files() ──▶ PlannedFile ──▶ a row of the plan ──▶ PlannedInput.entries(rows) ──▶ Entry
          once, by the plan                                              by each chunk, of its own rows

It must not list an input to read the rows of a plan.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.documents.archives.compression import PLAIN
from pipeline.documents.containers import damaged, piece_entry
from pipeline.documents.divided import Divider, Part, Place, parts_of
from pipeline.documents.encodings.known_encoding import encoding_of
from pipeline.documents.entries import (
    EntryRules,
    container_of,
    count_unsupported,
    entries_of,
    reporting_complete,
)
from pipeline.documents.file_kinds import kind_of
from pipeline.documents.files import ListedFile
from pipeline.documents.formats import FORMATS, format_of
from pipeline.documents.listing import check_extras, listed_file, open_origin, rules_of
from pipeline.documents.sources import DocumentSource, ListingCounts, ListingPlan
from pipeline.errors import DocumentError, TryLaterError
from pipeline.records import Entry
from pipeline.stores import (
    OutageRetry,
    StaleVersionError,
    StoredFile,
    is_remote,
    printable,
)

if TYPE_CHECKING:
    from pipeline.config import InputConfig

_log = logging.getLogger(__name__)
_NAMED = 3
"""The most files that a message names."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of an input, or a part of one. `source`: the place of its input in the settings, from 0.

    `path` is relative to the input's root, and may contain surrogates. `is_removed`: the file no longer exists.
    """

    source: int
    path: str
    size_bytes: int
    version: str | None
    linked: bool = False
    part: Part | None = None
    is_removed: bool = False

    @property
    def weight_bytes(self) -> int:
        """The bytes to read."""
        return self.size_bytes if self.part is None else self.part.size_bytes

    @property
    def key(self) -> tuple[int, str, int]:
        """The identity of a row of a plan, whatever the file's version; parts differ by their first number."""
        return self.source, self.path, self.part.number if self.part else 0

    def to_line(self) -> bytes:
        """Return the row of a plan, a line of JSON."""
        row: dict[str, Any] = {
            "source": self.source,
            "path": self.path,
            "bytes": self.size_bytes,
        }
        row["version"] = self.version
        if self.linked:
            row["linked"] = True
        if self.is_removed:
            row["gone"] = True
        if (part := self.part) is not None:
            row |= {
                "from": part.start,
                "to": part.end,
                "number": part.number,
                "count": part.count,
            }
        return json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n"


def planned_file(line: bytes) -> PlannedFile:
    """Parse the row of a plan; KeyError, TypeError or ValueError for another line."""
    row = json.loads(line)
    part = Part(row["from"], row["to"], row["number"], row["count"]) if "from" in row else None
    return PlannedFile(
        row["source"],
        row["path"],
        row["bytes"],
        row["version"],
        linked=row.get("linked", False),
        part=part,
        is_removed=row.get("gone", False),
    )


class PlannedInput:
    """All inputs of a configuration, opened. ConfigError for one that is missing."""

    def __init__(
        self,
        config: InputConfig,
        *,
        output: Path | str | None,
        counts: ListingCounts,
        clock: Callable[[], float] = time.time,
        outage_retry: OutageRetry | None = None,
    ) -> None:
        self._config = config
        self._counts = counts
        self._plan = ListingPlan(config, output, counts, clock, outage_retry)
        # versions must differ even for a file that changes again within the resolution of its time
        self._exact = replace(self._plan, clock=lambda: math.inf)

    def files(self) -> Iterator[PlannedFile]:
        """List the inputs; files that a run would ignore are counted."""
        origins = [open_origin(source, self._exact) for source in self._config.uri]
        check_extras(origins, lookup=FORMATS.get)
        for at, origin in enumerate(origins):
            rules = rules_of(origin, self._exact, lookup=FORMATS.get)
            for file in origin.files(lambda kind: self._counts.ignore(f"({kind})")):
                self._counts.files += 1
                if not count_unsupported(listed_file(file, origin), rules):
                    yield PlannedFile(at, file.relative, file.size_bytes, file.version, file.linked)

    def id_of(self, file: PlannedFile) -> str:
        """Return the id of a file, with which the ids of its documents begin."""
        name = self._config.uri[file.source].name
        return (f"{name}/" if name else "") + printable(file.path)

    def is_container(self, file: PlannedFile) -> bool:
        """Return True for a file that may hold many documents."""
        kind = kind_of(printable(file.path), FORMATS.get)
        return kind.archive is not None or kind.is_stream

    def divider_of(self, file: PlannedFile) -> Divider | None:
        """Return how the file may be divided; None for one that is read as a whole."""
        name = printable(file.path)
        _, compression, archive, form = kind_of(name, FORMATS.get)
        if form is None or archive is not None or compression is not PLAIN:
            return None
        return None if encoding_of(name, self._config.encoding, form=form.name) else form.divide

    def parts(self, file: PlannedFile, is_due: Callable[[Place, Place], bool]) -> list[Part]:
        """Read the file once and return its parts (divided.py); [] when it can only be read as a whole."""
        divider = self.divider_of(file)
        assert divider is not None
        origin = open_origin(self._config.uri[file.source], self._exact)
        stored = origin.find_current(_stored(file), True)
        if stored is None:
            return []
        listed = listed_file(stored, origin)
        rules = rules_of(origin, self._exact, lookup=FORMATS.get)
        form = format_of(listed.relative)
        assert form is not None
        container = container_of(listed, form.name, compression=PLAIN, rules=rules)
        try:
            with listed.open() as stream:
                return parts_of(divider.places(stream, container), is_due)
        except DocumentError:  # of a document or of the whole file: a run reports it
            return []
        except listed.damage as cause:
            damaged(container, cause)  # raises for an outage of its store
            return []

    def entries(self, rows: Iterable[PlannedFile]) -> Iterator[Entry]:
        """Return the entries of these files, with the ids that a listing of the whole input gives them.

        ConfigError for an input that is missing. Files that no longer exist are skipped. TryLaterError, after all other
        files, when a divided file has changed.
        """
        origins = [open_origin(source, self._plan) for source in self._config.uri]
        return self._entries(rows, [(origin, rules_of(origin, self._plan, lookup=FORMATS.get)) for origin in origins])

    def _entries(
        self, rows: Iterable[PlannedFile], inputs: Sequence[tuple[DocumentSource, EntryRules]]
    ) -> Iterator[Entry]:
        missing_ids: list[str] = []
        changed_ids: list[str] = []
        for row in rows:
            origin, rules = inputs[row.source]
            stored = self._look_again(origin, row)
            if stored is None:
                missing_ids.append(self.id_of(row))
                continue
            self._counts.files += 1
            for entry in self._entries_of(stored, row, origin, rules, changed_ids=changed_ids):
                self._counts.listed += 1
                yield entry
        if missing_ids:
            _log.warning("files of the plan no longer exist: %s; `pipeline plan` removes them", _name_list(missing_ids))
        if changed_ids:
            need = "`pipeline plan` finds their documents again"
            raise TryLaterError(
                f"divided files have changed since they were planned: {_name_list(changed_ids)}; {need}"
            )

    def _entries_of(
        self, stored: StoredFile, row: PlannedFile, origin: DocumentSource, rules: EntryRules, *, changed_ids: list[str]
    ) -> Iterator[Entry]:
        """Return the entries of a file or a part of it; add the id of a changed divided file to `changed_ids`."""
        if row.part is None:
            return entries_of(listed_file(stored, origin), rules)
        if self._exact_version(stored, origin, row) != row.version:
            changed_ids.append(self.id_of(row))
            return iter(())
        divider = self.divider_of(row)
        if is_remote(origin.uri_prefix) and divider is not None and divider.by_bytes:
            # so that no range beyond the part is requested
            stored = stored._replace(size_bytes=row.part.end)
        return _part_entries(listed_file(stored, origin), row, rules, changed_ids=changed_ids)

    def _look_again(self, origin: DocumentSource, row: PlannedFile) -> StoredFile | None:
        needs = row.part is not None or self.is_container(row)
        look = partial(origin.find_current, _stored(row), needs)
        try:
            return look() if origin.reads is None else origin.reads.attempt(look, role="listing")
        except OSError as cause:
            reason = cause.strerror or cause
            raise TryLaterError(f"the listing was interrupted: {self.id_of(row)}: {reason}") from cause

    def _exact_version(self, stored: StoredFile, origin: DocumentSource, row: PlannedFile) -> str | None:
        """Return the file's version, even if it was changed a moment ago."""
        if stored.version is not None or is_remote(origin.uri_prefix):
            return stored.version
        current = open_origin(self._config.uri[row.source], self._exact).find_current(_stored(row), True)
        return None if current is None else current.version


def _part_entries(file: ListedFile, row: PlannedFile, rules: EntryRules, *, changed_ids: list[str]) -> Iterator[Entry]:
    """Yield the entries of a part of a file; the id of a file that is replaced meanwhile is added to `changed_ids`."""
    form = format_of(file.relative)
    assert form is not None
    assert form.divide is not None
    assert row.part is not None
    container = container_of(file, form.name, compression=PLAIN, rules=rules)
    try:
        with file.open() as stream:
            pieces = form.divide.split(stream, container, row.part)
            entries = (piece_entry(container, piece) for piece in pieces)
            yield from reporting_complete(entries, file.id, on_complete=rules.on_complete)
    except StaleVersionError:
        changed_ids.append(file.id)
    except DocumentError as cause:
        yield damaged(container, cause)
    except file.damage as cause:
        yield damaged(container, cause)


def _stored(file: PlannedFile) -> StoredFile:
    return StoredFile(file.path, file.path, file.size_bytes, file.version, linked=file.linked)


def _name_list(names: list[str]) -> str:
    """Return the first names, and the number of the others."""
    others_count = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {others_count:,} more" if others_count > 0 else "")
