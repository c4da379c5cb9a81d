"""The rules that stop a run: failure guard, outage timer and exit code."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_output import failure, result

from pipeline.config import RunnerConfig
from pipeline.errors import EXIT_LATER
from pipeline.llm.failover import Trouble
from pipeline.records import Failure, Result
from pipeline.report.remaining import RemainingFailures
from pipeline.run.ending.exit_code import exit_code
from pipeline.run.stop_rules import ABORT_WINDOW, FailureGuard, OutageTimer, StopReason

OUTAGE, REFUSED = Trouble(False, "it refuses connections"), Trouble(True, "it says 401")


def first_end(guard: FailureGuard, reasons: list[str]) -> int | None:
    """Return how many documents it took to end the run, or None; a reason of "" is a result."""
    for number, reason in enumerate(reasons, 1):
        if guard.add(failure("d", reason=reason) if reason else result("d")) is not None:
            return number
    return None


@pytest.mark.parametrize(
    ("reasons", "ends_at"),
    [
        (["timeout"] * 9, 5),
        (["timeout"] * 4 + ["overloaded"] * 9, None),
        (["", *["timeout"] * 9], None),
        (["timeout"] * 4 + ["", *["timeout"] * 9], None),
    ],
)
def test_fail_fast_requires_one_reason_from_the_first_document_on(reasons: list[str], ends_at: int | None) -> None:
    """Two reasons, or one result, disable the rule for the rest of the run."""
    assert first_end(FailureGuard(RunnerConfig(fail_fast=5)), reasons) == ends_at


@pytest.mark.parametrize(
    ("share", "reasons", "ends_at"),
    [
        (0.5, ["", "timeout"] * 500, ABORT_WINDOW),
        (0.5, ["", "", "timeout"] * 500, None),
        (0.5, ["timeout"] * 249 + [""] * 400 + ["timeout"] * 400, 899),
        (1.0, ["timeout"] * 600, ABORT_WINDOW),
        (1.0, ["", *["timeout"] * 600], 501),
        (0.0, [""] * 600, None),
        (0.0, [""] * 600 + ["timeout"], 601),
    ],
)
def test_abort_error_rate_covers_the_last_500_documents(share: float, reasons: list[str], ends_at: int | None) -> None:
    """Reaching the share is enough, earlier documents do not count, and zero failures never abort."""
    assert first_end(FailureGuard(RunnerConfig(fail_fast=0, abort_error_rate=share)), reasons) == ends_at


def unsent(reason: str) -> Failure:
    """Return the failure of a document that was not sent."""
    return replace(failure("d", reason=reason), attempts=0)


def test_fail_fast_counts_unsent_documents() -> None:
    """A run over millions of unreadable objects ends after the first few."""
    guard = FailureGuard(RunnerConfig(fail_fast=5))
    ends = [guard.add(unsent("document_unreadable")) for _ in range(5)]
    assert [end is not None for end in ends] == [False] * 4 + [True]


def test_unsent_failures_do_not_hide_a_failing_server() -> None:
    """The documents that were sent are also watched separately."""
    guard = FailureGuard(RunnerConfig(fail_fast=3))
    outcomes = [unsent("document_empty"), *[failure("d", reason="timeout")] * 3]
    assert [guard.add(outcome) is not None for outcome in outcomes] == [False, False, False, True]


def test_abort_message_counts_the_reasons() -> None:
    """Half of the last 500 documents failed before they were sent, and the message names their reason."""
    guard = FailureGuard(RunnerConfig(fail_fast=0, abort_error_rate=0.5))
    outcomes: list[Result | Failure] = [result("d"), unsent("document_unreadable")] * 250
    ends = [end for outcome in outcomes if (end := guard.add(outcome)) is not None]
    assert len(ends) == 1
    assert (
        "250 of the last 500 documents tried failed (runner.abort_error_rate 0.5): 250 document_unreadable"
        in ends[0].message
    )


def test_outage_timer_logs_each_change_of_cause(caplog: pytest.LogCaptureFixture) -> None:
    """An outage that turns into a refused key has another limit, which the log names."""
    patience = OutageTimer(RunnerConfig(max_outage_s=60, config_grace_s=10))
    for now, trouble in enumerate([OUTAGE, OUTAGE, REFUSED, REFUSED, OUTAGE]):
        patience.watch(trouble, now)
    assert [record.getMessage() for record in caplog.records] == [
        "no provider is available, waiting up to 60 s: it refuses connections",
        "no provider is available, now waiting up to 10 s: it says 401",
        "no provider is available, now waiting up to 60 s: it refuses connections",
    ]


def test_causes_that_change_within_seconds_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A request and the probe after it fail with different texts; a cause that remains is logged after 30 s."""
    patience = OutageTimer(RunnerConfig(max_outage_s=60))
    other = Trouble(False, "it does not answer")
    for trouble, now in [(OUTAGE, 0), (other, 1), (OUTAGE, 2), (other, 29), (other, 30), (other, 31)]:
        patience.watch(trouble, now)
    assert [record.getMessage() for record in caplog.records] == [
        "no provider is available, waiting up to 60 s: it refuses connections",
        "no provider is available, now waiting up to 60 s: it does not answer",
    ]


