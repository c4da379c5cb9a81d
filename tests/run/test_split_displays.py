"""Long documents in the progress, metrics, report, notes and commands."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from chat_requests import ROOT
from conftest import Place
from fake_llm import FakeLLM
from fake_llm.planted import planted
from prometheus_client.parser import text_string_to_metric_families
from test_report_schema import SCHEMA
from test_split import bad_at, items, long_record, narrow, parts, prepared, run

from pipeline.cli.main import main
from pipeline.run.display.progress import block_lines
from pipeline.run.display.rates import ProgressState, Rates
from pipeline.run.windows.long_counts import LongStatus

__all__ = ["narrow", "parts"]


def windows_metric(place: Place) -> dict[str, float]:
    """Return the windows by outcome from the text file of the metrics."""
    families = text_string_to_metric_families((place.folder / "m.prom").read_text(encoding="utf-8"))
    samples = [sample for family in families for sample in family.samples]
    return {sample.labels["outcome"]: sample.value for sample in samples if sample.name == "pipeline_windows_total"}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_progress_has_a_line_for_long_documents(width: int) -> None:
    """It is complete at any terminal width, and absent without long documents."""
    status = LongStatus(3, 412, 1203)
    lines = block_lines(ProgressState(long=status), Rates(1, 0, 0, None), width=width)
    assert ("", "long documents: 3 open, 412 of 1,203 windows") in lines
    assert all(len(line) < width for _, line in lines)
    assert LongStatus().text is None
    assert LongStatus(16, 4, 99, parked=5).text == "16 open, 4 of 99 windows, 5 more waiting"


def test_windows_are_counted_in_metrics_and_report(
    place: Place, narrow: FakeLLM, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered and failed windows are counted; after a repair the next run reuses the answered ones."""
    place.documents({"long.txt": planted(seed=5, payments=12, chars=24_000, kinds="prose").text, "short.txt": "x"})
    prepared(place, narrow)
    good = narrow.answer
    narrow.answer = bad_at("Payment P00009:")
    assert run(place, monkeypatch, "--metrics-textfile", "m.prom") == 0
    first = windows_metric(place)
    assert first["answered"] > 0
    assert first["failed"] == 1
    assert first["divided"] > 0
    assert first["reused"] == 0
    numbers = place.report()["long_documents"]
    assert numbers == place.report()["run"]["stats"]["long_documents"]
    assert numbers["documents"] == 1
    assert (numbers["windows"], numbers["divided"], numbers["reused"]) == (first["answered"], first["divided"], 0)

    narrow.answer = good
    before = len(parts)
    assert run(place, monkeypatch, "--only-failed", "--metrics-textfile", "m.prom") == 0
    second = windows_metric(place)
    assert second == {"answered": len(parts) - before, "divided": 0, "failed": 0, "reused": first["answered"]}
    report = place.report()
    jsonschema.validate(report, SCHEMA)
    record = long_record(place)
    assert report["long_documents"] == {
        "documents": 1,
        "windows": len(record["windows"]["rows"]),
        "most": len(record["windows"]["rows"]),
        "reused": record["windows"]["reused"],
        "divided": 0,
        "conflicts": 0,
        "dropped": 0,
        "merge_failed": 0,
    }
    assert len(items(record)) == 12
    assert any("title has no x-merge" in line for line in report["run"]["merge_warnings"])


