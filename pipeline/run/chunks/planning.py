"""`pipeline plan`: list the input once, and divide its files into chunks of about equal bytes.

A file, and each document number of a divided file, keeps its chunk, so that the records of a chunk stay valid. A later
planning adds chunks only for new files, and for new documents at the end of a divided file. It calls no model.
"""

from __future__ import annotations

import bisect
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from pipeline.config import AppConfig
from pipeline.documents import ListingCounts
from pipeline.documents.divided import Part, Place
from pipeline.documents.planned import PlannedFile, PlannedInput, planned_file
from pipeline.errors import ConfigError
from pipeline.output import OutputBackend, backend_of, left_out
from pipeline.output.chunk_plan import (
    Generation,
    PlanHead,
    read_head,
    read_rows,
    write_head,
    write_rows,
)
from pipeline.run.chunks.table import ChunkTable
from pipeline.shards import MAX_SHARDS

CHUNK_BYTES = 64 << 20
"""The default size of a chunk: about ten thousand news texts, an hour's work for one small server."""
_DIVIDED_FROM = 1.5
"""A file is divided when it is at least this many times as large as a chunk."""


@dataclass(slots=True)
class Planned:
    """The result of a planning. `first`: the first new chunk; `changed`: chunks with changed or deleted files.

    `documents`: the number in new files that are one document each or were divided; `containers`: the number of new
    files of many documents.
    """

    head: PlanHead
    listing: ListingCounts
    first: int = 0
    files: int = 0
    documents: int = 0
    containers: int = 0
    bytes: int = 0
    least_bytes: int = 0
    most_bytes: int = 0
    changed: list[int] = field(default_factory=list)


