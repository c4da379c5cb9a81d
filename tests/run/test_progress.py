"""Progress: a live block that log lines do not garble, and plain lines elsewhere."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial

import pytest
from raw_server import refusing_url
from terminals import Terminal

from pipeline import logs
from pipeline.config.loading import load_config
from pipeline.llm.sharing import LoadConflict
from pipeline.report.stats import RunStats
from pipeline.run.display.observer import Display
from pipeline.run.display.progress import (
    BarProgress,
    NoProgress,
    PlainProgress,
    block_lines,
    make_progress,
)
from pipeline.run.display.rates import ProgressState, Rates, RateWindow
from pipeline.run.display.status import RunStatus, total_documents, waiting_for
from pipeline.run.plan import build_plan
from pipeline.run.windows.long_counts import LongStatus

log = logging.getLogger("pipeline.test")
ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Ticks:
    """A clock that advances one step at each call."""

    def __init__(self, step_s: float = 1.0) -> None:
        self.now, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


def screen(text: str) -> list[str]:
    """Return the final lines of a terminal: a tiny emulation of what rich sends (CR, LF, up, erase line)."""
    lines, row, column, at = [""], 0, 0, 0
    while at < len(text):
        match = ESCAPE.match(text, at)
        if match:
            number, kind = match.groups()
            if kind == "A":
                row = max(0, row - int(number or 1))
            elif kind == "K":
                lines[row] = "" if number == "2" else lines[row][:column]
            else:
                assert kind in "mhl", f"an escape the test does not know: {match.group()!r}"
            at = match.end()
            continue
        char, at = text[at], at + 1
        if char == "\r":
            column = 0
        elif char == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            assert char >= " ", f"a control character on the terminal: {char!r}"
            lines[row] = lines[row][:column].ljust(column) + char + lines[row][column + 1 :]
            column += 1
    return lines


def make(mode: str, stream: io.TextIOBase, *, term: str = "xterm", clock: Callable[[], float] | None = None) -> object:
    return make_progress(mode, stream=stream, clock=clock or Ticks(), log=log, environ={"TERM": term})  # type: ignore[arg-type]


def test_auto_is_plain_without_a_terminal() -> None:
    """A stream that is not a terminal gets plain lines."""
    assert isinstance(make("auto", io.StringIO()), PlainProgress)


@pytest.mark.parametrize(("term", "kind"), [("xterm", BarProgress), ("dumb", PlainProgress), ("", PlainProgress)])
def test_auto_mode_depends_on_the_terminal(term: str, kind: type) -> None:
    """A terminal gets the bar; a dumb or unknown one gets plain lines."""
    terminal = Terminal(80)
    progress = make("auto", terminal.stream, term=term)
    progress.close()  # type: ignore[attr-defined]
    terminal.text()
    assert isinstance(progress, kind)


def test_mode_none_writes_no_output() -> None:
    """Mode none writes no progress at all."""
    stream = io.StringIO()
    progress = make("none", stream)
    assert isinstance(progress, NoProgress)
    progress.update(ProgressState(done=1))
    progress.close()
    assert stream.getvalue() == ""


def test_plain_writes_a_line_every_30_s() -> None:
    """In 95 s of updates plain writes three lines, without fields whose value is unknown."""
    stream = io.StringIO()
    logs.setup("info", stream=stream)
    progress = make("plain", stream)
    for second in range(95):
        progress.update(ProgressState(done=second, in_flight=4, limit=4, elapsed_s=second))  # type: ignore[attr-defined]
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert "progress done=29 failed=0 skipped=0 in_flight=4 limit=4" in lines[0]
    assert "documents_per_s=1.0" in lines[0]
    assert "total" not in lines[0]
    assert "eta_s" not in lines[0]


def test_rates_cover_the_last_minute_without_skipped_documents() -> None:
    """Skipped documents count neither as done nor as remaining."""
    window = RateWindow()
    for second in range(201):
        sent = second if second <= 100 else 100 + 3 * (second - 100)
        window.add(ProgressState(done=sent, skipped=500, elapsed_s=second, tokens_in=10 * sent))
    rates = window.rates(ProgressState(done=400, skipped=500, elapsed_s=200, tokens_in=4000, total=1500))
    assert rates.documents == pytest.approx(3.0, rel=0.05)
    assert rates.tokens_in == pytest.approx(30.0, rel=0.05)
    assert rates.eta_s == pytest.approx(200, rel=0.05)


def test_remaining_time_counts_windows_of_open_documents() -> None:
    """While a document of 1,000 windows is open no document finishes, and the estimate is still known."""
    window = RateWindow()
    for second in range(31):
        status = LongStatus(open=1, answered=5 * second, windows=1000, outcomes={"answered": 5 * second})
        window.add(ProgressState(done=5 * second, total=401, elapsed_s=second, long=status))
    assert window.rates(ProgressState(done=150, total=401, elapsed_s=30, long=status)).eta_s == pytest.approx(
        110, rel=0.02
    )
    for second in range(31, 91):
        answered = 150 + 10 * (second - 30)
        status = LongStatus(open=1, answered=answered, windows=1000, outcomes={"answered": answered})
        window.add(ProgressState(done=150, total=151, elapsed_s=second, long=status))
    rates = window.rates(ProgressState(done=150, total=151, elapsed_s=90, long=status))
    assert rates.eta_s == pytest.approx(25, abs=1)


def test_remaining_answers_assume_average_windows_per_document() -> None:
    """Unread documents are estimated like finished ones, and parked documents like open ones."""
    closed = {"answered": 60, "reused": 40}
    state = ProgressState(done=10, total=40, long=LongStatus(4, 20, 40, 6, {**closed, "answered": 80}))
    assert state.answers_left == 20 * (1 + 100 / 10) + 6 * 10 + 20 + 4


@pytest.mark.parametrize("width", [10, 24, 40, 60, 80, 200])
def test_block_lines_fit_the_terminal_width(width: int) -> None:
    """The counts are the last part to be dropped."""
    state = ProgressState(
        done=123456, failed=789, skipped=10, in_flight=64, limit=64, limit_reason="server queue is full",
        total=2_000_000, tokens_in=10**9, last_reason="output_truncated", waiting_for="connection refused by http://127.0.0.1:8000",
        elapsed_s=9999,
    )  # fmt: skip
    lines = block_lines(state, Rates(12.5, 30000, 900, 80000), width=width)
    assert all(len(line) < width for _, line in lines)
    assert lines[0][1].lstrip("#-").strip().startswith("124,255 o")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_narrow_block_has_the_same_parts_on_more_lines(width: int) -> None:
    """Only the bar is dropped for lack of columns; a wide terminal needs three lines."""
    state = ProgressState(
        done=21, failed=1, found=278, in_flight=2, limit=4, limit_reason="rising", last_reason="rejected",
        last_failed="d0042.txt", queue_s=1.25, elapsed_s=64,
    )  # fmt: skip
    lines = block_lines(state, Rates(5.3, 1300, 41, None), width=width)
    parts = [
        "22 of 278+", "21 done", "1 failed", "5.30/s", "after 1:04", "2 of 4 in flight", "(rising)",
        "tokens/s 1,300 in, 41 out", "server queue 1.2 s", "last failure: rejected", "d0042.txt",
    ]  # fmt: skip
    assert [part for _, line in lines for part in line.split("  ")] == parts
    assert len(lines) == {40: 5, 80: 4, 120: 3}[width]


@pytest.mark.parametrize(("width", "count"), [(40, 3), (60, 2), (80, 1), (120, 1), (160, 1)])
def test_held_model_message_is_complete_at_any_width(width: int, count: int) -> None:
    """The message contains both contexts, the expiry and the setting: one line at 80 columns, more below."""
    expires = datetime(2026, 11, 28, 12, 40, tzinfo=timezone.utc)
    conflict = LoadConflict("llama3.1", 131072, 131072, "ollama.num_ctx", expires)
    now = datetime(2026, 11, 28, 12, 10, tzinfo=timezone.utc)
    lines = waiting_lines(conflict.short_message(now), width=width)
    assert " ".join(lines) == "waiting: context is 131072, need 131072, until 12:40 UTC: set ollama.num_ctx"
    assert len(lines) == count


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        (None, "context is 2048, need 8192: set ollama.num_ctx"),
        (datetime(2026, 11, 29, 0, 5, tzinfo=timezone.utc), "until 11-29 00:05 UTC"),
        (
            datetime(2318, 1, 1, tzinfo=timezone.utc),
            "context is 2048, need 8192, without end: set ollama.num_ctx",
        ),
    ],
)
def test_held_model_short_form_names_the_expiry(expires: datetime | None, expected: str) -> None:
    """It names the day unless it is today, and distinguishes an unknown expiry from a keep_alive of -1."""
    now = datetime(2026, 11, 28, 23, 50, tzinfo=timezone.utc)
    assert expected in LoadConflict("llama3.1", 2048, 8192, "ollama.num_ctx", expires).short_message(now)


@pytest.mark.parametrize("width", [1, 2, 5, 40, 80])
def test_long_message_is_wrapped_to_at_most_three_lines(width: int) -> None:
    """The last line ends with an ellipsis, and a tiny terminal causes no error."""
    lines = waiting_lines("vllm (http://127.0.0.1:8000): connection refused " * 20, width=width)
    assert 1 <= len(lines) <= 3
    assert lines[-1].endswith("…")
    assert width < 5 or all(len(line) < width for line in lines)


def waiting_lines(message: str, *, width: int) -> list[str]:
    """Return the lines of the block that explain a wait."""
    lines = block_lines(ProgressState(waiting_for=message), Rates(0, 0, 0, None), width=width)
    return [line for style, line in lines if style == "yellow"]


def test_wait_at_the_start_names_the_refusing_server() -> None:
    """Before the first preflight has ended the wait is for the preflight, then for the server."""
    app = load_config(environ={}, overrides={"provider": "vllm", "vllm.base_url": refusing_url(), "vllm.model": "m"})
    client = build_plan(app, stop=threading.Event()).client
    client.quarantine()
    reason = partial(waiting_for, client, ready=False, is_outage=False, output=None, stopping=False)
    assert reason() == "the first request to each server"
    client.recover(lambda body, _: body())
    assert "Connection refused" in (reason() or "")
    client.close()


@pytest.mark.parametrize("reason", ["", "set"])
def test_limit_that_nothing_changed_has_no_reason(reason: str) -> None:
    """The start value, and one that the user has set, need no explanation."""
    lines = block_lines(ProgressState(limit=4, limit_reason=reason), Rates(0, 0, 0, None), width=80)
    assert any("in flight  tokens/s" in line for _, line in lines), lines


def test_escape_sequences_in_a_reason_are_spelled_out() -> None:
    """Text from a server cannot control the terminal."""
    lines = block_lines(ProgressState(waiting_for="\x1b[2Jgone"), Rates(0, 0, 0, None), width=80)
    assert lines[-1][1] == "waiting: \\x1b[2Jgone"


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    """Switch threads thousands of times more often, so that a missing lock shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_eager_threads")
@pytest.mark.parametrize("columns", [30, 100])
def test_bar_does_not_garble_log_lines(columns: int) -> None:
    """While workers log and the block is redrawn, each log line appears whole and once, and no block remains."""
    terminal = Terminal(columns)
    logs.setup("info", stream=terminal.stream)
    progress = make("bar", terminal.stream)
    workers = [threading.Thread(target=lambda n=n: [log.info("w%s-%s", n, i) for i in range(100)]) for n in range(4)]
    for worker in workers:
        worker.start()
    for number in range(400):
        reason = "timeout" if number % 2 else None  # the block grows and shrinks
        state = ProgressState(done=number, total=400, elapsed_s=number, last_reason=reason, waiting_for=reason)
        progress.update(state)  # type: ignore[attr-defined]
    for worker in workers:
        worker.join(60)
    progress.close()  # type: ignore[attr-defined]
    log.info("after")
    shown = [line for line in screen(terminal.text()) if line]
    assert all(re.fullmatch(r"\S+Z INFO (w\d-\d+|after)", line) for line in shown), shown
    expected = {f"w{n}-{i}" for n in range(4) for i in range(100)} | {"after"}
    assert sorted(line.split()[-1] for line in shown) == sorted(expected)


