"""`pipeline completion SHELL`: the script that completes commands, flags and their values in a shell.

The script calls this program for each completion, so it is never outdated; `complete` answers such a call.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping

from argcomplete import autocomplete
from argcomplete.shell_integration import shellcode

from pipeline.config.keys import known_keys
from pipeline.errors import EXIT_OK, REASONS, ConfigError
from pipeline.terminal import write_out

EXAMPLES = """examples:
  pipeline completion bash >> ~/.bashrc
  pipeline completion zsh >> ~/.zshrc
  pipeline completion fish > ~/.config/fish/completions/pipeline.fish"""

SHELLS = ("bash", "zsh", "fish")
CALL = "_ARGCOMPLETE"
"""The variable by which the shell script requests completions."""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the argument of this command."""
    command.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:  # noqa: ARG001
    """Print the script and return 0."""
    write_out(shellcode(["pipeline"], shell=arguments.shell))
    return EXIT_OK


def words_so_far(environ: Mapping[str, str]) -> list[str]:
    """Return the words that were typed before the place of the completion."""
    return environ.get("COMP_LINE", "").split()[1:]


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the call of the shell and end the process."""
    for action in _actions(parser):
        if (values := _VALUES.get(action.dest)) is not None:
            action.completer = values  # type: ignore[attr-defined]
    autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # argparse has no public way to them
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _reasons(prefix: str, **_: object) -> list[str]:
    entered = prefix.rpartition(",")[0]
    return [f"{entered},{reason}" if entered else reason for reason in REASONS]


def _settings(**_: object) -> list[str]:
    return [f"{key}=" for key in known_keys()]


def _agents(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    from pipeline.agents.files import agent_paths
    from pipeline.cli.arguments import load_app

    try:
        app = load_app(parsed_args, environ=os.environ)
    except ConfigError:
        return []
    return sorted(agent_paths(app.agents_dir))


_VALUES: Mapping[str, Callable[..., list[str]]] = {
    "only_failed": _reasons,
    "accept": _reasons,
    "unaccept": _reasons,
    "set": _settings,
    "agent": _agents,
}
"""Flags whose values can be listed, by the name under which argparse keeps them."""