def make_plan(app: AppConfig, *, chunks: int | None, chunk_bytes: int | None, least: int = 1) -> Planned:
    """Write the first plan, or the additions since the last one, and return the result.

    `least`: the fewest chunks of a first plan, if there are as many documents.

    ConfigError for settings that do not fit chunks or the earlier plan. TryLaterError when the listing is interrupted.
    """
    check_plannable(app)
    backend = backend_of(app.output)
    before = read_head(backend)
    if before is not None:
        check_input(app, before)
    listing = ListingCounts()
    files = PlannedInput(app.input, output=left_out(app), counts=listing)
    size = chunk_bytes or (before.chunk_bytes if before is not None else CHUNK_BYTES)
    table = ChunkTable()
    try:
        for chunk in range(before.chunks if before is not None else 0):
            rows = map(planned_file, read_rows(backend, before or PlanHead(), chunk))
            table.remember(chunk, ((row, files.id_of(row)) for row in rows))
        _list(files, table, size=size)
        return _write(
            backend,
            files,
            table,
            app=app,
            before=before,
            size=size,
            chunks=chunks or (max(least, -(-max(1, table.new_bytes()) // size)) if before is None else None),
            listing=listing,
        )
    finally:
        table.close()


def check_plannable(app: AppConfig) -> None:
    """Raise ConfigError for settings with which two chunks could hold the same id without detecting it."""
    if app.input.id_field is not None:
        need = "leave it out, or divide the run by --shard I/N, which divides by ids"
        raise ConfigError(f"input.id_field: got {app.input.id_field!r}, but chunks may then share an id; {need}")


def input_settings(app: AppConfig) -> dict[str, Any]:
    """Return the settings that decide which documents there are and which ids they have."""
    names = (
        "include",
        "exclude",
        "records_field",
        "text_field",
        "csv",
        "encoding",
        "unsupported",
    )
    settings: dict[str, Any] = {"uri": [{"uri": source.uri, "name": source.name} for source in app.input.uri]}
    settings |= {name: getattr(app.input, name) for name in names}
    return {name: _plain(value) for name, value in settings.items()}


def check_input(app: AppConfig, head: PlanHead) -> None:
    """Raise ConfigError when the settings differ from the plan's."""
    differing = [name for name, value in input_settings(app).items() if head.input.get(name) != value]
    if differing:
        names = ", ".join(f"input.{name}" for name in differing)
        raise ConfigError(f"{names}: differs from the plan in {app.output.uri}; need the same, or another output.uri")


def _plain(value: Any) -> Any:
    """Return a setting as a JSON value."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _list(files: PlannedInput, table: ChunkTable, *, size: int) -> None:
    """List the input, and add new, changed and missing files to the table."""
    for file in files.files():
        rows = table.planned(file)
        if not rows:
            table.add(file, id=files.id_of(file))
        elif rows[0][1].part is not None:
            if rows[0][1].is_removed or rows[0][1].version != file.version:
                _divide_again(files, file, rows, table, size=size)
        elif rows[0][1].is_removed or rows[0][1].version != file.version:
            table.change(rows[0][0], file)
    for chunk, row in list(table.not_met()):
        if not row.is_removed:
            table.change(chunk, replace(row, is_removed=True))


def _divide_again(
    files: PlannedInput,
    file: PlannedFile,
    planned: list[tuple[int, PlannedFile]],
    table: ChunkTable,
    *,
    size: int,
) -> None:
    """Divide a changed file at the same document numbers as before; later documents are new."""
    parts = [row.part for _, row in planned if row.part is not None]
    bounds = [*(part.number for part in parts), parts[-1].number + parts[-1].count]

    def is_due(start: Place, place: Place) -> bool:
        after = bisect.bisect_right(bounds, start.number)
        return place.number >= bounds[after] if after < len(bounds) else place.offset - start.offset >= size

    remaining_numbers: set[int] = set()
    for part in files.parts(file, is_due):
        row = replace(file, part=part)
        if part.number >= bounds[-1]:
            table.add(row, id=f"{files.id_of(file)}#{part.number}")
            continue
        at = bisect.bisect_right(bounds, part.number) - 1
        table.change(planned[at][0], row)
        remaining_numbers.add(part.number)
    for chunk, row in planned:
        if row.part is not None and row.part.number not in remaining_numbers and not row.is_removed:
            table.change(chunk, replace(row, is_removed=True))
    if not remaining_numbers:
        table.change(planned[0][0], file)


def _write(
    backend: OutputBackend,
    files: PlannedInput,
    table: ChunkTable,
    *,
    app: AppConfig,
    before: PlanHead | None,
    size: int,
    chunks: int | None,
    listing: ListingCounts,
) -> Planned:
    """Write the rows, then the head that puts them into effect."""
    head = before or PlanHead(input=input_settings(app))
    total = max(1, table.new_bytes())
    new_chunks = chunks or -(-total // size)
    if head.chunks + new_chunks > MAX_SHARDS:
        raise ConfigError(
            f"--chunks: got {head.chunks + new_chunks:,} chunks, need at most {MAX_SHARDS:,}: larger ones"
        )
    name = f"{len(head.generations):04d}-{secrets.token_hex(3)}"
    planned = Planned(head, listing, first=head.chunks)
    chunk_sizes = _write_new(backend, name, planned, _placed(files, table, total=total, chunks=new_chunks), files=files)
    for chunk, changes in groupby(table.changed_rows(), key=lambda change: change[0]):
        planned.changed.append(chunk)
        write_rows(backend, chunk, name, [line for _, line in changes])
    if chunk_sizes or planned.changed or before is None:
        added = Generation(name, head.chunks, chunk_sizes, tuple(planned.changed))
        totals = {"files": listing.files, "documents": planned.documents, "bytes": planned.bytes}
        planned.head = replace(head, generations=(*head.generations, added), chunk_bytes=size, totals=totals)
    planned.head = replace(planned.head, ignored=dict(listing.ignored))
    if planned.head != before:
        write_head(backend, planned.head, before=before)
    return planned


def _write_new(
    backend: OutputBackend,
    generation: str,
    planned: Planned,
    placed: Iterator[tuple[int, PlannedFile]],
    *,
    files: PlannedInput,
) -> int:
    """Write and count the rows of new chunks, numbered from `planned.first`; return the number of chunks."""
    sizes: list[int] = []
    before: PlannedFile | None = None
    for _, rows in groupby(placed, key=lambda placed_row: placed_row[0]):
        lines = []
        filled = 0
        for _, row in rows:
            _count(planned, files, row, before=before)
            before = row
            filled += row.weight_bytes
            lines.append(row.to_line())
        write_rows(backend, planned.first + len(sizes), generation, lines)
        sizes.append(filled)
    planned.bytes = sum(sizes)
    planned.least_bytes = min(sizes, default=0)
    planned.most_bytes = max(sizes, default=0)
    return len(sizes)


def _placed(files: PlannedInput, table: ChunkTable, *, total: int, chunks: int) -> Iterator[tuple[int, PlannedFile]]:
    """Yield each new row with its chunk (one of `chunks`), large files in parts; in the order of the chunks."""
    passed_weight = 0
    chunk = 0
    rows = table.new_rows()
    next_row = next(rows, None)
    while next_row is not None:
        follows, row = next_row
        next_row = next(rows, None)
        is_alone = not follows and not (next_row is not None and next_row[0])
        for piece in _pieces(files, row, size=total / chunks, before=passed_weight) if is_alone else (row,):
            weight = piece.weight_bytes
            if not follows:
                chunk = max(chunk, min(chunks - 1, int((passed_weight + weight / 2) * chunks / total)))
            passed_weight += weight
            yield chunk, piece


def _pieces(files: PlannedInput, row: PlannedFile, *, size: float, before: int) -> Iterator[PlannedFile]:
    """Yield the parts of a file that is much larger than a chunk, or the row itself.

    `before`: the bytes of all rows before it. The file is cut where a chunk is full.
    """
    parts: list[Part] = []
    if row.part is None and row.size_bytes >= _DIVIDED_FROM * size and files.divider_of(row) is not None:
        # by multiples of the size, so that a long document does not move all later boundaries
        parts = files.parts(
            row, lambda start, place: int((before + place.offset) / size) > int((before + start.offset) / size)
        )
    yield from (replace(row, part=part) for part in parts)
    if not parts:
        yield row


def _count(planned: Planned, files: PlannedInput, row: PlannedFile, *, before: PlannedFile | None) -> None:
    """Count a new row; `before`: the row before it, which may be another part of the same file."""
    planned.files += before is None or (before.source, before.path) != (row.source, row.path)
    if row.part is not None:
        planned.documents += row.part.count
        return
    is_container = files.is_container(row)
    planned.containers += is_container
    planned.documents += not is_container
