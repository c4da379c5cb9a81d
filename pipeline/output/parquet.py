"""Results as one Parquet file, for query engines that read columns.

It must not hold more than a batch of rows. Free-form fields (output, metadata) are columns of JSON text, so that
results of different agents or schema versions fit into one table.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from pipeline.errors import ConfigError

_ROWS = 2000
_TEXTS = ("id", "uri", "sha256", "agent", "variant", "fingerprint", "run_id", "shard", "version")
_NUMBERS = ("attempts", "reasks", "context_length", "document_chars", "run")
_MODEL = ("provider", "name", "endpoint", "digest")
_USAGE = ("prompt_tokens", "completion_tokens")
_JSON = ("output", "metadata")


def library() -> Any:
    """Import PyPI `pyarrow`; ConfigError naming the extra when it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as cause:
        message = "--format parquet needs PyPI `pyarrow`: pip install 'extraction-pipeline[parquet]'"
        raise ConfigError(message) from cause
    return pyarrow


def parquet(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a Parquet file in pieces, from lines of results."""
    pyarrow = library()
    schema = _schema(pyarrow)
    sink = _Pieces()
    source = iter(lines)
    writer = pyarrow.parquet.ParquetWriter(sink, schema, compression="zstd")
    while batch := list(islice(source, _ROWS)):
        writer.write_table(pyarrow.Table.from_pylist([_row(json.loads(line)) for line in batch], schema=schema))
        yield sink.taken()
    writer.close()
    yield sink.taken()


class _Pieces(io.RawIOBase):
    """A write-only file whose content is taken out piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        """Return the bytes written since the last call."""
        pieces = self._pieces
        self._pieces = []
        return b"".join(pieces)


def _schema(pyarrow: Any) -> Any:
    columns = {
        **dict.fromkeys(_TEXTS, pyarrow.string()),
        **dict.fromkeys(_JSON, pyarrow.string()),
        **{f"model_{name}": pyarrow.string() for name in _MODEL},
        **dict.fromkeys((*_NUMBERS, *_USAGE), pyarrow.int64()),
        "repaired": pyarrow.bool_(),
        "notes": pyarrow.list_(pyarrow.string()),
        "latency_s": pyarrow.float64(),
        "finished_at": pyarrow.timestamp("ms", tz="UTC"),
    }
    return pyarrow.schema(list(columns.items()))


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    model = record.get("model") or {}
    usage = record.get("usage") or {}
    return {
        **{name: record.get(name) for name in (*_TEXTS, *_NUMBERS, "repaired", "notes", "latency_s")},
        **{name: json.dumps(record.get(name), ensure_ascii=False) for name in _JSON},
        **{f"model_{name}": model.get(name) for name in _MODEL},
        **{name: usage.get(name) for name in _USAGE},
        "finished_at": datetime.fromisoformat(record["finished_at"].replace("Z", "+00:00")),
    }
