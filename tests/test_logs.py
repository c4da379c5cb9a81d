"""Log lines: one an event, safe on a terminal, counted instead of repeated."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
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
    """A clock that does not advance until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(**settings: object) -> tuple[io.StringIO, logs.LineHandler]:
    stream = io.StringIO()
    return stream, logs.setup("debug", stream=stream, **settings)  # type: ignore[arg-type]


def test_text_line_has_time_level_message_and_fields() -> None:
    """Fields are in the given order and quoted if necessary."""
    stream, _ = opened()
    log.error("provider %s", "down", extra={"endpoint": "http://a/v1", "took_s": 1.5, "why": "no route", "none": None})
    assert LINE.match(stream.getvalue())
    assert stream.getvalue().endswith('ERROR provider down endpoint=http://a/v1 took_s=1.5 why="no route" none=null\n')


def test_json_line_is_one_object_with_severity_and_bound_fields() -> None:
    """It has severity, time, logger, bound values, and the fields as JSON values."""
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
def test_visible_removes_all_terminal_controls(text: str) -> None:
    """These are control characters, line and paragraph separators, surrogates and bidi marks; the rest stays."""
    shown = logs.visible(text)
    assert all(unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") for char in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
    if text.isascii() and text.isprintable():
        assert shown == text


@pytest.mark.parametrize("form", ["text", "json"])
@settings(deadline=None)
@given(message=st.text(), value=st.text(), key=st.text(min_size=1))
def test_event_is_always_one_line(form: logs.LogFormat, message: str, value: str, key: str) -> None:
    """This holds for any message, field name and value, and as JSON it is one object."""
    stream, _ = opened(format=form)
    log.error("%s", message, extra={"given " + key: value, "more": [value, {value: value}]})
    written = stream.getvalue()
    assert written.splitlines() == [written[:-1]]
    assert written[:-1] == logs.visible(written[:-1])
    if form == "json":
        assert json.loads(written)["message"] == logs.visible(message)


def test_escapes_in_log_lines_are_spelled_out() -> None:
    """An escape sequence in a document's name reaches the log as text."""
    stream, _ = opened()
    log.error("failed", extra={"id": "a\x1b[31m\n\u202eb\x9b"})
    assert stream.getvalue().endswith("id=a\\x1b[31m\\n\\u202eb\\x9b\n")


def test_traceback_lines_are_indented() -> None:
    """Text in an exception therefore never looks like a log line."""
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
def test_long_event_is_wrapped_between_words(words: list[str], columns: int) -> None:
    """On a terminal it has the same words; later lines are indented, so none looks like an event."""
    first, *others = folded(" ".join(words), columns).split("\n")
    assert first.split() + [word for line in others for word in line.split()] == words
    assert all(line.startswith("    ") for line in others)
    assert all(len(line) <= columns or len(line.split()) == 1 for line in [first, *others])


def test_colour_codes_do_not_count_as_columns() -> None:
    """A coloured line that fits is not wrapped."""
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


def test_json_traceback_is_a_field() -> None:
    """The traceback is a field of the single log object."""
    stream, _ = opened(format="json")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("internal error")
    assert json.loads(stream.getvalue())["stack_trace"].endswith("ValueError: bad")


def test_repeated_warning_is_written_once_in_30_s() -> None:
    """The next one that is written has the count of the suppressed ones."""
    clock = Clock()
    stream, _ = opened(clock=clock)
    for clock.now in (0.0, 1.0, 29.9, 30.0):
        log.warning("retried %s", clock.now, extra={"reason": "timeout", "endpoint": "http://a"})
    first, second = stream.getvalue().splitlines()
    assert first.endswith("retried 0.0 reason=timeout endpoint=http://a")
    assert second.endswith("retried 30.0 reason=timeout endpoint=http://a repeated=2")


def test_only_equal_warnings_are_suppressed() -> None:
    """Message, reason and endpoint must be equal, and other levels are never suppressed."""
    stream, _ = opened(clock=Clock())
    for reason, endpoint in (("timeout", "a"), ("timeout", "b"), ("overloaded", "a")):
        log.warning("retried", extra={"reason": reason, "endpoint": endpoint})
    log.error("stopped")
    log.error("stopped")
    assert len(stream.getvalue().splitlines()) == 5


def test_warnings_without_a_reason_are_compared_by_all_fields() -> None:
    """Two ignored variables, or two errors of a file, are both logged; only equal ones are repetitions."""
    stream, _ = opened(clock=Clock())
    for name in "aba":
        log.warning("a variable is ignored", extra={"variable": name})
        log.warning("%s", name)
    assert len(stream.getvalue().splitlines()) == 4


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 40)), max_size=60))
def test_every_warning_is_counted(events: list[tuple[str, float]]) -> None:
    """Written lines plus their `repeated` equal the number of warnings once the handler is closed."""
    clock = Clock()
    stream, handler = opened(format="json", clock=clock)
    for reason, pause_s in events:
        clock.now += pause_s
        log.warning("retried", extra={"reason": reason})
    handler.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for name in "abc":
        written = sum(1 + line.get("repeated", 0) for line in lines if line["reason"] == name)
        assert written == sum(reason == name for reason, _ in events)


