"""How a wrong command line is answered: with what is wrong, what comes nearest, and where to read on.

It knows no command and no flag of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from pipeline.config.constraints import nearest_hint
from pipeline.errors import EXIT_CONFIG


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are a line, and not the list of all that might have been typed."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """All of it or nothing, so that a command complains of its own arguments; exits when one is unknown."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [name for name in self._option_string_actions if name.startswith("--")]
            typed = next((word for word in unknown if word.startswith("-")), "")
            self.error(f"unknown: {' '.join(unknown)}{nearest_hint(typed.partition('=')[0], flags)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            told = f"got {value!r}, need one of {', '.join(known)}{nearest_hint(str(value), known)}"
            raise argparse.ArgumentError(action, told)

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, and ends the process."""
        self.exit(EXIT_CONFIG, f"{self.prog}: {message}\nsee: {self.prog} --help\n")
