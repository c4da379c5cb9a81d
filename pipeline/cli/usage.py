"""Usage errors: one line with the error, the nearest valid word and the help command.

It must not know any command, nor any flag but `--set`. Arguments may stand after flags, as in other programs.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipeline.config.constraints import nearest_hint
from pipeline.config.redaction import SECRETS
from pipeline.errors import EXIT_CONFIG
from pipeline.logs import LineHandler, active_handler
from pipeline.terminal import BOLD, RED, fitted, hanging_indent, in_colour, unwrapped_or_width, wants_colour, width_of

_log = logging.getLogger(__name__)

_LONGEST_MESSAGE = 4000
"""Longer messages quote the user's input and are shown unchanged."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal, up to the width of all other output."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=width_of(sys.stdout, os.environ) - 2)

    def format_help(self) -> str:
        """Return the help with wrapped descriptions, examples and groups of flags, which argparse does not wrap."""
        lines = super().format_help().splitlines()
        return "\n".join(part for line in lines for part in _narrowed(line, self._width)) + "\n"


_ARGUMENTS = re.compile(r" (?=--|&& |> )")
_CHOICES = re.compile(r" (?=\| )")
_EXIT_CODE = re.compile(r"  \d+(?:, \d+)* {2,}(?=\S)")
"""The beginning of a row in the table of exit codes; its text hangs below itself."""


def _narrowed(line: str, width: int) -> list[str]:
    """Return a line of help as lines that fit: a command can still be pasted, a group of flags is broken at `|`."""
    is_command = line.startswith("  pipeline ")
    if code := _EXIT_CODE.match(line):
        return hanging_indent(line.strip(), indent=2, width=width, hang=code.end())
    if len(line) <= width or not (is_command or " | " in line):
        return list(fitted([line], width))
    mark = " \\" if is_command else ""
    lines: list[str] = []
    for part in (_ARGUMENTS if is_command else _CHOICES).split(line):
        if lines and len(lines[-1]) + len(part) + 1 + len(mark) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(f"    {part}" if lines and is_command else part)
    indent = "" if is_command else " " * (len(line) - len(line.lstrip()) + 1)
    return [first if at == 0 else indent + first for at, first in enumerate(_marked(lines, mark))]


def _marked(lines: Sequence[str], mark: str) -> list[str]:
    """Return the lines with the mark at the end of each line except the last."""
    return [*(line + mark for line in lines[:-1]), *lines[-1:]]


def _setting_hint(option: str, value: str) -> str:
    """Return how to set the setting of this name, which was typed as an option; "" for other names."""
    from pipeline.config.keys import known_keys  # slow to import, and needed for an error only

    name = option.lstrip("-").replace("-", "_")
    keys = [key for key in known_keys() if name and key.split(".")[-1] == name]
    if f"{name}.uri" in known_keys():  # --input, --output of other commands
        keys = [f"{name}.uri"]
    flags = " or ".join(f"--set {key}={value}" for key in keys)
    return f"; it is a setting: {flags}" if keys else ""


