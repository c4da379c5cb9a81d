"""`pipeline results`: the current result of each document in every format, with conditions and exploded lists."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
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
    outcome = {"reason": "timeout", "runs": 1} if output is None else {"output": output, "model": {"name": "m"}}
    tail = {"finished_at": "2026-01-01T00:00:00.000Z", "version": None, "run": run, "run_id": "r", "shard": None}
    return {**head, "fingerprint": "1" * 64, **outcome, **tail}


def write(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    run = {"run": 1, "config": {"question": {"default": {"agent": "a", "schema": SCHEMA}}}}
    (folder / "runs" / "r.json").write_text(json.dumps(run), encoding="utf-8")
    for name, is_result in (("results.jsonl", True), ("errors.jsonl", False)):
        written = [json.dumps(line, separators=(",", ":")) + "\n" for line in lines if ("output" in line) == is_result]
        (folder / name).write_text("".join(written), encoding="utf-8")


@pytest.fixture
def filled(place: Place) -> Place:
    """Return a place with three results, one stale and one replaced, and one failure without a result."""
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


def test_results_prints_the_current_record_of_each_document(filled: Place) -> None:
    """The order is that of the lines; failures have no row, and their number is printed."""
    ran = filled.call("results", "out")
    rows = [json.loads(row) for row in ran.out.splitlines()]
    assert [(row["id"], row["status"], row["output"]["note"]) for row in rows] == [
        ("two", "done", "=1+1"),
        ("three", "stale", ""),
        ("one", "done", "a, b"),
    ]
    assert ran.err.endswith("1 document failed and has no row (--failed)\n")
    stale = "--where '_status = stale' shows only these, --current leaves them out"
    assert f"1 of 3 rows is stale: its document failed in a later run ({stale})\n" in ran.err
    assert "stale" not in filled.call("results", "out", "--where", "_status = stale").err
    assert "stale" not in filled.call("results", "out", "--ids", "one").err
    assert [row["id"] for row in results(filled, "--current")] == ["two", "one"]


def test_rows_of_an_earlier_prompt(place: Place) -> None:
    """They are counted on stderr, shown by a column, and left out by --current; also for programs."""
    place.documents(4)
    place.run()
    place.configure(agent={"system_prompt": "Other.\n"})
    assert "earlier" not in place.call("results", "--format", "csv").err
    place.run("--limit", "1")
    ran = place.call("results", "--format", "csv", "--fields", "id,_prompt,_status")
    assert "3 of 4 rows are of an earlier prompt, schema or model than that of the last run" in ran.err
    earlier = sorted(row.split(",")[0] for row in ran.out.splitlines() if ",earlier,done" in row)
    assert len(earlier) == 3
    current = place.call("results", "--current")
    assert [json.loads(row)["id"] in earlier for row in current.out.splitlines()] == [False]
    assert "earlier" not in current.err
    assert (
        sorted(record.id for record in read_results(str(place.folder / "out")) if record.prompt == "earlier") == earlier
    )
    place.run()
    assert "earlier" not in place.call("results").err


def test_a_run_that_was_refused_has_no_prompt(place: Place) -> None:
    """A misspelt model makes no result one of an earlier model."""
    place.documents(2)
    place.run()
    place.run("--set", "vllm.model=misspelt", code=2)
    assert "earlier" not in place.call("results").err


@pytest.mark.parametrize("has_summary", [True, False])
def test_prompt_of_an_unfinished_run_is_that_of_its_records(place: Place, has_summary: bool) -> None:
    """Such a run is in progress or was killed, and has no summary yet."""
    place.documents(3)
    place.run()
    place.configure(agent={"system_prompt": "Other.\n"})
    place.run("--limit", "1")
    for summary in () if has_summary else sorted((place.folder / "out" / "runs").iterdir())[1:]:
        summary.unlink()
        shutil.rmtree(place.folder / "out" / ".runs")
    assert "2 of 3 rows are of an earlier prompt" in place.call("results").err


def test_failed_flag_adds_rows_for_failures(filled: Place) -> None:
    """Their values are null and the reason is in `_reason`."""
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
def test_where_conditions_select_rows(filled: Place, conditions: list[str], ids: list[str]) -> None:
    """All conditions must hold; any item of a list suffices, and numbers are compared with numbers only."""
    flags = [flag for condition in conditions for flag in ("--where", condition)]
    assert [row["id"] for row in results(filled, *flags)] == ids


def test_explode_prints_a_row_for_each_item(filled: Place) -> None:
    """Each row has its position; a document without items keeps one row of nulls."""
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


def test_csv_follows_rfc_4180_with_lf(filled: Place) -> None:
    """Null is an empty cell, an empty string is quoted, and a formula is made inert."""
    ran = filled.call("results", "out", "--format", "csv", "--fields", "id,severity,note,companies")
    assert ran.out == (
        "id,severity,note,companies\n"
        'two,60,\'=1+1,"[{""name"": ""Acme"", ""score"": 1.5}, {""name"": ""Beta"", ""score"": -5}]"\n'
        'three,,"","[{""name"": ""Beta"", ""score"": -5}]"\n'
        'one,2,"a, b",[]\n'
    )
    assert "two,=1+1\n" in filled.call("results", "out", "--format", "csv", "--fields", "id,note", "--csv-raw").out


def test_csv_is_read_back_by_duckdb_and_python(place: Place) -> None:
    """Both return the original strings, even with commas, quotes or line breaks."""
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


def test_closed_pipe_prints_no_traceback(place: Place) -> None:
    """`pipeline results | head -1` ends quietly."""
    write(place.folder / "out", *(line(f"d{at}", {"note": "x" * 200}) for at in range(2_000)))
    child = place.start("results", "out")
    assert child.process.stdout is not None
    assert json.loads(child.process.stdout.readline())["id"] == "d0"
    child.process.stdout.close()
    assert child.process.stderr is not None
    assert "Traceback" not in child.process.stderr.read()
    child.process.wait(60)


def test_results_during_a_run_skip_an_incomplete_line(filled: Place) -> None:
    """The command does not wait for the lock of the run."""
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
def test_only_formulas_are_changed_in_csv_cells(value: Any, cell: str) -> None:
    """A plain number stays unchanged."""
    assert list(csv_lines([row_of(x=value)], ["x"], raw=False))[1] == f"{cell}\n"


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=4))
def test_any_text_survives_csv(texts: list[str]) -> None:
    """With --csv-raw Python's own reader returns every text unchanged."""
    names = [f"c{number}" for number in range(len(texts))]
    row = row_of(**dict(zip(names, texts, strict=True)))
    written = "".join(csv_lines([row], names, raw=True))
    assert list(csv.reader(io.StringIO(written, newline=""), strict=True))[1] == texts


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_results_table_fits_the_terminal(filled: Place, columns: int) -> None:
    """No line is wider than the terminal, and lists show their length."""
    filled.env["COLUMNS"] = str(columns)
    lines = filled.call("results", "out", "--format", "table").out.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].split() == ["id", "_status", "companies", "severity", "note"]
    assert lines[1].split() == ["two", "done", "[2]", "60", "=1+1"]