def test_long_log_line_above_the_bar_is_wrapped_between_words() -> None:
    """The words are those without a bar, indented after the first line."""
    terminal = Terminal(60)
    logs.setup("info", stream=terminal.stream)
    progress = make("bar", terminal.stream)
    progress.update(ProgressState(done=5, total=12))  # type: ignore[attr-defined]
    log.info("provider is unavailable; documents wait for it", extra={"endpoint": "http://127.0.0.1:8000/v1"})
    progress.close()  # type: ignore[attr-defined]
    first, *others = [line for line in screen(terminal.text()) if line]
    assert " ".join([first, *map(str.strip, others)]).partition("INFO ")[2] == (
        "provider is unavailable; documents wait for it endpoint=http://127.0.0.1:8000/v1"
    )
    assert all(line.startswith("    ") for line in others)


def test_bar_is_drawn_and_the_cursor_restored() -> None:
    """The terminal received the block, and the cursor is shown again at the end."""
    terminal = Terminal(100)
    progress = make("bar", terminal.stream)
    progress.update(ProgressState(done=5, failed=1, total=12, limit=8, in_flight=8, elapsed_s=3, last_reason="timeout"))  # type: ignore[attr-defined]
    progress.close()  # type: ignore[attr-defined]
    text = terminal.text()
    assert "██████████░░░░░░░░░░  6 of 12  5 done  1 failed" in ESCAPE.sub("", text)
    assert "last failure: timeout" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_no_color_removes_colour_from_the_bar() -> None:
    """With NO_COLOR the block has no colour codes."""
    coloured = []
    for environ in ({"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": "1"}):
        terminal = Terminal(80)
        progress = make_progress("bar", stream=terminal.stream, clock=Ticks(), log=log, environ=environ)
        progress.update(ProgressState(done=1, last_reason="timeout"))
        progress.close()
        coloured.append("\x1b[31m" in terminal.text())
    assert coloured == [True, False]


