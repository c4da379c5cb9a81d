"""Text for a terminal: width, colours, labels, commands that can be pasted, blocks that can do no harm.

It must not know what a report or a record is.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import textwrap
from collections.abc import Mapping
from typing import TextIO

from pipeline.config.redaction import SECRETS
from pipeline.errors import OutputError
from pipeline.logs import visible

WIDTH = 100
LABEL = 14
RED, YELLOW, GREEN, BOLD, DIM = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[1m", "\x1b[2m"
_PLAIN = "\x1b[0m"


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True for a terminal that knows colours, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def tinted(text: str, tint: str, *, colour: bool) -> str:
    """The text in these colours, or as it is."""
    return f"{tint}{text}{_PLAIN}" if colour and tint and text else text


def labelled(label: str, text: str, *, indent: int) -> list[str]:
    """The text beside its label, folded under itself; nothing for an empty text."""
    first = " " * indent + f"{label:<{LABEL - 1}} "
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first)) if text else []


def pasteable(label: str, command: str, *, indent: int) -> list[str]:
    """The command beside its label, folded before its flags so that it can still be pasted."""
    first = " " * indent + (label.ljust(LABEL) if label else "")
    try:
        words = [shlex.quote(word) for word in shlex.split(visible(command))]
    except ValueError:  # an open quote: show it as it is
        words = [visible(command)]
    lines = [""]
    for word in re.split(r" (?=--)", " ".join(words)):
        if lines[-1] and len(first) + len(lines[-1]) + 3 + len(word) > WIDTH:
            lines.append("")
        lines[-1] += " " + word if lines[-1] else word
    return [first + " \\\n".join(lines).replace("\n", "\n" + " " * len(first))]


def paragraph(text: str) -> list[str]:
    """The text as lines."""
    return textwrap.wrap(visible(text), WIDTH)


def block(text: str, *, indent: int = 2) -> str:
    """The text some columns to the right, with its own line ends and nothing that a terminal could act on."""
    before = " " * indent
    return "\n".join((before + visible(line.replace("\t", "    "))).rstrip() for line in text.split("\n"))


def cut(text: str, width: int) -> str:
    """The text with its middle left out when it is too long: both ends of an id tell something."""
    return text if len(text) <= width else text[: width // 2 - 1] + "…" + text[-(width - width // 2) :]


def grouped(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`1 document`, `12,345 documents`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def write_out(text: str) -> None:
    """Prints what the command was asked for; a reader that has gone (`| head`) is nobody's fault.

    OutputError when it cannot be written for another reason.
    """
    try:
        text = SECRETS.redact(text)
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except OSError as cause:
        # what is still buffered would fail again at the end of the process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(cause, BrokenPipeError):
            raise OutputError(f"standard output cannot be written: {cause.strerror or cause}") from cause
