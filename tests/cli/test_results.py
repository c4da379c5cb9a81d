"""`pipeline results`: the current result of each document in every format, with conditions and exploded lists."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Place
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Record, read_results
from pipeline.errors import ConfigError
from pipeline.report.parquet_rows import columns_of
from pipeline.report.rows import Condition, Row, parse_condition, paths_of_schema
from pipeline.report.table_formats import csv_lines

SCHEMA = {
    "type": "object",
    "properties": {
        "companies": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "score": {"type": "number"}}},
        },
        "severity": {"type": ["integer", "null"]},
        "note": {"type": "string"},
    },
}


def line(document_id: str, output: Any, *, run: int = 1, sha256: str = "a") -> dict[str, Any]:
    head = {"v": 1, "id": document_id, "uri": document_id, "sha256": sha256 * 64, "agent": "a", "variant": "default"}
    what = {"reason": "timeout", "runs": 1} if output is None else {"output": output, "model": {"name": "m"}}
    tail = {"finished_at": "2026-01-01T00:00:00.000Z", "version": None, "run": run, "run_id": "r", "shard": None}
    return {**head, "fingerprint": "1" * 64, **what, **tail}


def write(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    run = {"run": 1, "config": {"question": {"default": {"agent": "a", "schema": SCHEMA}}}}
    (folder / "runs" / "r.json").write_text(json.dumps(run), encoding="utf-8")
    for name, wanted in (("results.jsonl", True), ("errors.jsonl", False)):
        written = [json.dumps(each, separators=(",", ":")) + "\n" for each in lines if ("output" in each) == wanted]
        (folder / name).write_text("".join(written), encoding="utf-8")


@pytest.fixture
def filled(place: Place) -> Place:
    """Three results, one of which is stale and one replaced, and one failure without a result."""
    acme = {"name": "Acme", "score": 1.5}
    beta = {"name": "Beta", "score": -5}
    write(
        place.folder / "out",
        line("one", {"companies": [], "severity": 1, "note": "old"}),
        line("two", {"companies": [acme, beta], "severity": 60, "note": "=1+1"}),
        line("three", {"companies": [beta], "severity": None, "note": ""}),
        line("one", {"companies": [], "severity": 2, "note": "a, b"}, run=2),
        line("three", None, run=2, sha256="b"),
        line("four", None, run=2),
    )
    return place


def results(place: Place, *arguments: str) -> list[dict[str, Any]]:
    ran = place.call("results", "out", *arguments)
    assert ran.code == 0, ran.err
    return [json.loads(row) for row in ran.out.splitlines()]


def test_the_current_records(filled: Place) -> None:
    """One whole record for each document, in the order of the lines; a failure has no row, which is said."""
    ran = filled.call("results", "out")
    rows = [json.loads(row) for row in ran.out.splitlines()]
    assert [(row["id"], row["status"], row["output"]["note"]) for row in rows] == [
        ("two", "done", "=1+1"),
        ("three", "stale", ""),
        ("one", "done", "a, b"),
    ]
    assert ran.err.endswith("1 document failed and has no row (--failed)\n")


def test_failed_documents(filled: Place) -> None:
    """A row of its own, whose values are null and whose reason says why."""
    rows = results(filled, "--failed", "--fields", "id,_status,_reason,severity")
    assert rows[-1] == {"id": "four", "_status": "failed", "_reason": "timeout", "severity": None}


@pytest.mark.parametrize(
    ("conditions", "ids"),
    [
        (["severity >= 2"], ["two", "one"]),
        (["severity>2"], ["two"]),
        (["!severity"], ["three"]),
        (["companies", "note ~ =1"], ["two"]),
        (["companies.name = Beta"], ["two", "three"]),
        (["companies.name != Beta"], ["one"]),
        (["_status = stale"], ["three"]),
        (['note = ""'], ["three"]),
        (["note < b"], ["two", "three", "one"]),
    ],
)
def test_conditions(filled: Place, conditions: list[str], ids: list[str]) -> None:
    """All conditions must hold; of a list any item suffices, and numbers are compared with numbers only."""
    flags = [flag for condition in conditions for flag in ("--where", condition)]
    assert [row["id"] for row in results(filled, *flags)] == ids


def test_exploded_lists(filled: Place) -> None:
    """A row for each item with its position; a document without items keeps one row of nulls."""
    rows = results(filled, "--explode", "companies")
    assert [(row["id"], row["_position"], row["companies.name"]) for row in rows] == [
        ("two", 0, "Acme"),
        ("two", 1, "Beta"),
        ("three", 0, "Beta"),
        ("one", None, None),
    ]
    assert results(filled, "--explode", "companies", "--where", "companies.score < 0", "--fields", "id") == [
        {"id": "two"},
        {"id": "three"},
    ]


def test_csv(filled: Place) -> None:
    """RFC 4180 with LF: null is an empty cell, an empty string is quoted, a formula is disarmed."""
    ran = filled.call("results", "out", "--format", "csv", "--fields", "id,severity,note,companies")
    assert ran.out == (
        "id,severity,note,companies\n"
        'two,60,\'=1+1,"[{""name"": ""Acme"", ""score"": 1.5}, {""name"": ""Beta"", ""score"": -5}]"\n'
        'three,,"","[{""name"": ""Beta"", ""score"": -5}]"\n'
        'one,2,"a, b",[]\n'
    )
    assert "two,=1+1\n" in filled.call("results", "out", "--format", "csv", "--fields", "id,note", "--csv-raw").out


def test_csv_is_read_back_by_duckdb_and_python(place: Place) -> None:
    """Both find the strings of the records, also where a comma, a quote or a line break is in them."""
    duckdb = pytest.importorskip("duckdb")
    notes = ["plain", 'a "quoted" one', "two, with a comma", "two\nlines", "  spaces  ", "é ✓", "'", "-5"]
    write(place.folder / "out", *(line(f"d{at}", {"note": note, "severity": at}) for at, note in enumerate(notes)))
    assert (
        place.call("results", "out", "--fields", "id,severity,note", "--save", "rows.csv", "--format", "csv").code == 0
    )
    path = place.folder / "rows.csv"
    expected = [(f"d{at}", str(at), note) for at, note in enumerate(notes)]
    with path.open(encoding="utf-8", newline="") as file:
        assert [tuple(row) for row in csv.reader(file)][1:] == expected
    assert duckdb.sql(f"SELECT * FROM read_csv('{path}', all_varchar = true, header = true)").fetchall() == expected


def test_a_reader_that_goes_away(place: Place) -> None:
    """`pipeline results | head -1`: no traceback."""
    write(place.folder / "out", *(line(f"d{at}", {"note": "x" * 200}) for at in range(2_000)))
    child = place.start("results", "out")
    assert child.process.stdout is not None
    assert json.loads(child.process.stdout.readline())["id"] == "d0"
    child.process.stdout.close()
    assert child.process.stderr is not None
    assert "Traceback" not in child.process.stderr.read()
    child.process.wait(60)


def test_a_run_that_writes_meanwhile(filled: Place) -> None:
    """A line that is not whole yet is no row, and nothing waits for the lock of the run."""
    path = filled.folder / "out" / "results.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line("five", {"note": "new"}, run=3), separators=(",", ":"))[:60])
        file.flush()
        assert [row["id"] for row in results(filled)] == ["two", "three", "one"]


def row_of(**output: Any) -> Row:
    return Row(Record("d", "done", output, None, {}))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("-5", "-5"),
        (-5, "-5"),
        ("-2+3", "'-2+3"),
        (" =x", "' =x"),
        ("\uff1d1", "'\uff1d1"),
        ("@x", "'@x"),
        ("+4.5e3", "+4.5e3"),
        ("\tx", "'\tx"),
        (None, ""),
        ("", '""'),
        (True, "true"),
    ],
)
def test_cells(value: Any, cell: str) -> None:
    """Only strings that a spreadsheet would run are changed; a plain number is none."""
    assert list(csv_lines([row_of(x=value)], ["x"], raw=False))[1] == f"{cell}\n"


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=4))
def test_any_text_survives_csv(texts: list[str]) -> None:
    """Without protection every text is read back as it was by Python's own reader."""
    names = [f"c{number}" for number in range(len(texts))]
    row = row_of(**dict(zip(names, texts, strict=True)))
    written = "".join(csv_lines([row], names, raw=True))
    assert list(csv.reader(io.StringIO(written, newline=""), strict=True))[1] == texts


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_table_fits_the_terminal(filled: Place, columns: int) -> None:
    """No line is wider than the terminal, and lists show their length."""
    filled.env["COLUMNS"] = str(columns)
    lines = filled.call("results", "out", "--format", "table").out.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].split() == ["id", "_status", "companies", "severity", "note"]
    assert lines[1].split() == ["two", "done", "[2]", "60", "=1+1"]


