"""Colour for what people read in a terminal: whether it is wanted, and a text in it.

It must not decide what is said: without colour every text says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

RED, YELLOW, GREEN, BOLD, DIM = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[1m", "\x1b[2m"
_PLAIN = "\x1b[0m"


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True for a terminal that knows colours, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def tinted(text: str, tint: str, *, colour: bool) -> str:
    """The text in these colours, or as it is."""
    return f"{tint}{text}{_PLAIN}" if colour and tint and text else text
