"""`pipeline review`: selection of documents, documents that cannot be judged, and imported judgements."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Child, Place
from review_place import ANSWER, gold_lines, write_output

from pipeline.config.models import OutputConfig
from pipeline.output import backend_of
from pipeline.review import choice


@pytest.fixture
def reviewed(place: Place) -> Place:
    """Return thirty documents, of which every tenth failed."""
    answers = {f"d{n:02}.txt": None if n % 10 == 9 else ANSWER for n in range(30)}
    write_output(place.folder / "out", answers)
    return place


def started(place: Place, *arguments: str) -> tuple[Child, str]:
    """Return a running review, and the line about what it serves."""
    child = place.start("review", *arguments, "--no-open")
    assert child.process.stdout is not None
    line = child.process.stdout.readline()
    assert child.process.stdout.readline().startswith("http://127.0.0.1:"), child.end().err
    return child, line


def ids_of(candidates: list[choice.Candidate]) -> list[str]:
    return [candidate.id for candidate in candidates]


def test_larger_sample_includes_the_smaller_one(reviewed: Place) -> None:
    """The order is the same, failed documents are included, and judged ones are replaced."""
    backend = backend_of(OutputConfig(str(reviewed.folder / "out")))
    twenty = choice.sampled(backend, 20, judged=())
    assert ids_of(choice.sampled(backend, 10, judged=())) == ids_of(twenty)[:10]
    assert {candidate.why for candidate in twenty} == {"sample"}
    everything = choice.sampled(backend, 50, judged=())
    assert len(everything) == 30
    assert sum(candidate.answer is None for candidate in everything) == 3
    judged = {(candidate.id, str(candidate.sha256)) for candidate in twenty[:5]}
    assert ids_of(choice.sampled(backend, 10, judged=judged)) == ids_of(twenty)[5:15]


def test_selection_by_ids_failures_and_disputes(reviewed: Place) -> None:
    """Named documents may be judged already; the most disputed comes first."""
    write_output(
        reviewed.folder / "trial",
        {"d00.txt": {**ANSWER, "mood": "bad"}, "d01.txt": {**ANSWER, "mood": "bad", "score": 1}, "d02.txt": ANSWER},
    )
    out, trial = (backend_of(OutputConfig(str(reviewed.folder / name))) for name in ("out", "trial"))
    (named,) = choice.named(out, {"d03.txt"})
    assert (named.why, named.answer) == ("ids", ANSWER)
    failed = choice.failed(out, judged=())
    assert sorted(ids_of(failed)) == ["d09.txt", "d19.txt", "d29.txt"]
    assert all(
        (candidate.why, candidate.answer, candidate.reason) == ("failed", None, "schema_invalid")
        for candidate in failed
    )
    disputed = choice.disputed(out, trial, judged=(), keys={})
    assert ids_of(disputed) == ["d01.txt", "d00.txt"]
    assert disputed[0].other == {**ANSWER, "mood": "bad", "score": 1}


def test_review_ends_with_0_and_advice(reviewed: Place) -> None:
    """Ctrl-C is the usual end; changed or removed documents are listed and left out."""
    (reviewed.folder / "inbox" / "d00.txt").write_text("other")
    (reviewed.folder / "inbox" / "d01.txt").unlink()
    child, line = started(reviewed, "out")
    assert line.startswith("28 documents to judge, saved to gold.jsonl as ")
    ran = child.end(2)
    assert ran.code == 0
    assert "0 documents judged; next: pipeline eval out --gold gold.jsonl" in ran.out
    assert "d00.txt: changed, run again first" in ran.err
    assert "d01.txt: gone from inbox" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out", "--disputed"], "--disputed: got one output, need OTHER"),
        (["out", "--ids", "nobody"], "--ids: got 'nobody': out has no record of it"),
        (["out", "--gold", "out/gold.jsonl"], "lies in the output"),
        (["out", "--gold", "no/gold.jsonl"], "whose folder does not exist"),
        (["out", "--input", "empty"], "review: none of the 30 documents can be read from empty (30 gone)"),
        (["nowhere"], "nowhere"),
        (["out", "--import", "no.jsonl"], "--import: no.jsonl cannot be read"),
    ],
)
def test_invalid_review_usage_is_exit_2(reviewed: Place, arguments: list[str], message: str) -> None:
    """The message says what is wrong."""
    (reviewed.folder / "empty").mkdir()
    ran = reviewed.call("review", *arguments, "--no-open")
    assert ran.code == 2, ran.out
    assert message in ran.err


def test_review_of_a_fully_judged_sample_says_so(reviewed: Place) -> None:
    """The review is restarted after its last document."""
    lines = [json.loads(line) for line in (reviewed.folder / "out" / "results.jsonl").read_text().splitlines()]
    lines += [json.loads(line) for line in (reviewed.folder / "out" / "errors.jsonl").read_text().splitlines()]
    write(reviewed.folder / "gold.jsonl", [{"id": r["id"], "sha256": r["sha256"], "gold": {"score": 1}} for r in lines])
    ran = reviewed.call("review", "out", "--no-open")
    assert ran.code == 0
    assert "out holds no document without a judgement in gold.jsonl. Next: pipeline eval out --gold gold.js" in ran.out
    page = reviewed.folder / "page.html"
    page.write_text("yesterday's", encoding="utf-8")
    assert reviewed.call("review", "out", "--failed", "--html", "page.html").code == 0
    assert "<h1>out holds no failed document without a judgement in gold.jsonl.</h1>" in page.read_text(
        encoding="utf-8"
    )


def test_import_completes_judgements(reviewed: Place) -> None:
    """sha256 is filled in, `how` records the import, a missing `why` is reported, and eval grades it."""
    write(
        reviewed.folder / "labels.jsonl",
        [{"id": "d00.txt", "gold": {"company": "Acme"}}, {"id": "d01.txt", "gold": {"mood": "bad"}, "why": "ids"}],
    )
    ran = reviewed.call("review", "out", "--import", "labels.jsonl", "--by", "old labels")
    assert ran.code == 0, ran.err
    assert "2 judgements from labels.jsonl appended to gold.jsonl. 1 of them does not say" in ran.out
    lines = gold_lines(reviewed.folder / "gold.jsonl")
    assert [(line["why"], line["how"], line["by"]) for line in lines] == [
        ("sample", {"company": "typed"}, "old labels"),
        ("ids", {"mood": "typed"}, "old labels"),
    ]
    assert all(re.fullmatch(r"[0-9a-f]{64}", line["sha256"]) for line in lines)
    assert reviewed.call("eval", "out", "--gold", "gold.jsonl").code == 0


def test_repeated_import_appends_only_new_lines(reviewed: Place) -> None:
    """It undoes neither a correction nor a withdrawal made in between."""
    labels = [
        {"id": "d00.txt", "gold": {"company": "Acme"}},
        {"id": "d01.txt", "gold": {"mood": "bad"}, "at": "2026-01-01T00:00:00.000Z"},
    ]
    write(reviewed.folder / "labels.jsonl", labels)
    call = ("review", "out", "--import", "labels.jsonl", "--by", "anna")
    assert "2 judgements from labels.jsonl appended" in reviewed.call(*call).out
    before = (reviewed.folder / "gold.jsonl").read_bytes()
    again = reviewed.call(*call)
    assert (again.code, again.out) == (0, "labels.jsonl holds no new judgement: gold.jsonl has all 2 already.\n")
    assert (reviewed.folder / "gold.jsonl").read_bytes() == before
    write(reviewed.folder / "labels.jsonl", [*labels, {"id": "d02.txt", "gold": {"mood": "bad"}, "why": "ids"}])
    ran = reviewed.call(*call)
    assert ran.out == "1 judgement from labels.jsonl appended to gold.jsonl. 2 judgements were there already.\n"
    assert len(gold_lines(reviewed.folder / "gold.jsonl")) == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"id": "d00.txt", "gold": {"score": 1}}, {"id": "x", "gold": {}}], "1 of the documents of labels.jsonl are"),
        ([{"id": "d00.txt", "gold": {"score": "1"}}], "labels.jsonl:1: score"),
        ([{"gold": {}}], "labels.jsonl:1: got no id"),
    ],
)
def test_invalid_import_writes_no_line(reviewed: Place, lines: list[Any], message: str) -> None:
    """All lines are checked first."""
    write(reviewed.folder / "labels.jsonl", lines)
    ran = reviewed.call("review", "out", "--import", "labels.jsonl")
    assert ran.code == 2
    assert message in ran.err
    assert not (reviewed.folder / "gold.jsonl").exists()


def test_review_works_after_a_real_run(place: Place) -> None:
    """The input and settings are those of the newest run, whatever the configuration says now."""
    place.documents({"a.txt": "One.", "b.txt": "Two."})
    place.run()
    place.configure({"input.uri": "elsewhere"})
    child, line = started(place, "out", "--sample", "1")
    assert line.startswith("1 document to judge")
    assert child.end(2).code == 0


def write(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
