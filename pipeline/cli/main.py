"""The command line: what may be typed, which command does it, and what the process ends with.

It only reads arguments here; each command lives in a module of its own, imported when it is called.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline import __version__
from pipeline.cli.usage import Parser
from pipeline.config import mask_url
from pipeline.errors import EXIT_CONFIG, EXIT_INTERNAL, EXIT_OK, EXIT_SIGINT, ConfigError, PipelineError
from pipeline.logs import LineHandler, setup

logger = logging.getLogger("pipeline.cli")

_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_RUN_EXAMPLE = """examples:
  pipeline run --config config/prod.yaml
  pipeline run --input data/inbox --output out --agent extractor --set vllm.model=qwen3
  pipeline run --only-failed timeout,overloaded
  pipeline run --sample 200 --output out/trial --set agent=my_agent
  pipeline run --dry-run"""
_CHECK_EXAMPLE = "example:\n  pipeline check --config config/prod.yaml"
_REPORT_EXAMPLE = "examples:\n  pipeline report out\n  pipeline report out --text"
_TRY_EXAMPLE = "example:\n  pipeline try data/inbox/today.txt --agent appointments --set agents_dir=my_agents"
_ERRORS_EXAMPLE = "examples:\n  pipeline errors out\n  pipeline errors out --show 2026/01/story.txt"
_DIFF_EXAMPLE = """examples:
  pipeline diff out out/trial
  pipeline diff out out/trial --field companies.sentiment
  pipeline diff out --by fingerprint"""
_COMPACT_EXAMPLE = "examples:\n  pipeline compact out\n  pipeline compact s3://bucket/out --format parquet"
_PURGE_EXAMPLE = """examples:
  pipeline purge out --ids takedowns.txt
  pipeline purge out --missing --input data/inbox --dry-run
  pipeline purge s3://bucket/out --older-than 400d"""