def test_suppressed_warnings_use_bounded_memory() -> None:
    """Thousands of different warnings are still counted."""
    repeats = logs.Repeats(Clock())
    written = 0
    for number in range(3000):
        for _ in range(2):
            record = log.makeRecord(log.name, logging.WARNING, "", 0, "w", (), None, extra={"reason": str(number)})
            written += len(repeats.pass_on(record))
    assert written + len(repeats.rest()) == 6000
    assert repeats.rest() == []


def test_quiet_holds_lines_until_flush_quiet() -> None:
    """Warnings and errors wait until the flush; after it, lines are written directly."""
    stream, handler = opened(quiet=True)
    log.info("started")
    log.warning("retried")
    log.error("stopped")
    assert stream.getvalue() == ""
    handler.flush_quiet()
    log.error("later")
    assert [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()] == ["retried", "stopped", "later"]


def test_quiet_log_closed_without_a_flush_is_empty() -> None:
    """A run that ended with 0 writes no line, not even a repeated warning."""
    stream, handler = opened(quiet=True, clock=Clock())
    for _ in range(3):
        log.warning("retried")
    handler.close()
    assert stream.getvalue() == ""


def test_quiet_keeps_the_last_200_lines() -> None:
    """It says how many lines came before."""
    stream, handler = opened(quiet=True)
    for number in range(205):
        log.error("line %s", number)
    handler.flush_quiet()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "(5 earlier lines were not kept)"
    assert lines[1].endswith("line 5")
    assert lines[-1].endswith("line 204")


def test_log_level_applies_to_our_loggers_only() -> None:
    """Info and debug lines of a library are never logged."""
    stream, _ = opened()
    logging.getLogger("urllib3").info("a connection")
    log.debug("ours")
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["ours"]


def test_second_setup_replaces_the_first() -> None:
    """Each line is written once."""
    first, _ = opened()
    second, _ = opened()
    log.error("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_failing_log_stream_does_not_stop_the_run() -> None:
    """A closed terminal must not end a run."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, f"Input/output error after {len(text)} characters")

    logs.setup("info", stream=Gone())
    log.error("nobody reads this")


# ---- a real run


def test_json_log_has_the_documented_fields(place: Place, server: FakeLLM) -> None:
    """Each line has severity, run and shard; those about a document or a provider name it."""
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


def test_log_has_no_line_per_document_by_default(place: Place) -> None:
    """A million documents must not be a million lines."""
    place.documents(5)
    ran = place.run("--log-format", "json")
    assert not any("document" in line for line in json_log(ran.err))


def test_run_ends_is_the_last_log_line(place: Place) -> None:
    """Suppressed repetitions are counted before it."""
    place.documents({"a.txt": "[[fault:http_500]]"})
    ran = place.run("--log-format", "json", "--set", "runner.max_error_rate=1")
    lines = json_log(ran.err)
    assert any("repeated" in line for line in lines)
    assert lines[-1]["message"] == "run ends"
