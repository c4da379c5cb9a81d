"""Numbers on the report page: durations, the time of the run, and the failures that remain."""

from __future__ import annotations

import pytest
from test_report import failure, result, stats_of, summary

from pipeline.report import build_report
from pipeline.report.html import page as html_page
from pipeline.report.numbers_text import duration_text
from pipeline.report.remaining import ReasonCount, RemainingFailures
from pipeline.report.tables import remaining


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 ms"), (0.0237, "24 ms"), (0.9996, "1.0 s"), (8.43, "8.4 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration_has_two_digits_or_two_units(seconds: float, text: str) -> None:
    """A latency of milliseconds is not shown as 0.0 s."""
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("end", "text"),
    [
        ("2026-08-21T10:00:59Z", ", 2026-08-21 10:00 UTC<"),
        ("2026-08-21T12:30:00Z", ", 2026-08-21 10:00 to 12:30 UTC<"),
        ("2026-08-22T01:00:00Z", ", 2026-08-21 10:00 to 2026-08-22 01:00 UTC<"),
    ],
)
def test_page_does_not_repeat_the_day_of_a_run(end: str, text: str) -> None:
    """The end of the run has only what differs from its start."""
    assert text in html_page(build_report([summary(started_at="2026-08-21T10:00:00Z", finished_at=end)]))


def test_remaining_failures_include_those_of_this_run() -> None:
    """The table adds up to all that remain, and one command retries the failures of a reason."""
    rows = {"rejected": ReasonCount(4, 3, 0, ("a.txt",)), "timeout": ReasonCount(2, 0, 0, ("b.txt",))}
    stats = stats_of([result(), failure("b.txt")])
    report = build_report([summary(stats, remaining=RemainingFailures(9, 0, rows), command="pipeline run")])
    table = remaining(report)
    assert [row[:3] for row in table.rows] == [("rejected", 4, 3), ("timeout", 2, 0)]
    assert "<pre>pipeline run --only-failed REASON</pre>" in html_page(report)


def test_remaining_failures_of_this_run_alone_have_no_table() -> None:
    """The table of failures by reason already shows them."""
    rows = {"timeout": ReasonCount(2, 0, 0, ("b.txt",))}
    report = build_report([summary(remaining=RemainingFailures(9, 0, rows))])
    assert remaining(report).rows == ()
    assert "--only-failed REASON" not in html_page(report)