_INIT_EXAMPLE = "example:\n  pipeline init news && cd news && pipeline check"
_SCHEMA_EXAMPLE = "example:\n  pipeline schema > config.schema.json\n  pipeline schema --agent > agent.schema.json"
_EXIT_CODES = """exit codes:
  0 finished, or stopped by --max-duration     1 too many failures, or too few documents
  2 usage or configuration: change something   3 stopped before the end, the same command goes on
  70 a fault of the pipeline                   130, 143 interrupted by SIGINT, SIGTERM"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command (contract, section 8)."""
    _ready_streams()
    try:
        if not (sys.argv[1:] if argv is None else argv):
            parser().print_help(sys.stderr)
            return EXIT_CONFIG
        arguments = parser().parse_args(argv)
    except ConfigError as error:
        sys.stderr.write(f"pipeline: {error}\n")
        return EXIT_CONFIG
    handler = setup(arguments.log_level, format=arguments.log_format, quiet=arguments.quiet)
    threading.excepthook = _log_thread_fault
    code = EXIT_INTERNAL
    try:
        code = import_module(f"pipeline.cli.{arguments.module}").main(arguments, environ=os.environ)
    except PipelineError as error:
        code = error.exit_code
        for line in str(error).splitlines():
            logger.error("%s", line)
    except KeyboardInterrupt:
        code = EXIT_SIGINT
    except Exception:
        logger.exception("a fault of the pipeline; everything finished is kept")
    finally:
        _close(handler, code)
    return code


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; a wrong usage ends with code 2."""
    top = Parser(
        prog="pipeline",
        description="Send documents through a self-hosted language model and get JSON that can be trusted.",
        epilog=f"example:\n  pipeline run --input data/inbox --output out\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"pipeline {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(_command(commands, "run", "extract: documents in, results and errors out", _RUN_EXAMPLE))
    check = _command(commands, "check", "show the settings and look at every provider", _CHECK_EXAMPLE)
    _add_config_flags(check)
    _add_try(_command(commands, "try", "show what is asked about documents, and answered, now", _TRY_EXAMPLE))
    report = _command(commands, "report", "rebuild the report of an output; calls no model", _REPORT_EXAMPLE)
    _add_errors(_command(commands, "errors", "show what failed, why, and what to type", _ERRORS_EXAMPLE))
    _add_diff(_command(commands, "diff", "show what changed between two outputs", _DIFF_EXAMPLE))
    _add_out(report)
    _add_compact(_command(commands, "compact", "leave only the last line of each document", _COMPACT_EXAMPLE))
    _add_purge(_command(commands, "purge", "take documents out of an output", _PURGE_EXAMPLE))
    report.add_argument("--open", action="store_true", help="show report.html in the browser, too")
    report.add_argument("--text", action="store_true", help="print the summary only; write nothing")
    init = _command(commands, "init", "make a config, an agent and its schema to start from", _INIT_EXAMPLE)
    init.add_argument("folder", metavar="DIR", help="the project's folder; files that are there stay as they are")
    init.add_argument("--provider", choices=("vllm", "ollama"), default="vllm", help="default: vllm")
    schema = _command(commands, "schema", "print the JSON Schema of the config file", _SCHEMA_EXAMPLE)
    schema.add_argument("--agent", action="store_true", help="that of an agent file instead")
    return top


def _command(commands: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"{example}\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(module="try_document" if name == "try" else name, quiet=False)
    logs = command.add_argument_group("logs")
    logs.add_argument("--log-format", choices=("text", "json"), default="text")
    logs.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return command


def _add_config_flags(command: argparse.ArgumentParser, *, places: bool = True) -> None:
    add = command.add_argument_group("configuration (each beats the environment, the agent and the file)").add_argument
    add("--config", metavar="FILE", help="default: $PIPELINE_CONFIG, else config/default.yaml if it is there")
    if places:
        add("--input", metavar="URI", action="append", help="path, file or glob; repeatable")
        add("--output", metavar="URI", help="folder for results, errors and the report")
        add("--concurrency", metavar="N|auto", help="documents in flight")
    add("--agent", metavar="NAME", help="what is asked")
    add("--variant", metavar="ID", help="pins one variant of the agent")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="any setting by its dotted key; repeatable")


def _add_try(command: argparse.ArgumentParser) -> None:
    command.add_argument("input", nargs="+", metavar="FILE", help="a document, or a folder or file of several")
    command.add_argument("--limit", metavar="N", type=_count, default=10, help="documents at most; default: 10")
    _add_config_flags(command, places=False)


def _add_errors(command: argparse.ArgumentParser) -> None:
    _add_out(command)
    command.add_argument("--show", metavar="ID", help="one document's whole story: requests, answer, complaint, past")
    command.add_argument("--examples", metavar="N", type=_count, default=3, help="documents of each group; default: 3")
    command.add_argument("--json", action="store_true", help="for programs")


def _add_diff(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "outputs", metavar="OUT", nargs="+", help="the output before, and the one after: folders, s3://…"
    )
    command.add_argument("--by", choices=("fingerprint",), help="within one output: what was asked now and before")
    command.add_argument("--field", metavar="NAME", help="this field only, and how it changed: companies.sentiment")
    command.add_argument(
        "--key",
        metavar="LIST=FIELD",
        action="append",
        default=[],
        help="what tells the objects of a list apart: companies=ticker; repeatable",
    )
    command.add_argument("--json", action="store_true", help="for programs")
    _add_storage_flags(command)


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", metavar="OUT", help="the output: a folder, or s3://bucket/prefix, gs://…, az://…")
    _add_storage_flags(command)


def _add_storage_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("configuration (of the output in an object store: output.storage)").add_argument
    add("--config", metavar="FILE", help="default: $PIPELINE_CONFIG, else config/default.yaml if it is there")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="any setting by its dotted key; repeatable")


def _add_compact(command: argparse.ArgumentParser) -> None:
    _add_out(command)
    command.add_argument(
        "--format",
        choices=("jsonl", "parquet"),
        default="jsonl",
        help="parquet: write results.parquet, too (needs the extra `parquet`)",
    )


def _add_purge(command: argparse.ArgumentParser) -> None:
    _add_out(command)
    add = command.add_argument_group("what is removed; of several, what all of them name").add_argument
    add("--ids", metavar="FILE", help="documents by their ids, one a line; one still in the input is done again")
    add("--missing", action="store_true", help="documents that are no longer in the input")
    add("--input", metavar="URI", action="append", help="with --missing: the input; repeatable")
    add("--older-than", metavar="400d", type=_age_s, help="records that were finished longer ago")
    add("--dry-run", action="store_true", help="only say how many records would be removed")


def _add_run(command: argparse.ArgumentParser) -> None:
    _add_config_flags(command)
    add = command.add_argument_group("which documents").add_argument
    add("--limit", metavar="N", type=_count, help="try at most N documents; skipped ones don't count")
    add("--sample", metavar="N", type=_count, help="only N documents, a stable random choice")
    add("--shard", metavar="I/N", help="only the documents of shard I (from 0) of N")
    add(
        "--only-failed",
        metavar="REASON,...",
        nargs="?",
        const="",
        help="only failed documents, of these reasons if given",
    )
    add("--no-retry-failed", action="store_true", help="leave failed documents alone")
    add("--redo", choices=("changed", "none", "all"), help="what to do with done documents whose question changed")
    add = command.add_argument_group("how the run goes").add_argument
    add("--max-duration", metavar="5h", type=_duration_s, help="stop cleanly after this time (90s, 30m, 5h, 1h30m, 2d)")
    add("--run-id", metavar="ID", help="default: made from the time")
    add("--dry-run", action="store_true", help="say what would be done; calls no model, writes nothing")
    add("--progress", choices=("auto", "bar", "plain", "none"), default="auto")
    add("--quiet", action="store_true", help="nothing at all on exit 0: fit for cron mail")
    add = command.add_argument_group("metrics for Prometheus").add_argument
    add("--metrics-port", metavar="N", type=_port, help="serve them while it runs; 0 takes a free port and logs it")
    add("--metrics-textfile", metavar="FILE", type=Path, help="for node_exporter: written now and then, and at the end")
    add("--pushgateway", metavar="URL", type=_http_url, help="push them at the end, grouped by agent and shard")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, need a whole number of 1 or more")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}, need a port from 0 to 65535")
    return int(text)


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"got {mask_url(text)!r}, need a URL such as http://127.0.0.1:9091")
    return text


def _duration_s(text: str) -> float:
    """Seconds; units d, h, m, s, several in a row; a bare number is seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    raise argparse.ArgumentTypeError(f"got {text!r}, need a time such as 90s, 30m, 5h or 1h30m")


def _age_s(text: str) -> float:
    """As `_duration_s`, but never without a unit: 400 seconds, where 400 days were meant, would be nearly all."""
    if not text.endswith(tuple(_UNITS_S)):
        raise argparse.ArgumentTypeError(f"got {text!r}, need an age with its unit, such as 400d or 12h")
    return _duration_s(text)


def _log_thread_fault(fault: threading.ExceptHookArgs) -> None:
    name = fault.thread.name if fault.thread else "?"
    if fault.exc_value is not None:
        logger.error("a fault of the pipeline in thread %s", name, exc_info=fault.exc_value)


def _ready_streams() -> None:
    """Gives streams that the caller has closed (`>&-`) somewhere to go, and lets no locale refuse a document's name."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # before a file of ours gets the stream's number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _close(handler: LineHandler, code: int) -> None:
    if code != EXIT_OK:
        handler.flush_quiet()
    handler.close()
