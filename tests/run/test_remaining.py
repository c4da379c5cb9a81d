"""Remaining failures appear in every summary, page, report, metric and exit code until they are resolved."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Place

from pipeline.config import RunnerConfig
from pipeline.errors import EXIT_FAILURES, EXIT_LATER, EXIT_OK
from pipeline.report.remaining import RemainingFailures, merged
from pipeline.run.ending.exit_code import exit_code
from pipeline.run.stop_rules import StopReason

COUNTS = {"done": 0, "failed": 0, "skipped": 0, "left": 0}


def remaining(failed: int, *, documents: int, tried: bool = False, accepted: bool = False) -> RemainingFailures:
    result = RemainingFailures()
    for number in range(failed):
        result = result.with_one("rejected", document_id=f"d{number}", tried=tried, accepted=accepted)
    return result.of(documents)


def code_of(*, end: StopReason | None = None, remains: RemainingFailures | None = None, **given: Any) -> int:
    """Return the exit code of a run with these counts."""
    incomplete_exit = given.pop("incomplete_exit", 0)
    counts = {**COUNTS, **given}
    return exit_code(
        end,
        counts=counts,
        remaining=remains or RemainingFailures(),
        listed=sum(counts.values()),
        ignored={},
        config=RunnerConfig(max_error_rate=0.05),
        min_documents=0,
        incomplete_exit=incomplete_exit,
    )[0]


@pytest.mark.parametrize(
    ("done", "failed", "code"),
    [
        (38, 2, EXIT_OK),
        (37, 3, EXIT_FAILURES),
        (18, 2, EXIT_FAILURES),
        (17, 2, EXIT_OK),
        (0, 1, EXIT_FAILURES),
        (0, 0, EXIT_OK),
    ],
)
def test_error_rate_of_this_run_decides_the_exit_code(done: int, failed: int, code: int) -> None:
    """20 tried documents above the rate exit with 1, as do any that all fail; skipped ones do not dilute the rate."""
    assert code_of(done=done, failed=failed, skipped=1000) == code


@pytest.mark.parametrize(("failed", "code"), [(5, EXIT_OK), (6, EXIT_FAILURES)])
def test_remaining_failures_decide_the_exit_code(failed: int, code: int) -> None:
    """The share of remaining failures counts even if none was tried; accepted failures do not count."""
    assert code_of(skipped=100, remains=remaining(failed, documents=100)) == code
    assert code_of(skipped=100, remains=remaining(failed, documents=100, accepted=True)) == EXIT_OK


def test_retried_accepted_failures_do_not_count() -> None:
    """A run that only repeats accepted failures exits with 0."""
    assert code_of(failed=3, remains=remaining(3, documents=3, tried=True, accepted=True)) == EXIT_OK


def test_incomplete_exit_applies_to_documents_left() -> None:
    """Failures take precedence, and a run that left no document exits with 0."""
    end = StopReason("stopped by --max-duration")
    assert code_of(end=end, done=5, left=5) == EXIT_OK
    assert code_of(end=end, done=5, left=5, incomplete_exit=EXIT_LATER) == EXIT_LATER
    assert code_of(end=end, failed=5, left=5, incomplete_exit=EXIT_LATER) == EXIT_FAILURES
    assert code_of(done=5, incomplete_exit=EXIT_LATER) == EXIT_OK


def test_remaining_failures_of_shards_are_merged() -> None:
    """The failures of all shards form one table, with a few examples of each reason."""
    whole = merged([remaining(2, documents=10), remaining(4, documents=20, tried=True), remaining(1, documents=1)])
    assert (whole.failed, whole.untried, whole.documents) == (7, 3, 31)
    assert RemainingFailures.from_json(whole.to_json()) == whole


def failing(place: Place, *, good: int, bad: int, fault: str = "http_400") -> None:
    """Write `good` documents that succeed and `bad` ones that always fail."""
    texts = {f"good{number:03}.txt": "text" for number in range(good)}
    place.documents({**texts, **{f"bad{number:03}.txt": f"[[fault:{fault}*99]]" for number in range(bad)}})


def test_permanent_failures_keep_exit_code_1(place: Place) -> None:
    """36 of 361 documents fail permanently: later runs also exit with 1, although they send no request."""
    place.configure({"runner.concurrency": 32, "runner.abort_error_rate": 1, "runner.fail_fast": 0})
    failing(place, good=325, bad=36)
    place.run(code=1)
    for _ in range(2):
        place.sent_documents()
        ran = place.run("--metrics-textfile", "metrics.prom", code=1)
        assert place.sent_documents() == []
    assert "TOO MANY FAILURES: 361 found, 0 done, 361 skipped; 36 remain failed from earlier runs (exit 1)" in ran.out
    assert "36 of 361 documents in the input remain failed" in ran.out
    assert "--only-failed rejected" in ran.out and "pipeline errors out --accept rejected" in ran.out
    report = place.report()
    assert report["exit_code"] == 1
    assert {name: report["run"]["remaining"][name] for name in ("documents", "failed", "untried", "accepted")} == {
        "documents": 361, "failed": 36, "untried": 36, "accepted": 0,
    }  # fmt: skip
    page = (place.folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "36 documents remain failed from earlier runs: rejected (36)." in page
    metrics = (place.folder / "metrics.prom").read_text(encoding="utf-8")
    assert 'pipeline_documents_remaining_failed{agent="small",reason="rejected",shard=""} 36.0' in metrics


def test_few_remaining_failures_are_in_the_summary_only(place: Place) -> None:
    """Within max_error_rate a run exits with 0 and names them; with --quiet it prints no output."""
    failing(place, good=39, bad=1)
    place.run()
    ran = place.run()
    assert "FINISHED WITH FAILURES: 40 found, 0 done, 40 skipped; 1 remains failed from earlier runs" in ran.out
    quiet = place.run("--quiet")
    assert (quiet.out, quiet.err) == ("", "")


def test_resolved_documents_are_no_remaining_failures(place: Place) -> None:
    """A document that was repaired, excluded or removed no longer counts for this input."""
    failing(place, good=10, bad=3)
    place.run(code=1)
    place.change("bad000.txt", "now it is fine")
    (place.folder / "inbox" / "bad001.txt").unlink()
    ran = place.run("--set", "input.exclude=[bad002.txt]")
    assert "remain" not in ran.out
    assert place.report()["run"]["remaining"]["failed"] == 0
    assert len(place.failed()) == 2, "the output keeps the lines"


def test_shard_exit_code_depends_on_its_own_documents(place: Place) -> None:
    """The report has the failures of all shards."""
    failing(place, good=30, bad=6)
    codes = {shard: place.call("run", "--shard", f"{shard}/2").code for shard in (0, 1)}
    again = {shard: place.call("run", "--shard", f"{shard}/2").code for shard in (0, 1)}
    assert again == codes
    assert place.report()["run"]["remaining"]["failed"] == 6


def test_incomplete_exit_replaces_0_while_documents_are_left(place: Place) -> None:
    """--limit leaves documents, so the run exits with 3; the run that does the last of them exits with 0."""
    place.documents(6)
    ran = place.run("--limit", "4", "--incomplete-exit", "3", code=3)
    assert "STOPPED BEFORE THE END" in ran.out and "2 documents are left" in ran.out
    place.run("--incomplete-exit", "3")
    assert len(place.done()) == 6
    assert "--incomplete-exit" in place.call("run", "--incomplete-exit", "1").err