def test_save_and_limit(filled: Place) -> None:
    """A file is written whole; --limit says that there is more."""
    ran = filled.call("results", "out", "--save", "all.jsonl", "--limit", "2")
    assert (ran.code, ran.out) == (0, "")
    assert len((filled.folder / "all.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert "only the first 2 rows are shown" in ran.err
    assert sorted(path.name for path in filled.folder.glob("*all*")) == ["all.jsonl"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--fields", "id,sevrity"), "--fields: got 'sevrity', which no result has; the nearest is severity"),
        (("--where", "companies.nme = x"), "the nearest is companies.name"),
        (("--where", "a b"), "need PATH OP VALUE"),
        (("--ids", "two", "nine"), "--ids: got 'nine': the output has no row of it"),
        (("--explode", "company"), "--explode: got 'company'"),
        (("--explode", "severity"), "--explode: got 'severity', which is not a list"),
    ],
)
def test_what_no_record_has(filled: Place, flags: tuple[str, ...], message: str) -> None:
    """A wrong path or id is exit 2 with the nearest right one."""
    ran = filled.call("results", "out", *flags)
    assert ran.code == 2
    assert message in ran.err


def test_an_empty_output(place: Place) -> None:
    """An output without a record is exit 2."""
    ran = place.call("results", "nowhere")
    assert ran.code == 2
    assert "holds no record" in ran.err


def test_ids(filled: Place) -> None:
    """Only the named documents, also from a file."""
    (filled.folder / "ids.txt").write_text("one\n", encoding="utf-8")
    assert [row["id"] for row in results(filled, "--ids", "two", "@ids.txt")] == ["two", "one"]


def test_from_python(filled: Place) -> None:
    """`read_results` yields the same records as frozen data."""
    records = list(read_results(str(filled.folder / "out"), failed=True))
    assert [(record.id, record.status, record.reason) for record in records] == [
        ("two", "done", None),
        ("three", "stale", None),
        ("one", "done", None),
        ("four", "failed", "timeout"),
    ]
    assert records[0].output == records[0].raw["output"]


def test_a_condition_is_parsed() -> None:
    """JSON values are values, anything else is text."""
    assert parse_condition("a.b >= 5") == Condition("a.b", ">=", 5)
    assert parse_condition("a=b c") == Condition("a", "=", "b c")
    assert parse_condition("!a") == Condition("a", "!")


def test_a_condition_through_two_lists(place: Place) -> None:
    """Any item suffices, also where a path leads through a list in a list; `~` takes its text as typed."""
    companies = [{"name": "Acme", "score": 1, "aka": ["AC", "ACME 1e3"]}, {"name": "Beta", "aka": []}]
    write(place.folder / "out", line("one", {"companies": companies}), line("two", {"companies": []}))
    for condition in ("companies.aka = AC", "companies.aka ~ 1e3"):
        assert [row["id"] for row in results(place, "--where", condition)] == ["one"]
    assert [row["id"] for row in results(place, "--where", "companies.aka != AC")] == ["two"]
    assert not results(place, "--where", "companies.aka ~ " + "[" * 30_000)


def test_save_never_replaces_what_is_no_file(filled: Place) -> None:
    """A pipe is written to (as root, /dev/stdout and /dev/null would be replaced), and a link stays one."""
    pipe = filled.folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    ran = filled.call("results", "out", "--save", "pipe")
    assert ran.code == 0, ran.err
    assert os.read(reader, 1 << 16).count(b"\n") == 3
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    (filled.folder / "link").symlink_to("rows.jsonl")
    assert filled.call("results", "out", "--save", "link").code == 0
    assert (filled.folder / "link").is_symlink()
    assert (filled.folder / "rows.jsonl").read_bytes().count(b"\n") == 3


def test_paths_of_a_schema_with_references() -> None:
    """References, `allOf` and alternatives are followed; a schema inside of itself is entered once."""
    item = {"allOf": [{"properties": {"name": {}, "parts": {"type": "array", "items": {"$ref": "#/$defs/item"}}}}]}
    schema = {
        "properties": {
            "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
            "kind": {"anyOf": [{}, {"properties": {"a": {}}}]},
        },
        "$defs": {"item": item},
    }
    assert paths_of_schema(schema) == ["items", "items.name", "items.parts", "kind", "kind.a"]


def test_parquet_has_typed_columns(filled: Place) -> None:
    """A column for each property and value of the record; what does not fit is null, and named."""
    ran = filled.call("results", "out", "--format", "parquet", "--save", "r.parquet")
    assert ran.code == 0, ran.err
    table = pq.read_table(filled.folder / "r.parquet")
    assert table.column_names[:4] == ["id", "companies", "severity", "note"]
    assert table.column_names[-2:] == ["_misfits", "_output"]
    assert table.schema.field("severity").type == pa.int64()
    assert table.schema.field("_finished_at").type == pa.timestamp("ms", tz="UTC")
    rows = {row["id"]: row for row in table.to_pylist()}
    records = {record.id: record for record in read_results(str(filled.folder / "out"))}
    assert rows.keys() == records.keys()
    assert all(json.loads(row["_output"]) == records[id].output for id, row in rows.items())
    assert all(row["_stale"] == (records[id].status == "stale") for id, row in rows.items())


def test_parquet_of_fields_and_items(filled: Place) -> None:
    """A path through a list is a list; of an exploded list it is one value."""
    save = ("--format", "parquet", "--save", "r.parquet", "--fields")
    assert filled.call("results", "out", *save, "id,companies.score").code == 0
    assert pq.read_table(filled.folder / "r.parquet").schema.field("companies.score").type == pa.list_(pa.float64())
    ran = filled.call("results", "out", *save, "id,companies.score,_position", "--explode", "companies")
    assert ran.code == 0, ran.err
    assert pq.read_table(filled.folder / "r.parquet").schema.field("companies.score").type == pa.float64()
    ran = filled.call("results", "out", "--format", "parquet")
    assert (ran.code, "need --save FILE" in ran.err) == (2, True)


def test_a_property_called_as_a_value_of_the_record() -> None:
    """Is `output_NAME`; names that differ by case only are refused."""
    columns = columns_of({"properties": {"id": {"type": "string"}, "_run": {}}}, None, explode=None, failed=True)
    assert [column.name for column in columns][:4] == ["id", "output_id", "output__run", "_reason"]
    with pytest.raises(ConfigError, match="2 columns are called 'a'"):
        columns_of({"properties": {"a": {}, "A": {}}}, None, explode=None, failed=False)
