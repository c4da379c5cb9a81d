"""Usage errors: one line with the error, the nearest valid word and the help command.

It must not know any command or flag.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from pipeline.config.constraints import nearest_hint
from pipeline.config.redaction import SECRETS
from pipeline.errors import EXIT_CONFIG
from pipeline.logs import active_handler

_log = logging.getLogger(__name__)


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors are one line instead of the list of all flags."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse all arguments; exit with an error of the command itself when one is unknown."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [name for name in self._option_string_actions if name.startswith("--")]
            typed = next((word for word in unknown if word.startswith("-")), "")
            self.error(f"unknown: {' '.join(unknown)}{nearest_hint(typed.partition('=')[0], flags)}")
        return parsed, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            message = f"got {value!r}, need one of {', '.join(known)}{nearest_hint(str(value), known)}"
            raise argparse.ArgumentError(action, message)

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with code 2."""
        complain(f"{self.prog}: {message}\nsee: {self.prog} --help")
        self.exit(EXIT_CONFIG)


def complain(text: str) -> None:
    """Write an error of a command line that has not been parsed: to the log when it is set up already, else as text."""
    if active_handler() is None:
        sys.stderr.write(SECRETS.redact(f"{text}\n"))
        return
    for line in text.splitlines():
        _log.error("%s", line)
