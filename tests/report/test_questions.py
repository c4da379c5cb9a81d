"""Results are counted by fingerprint; a variant with two fingerprints in a run or a set of shards is reported."""

from __future__ import annotations

import pytest
from conftest import Place

from pipeline.report.numbers import RunNumbers
from pipeline.report.questions import mixed_variants, question_rows
from pipeline.report.run_summary import OutputCounts, RunSummary


def run(counts: dict[str, int], *, refresh: str = "provider", variant: str = "default") -> RunSummary:
    """Return a run summary with these results by fingerprint."""
    return RunSummary(stats=RunNumbers(questions={variant: counts}), config={"runner": {"refresh": refresh}})


@pytest.mark.parametrize(
    ("runs", "mixed"),
    [
        ([run({"a": 5})], False),
        ([run({"a": 5, "b": 1})], True),
        ([run({"a": 5, "b": 1}, refresh="all")], False),
        ([run({"a": 61}), run({"b": 59})], True),
        ([run({"a": 61}), run({})], False),
        ([run({"a": 5}), run({"b": 5}), run({"a": 1, "b": 1}, refresh="all")], False),
        ([run({"a": 5}), run({"c": 5}), run({"a": 1, "b": 1}, refresh="all")], True),
        ([run({"a": 5}, variant="x"), run({"b": 5}, variant="y")], False),
        ([RunSummary()], False),
    ],
)
def test_two_fingerprints_of_a_variant_are_mixed(runs: list[RunSummary], mixed: bool) -> None:
    """They are not if a run was configured to apply changes (`refresh: all`)."""
    assert bool(mixed_variants(runs)) == mixed


def test_mixed_fingerprints_warning_counts_each() -> None:
    """The larger number comes first, and the warning contains advice."""
    (warning,) = mixed_variants([run({"a" * 64: 59}), run({"b" * 64: 61})])
    assert "variant default has results of 2 fingerprints (61 of bbbbbbbbbbbb, 59 of aaaaaaaaaaaa)" in warning
    assert "run again" in warning


def test_fingerprint_rows_have_this_run_and_the_whole_output() -> None:
    """Without counts of the output the second number is None."""
    rows = question_rows(run({"a": 2}), OutputCounts(questions={"default": {"a": 5, "b": 3}}))
    assert [(row.fingerprint, row.done, row.done_in_output) for row in rows] == [("a", 2, 5), ("b", 0, 3)]
    assert question_rows(run({"a": 2}), None)[0].done_in_output is None


def test_fingerprint_change_between_shards_is_reported(place: Place) -> None:
    """The exit code does not show it, so the summary, the page and the report do."""
    place.documents(20)
    place.run("--shard", "0/2")
    assert place.report()["mixed_questions"] == []
    place.configure(agent={"system_prompt": "Another question.\n"})
    ran = place.run("--shard", "1/2")
    assert "has results of 2 fingerprints" in " ".join(ran.out.split())
    report = place.report()
    assert len(report["questions"]) == 2
    assert sum(row["done"] for row in report["questions"]) == 20
    assert sum(row["done_in_output"] for row in report["questions"]) == 20
    page = (place.folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "Results by fingerprint" in page and "has results of 2 fingerprints" in page
    place.run("--shard", "0/2")
    assert place.report()["mixed_questions"] == []
    assert list(place.report()["output"]["questions"]["default"].values()) == [20]
