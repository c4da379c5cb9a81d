"""CSV records of every kind: dialects, title lines, damaged quotes; a damaged record costs only itself."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.errors import ConfigError, DocumentError

CASES = Path(__file__).parents[1] / "data" / "documents" / "csv"
Found = list[tuple[str, str]]


def read(path: Path, counts: ListingCounts | None = None, **more: Any) -> Found:
    """Return number and text of each document, or the reason why it has none."""
    config = InputConfig(uri=(InputSource(str(path)),), **more)
    collected = []
    for entry in load_entries(config, output=None, counts=counts or ListingCounts()):
        try:
            text = decode(entry, entry.read(), text_field=config.text_field).text
        except DocumentError as problem:
            text = f"!{problem.reason}"
        collected.append((entry.id.partition("#")[2], text))
    return collected


def put(folder: Path, data: bytes | str, name: str = "a.csv") -> Path:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


BAD = "!document_unreadable"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (
            "01_unclosed_quote_swallows_rest.csv",
            [("1", BAD), ("2", "second record"), ("3", "third record"), ("4", "fourth record")],
        ),
        ("03_sep_line_of_excel.csv", [("1", "first")]),
        ("06_duplicate_header_text.csv", [("", BAD)]),
        ("08_header_case_Text.csv", [("1", "first")]),
        ("13_nul_byte_in_cell.csv", [("1", "first"), ("2", "second")]),
        ("18_no_header.csv", [("", BAD)]),
    ],
)
def test_csv_case_has_all_its_records(case: str, expected: Found) -> None:
    """Each record is a document or fails; a file without the text column fails once."""
    assert read(CASES / case) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("id,text\n1,a\n\n2,b\n", [("1", "a"), ("2", "b")]),
        ('id,text\n1,"a\nb"\n2,c\n', [("1", "a\nb"), ("2", "c")]),
        ('id,text\n1,"a ""b"" c"\n', [("1", 'a "b" c')]),
        ('id,text\n1,a "b" c\n', [("1", 'a "b" c')]),
        ('id,text\n1,"a "b" c"\n2,d\n', [("1", BAD), ("2", "d")]),
        ('id,text\n1,"a \\"b\\" c"\n2,d\n', [("1", 'a "b" c'), ("2", "d")]),
        ('id,text\n1,"a\\", b"\n2,d\n', [("1", 'a", b'), ("2", "d")]),
        ("id,text\n1,a,b\n2,c\n", [("1", BAD), ("2", "c")]),
        ('id,text\n1,"a\n2,b\n3,"c\n4,d\n', [("1", BAD), ("2", "b"), ("3", BAD), ("4", "d")]),
        ('id,text\n1,"a\n2,b\n3,"c"\n', [("1", BAD), ("2", "b"), ("3", "c")]),
        ("'id','text'\n'1','a, it''s'\n", [("1", "a, it's")]),
        ("Quarterly report\n\nid;text\n1;a\n", [("1", "a")]),
        ("Report, of the year\nid,text\n1,a\n", [("1", "a")]),
        ("sep=|\nid|text\n1|a,b\n", [("1", "a,b")]),
        ("TEXT,Text\na,b\n", [("", BAD)]),
        ("text,Text\na,b\n", [("1", "a")]),
        ("", []),
        ("id,text\n", []),
    ],
)
def test_csv_records_of_every_style_are_found(tmp_path: Path, data: str, expected: Found) -> None:
    """A damaged record fails alone, and none is missing."""
    assert read(put(tmp_path, data)) == expected


def test_lines_above_the_header_are_counted(tmp_path: Path) -> None:
    """They are counted once per file."""
    counts = ListingCounts()
    assert read(put(tmp_path, "A\nB\nid,text\n1,a\n"), counts) == [("1", "a")]
    assert counts.ignored == {"(lines above a header)": 1}


def test_csv_dialect_is_configurable(tmp_path: Path) -> None:
    """Quote, escape and delimiter can be set; wrong values are refused with the setting."""
    path = put(tmp_path, "text:id\n~a:b~:1\n~c$~d~:2\n")
    assert read(path, csv={"quotechar": "~", "escapechar": "$", "delimiter": ":"}) == [("1", "a:b"), ("2", "c~d")]
    assert read(put(tmp_path, "id\ttext\n1\ta, b\n", "a.tsv")) == [("1", "a, b")]
    for wrong, message in (
        ({"quote": "'"}, "csv.quote: unknown"),
        ({"quotechar": "''"}, "csv.quotechar: got"),
        ({"quotechar": ",", "delimiter": ","}, "which is csv.quotechar"),
    ):
        with pytest.raises(ConfigError, match=message):
            InputConfig(csv=wrong)


def test_unclosed_quote_in_a_large_file_costs_one_record(tmp_path: Path) -> None:
    """The rest may exceed a document's limit; a long text of many lines is still one record."""
    lines = [f"{n},record {n}\n" for n in range(20_000)]
    lines[100] = '100,"record 100\n'
    documents = read(put(tmp_path, "id,text\n" + "".join(lines)), max_document_bytes=10_000)
    assert len(documents) == 20_000
    assert [number for number, text in documents if text == BAD] == ["101"]
    text = "A line of prose without a comma\n" * 1000
    documents = read(put(tmp_path, f'id,text\n1,"{text}"\n2,b\n'), max_document_bytes=10_000)
    assert documents == [("1", "!document_too_large"), ("2", "b")]


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n,;'\"\\ "), max_size=20)


