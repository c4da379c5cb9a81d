"""Typing and reading at a terminal: word order, nearest match, lines that fit, completion."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from conftest import COMMAND, Place
from hypothesis import given, settings
from hypothesis import strategies as st
from terminals import Terminal, on_columns

from pipeline.cli.command_line import in_usual_order
from pipeline.cli.commands import COMMANDS
from pipeline.cli.flags import duration_s
from pipeline.cli.usage import report_error, shortened
from pipeline.logs.handler import LineHandler
from pipeline.terminal import fitted


def on_terminal(place: Place, columns: int, *words: str) -> tuple[int, str]:
    """Return a command's exit code and what it wrote to a terminal of so many columns, stdout and stderr as one."""
    return on_columns([*COMMAND, *words], folder=place.folder, columns=columns)


@pytest.mark.parametrize(
    ("typed", "usual"),
    [
        ("help", "--help"),
        ("help run", "run --help"),
        ("--log-level debug run --limit 3", "run --log-level debug --limit 3"),
        ("--config=x.yaml --quiet run", "run --config=x.yaml --quiet"),
        ("--config run run", "run --config run"),
        ("-V", "-V"),
        ("run --config check", "run --config check"),
        ("--unknown run", "--unknown run"),
        ("chek", "chek"),
    ],
)
def test_flags_may_precede_the_command(typed: str, usual: str) -> None:
    """`help` becomes --help; unknown words stay as typed."""
    assert in_usual_order(typed.split(), COMMANDS) == usual.split()


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("chek",), "the nearest is check"),
        (("help", "chek"), "the nearest is check"),
        (("run", "--only-failed", "timeouts"), "the nearest is timeout"),
        (("run", "--redo", "al"), "the nearest is all"),
        (("run", "--set", "runner.concurency=3"), "the nearest is runner.concurrency"),
        (("run", "--agent", "smal"), "the nearest is small"),
        (("run", "--variant", "defalt"), "the nearest is default"),
        (("init", "x", "--example", "mails"), "the nearest is mail"),
        (("errors", "--accept", "schema"), "the nearest is schema_invalid"),
    ],
)
def test_typing_error_names_the_nearest_word(place: Place, words: tuple[str, ...], near: str) -> None:
    """This covers commands, flags, reasons, settings and names; the exit code is 2."""
    place.documents(1)
    (place.folder / "out").mkdir(exist_ok=True)
    ran = place.call(*words)
    assert (ran.code, near in ran.err) == (2, True), ran.err


def test_terminal_errors_are_short_and_fit(place: Place) -> None:
    """A terminal omits the list of accepted values, which a program's log has in full."""
    place.documents({"a.txt": "[[fault:http_400]]", "b.txt": "text"})
    code, shown = on_terminal(place, 60, "run", "--only-failed", "timeouts")
    assert (code, shown.splitlines()[-1]) == (2, "error: --only-failed: got 'timeouts'; the nearest is timeout")
    assert "need one of base_url, model" in place.call("run", "--set", "vllm.modle=m").err
    assert "need one of" not in on_terminal(place, 60, "run", "--set", "vllm.modle=m")[1]
    code, shown = on_terminal(place, 60, "run", "--progress", "none", "--log-level", "error")
    assert code == 1
    assert " ".join(shown.split()).count("in the input remain failed: more than runner.max_error_rate") == 1
    assert max(map(len, shown.splitlines())) <= 60
    code, shown = on_terminal(place, 60, "check")
    assert code == 0
    assert max(map(len, shown.splitlines())) <= 60
    assert max(map(len, on_terminal(place, 200, "run", "--help")[1].splitlines())) <= 100


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_only_the_label_of_an_error_is_coloured(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`connection_error:` on the same or another line of the message stays as it is."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal = Terminal(columns)
    handler = LineHandler(terminal.stream, format="text", quiet=False, clock=lambda: 0.0)
    message = "all providers are unavailable: vllm at http://127.0.0.1:9, ollama: connection_error: refused; error: x"
    report_error(f"{message}\n{message}", handler, as_text=True)
    shown = terminal.text()
    label = "\x1b[1m\x1b[31merror:\x1b[0m "
    assert shown.count("\x1b[0m") == 2
    assert [line.startswith(label) for line in shown.splitlines() if "all providers" in line] == [True, True]
    assert shown.count("connection_error: refused") + shown.count("connection_error:\r\n") == 2


@settings(max_examples=50)
@given(st.lists(st.text(alphabet="ab -.", max_size=80), max_size=5), st.integers(20, 60))
def test_wrapping_breaks_no_word(lines: list[str], width: int) -> None:
    """Wrapped lines have the same words, and only a word that is too long exceeds the width."""
    wrapped = list(fitted(lines, width))
    assert [word for line in wrapped for word in line.split()] == [word for line in lines for word in line.split()]
    assert all(len(line) <= width or len(line.split()) == 1 for line in wrapped if line.strip())


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_unknown_key_is_one_short_error(place: Place, columns: int) -> None:
    """The message is wrapped once and names only the nearest key."""
    (place.folder / "bad.yaml").write_text("runer: {concurrency: 3}\n", encoding="utf-8")
    code, shown = on_terminal(place, columns, "run", "--config", "bad.yaml")
    assert code == 2
    first, *others = shown.splitlines()
    assert all(line.startswith("       ") and len(line) <= columns for line in others)
    assert " ".join([first, *map(str.strip, others)]) == (
        "error: runer: unknown key, the nearest is runner; got a mapping (bad.yaml)"
    )


def test_only_long_lists_are_omitted_from_messages() -> None:
    """A list that is short or has no nearest word stays."""
    assert shortened("agent: got 'x', need one of a, b; the nearest is a") == (
        "agent: got 'x', need one of a, b; the nearest is a"
    )
    assert shortened(f"got 'x', need one of {', '.join(COMMANDS)}") == f"got 'x', need one of {', '.join(COMMANDS)}"


def test_durations_need_a_unit() -> None:
    """--max-duration and --older-than have the same rule."""
    assert (duration_s("1h30m"), duration_s("400d"), duration_s("1.5s")) == (5400.0, 34560000.0, 1.5)
    with pytest.raises(argparse.ArgumentTypeError, match="need its unit as well: 400s, 400m, 400h or 400d"):
        duration_s("400")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pipeline che", {"check "}),
        ("pipeline run --only-failed time", {"timeout "}),
        ("pipeline run --agent ", {"event_classifier", "extractor", "small"}),
        ("pipeline run --set runner.max_err", {"runner.max_error_rate="}),
    ],
)
def test_shell_completes_words_and_values(place: Place, tmp_path: Path, line: str, offered: set[str]) -> None:
    """The script of `pipeline completion` calls the command as this test does."""
    place.configure()
    answer = tmp_path / "answer"
    call = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE": "1", "IFS": "\013"}
    place.call(env={**call, "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)})
    assert set(answer.read_text(encoding="utf-8").split("\013")) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(place: Place, shell: str) -> None:
    """The script names the command."""
    ran = place.call("completion", shell)
    assert ran.code == 0
    assert "pipeline" in ran.out


def test_exit_code_table_stays_aligned_on_a_narrow_terminal(place: Place) -> None:
    """Continuation lines are indented below the meaning."""
    _, shown = on_terminal(place, 60, "run", "--help")
    lines = shown.partition("exit codes:\n")[2].splitlines()
    codes = [line for line in lines if line[2:3].isdigit()]
    assert len(codes) == 6
    assert [line for line in lines if line and not line[2:3].isdigit() and line[:12].strip()] == []
