"""`pipeline try FILE…`: send documents now and print prompts, answers and verdicts, to develop a prompt.

It must not write a record, a lock or a report.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pipeline.cli.arguments import config_file, load_app, say_config
from pipeline.cli.flags import add_config_flags, count
from pipeline.cli.transcript import Transcript
from pipeline.config import AppConfig, InputSource
from pipeline.documents import FORMATS, ListingCounts, NamedDocuments, load_entries, possible_ids
from pipeline.documents.conversions import how_to_convert
from pipeline.errors import ConfigError, TryLaterError
from pipeline.logs import visible
from pipeline.output import left_out
from pipeline.records import Entry
from pipeline.run.plan import ExtractionPlan, address_warnings, build_plan, schema_warnings
from pipeline.run.refresh import Refresher
from pipeline.run.runner import start_thread
from pipeline.run.stop_rules import OutageTimer
from pipeline.terminal import hanging_indent, unwrapped_or_width, wants_colour, write_out

EXAMPLES = """examples:
  pipeline try inbox/example.txt
  pipeline try 2026/01/story.txt --agent appointments
  pipeline try inbox/annual-report.pdf --window 3"""


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    command.add_argument(
        "documents",
        nargs="+",
        metavar="ID|FILE",
        help="a document of the input, by id or path; or any file or folder of documents",
    )
    command.add_argument("--limit", metavar="N", type=count, default=10, help="at most N documents; default: 10")
    command.add_argument("--window", metavar="N", type=count, help="of a long document, send only its window N, from 1")
    add_config_flags(command, places=False)


def main(arguments: argparse.Namespace, *, environ: Mapping[str, str]) -> int:
    """Return 0 when every document gave a valid record, 1 when one failed, 3 when a server became unavailable."""
    app = _without_waiting(load_app(arguments, environ=environ))
    stop = threading.Event()
    say_config(config_file(arguments, environ=environ))
    plan = build_plan(app, stop=stop)
    entries = list(islice(_entries(app, arguments.documents), arguments.limit))
    try:
        for warning in [*address_warnings(app, plan), *schema_warnings(plan)]:
            lines = hanging_indent(f"warning: {warning}", indent=0, width=unwrapped_or_width(sys.stdout, environ))
            write_out("\n".join(lines))
        _find_server(app, plan, stop=stop)
        colour = wants_colour(sys.stdout, environ)
        width = unwrapped_or_width(sys.stdout, environ)
        transcript = Transcript(plan.client, colour=colour, width=width, agent_file=plan.agent.editable)
        codes = [transcript.document(entry, plan, window=arguments.window) for entry in entries]
    finally:
        plan.client.close()
    return max(codes)


def _without_waiting(app: AppConfig) -> AppConfig:
    """Return the configuration for interactive use: do not wait for an unavailable server."""
    return replace(app, runner=replace(app.runner, startup_wait_s=0.0))


def _entries(app: AppConfig, names: Sequence[str]) -> Iterator[Entry]:
    """Yield the named documents of the input, and for other names the documents of that path.

    Raise ConfigError for a name that is neither, or a path without documents.
    """
    outside = [name for name in names if Path(name).exists() and len(set(possible_ids(name, app.input))) == 1]
    documents = NamedDocuments([name for name in names if name not in outside], app.input)
    if documents.names_not_found():
        yield from documents.pick(load_entries(app.input, output=left_out(app), counts=ListingCounts()))
    for name in documents.names_not_found():
        if Path(name).exists():  # in the input's folder, but not a document of the input
            outside.append(name)
        else:
            raise ConfigError(
                f"try: got {visible(name)}: there is no such file or document of the input{documents.hint(name)}"
            )
    if not outside:
        return
    config = replace(app.input, uri=tuple(InputSource(name) for name in outside))
    counts = ListingCounts()
    yield from load_entries(config, output=None, counts=counts)
    if not counts.listed:
        uris = visible(", ".join(outside))
        advice = next(filter(None, map(how_to_convert, counts.ignored)), f"formats: {' '.join(FORMATS)}")
        raise ConfigError(f"try: got {uris}, which holds no document; {advice}")


def _find_server(app: AppConfig, plan: ExtractionPlan, *, stop: threading.Event) -> None:
    """Return when a provider is available; raise ConfigError or TryLaterError with the cause when none is."""
    timer = OutageTimer(replace(app.runner, max_outage_s=app.runner.startup_wait_s))
    timer.begin(0.0)
    Refresher(app, load=lambda: app, stop=stop).establish(plan, start=start_thread, log_wait=timer.log_start)
    trouble = plan.client.trouble
    if trouble is not None:
        raise TryLaterError(f"no provider is available: {trouble.message}")
