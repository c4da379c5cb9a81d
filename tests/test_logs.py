"""Log lines: one an event, safe on a terminal, counted instead of repeated."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place, json_log
from fake_llm import FakeLLM
from hypothesis import given, settings
from hypothesis import strategies as st
from terminals import Terminal

from pipeline import logs
from pipeline.logs.wrapping import folded

PAGE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) ")
log = logging.getLogger("pipeline.test")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _quiet_end() -> Iterator[None]:
    yield
    handler = logs.active_handler()
    if handler is not None:
        logging.getLogger().removeHandler(handler)
        handler.close()


def opened(**settings: object) -> tuple[io.StringIO, logs.LineHandler]:
    stream = io.StringIO()
    return stream, logs.setup("debug", stream=stream, **settings)  # type: ignore[arg-type]


def test_text_line_has_time_level_message_and_fields() -> None:
    """A text line is time, level, message, then the fields in the order given, quoted where needed."""
    stream, _ = opened()
    log.error("provider %s", "down", extra={"endpoint": "http://a/v1", "took_s": 1.5, "why": "no route", "none": None})
    assert LINE.match(stream.getvalue())
    assert stream.getvalue().endswith('ERROR provider down endpoint=http://a/v1 took_s=1.5 why="no route" none=null\n')


def test_json_line_is_one_object_with_severity_and_bound_fields() -> None:
    """A JSON line carries severity, time, logger, what is bound, and the fields as JSON values."""
    stream, handler = opened(format="json")
    handler.bind({"run_id": "r1", "shard": None})
    log.info("switched", extra={"provider": "vllm", "documents": 3, "severity": "mine", "nan": float("nan")})
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"[-0-9T:.]+Z", line.pop("time"))
    assert line == {
        "severity": "INFO", "message": "switched", "logger": "pipeline.test", "run_id": "r1", "shard": None,
        "provider": "vllm", "documents": 3, "severity_": "mine", "nan": "nan",
    }  # fmt: skip


@settings(deadline=None)
@given(st.text())
def test_visible_leaves_nothing_a_terminal_acts_on(text: str) -> None:
    """After visible no control, line or paragraph separator, surrogate or bidi character is left; the rest stays."""
    shown = logs.visible(text)
    assert all(unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") for char in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
    if text.isascii() and text.isprintable():
        assert shown == text


@pytest.mark.parametrize("form", ["text", "json"])
@settings(deadline=None)
@given(message=st.text(), value=st.text(), key=st.text(min_size=1))
def test_an_event_is_one_line_whatever_it_holds(form: logs.LogFormat, message: str, value: str, key: str) -> None:
    """Whatever the message, a field's name or its value is, the event is one line (and, as JSON, one object)."""
    stream, _ = opened(format=form)
    log.error("%s", message, extra={"given " + key: value, "more": [value, {value: value}]})
    written = stream.getvalue()
    assert written.splitlines() == [written[:-1]]
    assert written[:-1] == logs.visible(written[:-1])
    if form == "json":
        assert json.loads(written)["message"] == logs.visible(message)


def test_escapes_are_spelled_out() -> None:
    """An escape sequence in a document's name reaches the log as text."""
    stream, _ = opened()
    log.error("failed", extra={"id": "a\x1b[31m\n\u202eb\x9b"})
    assert stream.getvalue().endswith("id=a\\x1b[31m\\n\\u202eb\\x9b\n")


def test_a_traceback_keeps_its_lines_but_cannot_pose_as_an_event() -> None:
    """A traceback's lines are indented, so that text in an exception never looks like a log line."""
    stream, _ = opened()
    try:
        raise ValueError("bad\n2026-01-01T00:00:00.000Z ERROR forged\x1b[2J")
    except ValueError:
        log.exception("internal error")
    first, *rest = stream.getvalue().splitlines()
    assert LINE.match(first)
    assert len(rest) >= 4
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in stream.getvalue()


