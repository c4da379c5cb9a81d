"""Text for a terminal fits the width of its stream."""

from __future__ import annotations

import io
import os
import pty
from pathlib import Path

import pytest

from pipeline.terminal import fitted, labelled, paragraph, pasteable, width_of


@pytest.mark.parametrize(("columns", "width"), [("60", 60), ("80", 80), ("120", 100), ("200", 100), ("5", 40)])
def test_columns_variable_sets_the_width_up_to_100(columns: str, width: int) -> None:
    """COLUMNS is used directly between 40 and 100."""
    assert width_of(io.StringIO(), {"COLUMNS": columns}) == width


@pytest.mark.parametrize("columns", ["", "0", "wide", "-3", "²"])
def test_file_width_is_100_by_default(columns: str) -> None:
    """A stream without a terminal has no width, and an invalid COLUMNS is ignored."""
    with Path(os.devnull).open("w", encoding="utf-8") as file:
        assert width_of(file, {"COLUMNS": columns}) == 100
    assert width_of(io.StringIO(), {}) == 100


def test_terminal_size_decides_without_columns() -> None:
    """It applies only if COLUMNS is unset."""
    termios = pytest.importorskip("termios")
    own_end, terminal_of_command = pty.openpty()
    with os.fdopen(terminal_of_command, "w") as terminal, os.fdopen(own_end, "rb"):
        termios.tcsetwinsize(terminal_of_command, (24, 72)) if hasattr(termios, "tcsetwinsize") else pytest.skip(
            "needs 3.11"
        )
        assert width_of(terminal, {}) == 72


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_lines_are_wrapped_between_words(width: int) -> None:
    """Text, labels and commands are wrapped at every width; flags and file names stay whole."""
    text = "the server refuses these documents: see report-of-the-run.html, or use --only-failed timeout " * 3
    lines = [*paragraph(text, width=width), *labelled("to do", text, indent=2, width=width)]
    assert max(map(len, lines)) <= width
    assert {word for line in lines for word in line.split()} <= {*text.split(), "to", "do"}
    command = pasteable("retry", "pipeline run --config prod.yaml --only-failed timeout", indent=2, width=width)
    assert max(len(line) for line in command[0].split("\n")) <= width


@pytest.mark.parametrize("width", range(44, 64))
def test_number_and_unit_stay_on_one_line(width: int) -> None:
    """This holds at any width, in wrapped lines, labels and paragraphs."""
    text = "Run 1 of agent my_agent, 2026-11-28T22:59:59.472Z, took 5.0 s, 95 % within 12 ms of 3 GB (exit 1)"
    for lines in (
        list(fitted([text], width)),
        labelled("numbers", text, indent=2, width=width),
        paragraph(text, width=width),
    ):
        assert not any(line.endswith(("5.0", "95", "12", "3", "(exit")) for line in lines), lines
        assert " ".join(" ".join(lines).split()).endswith(text)
