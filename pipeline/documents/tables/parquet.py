"""The rows of a Parquet file as JSON objects, read batch by batch, without columns that a record cannot contain.

It runs in a helper process. It must not hold more than a batch, and for each column the page that contains it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from datetime import time as time_of_day
from typing import Any, BinaryIO

from pipeline.documents.decode import missing_field
from pipeline.documents.encodings.decoding import to_text
from pipeline.documents.foreign import MISHAPS
from pipeline.errors import DocumentError

_NOT_FINITE = "numbers_not_finite"
_BATCH_ROWS = 32
_BUFFER_BYTES = 1 << 18
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = datetime(1970, 1, 1)


def rows(
    file: BinaryIO, *, text_field: str, id_field: str | None, part: Sequence[int] | None = None
) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Yield each row as canonical JSON by column names, with notes; DocumentError when the file is broken.

    `part`: only the row groups of this range of rows, from 0. Binary columns and lists of floating-point
    numbers are left out, except the columns of the two fields.
    """
    import pyarrow
    import pyarrow.parquet

    pyarrow.set_cpu_count(1)
    try:
        parquet = pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        schema = parquet.schema_arrow
        named = {root for path in (text_field, id_field) if path and (root := _root(path, schema.names)) is not None}
        if _root(text_field, schema.names) is None:
            raise DocumentError("document_unreadable", missing_field(text_field, schema.names, names="columns"))
        columns = [field.name for field in schema if field.name in named or _fits(field.type, pyarrow.types)]
        for group in _groups(parquet, part):  # one by one: a batch with rows of a damaged one would lose others
            for batch in parquet.iter_batches(_BATCH_ROWS, [group], columns, use_threads=False):
                yield from _records(batch, pyarrow)
    except MemoryError:  # some of the library's exceptions have both base classes
        raise
    except (pyarrow.ArrowException, *MISHAPS) as cause:
        raise DocumentError("document_unreadable", f"the Parquet file is broken: {type(cause).__name__}") from cause


def _groups(parquet: Any, part: Sequence[int] | None) -> Iterator[int]:
    """Yield the row groups that begin in this range of rows; without a range, all of them."""
    first_row = 0
    for group in range(parquet.num_row_groups):
        if part is None or part[0] <= first_row < part[1]:
            yield group
        first_row += parquet.metadata.row_group(group).num_rows


def group_places(file: BinaryIO, **_: object) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Yield a JSON array for each row group and the end: the bytes before it, and the number of its first row."""
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False).metadata
        offset = 0
        number = 1
        for at in range(metadata.num_row_groups):
            yield json.dumps([offset, number]).encode("ascii"), ()
            group = metadata.row_group(at)
            offset += sum(group.column(column).total_compressed_size for column in range(group.num_columns))
            number += group.num_rows
        yield json.dumps([offset, number]).encode("ascii"), ()
    except MemoryError:
        raise
    except (pyarrow.ArrowException, *MISHAPS) as cause:
        raise DocumentError("document_unreadable", f"the Parquet file is broken: {type(cause).__name__}") from cause


def _root(path: str, names: list[str]) -> str | None:
    """Return the column that a name or a dotted path leads to; None when there is none."""
    while path and path not in names:
        path = path.rpartition(".")[0]
    return path or None


def _fits(type_: Any, types: Any) -> bool:
    """Return True for a column that can be metadata; bytes and vectors cannot."""
    if types.is_dictionary(type_):
        return _fits(type_.value_type, types)
    if types.is_struct(type_):
        return all(_fits(type_.field(at).type, types) for at in range(type_.num_fields))
    if types.is_map(type_):
        return _fits(type_.item_type, types)
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return not types.is_floating(type_.value_type) and _fits(type_.value_type, types)
    return not (types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_))


def _records(batch: Any, pyarrow: Any) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    names = batch.schema.names
    columns = [_values(column, pyarrow) for column in batch.columns]
    for row in zip(*columns, strict=True):
        notes: Counter[str] = Counter()
        values = {name: _plain(value, notes) for name, value in zip(names, row, strict=True)}
        yield json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii"), _notes(notes)


def _notes(counts: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{_NOT_FINITE}:{count}" if name == _NOT_FINITE else name for name, count in counts.items())


def _values(column: Any, pyarrow: Any) -> list[Any]:
    """Return the values of a column; bytes where a text is not valid UTF-8."""
    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string(column.type) or types.is_large_string(column.type):
        try:
            return list(column.to_pylist())
        except UnicodeDecodeError:
            is_large = types.is_large_string(column.type)
            return list(column.cast(pyarrow.large_binary() if is_large else pyarrow.binary()).to_pylist())
    if types.is_nested(column.type) or types.is_timestamp(column.type) or types.is_duration(column.type):
        return [_value(scalar, types) for scalar in column]
    return list(column.to_pylist())


def _value(scalar: Any, types: Any) -> Any:
    """Return the value of a scalar; the library refuses nanoseconds, and years beyond 9999."""
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if types.is_timestamp(kind):
        return _moment(scalar.value, kind)
    if types.is_duration(kind):
        return scalar.value / _TICKS[kind.unit]
    if types.is_struct(kind):
        return {name: _value(inner, types) for name, inner in scalar.items()}
    if types.is_map(kind):
        return {str(_value(pair["key"], types)): _value(pair["value"], types) for pair in scalar.values}
    if types.is_nested(kind):
        return [_value(inner, types) for inner in scalar.values]
    return scalar.as_py()


def _moment(ticks: int, kind: Any) -> str | int:
    """Return a time in RFC 3339, in UTC if it has a zone; the number itself when it is out of range."""
    try:
        moment = _EPOCH + timedelta(microseconds=ticks * 10**6 // _TICKS[kind.unit])
    except OverflowError:
        return ticks
    return (moment.replace(tzinfo=timezone.utc) if kind.tz else moment).isoformat()


def _plain(value: Any, notes: Counter[str]) -> Any:
    """Return a value in a type that JSON supports."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        notes[_NOT_FINITE] += 1
        return None
    if isinstance(value, bytes):
        text, value_notes = to_text(value)
        notes.update(value_notes)
        return text
    if isinstance(value, Mapping):
        return {name: _plain(inner, notes) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, notes) for inner in value]
    if isinstance(value, (datetime, date, time_of_day)):
        return value.isoformat()
    return str(value)
