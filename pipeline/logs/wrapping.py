"""Line breaks of log lines on a terminal: between words, not in the middle of one.

It must not change a line for a file, a pipe or a program.
"""

from __future__ import annotations

import os
import re
import textwrap
from typing import TextIO

_LEAST_COLUMNS = 40
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def wrapped(line: str, terminal: TextIO) -> str:
    """Return a text wrapped for a terminal; existing line breaks, as in a traceback, are kept."""
    try:
        columns = max(os.get_terminal_size(terminal.fileno()).columns, _LEAST_COLUMNS)
    except (OSError, ValueError):
        return line
    return "\n".join(folded(part, columns) for part in line.split("\n")) if len(line) > columns else line


def folded(line: str, columns: int) -> str:
    """Return a line wrapped at spaces; further lines are indented, so that no part imitates a log line.

    Colour codes take no columns.
    """
    if len(_COLOURS.sub("", line)) <= columns:
        return line
    parts = textwrap.wrap(line, columns, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(parts)
