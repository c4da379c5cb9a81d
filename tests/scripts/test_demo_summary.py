"""The last lines of `make run` report the content of the outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Place
from demo_summary import built_in_agent, long_document, main


def test_summary_reports_records_and_grade(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """It uses only files of a graded run; a built-in agent has a line only if it was graded."""
    place.documents({"a.txt": "A text.", "b.txt": "A text, too.", "bad.txt": "[[fault:http_400]]"})
    place.run("--set", "runner.max_error_rate=1")
    gold = [
        json.dumps({"id": line["id"], "sha256": line["sha256"], "gold": line["output"]})
        for line in place.lines("results.jsonl")
    ]
    (place.folder / "gold.jsonl").write_text("\n".join(gold) + "\n", encoding="utf-8")
    assert place.call("eval", "--gold", "gold.jsonl").code == 0
    out = place.folder / "out"
    assert main([str(out), "--command", "bin/pipeline", "--builtin", str(place.folder / "none")]) == 0
    shown = capsys.readouterr().out
    first, second, third = shown.splitlines()
    assert first.startswith("What came out     2 records of 3 documents, F1 1.00 (")
    assert first.endswith("on 2 judged documents")
    assert f"{out}/results.jsonl" in second
    assert f"bin/pipeline errors {out}" in third
    assert main([str(out), "--builtin", str(place.folder / "none"), str(out)]) == 0
    builtin, model, empty, *last = capsys.readouterr().out.splitlines()
    assert builtin.startswith("Built-in agents   out: F1 1.00")
    assert builtin.endswith("on 2 of its 2 texts")
    assert "make builtin" in model
    assert empty == ""
    assert len(last) == 3


def test_summary_counts_refused_answers_of_built_in_agents(tmp_path: Path) -> None:
    """A grade without a value, and an ungraded output, are reported as such."""
    out = tmp_path / "extractor"
    assert built_in_agent(out) is None
    out.mkdir()
    assert str(built_in_agent(out)).startswith("extractor: no text was finished")
    f1 = {"value": None, "low": None, "high": None}
    gold = {"graded": 1, "documents": 6, "failed": 1}
    (out / "eval.json").write_text(json.dumps({"gold": gold, "outputs": [{"overall": {"f1": f1}}]}))
    assert built_in_agent(out) == "extractor: no F1 on 1 of its 6 texts, 1 refused or failed"


def test_output_without_a_run_has_no_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the missing file."""
    assert main([str(tmp_path)]) == 3
    assert "report.json" in capsys.readouterr().err


def test_summary_reports_the_long_document(tmp_path: Path) -> None:
    """It is a record of windows with its evidence page, a failure, or no line if it was not read."""
    assert list(long_document(tmp_path)) == []
    (tmp_path / "errors.jsonl").write_text("{}\n")
    assert list(long_document(tmp_path))[-1] == f"pipeline errors {tmp_path}"
    record = {"id": "a.txt", "windows": {"rows": [[0, 5], [5, 9]]}, "output": {"reports": [{}]}, "evidence": [{}, {}]}
    (tmp_path / "results.jsonl").write_text(json.dumps(record) + "\n")
    lines = list(long_document(tmp_path))
    assert lines[0] == "a.txt: 2 windows merged into one record of 1 reports, with"
    assert lines[1] == f"2 quotes marked in its text: {tmp_path}/bulletin.html"
