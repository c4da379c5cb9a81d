"""Results as one Parquet file, for query engines that read columns.

It must not hold more than a batch of rows. `output` has a nested column for each property with a type in the agent's
schema; a value that does not fit, such as one of an older schema, becomes null, and its path is in `misfits`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from pipeline.config.installing import install_command
from pipeline.errors import ConfigError
from pipeline.output.columns import ColumnType, ListOf, Struct, column_type, in_column

_ROWS = 2000
_TEXTS = ("id", "uri", "sha256", "agent", "variant", "fingerprint", "run_id", "shard", "version", "text_sha256")
_NUMBERS = ("attempts", "reasks", "context_length", "document_chars", "run")
_MODEL = ("provider", "name", "endpoint", "digest")
_USAGE = ("prompt_tokens", "completion_tokens")
_PLACES = ("evidence", "windows", "merge")
"""Columns of JSON text: the positions of quotes, the windows, and the merge."""


def library() -> Any:
    """Import PyPI `pyarrow`; ConfigError naming the extra when it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as cause:
        message = f"--format parquet needs PyPI `pyarrow`: {install_command('parquet')}"
        raise ConfigError(message) from cause
    return pyarrow


def parquet(lines: Iterable[bytes], *, answer_schema: Mapping[str, Any] | None) -> Iterator[bytes]:
    """Yield the bytes of a Parquet file in pieces, from lines of results.

    `answer_schema`: that of the newest answers; without one `output` is JSON text.
    """
    pyarrow = library()
    output = column_type(answer_schema)
    yield from _file_pieces(pyarrow, _schema(pyarrow, output), (_row(json.loads(line), output) for line in lines))


def parquet_table(columns: Mapping[str, ColumnType], rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield the bytes of a Parquet file of these columns; `_finished_at` is a time."""
    pyarrow = library()
    kinds = {name: _arrow(pyarrow, kind) for name, kind in columns.items()}
    if "_finished_at" in kinds:
        kinds["_finished_at"] = pyarrow.timestamp("ms", tz="UTC")
    timed = ({**row, "_finished_at": _moment(row.get("_finished_at"))} for row in rows)
    yield from _file_pieces(pyarrow, pyarrow.schema(list(kinds.items())), timed)


def _file_pieces(pyarrow: Any, schema: Any, rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
    sink = _Pieces()
    writer = pyarrow.parquet.ParquetWriter(sink, schema, compression="zstd")
    while batch := list(islice(rows, _ROWS)):
        writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
        yield sink.take_content()
    writer.close()
    yield sink.take_content()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


class _Pieces(io.RawIOBase):
    """A write-only file whose content is read and removed piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def take_content(self) -> bytes:
        """Return the bytes written since the last call."""
        pieces = self._pieces
        self._pieces = []
        return b"".join(pieces)


def _schema(pyarrow: Any, output: ColumnType) -> Any:
    columns = {
        **dict.fromkeys(_TEXTS, pyarrow.string()),
        "output": _arrow(pyarrow, output),
        "misfits": pyarrow.list_(pyarrow.string()),
        "metadata": pyarrow.string(),
        **dict.fromkeys(_PLACES, pyarrow.string()),
        **{f"model_{name}": pyarrow.string() for name in _MODEL},
        **dict.fromkeys((*_NUMBERS, *_USAGE), pyarrow.int64()),
        "repaired": pyarrow.bool_(),
        "notes": pyarrow.list_(pyarrow.string()),
        "latency_s": pyarrow.float64(),
        "finished_at": pyarrow.timestamp("ms", tz="UTC"),
    }
    return pyarrow.schema(list(columns.items()))


def _arrow(pyarrow: Any, kind: ColumnType) -> Any:
    """Return the library's type for a column type."""
    if isinstance(kind, ListOf):
        return pyarrow.list_(_arrow(pyarrow, kind.item))
    if isinstance(kind, Struct):
        return pyarrow.struct([(name, _arrow(pyarrow, inner)) for name, inner in kind.fields.items()])
    scalars = {"integer": pyarrow.int64(), "number": pyarrow.float64(), "boolean": pyarrow.bool_()}
    return scalars.get(kind, pyarrow.string())


def _row(record: Mapping[str, Any], output: ColumnType) -> dict[str, Any]:
    misfits: list[str] = []
    model = record.get("model") or {}
    usage = record.get("usage") or {}
    places = {name: record.get(name) for name in _PLACES}
    return {
        **{name: record.get(name) for name in (*_TEXTS, *_NUMBERS, "repaired", "notes", "latency_s")},
        "output": in_column(record.get("output"), output, misfits),
        "misfits": list(dict.fromkeys(misfits)),
        "metadata": json.dumps(record.get("metadata"), ensure_ascii=False),
        **{name: None if place is None else json.dumps(place, ensure_ascii=False) for name, place in places.items()},
        **{f"model_{name}": model.get(name) for name in _MODEL},
        **{name: usage.get(name) for name in _USAGE},
        "finished_at": _moment(record["finished_at"]),
    }
