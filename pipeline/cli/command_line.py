"""The words of a command line before they are parsed: the command among them, `help`, and flags in front of it.

It must not know a command's flags.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

_WITH_VALUE = ("--config", "--set", "--log-format", "--log-level")
"""Flags of several commands that users often put before the command, each with a value."""
_WITHOUT_VALUE = ("--quiet",)


def wants_json(words: Sequence[str]) -> bool:
    """Return True when a command line asks for a JSON log, whether or not it can be parsed."""
    return "--log-format=json" in words or ("--log-format", "json") in itertools.pairwise(words)


def command_at(words: Sequence[str], commands: Collection[str]) -> int | None:
    """Return the place of the command: the first word that is neither a flag nor its value; None without one."""
    is_value = False
    for at, word in enumerate(words):
        if not is_value and word in commands:
            return at
        if not is_value and not word.startswith("-"):
            return None
        is_value = word in _WITH_VALUE and not is_value
    return None


def in_usual_order(words: Sequence[str], commands: Collection[str]) -> list[str]:
    """Return the words with the command first, followed by its flags; `help COMMAND` becomes `COMMAND --help`."""
    if list(words[:1]) == ["help"]:
        return [*words[1:2], "--help"]
    at = command_at(words, commands)
    if not at:
        return list(words)
    before = list(words[:at])
    if any(word.partition("=")[0] not in (*_WITH_VALUE, *_WITHOUT_VALUE) for word in before if word.startswith("-")):
        return list(words)
    return [words[at], *before, *words[at + 1 :]]
