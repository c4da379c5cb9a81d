"""The documents of a run: those of the whole input, or of its chunk of a plan, which is read file by file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from pipeline.config import AppConfig
from pipeline.documents import ListingCounts, load_entries
from pipeline.documents.planned import PlannedFile, PlannedInput, planned_file
from pipeline.errors import ConfigError, TryLaterError
from pipeline.output import backend_of, left_out, scan
from pipeline.output.chunk_plan import PLAN, read_head, read_rows
from pipeline.records import Entry
from pipeline.run.chunks.planning import check_input, check_plannable
from pipeline.run.plan import ExtractionPlan
from pipeline.shards import CHUNKED, Shard
from pipeline.stores import (
    MissingBucketError,
    OutageRetry,
    ReadingStoppedError,
    StoreRefusedError,
)

_END_OF_FILE_ID = re.compile(r"#|!/")
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of the plan: its shard, its files, and the number of ignored files that it reports, by kind."""

    shard: Shard
    rows: tuple[PlannedFile, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)


class InputListing:
    """The listing of a run's documents; each call starts a new one."""

    def __init__(self, app: AppConfig, chunk: Chunk | None = None) -> None:
        self._app = app
        self._chunk = chunk

    def __call__(self, counts: ListingCounts, outage_retry: OutageRetry | None = None) -> Iterator[Entry]:
        """Yield the entries; errors as for `load_entries`. With `outage_retry`, reads wait out an outage."""
        output = left_out(self._app)
        if self._chunk is None:
            return load_entries(self._app.input, output=output, counts=counts, outage_retry=outage_retry)
        counts.ignored.update(self._chunk.ignored)
        files = PlannedInput(self._app.input, output=output, counts=counts, outage_retry=outage_retry)
        return files.entries(self._chunk.rows)

    def start(
        self, plan: ExtractionPlan, *, counts: ListingCounts, outage_retry: OutageRetry | None = None
    ) -> Iterator[Entry]:
        """Yield the entries; refused credentials at a later start mean exit 3, so that the run is retried."""
        try:
            return self(counts, outage_retry)
        except ReadingStoppedError as error:
            raise TryLaterError(f"interrupted while waiting for the input: {error}") from error
        except ConfigError as error:
            if not isinstance(error.__cause__, (StoreRefusedError, MissingBucketError)):
                raise
            with closing(scan(self._app.output)) as index:
                if not any(map(index.knows_question, plan.fingerprints)):
                    raise
            raise TryLaterError(str(error)) from error


def open_chunk(app: AppConfig, index: int) -> Chunk:
    """Read a chunk of the output's plan; ConfigError when there is none, or the settings differ from the plan's."""
    check_plannable(app)
    backend = backend_of(app.output)
    head = read_head(backend)
    if head is None:
        raise ConfigError(f"--chunk {index}: {backend.where} has no {PLAN}; `pipeline plan` writes one")
    if index >= head.chunks:
        last = f"its chunks are 0 to {head.chunks - 1}" if head.chunks else "it has none"
        raise ConfigError(f"--chunk {index}: the plan in {backend.where} has no such chunk, {last}")
    check_input(app, head)
    newest = {row.key: row for row in map(planned_file, read_rows(backend, head, index))}
    rows = tuple(row for row in newest.values() if not row.is_removed)
    files = PlannedInput(app.input, output=None, counts=ListingCounts())
    owned = _OwnedIds((files.id_of(row), row) for row in rows)
    # the plan's ignored files are in no chunk, so the first chunk counts them for all
    return Chunk(Shard(index, CHUNKED, head.chunks, owned), rows, head.ignored if index == 0 else {})


class _OwnedIds:
    """The test whether a document belongs to a chunk, by its id alone."""

    def __init__(self, rows: Iterable[tuple[str, PlannedFile]]) -> None:
        self._rows = rows
        self._numbers: dict[str, list[range]] | None = None

    def __call__(self, document_id: str) -> bool:
        numbers = self._of_files()
        if document_id in numbers:
            return True
        for end in _END_OF_FILE_ID.finditer(document_id):
            ranges = numbers.get(document_id[: end.start()])
            if ranges is None:
                continue
            number = _NUMBER.match(document_id, end.end())
            if not ranges or (number is not None and any(int(number[0]) in chunk_range for chunk_range in ranges)):
                return True
        return False

    def _of_files(self) -> dict[str, list[range]]:
        """Return the chunk's ranges of document numbers for each file, [] for the whole file; built once."""
        if self._numbers is None:
            self._numbers = {}
            for id, row in self._rows:
                ranges = self._numbers.setdefault(id, [])
                if row.part is not None:
                    ranges.append(range(row.part.number, row.part.number + row.part.count))
        return self._numbers
