"""Files that expand far beyond their size: one failed document that explains it, after the documents read before."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from documents_of import in_folder_of_input
from evil_documents import gzip_of_zeros, overlapping_zip, tar_of_empty_members, wide_table

from pipeline.config import InputConfig, InputSource
from pipeline.config.limits import FREE_UNPACKED_BYTES
from pipeline.documents import ListingCounts, load_entries
from pipeline.errors import DocumentError

_in_tmp_path = pytest.fixture(autouse=True)(in_folder_of_input)


def read(name: str, data: bytes, **more: Any) -> list[tuple[str, Any]]:
    """Return each entry of a file with its size, or with its reason and message."""
    Path("in", name).write_bytes(data)
    collected = []
    for entry in load_entries(InputConfig(uri=(InputSource("in"),), **more), output=None, counts=ListingCounts()):
        try:
            collected.append((entry.id, len(entry.read())))
        except DocumentError as error:
            collected.append((entry.id, (error.reason, str(error))))
    return collected


def test_overlapping_members_are_a_broken_archive() -> None:
    """Two thousand members on one stream are not unpacked two thousand times; the first one is a document."""
    started = time.process_time()
    documents = read("a.zip", overlapping_zip())
    assert documents[0] == ("a.zip!/0.txt", 10_000_000)
    (last,) = documents[1:]
    assert last[0] == "a.zip"
    assert last[1][0] == "document_unreadable"
    assert "overlap" in last[1][1]
    assert time.process_time() - started < 5


@pytest.mark.parametrize("columns", [1_000_000, 10_001])
def test_table_with_too_many_columns_fails(columns: int) -> None:
    """The whole file is one failed document that names the setting."""
    ((id, (reason, message)),) = read("a.csv", wide_table(columns), max_document_bytes=20_000_000)
    assert (id, reason) == ("a.csv", "document_too_expensive")
    assert f"{columns} columns, more than 10000 (input.limits.columns)" in message


def test_limit_of_columns_is_configurable() -> None:
    """A wider table is read if the setting allows it."""
    assert len(read("a.csv", wide_table(10_001), limits={"columns": 20_000})) == 20


def test_record_size_includes_its_column_names() -> None:
    """A record with few cells and huge names is too large; other records are not affected."""
    documents = read("a.csv", wide_table(1000, rows=2), max_document_bytes=9000)
    assert [(id, reason[0]) for id, reason in documents] == [
        ("a.csv#1", "document_too_large"),
        ("a.csv#2", "document_too_large"),
    ]
    assert "input.max_document_bytes (9000)" in documents[0][1][1]
    assert [size for _, size in read("a.csv", wide_table(1000, rows=2), max_document_bytes=20_000)] > [9000, 9000]


def test_table_expansion_is_bounded() -> None:
    """A table whose records exceed fifty times its size is abandoned; the records before that are read."""
    data = wide_table(9000, rows=40_000, name_chars=60)
    documents = read("a.csv", data)
    assert documents[-1][1][0] == "document_too_expensive"
    assert "input.limits.table_ratio" in documents[-1][1][1]
    assert [id for id, _ in documents[:-1]] == [f"a.csv#{number}" for number in range(1, len(documents))]
    total_bytes = sum(size for _, size in documents[:-1])
    assert FREE_UNPACKED_BYTES < total_bytes < FREE_UNPACKED_BYTES + 50 * len(data) + 1_000_000


def test_wide_sparse_table_is_read() -> None:
    """Five hundred sparse columns and thousands of rows are no attack."""
    names = ",".join(f"column_name_number_{number:04}" for number in range(500))
    data = f"text,{names}\n".encode() + (b"some text" + b"," * 500 + b"\n") * 8000
    assert len(read("a.csv", data)) == 8000


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.tar.gz"])
def test_decompression_bomb_is_abandoned(name: str) -> None:
    """A stream that expands to hundreds of times its size is given up after the first 64 MB."""
    bomb = gzip_of_zeros(1 << 28) if name != "a.tar.gz" else tar_of_empty_members(200_000)
    before = {"a.jsonl.gz": gzip.compress(b'{"text":"x"}\n'), "a.csv.gz": gzip.compress(b"text\nx\n")}.get(name, b"")
    started = time.process_time()
    documents = read(name, before + bomb)
    assert documents[-1][0] == name
    assert documents[-1][1][0] == "document_too_expensive"
    if before:
        assert documents[0] == (
            f"{name}#1",
            12 if "json" in name else len(json.dumps({"text": "x"}, separators=(",", ":"))),
        )
    assert time.process_time() - started < 25


def test_archive_has_limits_on_members_and_bytes() -> None:
    """Members up to the limit are documents, then one failure names the setting."""
    data = tar_of_empty_members(5)
    documents = read("a.tar.gz", data, limits={"members": 3})
    assert [id for id, _ in documents] == ["a.tar.gz!/0.txt"] * 3 + ["a.tar.gz"]
    assert "more than 3 members (input.limits.members)" in documents[-1][1][1]
    assert (
        "more than 5000 bytes (input.limits.unpacked_bytes)"
        in read("a.tar.gz", data, limits={"unpacked_bytes": 5000})[-1][1][1]
    )
