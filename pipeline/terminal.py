"""Text for a terminal: width, colours, labels, commands to paste, and text without control characters.

It must not know what a report or a record is.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

from pipeline.config.redaction import SECRETS
from pipeline.errors import OutputError
from pipeline.logs import visible

MAX_WIDTH = 100
"""The most columns of a line, as longer lines are hard to read; also the width of output to a file or a pipe."""
_MIN_WIDTH = 40
"""Columns at least: with fewer, an indented label leaves no room for its text."""
LABEL = 14
RED = "\x1b[31m"
YELLOW = "\x1b[33m"
GREEN = "\x1b[32m"
BOLD = "\x1b[1m"
DIM = "\x1b[2m"
_PLAIN = "\x1b[0m"
_JOINED = re.compile(r"(?<=\d) (?=(?:s|ms|min|h|%|MB|GB|kB)\b|%)|(?<=exit) (?=\d+\))")
"""Spaces at which no line ends: between a number and its unit, and in `(exit 1)`."""
_FIXED_SPACE = "\x00"
"""The replacement of such a space during wrapping: it occurs in no displayed text."""


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return True for a terminal that supports colours, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def width_of(stream: TextIO, environ: Mapping[str, str]) -> int:
    """Return the columns to write to a stream: COLUMNS, else the terminal's width; 40 to 100."""
    columns = environ.get("COLUMNS", "")
    width = int(columns) if columns.isascii() and columns.isdigit() else 0
    if width == 0:
        try:
            width = os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError):  # a file or a pipe; ValueError: no file descriptor
            width = 0
    return max(_MIN_WIDTH, min(width or MAX_WIDTH, MAX_WIDTH))


def is_terminal(*streams: TextIO) -> bool:
    """Return True when all of the streams are terminals."""
    return all(stream.isatty() for stream in streams)


def unwrapped_or_width(stream: TextIO, environ: Mapping[str, str]) -> int:
    """Return the columns of a terminal as width_of; for a file or a pipe so many that no line is wrapped."""
    return width_of(stream, environ) if stream.isatty() else sys.maxsize


def in_colour(text: str, tint: str, *, colour: bool) -> str:
    """Return the text in a colour, or unchanged without `colour`."""
    return f"{tint}{text}{_PLAIN}" if colour and tint and text else text


def labelled(label: str, text: str, *, indent: int, width: int = MAX_WIDTH) -> list[str]:
    """Return the lines of a label and its wrapped text; no lines for an empty text."""
    if not text:
        return []
    first = " " * indent + f"{label:<{LABEL - 1}} "
    return _lines(text, width, first=first, indent_text=" " * len(first))


def hanging_indent(text: str, *, indent: int, width: int = MAX_WIDTH, hang: int | None = None) -> list[str]:
    """Return the text as lines without control characters, indented; those after the first by `hang` columns."""
    indent_text = " " * (indent + 2 if hang is None else hang)
    return (
        _wrapped(visible(text), width=width, first=" " * indent, indent_text=indent_text)
        if width < sys.maxsize
        else [" " * indent + visible(text)]
    )


def fitted(lines: Iterable[str], width: int) -> Iterator[str]:
    """Yield the lines; a line that is too long continues below its own indent."""
    for line in lines:
        indent = len(line) - len(line.lstrip(" "))
        yield from hanging_indent(line.strip(), indent=indent, width=width) if len(line) > width else [line]


def _wrapped(text: str, *, width: int, first: str, indent_text: str) -> list[str]:
    """Return the wrapped lines; flags, file names and addresses stay whole, also when they are wider than a line."""
    return _lines(text, width, first=first, indent_text=indent_text, break_long_words=False)


def _lines(
    text: str, width: int, *, first: str = "", indent_text: str = "", break_long_words: bool = True
) -> list[str]:
    """Return the wrapped lines, with no end of a line between a number and its unit."""
    lines = textwrap.wrap(
        _JOINED.sub(_FIXED_SPACE, text),
        width,
        initial_indent=first,
        subsequent_indent=indent_text,
        break_on_hyphens=False,
        break_long_words=break_long_words,
    )
    return [line.replace(_FIXED_SPACE, " ") for line in lines]


def pasteable(label: str, command: str, *, indent: int, width: int = MAX_WIDTH) -> list[str]:
    """Return the lines of a label and a command, continued before flags so that it can be pasted."""
    first = " " * indent + (label.ljust(LABEL) if label else "")
    try:
        words = [shlex.quote(word) for word in shlex.split(visible(command))]
    except ValueError:  # an open quote: show it as it is
        words = [visible(command)]
    lines = [""]
    for word in re.split(r" (?=--)", " ".join(words)):
        if lines[-1] and len(first) + len(lines[-1]) + 3 + len(word) > width:
            lines.append("")
        lines[-1] += " " + word if lines[-1] else word
    return [first + " \\\n".join(lines).replace("\n", "\n" + " " * len(first))]


def paragraph(text: str, *, width: int = MAX_WIDTH) -> list[str]:
    """Return the text as wrapped lines."""
    return _lines(visible(text), width)


def block(text: str, *, indent: int = 2) -> str:
    """Return the text indented, with its own line breaks and without control characters."""
    before = " " * indent
    return "\n".join((before + visible(line.replace("\t", "    "))).rstrip() for line in text.split("\n"))


def cut(text: str, width: int) -> str:
    """Return the text, shortened in its middle when it is too long: both ends of an id are informative."""
    return text if len(text) <= width else text[: width // 2 - 1] + "…" + text[-(width - width // 2) :]


def grouped(number: int) -> str:
    """Return `12,345`."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Return `1 document`, `12,345 documents`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def percent_text(share: float, digits: int = 0) -> str:
    """Return a share in percent: `33 %`."""
    return f"{100 * share:.{digits}f} %"


def write_out(text: str) -> None:
    """Write text to stdout; ignore a reader that has closed the pipe (`| head`).

    Raises OutputError when it cannot be written for another reason.
    """
    text = SECRETS.redact(text)
    stream_out([text if text.endswith("\n") else text + "\n"])


def stream_out(lines: Iterable[str]) -> None:
    """Write lines to stdout as they are, and stop when the reader has closed the pipe; OutputError as write_out."""
    try:
        sys.stdout.writelines(lines)
        sys.stdout.flush()
    except OSError as cause:
        # what is still buffered would fail again at the end of the process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(cause, BrokenPipeError):
            raise OutputError(f"standard output cannot be written: {cause.strerror or cause}") from cause


def bytes_out(data: bytes) -> None:
    """Write bytes to stdout as they are, with the errors of stream_out."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as cause:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(cause, BrokenPipeError):
            raise OutputError(f"standard output cannot be written: {cause.strerror or cause}") from cause


def columns_of(char: str) -> int:
    """Return how many columns of a terminal a character takes: 2 for a wide one, 0 for one that combines."""
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def columns_wrapped(text: str, width: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each line of a text that is wrapped at spaces, else between characters.

    A line takes at most `width` columns; combining characters stay with their base character.
    """
    start = space = used = 0
    for at, char in enumerate(text):
        wide = columns_of(char)
        if used + wide > width and at > start:
            end = space if space > start and char != " " else at
            yield start, end
            start = end + (text[end] == " ")
            if start > at:
                used = 0
                continue
            used = sum(map(columns_of, text[start:at]))
        if char == " ":
            space = at
        used += wide
    if start < len(text):
        yield start, len(text)
