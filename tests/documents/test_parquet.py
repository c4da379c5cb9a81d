"""Parquet files: each row is a document, read in a helper process, with metadata from suitable columns."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import InputConfig, InputSource
from pipeline.config.limits import InputLimits
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.documents.helpers.pool import SPLITTERS
from pipeline.documents.tables.parquet import rows
from pipeline.errors import DocumentError
from pipeline.records import Document, Entry


def saved(table: pa.Table, **more: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **more)
    return out.getvalue()


def entries(path: Path, data: bytes, **more: Any) -> list[Entry]:
    path.write_bytes(data)
    return list(load_entries(InputConfig(uri=(InputSource(str(path)),), **more), output=None, counts=ListingCounts()))


def read(path: Path, data: bytes, **more: Any) -> list[Document]:
    text_field = more.get("text_field", "text")
    return [decode(entry, entry.read(), text_field=text_field) for entry in entries(path, data, **more)]


def reason(entry: Entry) -> tuple[str, str]:
    with pytest.raises(DocumentError) as error:
        entry.read()
    return error.value.reason, str(error.value)


def test_parquet_row_is_a_document(tmp_path: Path) -> None:
    """Rows are in the order of the row groups; vectors and bytes are left out, times are in UTC."""
    count = 100
    moment = pa.array([1_764_324_000_123_456_789] * count, pa.timestamp("ns", "Europe/Berlin"))
    table = pa.table(
        {
            "text": [f"text {number}" for number in range(count)],
            "key": list(range(count)),
            "when": moment,
            "local": pa.array([datetime(2026, 11, 28, 10)] * count, pa.timestamp("ms")),
            "never": pa.array([2**62] * count, pa.timestamp("us")),
            "day": [date(2026, 11, 28)] * count,
            "price": [Decimal("1.50")] * count,
            "rate": [float("nan")] * count,
            "tags": [["a", "b"]] * count,
            "more": [{"x": 1, "at": datetime(2026, 1, 2)}] * count,
            "kind": pa.array(["news"] * count).dictionary_encode(),
            "none": pa.nulls(count),
            "vector": [[0.25, 0.5]] * count,
            "raw": [b"\xff\x00"] * count,
        }
    )
    documents = read(tmp_path / "a.parquet", saved(table, row_group_size=30))
    assert [document.text for document in documents] == [f"text {number}" for number in range(count)]
    assert [document.id for document in documents] == [f"a.parquet#{number}" for number in range(1, count + 1)]
    assert documents[7].metadata == {
        "key": 7,
        "when": "2025-11-28T10:00:00.123456+00:00",
        "local": "2026-11-28T10:00:00",
        "never": 2**62,
        "day": "2026-11-28",
        "price": "1.50",
        "rate": None,
        "tags": ["a", "b"],
        "kind": "news",
        "none": None,
        "more": {"x": 1, "at": "2026-01-02T00:00:00"},
    }
    assert documents[7].notes == ("numbers_not_finite:1",)


def test_parquet_fields_may_be_paths_and_bytes(tmp_path: Path) -> None:
    """Old writers do not mark a column as text; invalid UTF-8 is noted."""
    table = pa.table({"page": [{"body": "a"}, {"body": "b"}], "key": ["k1", "k2"]})
    documents = read(tmp_path / "a.parquet", saved(table), text_field="page.body", id_field="key")
    assert [(document.id, document.text) for document in documents] == [("k1", "a"), ("k2", "b")]
    data = ("größer " * 20).encode()
    (found_,) = read(tmp_path / "b.parquet", saved(pa.table({"text": [data[:-10] + b"\xff" + data[-9:]]})))
    assert found_.text.startswith("größer größer")
    assert found_.notes == ("invalid_bytes:1",)


def test_parquet_without_the_text_column_fails_once(tmp_path: Path) -> None:
    """The message contains the names of its columns."""
    (entry,) = entries(tmp_path / "a.parquet", saved(pa.table({"body": ["a"] * 9, "key": list(range(9))})))
    assert reason(entry)[0] == "document_unreadable"
    assert "this document has the columns body, key" in reason(entry)[1]


def test_parquet_rows_without_text_fail_alone(tmp_path: Path) -> None:
    """Null and white space are no text; a long text is too large."""
    listing = entries(
        tmp_path / "a.parquet", saved(pa.table({"text": ["a", None, " ", "b" * 5000]})), max_document_bytes=4000
    )
    reasons = []
    for entry in listing:
        try:
            reasons.append(decode(entry, entry.read(), text_field="text").text)
        except DocumentError as problem:
            reasons.append(problem.reason)
    assert reasons == ["a", "document_unreadable", "document_empty", "document_too_large"]


@pytest.mark.parametrize("packed", ["gz", "zip"])
def test_compressed_parquet_is_held_in_memory(tmp_path: Path, packed: str) -> None:
    """It may be as large as a document, because the format is read from its end."""
    data = saved(pa.table({"text": ["a", "b"]}))
    if packed == "gz":
        path, content = tmp_path / "a.parquet.gz", gzip.compress(data)
    else:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a.parquet", data)
        path, content = tmp_path / "a.zip", out.getvalue()
    assert [document.text for document in read(path, content)] == ["a", "b"]
    (entry,) = entries(path, content, max_document_bytes=100)
    assert reason(entry)[0] == "document_too_large"
    assert "unpack it" in reason(entry)[1]


def test_damaged_parquet_gives_the_rows_before_the_damage(tmp_path: Path) -> None:
    """One failed document under the file's id follows."""
    data = saved(
        pa.table({"text": [f"text {n} " * 200 for n in range(900)]}),
        row_group_size=300,
        compression="none",
        use_dictionary=False,
    )
    cut = data.index(b"text 450 ")
    broken = data[:cut] + bytes(2000) + data[cut + 2000 :]
    start = broken.index(b"text 300 ") - 4
    broken = broken[:start] + b"\xff" * 4 + broken[start + 4 :]
    listing = entries(tmp_path / "a.parquet", broken)
    assert [entry.id for entry in listing[:300]] == [f"a.parquet#{n}" for n in range(1, 301)]
    assert (listing[-1].id, reason(listing[-1])[0]) == ("a.parquet", "document_unreadable")
    for junk in (b"", b"PAR1", b"no parquet at all", data[:-100], b"PAR1" + struct.pack("<I", 2**31 - 1) + b"PAR1"):
        (entry,) = entries(tmp_path / "b.parquet", junk)
        assert reason(entry)[0] == "document_unreadable"