def test_save_writes_a_whole_file_and_limit_is_reported(filled: Place) -> None:
    """No temporary file is left, and --limit reports that there are more rows."""
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
def test_unknown_path_or_id_is_exit_2(filled: Place, flags: tuple[str, ...], message: str) -> None:
    """The message suggests the nearest one."""
    ran = filled.call("results", "out", *flags)
    assert ran.code == 2
    assert message in ran.err


def test_output_without_records_is_exit_2(place: Place) -> None:
    """The message says that the output holds no record."""
    ran = place.call("results", "nowhere")
    assert ran.code == 2
    assert "holds no record" in ran.err


def test_ids_flag_selects_documents(filled: Place) -> None:
    """The ids come from the command line and from a file."""
    (filled.folder / "ids.txt").write_text("one\n", encoding="utf-8")
    assert [row["id"] for row in results(filled, "--ids", "two", "@ids.txt")] == ["two", "one"]


def test_read_results_yields_the_same_records(filled: Place) -> None:
    """The records are frozen data."""
    records = list(read_results(str(filled.folder / "out"), failed=True))
    assert [(record.id, record.status, record.reason) for record in records] == [
        ("two", "done", None),
        ("three", "stale", None),
        ("one", "done", None),
        ("four", "failed", "timeout"),
    ]
    assert records[0].output == records[0].raw["output"]


