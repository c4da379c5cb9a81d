"""`pipeline purge [OUT]`: remove documents from an output, by id, by age, or because they are no longer in the input.

It must not remove a record unless the whole input could be listed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pipeline.cli.accepting import read_ids
from pipeline.cli.arguments import load_app, open_to_change, output_config
from pipeline.cli.flags import add_out, duration_s
from pipeline.config import AppConfig
from pipeline.documents import ListingCounts, fallback_id, load_entries
from pipeline.documents.containers import is_damaged
from pipeline.errors import EXIT_OK, ConfigError, TryLaterError
from pipeline.output import Index, left_out, scan
from pipeline.output.compaction import count, purge
from pipeline.output.purged_runs import RemovalTest
from pipeline.records import utc_now
from pipeline.report import build_report, read_summaries, write_report
from pipeline.report.run_summary import OutputCounts
from pipeline.terminal import plural, write_out
from pipeline.truth.gold_file import remove_documents

EXAMPLES = """examples:
  pipeline purge out --ids takedowns.txt
  pipeline purge out --missing --input data/inbox --dry-run
  pipeline purge s3://bucket/out --older-than 400d"""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    add_out(command)
    add = command.add_argument_group("records to remove (those that match all of these flags)").add_argument
    add(
        "--ids",
        metavar="FILE",
        help="documents by id, one per line; those still in the input are processed again by the next run",
    )
    add("--missing", action="store_true", help="documents that are no longer in the input")
    add("--input", metavar="URI", action="append", help="with --missing: the input; repeatable")
    add("--older-than", metavar="400d", type=duration_s, help="records that finished longer ago than this")
    add("--gold", metavar="FILE", help="remove these documents from a gold file too")
    add("--dry-run", action="store_true", help="only print how many records would be removed")


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Remove the records and rebuild the report; with --dry-run only print their number. Return the exit code."""
    if not (arguments.ids or arguments.missing or arguments.older_than):
        raise ConfigError("purge: got nothing to remove, need --ids FILE, --missing or --older-than 400d")
    config = output_config(arguments, environ=environ)
    with (
        _removal_tests(arguments, environ=environ) as is_chosen,
        open_to_change(config, arguments, environ=environ) as output,
    ):
        is_removed = _limited_to_older(is_chosen, arguments.older_than)
        results, errors = count(output.backend, output.index, is_removed=is_removed)
        windows = 0 if output.windows is None else output.windows.count(is_removed)
        if not arguments.dry_run:
            if output.windows is not None:
                output.windows.purge(is_removed)
            purge(output.backend, output.index, is_removed=is_removed)
            if runs := read_summaries(output.backend):
                index = scan(config)
                try:
                    write_report(output.backend.replace, build_report(runs, OutputCounts.from_json(index.counts())))
                finally:
                    index.close()
            if arguments.gold:
                lines = remove_documents(Path(arguments.gold), is_removed)
                write_out(f"{arguments.gold}: {plural(lines, 'line')} removed.")
        outcome = "would be removed" if arguments.dry_run else "were removed"
        parts = f", and {plural(windows, 'answer')} about parts of documents" if windows else ""
        write_out(f"{output.where}: {plural(results, 'result')} and {plural(errors, 'error')}{parts} {outcome}.")
    return EXIT_OK


@contextmanager
def _removal_tests(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> Iterator[Callable[[str], bool]]:
    """Yield the function that returns True for the id of a document to remove."""
    ids = read_ids(arguments.ids, flag="--ids") if arguments.ids else None
    if not arguments.missing:
        yield lambda document_id: ids is None or document_id in ids
        return
    app = load_app(arguments, environ=environ)
    listed = Index()
    try:
        _list(app, listed)
        yield lambda document_id: not listed.was_met(document_id) and (ids is None or document_id in ids)
    finally:
        listed.close()


def _list(app: AppConfig, listed: Index) -> None:
    """Record every id of the input; TryLaterError when the listing is incomplete, ConfigError when it is too short."""
    counts = ListingCounts()
    for entry in load_entries(app.input, output=left_out(app), counts=counts):
        if is_damaged(entry):
            raise TryLaterError(
                f"--missing: {entry.id} cannot be read to its end, so missing documents cannot be determined"
            )
        listed.mark_met(entry.id)
        listed.mark_met(fallback_id(entry))
    if counts.listed < max(1, app.input.min_documents):
        listing = f"found {counts.listed} documents in the input, need at least {max(1, app.input.min_documents)}"
        raise ConfigError(f"--missing: {listing}: all records would be removed")


def _limited_to_older(is_chosen: Callable[[str], bool], older_than_s: float | None) -> RemovalTest:
    """Return the choice, limited to records that finished at least `older_than_s` seconds ago."""
    if older_than_s is None:
        return lambda document_id, _: is_chosen(document_id)
    latest_time = utc_now(datetime.now(timezone.utc) - timedelta(seconds=older_than_s))
    return lambda document_id, finished_at: bool(finished_at) and finished_at < latest_time and is_chosen(document_id)