def test_parquet_decompression_bomb_fails_the_file(tmp_path: Path) -> None:
    """The helper's memory is limited, and the run continues."""
    table = pa.table({"text": ["a" * 60_000_000]})
    bomb = saved(table, compression="zstd", use_dictionary=False, write_statistics=False)
    assert len(bomb) < 10_000
    (entry,) = entries(tmp_path / "a.parquet", bomb, limits={"memory_mb": 32})
    assert reason(entry)[0] == "document_too_expensive"
    assert [document.text for document in read(tmp_path / "b.parquet", saved(pa.table({"text": ["next"]})))] == ["next"]


def test_small_parquet_of_millions_of_rows_is_bounded(tmp_path: Path) -> None:
    """A column of equal values takes a few bytes for any number of rows."""
    table = pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * 30_000, pa.int8()), pa.array(["a"]))})
    bomb = saved(table)
    assert len(bomb) < 2000
    limits = {"unpacked_bytes": 1_000_000}
    listing = entries(tmp_path / "a.parquet", bomb, limits=limits)
    assert 1000 < len(listing) < 3000
    assert listing[0].read() == b'{"text":"a"}'
    assert reason(listing[-1])[0] == "document_too_expensive"


def test_helper_is_reused_for_several_parquet_files(tmp_path: Path) -> None:
    """Its start takes longer than reading most files."""
    for number in range(3):
        (tmp_path / f"{number}.parquet").write_bytes(saved(pa.table({"text": ["a", "b"]})))
    SPLITTERS.close()
    config = InputConfig(uri=(InputSource(str(tmp_path)),))
    started = SPLITTERS.started
    assert len(list(load_entries(config, output=None, counts=ListingCounts()))) == 6
    assert SPLITTERS.started == started + 1


def test_early_stop_ends_the_helper(tmp_path: Path) -> None:
    """The rest of the file is not read."""
    (tmp_path / "a.parquet").write_bytes(saved(pa.table({"text": ["a" * 1000] * 5000})))
    config = InputConfig(uri=(InputSource(str(tmp_path / "a.parquet")),))
    listing = load_entries(config, output=None, counts=ListingCounts())
    assert next(listing).id == "a.parquet#1"
    listing.close()  # type: ignore[attr-defined]


_CELLS = {
    "s": (pa.string(), st.text(max_size=20)),
    "i": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "f": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "b": (pa.bool_(), st.booleans()),
    "t": (pa.timestamp("us"), st.datetimes()),
    "l": (pa.list_(pa.string()), st.lists(st.text(max_size=5), max_size=3)),
    "d": (pa.duration("ms"), st.timedeltas(timedelta(days=-9), timedelta(days=9))),
}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.integers(0, 80), st.integers(1, 50), st.sampled_from(["zstd", "none", "snappy"]))
def test_every_parquet_value_is_read(data: st.DataObject, count: int, group: int, packing: str) -> None:
    """Rows may be grouped and compressed in any way."""
    columns = {}
    for name, (kind, values) in _CELLS.items():
        cells = data.draw(st.lists(st.one_of(st.none(), values), min_size=count, max_size=count))
        columns[name] = pa.array(
            [cell.replace(microsecond=0) if isinstance(cell, datetime) else cell for cell in cells], kind
        )
    file = io.BytesIO(saved(pa.table(columns), row_group_size=group, compression=packing))
    payload = [json.loads(row) for row, _ in rows(file, text_field="s", id_field=None)]

    def plain(value: Any) -> Any:
        if isinstance(value, timedelta):
            return value / timedelta(milliseconds=1) // 1 / 1000
        return value.isoformat() if isinstance(value, datetime) else value

    expected = [{name: plain(column[at].as_py()) for name, column in columns.items()} for at in range(count)]
    assert payload == expected


def test_parquet_times_with_a_zone_are_in_utc() -> None:
    """The zone's name is not kept, because not every machine knows it."""
    moment = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
    table = pa.table({"text": ["a"], "at": pa.array([moment], pa.timestamp("us", "America/New_York"))})
    ((row, _),) = rows(io.BytesIO(saved(table)), text_field="text", id_field=None)
    assert json.loads(row)["at"] == "2026-07-01T12:00:00+00:00"
    assert InputLimits().memory_mb == 200
