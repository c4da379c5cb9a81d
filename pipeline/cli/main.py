"""The command line: parse the arguments, call the command, return the exit code.

Each command is a module with its flags, and must be imported only when it is called.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pipeline import __version__
from pipeline.cli.command_line import command_at, in_usual_order, wants_json
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

_EXIT_CODES = """exit codes:
  0         finished, or stopped by --max-duration
  1         too many failures, or too few documents
  2         usage or configuration error: fix it
  3         stopped early: run the same command to resume
  70        internal error
  130, 143  interrupted by SIGINT, SIGTERM"""

_SHORTAGE = (
    "This machine is short of open files or memory: %s. Completed records are safe; raise the limit (ulimit -n) or "
    "stop other programs, then run the same command again."
)


class Command(Protocol):
    """The module of a command: examples for its help, its flags and its main function."""

    EXAMPLES: str

    def add_flags(self, command: argparse.ArgumentParser) -> None: ...
    def main(self, arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int: ...


def _run() -> Command:
    from pipeline.cli import run

    return run


def _check() -> Command:
    from pipeline.cli import check

    return check


def _try() -> Command:
    from pipeline.cli import try_document

    return try_document


def _report() -> Command:
    from pipeline.cli import report

    return report


def _errors() -> Command:
    from pipeline.cli import errors

    return errors


def _diff() -> Command:
    from pipeline.cli import diff

    return diff


def _results() -> Command:
    from pipeline.cli import results

    return results


def _eval() -> Command:
    from pipeline.cli import eval

    return eval


def _review() -> Command:
    from pipeline.cli import review

    return review


def _show() -> Command:
    from pipeline.cli import show

    return show


def _compact() -> Command:
    from pipeline.cli import compact

    return compact


def _purge() -> Command:
    from pipeline.cli import purge

    return purge


def _init() -> Command:
    from pipeline.cli import init

    return init


def _completion() -> Command:
    from pipeline.cli import completion

    return completion


def _schema() -> Command:
    from pipeline.cli import schema

    return schema


COMMANDS: Mapping[str, tuple[str, Callable[[], Command]]] = {
    "run": ("extract: documents in, results and errors out", _run),
    "check": ("show the settings and check every provider", _check),
    "try": ("send some documents now; show prompts and answers", _try),
    "report": ("rebuild the report of an output; calls no model", _report),
    "errors": ("show failures, their causes and how to retry them", _errors),
    "diff": ("show what changed between two outputs", _diff),
    "results": ("show or save the current results: table, CSV, JSON Lines, Parquet", _results),
    "show": ("show a record with its quotes in the document", _show),
    "eval": ("grade the answers against judged documents", _eval),
    "review": ("judge answers on a local page, beside their documents", _review),
    "compact": ("keep only the last record of each document", _compact),
    "purge": ("remove documents from an output", _purge),
    "init": ("create a config, an agent and a schema to start from", _init),
    "completion": ("print the script that completes commands in a shell", _completion),
    "schema": ("print the JSON Schema of the config file", _schema),
}
"""Command → its line in the help, and the function that imports its module, called only for that command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code (contract, section 8)."""
    _ready_streams()
    try:
        if "_ARGCOMPLETE" in os.environ:
            _complete()
        words = in_usual_order(sys.argv[1:] if argv is None else argv, COMMANDS)
        if not words:
            parser("").print_help(sys.stderr)
            return EXIT_CONFIG
        if wants_json(words):  # usage errors too are JSON then
            setup("info", format="json")
        arguments = parser(_command_in(words)).parse_args(words)
    except ConfigError as error:
        complain(f"pipeline: {error}")
        return EXIT_CONFIG
    except OSError as error:  # a command's module cannot be opened
        if not is_machine_trouble(error):
            raise
        complain(f"pipeline: {_SHORTAGE % error}")
        return EXIT_LATER
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
        _advise(arguments.command, code)
        _close(handler, code)
    return code


def _complete() -> None:
    """Answer a shell that asks how a command line may go on, and end the process."""
    from pipeline.cli.completion import complete, words_so_far

    complete(parser(_command_in(words_so_far(os.environ))))


def _advise(command: str, code: int) -> None:
    """Log, as the last line of a pod, what a person can do there; `pipeline run` is no command for them."""
    if command != "run" or code == EXIT_OK:
        return
    try:
        from pipeline.run.pod import advice
    except OSError:  # no open file is left for its module, and the exit code must stay
        return
    if (line := advice(code, os.environ)) is not None:
        logger.warning(line[0], extra=line[1])


def _code_of_internal_error(error: Exception) -> int:
    """Log an error that nobody has caught, and return the exit code: 3 for a shortage of this machine, else 70."""
    if not is_machine_trouble(error):
        logger.exception("internal error; completed records are safe")
        return EXIT_INTERNAL
    logger.error(_SHORTAGE, error)
    return EXIT_LATER


def _command_in(words: Sequence[str]) -> str:
    """Return the command among the words of a command line; "" when there is none."""
    at = command_at(words, COMMANDS)
    return "" if at is None else words[at]


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands; a usage error exits with code 2.

    `only`: the one command whose flags are needed; the modules of the others are then not imported.
    """
    top = Parser(
        prog="pipeline",
        description="Send documents through a self-hosted language model and get JSON that can be trusted.",
        epilog=f"example:\n  pipeline run --input data/inbox --output out\n\n{_EXIT_CODES}",
        formatter_class=HelpFormatter,
    )
    top.add_argument("-V", "--version", action="version", version=f"pipeline {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, load) in COMMANDS.items():
        if only in (None, name):
            _add_command(commands, name, summary=summary, command=load())
        else:
            commands.add_parser(name, help=summary)
    return top


def _add_command(commands: Any, name: str, *, summary: str, command: Command) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"{command.EXAMPLES}\n\n{_EXIT_CODES}",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(handler=command.main, quiet=False)
    logs = parser.add_argument_group("logs")
    logs.add_argument("--log-format", choices=("text", "json"), default="text")
    logs.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    command.add_flags(parser)


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
