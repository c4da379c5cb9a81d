"""Text for a terminal keeps the width of the stream it goes to."""

from __future__ import annotations

import io
import os
import pty
from pathlib import Path

import pytest

from pipeline.terminal import fitted, labelled, paragraph, pasteable, width_of


@pytest.mark.parametrize(("columns", "width"), [("60", 60), ("80", 80), ("120", 100), ("200", 100), ("5", 40)])
def test_columns_set_the_width_up_to_100(columns: str, width: int) -> None:
    """COLUMNS is used as it is between 40 and 100."""
    assert width_of(io.StringIO(), {"COLUMNS": columns}) == width


@pytest.mark.parametrize("columns", ["", "0", "wide", "-3", "²"])
def test_a_file_without_usable_columns_is_100_wide(columns: str) -> None:
    """A stream without a terminal has no width of its own, and a wrong COLUMNS is ignored."""
    with Path(os.devnull).open("w", encoding="utf-8") as file:
        assert width_of(file, {"COLUMNS": columns}) == 100
    assert width_of(io.StringIO(), {}) == 100


def test_a_terminal_reports_its_own_width() -> None:
    """Without COLUMNS the size of the terminal decides."""
    termios = pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb"):
        termios.tcsetwinsize(theirs, (24, 72)) if hasattr(termios, "tcsetwinsize") else pytest.skip("needs 3.11")
        assert width_of(terminal, {}) == 72


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_lines_end_between_words_at_every_width(width: int) -> None:
    """Text, labels and commands are folded between words; flags and file names stay whole."""
    text = "the server refuses these documents: see report-of-the-run.html, or use --only-failed timeout " * 3
    lines = [*paragraph(text, width=width), *labelled("to do", text, indent=2, width=width)]
    assert max(map(len, lines)) <= width
    assert {word for line in lines for word in line.split()} <= {*text.split(), "to", "do"}
    command = pasteable("retry", "pipeline run --config prod.yaml --only-failed timeout", indent=2, width=width)
    assert max(len(line) for line in command[0].split("\n")) <= width


@pytest.mark.parametrize("width", range(44, 64))
def test_no_line_ends_between_a_number_and_its_unit(width: int) -> None:
    """At any width, in wrapped lines, labels and paragraphs."""
    text = "Run 1 of agent my_agent, 2026-11-28T22:59:59.472Z, took 5.0 s, 95 % within 12 ms of 3 GB (exit 1)"
    for lines in (
        list(fitted([text], width)),
        labelled("numbers", text, indent=2, width=width),
        paragraph(text, width=width),
    ):
        assert not any(line.endswith(("5.0", "95", "12", "3", "(exit")) for line in lines), lines
        assert " ".join(" ".join(lines).split()).endswith(text)
