"""The command line: parse the arguments, call the command, return the exit code."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from pipeline import __version__
from pipeline.cli.command_line import command_at, in_usual_order, wants_json
from pipeline.cli.commands import COMMANDS, Command
from pipeline.cli.exit_codes import exit_codes
from pipeline.cli.interrupts import ends_at_once
from pipeline.cli.usage import HelpFormatter, Parser, complain, report_error
from pipeline.errors import (
    EXIT_CONFIG,
    EXIT_INTERNAL,
    EXIT_LATER,
    EXIT_OK,
    EXIT_SIGINT,
    ConfigError,
    PipelineError,
    is_machine_trouble,
)
from pipeline.logs import LineHandler, setup

logger = logging.getLogger("pipeline.cli")

_SHORTAGE = (
    "This machine is short of open files or memory: %s. Completed records are safe; raise the limit (ulimit -n) or "
    "stop other programs, then run the same command again."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code (docs/nightly.md)."""
    try:
        return _run(argv)
    except KeyboardInterrupt:  # between the steps that expect one
        return EXIT_SIGINT


def _run(argv: Sequence[str] | None) -> int:
    _ready_streams()
    try:
        with ends_at_once():
            arguments = _parsed(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        complain(f"pipeline: {error}")
        return EXIT_CONFIG
    except (OSError, ImportError, MemoryError) as error:  # a command's module cannot be opened
        if not is_machine_trouble(error):
            raise
        complain(f"pipeline: {_SHORTAGE % repr(error)}")
        return EXIT_LATER
    if arguments is None:
        return EXIT_CONFIG
    handler = setup(arguments.log_level, format=arguments.log_format, quiet=arguments.quiet)
    threading.excepthook = _log_thread_error
    code = EXIT_INTERNAL
    try:
        code = arguments.handler(arguments, environ=os.environ)
    except PipelineError as error:
        code = error.exit_code
        report_error(str(error), handler, as_text=arguments.log_format == "text")
    except KeyboardInterrupt:
        code = EXIT_SIGINT
    except Exception as error:  # the last line of defence: exit 70 with a traceback, or 3 for a shortage
        # an interrupt while a class is being made arrives as the cause of another exception (before Python 3.12)
        interrupted = isinstance(error.__cause__, KeyboardInterrupt)
        code = EXIT_SIGINT if interrupted else _code_of_internal_error(error)
    finally:
        with ends_at_once():
            _advise(arguments.command, code)
            _close(handler, code)
    return code


def _parsed(argv: Sequence[str]) -> argparse.Namespace | None:
    """Return the arguments of the command, whose module is imported now; print the help and return None without one."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    words = in_usual_order(argv, COMMANDS)
    if not words:
        parser("").print_help(sys.stderr)
        return None
    if wants_json(words):  # usage errors too are JSON then
        setup("info", format="json")
    return parser(_command_in(words)).parse_args(words)


def _complete() -> None:
    """Print the completions of a command line for the shell, and end the process."""
    from pipeline.cli.completion import complete, words_so_far

    complete(parser(_command_in(words_so_far(os.environ))))


def _advise(command: str, code: int) -> None:
    """Log the kubectl or helm command for the user as the last line of a pod."""
    if command != "run" or code == EXIT_OK:
        return
    try:
        from pipeline.run.pod import advice
    except (OSError, ImportError):  # no file descriptor is free for its module, and the exit code must stay
        return
    if (line := advice(code, os.environ)) is not None:
        logger.warning(line[0], extra=line[1])


def _code_of_internal_error(error: Exception) -> int:
    """Log an uncaught error, and return the exit code: 3 for a shortage of this machine, else 70."""
    if not is_machine_trouble(error):
        logger.exception("internal error; completed records are safe")
        return EXIT_INTERNAL
    logger.error(_SHORTAGE, repr(error))  # a MemoryError has no text
    return EXIT_LATER


def _command_in(words: Sequence[str]) -> str:
    """Return the command among the words of a command line; "" when there is none."""
    at = command_at(words, COMMANDS)
    return "" if at is None else words[at]


def parser(only_command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands; a usage error exits with code 2.

    `only_command`: the one command whose flags are needed; the modules of the others are then not imported.
    """
    top = Parser(
        prog="pipeline",
        description="Send documents through a self-hosted language model and get JSON that can be trusted.",
        epilog=f"example:\n  pipeline run --input data/inbox --output out\n\n{exit_codes('')}",
        formatter_class=HelpFormatter,
    )
    top.add_argument("-V", "--version", action="version", version=f"pipeline {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, load) in COMMANDS.items():
        if only_command in (None, name):
            _add_command(commands, name, summary=summary, command=load())
        else:
            commands.add_parser(name, help=summary)
    return top


def _add_command(commands: Any, name: str, *, summary: str, command: Command) -> None:
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"{command.EXAMPLES}\n\n{exit_codes(name)}",
        formatter_class=HelpFormatter,
    )
    parser.owners_of = _commands_with
    parser.set_defaults(handler=command.main, quiet=False)
    logs = parser.add_argument_group("logs")
    logs.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")
    levels = ("debug", "info", "warning", "error")
    help_text = f"{', '.join(levels)}; default: info"
    logs.add_argument("--log-level", metavar="LEVEL", choices=levels, default="info", help=help_text)
    command.add_flags(parser)


def _commands_with(flag: str) -> list[str]:
    """Return the commands that have this flag."""
    found: list[str] = []
    for name, (_, load) in COMMANDS.items():
        command = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        load().add_flags(command)
        if flag in {option for action in command._actions for option in action.option_strings}:
            found.append(name)
    return found


def _log_thread_error(crash: threading.ExceptHookArgs) -> None:
    name = crash.thread.name if crash.thread else "?"
    if crash.exc_value is not None:
        logger.error("internal error in thread %s; completed records are safe", name, exc_info=crash.exc_value)


def _ready_streams() -> None:
    """Reopen standard streams that the caller has closed (`>&-`); make stdout accept every character in any locale."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # otherwise the next file opened would get the stream's descriptor
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _close(handler: LineHandler, code: int) -> None:
    if code != EXIT_OK:
        handler.flush_quiet()
    handler.close()
    try:
        sys.stderr.flush()
    except OSError:  # the log has no reader: a second flush by Python at exit would change the exit code to 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
