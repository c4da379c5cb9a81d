"""`pipeline run`: its flags, and the options of one run; `run/session.py` runs it."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.engine import add_engine_flags, check_engine_flags, run_on_engine
from pipeline.cli.flags import CommaList, add_config_flags, count, duration_s, http_url, index, port, started_at

if TYPE_CHECKING:
    from pipeline.run.options import RunOptions

logger = logging.getLogger(__name__)

EXAMPLES = """examples:
  pipeline run --config config/prod.yaml
  pipeline run --input data/inbox --output out --agent extractor --set vllm.model=qwen3
  pipeline run --only-failed timeout,overloaded
  pipeline run --sample 200 --output out/trial --set agent=my_agent
  pipeline run --ids 2026/01/story.txt --redo all
  pipeline run --dry-run"""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_config_flags(command)
    _add_selection_flags(command)
    add = command.add_argument_group("execution").add_argument
    add("--max-duration", metavar="5h", type=duration_s, help="stop cleanly after this time (90s, 30m, 5h, 1h30m, 2d)")
    add(
        "--started-at",
        metavar="WHEN",
        help="--max-duration counts from WHEN: a time such as 2026-01-31T02:15:00Z, or the name of a CronJob's Job",
    )
    add(
        "--incomplete-exit",
        metavar="3",
        type=int,
        choices=(0, 3),
        default=0,
        help="exit code when documents are left after --max-duration or --limit: 3 makes a scheduler retry",
    )
    add("--run-id", metavar="ID", help="default: made from the time")
    add("--dry-run", action="store_true", help="print what would be done; call no model, write no file")
    add(
        "--progress",
        choices=("auto", "bar", "plain", "none"),
        default="auto",
        help="bar: on the terminal; plain: a log line every 30 s; default: bar on a terminal, else plain",
    )
    add("--profile-values", action="store_true", help="show frequent texts of answers in the report's profile")
    add("--quiet", action="store_true", help="print nothing on exit 0 (for cron mail)")
    add_engine_flags(command)
    _add_metrics_flags(command)


def _add_selection_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("which documents").add_argument
    add(
        "--ids",
        metavar="ID|@FILE",
        nargs="+",
        action="extend",
        default=[],
        help="only these documents, by id or path, or by the ids in a file; done ones too with --redo all",
    )
    add("--limit", metavar="N", type=count, help="process at most N documents; skipped ones do not count")
    add("--sample", metavar="N", type=count, help="only N documents, a stable random sample")
    share = command.add_argument_group(
        "the share of the documents that this machine processes"
    ).add_mutually_exclusive_group()
    share.add_argument("--chunk", metavar="I", type=index, help="only chunk I (from 0) of the plan (pipeline plan)")
    share.add_argument("--shard", metavar="I/N", help="only the documents of shard I (from 0) of N")
    add(
        "--only-failed",
        metavar="REASON,...",
        action=CommaList,
        nargs="?",
        const="",
        help="only failed documents, of these reasons if given",
    )
    add("--no-retry-failed", action="store_true", help="skip failed documents")
    add(
        "--redo",
        choices=("changed", "none", "all"),
        help="which done documents to extract again; default: those whose prompts, schema or model changed; "
        "failed documents are tried again in any case: see --no-retry-failed",
    )


def _add_metrics_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("metrics for Prometheus").add_argument
    add("--metrics-port", metavar="N", type=port, help="serve metrics during the run; 0: a free port, which is logged")
    add(
        "--metrics-host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="address to listen on; default: this machine only",
    )
    add("--metrics-textfile", metavar="FILE", type=Path, help="for node_exporter: written periodically and at the end")
    add("--pushgateway", metavar="URL", type=http_url, help="push metrics at the end; default: $PIPELINE_PUSHGATEWAY")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Run to the end, write the report, print the summary; return the exit code (docs/nightly.md)."""
    # imported here to keep `pipeline run --help` fast
    from pipeline.cli.arguments import config_file, load_app, same_command, say_config
    from pipeline.run.session import run

    check_engine_flags(arguments)
    file = config_file(arguments, environ=environ)
    say_config(file)
    if arguments.engine is not None and not arguments.dry_run:
        return run_on_engine(arguments, file=file, environ=environ)
    options = _options(arguments, environ=environ, command=same_command(arguments), file=file.path if file else None)
    return run(options, load=lambda: load_app(arguments, environ=environ), environ=environ)


def _options(
    arguments: argparse.Namespace, *, environ: Mapping[str, str], command: str, file: Path | None
) -> RunOptions:
    """Return the options that the flags set."""
    from pipeline.cli.accepting import named_documents
    from pipeline.run.options import RunOptions

    only = arguments.only_failed
    return RunOptions(
        ids=named_documents(arguments.ids),
        limit=arguments.limit,
        sample=arguments.sample,
        shard=arguments.shard,
        chunk=arguments.chunk,
        only_failed=None if only is None else frozenset(filter(None, only.split(","))),
        retry_failed=not arguments.no_retry_failed,
        redo=arguments.redo,
        max_duration_s=_remaining_s(arguments.max_duration, arguments.started_at),
        run_id=arguments.run_id,
        dry_run=arguments.dry_run,
        incomplete_exit=arguments.incomplete_exit,
        progress=arguments.progress,
        quiet=arguments.quiet,
        log_format=arguments.log_format,
        metrics_port=arguments.metrics_port,
        metrics_host=arguments.metrics_host,
        metrics_textfile=arguments.metrics_textfile,
        pushgateway=_pushgateway(arguments.pushgateway, environ),
        profile_values=arguments.profile_values,
        command=command,
        config_file=file,
    )


def _remaining_s(max_duration_s: float | None, started: str | None) -> float | None:
    """Return the seconds until this run must stop: 0 when that time has passed, None without a limit."""
    from pipeline.errors import ConfigError

    if started is None:
        return max_duration_s
    if max_duration_s is None:
        raise ConfigError(f"--started-at: got {started!r} without --max-duration, which counts from it")
    now = time.time()
    began = started_at(started, now=now)
    if began is None:
        logger.info("--started-at names no time, so that --max-duration counts from now", extra={"started_at": started})
        began = now
    return max(0.0, began + max_duration_s - now)


def _pushgateway(flag: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the flag, else of the environment; its password is masked in all output from now on."""
    from pipeline.config.redaction import SECRETS
    from pipeline.errors import ConfigError

    url = flag or environ.get("PIPELINE_PUSHGATEWAY") or None
    if url is None:
        return None
    SECRETS.add_url(url)
    try:
        return http_url(url)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"PIPELINE_PUSHGATEWAY: {error}") from error