def test_wait_at_the_start_is_part_of_the_outage() -> None:
    """The limit counts from the first waiting document, not from the end of the preflights."""
    patience = OutageTimer(RunnerConfig(max_outage_s=60))
    assert patience.watch(OUTAGE, 5, examined=False) is None
    assert patience.since is None
    assert patience.watch(OUTAGE, 64) is None
    assert patience.since == 5
    assert patience.watch(OUTAGE, 66) is not None


def test_wait_at_the_start_ends_with_the_first_available_provider() -> None:
    """A later outage has the whole limit again."""
    patience = OutageTimer(RunnerConfig(max_outage_s=60))
    patience.watch(OUTAGE, 0, examined=False)
    patience.watch(None, 50)
    assert patience.watch(OUTAGE, 100) is None
    assert patience.watch(OUTAGE, 159) is None
    assert patience.watch(OUTAGE, 161) is not None


def test_wait_is_not_logged_before_a_document_waits(caplog: pytest.LogCaptureFixture) -> None:
    """A run that has nothing to send needs no provider."""
    patience = OutageTimer(RunnerConfig(max_outage_s=60, startup_wait_s=7))
    patience.log_start("it refuses connections", None)
    assert not caplog.records
    patience.begin(0.0)
    patience.log_start("it refuses connections", "spare")
    (record,) = caplog.records
    assert record.getMessage() == (
        "no provider is available, waiting up to 7 s: it refuses connections; the fallback spare is tried next"
    )


@pytest.mark.parametrize(
    ("observed", "ends_at"),
    [
        ([(OUTAGE, 0), (OUTAGE, 60), (OUTAGE, 61)], 61),
        ([(OUTAGE, 0), (None, 50), (OUTAGE, 70), (OUTAGE, 130)], None),
        ([(REFUSED, 0), (REFUSED, 10), (REFUSED, 11)], 11),
        ([(OUTAGE, 0), (REFUSED, 50), (REFUSED, 60), (None, 61)], None),
        ([(OUTAGE, 0), (REFUSED, 50), (REFUSED, 61)], 61),
        ([(REFUSED, 0), (OUTAGE, 9), (REFUSED, 12), (REFUSED, 20), (REFUSED, 23)], 23),
        ([(REFUSED, 0), (OUTAGE, 9), (REFUSED, 12), (OUTAGE, 20), (OUTAGE, 61)], 61),
    ],
)
def test_outage_and_configuration_error_have_separate_limits(
    observed: list[tuple[Trouble | None, float]], ends_at: int
) -> None:
    """A configuration error after an outage gets its whole grace; alternating between both extends neither."""
    patience = OutageTimer(RunnerConfig(max_outage_s=60, config_grace_s=10))
    ends = [(now, end) for trouble, now in observed if (end := patience.watch(trouble, now)) is not None]
    assert (ends[0][0] if ends else None) == ends_at
    assert all(end.exit_code == EXIT_LATER for _, end in ends)


def test_stop_reason_takes_precedence_over_counts() -> None:
    """A signal decides the exit code, however many documents have failed."""
    config = RunnerConfig(max_error_rate=0.0)
    code, *_ = exit_code(
        StopReason.of_signal(15),
        counts={"done": 0, "failed": 9, "skipped": 0, "left": 0},
        remaining=RemainingFailures(),
        listed=None,
        ignored={},
        config=config,
        min_documents=1,
    )
    assert code == 143


def test_repeated_cause_is_added_once() -> None:
    """An unavailable output also prevents finishing it, which is the same cause."""
    end = StopReason("the input is away", 3).with_error("the output is away")
    assert end == StopReason("the input is away; the output is away", 3)
    assert end.with_error("the output is away") == end