def _short_hint(name: str, flags: Sequence[str]) -> str:
    """Return the long flags that begin with the letter of a short one, which no command has."""
    near = [flag for flag in flags if flag.startswith(f"-{name[:2]}")]
    return f"; options have long names: {' or '.join(near[:3])}" if near else "; options have long names"


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors are one line instead of the list of all flags."""

    owners_of: Callable[[str], Sequence[str]] | None = None
    """Returns the commands that have this flag; set by whoever knows all commands."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse all arguments; exit with an error of the command itself when one is unknown."""
        words = self._arguments_first(sys.argv[1:] if args is None else args)
        self._refuse(self._unknown_flags(words))
        parsed, unknown = super().parse_known_args(words, namespace)
        self._refuse(unknown)
        return parsed, unknown

    def _refuse(self, unknown: Sequence[str]) -> None:
        """Exit with an error that names the unknown words, if there are any, and what may be meant."""
        if not unknown:
            return
        flags = [name for name in self._option_string_actions if name.startswith("--")]
        typed = next((word for word in unknown if word.startswith("-")), "")
        kind = "option" if typed else "argument"
        name, _, value = typed.partition("=")
        value = value or next((word for word in unknown if not word.startswith("-")), "VALUE")
        setting = _setting_hint(name, value) if "--set" in flags else ""
        self.error(f"unknown {kind}: {' '.join(unknown)}{setting or self._hint(name, flags)}")

    def _hint(self, name: str, flags: Sequence[str]) -> str:
        """Return the commands that have this flag, or the nearest flag of this command."""
        if len(name) > 1 and not name.startswith("--"):
            return _short_hint(name, flags)
        owners = self.owners_of(name) if self.owners_of and name else ()
        commands = ", ".join(f"pipeline {owner}" for owner in owners)
        return f"; it is an option of {commands}" if commands else nearest_hint(name, flags)

    def _unknown_flags(self, words: Sequence[str]) -> list[str]:
        """Return the unknown flags of a command that requires an argument: argparse would report only its absence."""
        needs = any(action.required and not action.option_strings for action in self._actions)
        if not needs or "--" in words or self._has_commands:
            return []
        names = [word.partition("=")[0] for word in words if word.startswith("--") and " " not in word]
        return [name for name in names if not self._known(name)]

    @property
    def _has_commands(self) -> bool:
        return any(action.nargs == argparse.PARSER for action in self._actions)

    def _known(self, flag: str) -> list[str]:
        """Return the flags that are meant by this one, which may be the beginning of a long one."""
        known = self._option_string_actions
        return [flag] if flag in known else [name for name in known if flag[:2] == "--" and name.startswith(flag)]

    def _arguments_first(self, words: Sequence[str]) -> list[str]:
        """Return the words with all arguments before the flags: argparse accepts no second group of arguments."""
        if "--" in words or self._has_commands:
            return list(words)
        arguments: list[str] = []
        flags: list[str] = []
        values = 0
        for word in words:
            if word.startswith("-") and word != "-":
                flags.append(word)
                values = 0 if "=" in word else self._values_of(word)
            elif values > 0:
                flags.append(word)
                values -= 1
            else:
                arguments.append(word)
        return arguments + flags

    def _values_of(self, flag: str) -> int:
        """Return how many words after a flag are its values, at most; all of them after an unknown one."""
        names = self._known(flag)
        if not names:
            return sys.maxsize
        nargs = self._option_string_actions[names[0]].nargs
        if nargs is None or nargs == "?":
            return 1
        return nargs if isinstance(nargs, int) else sys.maxsize

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            message = f"got {value!r}, need one of {', '.join(choices)}{nearest_hint(str(value), choices)}"
            raise argparse.ArgumentError(action, message)

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with code 2."""
        complain(f"{self.prog}: {message}\nsee: {self.prog} --help")
        self.exit(EXIT_CONFIG)


def report_error(message: str, handler: LineHandler, *, as_text: bool) -> None:
    """Report why a command ended: in the log, a line each; on a terminal as short text."""
    if not (as_text and handler.is_open_terminal):
        for line in message.splitlines():
            _log.error("%s", line)
        return
    width = width_of(handler.stream, os.environ)
    colour = wants_colour(handler.stream, os.environ)
    texts = [f"error: {shortened(line_text)}" for line_text in message.splitlines()]
    lines = [line for text in texts for line in hanging_indent(text, indent=0, width=width, hang=7)]
    prefix = in_colour("error:", BOLD + RED, colour=colour)
    coloured = [prefix + line.removeprefix("error:") if line.startswith("error:") else line for line in lines]
    handler.write("\n".join(coloured))


def shortened(message: str) -> str:
    """Return the message; when it names the nearest accepted value, omit the long list of the others."""
    if len(message) > _LONGEST_MESSAGE:
        return message
    short_message = re.sub(r", need one (?:or more )?of [^;(]{60,}; (the nearest is )", r"; \1", message)
    return re.sub(r"(the nearest is [^;]*); got ([^,]+), need one of [^;(]{60,}(?= \(|$)", r"\1; got \2", short_message)


def complain(text: str) -> None:
    """Write an error of a command line that has not been parsed: to the log when it is set up already, else as text."""
    if active_handler() is None:
        width = unwrapped_or_width(sys.stderr, os.environ)
        lines = text.splitlines() if width == sys.maxsize else map(shortened, text.splitlines())
        sys.stderr.write(SECRETS.redact("\n".join(fitted(lines, width)) + "\n"))
        return
    for line in text.splitlines():
        _log.error("%s", line)
