"""Planned files: listed once and read later, whole or in parts, with the documents and ids of a listing."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, load_entries
from pipeline.documents.planned import PlannedFile, PlannedInput, planned_file
from pipeline.errors import DocumentError, TryLaterError
from pipeline.records import Entry

FEED = """<rss version="2.0"><channel><title>N</title>{}</channel></rss>"""
ITEM = "<item><guid>g{0}</guid><title>T{0}</title><description>The text of item {0}.</description></item>"


def contents_of(entries: Iterator[Entry]) -> list[tuple[Any, ...]]:
    """Return each entry as a run uses it, with its bytes or its problem."""
    collected = []
    for entry in entries:
        try:
            data: object = entry.read()
        except DocumentError as problem:
            data = (problem.reason, str(problem))
        notes = getattr(entry.read, "notes", ())
        collected.append((entry.id, entry.uri, entry.version, entry.size_bytes, entry.format, data, notes))
    return collected


def config_of(*folders: Path, **more: Any) -> InputConfig:
    """Return an input of these folders, of which all but the first have a name."""
    sources = [InputSource(str(folder), name=f"n{at}" if at else None) for at, folder in enumerate(folders)]
    return InputConfig(uri=tuple(sources), **more)


def planned(config: InputConfig, part_bytes: int) -> list[PlannedFile]:
    """Return the rows of a plan, read back from their lines, with every file divided that can be divided."""
    inputs = PlannedInput(config, output=None, counts=ListingCounts())
    rows: list[PlannedFile] = []
    for file in inputs.files():
        is_due = lambda start, place: place.offset - start.offset >= part_bytes  # noqa: E731
        parts = inputs.parts(file, is_due) if inputs.divider_of(file) else []
        rows += [replace(file, part=part) for part in parts] or [file]
    return [planned_file(row.to_line()) for row in rows]


def listed(config: InputConfig) -> list[tuple[Any, ...]]:
    """Return the entries of a run without a plan."""
    return contents_of(load_entries(config, output=None, counts=ListingCounts()))


def read(config: InputConfig, rows: list[PlannedFile]) -> list[tuple[Any, ...]]:
    """Return the entries of all chunks of a plan, each row read on its own."""
    collected = []
    for row in rows:
        collected += contents_of(PlannedInput(config, output=None, counts=ListingCounts()).entries([row]))
    return collected


def age(folder: Path) -> None:
    """Make the files old enough for their versions to be trusted."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 3600,) * 2)