@settings(deadline=None, max_examples=80)
@given(
    cells=st.lists(st.tuples(CELLS, CELLS.map(lambda text: f"t{text}")), min_size=1, max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    quotechar=st.sampled_from("\"'"),
    escapechar=st.sampled_from([None, "\\"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_csv_records_are_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[str, str]],
    delimiter: str,
    quoting: Any,
    end: str,
    quotechar: str,
    escapechar: str | None,
    encoding: str,
) -> None:
    """This holds in any dialect that the settings can name."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end, quotechar=quotechar,
                        escapechar=escapechar, doublequote=escapechar is None)  # fmt: skip
    writer.writerow(["id", "text"])
    writer.writerows(cells)
    path = put(tmp_path_factory.mktemp("a"), out.getvalue().encode(encoding))
    dialect = {"quotechar": quotechar, "escapechar": escapechar, "delimiter": delimiter}
    assert [text for _, text in read(path, csv=dialect)] == [text for _, text in cells]


PROSE = st.text("abc ", min_size=1, max_size=12).map(lambda text: f"x{text}")


@settings(deadline=None, max_examples=100)
@given(texts=st.lists(PROSE, min_size=2, max_size=8), data=st.data())
def test_lost_quote_costs_one_record(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    """Whichever quote is lost, all other quoted records are read under their own numbers."""
    lines = [f'"{at}","{text}{at}"' for at, text in enumerate(texts)]
    which = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.sampled_from([at for at, char in enumerate(lines[which]) if char == '"']))
    lines[which] = lines[which][:at] + lines[which][at + 1 :]
    path = put(tmp_path_factory.mktemp("a"), "id,text\n" + "\n".join(lines) + "\n")
    contents = dict(read(path))
    assert len(contents) == len(texts)
    assert all(contents[str(n)] == f"{text}{n - 1}" for n, text in enumerate(texts, 1) if n - 1 != which)


def test_csv_record_bytes_are_canonical_json(tmp_path: Path) -> None:
    """The hash is made of them, so an upgrade must not change them."""
    config = InputConfig(uri=(InputSource(str(put(tmp_path, "text,b\nx,1\n"))),))
    (entry,) = load_entries(config, output=None, counts=ListingCounts())
    assert entry.read() == json.dumps({"b": "1", "text": "x"}, separators=(",", ":")).encode()