def test_report_without_long_documents_omits_the_section(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the report nor its page mentions windows, although the agent could split."""
    place.documents(2)
    prepared(place, narrow)
    assert run(place, monkeypatch) == 0
    assert "long_documents" not in place.report()
    assert "merge_warnings" not in place.report()["run"]
    assert "Long documents" not in (place.folder / "out" / "report.html").read_text(encoding="utf-8")


def test_summary_and_page_describe_long_documents(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They have the counts, the notes with their meaning, and each field without a merge rule."""
    place.documents({"long.txt": planted(seed=6, payments=8, chars=16_000, kinds="prose").text})

    def titled(prompt: str, schema: Any) -> str:
        answer = json.loads(good(prompt, schema))
        return json.dumps({**answer, "title": f"{len(prompt)} characters"})

    good = narrow.answer
    prepared(place, narrow)
    narrow.answer = titled
    monkeypatch.chdir(place.folder)
    assert main(["run", "--config", "pipeline.yaml"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    conflicts = place.report()["long_documents"]["conflicts"]
    windows = place.report()["long_documents"]["windows"]
    assert conflicts == 1
    assert f"windows {windows} answered, 1 long document ended, 1 value differed between windows" in shown
    page = (place.folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "Long documents, read in windows" in page
    assert "overflow: split: schema.properties.title has no x-merge" in page
    assert "read in windows, and merged" in page


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Place, *words: str
) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its output without line breaks."""
    monkeypatch.chdir(place.folder)
    capsys.readouterr()
    code = main([*words, "--config", "pipeline.yaml"])
    return code, " ".join(capsys.readouterr().out.split())


def test_errors_show_names_failed_and_answered_windows(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the character ranges that they cover, and does not change windows.jsonl."""
    place.documents({"long.txt": planted(seed=5, payments=12, chars=24_000, kinds="prose").text})
    prepared(place, narrow)
    narrow.answer = bad_at("Payment P00009:")
    assert run(place, monkeypatch) == 0
    lines = place.lines("windows.jsonl")
    window = place.lines("errors.jsonl")[0]["window"]
    _, shown = call(monkeypatch, capsys, place, "errors", "out", "--show", "long.txt")
    place_text = f"{window['n']} of {window['of']}, characters {window['start']:,} to {window['end']:,}"
    assert f"failed window {place_text}" in shown
    assert f"answered {len(lines)} windows: characters 0 to " in shown
    _, result = call(monkeypatch, capsys, place, "errors", "out", "--show", "long.txt", "--json")
    (record,) = json.loads(result)["records"]
    assert record["answered_windows"] == sorted([line["start"], line["end"]] for line in lines)
    assert place.lines("windows.jsonl") == lines


def test_show_prints_the_windows_of_a_merged_record(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`results` has the windows and the conflicts as columns."""
    place.documents({"long.txt": planted(seed=6, payments=8, chars=16_000, kinds="prose").text, "short.txt": "x"})
    prepared(place, narrow)
    assert run(place, monkeypatch) == 0
    windows = long_record(place)["windows"]
    _, shown = call(monkeypatch, capsys, place, "errors", "out", "--show", "long.txt")
    assert f"windows {len(windows['rows'])} over {windows['chars']:,} characters" in shown
    fields = ("--fields", "id,_windows,_merge", "--format", "jsonl")
    monkeypatch.chdir(place.folder)
    assert main(["results", "out", "--config", "pipeline.yaml", *fields]) == 0
    rows = {row["id"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["long.txt"]["_windows"] == windows
    assert rows["long.txt"]["_merge"]["conflicts_total"] == 0
    assert rows["short.txt"]["_windows"] is None


def test_try_sends_a_single_window(
    place: Place,
    narrow: FakeLLM,
    parts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It prints the window's number, place and answer; an unknown window number is an error."""
    place.documents({"long.txt": planted(seed=21, payments=6, chars=16_000, kinds="prose").text, "short.txt": "x"})
    prepared(place, narrow)
    code, shown = call(monkeypatch, capsys, place, "try", "long.txt", "--window", "2")
    assert code == 0
    assert len(parts) == 1
    assert "window 2 of " in shown
    assert "window 1 of " not in shown
    assert "VALID 1 request" in shown
    assert not (place.folder / "out").exists()
    monkeypatch.chdir(place.folder)
    assert main(["try", "long.txt", "--window", "99", "--config", "pipeline.yaml"]) == 2
    assert main(["try", "short.txt", "--window", "1", "--config", "pipeline.yaml"]) == 2
    assert len(parts) == 1
    output = capsys.readouterr().err
    assert "--window: got 99, need a number from 1 to " in output
    assert "--window: got 1, but short.txt was sent whole" in output


def differ_in_titles(server: FakeLLM) -> None:
    """Make each answer of the server have another title."""
    good = server.answer
    titles = (f"report {number}" for number in range(100))
    server.answer = lambda prompt, schema: json.dumps({**json.loads(good(prompt, schema)), "title": next(titles)})


def test_try_shows_conflicts_and_quote_positions(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They follow the merged output."""
    place.documents({"long.txt": planted(seed=6, payments=8, chars=16_000, kinds="prose").text})
    prepared(place, narrow)
    differ_in_titles(narrow)
    code, shown = call(monkeypatch, capsys, place, "try", "long.txt")
    assert code == 0
    assert "conflict /title (first): window 1 has 'report " in shown
    assert "evidence /payments/0/quote: characters " in shown


def test_parquet_has_windows_and_merge_as_json_text(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A document that was sent whole has null in both columns."""
    parquet = pytest.importorskip("pyarrow.parquet")
    place.documents({"long.txt": planted(seed=6, payments=8, chars=16_000, kinds="prose").text, "short.txt": "x"})
    prepared(place, narrow)
    assert run(place, monkeypatch) == 0
    record = long_record(place)
    assert call(monkeypatch, capsys, place, "compact", "out", "--format", "parquet")[0] == 0
    rows = {row["id"]: row for row in parquet.read_table(place.folder / "out" / "results.parquet").to_pylist()}
    assert json.loads(rows["long.txt"]["windows"]) == record["windows"]
    assert json.loads(rows["long.txt"]["merge"]) == record["merge"]
    assert rows["short.txt"]["windows"] is None
    assert rows["short.txt"]["merge"] is None


def test_page_shows_window_borders_and_conflicts(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A border marks the start of each window, each quote has its window, and a conflict has both values."""
    place.documents({"long.txt": planted(seed=6, payments=8, chars=16_000, kinds="prose").text})
    prepared(place, narrow)
    differ_in_titles(narrow)
    assert run(place, monkeypatch) == 0
    assert call(monkeypatch, capsys, place, "show", "out", "long.txt", "--html", "e.html")[0] == 0
    page = (place.folder / "e.html").read_text(encoding="utf-8")
    record = long_record(place)
    borders = [f'data-n="window {number}"' for number, _ in enumerate(record["windows"]["rows"], start=1)]
    assert [page.count(border) for border in borders] == [1] * len(borders)
    assert ">Window</th>" in page
    quote = record["evidence"][-1]
    assert quote["window"] > 1
    _, shown = call(monkeypatch, capsys, place, "show", "out", "long.txt")
    assert f"characters {quote['start']:,} to {quote['end']:,}, window {quote['window']}, exact" in shown
    (conflict,) = record["merge"]["conflicts"]
    assert "Values that differed between windows" in page
    assert conflict["taken"]["value"] in page
    assert conflict["others"][0]["value"] in page


def test_page_of_a_failed_document_marks_the_failed_window(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The window is between two borders, without highlighted quotes."""
    place.documents({"long.txt": planted(seed=5, payments=12, chars=24_000, kinds="prose").text})
    prepared(place, narrow)
    narrow.answer = bad_at("Payment P00009:")
    assert run(place, monkeypatch) == 0
    number = place.lines("errors.jsonl")[0]["window"]["n"]
    assert call(monkeypatch, capsys, place, "show", "out", "long.txt", "--html", "e.html")[0] == 0
    page = (place.folder / "e.html").read_text(encoding="utf-8")
    _, _, after = page.partition(f'data-n="begin of window {number}, which failed"')
    inside, border, _ = after.partition(f'data-n="end of window {number}, which failed"')
    assert "Payment P00009:" in inside
    assert border


def test_documented_query_finds_a_ledger_with_a_gap(
    place: Place, narrow: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts the windows and requests of each long document, and whether its windows cover the text."""
    duckdb = pytest.importorskip("duckdb")
    texts = {f"long{number}.txt": planted(seed=number, payments=8, chars=16_000).text for number in range(3)}
    place.documents({**texts, "short.txt": "Nothing was paid."})
    prepared(place, narrow)
    assert run(place, monkeypatch) == 0
    page = (ROOT / "docs" / "long-documents.md").read_text(encoding="utf-8")
    query = page.split("```sql\n")[1].split("```")[0]
    records = {record["id"]: record for record in place.lines("results.jsonl")}
    ledgers = {name: records[name]["windows"]["rows"] for name in texts}
    found = duckdb.sql(query).fetchall()
    assert found == [(name, len(rows), sum(row[4] for row in rows), True) for name, rows in ledgers.items()]
    del ledgers["long1.txt"][2]
    (place.folder / "out" / "results.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records.values()), encoding="utf-8"
    )
    covered = {row[0]: row[3] for row in duckdb.sql(query).fetchall()}
    assert covered == {"long0.txt": True, "long1.txt": False, "long2.txt": True}