def test_bar_is_drawn_at_most_five_times_a_second() -> None:
    """A thousand updates within one second are drawn at most seven times."""
    terminal = Terminal(80)
    progress = make("bar", terminal.stream, clock=Ticks(0.001))
    for number in range(1000):
        progress.update(ProgressState(done=number))  # type: ignore[attr-defined]
    progress.close()  # type: ignore[attr-defined]
    assert 2 <= terminal.text().count(" done") <= 7


def test_closed_terminal_does_not_stop_the_run() -> None:
    """Updates after the terminal was closed raise no error."""
    leader, follower = pty.openpty()
    stream = os.fdopen(follower, "w", encoding="utf-8")
    progress = make("bar", stream)
    os.close(leader)
    progress.update(ProgressState(done=1))  # type: ignore[attr-defined]
    progress.close()  # type: ignore[attr-defined]
    with suppress(OSError):
        stream.close()


class Shown:
    """A display that records the states it receives."""

    def __init__(self) -> None:
        self.states: list[ProgressState] = []

    def update(self, state: ProgressState) -> None:
        self.states.append(state)

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("found", "skipped", "listed_whole", "budget", "total"),
    [
        (600, 0, False, None, None),
        (600, 0, True, None, 600),
        (600, 40, False, 100, 140),
        (120, 40, False, 100, None),
        (120, 40, True, 100, 120),
    ],
)
def test_total_respects_limit(
    found: int, skipped: int, listed_whole: bool, budget: int | None, total: int | None
) -> None:
    """With --limit the total is known once that many documents were listed, skipped ones not counted."""
    counts = {"found": found, "done": 3, "failed": 1, "skipped": skipped}
    assert total_documents(counts, budget=budget, is_listing_complete=listed_whole) == total
    shown = Shown()
    Display(RunStats(None, Ticks()), shown, started=0.0).turn(RunStatus(counts, total))
    assert [state.total for state in shown.states] == [total]