@given(st.lists(st.text(alphabet="ab=.-/é", min_size=1, max_size=70), min_size=1, max_size=40), st.integers(40, 120))
def test_a_long_event_is_broken_between_words(words: list[str], columns: int) -> None:
    """On a terminal it has the same words on more lines; those after the first are indented: none poses as an event."""
    first, *others = folded(" ".join(words), columns).split("\n")
    assert first.split() + [word for line in others for word in line.split()] == words
    assert all(line.startswith("    ") for line in others)
    assert all(len(line) <= columns or len(line.split()) == 1 for line in [first, *others])


def test_colours_take_no_columns() -> None:
    """A coloured line that fits is not wrapped: the text of an error is laid out already."""
    line = f"\x1b[1m\x1b[31merror:\x1b[0m {'word ' * 6}last one"
    assert folded(line, 45) == line


@pytest.mark.parametrize("form", ["text", "json"])
def test_only_text_on_a_terminal_is_wrapped(form: logs.LogFormat) -> None:
    """An event for a program, a file or a pipe stays one line."""
    terminal = Terminal(60)
    logs.setup("debug", stream=terminal.stream, format=form)
    log.error("word " * 40)
    lines = terminal.text().splitlines()
    assert (len(lines) > 1, max(map(len, lines)) <= 60) == (form == "text", form == "text")
    stream, _ = opened(format=form)
    log.error("word " * 40)
    assert len(stream.getvalue().splitlines()) == 1


def test_a_traceback_is_a_field_in_json() -> None:
    """A traceback in JSON is inside the one object."""
    stream, _ = opened(format="json")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("internal error")
    assert json.loads(stream.getvalue())["stack_trace"].endswith("ValueError: bad")


def test_a_repeated_warning_is_written_once_in_30_s_with_its_count() -> None:
    """Within 30 s a repeating warning is held; the next one written says how many were."""
    clock = Clock()
    stream, _ = opened(clock=clock)
    for clock.now in (0.0, 1.0, 29.9, 30.0):
        log.warning("retried %s", clock.now, extra={"reason": "timeout", "endpoint": "http://a"})
    first, second = stream.getvalue().splitlines()
    assert first.endswith("retried 0.0 reason=timeout endpoint=http://a")
    assert second.endswith("retried 30.0 reason=timeout endpoint=http://a repeated=2")


def test_other_reasons_endpoints_and_levels_are_not_held() -> None:
    """Only the same message for the same reason and endpoint is a repetition, and only of warnings."""
    stream, _ = opened(clock=Clock())
    for reason, endpoint in (("timeout", "a"), ("timeout", "b"), ("overloaded", "a")):
        log.warning("retried", extra={"reason": reason, "endpoint": endpoint})
    log.error("stopped")
    log.error("stopped")
    assert len(stream.getvalue().splitlines()) == 5


def test_warnings_without_a_reason_are_told_apart_by_all_they_say() -> None:
    """Of two variables that are ignored, or two faults of a file, each is said; the same again is a repetition."""
    stream, _ = opened(clock=Clock())
    for name in "aba":
        log.warning("a variable is ignored", extra={"variable": name})
        log.warning("%s", name)
    assert len(stream.getvalue().splitlines()) == 4


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 40)), max_size=60))
def test_no_warning_goes_uncounted(events: list[tuple[str, float]]) -> None:
    """Lines written plus their `repeated` is how often each warning happened, once the handler is closed."""
    clock = Clock()
    stream, handler = opened(format="json", clock=clock)
    for reason, pause_s in events:
        clock.now += pause_s
        log.warning("retried", extra={"reason": reason})
    handler.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for wanted in "abc":
        written = sum(1 + line.get("repeated", 0) for line in lines if line["reason"] == wanted)
        assert written == sum(reason == wanted for reason, _ in events)


def test_repeats_stay_bounded_and_counted() -> None:
    """Thousands of different warnings do not pile up in memory, and those held are still counted."""
    repeats = logs.Repeats(Clock())
    written = 0
    for number in range(3000):
        for _ in range(2):
            record = log.makeRecord(log.name, logging.WARNING, "", 0, "w", (), None, extra={"reason": str(number)})
            written += len(repeats.pass_on(record))
    assert written + len(repeats.rest()) == 6000
    assert repeats.rest() == []