def test_parse_condition_reads_json_values() -> None:
    """A value that is not JSON is text."""
    assert parse_condition("a.b >= 5") == Condition("a.b", ">=", 5)
    assert parse_condition("a=b c") == Condition("a", "=", "b c")
    assert parse_condition("!a") == Condition("a", "!")


def test_condition_through_nested_lists(place: Place) -> None:
    """One matching item along the path suffices; `~` treats its text literally."""
    companies = [{"name": "Acme", "score": 1, "aka": ["AC", "ACME 1e3"]}, {"name": "Beta", "aka": []}]
    write(place.folder / "out", line("one", {"companies": companies}), line("two", {"companies": []}))
    for condition in ("companies.aka = AC", "companies.aka ~ 1e3"):
        assert [row["id"] for row in results(place, "--where", condition)] == ["one"]
    assert [row["id"] for row in results(place, "--where", "companies.aka != AC")] == ["two"]
    assert not results(place, "--where", "companies.aka ~ " + "[" * 30_000)


def test_save_does_not_replace_pipes_and_links(filled: Place) -> None:
    """A pipe is written to, so /dev/stdout survives as root, and a link stays a link."""
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


def test_paths_follow_references_in_the_schema() -> None:
    """`allOf` and alternatives are followed; a recursive schema is entered once."""
    item = {"allOf": [{"properties": {"name": {}, "parts": {"type": "array", "items": {"$ref": "#/$defs/item"}}}}]}
    schema = {
        "properties": {
            "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
            "kind": {"anyOf": [{}, {"properties": {"a": {}}}]},
        },
        "$defs": {"item": item},
    }
    assert paths_of_schema(schema) == ["items", "items.name", "items.parts", "kind", "kind.a"]


def test_results_parquet_has_typed_columns(filled: Place) -> None:
    """Each property and record value has a column; values of another type are null and reported."""
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


def test_results_parquet_of_fields_and_exploded_items(filled: Place) -> None:
    """A path through a list gives a list column; if the list is exploded, it gives a single value."""
    save = ("--format", "parquet", "--save", "r.parquet", "--fields")
    assert filled.call("results", "out", *save, "id,companies.score").code == 0
    assert pq.read_table(filled.folder / "r.parquet").schema.field("companies.score").type == pa.list_(pa.float64())
    ran = filled.call("results", "out", *save, "id,companies.score,_position", "--explode", "companies")
    assert ran.code == 0, ran.err
    assert pq.read_table(filled.folder / "r.parquet").schema.field("companies.score").type == pa.float64()
    ran = filled.call("results", "out", "--format", "parquet")
    assert (ran.code, "need --save FILE" in ran.err) == (2, True)


def test_property_named_like_a_record_field_gets_a_prefix() -> None:
    """It becomes `output_NAME`; names that differ only by case are refused."""
    columns = columns_of({"properties": {"id": {"type": "string"}, "_run": {}}}, None, explode=None, failed=True)
    assert [column.name for column in columns][:4] == ["id", "output_id", "output__run", "_reason"]
    with pytest.raises(ConfigError, match="2 columns are called 'a'"):
        columns_of({"properties": {"a": {}, "A": {}}}, None, explode=None, failed=False)