def every_kind(folder: Path) -> None:
    """Fill a folder with single documents, containers and archives of every kind."""
    lines = "".join(json.dumps({"text": f"Line {n}."}) + "\n" for n in range(50))
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "plain.txt").write_text("Plain.")
    (folder / os.fsdecode(b"bad\xff.txt")).write_text("A name that is no UTF-8.")
    (folder / "one.json").write_text('{"text": "One."}')
    (folder / "array.json").write_text(json.dumps([{"text": f"Item {n}."} for n in range(9)]))
    (folder / "lines.jsonl").write_text(lines)
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "wide.jsonl").write_bytes(lines.encode("utf-16"))
    (folder / "table.csv").write_text("text,n\n" + "".join(f'"Row {n}\nof two lines",{n}\n' for n in range(50)))
    (folder / "latin.csv").write_bytes(
        b"text;n\n" + "".join(f"Zürich für {n};1\n" for n in range(50)).encode("latin-1")
    )
    (folder / "tabs.tsv").write_text("id\ttext\n" + "".join(f"{n}\tCell {n}\n" for n in range(50)))
    (folder / "feed.xml").write_text(FEED.format("".join(ITEM.format(n) for n in range(9))))
    (folder / "mails.mbox").write_text("".join(f"From x\nSubject: S{n}\n\nMail {n}.\n\n" for n in range(5)))
    (folder / "cut.zip").write_bytes(b"PK\x03\x04 no archive")
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("in/x.txt", "In a zip.")
        archive.writestr("in/y.jsonl", lines)
    with tarfile.open(folder / "archive.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("t.csv")
        data = b"text\nIn a tar.\n"
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    table = pyarrow.table({"text": [f"Cell {n}." for n in range(50)]})
    pyarrow.parquet.write_table(table, folder / "rows.parquet", row_group_size=8)
    (folder / "picture.png").write_bytes(b"x")
    age(folder)


@pytest.mark.parametrize("part_bytes", [1, 200, 10**9])
def test_planned_entries_equal_those_of_a_listing(tmp_path: Path, part_bytes: int) -> None:
    """URIs, versions, sizes, notes and problems agree, whole or divided, also under an input name."""
    every_kind(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "more.jsonl").write_text('{"text": "More."}\n' * 30)
    config = config_of(tmp_path / "one", tmp_path / "two")
    rows = planned(config, part_bytes)
    assert read(config, rows) == listed(config)
    divided = {row.path for row in rows if row.part is not None}
    assert divided >= {"lines.jsonl", "table.csv", "tabs.tsv", "more.jsonl", "rows.parquet"}
    assert "wide.jsonl" not in divided


LINES = st.lists(
    st.sampled_from(
        [
            '{"text": "one"}',
            '{"text": "é"}\r',
            "",
            '{\n "text": "over lines"\n}',
            '{"text": "a"}{"text": "b"}',
            "no JSON",
            '{"text": "' + "long " * 60 + '"}',
            '{"text": "' + "longer " * 90 + '"}',
            '{"text": {\n{"a": 1}\n}}',
            '\x1e{"text": "c"}',
            "[1]",
        ]
    ),
    max_size=30,
)
CELLS = st.lists(
    st.sampled_from(
        [
            "plain,1\n",
            '"two\nlines",2\r\n',
            '"a ""quoted"" one",3\n',
            "\n",
            'broken "quote,4\n',
            '"never closed,5\n',
            "too,many,cells\n",
            "é,6\n",
            "nul\0,7\n",
            '"' + "long " * 120 + '",8\n',
            "last,9\r",
        ]
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(lines=LINES, end=st.sampled_from(["", "\n"]), bom=st.booleans(), part_bytes=st.integers(1, 400))
def test_json_lines_are_divided_between_documents(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, bom: bool, part_bytes: int
) -> None:
    """Cases are multi-line objects, several per line, too long lines, and text that is not JSON."""
    data = ("\ufeff" if bom else "") + "\n".join(['{"text": "first"}', *lines]) + end
    _same(tmp_path_factory, "l.jsonl", data.encode(), part_bytes)


@settings(max_examples=60, deadline=None)
@example(  # the first part alone looks like UTF-16, the file does not
    cells=[
        *["plain,1\n"] * 5,
        *["nul\0,7\n", '"two\nlines",2\r\n', "nul\0,7\n"],
        *['"a ""quoted"" one",3\n'] * 2,
        *["é,6\n", '"two\nlines",2\r\n'],
    ],
    bom=False,
    part_bytes=119,
)
@given(cells=CELLS, bom=st.booleans(), part_bytes=st.integers(1, 400))
def test_csv_tables_are_divided_between_records(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str], bom: bool, part_bytes: int
) -> None:
    """Cases are quoted line ends, unclosed quotes, and records over the limit."""
    data = ("\ufeff" if bom else "") + "text,n\n" + "".join(cells)
    _same(tmp_path_factory, "t.csv", data.encode(), part_bytes)


def _same(folders: pytest.TempPathFactory, name: str, data: bytes, part_bytes: int) -> None:
    folder = folders.mktemp("in")
    (folder / name).write_bytes(data)
    age(folder)
    config = config_of(folder, max_document_bytes=500)
    rows = planned(config, part_bytes)
    assert [row.part.start for row in rows if row.part][1:] == [row.part.end for row in rows if row.part][:-1]
    assert read(config, rows) == listed(config)


def io_bytes() -> int:
    """Return the number of bytes that this process has read so far."""
    (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar")]
    return int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel counts no reads")
def test_part_reads_only_its_bytes(tmp_path: Path) -> None:
    """Of a table it also reads the header."""
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([["x" * 1000]] * 2000)
    age(tmp_path)
    config = config_of(tmp_path)
    rows = planned(config, 200_000)
    assert len(rows) == 10
    opened: list[int] = []
    source = PlannedInput(config, output=None, counts=ListingCounts())
    before = io_bytes()
    for entry in source.entries(rows[8:9]):
        opened.append(len(entry.read()))
    assert len(opened) == 200
    assert io_bytes() - before < 220_000 + 2 * (1 << 18)


def test_link_is_followed_only_if_the_listing_found_one(tmp_path: Path) -> None:
    """A file that has become a link counts as removed."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "_real").mkdir()
    (tmp_path / "in" / "_real" / "a.txt").write_text("Real.")
    (tmp_path / "in" / "linked.txt").symlink_to("_real/a.txt")
    (tmp_path / "in" / "b.txt").write_text("B.")
    age(tmp_path / "in")
    config = config_of(tmp_path / "in")
    rows = planned(config, 100)
    assert [(row.path, row.linked) for row in rows] == [("b.txt", False), ("linked.txt", True)]
    assert read(config, rows) == listed(config)
    (tmp_path / "secret").write_text("Outside.")
    (tmp_path / "in" / "b.txt").unlink()
    (tmp_path / "in" / "b.txt").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "linked.txt").unlink()
    (tmp_path / "in" / "linked.txt").symlink_to(tmp_path / "secret")
    problems = read(config, rows)
    assert [(entry[0], entry[5][0]) for entry in problems] == [("linked.txt", "document_unreadable")]


def test_changed_divided_file_is_not_read(tmp_path: Path) -> None:
    """Its numbers may mean other documents now; all other files are read first."""
    (tmp_path / "a.jsonl").write_text('{"text": "One."}\n' * 10)
    (tmp_path / "z.txt").write_text("Z.")
    age(tmp_path)
    config = config_of(tmp_path)
    rows = planned(config, 50)
    (tmp_path / "a.jsonl").write_text('{"text": "Two."}\n' * 10)
    entries = PlannedInput(config, output=None, counts=ListingCounts()).entries(rows)
    assert next(entries).id == "z.txt"
    with pytest.raises(TryLaterError, match=r"divided files have changed since they were planned: a\.jsonl"):
        next(entries)


def test_plan_lines_are_read_back(tmp_path: Path) -> None:
    """Any file name is preserved."""
    (tmp_path / os.fsdecode(b"\xff\x80 \n.txt")).write_text("x")
    (row,) = planned(config_of(tmp_path), 1)
    assert planned_file(row.to_line()) == row
    assert row.to_line().count(b"\n") == 1