def test_quiet_writes_nothing_until_it_is_asked() -> None:
    """Quiet holds warnings and errors back; flush_quiet writes them, and what comes after goes straight out."""
    stream, handler = opened(quiet=True)
    log.info("started")
    log.warning("retried")
    log.error("stopped")
    assert stream.getvalue() == ""
    handler.flush_quiet()
    log.error("later")
    assert [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()] == ["retried", "stopped", "later"]


def test_quiet_says_nothing_when_it_is_only_closed() -> None:
    """A run that ended with 0 closes the log and has written nothing, repeated warnings included."""
    stream, handler = opened(quiet=True, clock=Clock())
    for _ in range(3):
        log.warning("retried")
    handler.close()
    assert stream.getvalue() == ""


def test_quiet_keeps_the_last_lines_and_says_what_it_dropped() -> None:
    """Quiet keeps the last 200 lines and says how many came before."""
    stream, handler = opened(quiet=True)
    for number in range(205):
        log.error("line %s", number)
    handler.flush_quiet()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "(5 earlier lines were not kept)"
    assert lines[1].endswith("line 5")
    assert lines[-1].endswith("line 204")


def test_level_is_for_our_own_loggers() -> None:
    """A library's info and debug lines stay out whatever our level is."""
    stream, _ = opened()
    logging.getLogger("urllib3").info("a connection")
    log.debug("ours")
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["ours"]


def test_setup_twice_writes_each_line_once() -> None:
    """A second setup replaces the first."""
    first, _ = opened()
    second, _ = opened()
    log.error("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_a_stream_that_fails_does_not_stop_the_run() -> None:
    """An OSError of the stream is swallowed: a terminal that is gone must not end a run."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, f"Input/output error after {len(text)} characters")

    logs.setup("info", stream=Gone())
    log.error("nobody reads this")


# ---- a real run


def test_a_runs_json_log_has_the_documented_fields(place: Place, server: FakeLLM) -> None:
    """Each line is an object with severity, run and shard; those about a document or a provider name them."""
    place.documents({"a.txt": "x", "flaky.txt": "[[fault:http_500*1]]", "bad.txt": "[[fault:http_400]]"})
    place.configure({"runner.max_error_rate": 1})
    ran = place.run("--log-format", "json", "--log-level", "debug", "--run-id", "night", "--shard", "0/1")
    lines = [line for line in json_log(ran.err) if line["logger"].startswith("pipeline")]
    for line in lines:
        assert list(line)[:4] == ["severity", "time", "message", "logger"]
        assert line["severity"] in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    about = {(line["message"], line.get("document")): line for line in lines}
    assert about["document result", "a.txt"]["provider"] == "vllm"
    assert about["document failure", "bad.txt"]["reason"] == "rejected"
    failed = about["request failed", "flaky.txt"]
    assert (failed["provider"], failed["reason"], failed["error"]) == ("vllm", "server_error", "http_500")
    assert failed["endpoint"].startswith(server.url)
    started = [line["message"] for line in lines].index("run starts")
    assert {(line["run_id"], line["shard"]) for line in lines[started:]} == {("night", "0/1")}
    assert about["run ends", None]["exit_code"] == 0
    section = PAGE.partition("## Logs")[2].partition("\n## ")[0]
    names = "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    documented = set(re.findall(r"`(\w+)`", names))
    warnings = [line for line in lines if line["severity"] == "WARNING"]
    assert warnings
    assert {name for line in warnings for name in line} <= documented


def test_nothing_is_said_of_each_document_unless_asked(place: Place) -> None:
    """A million documents are not a million lines."""
    place.documents(5)
    ran = place.run("--log-format", "json")
    assert not any("document" in line for line in json_log(ran.err))


def test_nothing_comes_after_the_end_of_a_run(place: Place) -> None:
    """What was held back as a repetition is counted before the last line."""
    place.documents({"a.txt": "[[fault:http_500]]"})
    ran = place.run("--log-format", "json", "--set", "runner.max_error_rate=1")
    lines = json_log(ran.err)
    assert any("repeated" in line for line in lines)
    assert lines[-1]["message"] == "run ends"
